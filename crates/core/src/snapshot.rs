//! A copy of what a gate knows, for people and for metrics.

use crate::ids::{ApiId, PodId};
use crate::policy::{Mode, Units};
use crate::stats::ApiCounts;

/// One moment of one gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Grows by one with each change of the policy.
    pub version: u64,
    /// C: declared units of the pods that count, capped by `admission.capacity`.
    pub capacity: Units,
    /// Units held by live leases.
    pub in_use: u64,
    /// Asks that wait.
    pub waiting: u64,
    /// Units that they ask for.
    pub waiting_units: u64,
    /// Whether decisions are obeyed.
    pub mode: Mode,
    /// Units of the reserve.
    pub reserve: Units,
    /// Units of the trickle.
    pub share: Units,
    /// Units held by leases that entered by the trickle.
    pub trickled: u64,
    /// Who holds a claim, by api, and on which pod.
    pub claim: Option<(ApiId, PodId)>,
    /// Every pod ever seen and not yet empty of meaning: gone ones are marked.
    pub pods: Vec<PodSnapshot>,
    /// Every api.
    pub apis: Vec<ApiSnapshot>,
    /// Units written off because a pod never ended its request.
    pub abandoned_units: u64,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSnapshot {
    /// Its number.
    pub id: PodId,
    /// Its name.
    pub name: String,
    /// Declared units.
    pub capacity: Units,
    /// Units held by live leases.
    pub in_use: Units,
    /// Units in use by others, by the pod's own word.
    pub outside: Units,
    /// Healthy, as the surface sees it.
    pub ready: bool,
    /// Takes nothing new.
    pub draining: bool,
    /// Left the source.
    pub gone: bool,
    /// Times its own lock refused.
    pub refusals: u64,
}

/// One api.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiSnapshot {
    /// Its number.
    pub id: ApiId,
    /// Its name.
    pub name: String,
    /// Units of one request.
    pub weight: Units,
    /// Units held by its leases.
    pub in_use: u64,
    /// Its asks that wait.
    pub waiting: u64,
    /// Guaranteed units.
    pub min: Units,
    /// Units at most.
    pub max: Option<Units>,
    /// Counters.
    pub counts: ApiCounts,
}
