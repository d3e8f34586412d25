//! `GET /v1/state`: one moment of the pool, for people and tools.

use serde::Serialize;
use sluicegate::policy::Mode;
use sluicegate::{Gate, Snapshot};

use crate::live::Live;

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
}

#[derive(Serialize)]
struct ApiState {
    name: String,
    weight: u32,
    in_use: u64,
    waiting: u64,
    min: u32,
    max: Option<u32>,
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
}

impl Identity {
    /// A random id, and the host's name as label (the process id where it is not known).
    pub(crate) fn new() -> Identity {
        let label = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
        Identity {
            id: format!("{:032x}", fastrand::u128(..)),
            label: label.unwrap_or_else(|| format!("process {}", std::process::id())),
        }
    }
}

/// The state now. With the memory ledger this gate is the only one, and it holds no credit.
pub(crate) fn now(gate: &Gate, live: &Live, who: &Identity) -> State {
    let rules = live.rules();
    let Snapshot { version, capacity, in_use, waiting, mode, pods, apis, .. } = gate.snapshot();
    State {
        pool: rules.pool.clone(),
        version,
        capacity,
        in_use,
        credit: 0,
        waiting,
        mode: match mode {
            Mode::Enforce => "enforce",
            Mode::Shadow => "shadow",
            Mode::Off => "off",
        },
        pods: pods
            .into_iter()
            .filter(|pod| !pod.gone || pod.in_use > 0)
            .map(|pod| PodState {
                url: rules.pod(pod.id).map_or_else(String::new, |target| target.settings.url.to_string()),
                name: pod.name,
                capacity: pod.capacity,
                in_use: pod.in_use,
                ready: pod.ready,
                draining: pod.draining || pod.gone,
            })
            .collect(),
        apis: apis
            .into_iter()
            .map(|api| ApiState {
                name: api.name,
                weight: api.weight,
                in_use: api.in_use,
                waiting: api.waiting,
                min: api.min,
                max: api.max,
            })
            .collect(),
        gates: [GateState {
            id: who.id.clone(),
            label: who.label.clone(),
            in_use,
            credit: 0,
            waiting,
            last_seen_ms: 0,
        }],
        ledger: LedgerState { kind: "memory", up: true, exchanges: 0, pace_ms: 0, recovering: false },
    }
}
