//! The core in virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use sluicegate_core::gate::{Answer, Ask, Gate, Granted, Output};
use sluicegate_core::ids::{ApiId, LeaseId, PodId, Ticket};
use sluicegate_core::policy::{Policy, PolicyError, Units};
use sluicegate_core::refusal::{Reason, Refusal};
use sluicegate_core::time::Micros;

use crate::load::{Arrival, Load};
use crate::report::{ApiReport, Report};

/// Looks at the world while it runs.
pub trait Watch {
    /// Called after every event, when the gate is at rest.
    fn after(&mut self, world: &World);

    /// One arrival was decided for good: `waited_us` when it was admitted, the refusal when it was not. `at_once` is
    /// true if it never waited. `index` counts arrivals from 0.
    fn decided(&mut self, index: usize, at_once: bool, outcome: Result<u64, Refusal>) {
        let _ = (index, at_once, outcome);
    }

    /// Called before an arrival is put to the gate. May change the rules.
    fn before(&mut self, index: usize, world: &mut World) {
        let _ = (index, world);
    }
}

/// Watches nothing.
struct Blind;

impl Watch for Blind {
    fn after(&mut self, _: &World) {}
}

/// One request on a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct End {
    at: Micros,
    /// Equal times end in the order they began.
    seq: u64,
    lease: LeaseId,
    pod: PodId,
    api: usize,
    weight: Units,
    hold_us: u64,
}

/// One gate, its pods and its clock.
///
/// Events happen in order of time; at the same microsecond ends come first, then deadlines, then arrivals.
#[derive(Debug)]
pub struct World {
    gate: Gate,
    policy: Policy,
    ids: Vec<ApiId>,
    now: Micros,
    ends: BinaryHeap<Reverse<End>>,
    seq: u64,
    waiting: BTreeMap<Ticket, (usize, Arrival)>,
    /// Units in use by pod and by api, as the world itself counts them.
    on_pod: Vec<Units>,
    of_api: Vec<u64>,
    queued: Vec<u64>,
    out: Vec<Output>,
    report: Report,
}

impl World {
    /// An empty pool under `policy` at time 0. `seed` drives the spread of Retry-After only.
    ///
    /// # Errors
    /// [`PolicyError`] if the policy breaks its invariant.
    pub fn new(policy: &Policy, seed: u64) -> Result<World, PolicyError> {
        let gate = Gate::new(policy.clone(), seed, Micros(0))?;
        let ids: Option<Vec<ApiId>> = policy.apis.iter().map(|api| gate.api_id(&api.name)).collect();
        let apis = policy.apis.iter().map(|api| ApiReport {
            name: api.name.clone(),
            weight: api.weight,
            ..ApiReport::default()
        });
        let report = Report {
            apis: apis.collect(),
            capacity: policy.pods.iter().map(|pod| u64::from(pod.capacity)).sum(),
            peaks: vec![0; policy.pods.len()],
            ..Report::default()
        };
        Ok(World {
            gate,
            ids: ids.expect("the gate knows the apis it was made with"),
            now: Micros(0),
            ends: BinaryHeap::new(),
            seq: 0,
            waiting: BTreeMap::new(),
            on_pod: vec![0; policy.pods.len()],
            of_api: vec![0; policy.apis.len()],
            queued: vec![0; policy.apis.len()],
            out: Vec::new(),
            report,
            policy: policy.clone(),
        })
    }

    /// Puts `arrivals` (in order of time) to the gate, and lets the world go on until all of them have ended or
    /// were refused.
    pub fn run(&mut self, arrivals: impl IntoIterator<Item = Arrival>) -> Report {
        self.run_watched(arrivals, &mut Blind)
    }

    /// As [`World::run`], with somebody who looks on.
    pub fn run_watched(
        &mut self,
        arrivals: impl IntoIterator<Item = Arrival>,
        watch: &mut dyn Watch,
    ) -> Report {
        for (index, arrival) in arrivals.into_iter().enumerate() {
            while self.step(Micros(arrival.at_us), watch) {}
            self.now = self.now.max(Micros(arrival.at_us));
            watch.before(index, self);
            self.arrive(index, arrival, watch);
            self.settle(watch);
        }
        while self.step(Micros::NEVER, watch) {}
        self.report.span_us = self.now.0;
        self.report.clone()
    }

    /// The gate, between two events.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Virtual time.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.now
    }

    /// Units held by an api, as the world counts them.
    #[must_use]
    pub fn in_use(&self, api: usize) -> u64 {
        self.of_api[api]
    }

    /// Requests of an api that wait.
    #[must_use]
    pub fn waiting(&self, api: usize) -> u64 {
        self.queued[api]
    }

    /// Units held on a pod, as the world counts them.
    #[must_use]
    pub fn on_pod(&self, pod: usize) -> Units {
        self.on_pod[pod]
    }

    /// Changes the rules now. Apis and pods must be those of the start, in the same order.
    ///
    /// # Errors
    /// [`PolicyError`] if the policy breaks its invariant; then nothing was changed.
    pub fn configure(&mut self, policy: Policy, watch: &mut dyn Watch) -> Result<(), PolicyError> {
        self.gate.configure(self.now, policy.clone(), &mut self.out)?;
        self.policy = policy;
        self.settle(watch);
        Ok(())
    }

    /// The next end or deadline up to `until`; false if there is none.
    fn step(&mut self, until: Micros, watch: &mut dyn Watch) -> bool {
        let end = self.ends.peek().map(|Reverse(end)| end.at);
        let wake = self.gate.next_wake();
        let next = end.into_iter().chain(wake).min();
        let Some(next) = next.filter(|next| *next <= until && *next < Micros::NEVER) else { return false };
        self.now = self.now.max(next);
        self.report.calls += 1;
        if end.is_some_and(|end| end <= next) {
            let Some(Reverse(end)) = self.ends.pop() else { return false };
            self.of_api[end.api] -= u64::from(end.weight);
            self.on_pod[end.pod.index()] -= end.weight;
            self.report.apis[end.api].unit_us += u128::from(end.weight) * u128::from(end.hold_us);
            let first = self.gate.release(self.now, end.lease, &mut self.out);
            assert!(first, "a lease ends once");
        } else {
            self.gate.advance(self.now, &mut self.out);
            let again = self.gate.next_wake();
            assert!(again.is_none_or(|again| again > self.now), "the gate asks to be woken in the past");
        }
        self.settle(watch);
        true
    }

    fn arrive(&mut self, index: usize, arrival: Arrival, watch: &mut dyn Watch) {
        let rule = &self.policy.apis[arrival.api];
        let weight = (arrival.weight != rule.weight).then_some(arrival.weight);
        let waits = rule.wait_us > 0;
        let ask = Ask { weight, ..Ask::new(self.ids[arrival.api]) };
        self.report.calls += 1;
        self.report.apis[arrival.api].offered += 1;
        match self.gate.ask(self.now, ask, &mut self.out) {
            Answer::Granted(granted) => {
                self.start(&arrival, &granted);
                watch.decided(index, true, Ok(0));
            }
            Answer::Waits(ticket) => {
                self.queued[arrival.api] += 1;
                self.waiting.insert(ticket, (index, arrival));
            }
            Answer::Refused(refusal) => {
                let early = waits && refusal.reason() == Reason::WaitExceeded;
                self.report.apis[arrival.api].refused_early += u64::from(early);
                self.refuse(&arrival, &refusal);
                watch.decided(index, true, Err(refusal));
            }
        }
    }

    /// Takes note of what the last call decided for those that waited.
    fn settle(&mut self, watch: &mut dyn Watch) {
        let mut out = std::mem::take(&mut self.out);
        for output in out.drain(..) {
            let (Output::Granted(ticket, _) | Output::Refused(ticket, _)) = output;
            let (index, arrival) = self.waiting.remove(&ticket).expect("each ticket is answered once");
            self.queued[arrival.api] -= 1;
            let outcome = match output {
                Output::Granted(_, granted) => {
                    self.start(&arrival, &granted);
                    Ok(granted.waited_us)
                }
                Output::Refused(_, refusal) => {
                    self.refuse(&arrival, &refusal);
                    Err(refusal)
                }
            };
            watch.decided(index, false, outcome);
        }
        self.out = out;
        watch.after(self);
    }

    fn start(&mut self, arrival: &Arrival, granted: &Granted) {
        let pod = granted.pod.index();
        self.on_pod[pod] += granted.weight;
        self.of_api[arrival.api] += u64::from(granted.weight);
        self.report.peaks[pod] = self.report.peaks[pod].max(self.on_pod[pod]);
        let api = &mut self.report.apis[arrival.api];
        api.admitted += 1;
        api.waits.add(granted.waited_us);
        self.seq += 1;
        self.ends.push(Reverse(End {
            at: self.now + arrival.hold_us,
            seq: self.seq,
            lease: granted.lease,
            pod: granted.pod,
            api: arrival.api,
            weight: granted.weight,
            hold_us: arrival.hold_us,
        }));
    }

    fn refuse(&mut self, arrival: &Arrival, refusal: &Refusal) {
        let index = Reason::ALL.iter().position(|reason| *reason == refusal.reason());
        self.report.apis[arrival.api].refused[index.expect("ALL names every reason")] += 1;
    }
}

/// Puts `arrivals` seeded arrivals of `load` through the core under `policy`.
///
/// # Errors
/// [`PolicyError`] if the policy breaks its invariant.
pub fn simulate(policy: &Policy, load: &Load, seed: u64, arrivals: usize) -> Result<Report, PolicyError> {
    Ok(World::new(policy, seed)?.run(load.arrivals(seed).take(arrivals)))
}

/// Puts recorded `arrivals` (in order of time) through the core under `policy`.
///
/// # Errors
/// [`PolicyError`] if the policy breaks its invariant.
pub fn replay(policy: &Policy, arrivals: &[Arrival]) -> Result<Report, PolicyError> {
    Ok(World::new(policy, 0)?.run(arrivals.iter().copied()))
}
