//! The rules that requests read, swapped whole: a request sees one version from its first byte on.

use std::hash::{DefaultHasher, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue};
use sluicegate::{ApiId, Ask, Gate, PodId};
use sluicegate_config::{Config, OnDisconnect, Overflow, PodScheme, PodSettings, Routes, Upgrade};

/// The rules now in force: routes, api settings and the addresses of the pods.
///
/// Shared by the gateway, the admin listener and whoever changes the configuration.
pub struct Live {
    /// Swapped, never changed in place: one atomic load per request, no lock.
    rules: ArcSwap<Rules>,
}

/// One version of the rules.
pub(crate) struct Rules {
    pub(crate) pool: String,
    pub(crate) routes: Routes,
    /// By the index that [`Routes::find`] answers.
    pub(crate) apis: Vec<ApiRule>,
    /// Names by [`ApiId`], for problem documents only.
    names: Vec<String>,
    /// By [`PodId`]; `None` for a pod that this configuration does not list.
    pods: Vec<Option<Arc<PodTarget>>>,
    prefer: Option<PodId>,
    /// The header whose value is a caller's fairness key.
    fair_header: Option<HeaderName>,
}

/// What the proxy must know of an api.
#[derive(Clone, Copy)]
pub(crate) struct ApiRule {
    pub(crate) id: ApiId,
    pub(crate) exempt: bool,
    /// Until the response headers.
    pub(crate) max_hold: Duration,
    /// After the response headers.
    pub(crate) max_stream: Option<Duration>,
    /// Longest wait for room.
    pub(crate) wait: Duration,
    /// The lease of a tunnel ends at its 101.
    pub(crate) handshake_only: bool,
    /// What finds no room is kept for later.
    pub(crate) enqueues: bool,
}

/// Where a pod is and how it behaves. One `Arc` lives as long as the settings stay the same: idle
/// connections belong to it, so a changed address can never be served by an old connection.
pub(crate) struct PodTarget {
    pub(crate) id: PodId,
    pub(crate) settings: PodSettings,
    /// The address, if the host is a literal; else it is looked up at each connect.
    pub(crate) address: Option<SocketAddr>,
    /// For requests without a host of their own.
    pub(crate) host: HeaderValue,
    /// For HTTP/2 requests without an authority of their own.
    pub(crate) authority: Authority,
}

impl Live {
    /// The rules of `config`. The gate must already obey the same configuration: names are turned
    /// into its numbers here.
    #[must_use]
    pub fn new(gate: &Gate, config: &Config) -> Live {
        Live { rules: ArcSwap::from_pointee(Rules::new(gate, config, None)) }
    }

    /// Puts the rules of `config` in force for every request that arrives from now on. Call it
    /// after [`Gate::configure`] with the same configuration. Connections to pods whose settings
    /// did not change are kept.
    pub fn update(&self, gate: &Gate, config: &Config) {
        let old = self.rules.load();
        self.rules.store(Arc::new(Rules::new(gate, config, Some(&old))));
    }

    pub(crate) fn rules(&self) -> arc_swap::Guard<Arc<Rules>> {
        self.rules.load()
    }

    /// The pod's address now, or `None` if the configuration no longer lists it.
    pub(crate) fn pod(&self, id: PodId) -> Option<Arc<PodTarget>> {
        self.rules.load().pod(id).cloned()
    }
}

impl Rules {
    fn new(gate: &Gate, config: &Config, old: Option<&Rules>) -> Rules {
        let mut names = Vec::new();
        let mut apis = Vec::with_capacity(config.apis.len());
        for (settings, policy) in config.apis.iter().zip(&config.policy.apis) {
            // An api that the gate does not know yet falls to its last one, which is `default`.
            let id = gate.api_id(&settings.name).or_else(|| gate.api_id("default")).unwrap_or(ApiId(0));
            if names.len() <= id.index() {
                names.resize(id.index() + 1, String::new());
            }
            names[id.index()].clone_from(&settings.name);
            apis.push(ApiRule {
                id,
                exempt: policy.exempt,
                max_hold: settings.max_hold,
                max_stream: settings.max_stream,
                wait: Duration::from_micros(policy.wait_us),
                handshake_only: settings.upgrade == Upgrade::Handshake,
                enqueues: settings.overflow == Overflow::Enqueue,
            });
        }
        let mut pods: Vec<Option<Arc<PodTarget>>> = Vec::new();
        for settings in &config.pods {
            let Some(id) = gate.pod_id(&settings.name) else { continue };
            let Some(target) = PodTarget::reuse_or_new(id, settings, old) else {
                tracing::error!(pod = settings.name, url = %settings.url, "the pod's host is no valid HTTP authority; it gets no request");
                continue;
            };
            if pods.len() <= id.index() {
                pods.resize(id.index() + 1, None);
            }
            pods[id.index()] = Some(target);
        }
        let prefer = config.gateway.as_ref().and_then(|gateway| gateway.prefer.as_deref());
        Rules {
            pool: config.pool.clone(),
            routes: config.routes.clone(),
            apis,
            names,
            pods,
            prefer: prefer.and_then(|name| gate.pod_id(name)),
            fair_header: config.fair_header.as_deref().and_then(|name| name.parse().ok()),
        }
    }

    pub(crate) fn pod(&self, id: PodId) -> Option<&Arc<PodTarget>> {
        self.pods.get(id.index())?.as_ref()
    }

    /// The ask of a request: its api, the sidecar's pod and the caller's fairness key.
    pub(crate) fn ask(&self, api: ApiId, headers: &HeaderMap) -> Ask {
        let mut ask = Ask::new(api);
        if let Some(pod) = self.prefer {
            ask = ask.prefer(pod);
        }
        if let Some(value) = self.fair_header.as_ref().and_then(|name| headers.get(name)) {
            let mut hasher = DefaultHasher::new();
            hasher.write(value.as_bytes());
            ask = ask.key(hasher.finish());
        }
        ask
    }

    /// The rule of the api of this name.
    pub(crate) fn api_named(&self, name: &str) -> Option<ApiRule> {
        self.apis.iter().find(|rule| self.api_name(rule.id) == name).copied()
    }

    pub(crate) fn api_name(&self, id: ApiId) -> &str {
        self.names.get(id.index()).map_or("", String::as_str)
    }
}

impl PodTarget {
    fn reuse_or_new(id: PodId, settings: &PodSettings, old: Option<&Rules>) -> Option<Arc<PodTarget>> {
        let before = old.and_then(|rules| rules.pod(id));
        if let Some(before) = before.filter(|before| before.settings == *settings) {
            return Some(before.clone());
        }
        let authority = settings.url.authority();
        let bare = settings.url.host.trim_start_matches('[').trim_end_matches(']');
        Some(Arc::new(PodTarget {
            id,
            settings: settings.clone(),
            address: bare.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, settings.url.port)),
            host: HeaderValue::try_from(authority.as_str()).ok()?,
            authority: Authority::try_from(authority.as_str()).ok()?,
        }))
    }

    pub(crate) fn name(&self) -> &str {
        &self.settings.name
    }

    pub(crate) fn speaks_h2(&self) -> bool {
        self.settings.url.scheme == PodScheme::H2c
    }

    /// True if the pod stops working when its connection is cut.
    pub(crate) fn stops(&self) -> bool {
        self.settings.on_disconnect == OnDisconnect::Stops
    }
}
