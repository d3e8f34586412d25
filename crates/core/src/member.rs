//! A gate among many: it admits from what the shared ledger lent it, and decides what to say and when.
//!
//! Inside is the embedded [`Gate`] whose pods hold only the units that were lent. What section 3 of the design asks
//! of the whole pool (guarantees, reserve, trickle, an api's `max`) the ledger sees to when it lends. Time is an
//! argument; the owner reads it from a clock that also runs while the machine sleeps (CLOCK_BOOTTIME, microseconds),
//! in the same step in which it hands a request over.
//!
//! # When the ledger is not heard
//! Credit is used until the last acknowledged report is ttl x 4/5 old. From then on only the units of running
//! requests are used, for their successors no more, until an exchange is acknowledged: that is exact. With
//! [`OnLoss::Share`] and [`OnLoss::PodLimit`] the gate then admits by itself, within a part of each pod or all of it.
//! Such emergency units are never said to be held; reports say what leases use. They end when the ledger lends again, and
//! what runs then counts even above a limit. At its start a gate gives the ledger one heartbeat before it admits by
//! itself. While a ledger that lost its state is heard but lends nothing yet, [`OnLoss::PodLimit`] does the same, and
//! [`OnLoss::Share`] uses a part of each pod once the ledger has written it down (`member/shares.rs`).
//!
//! # Modes
//! - `off`: every ask is admitted at once, nothing is held, asked for or reported: to the ledger these requests do not
//!   exist. So other gates that enforce must not share the pods with one that is off.
//! - `shadow`: every ask is admitted at once. It is decided on what is lent at that moment and counted as refused if it
//!   does not fit, although in `enforce` it might have waited and been served: shadow counts too many where credit is
//!   scarce. What its leases hold beyond what was lent is reported as held, so the ledger's sums are true, and stops other
//!   gates from being lent the same units.

mod basis;
mod credit;
mod due;
mod moved;
mod outlook;
mod shares;
mod surface;
mod terms;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use crate::estimate::PoolView;
use crate::exchange::{Ending, Entry, Holding};
use crate::gate::{Answer, Ask, Gate, Output};
use crate::ids::{ApiId, LeaseId, PodId, Ticket};
use crate::policy::{Amount, Mode, Placement, Policy, PolicyError, Units};
use crate::shared::{Account, GateId, Part, Recall, Rules, Stamp, Terms, Timing};
use crate::time::Micros;
use basis::{Basis, Loss};
use outlook::Course;
use shares::Shares;

pub use basis::OnLoss;
pub use surface::MemberView;

/// Holds of the last minute to the last two are remembered.
const HOLDS_US: u64 = 60_000_000;

/// A report that was not answered yet.
#[derive(Clone, Copy, Debug)]
struct Flight {
    number: u64,
    sent: Micros,
    part: Part,
    /// It told the terms of this digest.
    told: Option<u64>,
    /// Credit and waiting units that it told.
    idle: Units,
    queued: u64,
    /// It said that this gate goes.
    leaving: bool,
}

/// What the ledger said last.
#[derive(Clone, Debug, Default)]
struct Advice {
    target: Units,
    scarce: bool,
    scarce_apis: Vec<ApiId>,
    tight: bool,
    recovering: bool,
    recall: Option<Recall>,
    /// A claim: its pod, and the claimant's rank on this gate's clock.
    kept: Option<(PodId, i64)>,
    over: BTreeSet<Account>,
    version: u64,
    /// Gates that live.
    gates: u32,
}

/// What the rules of an api mean to one gate of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ApiKind {
    /// What it frees goes to the ledger: only there is known whether a guarantee or the reserve keeps it.
    special: bool,
    /// It has a `max`, so an account.
    limited: bool,
}

/// Sums of one epoch, told in every report.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    /// Units completed.
    done: u64,
    /// Units lent out of the trickle that no request used.
    unspent: u64,
}

/// Pods as this gate sees them.
#[derive(Debug, Default)]
struct Health {
    /// Pods that take nothing here: unhealthy, draining or gone.
    shut: BTreeSet<PodId>,
    /// Their own words about use, not yet passed on.
    outside: BTreeMap<PodId, Units>,
}

/// How far a graceful end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Leaving {
    #[default]
    Stays,
    /// It says so when nothing runs or waits any more.
    WhenEmpty,
    /// It says so with the next report.
    Now,
    /// It was said and heard.
    Left,
}

/// Work done, for those who watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberCounts {
    /// Reports sent.
    pub reports: u64,
    /// Reports sent because no answer came.
    pub retries: u64,
    /// Reports that the ledger took.
    pub acknowledged: u64,
    /// Times its credit ended because no exchange was acknowledged in time.
    pub lapses: u64,
    /// Times it was told to say everything anew, the first included.
    pub resyncs: u64,
    /// Times lent units came out of order.
    pub gaps: u64,
    /// Lent units whose waiter could not use them.
    pub unusable: u64,
    /// Replies and pushes of another life, dropped.
    pub foreign: u64,
    /// Reports because asks wait.
    pub for_waiters: u64,
    /// Reports because credit ran low.
    pub for_credit: u64,
    /// Reports because credit is wanted elsewhere: by a recall, a claim, scarcity, or as surplus.
    pub for_others: u64,
    /// Leases granted without the ledger, by [`OnLoss::Share`] or [`OnLoss::PodLimit`].
    pub emergency: u64,
}

/// One gate of a pool that many gates share.
///
/// After each call ask [`Member::poll`] for a report to send, and call it again at [`Member::next_wake`].
///
/// **Invariant:** for each account, what leases use is at most what is lent; and unless the gate admits by itself (see
/// the module), what is lent is at most what the ledger counts for this gate, or is in the next report.
#[derive(Debug)]
pub struct Member {
    gate: Gate,
    id: GateId,
    timing: Timing,
    rules: Rules,
    kinds: Vec<ApiKind>,
    /// Shortest `wait` of an api that waits; a gate with waiters speaks ten times within it.
    wait_us: u64,
    random: fastrand::Rng,
    server: u64,
    stamp: Stamp,
    number: u64,
    applied: u64,
    step: u64,
    recalled: u64,
    flight: Option<Flight>,
    sent: Option<Micros>,
    /// Longest that requests which were admitted before the ledger's present life may still hold their units.
    past_us: u64,
    /// It says everything anew.
    syncing: bool,
    /// Credit must not be used from here on.
    valid_until: Micros,
    /// It is not.
    lapsed: bool,
    /// Accounts to list, each with the first report that will say its present state.
    dirty: BTreeMap<Account, u64>,
    /// What the ledger will count for this gate once it heard the reports written so far.
    known: BTreeMap<Account, Units>,
    /// Something that the ledger waits for is to be said.
    urgent: bool,
    /// An ask began to wait that the ledger does not know of.
    news: bool,
    /// Waiters of the last report.
    told: Vec<Ticket>,
    /// Own completions serve own waiters so fast that less urgent words have so much time; 0: they do not.
    calm_us: u64,
    /// The heaviest api's weight.
    heaviest: Units,
    /// Lent units are missing.
    gap: bool,
    /// Credit ran low and the ledger had none to give: asking again at once would be no use.
    dry: bool,
    /// A push said that units are scarce while a report was under way.
    alarmed: bool,
    advice: Advice,
    pace_us: u64,
    /// Longest holds of this minute and of the one before.
    longest: (u64, u64),
    minute: Micros,
    sums: Sums,
    /// Units of the trickle's account that are held here.
    trickle_lent: Units,
    terms: Terms,
    digest: u64,
    /// The ledger has heard the terms in this epoch.
    terms_known: bool,
    /// Version of the pool's document that the owner obeys.
    version: u64,
    health: Health,
    loss: Loss,
    shares: Shares,
    course: Course,
    leaving: Leaving,
    /// Leases granted up to the last call.
    granted: u64,
    counts: MemberCounts,
}

impl Member {
    /// A gate that holds nothing yet, and refuses when the ledger is not heard ([`Member::set_on_loss`]). `server` is the
    /// id of the ledger's server; `seed` drives nonces and the spread of Retry-After.
    ///
    /// # Errors
    /// [`PolicyError`] if the policy breaks its invariant.
    pub fn new(
        policy: &Policy,
        timing: Timing,
        rules: Rules,
        id: GateId,
        (server, seed): (u64, u64),
        now: Micros,
    ) -> Result<Member, PolicyError> {
        policy.check()?;
        // It begins with rules of the same apis that admit nothing, so that nothing is admitted before it is lent.
        let mut gate = Gate::new(Policy { pods: Vec::new(), ..policy.clone() }, seed, now)?;
        gate.ledger.pods.share();
        gate.ledger.rates.view = Some(PoolView { blind: true, ..PoolView::default() });
        let mut member = Member {
            gate,
            id,
            timing,
            rules,
            kinds: Vec::new(),
            wait_us: 0,
            random: fastrand::Rng::with_seed(seed ^ 0x5157_1ce6),
            server,
            stamp: Stamp::default(),
            number: 0,
            applied: 0,
            step: 0,
            recalled: 0,
            flight: None,
            sent: None,
            past_us: 0,
            syncing: true,
            valid_until: now,
            lapsed: true,
            dirty: BTreeMap::new(),
            known: BTreeMap::new(),
            urgent: true,
            news: false,
            told: Vec::new(),
            calm_us: 0,
            heaviest: 1,
            gap: false,
            dry: false,
            alarmed: false,
            advice: Advice::default(),
            pace_us: timing.pace_us,
            longest: (timing.hold_max_us, timing.hold_max_us),
            minute: now,
            sums: Sums::default(),
            trickle_lent: 0,
            terms: Terms::default(),
            digest: 0,
            terms_known: false,
            version: 0,
            health: Health::default(),
            loss: Loss::new(now + timing.heartbeat_us()),
            shares: Shares::new(now),
            course: Course::default(),
            leaving: Leaving::Stays,
            granted: 0,
            counts: MemberCounts::default(),
        };
        // Rules are counted from the first that admit anything.
        member.gate.version = 0;
        member.set_pace(timing.pace_us);
        member.configure(now, policy, &mut Vec::new())?;
        Ok(member)
    }

    /// Takes new rules, and answers the new version. Pods and apis keep their numbers; leases and waiters stay.
    ///
    /// # Errors
    /// [`PolicyError`] if the policy breaks its invariant; then nothing was changed.
    pub fn configure(
        &mut self,
        now: Micros,
        policy: &Policy,
        out: &mut Vec<Output>,
    ) -> Result<u64, PolicyError> {
        policy.check()?;
        self.pass(now, out);
        let version = self.gate.obey(now, &self.local(policy), Some(policy), out)?;
        self.learn(policy);
        self.cover_all();
        self.stand(now, out);
        self.see_health();
        if self.loss.basis != Basis::Ledger {
            self.allot_all();
        }
        self.dispatch(now, out);
        Ok(version)
    }

    /// The rules of the gate inside: limits of the whole pool and claims are the ledger's, and an api's `max` is what was
    /// lent of it.
    fn local(&self, policy: &Policy) -> Policy {
        let mut local = policy.clone();
        for api in &mut local.apis {
            api.min = Amount::Units(0);
            api.protected = false;
            let known = self.gate.apis.iter().position(|known| known.rule.name == api.name);
            let lent = known.map_or(0, |index| {
                let used = self.gate.ledger.book.apis[index].used as Units;
                let limited = self.kinds.get(index).is_some_and(|kind| kind.limited);
                if limited { self.allowance(ApiId(index as u32)).max(used) } else { used }
            });
            api.max = api.max.map(|_| Amount::Units(lent));
        }
        local.admission.reserve = Amount::Units(0);
        local.admission.trickle = None;
        local.admission.claims = false;
        if local.admission.placement == Placement::Auto {
            local.admission.placement = Placement::Pack;
        }
        local
    }

    fn learn(&mut self, policy: &Policy) {
        let reserved = policy.admission.reserve != Amount::Units(0);
        let before = std::mem::take(&mut self.kinds);
        self.kinds.resize(self.gate.apis.len(), ApiKind::default());
        for api in &policy.apis {
            let id = self.gate.api_id(&api.name).expect("the gate inside has just numbered it");
            self.kinds[id.index()] = ApiKind {
                special: api.min != Amount::Units(0) || (reserved && api.protected),
                limited: api.max.is_some(),
            };
        }
        for index in 0..self.kinds.len() {
            if before.get(index).copied().unwrap_or_default().limited != self.kinds[index].limited {
                self.note(Account::Api(ApiId(index as u32)));
            }
        }
        let waits = policy.apis.iter().map(|api| api.wait_us).filter(|wait| *wait > 0);
        self.wait_us = waits.min().unwrap_or(0);
        self.heaviest = policy.apis.iter().map(|api| api.weight).max().unwrap_or(1);
        self.course.set_window(crate::estimate::window_us(policy));
        let (terms, digest) = terms::of(policy, &self.gate);
        if digest != self.digest {
            self.terms_known = false;
            self.urgent = true;
        }
        (self.terms, self.digest) = (terms, digest);
    }

    /// Asks for a lease. One that does not wait is given the time of one exchange.
    pub fn ask(&mut self, now: Micros, ask: Ask, out: &mut Vec<Output>) -> Answer {
        self.pass(now, out);
        let answer = self.gate.ask(now, ask, out);
        self.heed(&answer);
        answer
    }

    /// Asks for a lease that is granted from what is lent at this moment, or refused.
    pub fn try_ask(&mut self, now: Micros, ask: Ask, out: &mut Vec<Output>) -> Answer {
        self.pass(now, out);
        let least = std::mem::take(&mut self.gate.least_wait_us);
        let answer = self.gate.ask(now, Ask { wait_us: Some(0), ..ask }, out);
        self.gate.least_wait_us = least;
        self.heed(&answer);
        answer
    }

    fn heed(&mut self, answer: &Answer) {
        match answer {
            Answer::Waits(_) => self.news = true,
            Answer::Granted(granted) if self.gate.mode != Mode::Enforce => {
                let api = self.gate.leases.get(granted.lease.0).map(|lease| lease.holding.api);
                self.cover(granted.pod);
                self.cover_api(api.expect("it was just granted"));
            }
            Answer::Granted(_) | Answer::Refused(_) => {}
        }
    }

    /// A lease ended. False if it had ended before.
    pub fn release(&mut self, now: Micros, lease: LeaseId, out: &mut Vec<Output>) -> bool {
        self.pass(now, out);
        self.free(now, lease, true);
        self.gate.release(now, lease, out)
    }

    /// A lease that was never used comes back. False if it had ended before.
    pub fn unused(&mut self, now: Micros, lease: LeaseId, out: &mut Vec<Output>) -> bool {
        self.pass(now, out);
        self.free(now, lease, false);
        self.gate.unused(now, lease, out)
    }

    /// The pod never ended the request and its time is over, as [`Gate::write_off`].
    pub fn write_off(&mut self, now: Micros, lease: LeaseId, out: &mut Vec<Output>) -> bool {
        self.pass(now, out);
        self.free(now, lease, true);
        self.gate.write_off(now, lease, out)
    }

    /// A request that its pod did not run goes through admission again, as [`Gate::retry`].
    pub fn retry(
        &mut self,
        now: Micros,
        lease: LeaseId,
        ending: Ending,
        out: &mut Vec<Output>,
    ) -> Option<Answer> {
        self.pass(now, out);
        self.free(now, lease, ending == Ending::Completed);
        let answer = self.gate.retry(now, lease, ending, out);
        answer.iter().for_each(|answer| self.heed(answer));
        answer
    }

    /// A waiter gave up. False if it no longer waited.
    pub fn cancel(&mut self, now: Micros, ticket: Ticket, out: &mut Vec<Output>) -> bool {
        self.pass(now, out);
        self.gate.cancel(now, ticket, out)
    }

    /// Lets time pass.
    pub fn advance(&mut self, now: Micros, out: &mut Vec<Output>) {
        self.pass(now, out);
        self.gate.advance(now, out);
    }

    /// A new connection to the ledger was made, to the server of this id. What was under way on the old one is lost.
    pub fn connected(&mut self, server: u64) {
        self.server = server;
        self.flight = None;
        self.urgent = true;
    }

    /// Goes for good: credit goes back, and when nothing runs or waits any more the next report says that this gate
    /// leaves. The owner asks for nothing new from here on; it is over when [`Member::has_left`].
    pub fn leave(&mut self, now: Micros, out: &mut Vec<Output>) {
        self.pass(now, out);
        if self.leaving == Leaving::Stays {
            self.leaving = Leaving::WhenEmpty;
            self.urgent = true;
        }
    }

    /// As [`Member::leave`], but the next report says it in any case: the ledger keeps what leases still hold until
    /// they have surely ended.
    pub fn leave_at_once(&mut self, now: Micros, out: &mut Vec<Output>) {
        self.leave(now, out);
        if self.leaving == Leaving::WhenEmpty {
            self.leaving = Leaving::Now;
        }
    }

    /// Whether the ledger has heard that this gate leaves. It says nothing more.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.leaving == Leaving::Left
    }

    /// Time passed. Said before anything else is done at `now`.
    fn pass(&mut self, now: Micros, out: &mut Vec<Output>) {
        self.counts.emergency += self.granted_by_itself();
        self.granted = self.gate.granted;
        if !self.lapsed && !self.is_valid(now) {
            self.lapsed = true;
            self.counts.lapses += 1;
            if self.loss.basis == Basis::Ledger {
                self.drop_credit();
            }
            // Who sees it only when its epoch is over stood still itself. Then the ledger may well be there.
            let stood_still = now >= self.valid_until + self.timing.margin_us();
            self.loss.from = if stood_still { now + 2 * self.timing.timeout_us } else { now };
            self.look();
        }
        self.stand(now, out);
        if now >= self.minute + HOLDS_US {
            self.minute = now;
            let running = self.gate.leases.iter().map(|(_, lease)| now.since(lease.request.arrival)).max();
            self.longest = (running.unwrap_or(0), self.longest.0);
        }
        // Deadlines that passed meanwhile see the credit as it is now, and what settled or is no longer withheld is idle,
        // also at a gate where nobody asks.
        let due = self.gate.next_wake().unwrap_or(Micros::NEVER).min(self.gate.ledger.pods.next_event());
        if due <= now {
            self.gate.advance(now, out);
            self.note_returned();
        }
    }

    /// Leases granted without the ledger since the last call.
    fn granted_by_itself(&self) -> u64 {
        if self.is_by_itself() { self.gate.granted - self.granted } else { 0 }
    }

    /// A lease is about to end: what it frees stays here, or is kept for the ledger.
    fn free(&mut self, now: Micros, lease: LeaseId, ran: bool) {
        let Some(lease) = self.gate.leases.get(lease.0) else { return };
        let Holding { pod, api, weight, entry, .. } = lease.holding;
        self.longest.0 = self.longest.0.max(now.since(lease.request.arrival));
        if ran {
            self.sums.done += u64::from(weight);
        }
        let trickled = entry == Entry::Trickle;
        if self.loss.basis != Basis::Ledger {
            if trickled {
                self.forget_share(Account::Pod(pod), weight);
            }
            self.free_by_itself(pod, api, weight, ran);
            return;
        }
        if trickled && !ran {
            self.sums.unspent += u64::from(weight);
        }
        if trickled || self.goes_back(pod, api, weight) {
            self.end_loan(pod, weight, ran);
            self.urgent = true;
        }
        let account = Account::Api(api);
        let wanted =
            self.lapsed || self.advice.scarce_apis.contains(&api) || self.advice.over.contains(&account);
        if self.kinds[api.index()].limited && wanted {
            self.cut_allowance(api, weight);
        }
    }

    fn longest_hold_us(&self) -> u64 {
        self.longest.0.max(self.longest.1).min(self.timing.hold_max_us)
    }
}
