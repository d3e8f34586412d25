//! `GET /v1/state`: one moment of the pool, for people and tools.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;
use sluicegate::policy::Mode;
use sluicegate::snapshot::{ApiSnapshot, PodSnapshot};
use sluicegate::{Gate, Reason, Snapshot};

use crate::live::{Live, Rules};

/// The whole answer.
#[derive(Serialize)]
pub(crate) struct State {
    pool: String,
    version: u64,
    capacity: u32,
    in_use: u64,
    credit: u64,
    waiting: u64,
    mode: &'static str,
    /// Milliseconds on this gate's own clock, for rates: it never goes back.
    at_ms: u64,
    waiting_units: u64,
    /// Units that only protected apis may take.
    reserve: u32,
    /// Units of the trickle, and those that its leases hold.
    share: u32,
    trickled: u64,
    claim: Option<ClaimState>,
    abandoned_units: u64,
    pods: Vec<PodState>,
    apis: Vec<ApiState>,
    gates: [GateState; 1],
    ledger: LedgerState,
}

#[derive(Serialize)]
struct PodState {
    name: String,
    url: String,
    capacity: u32,
    in_use: u32,
    ready: bool,
    draining: bool,
    /// Units in use by others, by the pod's own word.
    outside: u32,
    /// Times that its own lock refused.
    refusals: u64,
}

/// The best-ranked waiter's hold on a pod.
#[derive(Serialize)]
struct ClaimState {
    api: String,
    pod: String,
}

#[derive(Serialize)]
struct ApiState {
    name: String,
    weight: u32,
    in_use: u64,
    waiting: u64,
    min: u32,
    max: Option<u32>,
    /// This and what follows only grows, as the metrics of the same names do.
    admitted: u64,
    refused: BTreeMap<&'static str, u64>,
    cancelled: u64,
    failed: u64,
    exempt: u64,
    /// What the admitted waited, together.
    waited_us: u64,
}

#[derive(Serialize)]
struct GateState {
    id: String,
    label: String,
    in_use: u64,
    credit: u64,
    waiting: u64,
    last_seen_ms: u64,
}

#[derive(Serialize)]
struct LedgerState {
    kind: &'static str,
    up: bool,
    exchanges: u64,
    pace_ms: u64,
    recovering: bool,
}

/// Who this gate is, for as long as the process lives.
pub(crate) struct Identity {
    id: String,
    label: String,
    began: Instant,
}

impl Identity {
    /// A random id, and the host's name as label (the process id where it is not known).
    pub(crate) fn new() -> Identity {
        let label = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
        Identity {
            id: format!("{:032x}", fastrand::u128(..)),
            label: label.unwrap_or_else(|| format!("process {}", std::process::id())),
            began: Instant::now(),
        }
    }
}

/// The state now. With the memory ledger this gate is the only one, and it holds no credit.
pub(crate) fn now(gate: &Gate, live: &Live, who: &Identity) -> State {
    let rules = live.rules();
    let now = gate.snapshot();
    State {
        pool: rules.pool.clone(),
        version: now.version,
        capacity: now.capacity,
        in_use: now.in_use,
        credit: 0,
        waiting: now.waiting,
        mode: match now.mode {
            Mode::Enforce => "enforce",
            Mode::Shadow => "shadow",
            Mode::Off => "off",
        },
        at_ms: who.began.elapsed().as_millis() as u64,
        waiting_units: now.waiting_units,
        reserve: now.reserve,
        share: now.share,
        trickled: now.trickled,
        claim: claim(&now),
        abandoned_units: now.abandoned_units,
        gates: [GateState {
            id: who.id.clone(),
            label: who.label.clone(),
            in_use: now.in_use,
            credit: 0,
            waiting: now.waiting,
            last_seen_ms: 0,
        }],
        ledger: LedgerState { kind: "memory", up: true, exchanges: 0, pace_ms: 0, recovering: false },
        pods: now
            .pods
            .into_iter()
            .filter(|pod| !pod.gone || pod.in_use > 0)
            .map(|pod| pod_state(pod, &rules))
            .collect(),
        apis: now.apis.into_iter().map(api_state).collect(),
    }
}

fn claim(now: &Snapshot) -> Option<ClaimState> {
    let (api, pod) = now.claim?;
    let api = now.apis.iter().find(|one| one.id == api)?;
    let pod = now.pods.iter().find(|one| one.id == pod)?;
    Some(ClaimState { api: api.name.clone(), pod: pod.name.clone() })
}

fn pod_state(pod: PodSnapshot, rules: &Rules) -> PodState {
    PodState {
        url: rules.pod(pod.id).map_or_else(String::new, |target| target.settings.url.to_string()),
        name: pod.name,
        capacity: pod.capacity,
        in_use: pod.in_use,
        ready: pod.ready,
        draining: pod.draining || pod.gone,
        outside: pod.outside,
        refusals: pod.refusals,
    }
}

fn api_state(api: ApiSnapshot) -> ApiState {
    let counts = api.counts;
    ApiState {
        name: api.name,
        weight: api.weight,
        in_use: api.in_use,
        waiting: api.waiting,
        min: api.min,
        max: api.max,
        admitted: counts.admitted,
        refused: Reason::ALL.iter().map(|reason| reason.as_str()).zip(counts.refused).collect(),
        cancelled: counts.cancelled,
        failed: counts.failed,
        exempt: counts.exempt,
        waited_us: counts.waited_us,
    }
}
