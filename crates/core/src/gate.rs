//! The gate's half: clients, their deadlines and their leases.
//!
//! One owner steps it and tells it the time. Each call returns all its effects: the answer to the caller,
//! and in `out` what the call decided for asks that waited. Nothing is left to drain or to forget.

use std::collections::BTreeSet;

use crate::book::{ApiBook, Book};
use crate::estimate::{out_of_reach, retry_after_s, time_to_drain};
use crate::exchange::{Change, Ending, Entry, Grant, Holding, Obstacle, Place, Reply, Request};
use crate::ids::{ApiId, LeaseId, PodId, Ticket};
use crate::ledger::Ledger;
use crate::policy::{ApiPolicy, Mode, Policy, PolicyError, Units};
use crate::refusal::{Reason, Refusal};
use crate::slab::Slab;
use crate::stats::ApiCounts;
use crate::time::Micros;

/// A request for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Its class.
    pub api: ApiId,
    /// Units, if not the api's weight.
    pub weight: Option<Units>,
    /// Longest wait in microseconds, if not the api's.
    pub wait_us: Option<u64>,
    /// Where it may be placed.
    pub place: Place,
    /// Whom `fair` shares between, if not the api.
    pub key: Option<u64>,
    /// Background work: microseconds by which it ranks behind its arrival, so the longest that it lets asks in the
    /// foreground go before it. 0: foreground. Without effect under `fair`, where it has its key's share.
    pub behind_us: u64,
    /// Whoever asks keeps what is refused for later: counted as enqueued, not as refused.
    pub overflows: bool,
}

impl Ask {
    /// An ask with everything as the api's rules say.
    #[must_use]
    pub fn new(api: ApiId) -> Ask {
        Ask { api, weight: None, wait_us: None, place: Place::Any, key: None, behind_us: 0, overflows: false }
    }
}

/// What an ask, or a lease whose pod did not run it, is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Units are taken.
    Granted(Granted),
    /// An [`Output`] with this ticket follows.
    Waits(Ticket),
    /// Not admitted.
    Refused(Refusal),
}

/// Units that were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Names the lease when it is given back.
    pub lease: LeaseId,
    /// Where the request runs.
    pub pod: PodId,
    /// Units it holds.
    pub weight: Units,
    /// How it entered.
    pub entry: Entry,
    /// Microseconds between the ask and this.
    pub waited_us: u64,
}

/// What became of an ask that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// It got its units.
    Granted(Ticket, Granted),
    /// It did not.
    Refused(Ticket, Refusal),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    pub(crate) request: Request,
    pub(crate) holding: Holding,
}

/// What the gate keeps per api. Indexed by [`ApiId`], never shrinks.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) rule: ApiPolicy,
    pub(crate) gone: bool,
    /// The most units one ask could ever get; above it an ask is refused for good.
    most: Units,
    pub(crate) counts: ApiCounts,
}

/// Admission for one process, over the embedded ledger.
///
/// ```
/// use sluicegate_core::gate::{Answer, Ask, Gate, Output};
/// use sluicegate_core::policy::Policy;
/// use sluicegate_core::time::Micros;
///
/// let policy = Policy::simple(&[("a", 2)], &[("light", 1), ("heavy", 2)]);
/// let mut gate = Gate::new(policy, 42, Micros(0)).unwrap();
/// let mut out = Vec::new();
/// let heavy = gate.api_id("heavy").unwrap();
/// // 1. An ask that fits is answered at once.
/// let Answer::Granted(first) = gate.ask(Micros(10), Ask::new(heavy), &mut out) else { panic!() };
/// // 2. One that does not fit waits.
/// let Answer::Waits(ticket) = gate.ask(Micros(20), Ask::new(heavy), &mut out) else { panic!() };
/// // 3. What completes is handed on in the same call.
/// assert!(gate.release(Micros(30), first.lease, &mut out));
/// let Some(Output::Granted(granted, second)) = out.pop() else { panic!() };
/// assert_eq!((granted, second.waited_us), (ticket, 10));
/// // 4. Giving back twice changes nothing.
/// assert!(!gate.release(Micros(40), first.lease, &mut out));
/// // 5. Deadlines pass when the owner says so: call `advance` at `next_wake`.
/// assert_eq!(gate.next_wake(), None);
/// // 6. The books balance at every moment.
/// gate.audit().unwrap();
/// ```
#[derive(Debug)]
pub struct Gate {
    pub(crate) ledger: Ledger,
    pub(crate) leases: Slab<Lease>,
    pub(crate) deadlines: BTreeSet<(Micros, Ticket)>,
    pub(crate) apis: Vec<Api>,
    pub(crate) mode: Mode,
    pub(crate) queue_max: usize,
    early: bool,
    /// Every ask may wait so long: in a gate of many the time of an exchange, else 0.
    pub(crate) least_wait_us: u64,
    /// In a gate of many: the rules of the whole pool, of which this gate's own are a part.
    pub(crate) whole: Option<Book>,
    /// Leases granted so far.
    pub(crate) granted: u64,
    pub(crate) version: u64,
    pub(crate) abandoned_units: u64,
    random: fastrand::Rng,
    /// Kept between calls so that an exchange allocates nothing. Empty between calls.
    pub(crate) grants: Vec<Grant>,
    /// The latest time it was told; time never runs back here.
    clock: Micros,
}

impl Gate {
    /// A gate that obeys `policy`. `seed` drives the spread of Retry-After and nothing else.
    ///
    /// # Errors
    /// [`PolicyError`] if the policy breaks its invariant.
    pub fn new(policy: Policy, seed: u64, now: Micros) -> Result<Gate, PolicyError> {
        let mut gate = Gate {
            ledger: Ledger::new(),
            leases: Slab::new(),
            deadlines: BTreeSet::new(),
            apis: Vec::new(),
            mode: Mode::Enforce,
            queue_max: 0,
            early: true,
            least_wait_us: 0,
            whole: None,
            granted: 0,
            version: 0,
            abandoned_units: 0,
            random: fastrand::Rng::with_seed(seed),
            grants: Vec::new(),
            clock: now,
        };
        gate.configure(now, policy, &mut Vec::new())?;
        Ok(gate)
    }

    /// Takes new rules with leases and waiters alive, and answers the new version. Pods and apis keep
    /// their numbers by name. Running leases keep their weight; waiters take the new one and keep their
    /// deadline.
    ///
    /// # Errors
    /// [`PolicyError`] if the policy breaks its invariant; then nothing was changed.
    pub fn configure(
        &mut self,
        now: Micros,
        policy: Policy,
        out: &mut Vec<Output>,
    ) -> Result<u64, PolicyError> {
        self.obey(now, &policy, None, out)
    }

    /// Takes `policy`; in a gate of many as its part of the rules of the `whole` pool.
    pub(crate) fn obey(
        &mut self,
        now: Micros,
        policy: &Policy,
        whole: Option<&Policy>,
        out: &mut Vec<Output>,
    ) -> Result<u64, PolicyError> {
        policy.check()?;
        let now = self.pass(now, out);
        let ids = self.number_apis(policy);
        let weights: Vec<Units> = self.apis.iter().map(|api| api.rule.weight).collect();
        self.mode = policy.admission.mode;
        self.queue_max = policy.admission.queue as usize;
        self.early = policy.admission.early;
        self.ledger.configure(now, policy, &ids, &weights, &mut self.grants);
        self.whole = whole.map(|whole| {
            let mut book = Book::default();
            book.configure(now, whole, &ids, self.ledger.pods.capacity().0);
            book.apis.resize(self.apis.len(), ApiBook::default());
            book
        });
        let book = self.whole.as_ref().unwrap_or(&self.ledger.book);
        for (index, api) in self.apis.iter_mut().enumerate() {
            api.most = self.ledger.most(book, ApiId(index as u32));
        }
        self.hand_over(now, out);
        self.turn_away(now, out);
        self.version += 1;
        Ok(self.version)
    }

    pub(crate) fn most(&self, api: ApiId) -> Units {
        self.apis[api.index()].most
    }

    fn number_apis(&mut self, policy: &Policy) -> Vec<ApiId> {
        for api in &mut self.apis {
            api.gone = true;
        }
        let mut ids = Vec::with_capacity(policy.apis.len());
        for rule in &policy.apis {
            let found = self.apis.iter().position(|api| api.rule.name == rule.name);
            ids.push(ApiId(found.unwrap_or(self.apis.len()) as u32));
            let rule = rule.clone();
            match found {
                Some(index) => {
                    self.apis[index].rule = rule;
                    self.apis[index].gone = false;
                }
                None => self.apis.push(Api { rule, gone: false, most: 0, counts: ApiCounts::default() }),
            }
        }
        ids
    }

    /// The number of the api of this name.
    #[must_use]
    pub fn api_id(&self, name: &str) -> Option<ApiId> {
        let index = self.apis.iter().position(|api| !api.gone && api.rule.name == name)?;
        Some(ApiId(index as u32))
    }

    /// The name of an api.
    #[must_use]
    pub fn api_name(&self, api: ApiId) -> Option<&str> {
        self.apis.get(api.index()).map(|api| api.rule.name.as_str())
    }

    /// The name of a pod.
    #[must_use]
    pub fn pod_name(&self, pod: PodId) -> Option<&str> {
        self.ledger.pods.get(pod).map(|pod| pod.rule.name.as_str())
    }

    /// The number of the pod of this name.
    #[must_use]
    pub fn pod_id(&self, name: &str) -> Option<PodId> {
        self.ledger.pods.find(name)
    }

    /// Asks for a lease.
    ///
    /// # Panics
    /// If `ask.api` did not come from [`Gate::api_id`] of this gate.
    #[inline]
    pub fn ask(&mut self, now: Micros, ask: Ask, out: &mut Vec<Output>) -> Answer {
        let now = self.pass(now, out);
        let rule = &self.apis[ask.api.index()].rule;
        let request = Request {
            api: ask.api,
            weight: ask.weight.unwrap_or(rule.weight).max(1),
            own_weight: ask.weight.is_some(),
            place: ask.place,
            key: ask.key.unwrap_or(u64::from(ask.api.0)),
            arrival: now,
            wait_us: ask.wait_us.unwrap_or(rule.wait_us).max(self.least_wait_us),
            behind_us: ask.behind_us,
            overflows: ask.overflows,
            again: false,
        };
        let answer = self.admit(now, request, out);
        self.hand_over(now, out);
        answer
    }

    /// A request goes through admission, the first time or again.
    #[inline]
    pub(crate) fn admit(&mut self, now: Micros, request: Request, out: &mut Vec<Output>) -> Answer {
        if self.mode != Mode::Enforce {
            return self.admit_forced(now, request);
        }
        if request.weight > self.apis[request.api.index()].most {
            return Answer::Refused(self.refuse_heavy(&request));
        }
        match self.ledger.exchange(now, Change::Try(request), &mut self.grants) {
            Reply::Granted(holding) => Answer::Granted(self.lend(now, request, holding)),
            Reply::Blocked(obstacle) => self.wait_or_refuse(now, request, obstacle, out),
            Reply::Waits(_) | Reply::Done => unreachable!("`Try` is granted or blocked"),
        }
    }

    pub(crate) fn refuse_heavy(&mut self, request: &Request) -> Refusal {
        let api = &mut self.apis[request.api.index()];
        if self.ledger.pods.capacity().1 == 0 {
            return self.refuse(request, Reason::NoReadyPod, None);
        }
        api.counts.count_refusal(Reason::TooHeavy);
        Refusal::Never { api: request.api, weight: request.weight, most: api.most }
    }

    /// Modes `shadow` and `off`. Shadow counts what enforcing would have refused or delayed.
    fn admit_forced(&mut self, now: Micros, request: Request) -> Answer {
        let mut reply = Reply::Blocked(Obstacle::Pool);
        if self.mode == Mode::Shadow {
            reply = self.ledger.exchange(now, Change::Try(request), &mut self.grants);
            if let Reply::Blocked(obstacle) = reply {
                let api = &mut self.apis[request.api.index()];
                let heavy = request.weight > api.most;
                let reason = reason_of(obstacle, &request, Reason::NoRoom);
                api.counts.count_refusal(if heavy { Reason::TooHeavy } else { reason });
            }
        }
        if !matches!(reply, Reply::Granted(_)) {
            reply = self.ledger.exchange(now, Change::Force(request), &mut self.grants);
        }
        match reply {
            Reply::Granted(holding) => Answer::Granted(self.lend(now, request, holding)),
            _ => Answer::Refused(self.refuse(&request, Reason::NoReadyPod, None)),
        }
    }

    fn wait_or_refuse(
        &mut self,
        now: Micros,
        request: Request,
        obstacle: Obstacle,
        out: &mut Vec<Output>,
    ) -> Answer {
        let deadline = request.arrival + request.wait_us;
        let outlook = self.ledger.outlook(now, &request, obstacle);
        let drain = |units: u64| outlook.measured.map(|measured| time_to_drain(measured, units));
        let drain_us = drain(outlook.ahead + u64::from(request.weight));
        let refusal = |this: &mut Gate, otherwise: Reason| {
            let reason = reason_of(obstacle, &request, otherwise);
            Answer::Refused(this.refuse(&request, reason, drain_us))
        };
        if deadline <= now || !self.pin_can_hold(&request) {
            let waited = deadline <= now;
            return refusal(self, if waited { self.reason_at_end(request.wait_us) } else { Reason::NoRoom });
        }
        let beyond = |drain_us| out_of_reach(drain_us, deadline.since(now));
        // What a pod refused is not refused here while wait remains.
        let is_beyond = self.early && !request.again && drain(outlook.ahead).is_some_and(beyond);
        if is_beyond && !self.ledger.may_have_its_turn(now, &request) {
            return refusal(self, self.reason_at_end(request.wait_us));
        }
        let Ok(worst) = self.who_makes_room(&request) else {
            return Answer::Refused(self.refuse(&request, Reason::QueueFull, drain_us));
        };
        let reply = self.ledger.exchange(now, Change::Wait(request), &mut self.grants);
        let Reply::Waits(ticket) = reply else { unreachable!("`Wait` answers a ticket") };
        self.deadlines.insert((deadline, ticket));
        if let Some(worst) = worst {
            // Only now, so that what its claim kept is offered to the newcomer in its turn.
            self.hand_over(now, out);
            self.evict(now, worst, |_, _| Reason::QueueFull, out);
        }
        Answer::Waits(ticket)
    }

    /// The reason of an ask whose time is over, or too short. One that wants no wait was only given the time of an
    /// exchange.
    pub(crate) fn reason_at_end(&self, wait_us: u64) -> Reason {
        if wait_us > self.least_wait_us { Reason::WaitExceeded } else { Reason::NoRoom }
    }

    /// Whether a pinned ask names a pod that could ever hold it.
    pub(crate) fn pin_can_hold(&self, request: &Request) -> bool {
        let Place::Pin(pod) = request.place else { return true };
        self.ledger.pods.get(pod).is_some_and(|pod| pod.counts() && pod.rule.capacity >= request.weight)
    }

    /// The waiter that goes when `request` comes into a full queue: the worst rank of queue and newcomer. An
    /// error if that is the newcomer, `None` if there is room.
    fn who_makes_room(&self, request: &Request) -> Result<Option<Ticket>, ()> {
        let Ledger { line, ranker, .. } = &self.ledger;
        if line.len() < self.queue_max {
            return Ok(None);
        }
        let newcomer = line.tail_rank_of_newcomer(request, ranker);
        line.worst(ranker).filter(|worst| worst.rank > newcomer).map(|worst| Some(worst.ticket)).ok_or(())
    }

    /// A waiter is refused.
    pub(crate) fn evict(
        &mut self,
        now: Micros,
        ticket: Ticket,
        reason: impl FnOnce(Obstacle, &Request) -> Reason,
        out: &mut Vec<Output>,
    ) {
        let Some(request) = self.ledger.line.get(ticket).map(|waiter| waiter.request) else { return };
        let obstacle = self.ledger.obstacle_of(now, ticket, &request);
        let outlook = self.ledger.outlook(now, &request, obstacle);
        let ahead = outlook.ahead + u64::from(request.weight);
        let drain_us = outlook.measured.map(|measured| time_to_drain(measured, ahead));
        self.forget(now, ticket, &request);
        let refusal = self.refuse(&request, reason(obstacle, &request), drain_us);
        out.push(Output::Refused(ticket, refusal));
    }

    pub(crate) fn forget(&mut self, now: Micros, ticket: Ticket, request: &Request) {
        self.deadlines.remove(&(request.arrival + request.wait_us, ticket));
        self.ledger.exchange(now, Change::Withdraw(ticket), &mut self.grants);
    }

    pub(crate) fn refuse(&mut self, request: &Request, reason: Reason, drain_us: Option<u64>) -> Refusal {
        let elsewhere = match (reason, request.place) {
            (Reason::PodFull, Place::Pin(pod)) => self.ledger.elsewhere(request.weight, pod),
            _ => None,
        };
        let counts = &mut self.apis[request.api.index()].counts;
        counts.count_refusal(reason);
        if request.overflows {
            counts.overflowed += 1;
            counts.enqueued += 1;
        }
        Refusal::NotNow {
            reason,
            api: request.api,
            weight: request.weight,
            retry_after_s: retry_after_s(drain_us, &mut self.random),
            elsewhere,
        }
    }

    #[inline]
    pub(crate) fn lend(&mut self, now: Micros, request: Request, holding: Holding) -> Granted {
        let waited_us = now.since(request.arrival);
        self.granted += 1;
        if !request.again {
            self.apis[request.api.index()].counts.count_wait(waited_us);
        }
        let lease = LeaseId(self.leases.insert(Lease { request, holding }));
        Granted { lease, pod: holding.pod, weight: holding.weight, entry: holding.entry, waited_us }
    }

    /// A lease ended: the pod answered to its last byte, or was reset. False if it had ended before; then
    /// nothing changed.
    #[inline]
    pub fn release(&mut self, now: Micros, lease: LeaseId, out: &mut Vec<Output>) -> bool {
        let now = self.pass(now, out);
        let Some(Lease { holding, .. }) = self.leases.remove(lease.0) else { return false };
        self.ledger.exchange(now, Change::Return(holding, Ending::Completed), &mut self.grants);
        self.hand_over(now, out);
        true
    }

    /// The pod never ended the request and its time is over: its units are written off, which is counted.
    /// False if the lease had ended before.
    pub fn write_off(&mut self, now: Micros, lease: LeaseId, out: &mut Vec<Output>) -> bool {
        let weight = self.leases.get(lease.0).map_or(0, |lease| lease.holding.weight);
        self.abandoned_units += u64::from(weight);
        self.release(now, lease, out)
    }

    /// A waiter gave up. False if it no longer waited.
    pub fn cancel(&mut self, now: Micros, ticket: Ticket, out: &mut Vec<Output>) -> bool {
        let now = self.pass(now, out);
        let Some(request) = self.ledger.line.get(ticket).map(|waiter| waiter.request) else { return false };
        self.apis[request.api.index()].counts.cancelled += 1;
        self.forget(now, ticket, &request);
        self.hand_over(now, out);
        true
    }

    /// Lets time pass: deadlines, settling units, tokens.
    pub fn advance(&mut self, now: Micros, out: &mut Vec<Output>) {
        let now = self.pass(now, out);
        self.ledger.exchange(now, Change::Tick, &mut self.grants);
        self.hand_over(now, out);
    }

    /// When [`Gate::advance`] has something to do, if nothing else happens before. `None`: never.
    #[must_use]
    pub fn next_wake(&self) -> Option<Micros> {
        let (deadline, _) = *self.deadlines.first()?;
        Some(deadline.min(self.ledger.next_event()))
    }

    /// The pod for a request that holds nothing: the least used one that is ready.
    pub fn exempt(&mut self, api: ApiId) -> Option<PodId> {
        let pod = self.ledger.pods.least_used()?;
        self.apis[api.index()].counts.exempt += 1;
        Some(pod)
    }

    /// The surface saw a pod's health change.
    pub fn set_ready(&mut self, now: Micros, pod: PodId, ready: bool, out: &mut Vec<Output>) {
        let now = self.pass(now, out);
        self.ledger.exchange(now, Change::Ready(pod, ready), &mut self.grants);
        self.hand_over(now, out);
    }

    /// A pod said that `in_use` units are taken on it by all callers together. What is above this gate's
    /// own leases counts as used for a second.
    pub fn report_in_use(&mut self, now: Micros, pod: PodId, in_use: Units, out: &mut Vec<Output>) {
        let now = self.pass(now, out);
        self.ledger.exchange(now, Change::InUse(pod, in_use), &mut self.grants);
        self.hand_over(now, out);
    }

    /// Time never runs back, and who waited out its time goes first of all.
    #[inline]
    pub(crate) fn pass(&mut self, now: Micros, out: &mut Vec<Output>) -> Micros {
        self.clock = self.clock.max(now);
        if self.deadlines.first().is_some_and(|(deadline, _)| *deadline <= self.clock) {
            self.expire(out);
        }
        self.clock
    }

    fn expire(&mut self, out: &mut Vec<Output>) {
        let now = self.clock;
        // What was freed by time alone up to now still serves whom it can.
        self.ledger.exchange(now, Change::Tick, &mut self.grants);
        self.hand_over(now, out);
        while let Some((deadline, ticket)) = self.deadlines.first().copied() {
            if deadline > now {
                return;
            }
            let wait_us = self.ledger.line.get(ticket).map_or(0, |waiter| waiter.request.wait_us);
            let otherwise = self.reason_at_end(wait_us);
            self.evict(now, ticket, |by, request| reason_of(by, request, otherwise), out);
            self.hand_over(now, out);
        }
    }

    /// Turns the ledger's grants into leases.
    #[inline]
    pub(crate) fn hand_over(&mut self, now: Micros, out: &mut Vec<Output>) {
        if self.grants.is_empty() {
            return;
        }
        let mut grants = std::mem::take(&mut self.grants);
        for Grant { ticket, request, holding } in grants.drain(..) {
            self.deadlines.remove(&(request.arrival + request.wait_us, ticket));
            out.push(Output::Granted(ticket, self.lend(now, request, holding)));
        }
        self.grants = grants;
    }

    /// Checks that every sum equals what the leases and waiters add up to.
    ///
    /// # Errors
    /// What differs, in words. It never should; the tests ask after each step.
    pub fn audit(&self) -> Result<(), String> {
        self.ledger.audit(self.leases.iter().map(|(_, lease)| &lease.holding))?;
        if self.deadlines.len() != self.ledger.line.len() {
            return Err(format!("{} deadlines, {} waiters", self.deadlines.len(), self.ledger.line.len()));
        }
        Ok(())
    }
}

/// The word for an obstacle; `otherwise` where it is neither the api's `max`, nor a pin, nor health.
pub(crate) fn reason_of(obstacle: Obstacle, request: &Request, otherwise: Reason) -> Reason {
    match (obstacle, request.place) {
        (Obstacle::ApiMax, _) => Reason::ApiMax,
        (Obstacle::Pod | Obstacle::NoReadyPod, Place::Pin(_)) => Reason::PodFull,
        (Obstacle::NoReadyPod, _) => Reason::NoReadyPod,
        (Obstacle::Pool | Obstacle::Pod, _) => otherwise,
    }
}
