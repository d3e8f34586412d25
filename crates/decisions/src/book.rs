//! The leases that were given out by their ids.
//!
//! An entry lives so:
//! 1. *waiting* (only with a name that a caller chose: nobody else can ask for it): one task asks the gate, and all who
//!    posted the same id hear its outcome. When the last of them has left, the ask is withdrawn.
//! 2. *held*: until it is given back.
//! 3. *overdue*: its hold has passed. The units stay as long again, because the pod may still work; a renewal or a
//!    return that comes late is as good as one in time.
//! 4. written off, at twice its hold.
//!
//! A name that a caller chose is remembered for a minute after its end, so that an ask that was overtaken by its own
//! cancellation, or sent again after the return, takes no units.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluicegate::{Lease, Refusal};
use tokio::sync::{Notify, oneshot, watch};

use crate::counters::Counters;
use crate::directory::Pod;
use crate::http::input::LeaseRequest;
use crate::names::{GateName, Name, is_drawn};
use crate::server::{Busy, Tally};

/// How long an ended name is remembered: longer than a request may be under way.
const REMEMBER: Duration = Duration::from_secs(60);
/// Names remembered; the oldest go first.
const REMEMBERED_MAX: usize = 65_536;

/// All leases of this gate that have an id.
pub(crate) struct Book {
    pub(crate) gate: GateName,
    counters: Arc<Counters>,
    tally: Arc<Tally>,
    state: Mutex<State>,
    /// Wakes the reaper when something is due earlier than it thought.
    earlier: Notify,
}

#[derive(Default)]
struct State {
    entries: HashMap<Name, Entry>,
    /// What the reaper must look at, and when.
    due: BTreeMap<(Instant, u64), Name>,
    /// By serial, for those that have an end.
    times: HashMap<u64, Times>,
    ended: HashMap<Name, Instant>,
    /// The same in order of time.
    ended_order: VecDeque<(Instant, Name)>,
    next_serial: u64,
}

struct Entry {
    /// Tells this entry from a later one of the same name.
    serial: u64,
    /// What was asked for; `None` for a name that was drawn.
    wording: Option<LeaseRequest>,
    stage: Stage,
    /// A drain waits for it.
    _busy: Busy,
}

enum Stage {
    Waiting {
        outcome: Arc<watch::Sender<Option<Outcome>>>,
        /// Dropped to cancel.
        _cancel: oneshot::Sender<()>,
        bound: bool,
    },
    Held(Box<Held>),
}

/// A lease that a caller has.
pub(crate) struct Held {
    /// `None` for an exempt api.
    pub(crate) lease: Option<Lease>,
    pub(crate) pod: Arc<Pod>,
    /// `None`: as long as its connection.
    pub(crate) hold: Option<Duration>,
    /// Dropped at its end, so that its connection ends too. Only with a lease that is bound to one.
    pub(crate) line: Option<oneshot::Sender<()>>,
}

struct Times {
    /// When its hold ends; when it is overdue, when it is written off.
    due: Instant,
    overdue: bool,
}

/// A lease as its caller sees it.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) name: Name,
    pub(crate) pod: Arc<Pod>,
    pub(crate) weight: u32,
    /// `None`: as long as its connection.
    pub(crate) expires_in: Option<Duration>,
}

/// What became of an ask with a chosen name.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Given(View),
    Refused(Refusal),
    /// By a `DELETE` of its id.
    Cancelled,
    /// The pod chosen is no longer in the configuration.
    PodGone,
}

/// What posting a chosen name came to.
pub(crate) enum Begun {
    /// Nobody asked before: the task that asks needs this.
    Fresh(Asking, watch::Receiver<Option<Outcome>>),
    /// Somebody waits already.
    Joined(watch::Receiver<Option<Outcome>>),
    /// It is held already.
    Again(View),
    /// The id belongs to something else, and why.
    Clash(&'static str),
}

/// The right to settle a waiting entry.
pub(crate) struct Asking {
    pub(crate) guard: Key,
    pub(crate) outcome: Arc<watch::Sender<Option<Outcome>>>,
    pub(crate) cancelled: oneshot::Receiver<()>,
}

/// One entry, and no later one of the same name.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: Name,
    serial: u64,
}

/// Ends its entry when dropped, unless told that its caller has the answer.
pub(crate) struct Guard {
    book: Arc<Book>,
    key: Key,
    armed: bool,
    counts: bool,
}

impl Guard {
    /// For a lease that lives as long as its connection.
    pub(crate) fn of_line(book: &Arc<Book>, key: Key) -> Guard {
        Guard { book: book.clone(), key, armed: true, counts: false }
    }

    /// For a lease whose id only the answer tells.
    pub(crate) fn of_answer(book: &Arc<Book>, key: Key) -> Guard {
        Guard { book: book.clone(), key, armed: true, counts: true }
    }

    /// The caller knows: from now on the lease is the caller's.
    pub(crate) fn delivered(&mut self) {
        self.armed = false;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed && self.book.end_this(&self.key) && self.counts {
            self.book.counters.undelivered.one();
        }
    }
}

impl Held {
    fn weight(&self) -> u32 {
        self.lease.as_ref().map_or(0, Lease::weight)
    }
}

impl Book {
    pub(crate) fn new(gate: GateName, counters: Arc<Counters>, tally: Arc<Tally>) -> Book {
        Book { gate, counters, tally, state: Mutex::default(), earlier: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics half-way through a change; a panic elsewhere must not keep leases from ending.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The full id of a name.
    pub(crate) fn id(&self, name: &str) -> String {
        format!("{}.{name}", self.gate)
    }

    /// A name that a caller chose is posted.
    pub(crate) fn begin(&self, name: &Name, wording: &LeaseRequest, bound: bool) -> Begun {
        let mut state = self.lock();
        state.forget(Instant::now());
        if state.ended.contains_key(name) {
            return Begun::Clash("this lease has ended; choose another id for another lease");
        }
        let State { entries, .. } = &mut *state;
        if let Some(entry) = entries.get(name) {
            if entry.wording.as_ref() != Some(wording) {
                return Begun::Clash("this id was used for an ask in other words");
            }
            let (bound_before, begun) = match &entry.stage {
                Stage::Waiting { outcome, bound, .. } => (*bound, Begun::Joined(outcome.subscribe())),
                Stage::Held(held) => {
                    (held.line.is_some(), Begun::Again(view(name, held, state.times(name))))
                }
            };
            if bound || bound_before {
                return Begun::Clash("this id names a lease that is bound to another connection");
            }
            self.counters.replayed.one();
            return begun;
        }
        let (outcome, receiver) = watch::channel(None);
        let outcome = Arc::new(outcome);
        let (cancel, cancelled) = oneshot::channel();
        let stage = Stage::Waiting { outcome: outcome.clone(), _cancel: cancel, bound };
        let guard = state.insert(name.clone(), Some(wording.clone()), stage, Busy::new(&self.tally));
        Begun::Fresh(Asking { guard, outcome, cancelled }, receiver)
    }

    /// A lease with a drawn name.
    pub(crate) fn hold_drawn(&self, held: Held) -> (Key, View) {
        let name = crate::names::draw();
        let until = held.hold.map(|hold| Instant::now() + hold);
        let view = View { name: name.clone(), pod: held.pod.clone(), weight: held.weight(), expires_in: held.hold };
        let mut state = self.lock();
        let key = state.insert(name, None, Stage::Held(Box::new(held)), Busy::new(&self.tally));
        self.schedule(state, &key, until);
        self.counters.leases.one();
        (key, view)
    }

    /// The lease of a waiting entry. `None`: it was cancelled meanwhile, and the lease has gone back.
    pub(crate) fn hold_named(&self, key: &Key, held: Held) -> Option<View> {
        let until = held.hold.map(|hold| Instant::now() + hold);
        let view = View { name: key.name.clone(), pod: held.pod.clone(), weight: held.weight(), expires_in: held.hold };
        let mut state = self.lock();
        let entry = state.entries.get_mut(&key.name).filter(|entry| entry.serial == key.serial);
        let Some(entry) = entry else {
            // The gate's lock is not taken under this one.
            drop(state);
            drop(held);
            return None;
        };
        entry.stage = Stage::Held(Box::new(held));
        self.schedule(state, key, until);
        self.counters.leases.one();
        Some(view)
    }

    /// Nobody may be interested in a waiting entry any more: then it ends. True if it did.
    pub(crate) fn forsake(&self, asking: &Asking) -> bool {
        let mut state = self.lock();
        // Under the lock nobody can join.
        if asking.outcome.receiver_count() > 0 {
            return false;
        }
        let entry = state.remove_this(&asking.guard);
        drop(state);
        drop(entry);
        true
    }

    /// A waiting entry that was refused: the same id may ask again.
    pub(crate) fn refused(&self, key: &Key) {
        let entry = self.lock().remove_this(key);
        drop(entry);
    }

    /// From now on for `hold`, or as long as before.
    pub(crate) fn renew(&self, name: &Name, hold: Option<Duration>) -> Option<View> {
        let mut state = self.lock();
        let entry = state.entries.get_mut(name)?;
        let serial = entry.serial;
        let Stage::Held(held) = &mut entry.stage else { return None };
        // One that is bound to its connection without a hold has nothing to renew.
        if held.hold.is_some() {
            held.hold = hold.or(held.hold);
        }
        let until = held.hold.map(|hold| Instant::now() + hold);
        let view = View { name: name.clone(), pod: held.pod.clone(), weight: held.weight(), expires_in: held.hold };
        self.schedule(state, &Key { name: name.clone(), serial }, until);
        Some(view)
    }

    /// Given back, or cancelled. True if there was something to end.
    pub(crate) fn end(&self, name: &Name) -> bool {
        let mut state = self.lock();
        let entry = state.remove(name);
        if !is_drawn(name) {
            state.remember(name);
        }
        drop(state);
        close(entry)
    }

    /// As [`Book::end`], if it is still this one.
    fn end_this(&self, key: &Key) -> bool {
        let mut state = self.lock();
        let entry = state.remove_this(key);
        if entry.is_some() && !is_drawn(&key.name) {
            state.remember(&key.name);
        }
        drop(state);
        close(entry)
    }

    /// Sets when the reaper looks at an entry, and opens the lock.
    fn schedule(&self, mut state: MutexGuard<'_, State>, key: &Key, until: Option<Instant>) {
        let first = state.due.first_key_value().map(|((at, _), _)| *at);
        state.unschedule(key.serial);
        let Some(until) = until else { return };
        state.due.insert((until, key.serial), key.name.clone());
        state.times.insert(key.serial, Times { due: until, overdue: false });
        drop(state);
        if first.is_none_or(|first| until < first) {
            self.earlier.notify_one();
        }
    }

    /// Lets time pass: what is due becomes overdue, what is overdue is written off. Answers when to look again.
    fn reap(&self, now: Instant) -> Option<Instant> {
        let mut gone = Vec::new();
        let mut state = self.lock();
        while let Some((&(at, serial), _)) = state.due.first_key_value().filter(|((at, _), _)| *at <= now) {
            let name = state.due.remove(&(at, serial)).expect("was the first a moment ago");
            let Some(Entry { stage: Stage::Held(held), .. }) = state.entries.get(&name) else { continue };
            let (holds_units, hold) = (held.lease.is_some(), held.hold.unwrap_or_default());
            let times = state.times.get_mut(&serial).expect("what is due has its times");
            if holds_units && !times.overdue {
                *times = Times { due: at + hold, overdue: true };
                state.due.insert((at + hold, serial), name);
                self.counters.overdue.one();
                continue;
            }
            state.times.remove(&serial);
            if !is_drawn(&name) {
                state.remember(&name);
            }
            gone.extend(state.entries.remove(&name));
        }
        let next = state.due.first_key_value().map(|((at, _), _)| *at);
        drop(state);
        for entry in gone {
            let Stage::Held(held) = entry.stage else { continue };
            if let Some(lease) = held.lease {
                tracing::warn!(pod = held.pod.name, "a lease was not given back within twice its hold; its units are written off");
                self.counters.written_off.one();
                lease.write_off();
            }
        }
        next
    }

    /// Reaps for ever.
    pub(crate) async fn keep_time(&self) {
        loop {
            let next = self.reap(Instant::now());
            match next {
                Some(next) => {
                    // Told earlier or not: both mean to look.
                    let _ = tokio::time::timeout_at(next.into(), self.earlier.notified()).await;
                }
                None => self.earlier.notified().await,
            }
        }
    }
}

/// Ends what was taken out of the book, with the book's lock open. True if there was something.
fn close(entry: Option<Entry>) -> bool {
    let Some(entry) = entry else { return false };
    if let Stage::Waiting { outcome, .. } = &entry.stage {
        outcome.send_replace(Some(Outcome::Cancelled));
    }
    true
}

fn view(name: &Name, held: &Held, times: Option<&Times>) -> View {
    let left = times.map(|times| {
        if times.overdue { Duration::ZERO } else { times.due.saturating_duration_since(Instant::now()) }
    });
    View { name: name.clone(), pod: held.pod.clone(), weight: held.weight(), expires_in: left }
}

impl State {
    fn insert(&mut self, name: Name, wording: Option<LeaseRequest>, stage: Stage, busy: Busy) -> Key {
        let serial = self.next_serial;
        self.next_serial += 1;
        self.entries.insert(name.clone(), Entry { serial, wording, stage, _busy: busy });
        Key { name, serial }
    }

    fn times(&self, name: &Name) -> Option<&Times> {
        self.times.get(&self.entries.get(name)?.serial)
    }

    fn unschedule(&mut self, serial: u64) {
        let Some(times) = self.times.remove(&serial) else { return };
        self.due.remove(&(times.due, serial));
    }

    fn remove(&mut self, name: &Name) -> Option<Entry> {
        let entry = self.entries.remove(name)?;
        self.unschedule(entry.serial);
        Some(entry)
    }

    fn remove_this(&mut self, key: &Key) -> Option<Entry> {
        if self.entries.get(&key.name)?.serial != key.serial {
            return None;
        }
        self.remove(&key.name)
    }

    fn remember(&mut self, name: &Name) {
        let now = Instant::now();
        self.forget(now);
        if self.ended.insert(name.clone(), now).is_none() {
            self.ended_order.push_back((now, name.clone()));
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, _)) = self.ended_order.front() {
            if self.ended_order.len() < REMEMBERED_MAX && now.duration_since(*at) < REMEMBER {
                return;
            }
            if let Some((_, name)) = self.ended_order.pop_front() {
                self.ended.remove(&name);
            }
        }
    }
}
