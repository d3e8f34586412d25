//! A copy of what a gate knows, for people and for metrics.

use crate::gate::Gate;
use crate::ids::{ApiId, PodId};
use crate::ledger::Ledger;
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

impl Gate {
    /// A copy of what it knows.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let Ledger { pods, book, line, .. } = &self.ledger;
        let mut waiting = vec![0u64; self.apis.len()];
        for (_, waiter) in line.iter() {
            waiting[waiter.request.api.index()] += 1;
        }
        // What one gate of many was lent is no limit of the pool's.
        let rules = self.whole.as_ref().unwrap_or(book);
        let claim = self.ledger.claim().and_then(|(ticket, pod)| Some((line.get(ticket)?.request.api, pod)));
        let pods = pods.iter().filter(|(_, pod)| !pod.gone || pod.used > 0).map(|(id, pod)| PodSnapshot {
            id,
            name: pod.rule.name.clone(),
            capacity: pod.rule.capacity,
            in_use: pod.used,
            outside: pod.outside,
            ready: pod.ready,
            draining: pod.rule.draining,
            gone: pod.gone,
            refusals: pod.refusals,
        });
        let apis =
            self.apis.iter().enumerate().filter(|(_, api)| !api.gone).map(|(index, api)| ApiSnapshot {
                id: ApiId(index as u32),
                name: api.rule.name.clone(),
                weight: api.rule.weight,
                in_use: book.apis[index].used,
                waiting: waiting[index],
                min: rules.apis[index].min,
                max: rules.apis[index].max,
                counts: api.counts,
            });
        Snapshot {
            version: self.version,
            capacity: rules.capacity,
            in_use: book.pooled + book.trickled,
            waiting: line.len() as u64,
            waiting_units: line.units(),
            mode: self.mode,
            reserve: rules.reserve,
            share: rules.share,
            trickled: book.trickled,
            claim,
            pods: pods.collect(),
            apis: apis.collect(),
            abandoned_units: self.abandoned_units,
        }
    }
}
