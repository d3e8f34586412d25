//! The rules that streams read, swapped whole: a request sees one version.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use sluicegate::{ApiId, Ask, Gate, PodId};
use sluicegate_config::{Config, OnDisconnect, PodSettings, Routes};

use crate::message;
use crate::session::AS_USUAL;

/// The rules now in force.
pub struct Live {
    /// Swapped, never changed in place: one atomic load per request.
    rules: ArcSwap<Rules>,
}

/// One version of the rules.
pub(crate) struct Rules {
    pub(crate) pool: String,
    pub(crate) routes: Routes,
    /// By the index that [`Routes::find`] answers.
    pub(crate) apis: Vec<ApiRule>,
    /// By [`PodId`]; `None` for a pod that this configuration does not list.
    pods: Vec<Option<PodAt>>,
    by_address: HashMap<SocketAddr, PodId>,
    /// The header whose value is a caller's fairness key, in lower case.
    pub(crate) fair_header: Option<String>,
}

/// What this door must know of an api.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ApiRule {
    pub(crate) id: ApiId,
    pub(crate) exempt: bool,
    /// Longest wait for room.
    pub(crate) wait: Duration,
    /// Until the response headers.
    pub(crate) max_hold: Duration,
    /// After them.
    pub(crate) max_stream: Option<Duration>,
}

/// Where a pod is.
pub(crate) struct PodAt {
    /// As Envoy's endpoints have it; `None` while the name of its host is not known.
    pub(crate) address: Option<SocketAddr>,
    /// The same as the header's value.
    pub(crate) header: String,
    /// The usual answer to a request that it is chosen for.
    pub(crate) admitted: Bytes,
    /// It works on when its client is gone.
    pub(crate) continues: bool,
}

impl Live {
    /// The rules of `config`, which the gate must obey already. Hosts of pods that are names are looked up here, which may
    /// block for a moment.
    #[must_use]
    pub fn new(gate: &Gate, config: &Config) -> Live {
        Live { rules: ArcSwap::from_pointee(Rules::new(gate, config)) }
    }

    /// Puts the rules of `config` in force. Call it after [`Gate::configure`] with the same configuration.
    pub fn update(&self, gate: &Gate, config: &Config) {
        self.rules.store(Arc::new(Rules::new(gate, config)));
    }

    pub(crate) fn rules(&self) -> arc_swap::Guard<Arc<Rules>> {
        self.rules.load()
    }
}

impl Rules {
    fn new(gate: &Gate, config: &Config) -> Rules {
        let mut apis = Vec::with_capacity(config.apis.len());
        for (settings, policy) in config.apis.iter().zip(&config.policy.apis) {
            // An api that the gate does not know yet falls to its last one, which is `default`.
            let id = gate.api_id(&settings.name).or_else(|| gate.api_id("default")).unwrap_or(ApiId(0));
            apis.push(ApiRule {
                id,
                exempt: policy.exempt,
                wait: Duration::from_micros(policy.wait_us),
                max_hold: settings.max_hold,
                max_stream: settings.max_stream,
            });
        }
        let mut pods: Vec<Option<PodAt>> = Vec::new();
        let mut by_address = HashMap::new();
        for settings in &config.pods {
            let Some(id) = gate.pod_id(&settings.name) else { continue };
            let at = PodAt::new(settings);
            if let Some(address) = at.address {
                by_address.insert(address, id);
            }
            if pods.len() <= id.index() {
                pods.resize_with(id.index() + 1, || None);
            }
            pods[id.index()] = Some(at);
        }
        Rules {
            pool: config.pool.clone(),
            routes: config.routes.clone(),
            apis,
            pods,
            by_address,
            fair_header: config.fair_header.as_ref().map(|name| name.to_ascii_lowercase()),
        }
    }

    pub(crate) fn pod(&self, id: PodId) -> Option<&PodAt> {
        self.pods.get(id.index())?.as_ref()
    }

    /// Pods of this configuration.
    pub(crate) fn pod_count(&self) -> usize {
        self.pods.iter().flatten().count()
    }

    /// The pod at an address that Envoy wrote.
    pub(crate) fn pod_at(&self, address: &str) -> Option<PodId> {
        self.by_address.get(&address.parse().ok()?).copied()
    }
}

impl ApiRule {
    /// The ask of a request whose fairness key is `key`.
    pub(crate) fn ask(&self, key: Option<&[u8]>) -> Ask {
        let ask = Ask::new(self.id);
        let Some(key) = key else { return ask };
        let mut hasher = DefaultHasher::new();
        hasher.write(key);
        ask.key(hasher.finish())
    }
}

impl PodAt {
    fn new(settings: &PodSettings) -> PodAt {
        let place = (settings.url.host.trim_matches(['[', ']']), settings.url.port);
        let address = match place.to_socket_addrs() {
            // Envoy's endpoints are IPv4 far more often, where a name has both.
            Ok(found) => {
                let found: Vec<SocketAddr> = found.collect();
                found.iter().find(|at| at.is_ipv4()).or(found.first()).copied()
            }
            Err(error) => {
                tracing::error!(pod = settings.name, url = %settings.url, %error, "the pod's address is not known: Envoy cannot be told to use it, and what it is sent is counted when it answers");
                None
            }
        };
        let header = address.map(|address| address.to_string()).unwrap_or_default();
        PodAt {
            address,
            admitted: message::admitted(&header, Vec::new(), Some(AS_USUAL)),
            header,
            continues: settings.on_disconnect == OnDisconnect::Continues,
        }
    }
}
