//! What many gates and one ledger say to each other, as plain data.
//!
//! Each gate's [`Member`](crate::member::Member) keeps at most one [`Report`] in flight; the ledger's
//! [`Keeper`](crate::keeper::Keeper) answers it with a [`Reply`] and may tell other gates something by a
//! [`Push`]. A report is absolute (what the gate holds, never a difference) and numbered; units travel as
//! numbered [`Lent`]s that are applied in order. So a message that is lost, doubled or late changes nothing:
//! what matters is said again.

use std::fmt;

use crate::ids::{ApiId, PodId, Ticket};
use crate::policy::Units;

/// A gate's identity: random per start of its process, so a restart is a new gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GateId(pub u128);

/// Something whose units are counted across gates. Pods and apis have the same numbers at every gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// An api's `max`. Apis without one have no account.
    Api(ApiId),
    /// A pod's capacity.
    Pod(PodId),
    /// What the trickle's leases hold together.
    Trickle,
}

/// As the ledger's own records name it; the order of these names is the order of accounts.
impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Account::Api(api) => write!(f, "a:{:04}", api.0),
            Account::Pod(pod) => write!(f, "p:{:04}", pod.0),
            Account::Trickle => f.write_str("t"),
        }
    }
}

/// What one gate's configuration allows, in units. Where gates differ the ledger obeys the stricter of each figure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Waiters rank by virtual start tags (`order: fair`), not by age.
    pub fair: bool,
    /// `admission.capacity`, if the pool is capped below the sum of its pods.
    pub cap: Option<Units>,
    /// Units that only protected apis may use.
    pub reserve: Units,
    /// The trickle's part of the pool; 0: there is no trickle.
    pub share: Units,
    /// Its tokens (units) per 1000 seconds.
    pub trickle_milli: u64,
    /// Most units that its leases hold together.
    pub trickle_most: Units,
    /// Pods: capacity (0 while draining) and burst.
    pub pods: Vec<(PodId, Units, Units)>,
    /// Apis that have a `min`, a `max` or protection: `min`, `max`, `protected`.
    pub apis: Vec<(ApiId, Units, Option<Units>, bool)>,
}

/// Whose words count: any other incarnation or epoch than the current is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The life of the ledger's state; another after each loss. 0: none known.
    pub incarnation: u64,
    /// The life of this gate in that state, given by the ledger. 0: none known.
    pub epoch: u64,
}

/// An ask that waits at a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Names it at its gate.
    pub ticket: Ticket,
    /// Its class.
    pub api: ApiId,
    /// Units it asks for.
    pub weight: Units,
    /// The only pod that will do.
    pub pin: Option<PodId>,
    /// Microseconds since its arrival less its offset (DESIGN section 4). An age, because clocks differ; negative
    /// while the offset is ahead. Under `fair`: less its virtual start tag, which gates share.
    pub age_us: i64,
}

impl Waiting {
    /// Whether it is the same ask, whatever its age.
    #[must_use]
    pub fn is_same_ask(&self, other: &Waiting) -> bool {
        let key = |one: &Waiting| (one.ticket, one.api, one.weight, one.pin);
        key(self) == key(other)
    }
}

/// How much of what a gate holds a report lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What changed.
    Changes,
    /// A part of everything; more follows.
    More,
    /// The last part of everything.
    Last,
}

/// A gate's half of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Who says it.
    pub gate: GateId,
    /// In which lives.
    pub stamp: Stamp,
    /// Grows with each report of this gate, also with one that says the same again.
    pub number: u64,
    /// Random, for a state that has to begin anew.
    pub nonce: u64,
    /// The server's own id, read when the connection was made.
    pub server: u64,
    /// Highest [`Reply::step`] seen in this incarnation.
    pub step: u64,
    /// Number of the last [`Lent`] applied; what is held includes it and those before.
    pub applied: u64,
    /// Version of the pool's document obeyed.
    pub version: u64,
    /// How complete `holds` is.
    pub part: Part,
    /// Units held (leases and credit together), per account.
    pub holds: Vec<(Account, Units)>,
    /// Units in use by each api that has a `min` or `max`.
    pub used: Vec<(ApiId, Units)>,
    /// Credit: units held on pods that no lease uses.
    pub idle: Units,
    /// The best waiter of each class first, then others by rank; at most [`WAITERS_MAX`].
    pub waiters: Vec<Waiting>,
    /// The last recall that was seen to.
    pub recalled: u64,
    /// Longest that a request of this gate may still hold its units, microseconds.
    pub hold_us: u64,
    /// The same of requests that were admitted before this life of the ledger's state began, as far as this gate can
    /// tell: 0 if it knew no life before.
    pub past_us: u64,
    /// This gate's time to live, microseconds. The ledger obeys the longest it heard.
    pub ttl_us: u64,
    /// Names the terms obeyed; other terms have another digest.
    pub digest: u64,
    /// The terms, until a report with them was applied.
    pub terms: Option<Box<Terms>>,
    /// Units that completed in this epoch, all together.
    pub done: u64,
    /// Units asked for by all waiters of this gate.
    pub queued: u64,
    /// Largest virtual start tag served here; 0 but under `fair`.
    pub vtime: u64,
    /// Units lent out of the trickle in this epoch that were never used, all together.
    pub unspent: u64,
    /// Pods that this gate cannot use now: unhealthy, as it sees them.
    pub avoid: Vec<PodId>,
    /// Pods' own words since the last report: units in use on them, all callers together.
    pub outside: Vec<(PodId, Units)>,
    /// The gate goes for good; what it still holds ends with its leases.
    pub leaving: bool,
    /// For those who watch: units in use by its leases, and asks waiting.
    pub status: (u64, u64),
}

/// Most waiters in one report.
pub const WAITERS_MAX: usize = 16;
/// Most accounts in one part of a full report.
pub const PART_MAX: usize = 64;

/// Units that go to a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lent {
    /// Counts from 1 in each epoch of a gate, without gaps.
    pub number: u64,
    /// Which account grows.
    pub account: Account,
    /// By how much.
    pub units: Units,
    /// For whom. Credit names nobody.
    pub waiter: Option<Ticket>,
    /// For this waiter only: section 3 lets no ordinary api have them.
    pub special: bool,
    /// Entered by the trickle's tokens.
    pub trickle: bool,
}

/// The ledger wants credit back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recall {
    /// Counts from 1 in each epoch of a gate.
    pub number: u64,
    /// Units that should come back, on one pod if some pod has so many.
    pub units: Units,
    /// They are wanted from this api's `max`, not from pods.
    pub api: Option<ApiId>,
}

/// The pool's best unmet waiter keeps a pod: what that pod frees goes to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The pod.
    pub pod: PodId,
    /// The claimant's age; own waiters that are older still use the pod.
    pub age_us: i64,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Applied,
    /// A later one had come before; nothing changed.
    Stale,
    /// The ledger does not know this life of the gate: drop all credit and say everything under this stamp.
    Resync(Stamp),
}

/// The ledger's half of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The lives of the report that is answered.
    pub stamp: Stamp,
    /// Its number.
    pub number: u64,
    /// What became of it.
    pub verdict: Verdict,
    /// Grows with each exchange; one that runs back shows a state that was rolled back.
    pub step: u64,
    /// All units lent and not yet said to be applied, in order.
    pub lent: Vec<Lent>,
    /// Credit this gate should have.
    pub target: Units,
    /// Somebody waits for units that nobody has free.
    pub scarce: bool,
    /// Apis whose `max` somebody waits for.
    pub scarce_apis: Vec<ApiId>,
    /// A limit of the whole pool was lowered below what is held: all idle credit comes back, and so does what comes free.
    pub tight: bool,
    /// Nothing is lent yet after a loss; what is held may be used on.
    pub recovering: bool,
    /// The recall that stands.
    pub recall: Option<Recall>,
    /// The claim that stands.
    pub kept: Option<Kept>,
    /// Accounts of this gate that are held above their limit: what comes free there comes back.
    pub over: Vec<Account>,
    /// Least microseconds between this gate's exchanges.
    pub pace_us: u64,
    /// Version of the pool's document (patches, registered pods).
    pub version: u64,
    /// Gates that live, as far as the ledger knows.
    pub gates: u32,
    /// Units completed at all gates in this life of the state.
    pub done: u64,
    /// Units asked for by the waiters of all gates.
    pub queued: u64,
    /// The pool's virtual time; 0 but under `fair`.
    pub vtime: u64,
}

/// What the ledger says unasked. It may be lost, and never extends validity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// In which lives.
    pub stamp: Stamp,
    /// Units, numbered.
    pub lent: Vec<Lent>,
    /// A recall that stands.
    pub recall: Option<Recall>,
    /// The claim that stands, if a new one does.
    pub kept: Option<Kept>,
    /// Somebody waits for units and was found none.
    pub scarce: bool,
}

/// Times of one pool, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A gate that is silent for so long has lost its epoch.
    pub ttl_us: u64,
    /// Least time between two exchanges of one gate.
    pub pace_us: u64,
    /// Longest that a request may hold its units.
    pub hold_max_us: u64,
    /// An exchange without reply is tried again after so long.
    pub timeout_us: u64,
}

impl Timing {
    /// Times for a pool whose asks wait up to `wait_us`: pace = wait / 20 between 1 and 5 ms, 5 ms without a
    /// wait; ttl 5 s; holds of 60 s; a retry after 100 ms.
    #[must_use]
    pub fn of_wait(wait_us: u64) -> Timing {
        // Half of wait / 10: at load 0.9 with 50 ms four gates refuse 0.40 % instead of 0.52 %.
        let pace_us = if wait_us == 0 { 5_000 } else { (wait_us / 20).clamp(1_000, 5_000) };
        Timing { ttl_us: 5_000_000, pace_us, hold_max_us: 60_000_000, timeout_us: 100_000 }
    }

    /// By so much a gate stops before its epoch may end.
    #[must_use]
    pub fn margin_us(&self) -> u64 {
        self.ttl_us / 5
    }

    /// A quiet gate exchanges so often; the ledger's clock advances at most so much at once.
    #[must_use]
    pub fn heartbeat_us(&self) -> u64 {
        self.ttl_us / 5
    }
}

/// The rules of the shared ledger, each with a switch. All are on but in the simulator, which turns one off to
/// show what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// 2: a freed unit goes to the gate's own best waiter first.
    pub own_first: bool,
    /// 3: credit of one gate is recalled for an unmet waiter elsewhere.
    pub recalls: bool,
    /// 4: units for a waiter elsewhere are pushed.
    pub pushes: bool,
    /// 6: while units are scarce, credit that fits no own waiter goes back.
    pub fragments: bool,
    /// 9: reports and lent units are taken in the order of their numbers, once.
    pub numbered: bool,
    /// 10: words of another incarnation or epoch are dropped.
    pub stamped: bool,
    /// 11: credit is used only while the last acknowledged exchange is young.
    pub validity: bool,
    /// 12: the ledger's clock advances at most a heartbeat at once.
    pub steady_clock: bool,
    /// 13: a silent gate's units stay until what it admitted has surely ended.
    pub linger: bool,
    /// 14: a gate whose epoch ended drops its credit before it reports anew.
    pub drop_on_return: bool,
    /// 15: after a loss nothing is lent until every earlier credit has ended.
    pub recovery: bool,
    /// 15: another server, or a state that ran back, is a loss.
    pub detect_rollback: bool,
    /// 17: the best unmet waiter claims a pod at every gate.
    pub claims: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            own_first: true,
            recalls: true,
            pushes: true,
            fragments: true,
            numbered: true,
            stamped: true,
            validity: true,
            steady_clock: true,
            linger: true,
            drop_on_return: true,
            recovery: true,
            detect_rollback: true,
            claims: true,
        }
    }
}

impl Rules {
    /// The switch of this name.
    #[must_use]
    pub fn named(&mut self, name: &str) -> Option<&mut bool> {
        Some(match name {
            "own_first" => &mut self.own_first,
            "recalls" => &mut self.recalls,
            "pushes" => &mut self.pushes,
            "fragments" => &mut self.fragments,
            "numbered" => &mut self.numbered,
            "stamped" => &mut self.stamped,
            "validity" => &mut self.validity,
            "steady_clock" => &mut self.steady_clock,
            "linger" => &mut self.linger,
            "drop_on_return" => &mut self.drop_on_return,
            "recovery" => &mut self.recovery,
            "detect_rollback" => &mut self.detect_rollback,
            "claims" => &mut self.claims,
            _ => return None,
        })
    }
}
