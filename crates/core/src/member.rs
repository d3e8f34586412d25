//! A gate among many: it admits from what the shared ledger lent it, and decides what to say and when.
//!
//! Inside is the embedded [`Gate`] whose pods hold only the units that were lent. What section 3 of the design asks
//! of the whole pool (guarantees, reserve, an api's `max`) the ledger sees to when it lends.

mod credit;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use crate::exchange::{Ending, Holding};
use crate::gate::{Answer, Ask, Gate, Output};
use crate::ids::{ApiId, LeaseId, PodId, Ticket};
use crate::policy::{Amount, Placement, Policy, PolicyError, Units};
use crate::shared::{Account, GateId, Part, Recall, Report, Rules, Stamp, Timing};
use crate::time::Micros;

/// Holds of the last minute to the last two are remembered.
const HOLDS_US: u64 = 60_000_000;

/// A report that was not answered yet.
#[derive(Clone, Copy, Debug)]
struct Flight {
    number: u64,
    sent: Micros,
    part: Part,
}

/// What the ledger said last.
#[derive(Clone, Debug, Default)]
struct Advice {
    target: Units,
    scarce: bool,
    scarce_apis: Vec<ApiId>,
    recovering: bool,
    recall: Option<Recall>,
    /// A claim: its pod, and the claimant's rank on this gate's clock.
    kept: Option<(PodId, i64)>,
    over: BTreeSet<Account>,
    version: u64,
}

/// What the rules of an api mean to one gate of many.
#[derive(Clone, Copy, Debug, Default)]
struct ApiKind {
    /// What it frees goes to the ledger: only there is known whether a guarantee or the reserve keeps it.
    special: bool,
    /// It has a `max`, so an account.
    limited: bool,
}

/// Work done, for those who watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberCounts {
    /// Reports sent.
    pub reports: u64,
    /// Reports sent because no answer came.
    pub retries: u64,
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
}

/// One gate of a pool that many gates share.
///
/// After each call ask [`Member::poll`] for a report to send, and call it again at [`Member::next_wake`].
///
/// **Invariant:** for each account, what leases use is at most what is lent, and what is lent is at most what the
/// ledger counts for this gate.
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
    /// It says everything anew.
    syncing: bool,
    /// Credit must not be used from here on.
    valid_until: Micros,
    /// It is not.
    lapsed: bool,
    /// Accounts to list, each with the first report that will say its present state.
    dirty: BTreeMap<Account, u64>,
    /// Something that the ledger waits for is to be said.
    urgent: bool,
    /// An ask began to wait that the ledger does not know of.
    news: bool,
    /// Lent units are missing.
    gap: bool,
    advice: Advice,
    pace_us: u64,
    /// Longest holds of this minute and of the one before.
    longest: (u64, u64),
    minute: Micros,
    counts: MemberCounts,
}

impl Member {
    /// A gate that holds nothing yet. `server` is the id of the ledger's server; `seed` drives nonces and the spread
    /// of Retry-After.
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
        let mut member = Member {
            gate: Gate::new(local(policy), seed, now)?,
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
            syncing: true,
            valid_until: now,
            lapsed: true,
            dirty: BTreeMap::new(),
            urgent: true,
            news: false,
            gap: false,
            advice: Advice::default(),
            pace_us: timing.pace_us,
            longest: (timing.hold_max_us, timing.hold_max_us),
            minute: now,
            counts: MemberCounts::default(),
        };
        let pods = 0..policy.pods.len();
        pods.for_each(|pod| member.gate.ledger.pods.lend(PodId(pod as u32), 0));
        member.learn(policy, &vec![0; policy.apis.len()]);
        Ok(member)
    }

    /// Takes new rules. Pods and apis keep their numbers; leases and waiters stay.
    ///
    /// # Errors
    /// [`PolicyError`] if the policy breaks its invariant; then nothing was changed.
    pub fn configure(
        &mut self,
        now: Micros,
        policy: &Policy,
        out: &mut Vec<Output>,
    ) -> Result<(), PolicyError> {
        policy.check()?;
        let known = self.gate.ledger.pods.iter().count();
        let allowances: Vec<Units> =
            (0..self.kinds.len()).map(|api| self.allowance(ApiId(api as u32))).collect();
        // A pod that this gate never heard of begins with nothing lent: its units must not be seen before.
        let empty: Vec<_> =
            policy.pods.iter().skip(known).map(|pod| (pod.name.clone(), pod.capacity)).collect();
        let mut first = local(policy);
        for pod in first.pods.iter_mut().filter(|pod| empty.iter().any(|(name, _)| *name == pod.name)) {
            pod.capacity = 0;
        }
        self.gate.configure(now, first, out)?;
        for index in known..self.gate.ledger.pods.iter().count() {
            self.gate.ledger.pods.lend(PodId(index as u32), 0);
        }
        self.learn(policy, &allowances);
        if !empty.is_empty() {
            self.gate.configure(now, local(policy), out)?;
            self.learn(policy, &allowances);
        }
        self.dispatch(now, out);
        Ok(())
    }

    fn learn(&mut self, policy: &Policy, allowances: &[Units]) {
        let reserved = policy.admission.reserve != Amount::Units(0);
        let kind = |api: &crate::policy::ApiPolicy| ApiKind {
            special: api.min != Amount::Units(0) || (reserved && api.protected),
            limited: api.max.is_some(),
        };
        self.kinds = policy.apis.iter().map(kind).collect();
        let waits = policy.apis.iter().map(|api| api.wait_us).filter(|wait| *wait > 0);
        self.wait_us = waits.min().unwrap_or(0);
        for (index, kind) in self.kinds.iter().enumerate().filter(|(_, kind)| kind.limited) {
            let used = self.gate.ledger.book.apis[index].used as Units;
            let lent = allowances.get(index).copied().unwrap_or(0).max(used);
            debug_assert!(kind.limited, "only those were kept");
            self.gate.ledger.book.apis[index].max = Some(lent);
        }
    }

    /// Asks for a lease. One that does not wait is given the time of one exchange.
    pub fn ask(&mut self, now: Micros, ask: Ask, out: &mut Vec<Output>) -> Answer {
        self.pass(now, out);
        let least = 2 * self.pace_us + 5_000;
        let wait_us = ask.wait_us.unwrap_or(self.gate.apis[ask.api.index()].rule.wait_us);
        let answer = self.gate.ask(now, Ask { wait_us: Some(wait_us.max(least)), ..ask }, out);
        self.news |= matches!(answer, Answer::Waits(_));
        answer
    }

    /// A lease ended. False if it had ended before.
    pub fn release(&mut self, now: Micros, lease: LeaseId, out: &mut Vec<Output>) -> bool {
        self.pass(now, out);
        self.free(now, lease);
        self.gate.release(now, lease, out)
    }

    /// A lease that was never used comes back. False if it had ended before.
    pub fn unused(&mut self, now: Micros, lease: LeaseId, out: &mut Vec<Output>) -> bool {
        self.pass(now, out);
        self.free(now, lease);
        self.gate.unused(now, lease, out)
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
        self.free(now, lease);
        let answer = self.gate.retry(now, lease, ending, out);
        self.news |= matches!(answer, Some(Answer::Waits(_)));
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

    /// A report to send now, if there is one.
    pub fn poll(&mut self, now: Micros, out: &mut Vec<Output>) -> Option<Report> {
        self.pass(now, out);
        if now < self.due() {
            return None;
        }
        self.counts.retries += u64::from(self.flight.is_some());
        let low = self.idle() * 4 < u64::from(self.advice.target);
        if !self.gate.ledger.line.is_empty() {
            self.counts.for_waiters += 1;
        } else if low {
            self.counts.for_credit += 1;
        } else if self.wants_exchange() {
            self.counts.for_others += 1;
        }
        self.give_back();
        Some(self.write(now))
    }

    /// When [`Member::poll`] or [`Member::advance`] has something to do, if nothing else happens before.
    #[must_use]
    pub fn next_wake(&self) -> Micros {
        let wake = self.gate.next_wake().unwrap_or(Micros::NEVER).min(self.due());
        if self.lapsed { wake } else { wake.min(self.valid_until) }
    }

    /// When the next report is to be sent.
    fn due(&self) -> Micros {
        if let Some(flight) = self.flight {
            return flight.sent + self.timing.timeout_us;
        }
        let Some(sent) = self.sent else { return Micros(0) };
        let pace_us = self.pace_us;
        // Who was served meanwhile needs no exchange.
        let waits = !self.gate.ledger.line.is_empty();
        if self.urgent || (self.news && waits) || self.gap || self.syncing || self.wants_exchange() {
            return sent + pace_us;
        }
        let heartbeat = sent + self.timing.heartbeat_us();
        if !waits {
            return heartbeat;
        }
        heartbeat.min(sent + pace_us.max(self.wait_us / 10))
    }

    /// The gate inside, to look at.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Who it is.
    #[must_use]
    pub fn id(&self) -> GateId {
        self.id
    }

    /// Work done so far.
    #[must_use]
    pub fn counts(&self) -> MemberCounts {
        self.counts
    }

    /// Whether credit may be used at `now`.
    #[must_use]
    pub fn is_valid(&self, now: Micros) -> bool {
        !self.rules.validity || now < self.valid_until
    }

    /// Units of a pod that it may use, its leases among them.
    #[must_use]
    pub fn lent(&self, pod: PodId) -> Units {
        self.gate.ledger.pods.lent(pod)
    }

    /// Checks the books of the gate inside, and that leases use no more than was lent.
    ///
    /// # Errors
    /// What differs, in words. It never should; the tests ask after each step.
    pub fn audit(&self) -> Result<(), String> {
        self.gate.audit()?;
        for (id, pod) in self.gate.ledger.pods.iter() {
            if pod.used > self.lent(id) {
                return Err(format!("pod {}: {} units used, {} lent", id.0, pod.used, self.lent(id)));
            }
        }
        Ok(())
    }

    /// Credit ends when no exchange was acknowledged in time. Said before anything else is done at `now`.
    fn pass(&mut self, now: Micros, out: &mut Vec<Output>) {
        if !self.lapsed && !self.is_valid(now) {
            self.lapsed = true;
            self.counts.lapses += 1;
            self.drop_credit();
        }
        if now >= self.minute + HOLDS_US {
            self.minute = now;
            let running = self.gate.leases.iter().map(|(_, lease)| now.since(lease.request.arrival)).max();
            self.longest = (running.unwrap_or(0), self.longest.0);
        }
        // Deadlines that passed meanwhile see the credit as it is now.
        if self.gate.next_wake().is_some_and(|wake| wake <= now) {
            self.gate.advance(now, out);
        }
    }

    /// A lease is about to end: what it frees stays here, or is kept for the ledger.
    fn free(&mut self, now: Micros, lease: LeaseId) {
        let Some(lease) = self.gate.leases.get(lease.0) else { return };
        let Holding { pod, api, weight, .. } = lease.holding;
        self.longest.0 = self.longest.0.max(now.since(lease.request.arrival));
        if self.goes_back(pod, api, weight) {
            let lent = self.lent(pod);
            self.gate.ledger.pods.lend(pod, lent - weight.min(lent));
            self.said(Account::Pod(pod));
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

/// The rules of the gate inside: limits of the whole pool and claims are the ledger's, and it alone knows how
/// fast the whole queue moves.
fn local(policy: &Policy) -> Policy {
    let mut local = policy.clone();
    for api in &mut local.apis {
        api.min = Amount::Units(0);
        api.protected = false;
    }
    local.admission.capacity = None;
    local.admission.reserve = Amount::Units(0);
    local.admission.trickle = None;
    local.admission.claims = false;
    if local.admission.placement == Placement::Auto {
        local.admission.placement = Placement::Pack;
    }
    local.admission.early = false;
    local
}
