//! The ledger's half: where units are counted and all waiters stand in one order.
//!
//! One [`Change`] in, one [`Reply`] out, and the [`Grant`]s that the change made possible for asks that
//! waited. An ask is admitted in one step: conditions 1 to 3 are looked at and the units taken together.
//!
//! **Law** (section 4): at each admission on pod p no better-ranked waiter that all conditions would let
//! on p is passed over, and p is not claimed by a better rank; but an ask within its api's own guarantee may enter
//! a claimed pod when no other has room.

use crate::book::Book;
use crate::estimate::Rates;
use crate::exchange::{Change, Ending, Entry, Grant, Holding, Obstacle, Outlook, Place, Reply, Request};
use crate::ids::{ApiId, PodId, Ticket};
use crate::line::{ClassKey, Head, Line};
use crate::pods::Pods;
use crate::policy::{Mode, Placement, Policy, Units};
use crate::rank::{Rank, Ranker};
use crate::time::Micros;

/// Under `fair`, keys that are ahead leave this part of the pool idle for the best-ranked waiter. In simulation
/// (load 2.5, weights 1, 2 and 3) the keys' units in use are then within 2 % of each other, and 98 % of the pool
/// is used; without it they were 81, 74 and 42.
const AHEAD_PART: Units = 16;

/// The hold that the best-ranked waiter has on a pod: what that pod frees is kept for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    ticket: Ticket,
    pod: PodId,
    weight: Units,
    key: u64,
    rank: Rank,
    /// Work in the background takes nothing of the pool meanwhile.
    stops_background: bool,
    /// From here on the claim also holds the pool: worse ranks are admitted elsewhere only if that
    /// leaves the pool the units that are kept on the claimed pod.
    holds_pool_from: Micros,
    /// Tokens are kept for the claimant too, if it could ever enter by them.
    wants_tokens: bool,
}

/// Units of one pool.
#[derive(Debug)]
pub struct Ledger {
    pub(crate) pods: Pods,
    pub(crate) book: Book,
    pub(crate) line: Line,
    pub(crate) ranker: Ranker,
    claim: Option<Claim>,
    claims: bool,
    placement: Placement,
    pub(crate) rates: Rates,
    /// When tokens for a waiter that only lacks them are there.
    tokens_due: Micros,
    /// Units came back and waiters were not looked at yet.
    owed: bool,
    /// Kept between calls so that a dispatch allocates nothing.
    heads: Vec<Head>,
}

impl Ledger {
    pub(crate) fn new() -> Ledger {
        Ledger {
            pods: Pods::new(),
            book: Book::default(),
            line: Line::new(),
            ranker: Ranker::default(),
            claim: None,
            claims: true,
            placement: Placement::Auto,
            rates: Rates::new(),
            tokens_due: Micros::NEVER,
            owed: false,
            heads: Vec::new(),
        }
    }

    /// Takes new rules with leases and waiters alive. Running leases keep their weight, waiters take the
    /// new one (`weights` by api index). Use above a lowered limit stays until it completes.
    pub(crate) fn configure(
        &mut self,
        now: Micros,
        policy: &Policy,
        ids: &[ApiId],
        weights: &[Units],
        grants: &mut Vec<Grant>,
    ) {
        self.pods.configure(&policy.pods);
        self.book.outside = self.pods.outside();
        self.book.configure(now, policy, ids, self.pods.capacity().0);
        self.ranker.configure(policy);
        self.rates.configure(policy, self.pods.iter().count(), weights.len());
        self.claims = policy.admission.claims;
        self.placement = policy.admission.placement;
        let mut waiting = self.line.in_order();
        for (_, request) in &mut waiting {
            if !request.own_weight {
                request.weight = weights[request.api.index()];
            }
        }
        self.line.rebuild(&waiting, &self.ranker);
        self.claim = None;
        if policy.admission.mode == Mode::Enforce {
            self.dispatch(now, grants);
            return;
        }
        for (ticket, request) in waiting {
            if let Reply::Granted(holding) = self.force(now, &request) {
                self.line.leave(ticket, &self.ranker);
                grants.push(Grant { ticket, request, holding });
            }
        }
    }

    /// One change, its answer, and the grants it made possible.
    #[inline]
    pub fn exchange(&mut self, now: Micros, change: Change, grants: &mut Vec<Grant>) -> Reply {
        if now >= self.next_event() {
            self.pass_time(now, grants);
        }
        match change {
            Change::Try(request) => self.attempt(now, &request, grants),
            Change::Wait(request) => Reply::Waits(self.wait(now, request, grants)),
            Change::Force(request) => self.force(now, &request),
            Change::Withdraw(ticket) => {
                self.withdraw(now, ticket, grants);
                Reply::Done
            }
            Change::Return(holding, ending) => {
                self.take_back(now, &holding, ending, grants);
                Reply::Done
            }
            Change::Move(holding, pod) => {
                self.pods.give_back(now, holding.pod, holding.weight, false);
                self.pods.take(pod, holding.weight);
                self.dispatch(now, grants);
                Reply::Done
            }
            Change::InUse(pod, units) => {
                self.pods.report(now, pod, units);
                self.book.outside = self.pods.outside();
                self.dispatch(now, grants);
                Reply::Done
            }
            Change::Ready(pod, ready) => {
                self.pods.set_ready(pod, ready);
                self.dispatch(now, grants);
                Reply::Done
            }
            Change::Tick => {
                if self.owed {
                    self.dispatch(now, grants);
                }
                Reply::Done
            }
        }
    }

    /// When time alone may change an answer.
    pub(crate) fn next_event(&self) -> Micros {
        self.pods.next_event().min(self.tokens_due)
    }

    /// The waiter that holds a claim, and its pod.
    pub(crate) fn claim(&self) -> Option<(Ticket, PodId)> {
        self.claim.map(|claim| (claim.ticket, claim.pod))
    }

    fn pass_time(&mut self, now: Micros, grants: &mut Vec<Grant>) {
        let freed = self.pods.advance(now);
        if freed {
            self.book.outside = self.pods.outside();
        }
        if freed || now >= self.tokens_due {
            self.dispatch(now, grants);
        }
    }

    fn attempt(&mut self, now: Micros, request: &Request, grants: &mut Vec<Grant>) -> Reply {
        let reply = self.admit(now, request);
        // Units that were taken by tokens fill a guarantee without filling the pool, a full pool opens the way
        // by tokens, a filled `max` ends a claim, a guarantee may use what a claim kept, under `fair` others
        // catch up: each may let a waiter in.
        let may_help = self.book.share > 0 || self.ranker.is_fair() || self.book.has_limits(request.api);
        if may_help && matches!(reply, Reply::Granted(_)) && !self.line.is_empty() {
            self.dispatch(now, grants);
        }
        reply
    }

    fn admit(&mut self, now: Micros, request: &Request) -> Reply {
        // With nobody waiting there is no claim, and a rank means nothing.
        let claim = match self.claim {
            Some(claim) => {
                let rank = self.line.rank_of_newcomer(request, &self.ranker);
                Some(claim).filter(|claim| self.claim_rank(claim) < rank)
            }
            None => None,
        };
        match self.fit(now, request, claim) {
            Ok(holding) => {
                if self.ranker.has_offsets() && !self.line.is_empty() {
                    let rank = self.line.rank_of_newcomer(request, &self.ranker);
                    self.note_turn(now, rank, request.weight);
                }
                Reply::Granted(self.take(now, request, holding))
            }
            Err(obstacle) => Reply::Blocked(obstacle),
        }
    }

    fn note_turn(&mut self, now: Micros, rank: Rank, weight: Units) {
        if self.ranker.has_offsets() {
            self.rates.note_turn(now, weight, now.0 as i64 - rank.value as i64);
        }
    }

    /// Whether others were served of late so long after their turn as this ask can be before its time is over. Where
    /// all ranks are arrivals the answer is no: there one ask takes the place of another, and turning it away costs
    /// nobody anything.
    pub(crate) fn may_have_its_turn(&mut self, now: Micros, request: &Request) -> bool {
        let rank = self.line.rank_of_newcomer(request, &self.ranker).value as i64;
        let end = (request.arrival + request.wait_us).0 as i64;
        self.rates.served_as_late(now, request.weight, end - rank)
    }

    fn claim_rank(&self, claim: &Claim) -> Rank {
        if self.ranker.is_fair() {
            return Rank { value: self.ranker.start_tag(claim.key), seq: claim.rank.seq };
        }
        claim.rank
    }

    /// Conditions 1 to 3, the trickle, and a better rank's claim; takes nothing.
    fn fit(&mut self, now: Micros, request: &Request, claim: Option<Claim>) -> Result<Holding, Obstacle> {
        let Request { api, weight, .. } = *request;
        if !self.book.under_max(api, weight) {
            return Err(Obstacle::ApiMax);
        }
        let held = claim.map_or(0, |claim| self.held_from(now, request, &claim));
        let skip = claim.map(|claim| claim.pod);
        if self.book.pool_has(api, weight, held) {
            let mut pod = self.place(request, skip);
            if pod.is_none() && skip.is_some() && self.book.is_guaranteed(api, weight) {
                // A claimant that the unfilled guarantees keep out must not keep their owners out in turn.
                pod = self.place(request, None);
            }
            let pod = pod.ok_or_else(|| self.why_no_pod())?;
            return Ok(Holding { pod, api, weight, entry: Entry::Pool, key: request.key });
        }
        let tokens_kept = claim.is_some_and(|claim| claim.wants_tokens);
        let plain = held == 0 || !self.book.pool_has(api, weight, 0);
        if tokens_kept || !plain || !self.book.trickle_has(now, weight) {
            return Err(Obstacle::Pool);
        }
        let pod = self.place(request, skip).or_else(|| self.place_burst(request, skip));
        let pod = pod.ok_or_else(|| self.why_no_pod())?;
        Ok(Holding { pod, api, weight, entry: Entry::Trickle, key: request.key })
    }

    /// Units of the pool that a worse rank leaves to the claimant.
    fn held_from(&self, now: Micros, request: &Request, claim: &Claim) -> Units {
        // A guarantee takes from no claimant: the pool never lets it into the unfilled guarantees of others.
        if self.book.is_guaranteed(request.api, request.weight) {
            return 0;
        }
        if claim.stops_background && request.behind_us > 0 {
            return self.book.capacity;
        }
        if self.ranker.is_ahead(request.key, claim.key) {
            // Enough idle units that some pod has room for the claimant, and never much of the pool.
            return claim.weight.max(self.book.capacity / AHEAD_PART);
        }
        if now >= claim.holds_pool_from { self.pods.open(claim.pod).min(claim.weight) } else { 0 }
    }

    fn why_no_pod(&self) -> Obstacle {
        if self.pods.any_takes_asks() { Obstacle::Pod } else { Obstacle::NoReadyPod }
    }

    /// Condition 1 and the choice among pods.
    fn place(&mut self, request: &Request, skip: Option<PodId>) -> Option<PodId> {
        let room = |pod: PodId, pods: &Pods| Some(pod) != skip && pods.open(pod) >= request.weight;
        match request.place {
            Place::Pin(pod) => return room(pod, &self.pods).then_some(pod),
            Place::Prefer(pod) if room(pod, &self.pods) => return Some(pod),
            Place::Prefer(_) | Place::Any => {}
        }
        self.pods.choose(request.weight, skip, self.placement, self.ranker.heaviest())
    }

    /// Condition 1 with burst, for trickle asks.
    fn place_burst(&self, request: &Request, skip: Option<PodId>) -> Option<PodId> {
        match request.place {
            Place::Pin(pod) => {
                (Some(pod) != skip && self.pods.has_burst_room(pod, request.weight)).then_some(pod)
            }
            Place::Prefer(_) | Place::Any => self.pods.choose_burst(request.weight, skip),
        }
    }

    fn take(&mut self, now: Micros, request: &Request, holding: Holding) -> Holding {
        self.pods.take(holding.pod, holding.weight);
        self.book.take(now, &holding);
        self.ranker.served(request.key, request.weight);
        holding
    }

    /// Counts an ask without checking it: on the pod with most room, else the least used one.
    fn force(&mut self, now: Micros, request: &Request) -> Reply {
        let pod = match request.place {
            Place::Pin(pod) => self.pods.get(pod).map(|_| pod),
            _ => self.place(request, None).or_else(|| self.pods.least_used()),
        };
        let Some(pod) = pod else { return Reply::Blocked(Obstacle::NoReadyPod) };
        let Request { api, weight, key, .. } = *request;
        Reply::Granted(self.take(now, request, Holding { pod, api, weight, entry: Entry::Forced, key }))
    }

    fn wait(&mut self, now: Micros, request: Request, grants: &mut Vec<Grant>) -> Ticket {
        let ticket = self.line.enter(request, &self.ranker);
        // It may now be the best, and its claim may stand elsewhere than the one before.
        self.dispatch(now, grants);
        ticket
    }

    fn withdraw(&mut self, now: Micros, ticket: Ticket, grants: &mut Vec<Grant>) {
        if self.line.leave(ticket, &self.ranker).is_some() && self.claim_is(ticket) {
            self.claim = None;
            self.dispatch(now, grants);
        }
    }

    fn claim_is(&self, ticket: Ticket) -> bool {
        self.claim.is_some_and(|claim| claim.ticket == ticket)
    }

    fn take_back(&mut self, now: Micros, holding: &Holding, ending: Ending, grants: &mut Vec<Grant>) {
        let ran = ending == Ending::Completed;
        self.pods.give_back(now, holding.pod, holding.weight, ran);
        self.book.give_back(holding, ran);
        if ran {
            self.rates.add(now, holding);
        } else {
            self.ranker.refund(holding.key, holding.weight);
        }
        if ending == Ending::PodRefused {
            self.pods.withhold(now, holding.pod, holding.weight);
        }
        // What did not run comes back for units with its old rank: waiters are served after it has asked.
        self.owed = !ran;
        if ran && !self.line.is_empty() {
            self.dispatch(now, grants);
        }
    }

    /// Admits every waiter that fits, best rank first, and settles the claim.
    pub(crate) fn dispatch(&mut self, now: Micros, grants: &mut Vec<Grant>) {
        self.tokens_due = Micros::NEVER;
        self.owed = false;
        while !self.line.is_empty() {
            let Some((ticket, holding)) = self.next_to_serve(now) else { return };
            let waiter = self.line.leave(ticket, &self.ranker).expect("heads are live");
            self.note_turn(now, waiter.rank, waiter.request.weight);
            let holding = self.take(now, &waiter.request, holding);
            grants.push(Grant { ticket, request: waiter.request, holding });
        }
        self.claim = None;
    }

    /// Serves one waiter out of turn, on a pod that was chosen for it elsewhere. False if it no longer waits, or
    /// does not fit there.
    pub(crate) fn serve(
        &mut self,
        now: Micros,
        ticket: Ticket,
        (pod, entry): (PodId, Entry),
        grants: &mut Vec<Grant>,
    ) -> bool {
        let Some(request) = self.line.get(ticket).map(|waiter| waiter.request) else { return false };
        let Request { api, weight, key, .. } = request;
        if self.pods.open(pod) < weight || !self.book.under_max(api, weight) {
            return false;
        }
        let waiter = self.line.leave(ticket, &self.ranker).expect("it was just found");
        self.note_turn(now, waiter.rank, weight);
        let holding = self.take(now, &request, Holding { pod, api, weight, entry, key });
        grants.push(Grant { ticket, request, holding });
        true
    }

    /// The best waiter that fits now. If none does, the claim stands as it should afterwards.
    fn next_to_serve(&mut self, now: Micros) -> Option<(Ticket, Holding)> {
        let mut heads = std::mem::take(&mut self.heads);
        self.line.heads(&self.ranker, &mut heads);
        let mut claim: Option<Claim> = None;
        let mut found = None;
        for head in &heads {
            let request = self.line.get(head.ticket).expect("heads are live").request;
            match self.fit(now, &request, claim) {
                Ok(holding) => {
                    found = Some((head.ticket, holding));
                    break;
                }
                Err(Obstacle::ApiMax) => continue,
                Err(Obstacle::Pool) => self.note_tokens(now, request.weight, claim),
                Err(Obstacle::Pod | Obstacle::NoReadyPod) => {}
            }
            if claim.is_none() {
                claim = self.stake(head, &request);
            }
        }
        self.heads = heads;
        self.claim = claim;
        found
    }

    /// Asks to be woken when tokens for `weight` are there, if time alone brings them.
    fn note_tokens(&mut self, now: Micros, weight: Units, claim: Option<Claim>) {
        if claim.is_some_and(|claim| claim.wants_tokens) {
            return;
        }
        if let Some(due) = self.book.tokens_at(weight).filter(|due| *due > now) {
            self.tokens_due = self.tokens_due.min(due);
        }
    }

    /// The claim of the best waiter that its api's `max` does not block and that some pod could hold. It moves
    /// to the pod with the most usable units if that has more, so a stuck pod holds nobody up.
    fn stake(&self, head: &Head, request: &Request) -> Option<Claim> {
        if !self.claims {
            return None;
        }
        let held = self.claim.filter(|claim| claim.ticket == head.ticket).map(|claim| claim.pod);
        let pod = match request.place {
            Place::Pin(pod) => pod,
            Place::Any | Place::Prefer(_) => self.pods.choose_claim(request.weight, held)?,
        };
        let pool_blocked = !self.book.pool_has(request.api, request.weight, 0);
        Some(Claim {
            ticket: head.ticket,
            pod,
            weight: request.weight,
            key: request.key,
            rank: head.rank,
            // Else each unit that comes free elsewhere goes to a backlog, and only this pod can ever gather what a heavy
            // request needs. Pinned, it waits for that pod alone; under `fair` the background has its own share.
            stops_background: request.behind_us == 0
                && !matches!(request.place, Place::Pin(_))
                && !self.ranker.is_fair(),
            holds_pool_from: request.arrival + request.wait_us / 10 * 8,
            wants_tokens: pool_blocked && self.book.trickle_could(request.weight),
        })
    }

    /// What stands before an ask that `obstacle` blocks.
    pub(crate) fn outlook(&mut self, now: Micros, request: &Request, obstacle: Obstacle) -> Outlook {
        let Ledger { line, ranker, book, rates, .. } = self;
        let rank = line.rank_of_newcomer(request, ranker);
        let queued = line.units_around(request) + u64::from(request.weight);
        match (obstacle, request.place) {
            (Obstacle::ApiMax, _) => Outlook {
                ahead: line.units_ahead(request, rank, ranker, |class| class.api == request.api),
                measured: rates.of_api(now, request.api, queued),
            },
            (Obstacle::Pod, Place::Pin(pod)) => Outlook {
                ahead: line.units_ahead(request, rank, ranker, |class| class.pin == Some(pod)),
                measured: rates.of_pod(now, pod, queued),
            },
            _ => {
                let queue = |class: &ClassKey| book.under_max(class.api, class.weight);
                let pool = Outlook {
                    ahead: line.units_ahead(request, rank, ranker, queue),
                    measured: rates.of_pool(now, queued),
                };
                if book.apis[request.api.index()].min < request.weight {
                    return pool;
                }
                // Its guarantee lets it in as its own api's requests complete, whoever else waits.
                let own = Outlook {
                    ahead: line.units_ahead(request, rank, ranker, |class| class.api == request.api),
                    measured: rates.of_api(now, request.api, queued),
                };
                if own.drain_us() <= pool.drain_us() { own } else { pool }
            }
        }
    }

    /// Why an ask that waited in vain was not served.
    pub(crate) fn obstacle_of(&mut self, now: Micros, ticket: Ticket, request: &Request) -> Obstacle {
        let claim = self.claim.filter(|claim| claim.ticket != ticket);
        self.fit(now, request, claim).err().unwrap_or(Obstacle::Pool)
    }

    /// Whether `pod` has room for `weight` right now, limits of the pool apart.
    pub(crate) fn elsewhere(&mut self, weight: Units, but: PodId) -> Option<PodId> {
        self.pods.choose(weight, Some(but), Placement::Spread, 0)
    }

    /// The most units one ask of `api` could ever get under the rules of `book`.
    pub(crate) fn most(&self, book: &Book, api: ApiId) -> Units {
        let (_, largest) = self.pods.capacity();
        book.most(api, largest, self.pods.largest_with_burst())
    }

    /// Recomputes every sum from `leases` and compares.
    pub(crate) fn audit<'a>(&self, leases: impl Iterator<Item = &'a Holding>) -> Result<(), String> {
        let mut per_pod = vec![0u64; self.pods.iter().count()];
        let mut per_api = vec![0u64; self.book.apis.len()];
        for holding in leases {
            per_pod[holding.pod.index()] += u64::from(holding.weight);
            per_api[holding.api.index()] += u64::from(holding.weight);
        }
        for (id, pod) in self.pods.iter() {
            if u64::from(pod.used) != per_pod[id.index()] {
                return Err(format!(
                    "pod {}: leases hold {}, kept as {}",
                    id.0,
                    per_pod[id.index()],
                    pod.used
                ));
            }
        }
        for (index, api) in self.book.apis.iter().enumerate() {
            if api.used != per_api[index] {
                return Err(format!("api {index}: leases hold {}, kept as {}", per_api[index], api.used));
            }
        }
        self.pods.audit()?;
        self.book.audit()?;
        self.line.audit()
    }
}
