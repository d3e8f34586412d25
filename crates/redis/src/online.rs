//! Is a Redis fit to hold a ledger? For `check --online`, and for warnings at the start of `run`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use redis::{Value, cmd};
use sluicegate::link::{LinkError, LinkErrorKind};
use sluicegate_core::shared::GateId;

use crate::ear::RedisEar;
use crate::fault;
use crate::greet::{line_of, text};
use crate::keys::Keys;
use crate::scripts::{ACCESS, DOCUMENT, EXCHANGE, GATES, PROBE};
use crate::settings::{Kind, Settings};
use crate::topology::Dialer;
use crate::wire::Wire;

/// For each step of the look.
const TIME: Duration = Duration::from_secs(2);

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The ledger does not work, or may admit too much when a server dies.
    Error,
    /// It works; something could not be seen, or makes it slow.
    Warning,
}

/// Something about a server that should be otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was found, and why it matters.
    pub what: String,
    /// What to do.
    pub mend: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  mend: {}", self.what, self.mend)
    }
}

/// Looks at the server as a gate with these settings would use it. Errors come first. Blocks for some seconds at most
/// per address. Leaves nothing behind at the server but the scripts.
#[must_use]
pub fn check(settings: &Settings, pool: &str, ttl: Duration) -> Vec<Finding> {
    let keys = Keys::of(pool);
    let dialer = Dialer { settings: settings.clone(), time: TIME };
    let mut findings = match dialer.dial(&keys) {
        Err(error) => vec![of_link(&error)],
        Ok((wire, _)) => {
            let mut look = Look { wire, keys, ttl, findings: Vec::new() };
            if let Err(error) = look.all(settings, &dialer) {
                look.findings.push(of_link(&error));
            }
            look.findings
        }
    };
    findings.sort_by_key(|finding| finding.severity);
    findings
}

fn of_link(error: &LinkError) -> Finding {
    let mend = match error.kind {
        LinkErrorKind::Unreachable => "see that it runs there, and that this host may reach it",
        LinkErrorKind::Lost => "see its log",
        LinkErrorKind::Refused => "see docs/redis.md, \"When it says no\"",
        LinkErrorKind::Protocol => "is it a Redis? If so, please report this",
    };
    Finding { severity: Severity::Error, what: error.to_string(), mend: mend.to_owned() }
}

struct Look {
    wire: Wire,
    keys: Keys,
    ttl: Duration,
    findings: Vec<Finding>,
}

impl Look {
    /// Fails only when the connection does.
    fn all(&mut self, settings: &Settings, dialer: &Dialer) -> Result<(), LinkError> {
        self.rights(settings)?;
        self.subscription(dialer);
        let memory = self.info("memory")?;
        self.eviction(&memory);
        let replication = self.info("replication")?;
        let names = [
            "min-replicas-to-write",
            "min-replicas-max-lag",
            "cluster-node-timeout",
            "appendonly",
            "appendfsync",
        ];
        let config = self.config(&names)?;
        if config.is_none() {
            let what = "`CONFIG GET` is forbidden to this user, so some settings could not be read";
            let mend = "give it `+config|get` for this look, or compare them with docs/redis.md by hand";
            self.warning(what.to_owned(), mend.to_owned());
        }
        match settings.kind {
            Kind::Cluster => self.node_timeout(config.as_ref()),
            Kind::Single | Kind::Sentinel(_) => {
                let is_guarded = matches!(settings.kind, Kind::Sentinel(_));
                self.replicas(is_guarded, &replication, config.as_ref());
            }
        }
        if let Some(config) = &config {
            self.persistence(config);
        }
        Ok(())
    }

    fn error(&mut self, what: String, mend: String) {
        self.findings.push(Finding { severity: Severity::Error, what, mend });
    }

    fn warning(&mut self, what: String, mend: String) {
        self.findings.push(Finding { severity: Severity::Warning, what, mend });
    }

    /// The scripts may be loaded and run, and each of their commands is allowed.
    fn rights(&mut self, settings: &Settings) -> Result<(), LinkError> {
        let user = settings.user.as_deref().unwrap_or("default");
        let mend = format!("ACL SETUSER {user} {ACCESS}");
        for script in [DOCUMENT, GATES] {
            if let Err(error) = script.load(&mut self.wire, TIME) {
                return self.no_right(error, mend);
            }
        }
        // Without keys it does nothing.
        let called = EXCHANGE.load(&mut self.wire, TIME).and_then(|exchange| {
            let command = exchange.command(&[]);
            exchange.run(&mut self.wire, &command, TIME)
        });
        if let Err(error) = called {
            return self.no_right(error, mend);
        }
        let run = PROBE.load(&mut self.wire, TIME).and_then(|probe| {
            let mut command = probe.command(&[self.keys.probe()]);
            command.arg(self.keys.named("to:probe"));
            probe.run(&mut self.wire, &command, TIME)
        });
        let failed = match run {
            Ok(Value::Array(failed)) => failed,
            Ok(other) => {
                return Err(fault::protocol(self.wire.place(), &format!("probe.lua answered {other:?}")));
            }
            Err(error) => return self.no_right(error, mend),
        };
        let mut by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in failed.chunks(2) {
            let command = pair.first().and_then(text).unwrap_or("?").to_ascii_lowercase();
            let said = pair.get(1).and_then(text).unwrap_or("?");
            let reason = if fault::is_missing_right(said) { "ACL" } else { said };
            by_reason.entry(reason.to_owned()).or_default().push(command);
        }
        for (reason, mut commands) in by_reason {
            commands.sort();
            commands.dedup();
            let commands = commands.join(", ");
            if reason == "ACL" {
                let what = format!("user `{user}` may not do what the ledger's scripts do: {commands}");
                self.error(what, mend.clone());
            } else {
                self.error(
                    format!("{} refused {commands}: {reason}", self.wire.place()),
                    "see docs/redis.md, \"When it says no\"".to_owned(),
                );
            }
        }
        Ok(())
    }

    fn no_right(&mut self, error: LinkError, mend: String) -> Result<(), LinkError> {
        if error.kind != LinkErrorKind::Refused {
            return Err(error);
        }
        self.error(error.to_string(), mend);
        Ok(())
    }

    /// A gate's second connection may subscribe to its channel.
    fn subscription(&mut self, dialer: &Dialer) {
        let nobody = GateId(0);
        let ear = dialer.dial(&self.keys).and_then(|(wire, _)| {
            let channel = self.keys.channel(nobody);
            RedisEar::new(wire, channel, TIME, TIME)?.ping(TIME)
        });
        if let Err(error) = ear {
            let mend = "give its user `+subscribe`, `+ping` and the channels `&sluicegate:*`".to_owned();
            self.error(error.to_string(), mend);
        }
    }

    fn info(&mut self, section: &str) -> Result<String, LinkError> {
        let said = self.wire.call("INFO", cmd("INFO").arg(section), TIME)?;
        Ok(text(&said).unwrap_or_default().to_owned())
    }

    /// Settings by name; `None` when they are not to be read.
    fn config(&mut self, names: &[&str]) -> Result<Option<BTreeMap<String, String>>, LinkError> {
        let said = self.wire.hear(cmd("CONFIG").arg("GET").arg(names), TIME)?;
        let Ok(Value::Array(said)) = said else { return Ok(None) };
        let pair = |pair: &[Value]| Some((text(pair.first()?)?.to_owned(), text(pair.get(1)?)?.to_owned()));
        Ok(Some(said.chunks(2).filter_map(pair).collect()))
    }

    fn eviction(&mut self, memory: &str) {
        let policy = line_of(memory, "maxmemory_policy").unwrap_or("unknown");
        if policy == "noeviction" || policy.starts_with("volatile-") {
            return;
        }
        self.error(
            format!("`maxmemory-policy` is `{policy}`: a full server would throw the ledger's keys away, and the pool \
                     would stand still until all earlier credit has ended"),
            "CONFIG SET maxmemory-policy noeviction (or a volatile-* one: the ledger's keys never expire)".to_owned(),
        );
    }

    /// An old master that the others have left must stop writing before its gates' credit is given anew.
    fn replicas(&mut self, is_guarded: bool, info: &str, config: Option<&BTreeMap<String, String>>) {
        let count: u32 = line_of(info, "connected_slaves").and_then(|count| count.parse().ok()).unwrap_or(0);
        if count == 0 && !is_guarded {
            return;
        }
        let number = |name: &str| config.and_then(|config| config.get(name)?.parse::<u64>().ok());
        let why = "after a fail-over the old master could go on beside the new one, and both would lend the same units";
        // Whom it renews last admits for ttl x 4/5; its successor lends again after ttl x 6/5.
        let fence = self.ttl * 2 / 5;
        let most = fence.as_secs().max(1);
        let mend = format!("CONFIG SET min-replicas-to-write 1 min-replicas-max-lag {most}, on each server");
        // The server shows this line only while both settings are on.
        let is_on = line_of(info, "min_slaves_good_slaves").is_some();
        match (number("min-replicas-to-write"), number("min-replicas-max-lag")) {
            (Some(0), _) | (_, Some(0)) => {
                self.error(format!("`min-replicas-to-write` or `min-replicas-max-lag` is 0: {why}"), mend);
            }
            (Some(_), Some(lag)) => {
                if Duration::from_secs(lag) > fence {
                    let part = fence.as_millis();
                    self.error(
                        format!(
                            "`min-replicas-max-lag` is {lag} s, more than two fifths of `ttl` ({part} ms): {why}"
                        ),
                        // Whole seconds are the server's unit: a shorter ttl cannot be met.
                        if fence < Duration::from_secs(1) {
                            format!("raise `ttl` to {} s", (5 * lag).div_ceil(2))
                        } else {
                            mend
                        },
                    );
                }
            }
            _ if is_on => {
                let what = "`min-replicas-max-lag` could not be read".to_owned();
                self.warning(what, format!("see that it is at most {most} s, two fifths of `ttl`"));
            }
            _ => self.error(format!("`min-replicas-to-write` or `min-replicas-max-lag` is 0: {why}"), mend),
        }
    }

    fn node_timeout(&mut self, config: Option<&BTreeMap<String, String>>) {
        let most = (self.ttl / 2).as_millis();
        let mend = format!("CONFIG SET cluster-node-timeout {most}, on each node; or raise `ttl`");
        let found = config.and_then(|config| config.get("cluster-node-timeout")?.parse::<u64>().ok());
        match found {
            Some(found) if u128::from(found) > most => self.error(
                format!("`cluster-node-timeout` is {found} ms, more than half of `ttl` ({most} ms): a master that was \
                         cut off could go on beside its successor, and both would lend the same units"),
                mend,
            ),
            Some(_) => {}
            None => {
                let what = "`cluster-node-timeout` could not be read".to_owned();
                self.warning(what, format!("see that it is at most {most} ms, half of `ttl`"));
            }
        }
    }

    fn persistence(&mut self, config: &BTreeMap<String, String>) {
        let is = |name: &str, value: &str| config.get(name).is_some_and(|found| found == value);
        if is("appendonly", "yes") && is("appendfsync", "always") {
            self.warning(
                "`appendfsync always`: each exchange waits for the disk, and the ledger gains nothing by it"
                    .to_owned(),
                "CONFIG SET appendfsync everysec".to_owned(),
            );
        }
    }
}
