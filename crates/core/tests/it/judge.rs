//! Steps a gate and its own [`Books`] side by side, and objects to whatever the rules do not allow.
//!
//! The judge learns only what a caller learns: answers and outputs. It panics with what is wrong.

use std::collections::BTreeSet;

use sluicegate_core::exchange::{Ending, Entry, Place};
use sluicegate_core::gate::{Answer, Ask, Gate, Granted, Output};
use sluicegate_core::ids::{LeaseId, PodId, Ticket};
use sluicegate_core::policy::{Mode, Order, Placement, Policy, Units};
use sluicegate_core::refusal::{Reason, Refusal};
use sluicegate_core::snapshot::Snapshot;
use sluicegate_core::time::Micros;

use crate::books::{Books, Claim, Live, Wish, allows};

pub(crate) struct Judge {
    pub(crate) gate: Gate,
    pub(crate) books: Books,
    /// Every answer and output in words: two runs of one history must write the same.
    pub(crate) transcript: String,
    /// Leases that ended; giving them back again must change nothing.
    ended: Vec<LeaseId>,
    answered: BTreeSet<Ticket>,
    out: Vec<Output>,
    /// Where the claim may stand: more than one pod only while equals are not told apart from outside.
    claimed: Option<(Ticket, Vec<usize>)>,
    entered: u64,
    completed: u64,
    asked: u64,
    granted_first: u64,
    refused: u64,
    cancelled: u64,
    /// `shadow` counts refusals that were none.
    shadowed: bool,
}

impl Judge {
    pub(crate) fn new(policy: &Policy) -> Judge {
        let gate = Gate::new(policy.clone(), 1, Micros(0)).expect("a checked policy");
        Judge {
            gate,
            books: Books::new(policy, 0),
            transcript: String::new(),
            ended: Vec::new(),
            answered: BTreeSet::new(),
            out: Vec::new(),
            claimed: None,
            entered: 0,
            completed: 0,
            asked: 0,
            granted_first: 0,
            refused: 0,
            cancelled: 0,
            shadowed: false,
        }
    }

    fn now(&self) -> Micros {
        Micros(self.books.now)
    }

    // Inputs. Each tells the gate the time first, so that what time alone does is judged apart.

    /// True if it was granted at once, false if it waits, `None` if it was refused.
    pub(crate) fn ask(&mut self, ask: Ask) -> Option<bool> {
        self.asked += 1;
        let api = &self.books.apis[ask.api.index()].0;
        let wish = Wish {
            api: ask.api.index(),
            weight: u64::from(ask.weight.unwrap_or(api.weight).max(1)),
            own_weight: ask.weight.is_some(),
            place: ask.place,
            key: ask.key.unwrap_or(u64::from(ask.api.0)),
            arrival: self.books.now,
            wait_us: ask.wait_us.unwrap_or(api.wait_us),
            behind_us: ask.behind_us,
            seq: u64::MAX,
            again: false,
        };
        let before = self.gate.snapshot();
        let answer = self.gate.ask(self.now(), ask, &mut self.out);
        self.answer(wish, answer, &before)
    }

    /// Ends a live lease. Ending it twice must change nothing.
    pub(crate) fn release(&mut self, index: usize) {
        let live = self.books.complete(index);
        self.completed += 1;
        assert!(self.gate.release(self.now(), live.lease, &mut self.out), "a live lease ends");
        self.end(live.lease);
        self.outputs();
        self.rest();
    }

    pub(crate) fn write_off(&mut self, index: usize) {
        let before = self.gate.snapshot().abandoned_units;
        let live = self.books.complete(index);
        self.completed += 1;
        assert!(self.gate.write_off(self.now(), live.lease, &mut self.out));
        assert_eq!(self.gate.snapshot().abandoned_units, before + live.weight);
        assert!(!self.gate.write_off(self.now(), live.lease, &mut self.out));
        assert_eq!(self.gate.snapshot().abandoned_units, before + live.weight, "written off once");
        self.end(live.lease);
        self.outputs();
        self.rest();
    }

    /// The request of a live lease did not run.
    pub(crate) fn retry(&mut self, index: usize, ending: Ending) {
        let live = self.books.undo(index, ending == Ending::PodRefused);
        let before = self.gate.snapshot();
        let answer = self.gate.retry(self.now(), live.lease, ending, &mut self.out);
        let answer = answer.expect("a live lease can be retried");
        self.end(live.lease);
        let wish = Wish { again: true, seq: u64::MAX, ..live.wish };
        if let Answer::Granted(granted) = &answer {
            let waited = self.books.now - wish.arrival;
            assert_eq!(granted.waited_us, waited, "a pod's refusal does not change the arrival");
        }
        self.answer(wish, answer, &before);
    }

    /// A live lease turned out to be on another pod: a fact, which no condition can refuse.
    pub(crate) fn relocate(&mut self, index: usize, pod: usize) {
        let lease = self.books.live[index].lease;
        self.books.live[index].pod = pod;
        assert!(self.gate.relocate(self.now(), lease, PodId(pod as u32), &mut self.out));
        self.outputs();
        self.rest();
    }

    /// A live lease that never ran comes back, and does not ask again.
    pub(crate) fn unused(&mut self, index: usize, refused_by_pod: bool) {
        let live = self.books.undo(index, refused_by_pod);
        let now = self.now();
        let ended = match refused_by_pod {
            true => self.gate.turned_away(now, live.lease, &mut self.out),
            false => self.gate.unused(now, live.lease, &mut self.out),
        };
        assert!(ended, "a live lease ends");
        self.end(live.lease);
        self.outputs();
        self.rest();
    }

    pub(crate) fn cancel(&mut self, index: usize) {
        let (ticket, _) = self.books.waiting.remove(index);
        self.cancelled += 1;
        assert!(self.gate.cancel(self.now(), ticket, &mut self.out), "a waiter can leave");
        assert!(self.answered.insert(ticket));
        self.outputs();
        assert!(!self.gate.cancel(self.now(), ticket, &mut self.out), "and only once");
        self.rest();
    }

    pub(crate) fn advance(&mut self, by_us: u64) {
        self.books.pass(self.books.now + by_us);
        self.gate.advance(self.now(), &mut self.out);
        self.outputs();
        self.rest();
        if let Some(wake) = self.gate.next_wake() {
            assert!(wake > self.now(), "it asks to be woken in the past");
        }
    }

    pub(crate) fn configure(&mut self, policy: &Policy) {
        let before = self.books.waiting.len();
        self.gate.configure(self.now(), policy.clone(), &mut self.out).expect("a checked policy");
        self.books.configure(policy);
        self.claimed = None;
        self.outputs();
        self.rest();
        assert!(self.books.waiting.len() <= before);
        let hopeless = |(_, wish): &(Ticket, Wish)| {
            let most = self.books.most(wish.api);
            most > 0 && wish.weight > most
        };
        assert!(!self.books.waiting.iter().any(hopeless), "one waits that can never be served");
        assert!(policy.admission.mode == Mode::Enforce || self.books.waiting.is_empty());
    }

    pub(crate) fn set_ready(&mut self, pod: usize, ready: bool) {
        self.books.pods[pod].ready = ready;
        self.gate.set_ready(self.now(), PodId(pod as u32), ready, &mut self.out);
        self.outputs();
        self.rest();
    }

    pub(crate) fn report(&mut self, pod: usize, in_use: Units) {
        self.books.report(pod, u64::from(in_use));
        self.gate.report_in_use(self.now(), PodId(pod as u32), in_use, &mut self.out);
        self.outputs();
        self.rest();
    }

    /// Gives back, cancels and retries what ended long ago: nothing may change.
    pub(crate) fn late(&mut self, which: usize) {
        let before = self.gate.snapshot();
        let now = self.now();
        if let Some(lease) = self.ended.get(which % self.ended.len().max(1)).copied() {
            assert!(!self.gate.release(now, lease, &mut self.out), "released twice");
            assert!(!self.gate.write_off(now, lease, &mut self.out), "written off after its end");
            assert!(!self.gate.relocate(now, lease, PodId(0), &mut self.out), "moved after its end");
            assert!(self.gate.retry(now, lease, Ending::PodRefused, &mut self.out).is_none());
        }
        let gone = self.answered.iter().nth(which % self.answered.len().max(1)).copied();
        if let Some(ticket) = gone {
            assert!(!self.gate.cancel(now, ticket, &mut self.out), "cancelled after its end");
        }
        assert!(self.out.is_empty());
        assert_eq!(before, self.gate.snapshot(), "a late call changed something");
    }

    // Answers.

    fn answer(&mut self, wish: Wish, answer: Answer, before: &Snapshot) -> Option<bool> {
        self.note(&format!("{answer:?}"));
        let claim = self.claim_against(&wish);
        let verdict = match answer {
            Answer::Granted(granted) => {
                self.granted(wish, &granted, claim.as_slice());
                Some(true)
            }
            Answer::Waits(ticket) => {
                assert_eq!(self.books.policy.admission.mode, Mode::Enforce, "only `enforce` delays");
                // One that comes back joins the others first, and is then served or refused in its turn.
                if !wish.again {
                    self.must_not_fit(&wish, claim.as_ref());
                    assert!(wish.deadline() > self.books.now, "it waits though its time is over");
                }
                self.entered += 1;
                self.books.waiting.push((ticket, Wish { seq: self.entered, ..wish }));
                Some(false)
            }
            Answer::Refused(refusal) => {
                self.refused += 1;
                self.refused_at_once(&wish, &refusal, claim.as_ref(), before);
                None
            }
        };
        if let Answer::Waits(ticket) = answer
            && !wish.again
        {
            self.check_eviction(ticket, before);
        }
        self.outputs();
        self.rest();
        let bound = u64::from(self.books.policy.admission.queue).max(before.waiting);
        assert!(self.books.waiting.len() as u64 <= bound, "the queue is bounded");
        verdict
    }

    /// When the queue was full, the worst rank went, and it was worse than the newcomer.
    fn check_eviction(&self, newcomer: Ticket, before: &Snapshot) {
        let full = |output: &Output| match output {
            Output::Refused(ticket, refusal) if refusal.reason() == Reason::QueueFull => Some(*ticket),
            _ => None,
        };
        let Some(evicted) = self.out.iter().find_map(full) else { return };
        assert!(before.waiting >= u64::from(self.books.policy.admission.queue), "there was room to wait");
        if self.books.policy.admission.order == Order::Fair {
            return; // There the key that queued most loses; `regress` has the cases.
        }
        let worst = self.books.in_order().pop().expect("the newcomer waits");
        assert_eq!(worst.0, evicted, "the worst rank goes");
        assert_ne!(worst.0, newcomer);
    }

    fn refused_at_once(&mut self, wish: &Wish, refusal: &Refusal, claim: Option<&Claim>, before: &Snapshot) {
        assert_eq!((refusal.api().index(), u64::from(refusal.weight())), (wish.api, wish.weight));
        let books = &self.books;
        if books.policy.admission.mode != Mode::Enforce {
            assert_eq!(refusal.reason(), Reason::NoReadyPod, "only `enforce` refuses");
            assert!(!(0..books.pods.len()).any(|pod| books.is_up(pod)));
            return;
        }
        match refusal {
            Refusal::Never { most, .. } => {
                assert_eq!(u64::from(*most), books.most(wish.api));
                assert!(wish.weight > books.most(wish.api), "it could be served some day");
                return;
            }
            Refusal::NotNow { retry_after_s, elsewhere, .. } => {
                assert!((1..=60).contains(retry_after_s));
                if let Some(PodId(other)) = elsewhere {
                    assert_eq!(refusal.reason(), Reason::PodFull);
                    assert!(wish.place != Place::Pin(PodId(*other)), "elsewhere is elsewhere");
                    assert!(books.room(*other as usize, false) >= wish.weight, "and has room");
                }
            }
        }
        self.must_not_fit(wish, claim);
        let books = &self.books;
        match refusal.reason() {
            Reason::QueueFull => assert!(before.waiting >= u64::from(books.policy.admission.queue)),
            Reason::ApiMax => assert!(!books.under_max(wish)),
            Reason::PodFull => assert!(matches!(wish.place, Place::Pin(_))),
            Reason::NoReadyPod => assert!(!books.any_can_serve()),
            Reason::WaitExceeded if wish.deadline() > books.now => {
                assert!(self.completed >= 20, "refused early before any rate is known");
                assert!(!wish.again, "a pod's refusal reached the client while wait remained");
            }
            Reason::WaitExceeded => assert!(wish.wait_us > 0),
            Reason::NoRoom => {}
            Reason::TooHeavy => panic!("`Never` says that"),
        }
    }

    fn must_not_fit(&self, wish: &Wish, claim: Option<&Claim>) {
        if let Some(pod) = self.books.fits_anywhere(wish, claim) {
            panic!("{wish:?} was not admitted though it fits on pod {pod}; claim {claim:?}");
        }
    }

    // Admissions.

    fn granted(&mut self, wish: Wish, granted: &Granted, claims: &[Claim]) {
        let pod = granted.pod.index();
        assert_eq!(u64::from(granted.weight), wish.weight);
        assert_eq!(granted.waited_us, self.books.now - wish.arrival);
        if granted.entry == Entry::Forced {
            assert_ne!(self.books.policy.admission.mode, Mode::Enforce, "`enforce` forces nothing");
        } else {
            let obeys = |claim: Option<&Claim>| self.admits(&wish, pod, granted.entry, claim);
            let fine =
                if claims.is_empty() { obeys(None) } else { claims.iter().any(|one| obeys(Some(one))) };
            assert!(fine, "{wish:?} must not enter pod {pod} by {:?}; claims {claims:?}", granted.entry);
        }
        self.granted_first += u64::from(!wish.again);
        self.books.take(Live { lease: granted.lease, pod, weight: wish.weight, entry: granted.entry, wish });
    }

    /// Conditions 1 to 3, section 4's law, and the placement rule, with the claim standing where `claim` says.
    fn admits(&self, wish: &Wish, pod: usize, entry: Entry, claim: Option<&Claim>) -> bool {
        let books = &self.books;
        if !allows(wish, pod) || books.entry_on(wish, pod, claim) != Some(entry) {
            return false;
        }
        let rank = books.rank(wish);
        for (_, other) in books.waiting.iter().filter(|(_, other)| books.rank(other) < rank) {
            let against = claim.filter(|claim| books.rank(&claim.wish) < books.rank(other));
            if books.entry_on(other, pod, against).is_some() {
                return false;
            }
        }
        self.is_placed(wish, pod, claim)
    }

    fn is_placed(&self, wish: &Wish, pod: usize, claim: Option<&Claim>) -> bool {
        let books = &self.books;
        let fits = |pod: &usize| books.entry_on(wish, *pod, claim).is_some();
        let room = |pod: usize| books.room(pod, false);
        if room(pod) < wish.weight {
            return true; // By burst: there was no choice but the widest.
        }
        if let Place::Prefer(PodId(wanted)) = wish.place
            && fits(&(wanted as usize))
        {
            return pod == wanted as usize;
        }
        let rooms: Vec<u64> = (0..books.pods.len()).filter(fits).map(room).collect();
        let least = rooms.iter().min() == Some(&room(pod));
        let most = rooms.iter().max() == Some(&room(pod));
        match books.policy.admission.placement {
            Placement::Pack => least,
            Placement::Spread => most,
            Placement::Auto => least || most,
        }
    }

    /// Takes note of what a call decided for waiters, in its order.
    fn outputs(&mut self) {
        for output in std::mem::take(&mut self.out) {
            self.note(&format!("{output:?}"));
            let (Output::Granted(ticket, _) | Output::Refused(ticket, _)) = output;
            assert!(self.answered.insert(ticket), "answered twice");
            match output {
                Output::Granted(_, granted) => {
                    let claims = self.claims_inside(ticket);
                    let wish = self.unqueue(ticket);
                    self.granted(wish, &granted, &claims);
                }
                Output::Refused(_, refusal) => {
                    // If it held the claim, even within this call, the next holder chooses afresh.
                    if self.books.claimant().is_some_and(|(holder, _)| holder == ticket) {
                        self.claimed = None;
                    }
                    let wish = self.unqueue(ticket);
                    self.refused += 1;
                    self.refused_waiting(&wish, &refusal);
                }
            }
        }
    }

    fn refused_waiting(&self, wish: &Wish, refusal: &Refusal) {
        let over = wish.deadline() <= self.books.now;
        match refusal.reason() {
            Reason::QueueFull => {}
            Reason::TooHeavy => assert!(wish.weight > self.books.most(wish.api)),
            Reason::NoReadyPod if self.books.policy.admission.mode != Mode::Enforce => {}
            // Its pod cannot hold it any more.
            _ if wish.again && matches!(wish.place, Place::Pin(pod) if !self.books.could_hold(pod, wish)) => {
            }
            _ => assert!(over, "refused by {:?} before its time was over", refusal.reason()),
        }
    }

    fn unqueue(&mut self, ticket: Ticket) -> Wish {
        let index = self.books.waiting.iter().position(|(other, _)| *other == ticket);
        self.books.waiting.remove(index.expect("the answered one waited")).1
    }

    // Claims.

    /// The claim that a newcomer meets: it stands where the gate's own copy says.
    fn claim_against(&self, wish: &Wish) -> Option<Claim> {
        let (ticket, pods) = self.claimed.as_ref()?;
        let (_, holder) = self.books.waiting.iter().find(|(other, _)| other == ticket)?;
        let better = self.books.rank(holder) < self.books.rank(wish);
        better.then(|| Claim { wish: *holder, pod: pods[0] })
    }

    /// The claims that may stand while waiters are served, against the waiter `ticket`.
    fn claims_inside(&mut self, ticket: Ticket) -> Vec<Claim> {
        let Some((holder, wish)) = self.books.claimant() else { return Vec::new() };
        let (able, widest) = self.books.claimable(&wish);
        let held = self.claimed.take().filter(|(other, _)| *other == holder).map(|(_, pods)| pods);
        let held: Vec<usize> = held.into_iter().flatten().filter(|pod| able.contains(pod)).collect();
        let stays = held.iter().any(|pod| self.books.room(*pod, false) >= widest);
        let from = if stays { held } else { able };
        let pods: Vec<usize> =
            from.into_iter().filter(|pod| self.books.room(*pod, false) >= widest).collect();
        let claims = pods.iter().map(|pod| Claim { wish, pod: *pod }).collect();
        if !pods.is_empty() {
            self.claimed = Some((holder, pods));
        }
        let served = self.books.waiting.iter().find(|(other, _)| *other == ticket);
        let better = served.is_some_and(|(_, served)| self.books.rank(&wish) < self.books.rank(served));
        if better { claims } else { Vec::new() }
    }

    // At rest.

    /// What must hold whenever the gate has answered.
    fn rest(&mut self) {
        self.gate.audit().expect("its own books balance");
        let snapshot = self.gate.snapshot();
        self.sums(&snapshot);
        let now = self.books.now;
        assert!(self.books.waiting.iter().all(|(_, wish)| wish.deadline() > now), "one waits too long");
        let first = self.books.waiting.iter().map(|(_, wish)| wish.deadline()).min();
        let wake = self.gate.next_wake().map(|wake| wake.0);
        assert!(first.is_none_or(|first| wake.is_some_and(|wake| wake <= first)), "a deadline is not kept");
        self.claimed = self.claim_at_rest(&snapshot);
        self.nobody_fits();
    }

    fn claim_at_rest(&self, snapshot: &Snapshot) -> Option<(Ticket, Vec<usize>)> {
        let holder = self.books.claimant();
        let Some((api, pod)) = snapshot.claim else {
            let could = holder.is_some_and(|(_, wish)| !self.books.claimable(&wish).0.is_empty());
            assert!(!could, "{holder:?} claims nothing");
            return None;
        };
        let (ticket, wish) = holder.expect("a claim has a holder");
        assert_eq!(api.index(), wish.api, "the best waiter whose api is below its max claims");
        assert!(
            self.books.claimable(&wish).0.contains(&pod.index()),
            "a claim on a pod that cannot serve it"
        );
        Some((ticket, vec![pod.index()]))
    }

    /// No waiter fits anywhere: whoever does was forgotten by a wake-up.
    fn nobody_fits(&self) {
        for (ticket, wish) in &self.books.waiting {
            let claim =
                self.claim_against(wish).filter(|_| self.claimed.as_ref().is_some_and(|c| c.0 != *ticket));
            if let Some(pod) = self.books.fits_anywhere(wish, claim.as_ref()) {
                panic!("{wish:?} still waits though it fits on pod {pod}; claim {claim:?}");
            }
        }
    }

    fn sums(&self, snapshot: &Snapshot) {
        let books = &self.books;
        for pod in &snapshot.pods {
            let index = pod.id.index();
            assert_eq!(u64::from(pod.in_use), books.on_pod(index), "units on pod {index}");
            assert_eq!(u64::from(pod.outside), books.pods[index].outside.0, "outside on pod {index}");
        }
        for api in &snapshot.apis {
            let index = api.id.index();
            assert_eq!(api.in_use, books.of_api(index), "units of api {index}");
            assert_eq!(u64::from(api.min), books.min(index));
            assert_eq!(api.max.map(u64::from), books.max(index));
        }
        let waiting: u64 = books.waiting.iter().map(|(_, wish)| wish.weight).sum();
        assert_eq!((snapshot.waiting, snapshot.waiting_units), (books.waiting.len() as u64, waiting));
        assert_eq!(u64::from(snapshot.capacity), books.capacity());
        assert_eq!(u64::from(snapshot.reserve), books.reserve());
        assert_eq!(u64::from(snapshot.share), books.share());
        assert_eq!(snapshot.in_use, books.live.iter().map(|live| live.weight).sum::<u64>());
        assert_eq!(snapshot.trickled, books.trickled());
    }

    /// Every ask ended once, or still waits, or runs. Called at the end, when all apis are there.
    pub(crate) fn account(&mut self) {
        let snapshot = self.gate.snapshot();
        let total = |of: fn(&sluicegate_core::snapshot::ApiSnapshot) -> u64| -> u64 {
            snapshot.apis.iter().map(of).sum()
        };
        assert_eq!(total(|api| api.counts.admitted), self.granted_first);
        assert_eq!(total(|api| api.counts.cancelled), self.cancelled);
        if !self.shadowed {
            assert_eq!(total(|api| api.counts.refused_all()), self.refused);
        }
        assert_eq!(
            total(|api| api.counts.waits.iter().sum()),
            self.granted_first,
            "a wait is counted per grant"
        );
        assert!(self.asked >= self.granted_first);
    }

    pub(crate) fn shadow(&mut self) {
        self.shadowed = true;
    }

    fn end(&mut self, lease: LeaseId) {
        self.ended.push(lease);
    }

    fn note(&mut self, what: &str) {
        self.transcript.push_str(what);
        self.transcript.push('\n');
    }
}
