//! The async shell: one core behind one lock, stepped by its callers.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use sluicegate_core::exchange::Ending;
use sluicegate_core::gate::{Answer, Gate as Core, Granted, Output};
use sluicegate_core::ids::{ApiId, LeaseId, PodId, Ticket};
use sluicegate_core::policy::{Policy, PolicyError};
use sluicegate_core::refusal::Refusal;
use sluicegate_core::snapshot::Snapshot;
use sluicegate_core::time::Micros;

use crate::acquire::{Acquire, Ask};
use crate::clock::Clock;
use crate::engine::Engine;
use crate::lease::Lease;
use crate::shared::Post;

/// While the ledger does not answer and asks wait, the end of credit is looked for so often.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Admission for one process. Cheap to clone; all clones are the same gate.
#[derive(Clone)]
pub struct Gate {
    pub(crate) handle: Arc<Handle>,
}

/// Ends the threads when the last gate, lease and waiting ask are gone.
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) clock: Clock,
    state: Mutex<State>,
    /// Wakes the alarm thread when an earlier deadline came up, or to end it.
    alarm: Condvar,
    /// What belongs to a ledger that many gates share; `None` over the embedded one.
    pub(crate) post: Option<Post>,
}

pub(crate) struct State {
    pub(crate) core: Engine,
    /// Those who wait, and those whose answer they have not seen yet.
    pub(crate) waiters: HashMap<Ticket, Seat>,
    /// Kept so that a call allocates nothing. Empty between calls.
    pub(crate) out: Vec<Output>,
    /// When the alarm thread will wake by itself.
    armed: Micros,
    /// When the link thread will; 0 while it is at work, and where there is none.
    pub(crate) link_armed: Micros,
    alarm_runs: bool,
    /// The ledger does not answer: the end of credit is looked for by the alarm thread, which nothing else wakes.
    pub(crate) cut_off: bool,
    pub(crate) closed: bool,
}

pub(crate) enum Seat {
    Waits(Option<Waker>),
    Answered(Result<Granted, Refusal>),
}

impl State {
    fn new(core: Engine) -> State {
        State {
            // Until its first answer.
            cut_off: matches!(core, Engine::Shared(_)),
            core,
            waiters: HashMap::new(),
            out: Vec::new(),
            armed: Micros::NEVER,
            link_armed: Micros(0),
            alarm_runs: false,
            closed: false,
        }
    }

    /// Seats the core's outputs and takes the wakers, to be woken once the lock is open.
    pub(crate) fn settle(&mut self) -> Vec<Waker> {
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

    /// Whether a thread has to be woken earlier than it will by itself.
    #[inline]
    fn is_late(&self) -> bool {
        let link = match &self.core {
            Engine::Own(_) => false,
            Engine::Shared(member) => member.next_wake() < self.link_armed,
        };
        link || self.core.next_wake() < self.armed
    }
}

impl Handle {
    /// One step of the core, with all that follows from it.
    #[inline]
    pub(crate) fn step<T>(&self, step: impl FnOnce(&mut Engine, Micros, &mut Vec<Output>) -> T) -> T {
        let (mut state, now) = self.shared.enter();
        let State { core, out, .. } = &mut *state;
        let answer = step(core, now, out);
        if !state.out.is_empty() || state.is_late() {
            self.shared.finish(state);
        }
        answer
    }

    #[inline]
    pub(crate) fn release(&self, lease: LeaseId) {
        self.step(|core, now, out| core.release(now, lease, out));
    }

    pub(crate) fn write_off(&self, lease: LeaseId) {
        self.step(|core, now, out| core.write_off(now, lease, out));
    }

    /// A step that answers an ask; a waiting one is seated before its grant can be.
    #[inline]
    pub(crate) fn begin(
        &self,
        waker: Option<&Waker>,
        step: impl FnOnce(&mut Engine, Micros, &mut Vec<Output>) -> Answer,
    ) -> Answer {
        let (mut state, now) = self.shared.enter();
        let State { core, out, .. } = &mut *state;
        let answer = step(core, now, out);
        if let Answer::Waits(ticket) = answer {
            state.waiters.insert(ticket, Seat::Waits(waker.cloned()));
        } else if state.out.is_empty() {
            return answer;
        }
        self.shared.finish(state);
        answer
    }

    /// A lease that was granted a while ago and is handed over now. Credit of a shared ledger may have ended
    /// since (a process that was stopped, a machine that slept): its units may be another gate's by now, and
    /// the request asks again with its old rank. `None`: it is good.
    #[inline]
    pub(crate) fn renew(&self, lease: LeaseId, waker: &Waker) -> Option<Answer> {
        self.shared.post.as_ref()?;
        let (state, now) = self.shared.enter();
        let good = state.core.is_valid(now);
        drop(state);
        if good {
            return None;
        }
        Some(self.begin(Some(waker), |core, now, out| {
            core.retry(now, lease, Ending::NeverStarted, out).expect("a lease not handed over is alive")
        }))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.alarm.notify_one();
        if let Some(post) = &self.shared.post {
            post.wake_all();
        }
    }
}

impl Shared {
    pub(crate) fn new(core: Engine, clock: Clock, post: Option<Post>) -> Shared {
        Shared { clock, state: Mutex::new(State::new(core)), alarm: Condvar::new(), post }
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // The core does not panic half-way through a change; a panic elsewhere must not end admission.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state and the time. A gate alone reads the clock before it waits for the lock, which keeps the lock
    /// short; what a shared ledger lent is only good at a time read while it is handed over.
    #[inline]
    pub(crate) fn enter(&self) -> (MutexGuard<'_, State>, Micros) {
        if self.post.is_none() {
            let now = self.clock.now();
            return (self.lock(), now);
        }
        let state = self.lock();
        let now = self.clock.now();
        (state, now)
    }

    /// After a step: answers are seated, threads that must act earlier are woken, and, with the lock open, so are
    /// those who waited.
    pub(crate) fn finish(self: &Arc<Shared>, mut state: MutexGuard<'_, State>) {
        let wakers = state.settle();
        self.arm(&mut state);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Sees to it that the threads wake in time.
    fn arm(self: &Arc<Shared>, state: &mut State) {
        if let (Engine::Shared(member), Some(post)) = (&state.core, &self.post)
            && member.next_wake() < state.link_armed
        {
            state.link_armed = Micros(0);
            post.bell.notify_one();
        }
        let due = state.core.next_wake();
        if due >= state.armed {
            return;
        }
        state.armed = due;
        if state.alarm_runs {
            self.alarm.notify_one();
            return;
        }
        state.alarm_runs = true;
        let shared = Arc::clone(self);
        std::thread::Builder::new()
            .name("sluicegate-alarm".to_owned())
            .spawn(move || shared.keep_time())
            .expect("a thread for the deadlines of those who wait can be started");
    }

    /// The ledger does not answer. Whoever waits has the alarm thread running; it must look now and then.
    pub(crate) fn cut_off(&self) {
        self.lock().cut_off = true;
        self.alarm.notify_one();
    }

    /// The alarm thread: lets the core's time pass when nobody else does.
    fn keep_time(self: &Arc<Shared>) {
        let (mut state, mut now) = self.enter();
        while !state.closed {
            let looks = state.cut_off && state.core.next_wake() != Micros::NEVER;
            if now >= state.armed || looks {
                let State { core, out, .. } = &mut *state;
                core.advance(now, out);
                state.armed = state.core.next_wake();
                if !state.out.is_empty() {
                    self.finish(state);
                    state = self.lock();
                }
                now = self.clock.now();
            }
            if now >= state.armed {
                continue;
            }
            // An hour at most, so that the sum cannot overflow any platform's clock.
            let most = if looks { LOOK_EVERY } else { Duration::from_secs(3600) };
            let sleep = Duration::from_micros(state.armed.since(now)).min(most);
            state = match self.alarm.wait_timeout(state, sleep) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
            now = self.clock.now();
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
        let core = Core::new(policy, fastrand::u64(..), clock.now())?;
        let shared = Arc::new(Shared::new(Engine::Own(core), clock, None));
        Ok(Gate { handle: Arc::new(Handle { shared }) })
    }

    /// Asks for a lease. The ask is made at the first poll; dropping the future before it is ready
    /// withdraws it, and a lease that was granted meanwhile goes to the next waiter.
    pub fn acquire(&self, ask: Ask) -> Acquire {
        Acquire::new(Arc::clone(&self.handle), ask)
    }

    /// A lease now or not at all.
    ///
    /// # Errors
    /// The [`Refusal`], as with a wait of zero.
    pub fn try_acquire(&self, ask: Ask) -> Result<Lease, Refusal> {
        let ask = ask.0;
        match self.handle.step(|core, now, out| core.try_ask(now, ask, out)) {
            Answer::Granted(granted) => Ok(Lease::new(Arc::clone(&self.handle), ask.api, granted)),
            Answer::Refused(refusal) => Err(refusal),
            Answer::Waits(_) => unreachable!("an ask with no wait does not wait"),
        }
    }

    /// Counts a request that runs on `pod` already: the gate that admitted it is gone, and the ledger counts its units no
    /// longer. It counts also above a limit; then nothing new is admitted until enough completes. `None`: this gate never
    /// had such a pod or api.
    #[must_use]
    pub fn adopt(&self, api: ApiId, pod: PodId, weight: u32) -> Option<Lease> {
        let granted = self.handle.step(|core, now, out| core.adopt(now, (api, pod), weight, out))?;
        Some(Lease::new(Arc::clone(&self.handle), api, granted))
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

    /// A request was kept for later without having asked: counted as outcome `enqueued`.
    pub fn count_enqueued(&self, api: ApiId) {
        self.handle.step(|core, _, _| core.count_enqueued(api));
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
        self.handle.step(|core, now, out| {
            let version = core.configure(now, policy, out)?;
            if let Some(post) = &self.handle.shared.post {
                // In the same step: no report may number what has no name.
                post.renamed(core.names());
            }
            Ok(version)
        })
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
