//! What requests read of the configuration, swapped whole: a request sees one version.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sluicegate::{ApiId, Gate, PodId};
use sluicegate_config::{Config, Routes};

use crate::names::short;

/// The rules now in force: routes, apis and where the pods are. Shared by the service and whoever changes the
/// configuration.
pub struct Directory {
    rules: ArcSwap<Rules>,
}

/// One version of the rules.
pub(crate) struct Rules {
    pub(crate) pool: String,
    routes: Routes,
    /// By the index that [`Routes::find`] answers.
    pub(crate) apis: Vec<ApiRule>,
    /// By [`PodId`]; `None` for a pod that this configuration does not list.
    pods: Vec<Option<Arc<Pod>>>,
    /// The header whose value is a caller's fairness key.
    pub(crate) fair_header: Option<String>,
}

/// What a caller must know of an api.
#[derive(Clone, Debug)]
pub(crate) struct ApiRule {
    pub(crate) id: ApiId,
    pub(crate) name: String,
    /// [`short`] of it.
    pub(crate) short: u32,
    pub(crate) exempt: bool,
    pub(crate) max_hold: Duration,
}

/// Where a pod is.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) id: PodId,
    pub(crate) name: String,
    /// [`short`] of it.
    pub(crate) short: u32,
    pub(crate) url: String,
    /// `host:port`, to connect to.
    pub(crate) authority: String,
}

impl Directory {
    /// The rules of `config`. The gate must already obey the same configuration: names are turned into its numbers
    /// here.
    #[must_use]
    pub fn new(gate: &Gate, config: &Config) -> Directory {
        Directory { rules: ArcSwap::from_pointee(Rules::new(gate, config)) }
    }

    /// Puts the rules of `config` in force for every request that arrives from now on. Call it after
    /// [`Gate::configure`] with the same configuration.
    pub fn update(&self, gate: &Gate, config: &Config) {
        self.rules.store(Arc::new(Rules::new(gate, config)));
    }

    pub(crate) fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }
}

impl Rules {
    fn new(gate: &Gate, config: &Config) -> Rules {
        let apis = config.apis.iter().zip(&config.policy.apis).map(|(settings, policy)| ApiRule {
            // An api that the gate does not know yet falls to its last one, which is `default`.
            id: gate.api_id(&settings.name).or_else(|| gate.api_id("default")).unwrap_or(ApiId(0)),
            name: settings.name.clone(),
            short: short(&settings.name),
            exempt: policy.exempt,
            max_hold: settings.max_hold,
        });
        let mut pods: Vec<Option<Arc<Pod>>> = Vec::new();
        for settings in &config.pods {
            let Some(id) = gate.pod_id(&settings.name) else { continue };
            if pods.len() <= id.index() {
                pods.resize(id.index() + 1, None);
            }
            let (name, short) = (settings.name.clone(), short(&settings.name));
            let authority = settings.url.authority();
            pods[id.index()] =
                Some(Arc::new(Pod { id, name, short, url: settings.url.to_string(), authority }));
        }
        Rules {
            pool: config.pool.clone(),
            routes: config.routes.clone(),
            apis: apis.collect(),
            pods,
            fair_header: config.fair_header.clone(),
        }
    }

    pub(crate) fn route(&self, method: &str, path: &str) -> &ApiRule {
        &self.apis[self.routes.find(method, path)]
    }

    pub(crate) fn api(&self, name: &str) -> Option<&ApiRule> {
        self.apis.iter().find(|api| api.name == name)
    }

    pub(crate) fn pod(&self, id: PodId) -> Option<&Arc<Pod>> {
        self.pods.get(id.index())?.as_ref()
    }

    pub(crate) fn pod_named(&self, name: &str) -> Option<&Arc<Pod>> {
        self.pods.iter().flatten().find(|pod| pod.name == name)
    }

    /// The api of a [`Tag`](crate::names::Tag).
    pub(crate) fn api_short(&self, short: u32) -> Option<&ApiRule> {
        self.apis.iter().find(|api| api.short == short)
    }

    /// The pod of a [`Tag`](crate::names::Tag).
    pub(crate) fn pod_short(&self, short: u32) -> Option<&Arc<Pod>> {
        self.pods().find(|pod| pod.short == short)
    }

    pub(crate) fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().flatten()
    }
}

/// A caller's fairness key from the value of its header.
pub(crate) fn fair_key(value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(value);
    hasher.finish()
}
