//! What a server says of itself: its work and its replication.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Redis;

/// What one command has cost a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandUse {
    /// Times it ran.
    pub calls: u64,
    /// Time it took in all; within scripts its own part counts again.
    pub time: Duration,
}

impl Redis {
    /// One section of `INFO`, as names and values.
    ///
    /// # Panics
    /// While the server does not answer.
    #[must_use]
    pub fn info(&self, section: &str) -> BTreeMap<String, String> {
        let text: String = self.call(&["INFO", section]).expect("the server answers");
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
    }

    /// Processor time of the server since its start, user and system.
    ///
    /// # Panics
    /// While the server does not answer.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        let info = self.info("cpu");
        let seconds = |name: &str| -> f64 {
            info.get(name).and_then(|value| value.parse().ok()).expect("every server counts its time")
        };
        Duration::from_secs_f64(seconds("used_cpu_user") + seconds("used_cpu_sys"))
    }

    /// What each command has cost since the start or the last `CONFIG RESETSTAT`, by its name in lower case.
    ///
    /// # Panics
    /// While the server does not answer.
    #[must_use]
    pub fn commands(&self) -> BTreeMap<String, CommandUse> {
        let info = self.info("commandstats");
        let read = |(name, value): (String, String)| {
            let name = name.strip_prefix("cmdstat_")?.to_owned();
            let figure = |key: &str| -> Option<u64> {
                value.split(',').find_map(|pair| pair.strip_prefix(key)?.parse().ok())
            };
            let time = Duration::from_micros(figure("usec=")?);
            Some((name, CommandUse { calls: figure("calls=")?, time }))
        };
        info.into_iter().filter_map(read).collect()
    }

    /// Bytes of the replication stream that this server has: as a master what it wrote, as a replica what reached it.
    ///
    /// # Panics
    /// While the server does not answer.
    #[must_use]
    pub fn offset(&self) -> u64 {
        let info = self.info("replication");
        let is_replica = info.get("role").is_some_and(|role| role == "slave");
        let name = if is_replica { "slave_repl_offset" } else { "master_repl_offset" };
        info.get(name).and_then(|value| value.parse().ok()).expect("every server has an offset")
    }

    /// Whether it is a master now; false while it does not answer.
    #[must_use]
    pub fn is_master(&self) -> bool {
        self.has("replication", "role", "master")
    }

    /// Whether it is a replica with its master at hand; false while it does not answer.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.has("replication", "master_link_status", "up")
    }

    /// Whether a section of INFO has this line; false while the server does not answer.
    pub(super) fn has(&self, section: &str, name: &str, value: &str) -> bool {
        let text = self.call::<String>(&["INFO", section]).unwrap_or_default();
        text.lines().any(|line| line.split_once(':').is_some_and(|(n, v)| n == name && v.trim() == value))
    }
}
