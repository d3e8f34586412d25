//! An open loop over several gates in this process: one thread for each gate, which asks at times fixed beforehand,
//! holds what it gets for the time that was drawn, and gives it back. No runtime: its timers would round a hold of
//! ten milliseconds to whole ones.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;
use std::thread::Thread;
use std::time::{Duration, Instant};

use sluicegate_sim::{Arrival, Load};

use super::judge::{Judge, Verdict};
use crate::Outcome;

/// Time for all threads to be asleep before the first arrival.
const BEFORE: Duration = Duration::from_millis(50);
/// After the last planned end; longer than any wait.
const AFTER: Duration = Duration::from_secs(20);

/// How requests come by their units, as one gate's thread uses it.
pub(super) trait Way {
    /// A request arrives. `None`: the answer comes later.
    fn ask(&mut self, id: usize, arrival: &Arrival) -> Outcome<Option<Answer>>;
    /// Answers that came since the last call.
    fn hear(&mut self, answers: &mut Vec<(usize, Answer)>) -> Outcome<()>;
    /// A request has ended on its pod.
    fn give(&mut self, id: usize, arrival: &Arrival, pod: usize) -> Outcome<()>;
    /// Sends what was said since the last call.
    fn flush(&mut self) -> Outcome<()>;
    /// Everything said has been answered.
    fn is_quiet(&self) -> bool;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It runs on this pod.
    Runs(usize),
    Refused,
}

/// Wakes one gate's thread and brings it something.
pub(super) struct Bell<T> {
    thread: Thread,
    brought: Mutex<Vec<T>>,
}

impl<T> Bell<T> {
    /// Of the calling thread.
    pub(super) fn new() -> Arc<Bell<T>> {
        Arc::new(Bell { thread: std::thread::current(), brought: Mutex::new(Vec::new()) })
    }

    pub(super) fn ring(&self, what: T) {
        self.brought.lock().unwrap_or_else(PoisonError::into_inner).push(what);
        self.thread.unpark();
    }

    pub(super) fn take(&self, into: &mut Vec<T>) {
        into.append(&mut self.brought.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The waker of one request.
pub(super) struct Caller {
    pub(super) bell: Arc<Bell<usize>>,
    pub(super) id: usize,
}

impl Wake for Caller {
    fn wake(self: Arc<Self>) {
        self.bell.ring(self.id);
    }
}

/// What became of one request. Times are microseconds since the start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) arrival: Arrival,
    /// Start and end on its pod; `None`: it was refused.
    pub(super) ran: Option<(u64, u64)>,
}

/// A run, all gates together.
#[derive(Debug, Default)]
pub(super) struct Ran {
    pub(super) samples: Vec<Sample>,
    pub(super) lag_us: u64,
    /// For requests that waited and ran where another gate's request made room meanwhile: from that end to the start.
    pub(super) handover_us: Vec<u64>,
    /// For requests that waited and ran where another gate's request had made room before they came: the wait.
    pub(super) beside_us: Vec<u64>,
    pub(super) verdict: Verdict,
}

impl Ran {
    pub(super) fn refused(&self) -> usize {
        self.samples.iter().filter(|sample| sample.ran.is_none()).count()
    }

    /// A load that was late measures itself: such a run is void.
    pub(super) fn is_void(&self) -> bool {
        u128::from(self.lag_us) > sluicegate_trial::load::LAG_MAX.as_micros()
    }
}

/// The arrivals of `load` within `seconds`, each for a gate chosen at random.
pub(super) fn plans(load: &Load, seconds: f64, gates: usize, seed: u64) -> Vec<Vec<Arrival>> {
    let mut plans = vec![Vec::new(); gates];
    // Any mixing will do that has nothing to do with the order of the arrivals.
    let mut state = seed;
    let mut gate = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % gates
    };
    let span_us = (seconds * 1e6) as u64;
    for arrival in load.arrivals(seed).take_while(|arrival| arrival.at_us < span_us) {
        plans[gate()].push(arrival);
    }
    plans
}

/// Sends each plan through the way that `make` makes for it, on the plan's thread.
///
/// # Errors
/// A way failed, or a request was never answered.
pub(super) fn run<W: Way>(
    plans: &[Vec<Arrival>],
    judge: &Judge,
    make: impl Fn(usize) -> Outcome<W> + Sync,
) -> Outcome<Ran> {
    let start = Instant::now() + BEFORE;
    let mut all = Ran::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plans.len())
            .map(|gate| {
                let (make, plan) = (&make, &plans[gate]);
                scope.spawn(move || Lane::new(gate, plan, judge, start, make(gate)?).run())
            })
            .collect();
        for thread in threads {
            let ran = thread.join().map_err(|_| "a gate's thread panicked".to_owned())??;
            all.samples.extend(ran.samples);
            all.handover_us.extend(ran.handover_us);
            all.beside_us.extend(ran.beside_us);
            all.lag_us = all.lag_us.max(ran.lag_us);
        }
        Ok::<(), String>(())
    })?;
    all.verdict = judge.verdict();
    all.samples.sort_by_key(|sample| sample.arrival.at_us);
    Ok(all)
}

/// One gate's thread.
struct Lane<'a, W> {
    gate: usize,
    plan: &'a [Arrival],
    judge: &'a Judge,
    start: Instant,
    way: W,
    /// Index of the next arrival.
    next: usize,
    /// Ends to come: time and index.
    ends: BinaryHeap<Reverse<(u64, usize)>>,
    /// Pods and starts, by index.
    running: Vec<Option<(usize, u64)>>,
    unanswered: usize,
    ran: Ran,
}

impl<'a, W: Way> Lane<'a, W> {
    fn new(gate: usize, plan: &'a [Arrival], judge: &'a Judge, start: Instant, way: W) -> Lane<'a, W> {
        let samples = plan.iter().map(|&arrival| Sample { arrival, ran: None }).collect();
        Lane {
            gate,
            plan,
            judge,
            start,
            way,
            next: 0,
            ends: BinaryHeap::new(),
            running: vec![None; plan.len()],
            unanswered: 0,
            ran: Ran { samples, ..Ran::default() },
        }
    }

    fn now_us(&self) -> u64 {
        Instant::now().saturating_duration_since(self.start).as_micros() as u64
    }

    fn run(mut self) -> Outcome<Ran> {
        let last = self.plan.last().map_or(0, |arrival| arrival.at_us);
        let longest = self.plan.iter().map(|arrival| arrival.hold_us).max().unwrap_or(0);
        let deadline = last + longest + AFTER.as_micros() as u64;
        std::thread::sleep(self.start.saturating_duration_since(Instant::now()));
        let mut answers = Vec::new();
        loop {
            self.way.hear(&mut answers)?;
            for (id, answer) in answers.drain(..) {
                self.unanswered -= 1;
                self.settle(id, answer, true);
            }
            self.end_due()?;
            self.ask_due()?;
            self.way.flush()?;
            let wake = self.wake_us();
            let now = self.now_us();
            if wake.is_none() && self.unanswered == 0 && self.way.is_quiet() {
                return Ok(self.ran);
            }
            if now > deadline {
                return Err(format!("{} requests were never answered", self.unanswered));
            }
            // What rings the bell ends the sleep.
            let sleep = wake.unwrap_or(deadline).saturating_sub(now);
            if sleep > 0 {
                std::thread::park_timeout(Duration::from_micros(sleep.min(1_000_000)));
            }
        }
    }

    /// When there is something to do by itself.
    fn wake_us(&self) -> Option<u64> {
        let arrival = self.plan.get(self.next).map(|arrival| arrival.at_us);
        let end = self.ends.peek().map(|Reverse((at, _))| *at);
        arrival.into_iter().chain(end).min()
    }

    fn end_due(&mut self) -> Outcome<()> {
        while let Some(&Reverse((at, id))) = self.ends.peek() {
            let now = self.now_us();
            if at > now {
                break;
            }
            self.ends.pop();
            let (pod, began) = self.running[id].take().expect("what ends has begun");
            let arrival = &self.plan[id];
            // The pod is done first; only then may its units be given to another.
            self.judge.end(now, self.gate, pod, arrival.weight);
            self.ran.samples[id].ran = Some((began, now));
            self.way.give(id, arrival, pod)?;
        }
        Ok(())
    }

    fn ask_due(&mut self) -> Outcome<()> {
        while let Some(arrival) = self.plan.get(self.next) {
            let now = self.now_us();
            if arrival.at_us > now {
                break;
            }
            self.ran.lag_us = self.ran.lag_us.max(now - arrival.at_us);
            let id = self.next;
            self.next += 1;
            match self.way.ask(id, arrival)? {
                Some(answer) => self.settle(id, answer, false),
                None => self.unanswered += 1,
            }
        }
        Ok(())
    }

    fn settle(&mut self, id: usize, answer: Answer, waited: bool) {
        let Answer::Runs(pod) = answer else { return };
        let arrival = &self.plan[id];
        let found = self.judge.start(pod, arrival.weight);
        // After the judge's lock, so that no start is before the end that made its room.
        let now = self.now_us();
        if let Some(room) = found.filter(|room| waited && room.by.is_some_and(|by| by != self.gate)) {
            if room.since_us >= arrival.at_us {
                self.ran.handover_us.push(now.saturating_sub(room.since_us));
            } else {
                self.ran.beside_us.push(now - arrival.at_us);
            }
        }
        self.running[id] = Some((pod, now));
        self.ends.push(Reverse((now + arrival.hold_us, id)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Admits all to pod 0, every second one later.
    struct Yes {
        later: Vec<usize>,
        given: usize,
    }

    impl Way for Yes {
        fn ask(&mut self, id: usize, _: &Arrival) -> Outcome<Option<Answer>> {
            if id.is_multiple_of(2) {
                return Ok(Some(Answer::Runs(0)));
            }
            self.later.push(id);
            Ok(None)
        }

        fn hear(&mut self, answers: &mut Vec<(usize, Answer)>) -> Outcome<()> {
            answers.extend(self.later.drain(..).map(|id| (id, Answer::Runs(0))));
            Ok(())
        }

        fn give(&mut self, _: usize, _: &Arrival, _: usize) -> Outcome<()> {
            self.given += 1;
            Ok(())
        }

        fn flush(&mut self) -> Outcome<()> {
            // Nobody rings here; the next look finds them.
            std::thread::current().unpark();
            Ok(())
        }

        fn is_quiet(&self) -> bool {
            self.later.is_empty()
        }
    }

    #[test]
    fn every_request_runs_for_its_time_and_its_pod_counts_it() {
        let plan: Vec<Arrival> = vec![Arrival { at_us: 0, api: 0, weight: 1, hold_us: 3_000 }; 20];
        let judge = Judge::new(&[5], 1);
        let ran = run(&[plan.clone(), plan], &judge, |_| Ok(Yes { later: Vec::new(), given: 0 }));
        let ran = ran.expect("nothing fails here");
        assert_eq!((ran.samples.len(), ran.refused(), ran.verdict.left), (40, 0, 0));
        let held = |sample: &Sample| sample.ran.is_some_and(|(begin, end)| end - begin >= 3_000);
        assert!(ran.samples.iter().all(held));
        // A gate's even ones start in one step, before anything can end.
        assert!(ran.verdict.peak > 5 && ran.verdict.over > 0, "{:?}", ran.verdict);
    }
}
