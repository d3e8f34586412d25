//! A pool as one process runs it: the gate, its live configuration, and where its pods come from.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use sluicegate::Gate;
use sluicegate_config::{Config, LedgerSettings, Overflow, PodSource, Problem, Problems};
use sluicegate_gateway::{Control, Live, PatchAnswer};

/// Sections of `config` that this version cannot take on, in words.
pub(crate) fn missing(config: &Config) -> Vec<String> {
    let mut missing = Vec::new();
    if config.ledger != LedgerSettings::Memory {
        missing.push("`ledger: {redis}` is not in this version; write `ledger: memory`".to_owned());
    }
    if config.decisions.is_some() {
        missing
            .push("`decisions` (the decision service) is not in this version; remove the section".to_owned());
    }
    if config.source == PodSource::Registered {
        missing.push("`pods: {registered: true}` is not in this version; list the pods".to_owned());
    }
    let enqueues = config.apis.iter().filter(|api| api.overflow != Overflow::Reject);
    for api in enqueues {
        missing.push(format!("api `{}`: `overflow: enqueue` is not in this version; remove it", api.name));
    }
    missing
}

/// The configuration with its pods in it, where the source is a name or a file; one that lists them stays
/// as it is.
///
/// # Errors
/// What could not be looked up, read or obeyed, in words.
pub(crate) fn resolve(config: &Config) -> Result<Config, String> {
    let loaded = match &config.source {
        PodSource::Listed | PodSource::Registered => return Ok(config.clone()),
        PodSource::Dns { scheme, host, port, capacity, .. } => {
            let found = (host.as_str(), *port).to_socket_addrs();
            let found = found.map_err(|error| format!("pods: `{host}` cannot be looked up: {error}"))?;
            let mut found: Vec<SocketAddr> = found.collect();
            found.sort_unstable();
            found.dedup();
            let pod = |address: SocketAddr| {
                sluicegate_config::dns_pod(*scheme, address.ip().to_string(), address.port(), *capacity)
            };
            config.with_pods(found.into_iter().map(pod).collect())
        }
        PodSource::File { path } => {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| format!("pods: {} cannot be read: {error}", path.display()))?;
            config.with_pod_file(&path.display().to_string(), &text, &|name| std::env::var(name).ok())
        }
    };
    loaded.map(|loaded| loaded.config).map_err(|problems| problems.to_string())
}

/// How often a source that can change is looked at; `None` for one that cannot.
pub(crate) fn every(source: &PodSource) -> Option<Duration> {
    match source {
        PodSource::Listed | PodSource::Registered => None,
        PodSource::Dns { every, .. } => Some(*every),
        PodSource::File { .. } => Some(Duration::from_secs(1)),
    }
}

/// One pool and its live configuration.
pub(crate) struct Pool {
    pub(crate) gate: Gate,
    pub(crate) live: Arc<Live>,
    rules: Mutex<Rules>,
    draining: AtomicBool,
}

struct Rules {
    /// As the file and the pods' source say.
    base: Config,
    /// All patches so far, merged.
    patches: Value,
}

impl Pool {
    /// # Errors
    /// The pods cannot be found, or the rules cannot be obeyed, in words.
    pub(crate) fn new(file: &Config) -> Result<Arc<Pool>, String> {
        let base = resolve(file)?;
        let gate = Gate::new(base.policy.clone()).map_err(|error| error.to_string())?;
        let live = Arc::new(Live::new(&gate, &base));
        let rules = Mutex::new(Rules { base, patches: Value::Object(Default::default()) });
        Ok(Arc::new(Pool { gate, live, rules, draining: AtomicBool::new(false) }))
    }

    /// From now on this process wants no traffic.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Looks at the pods' source again and takes what changed. A source that fails changes nothing: the
    /// pods that were known go on.
    ///
    /// # Errors
    /// What failed, in words.
    pub(crate) fn refresh(&self) -> Result<bool, String> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let base = resolve(&rules.base)?;
        if base.pods == rules.base.pods && base.policy.pods == rules.base.policy.pods {
            return Ok(false);
        }
        let current = base.patch(&rules.patches).map_err(|problems| problems.to_string())?;
        self.obey(&current).map_err(|problems| problems.to_string())?;
        rules.base = base;
        Ok(true)
    }

    fn obey(&self, config: &Config) -> Result<u64, Problems> {
        let version = self.gate.configure(config.policy.clone()).map_err(|error| {
            let what = error.to_string();
            let mend = "correct the value".to_owned();
            Problems(vec![Problem { file: "rules".to_owned(), line: 0, column: 0, what, mend }])
        })?;
        self.live.update(&self.gate, config);
        Ok(version)
    }
}

impl Control for Pool {
    fn patch(&self, patch: Value) -> Result<PatchAnswer, Problems> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let mut patches = rules.patches.clone();
        sluicegate_config::merge(&mut patches, &patch);
        let config = rules.base.patch(&patches)?;
        let version = self.obey(&config)?;
        rules.patches = patches;
        Ok(PatchAnswer { version, acknowledged: 1, gates: 1 })
    }

    fn ready(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Relaxed) { Err("draining".to_owned()) } else { Ok(()) }
    }
}
