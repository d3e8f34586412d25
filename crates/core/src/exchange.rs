//! What the two halves say to each other, as plain data.
//!
//! The gate's half ([`Gate`](crate::gate::Gate)) knows clients: deadlines, leases, Retry-After. The
//! ledger's half ([`Ledger`](crate::ledger::Ledger)) knows units: pods, limits, the order of all
//! waiters. Embedded, they are joined by a function call, one [`Change`] at a time. Over a network the
//! same changes travel in batches; nothing in them is a reference, a clock reading or a callback.

use crate::estimate::time_to_drain;
use crate::ids::{ApiId, PodId, Ticket};
use crate::policy::Units;
use crate::time::Micros;

/// Where an ask may be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Place {
    /// On any pod.
    #[default]
    Any,
    /// On this pod if it fits there now, else on any.
    Prefer(PodId),
    /// On this pod only.
    Pin(PodId),
}

/// A request for a lease, as the ledger sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its class.
    pub api: ApiId,
    /// Units it asks for.
    pub weight: Units,
    /// True if `weight` came with the ask; false if it is the api's, and follows it while waiting.
    pub own_weight: bool,
    /// Where it may be placed.
    pub place: Place,
    /// Whom `fair` shares between.
    pub key: u64,
    /// When the ask was first made; a pod's refusal does not change it.
    pub arrival: Micros,
    /// Longest wait, microseconds from `arrival`.
    pub wait_us: u64,
    /// Microseconds by which it ranks behind its arrival; 0 but for background work.
    pub behind_us: u64,
    /// Whoever asks keeps what is refused for later: counted as enqueued, not as refused.
    pub overflows: bool,
    /// True when it was granted before and its pod did not run it.
    pub again: bool,
}

/// By which of the two ways of DESIGN section 3 units were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Condition 3 held.
    Pool,
    /// Condition 3 failed and the trickle had tokens.
    Trickle,
    /// Mode `shadow` or `off`: counted, not checked.
    Forced,
}

/// Units that one running request holds on one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The pod.
    pub pod: PodId,
    /// The api whose use it is.
    pub api: ApiId,
    /// Units.
    pub weight: Units,
    /// How they were taken, so that they are given back to the same account.
    pub entry: Entry,
    /// Whom `fair` charged for them.
    pub key: u64,
}

/// How a holding ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The pod ended: last byte, or reset. Counts as a completion.
    Completed,
    /// The request surely never reached the pod.
    NeverStarted,
    /// The pod's own lock refused it: its usable units drop by the weight until its next completion.
    PodRefused,
}

/// What a gate's half tells the ledger's half.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// Take now or answer [`Reply::Blocked`]; never waits.
    Try(Request),
    /// Wait in the order of all asks. Said right after `Try` was blocked.
    Wait(Request),
    /// Count without checking (modes `shadow` and `off`).
    Force(Request),
    /// A waiter gave up.
    Withdraw(Ticket),
    /// A holding ended. If it did not complete, a `Try` of the same ask and a `Tick` follow: waiters are looked at
    /// after it has asked again.
    Return(Holding, Ending),
    /// The request of a holding runs on this pod, not on the one chosen: its units are moved there, without a check.
    Move(Holding, PodId),
    /// A pod said how many units are in use on it, all callers together.
    InUse(PodId, Units),
    /// A pod's health changed.
    Ready(PodId, bool),
    /// Nothing but time passed, or no more changes follow.
    Tick,
}

/// What the ledger's half answers to one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Units were taken.
    Granted(Holding),
    /// The ask waits under this ticket; a later [`Grant`] names it.
    Waits(Ticket),
    /// The ask does not fit now.
    Blocked(Obstacle),
    /// Done, with no answer to give.
    Done,
}

/// Which condition an ask fails first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Condition 2, its api's `max`.
    ApiMax,
    /// Condition 3, and the trickle did not help.
    Pool,
    /// Condition 1 on every pod allowed, or a claim stands there.
    Pod,
    /// No pod is ready.
    NoReadyPod,
}

/// What stands before an ask that does not fit, by the limit that binds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// Units asked for by waiters that rank before it.
    pub ahead: u64,
    /// Units completed, and the microseconds they took; `None` while too little is known.
    pub measured: Option<(u64, u64)>,
}

impl Outlook {
    /// Microseconds until the queue before it is served; 0 while that is unknown.
    pub(crate) fn drain_us(&self) -> u64 {
        self.measured.map_or(0, |measured| time_to_drain(measured, self.ahead))
    }
}

/// Units for an ask that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Which waiter.
    pub ticket: Ticket,
    /// What it asked.
    pub request: Request,
    /// What it got.
    pub holding: Holding,
}
