//! `GET /v1/state`: one moment of the pool, for people and tools.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;
use sluicegate::link::GateSeen;
use sluicegate::policy::Mode;
use sluicegate::snapshot::{ApiSnapshot, PodSnapshot};
use sluicegate::{Gate, GateId, LedgerView, Reason, Snapshot};

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
    gates: Vec<GateState>,
    /// Labels (or ids) of the gates whose configuration differs from this one's.
    gates_differing: Vec<String>,
    /// Why this gate does not obey the pool's latest changes.
    document_error: Option<String>,
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
    /// From here on as this gate sees it. Its life in the ledger's state; 0: none.
    epoch: u64,
    /// What was lent may be used.
    valid: bool,
    /// Nothing may be used, and it admits by `on_ledger_loss`.
    emergency: bool,
    gates_known: u32,
    /// Units that the ledger wants back.
    recall: Option<RecallState>,
    /// The pod on which a claim of the pool's best waiter stands.
    claimed: Option<String>,
    pushes_heard: u64,
    pushes_made: u64,
    touched: u64,
    rtt_us: u64,
    lapses: u64,
    resyncs: u64,
    last_error: Option<String>,
}

#[derive(Serialize)]
struct RecallState {
    units: u32,
    /// They are of this api's `max`, not of pods.
    api: Option<String>,
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
    let (now, ledger) = (gate.snapshot(), gate.ledger());
    let (gates, gates_differing) = gates(gate, &now, &ledger, who);
    State {
        pool: rules.pool.clone(),
        version: version(&now, &ledger),
        capacity: now.capacity,
        in_use: now.in_use,
        credit: ledger.credit,
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
        gates,
        gates_differing,
        document_error: ledger.document_error.clone(),
        ledger: ledger_state(ledger),
        pods: now
            .pods
            .into_iter()
            .filter(|pod| !pod.gone || pod.in_use > 0)
            .map(|pod| pod_state(pod, &rules))
            .collect(),
        apis: now.apis.into_iter().map(api_state).collect(),
    }
}

/// Of the pool's changes, which all gates share; alone, of this gate's rules.
fn version(now: &Snapshot, ledger: &LedgerView) -> u64 {
    if ledger.id.is_some() { ledger.version } else { now.version }
}

/// This gate, by its own word of this moment, and the others by the ledger's; and those that obey other rules.
fn gates(gate: &Gate, now: &Snapshot, ledger: &LedgerView, who: &Identity) -> (Vec<GateState>, Vec<String>) {
    let own = GateState {
        id: ledger.id.map_or_else(|| who.id.clone(), id_text),
        label: if ledger.label.is_empty() { who.label.clone() } else { ledger.label.clone() },
        in_use: now.in_use,
        credit: ledger.credit,
        waiting: now.waiting,
        last_seen_ms: 0,
    };
    let seen = gate.gates();
    let differing = differing(&seen, ledger);
    let other = |other: GateSeen| GateState {
        id: id_text(other.id),
        label: other.label,
        in_use: other.in_use,
        credit: other.credit,
        waiting: other.waiting,
        last_seen_ms: other.last_seen_ms,
    };
    let others = seen.into_iter().filter(|seen| Some(seen.id) != ledger.id).map(other);
    (std::iter::once(own).chain(others).collect(), differing)
}

/// Gates whose terms are not this one's: their files differ, or one has not yet taken the latest change.
pub(crate) fn differing(seen: &[GateSeen], ledger: &LedgerView) -> Vec<String> {
    let Some(own) = seen.iter().find(|seen| Some(seen.id) == ledger.id) else { return Vec::new() };
    let others = seen.iter().filter(|other| other.digest != own.digest);
    others.map(|other| if other.label.is_empty() { id_text(other.id) } else { other.label.clone() }).collect()
}

fn id_text(id: GateId) -> String {
    format!("{:032x}", id.0)
}

fn ledger_state(ledger: LedgerView) -> LedgerState {
    LedgerState {
        kind: ledger.kind,
        up: ledger.up,
        exchanges: ledger.exchanges,
        pace_ms: ledger.pace_us / 1000,
        recovering: ledger.recovering,
        epoch: ledger.epoch,
        valid: ledger.valid,
        emergency: ledger.emergency,
        gates_known: ledger.gates_known,
        recall: ledger.recall.map(|(units, api)| RecallState { units, api }),
        claimed: ledger.claim,
        pushes_heard: ledger.pushes_heard,
        pushes_made: ledger.pushes_made,
        touched: ledger.touched,
        rtt_us: ledger.rtt_us,
        lapses: ledger.lapses,
        resyncs: ledger.resyncs,
        last_error: ledger.last_error,
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
