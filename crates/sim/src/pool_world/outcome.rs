//! What came out of a run of a shared pool.

use std::collections::BTreeMap;

use sluicegate_core::keeper::KeeperCounts;
use sluicegate_core::member::MemberCounts;

use crate::report::Histogram;

/// What came out of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Requests that arrived at a gate.
    pub offered: u64,
    /// Those that got their units.
    pub admitted: u64,
    /// Those that did not.
    pub refused: u64,
    /// Arrivals that were refused at once because the queue could not serve them in time, counted from 0.
    pub early: Vec<usize>,
    /// Whether the one arrival that was never refused early was served.
    pub patient: Option<bool>,
    /// Offered and refused by api.
    pub by_api: Vec<(u64, u64)>,
    /// Clients lost with a killed gate while they waited.
    pub lost: u64,
    /// Starts that found their pod without room, by the judge's count.
    pub over: u64,
    /// Units by which a pod was exceeded at most.
    pub over_units: u64,
    /// Starts that broke an api's `max`, a guarantee or the reserve, by the judge's count.
    pub unlawful: u64,
    /// Those of either kind while requests may run of which nobody told the ledger: see `era.rs`.
    pub strangers: u64,
    /// Units that nobody uses and nobody could ever use again, at the end.
    pub leaked: u64,
    /// Waiters that were neither served nor refused.
    pub forgotten: u64,
    /// Books that did not balance, in words.
    pub faults_in_books: Vec<String>,
    /// How long the admitted waited.
    pub waits: Histogram,
    /// The same by api.
    pub waits_by_api: Vec<Histogram>,
    /// For those that waited: how long a pod had had room for such a weight, by the judge's count.
    pub handover: Histogram,
    /// Work of the ledger.
    pub ledger: KeeperCounts,
    /// Work of the gates that were alive at the end.
    pub gates: MemberCounts,
    /// Virtual time, microseconds.
    pub span_us: u64,
    /// Events that happened.
    pub events: u64,
    /// Faults that happened.
    pub faults: BTreeMap<&'static str, u64>,
    /// How often a fault (by name) met a state of the protocol (one of [`STATES`](super::STATES)): at the gate that it
    /// struck, or at each if it struck the ledger.
    pub met: BTreeMap<(&'static str, &'static str), u64>,
}

impl Outcome {
    /// Nothing yet, for so many apis.
    pub(super) fn of_apis(count: usize) -> Outcome {
        Outcome {
            by_api: vec![(0, 0); count],
            waits_by_api: vec![Histogram::default(); count],
            ..Outcome::default()
        }
    }

    /// Refused over offered, 0 to 1.
    #[must_use]
    pub fn share_refused(&self) -> f64 {
        self.refused as f64 / self.offered.max(1) as f64
    }

    /// Exchanges per 1,000 requests.
    #[must_use]
    pub fn exchanges_per_1000(&self) -> f64 {
        self.ledger.exchanges as f64 * 1000.0 / self.offered.max(1) as f64
    }

    /// Pushes per 1,000 requests.
    #[must_use]
    pub fn pushes_per_1000(&self) -> f64 {
        self.ledger.pushes as f64 * 1000.0 / self.offered.max(1) as f64
    }

    /// Balances written per 1,000 requests.
    #[must_use]
    pub fn touched_per_1000(&self) -> f64 {
        self.ledger.touched as f64 * 1000.0 / self.offered.max(1) as f64
    }
}

/// Field by field.
pub(super) fn join(one: KeeperCounts, other: KeeperCounts, by: impl Fn(u64, u64) -> u64) -> KeeperCounts {
    KeeperCounts {
        exchanges: by(one.exchanges, other.exchanges),
        pushes: by(one.pushes, other.pushes),
        touched: by(one.touched, other.touched),
        across: by(one.across, other.across),
        recalls: by(one.recalls, other.recalls),
        expired: by(one.expired, other.expired),
        resyncs: by(one.resyncs, other.resyncs),
        losses: by(one.losses, other.losses),
        stale: by(one.stale, other.stale),
        trickled: by(one.trickled, other.trickled),
    }
}
