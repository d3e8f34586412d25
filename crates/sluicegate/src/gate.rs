//! The async shell: one core gate behind one lock, stepped by its callers.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sluicegate_core::exchange::{Ending, Place};
use sluicegate_core::gate::{Answer, Ask as CoreAsk, Gate as Core, Granted, Output};
use sluicegate_core::ids::{ApiId, LeaseId, PodId, Ticket};
use sluicegate_core::policy::{Policy, PolicyError};
use sluicegate_core::refusal::Refusal;
use sluicegate_core::snapshot::Snapshot;
use sluicegate_core::time::Micros;

use crate::clock::Clock;
use crate::lease::Lease;

/// A request for a lease, to be given to [`Gate::acquire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask(CoreAsk);

impl Ask {
    /// An ask of `api` with everything as its rules say.
    #[must_use]
    pub fn new(api: ApiId) -> Ask {
        Ask(CoreAsk::new(api))
    }

    /// Units, in place of the api's weight. 0 counts as 1.
    #[must_use]
    pub fn weight(mut self, units: u32) -> Ask {
        self.0.weight = Some(units);
        self
    }

    /// Longest wait, in place of the api's. Zero refuses at once.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Ask {
        self.0.wait_us = Some(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX));
        self
    }

    /// On this pod only: for a backend that asks for itself.
    #[must_use]
    pub fn pin(mut self, pod: PodId) -> Ask {
        self.0.place = Place::Pin(pod);
        self
    }

    /// On this pod if it fits there now, else on any: for a sidecar.
    #[must_use]
    pub fn prefer(mut self, pod: PodId) -> Ask {
        self.0.place = Place::Prefer(pod);
        self
    }

    /// Whom `order: fair` shares between, in place of the api: a hash of the caller, say.
    #[must_use]
    pub fn key(mut self, key: u64) -> Ask {
        self.0.key = Some(key);
        self
    }
}

/// Admission for one process. Cheap to clone; all clones are the same gate.
#[derive(Clone)]
pub struct Gate {
    handle: Arc<Handle>,
}

/// Ends the alarm thread when the last gate, lease and waiting ask are gone.
pub(crate) struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    state: Mutex<State>,
    /// Wakes the alarm thread when an earlier deadline came up, or to end it.
    alarm: Condvar,
}

struct State {
    core: Core,
    /// Those who wait, and those whose answer they have not seen yet.
    waiters: HashMap<Ticket, Seat>,
    /// Kept so that a call allocates nothing. Empty between calls.
    out: Vec<Output>,
    /// When the alarm thread will wake by itself.
    armed: Micros,
    alarm_runs: bool,
    closed: bool,
}

enum Seat {
    Waits(Option<Waker>),
    Answered(Result<Granted, Refusal>),
}

impl State {
    /// Seats the core's outputs and takes the wakers, to be woken once the lock is open.
    fn settle(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        for output in self.out.drain(..) {
            let (ticket, answer) = match output {
                Output::Granted(ticket, granted) => (ticket, Ok(granted)),
                Output::Refused(ticket, refusal) => (ticket, Err(refusal)),
            };
            if let Some(Seat::Waits(Some(waker))) = self.waiters.insert(ticket, Seat::Answered(answer)) {
                wakers.push(waker);
            }
        }
        wakers
    }
}

impl Handle {
    /// One step of the core, with all that follows from it.
    #[inline]
    fn step<T>(&self, step: impl FnOnce(&mut Core, Micros, &mut Vec<Output>) -> T) -> T {
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        let State { core, out, .. } = &mut *state;
        let answer = step(core, now, out);
        if !state.out.is_empty() {
            self.finish(state);
        } else if state.core.next_wake().is_some_and(|due| due < state.armed) {
            self.arm(&mut state);
        }
        answer
    }

    fn finish(&self, mut state: MutexGuard<'_, State>) {
        let wakers = state.settle();
        self.arm(&mut state);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Sees to it that the alarm thread wakes in time.
    fn arm(&self, state: &mut State) {
        let Some(due) = state.core.next_wake() else { return };
        if due >= state.armed {
            return;
        }
        state.armed = due;
        if state.alarm_runs {
            self.shared.alarm.notify_one();
            return;
        }
        state.alarm_runs = true;
        let shared = Arc::clone(&self.shared);
        std::thread::Builder::new()
            .name("sluicegate-alarm".to_owned())
            .spawn(move || shared.keep_time())
            .expect("a thread for the deadlines of those who wait can be started");
    }

    #[inline]
    pub(crate) fn release(&self, lease: LeaseId) {
        self.step(|core, now, out| core.release(now, lease, out));
    }

    pub(crate) fn write_off(&self, lease: LeaseId) {
        self.step(|core, now, out| core.write_off(now, lease, out));
    }

    /// The request of `lease` did not run; it goes through admission again.
    pub(crate) fn retry(self: Arc<Handle>, lease: LeaseId, api: ApiId, ending: Ending) -> Acquire {
        let answer = self.begin(None, |core, now, out| {
            core.retry(now, lease, ending, out).expect("a live lease was alive")
        });
        Acquire { stage: Stage::of(answer), handle: self, api }
    }

    /// A step that answers an ask; a waiting one is seated before its grant can be.
    #[inline]
    fn begin(
        &self,
        waker: Option<&Waker>,
        step: impl FnOnce(&mut Core, Micros, &mut Vec<Output>) -> Answer,
    ) -> Answer {
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        let State { core, out, .. } = &mut *state;
        let answer = step(core, now, out);
        if let Answer::Waits(ticket) = answer {
            state.waiters.insert(ticket, Seat::Waits(waker.cloned()));
        } else if state.out.is_empty() {
            return answer;
        }
        self.finish(state);
        answer
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.alarm.notify_one();
    }
}

impl Shared {
    #[inline]
    fn lock(&self) -> MutexGuard<'_, State> {
        // The core does not panic half-way through a change; a panic elsewhere must not end admission.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The alarm thread: lets the core's time pass when nobody else does.
    fn keep_time(&self) {
        let mut state = self.lock();
        while !state.closed {
            let now = self.clock.now();
            if now >= state.armed {
                let State { core, out, .. } = &mut *state;
                core.advance(now, out);
                state.armed = state.core.next_wake().unwrap_or(Micros::NEVER);
                let wakers = state.settle();
                if !wakers.is_empty() {
                    drop(state);
                    wakers.into_iter().for_each(Waker::wake);
                    state = self.lock();
                }
                continue;
            }
            // An hour at most, so that the sum cannot overflow any platform's clock.
            let sleep = Duration::from_micros(state.armed.since(now)).min(Duration::from_secs(3600));
            state = match self.alarm.wait_timeout(state, sleep) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

impl Gate {
    /// A gate over the embedded ledger.
    ///
    /// # Errors
    /// [`PolicyError`] if two pods or apis share a name, a weight is 0, or a figure is out of range.
    pub fn new(policy: Policy) -> Result<Gate, PolicyError> {
        let clock = Clock::start();
        let state = State {
            core: Core::new(policy, fastrand::u64(..), clock.now())?,
            waiters: HashMap::new(),
            out: Vec::new(),
            armed: Micros::NEVER,
            alarm_runs: false,
            closed: false,
        };
        let shared = Arc::new(Shared { clock, state: Mutex::new(state), alarm: Condvar::new() });
        Ok(Gate { handle: Arc::new(Handle { shared }) })
    }

    /// Asks for a lease. The ask is made at the first poll; dropping the future before it is ready
    /// withdraws it, and a lease that was granted meanwhile goes to the next waiter.
    pub fn acquire(&self, ask: Ask) -> Acquire {
        Acquire { handle: Arc::clone(&self.handle), stage: Stage::Fresh(ask.0), api: ask.0.api }
    }

    /// A lease now or not at all.
    ///
    /// # Errors
    /// The [`Refusal`], as with a wait of zero.
    pub fn try_acquire(&self, ask: Ask) -> Result<Lease, Refusal> {
        let ask = ask.wait(Duration::ZERO).0;
        match self.handle.begin(None, |core, now, out| core.ask(now, ask, out)) {
            Answer::Granted(granted) => Ok(Lease::new(Arc::clone(&self.handle), ask.api, granted)),
            Answer::Refused(refusal) => Err(refusal),
            Answer::Waits(_) => unreachable!("an ask with no wait does not wait"),
        }
    }

    /// The pod for a request that holds nothing (probes, preflight): the least used one that is ready.
    /// `None`: no pod is ready.
    #[must_use]
    pub fn exempt(&self, api: ApiId) -> Option<PodId> {
        self.handle.step(|core, _, _| core.exempt(api))
    }

    /// The number of the api of this name.
    #[must_use]
    pub fn api_id(&self, name: &str) -> Option<ApiId> {
        self.handle.shared.lock().core.api_id(name)
    }

    /// The number of the pod of this name.
    #[must_use]
    pub fn pod_id(&self, name: &str) -> Option<PodId> {
        self.handle.shared.lock().core.pod_id(name)
    }

    /// The name of an api, empty if the gate never had it.
    #[must_use]
    pub fn api_name(&self, api: ApiId) -> String {
        self.handle.shared.lock().core.api_name(api).unwrap_or_default().to_owned()
    }

    /// The name of a pod, empty if the gate never had it.
    #[must_use]
    pub fn pod_name(&self, pod: PodId) -> String {
        self.handle.shared.lock().core.pod_name(pod).unwrap_or_default().to_owned()
    }

    /// A pod's health changed. Moves placement, never a limit.
    pub fn set_ready(&self, pod: PodId, ready: bool) {
        self.handle.step(|core, now, out| core.set_ready(now, pod, ready, out));
    }

    /// A pod said how many units are in use on it by all callers (`x-sluicegate-in-use`). What is above
    /// this gate's own leases counts as used for a second.
    pub fn report_in_use(&self, pod: PodId, units: u32) {
        self.handle.step(|core, now, out| core.report_in_use(now, pod, units, out));
    }

    /// A request that was admitted failed at its pod: counted as outcome `failed`.
    pub fn count_failed(&self, api: ApiId) {
        self.handle.step(|core, _, _| core.count_failed(api));
    }

    /// Takes new rules with leases and waiters alive, and answers the new version.
    ///
    /// # Errors
    /// [`PolicyError`] as for [`Gate::new`]; then nothing was changed.
    pub fn configure(&self, policy: Policy) -> Result<u64, PolicyError> {
        self.handle.step(|core, now, out| core.configure(now, policy, out))
    }

    /// A copy of what the gate knows at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.handle.step(|core, now, out| {
            core.advance(now, out);
            core.snapshot()
        })
    }

    /// Checks that every sum equals what leases and waiters add up to.
    ///
    /// # Errors
    /// What differs, in words. It never should; tests ask.
    pub fn audit(&self) -> Result<(), String> {
        self.handle.shared.lock().core.audit()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

/// A lease to come: see [`Gate::acquire`]. Cancel safe: dropping it leaves nothing behind.
#[must_use = "nothing is asked for until it is polled"]
pub struct Acquire {
    handle: Arc<Handle>,
    stage: Stage,
    api: ApiId,
}

enum Stage {
    Fresh(CoreAsk),
    Waiting(Ticket),
    Answered(Result<Granted, Refusal>),
    Done,
}

impl Stage {
    fn of(answer: Answer) -> Stage {
        match answer {
            Answer::Granted(granted) => Stage::Answered(Ok(granted)),
            Answer::Refused(refusal) => Stage::Answered(Err(refusal)),
            Answer::Waits(ticket) => Stage::Waiting(ticket),
        }
    }
}

impl Future for Acquire {
    type Output = Result<Lease, Refusal>;

    /// # Panics
    /// If polled after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Stage::Fresh(ask) = self.stage {
            let answer = self.handle.begin(Some(cx.waker()), |core, now, out| core.ask(now, ask, out));
            self.stage = Stage::of(answer);
        } else if let Stage::Waiting(ticket) = self.stage {
            let mut state = self.handle.shared.lock();
            match state.waiters.get_mut(&ticket) {
                Some(Seat::Waits(waker)) => {
                    if waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
                        *waker = Some(cx.waker().clone());
                    }
                }
                Some(Seat::Answered(answer)) => {
                    let answer = *answer;
                    state.waiters.remove(&ticket);
                    drop(state);
                    self.stage = Stage::Answered(answer);
                }
                None => unreachable!("a waiting ask keeps its seat until it has seen its answer"),
            }
        }
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Answered(Ok(granted)) => {
                Poll::Ready(Ok(Lease::new(Arc::clone(&self.handle), self.api, granted)))
            }
            Stage::Answered(Err(refusal)) => Poll::Ready(Err(refusal)),
            Stage::Waiting(ticket) => {
                self.stage = Stage::Waiting(ticket);
                Poll::Pending
            }
            Stage::Fresh(_) | Stage::Done => panic!("`Acquire` was polled after it was ready"),
        }
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let granted = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Fresh(_) | Stage::Done | Stage::Answered(Err(_)) => return,
            Stage::Answered(Ok(granted)) => granted,
            Stage::Waiting(ticket) => {
                let seat = self.handle.shared.lock().waiters.remove(&ticket);
                match seat {
                    Some(Seat::Answered(Ok(granted))) => granted,
                    Some(Seat::Waits(_)) => {
                        self.handle.step(|core, now, out| core.cancel(now, ticket, out));
                        // Granted or refused between the two locks: its seat was made anew.
                        match self.handle.shared.lock().waiters.remove(&ticket) {
                            Some(Seat::Answered(Ok(granted))) => granted,
                            _ => return,
                        }
                    }
                    _ => return,
                }
            }
        };
        self.handle.step(|core, now, out| core.unused(now, granted.lease, out));
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").field("api", &self.api).finish_non_exhaustive()
    }
}
