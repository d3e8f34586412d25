//! A pool as one process runs it: the gate, its live configuration, and where its pods come from.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use sluicegate::Gate;
use sluicegate::policy::PodPolicy;
use sluicegate_config::{
    Config, LedgerSettings, OnDisconnect, PodSettings, PodSource, PodUrl, Problem, Problems,
};
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
    let enqueues = config.apis.iter().filter(|api| api.overflow != sluicegate_config::Overflow::Reject);
    for api in enqueues {
        missing.push(format!("api `{}`: `overflow: enqueue` is not in this version; remove it", api.name));
    }
    missing
}

/// Puts the pods into a configuration whose source is a name or a file; a listed one stays as it is.
///
/// # Errors
/// What could not be looked up or read, in words.
pub(crate) fn resolve(config: &mut Config) -> Result<(), String> {
    let pods = match &config.source {
        PodSource::Listed | PodSource::Registered => return Ok(()),
        PodSource::Dns { scheme, host, port, capacity, .. } => {
            let found = (host.as_str(), *port).to_socket_addrs();
            let mut found: Vec<SocketAddr> =
                found.map_err(|error| format!("pods: `{host}` cannot be looked up: {error}"))?.collect();
            found.sort_unstable();
            found.dedup();
            let pod = |address: SocketAddr| {
                let name = address.to_string();
                let url = PodUrl { scheme: *scheme, host: address.ip().to_string(), port: address.port() };
                let settings =
                    PodSettings { name: name.clone(), url, on_disconnect: OnDisconnect::default() };
                (PodPolicy::new(&name, *capacity), settings)
            };
            found.into_iter().map(pod).collect()
        }
        PodSource::File { path } => sluicegate_config::load_pods(path, &|name| std::env::var(name).ok())
            .map_err(|problems| problems.to_string())?,
    };
    (config.policy.pods, config.pods) = pods.into_iter().unzip();
    Ok(())
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
}

struct Rules {
    /// As the file says.
    file: Config,
    /// All patches so far, merged.
    patches: Value,
    /// What is in force.
    current: Config,
}

impl Pool {
    /// # Errors
    /// The pods cannot be found, or the rules cannot be obeyed, in words.
    pub(crate) fn new(file: Config) -> Result<Arc<Pool>, String> {
        let mut current = file.clone();
        resolve(&mut current)?;
        let gate = Gate::new(current.policy.clone()).map_err(|error| error.to_string())?;
        let live = Arc::new(Live::new(&gate, &current));
        let rules = Mutex::new(Rules { file, patches: Value::Object(Default::default()), current });
        Ok(Arc::new(Pool { gate, live, rules }))
    }

    /// Looks at the pods' source again and takes what changed. A source that fails changes nothing: the
    /// pods that were known go on.
    ///
    /// # Errors
    /// What failed, in words.
    pub(crate) fn refresh(&self) -> Result<bool, String> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let mut config = rules.current.clone();
        resolve(&mut config)?;
        if config.pods == rules.current.pods && config.policy.pods == rules.current.policy.pods {
            return Ok(false);
        }
        self.obey(&mut rules, config).map_err(|problems| problems.to_string())?;
        Ok(true)
    }

    fn obey(&self, rules: &mut Rules, config: Config) -> Result<u64, Problems> {
        let version = self.gate.configure(config.policy.clone()).map_err(|error| {
            Problems(vec![Problem {
                file: String::new(),
                line: 0,
                column: 0,
                what: error.to_string(),
                mend: "correct the value".to_owned(),
            }])
        })?;
        self.live.update(&self.gate, &config);
        rules.current = config;
        Ok(version)
    }
}

impl Control for Pool {
    fn patch(&self, patch: Value) -> Result<PatchAnswer, Problems> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let mut patches = rules.patches.clone();
        sluicegate_config::merge(&mut patches, &patch);
        let mut config = rules.file.patch(&patches)?;
        if every(&config.source).is_some() {
            config.pods.clone_from(&rules.current.pods);
            config.policy.pods.clone_from(&rules.current.policy.pods);
        }
        let version = self.obey(&mut rules, config)?;
        rules.patches = patches;
        Ok(PatchAnswer { version, acknowledged: 1, gates: 1 })
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}
