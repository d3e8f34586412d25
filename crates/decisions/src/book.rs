//! The leases that were given out by their ids.
//!
//! An entry lives so:
//! 1. *waiting* (only with a name that a caller chose: nobody else can ask for it): one task asks the gate, and all who
//!    posted the same id hear its outcome. When the last of them has left, the ask is withdrawn.
//! 2. *held*: until it is given back.
//! 3. written off, when its hold has passed without a renewal.
//!
//! A name that a caller chose is remembered for a minute after its end, so that an ask that was overtaken by its own
//! cancellation, or sent again after the return, takes no units.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluicegate::{Acquire, ApiId, Gate, Lease, Refusal};
use tokio::sync::{Notify, oneshot, watch};

use crate::counters::Counters;
use crate::directory::Pod;
use crate::http::input::LeaseRequest;
use crate::names::{GateName, Name, Tag, is_drawn};
use crate::server::{Busy, Tally};
use crate::settings::Settings;

mod adopted;
mod state;

use state::State;

/// All leases of this gate that have an id.
pub(crate) struct Book {
    pub(crate) name: GateName,
    /// Ids say what another gate must know to adopt them.
    tagged: bool,
    gate: Gate,
    counters: Arc<Counters>,
    tally: Arc<Tally>,
    state: Mutex<State>,
    /// Wakes the reaper when something is due earlier than it thought.
    earlier: Notify,
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
    pub(crate) api: ApiId,
    /// [`short`](crate::names::short) of its name.
    pub(crate) api_short: u32,
    /// `None` for an exempt api, and for an adopted lease whose units count at its old gate alone.
    pub(crate) lease: Option<Lease>,
    /// Units of an adopted lease.
    pub(crate) adopted: Option<u32>,
    pub(crate) pod: Arc<Pod>,
    /// `None`: as long as its connection.
    pub(crate) hold: Option<Duration>,
    /// Dropped at its end, so that its connection ends too. Only with a lease that is bound to one.
    pub(crate) line: Option<oneshot::Sender<()>>,
}

/// A lease as its caller sees it.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) name: Name,
    /// Where there are other gates.
    pub(crate) tag: Option<Tag>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) weight: u32,
    /// `None`: as long as its connection.
    pub(crate) expires_in: Option<Duration>,
    /// How long its ask waited.
    pub(crate) waited: Duration,
    pub(crate) adopted: bool,
}

/// A lease to be taken over from a gate that is gone.
pub(crate) struct Adoption {
    pub(crate) gate: String,
    pub(crate) api: ApiId,
    pub(crate) pod: Arc<Pod>,
    pub(crate) weight: u32,
    pub(crate) hold: Duration,
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
    Fresh(Guard, Asking, watch::Receiver<Option<Outcome>>),
    /// Somebody waits already.
    Joined(Guard, watch::Receiver<Option<Outcome>>),
    /// It is held already.
    Again(Guard, View),
    /// The id belongs to something else, and why.
    Clash(&'static str),
}

/// The right to settle a waiting entry.
pub(crate) struct Asking {
    pub(crate) key: Key,
    pub(crate) outcome: Arc<watch::Sender<Option<Outcome>>>,
    pub(crate) cancelled: oneshot::Receiver<()>,
}

/// One entry, and no later one of the same name.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: Name,
    serial: u64,
}

/// How a caller says that its request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As it should.
    Done,
    /// At its pod.
    Failed,
    /// The pod's own lock refused it.
    PodFull,
    /// It surely never reached the pod.
    NotStarted,
}

/// An ask of a request that its pod did not run: it keeps its old rank in the line for the one who comes for it.
pub(crate) struct Parked {
    pub(crate) acquire: Acquire,
    pub(crate) api: ApiId,
}

/// On its way to a caller, a lease ends when this is dropped, unless it is told that the answer is written.
pub(crate) struct Guard {
    book: Arc<Book>,
    key: Key,
    kind: Telling,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Telling {
    /// The lease lives as long as its connection.
    Line,
    /// A lease with a drawn name, which only the answer tells.
    Drawn,
    /// One of those who posted the name waits, or is being told: the entry ends with the last of them, unless one was
    /// told.
    Named,
    Told,
}

impl Guard {
    pub(crate) fn of_line(book: &Arc<Book>, key: Key) -> Guard {
        Guard { book: book.clone(), key, kind: Telling::Line }
    }

    pub(crate) fn of_answer(book: &Arc<Book>, key: Key) -> Guard {
        Guard { book: book.clone(), key, kind: Telling::Drawn }
    }

    /// The answer is written: from now on the lease is the caller's.
    pub(crate) fn delivered(mut self) {
        if std::mem::replace(&mut self.kind, Telling::Told) != Telling::Named {
            return;
        }
        if let Some(entry) = self.book.lock().entry_mut(&self.key) {
            entry.telling -= 1;
            entry.told = true;
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (ended, counts) = match self.kind {
            Telling::Told => return,
            Telling::Line => (self.book.end_this(&self.key), false),
            Telling::Drawn => (self.book.end_this(&self.key), true),
            Telling::Named => (self.book.not_told(&self.key), true),
        };
        if ended && counts {
            self.book.counters.undelivered.one();
        }
    }
}

impl Held {
    fn weight(&self) -> u32 {
        self.lease.as_ref().map_or(self.adopted.unwrap_or(0), Lease::weight)
    }
}

impl Book {
    pub(crate) fn new(settings: &Settings, gate: Gate, counters: Arc<Counters>, tally: Arc<Tally>) -> Book {
        let (name, tagged) = (settings.gate.clone(), settings.peers.is_some());
        Book { name, tagged, gate, counters, tally, state: Mutex::default(), earlier: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics half-way through a change; a panic elsewhere must not keep leases from ending.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The whole id of a lease.
    pub(crate) fn id(&self, view: &View) -> String {
        if view.adopted {
            return view.name.to_string();
        }
        let mut id = String::with_capacity(self.name.as_str().len() + 1 + view.name.len() + 32);
        id.push_str(self.name.as_str());
        id.push('.');
        id.push_str(&view.name);
        if let Some(tag) = view.tag {
            // A String takes everything.
            let _ = write!(id, ".{tag}");
        }
        id
    }

    fn view(&self, name: &Name, held: &Held, expires_in: Option<Duration>) -> View {
        let weight = held.weight();
        let tag = self.tagged.then_some(Tag { weight, api: held.api_short, pod: held.pod.short });
        let waited = held.lease.as_ref().map_or(Duration::ZERO, Lease::waited);
        let (pod, adopted) = (held.pod.clone(), held.adopted.is_some());
        View { name: name.clone(), tag, pod, weight, expires_in, waited, adopted }
    }

    /// A name that a caller chose is posted.
    pub(crate) fn begin(self: &Arc<Book>, name: &Name, wording: &LeaseRequest, bound: bool) -> Begun {
        let mut state = self.lock();
        if state.has_ended(name) {
            return Begun::Clash("this lease has ended; choose another id for another lease");
        }
        if let Some(entry) = state.entry_named_mut(name) {
            if entry.wording.as_ref() != Some(wording) {
                return Begun::Clash("this id was used for an ask in other words");
            }
            let bound_before = match &entry.stage {
                Stage::Waiting { bound, .. } => *bound,
                Stage::Held(held) => held.line.is_some(),
            };
            if bound || bound_before {
                return Begun::Clash("this id names a lease that is bound to another connection");
            }
            self.counters.replayed.one();
            entry.telling += 1;
            let key = Key { name: name.clone(), serial: entry.serial };
            let guard = Guard { book: self.clone(), key, kind: Telling::Named };
            return match &entry.stage {
                Stage::Waiting { outcome, .. } => Begun::Joined(guard, outcome.subscribe()),
                Stage::Held(held) => {
                    let left = entry.due.map(|due| due.saturating_duration_since(Instant::now()));
                    Begun::Again(guard, self.view(name, held, left))
                }
            };
        }
        let (outcome, receiver) = watch::channel(None);
        let outcome = Arc::new(outcome);
        let (cancel, cancelled) = oneshot::channel();
        let stage = Stage::Waiting { outcome: outcome.clone(), _cancel: cancel, bound };
        let key = state.insert(name.clone(), Some(wording.clone()), stage, Busy::new(&self.tally));
        let kind = if bound { Telling::Line } else { Telling::Named };
        if let Some(entry) = state.entry_mut(&key) {
            entry.telling = u32::from(!bound);
        }
        let guard = Guard { book: self.clone(), key: key.clone(), kind };
        Begun::Fresh(guard, Asking { key, outcome, cancelled }, receiver)
    }

    /// A lease with a drawn name.
    pub(crate) fn hold_drawn(&self, held: Held) -> (Key, View) {
        let name = crate::names::draw();
        let until = held.hold.map(|hold| Instant::now() + hold);
        let view = self.view(&name, &held, held.hold);
        let busy = Busy::new(&self.tally);
        let mut state = self.lock();
        let key = state.insert(name, None, Stage::Held(Box::new(held)), busy);
        self.schedule(state, &key, until);
        self.counters.leases.one();
        (key, view)
    }

    /// The lease of a waiting entry. `None`: it was cancelled meanwhile, and the lease has gone back.
    pub(crate) fn hold_named(&self, key: &Key, held: Held) -> Option<View> {
        let until = held.hold.map(|hold| Instant::now() + hold);
        let view = self.view(&key.name, &held, held.hold);
        let mut state = self.lock();
        let Some(entry) = state.entry_mut(key) else {
            // The gate's lock is not taken under this one.
            drop(state);
            drop(held);
            return None;
        };
        let waiting = std::mem::replace(&mut entry.stage, Stage::Held(Box::new(held)));
        self.schedule(state, key, until);
        drop(waiting);
        self.counters.leases.one();
        Some(view)
    }

    /// A waiting entry that was refused: the same id may ask again.
    pub(crate) fn refused(&self, key: &Key) {
        let entry = self.lock().remove_this(key);
        drop(entry);
    }

    /// From now on for `hold`, or as long as before. `None`: there is no such lease.
    pub(crate) fn renew(&self, name: &str, hold: Option<Duration>) -> Option<View> {
        let mut state = self.lock();
        let (name, entry) = state.find_mut(name)?;
        let serial = entry.serial;
        let Stage::Held(held) = &mut entry.stage else { return None };
        // One that is bound to its connection without a hold has nothing to renew.
        if held.hold.is_some() {
            held.hold = hold.or(held.hold);
        }
        let (until, view) = (held.hold.map(|hold| Instant::now() + hold), self.view(&name, held, held.hold));
        self.schedule(state, &Key { name, serial }, until);
        Some(view)
    }

    /// The pod of a lease that is held.
    pub(crate) fn pod_of(&self, name: &str) -> Option<Arc<Pod>> {
        match &self.lock().find_mut(name)?.1.stage {
            Stage::Held(held) => Some(held.pod.clone()),
            Stage::Waiting { .. } => None,
        }
    }

    /// Given back, or cancelled. True if there was something to end.
    pub(crate) fn end(&self, name: &str, ended: Ended) -> bool {
        let mut state = self.lock();
        let entry = state.remove(name);
        if !is_drawn(name) {
            state.remember(name);
        }
        drop(state);
        let Some(entry) = entry else { return false };
        match entry.stage {
            Stage::Waiting { ref outcome, .. } => {
                // All that follows from the entry's end happens after those who wait were told.
                outcome.send_replace(Some(Outcome::Cancelled));
            }
            Stage::Held(held) => self.close(name, *held, ended),
        }
        true
    }

    /// Ends a lease with what its caller says of it, the book's lock open.
    fn close(&self, name: &str, held: Held, ended: Ended) {
        let Held { lease: Some(lease), api, .. } = held else { return };
        let acquire = match ended {
            Ended::Done => return drop(lease),
            Ended::Failed => {
                drop(lease);
                return self.gate.count_failed(api);
            }
            Ended::PodFull => lease.refused_by_pod(),
            Ended::NotStarted => lease.never_started(),
        };
        let mut state = self.lock();
        let until = state.park(name, Parked { acquire, api });
        drop(state);
        self.look_at(until);
    }

    /// The ask of a former lease, for whoever comes for it in time.
    pub(crate) fn unpark(&self, former: &str) -> Option<Parked> {
        self.lock().parked.remove(former).map(|(parked, _)| parked)
    }

    /// As [`Book::end`] with [`Ended::Done`], if it is still this one. A name whose ask was withdrawn may be posted again.
    fn end_this(&self, key: &Key) -> bool {
        let mut state = self.lock();
        let entry = state.remove_this(key);
        if entry.as_ref().is_some_and(|entry| matches!(entry.stage, Stage::Held(_))) && !is_drawn(&key.name) {
            state.remember(&key.name);
        }
        drop(state);
        entry.is_some()
    }

    /// One of those who posted a name has left. The lease, or the ask, ends if nobody was told and nobody will be; the
    /// name may be posted again. True if a lease ended.
    fn not_told(&self, key: &Key) -> bool {
        let mut state = self.lock();
        let Some(entry) = state.entry_mut(key) else { return false };
        entry.telling -= 1;
        if entry.told || entry.telling > 0 {
            return false;
        }
        let entry = state.remove_this(key);
        drop(state);
        entry.is_some_and(|entry| matches!(entry.stage, Stage::Held(_)))
    }

    /// Sets when the reaper looks at an entry, and opens the lock.
    fn schedule(&self, mut state: MutexGuard<'_, State>, key: &Key, until: Option<Instant>) {
        let is_earlier = state.schedule(key, until);
        drop(state);
        if is_earlier {
            self.earlier.notify_one();
        }
    }

    fn look_at(&self, until: Option<Instant>) {
        if until.is_some() {
            self.earlier.notify_one();
        }
    }

    /// Lets time pass: what was not renewed is written off. Answers when to look again.
    fn reap(&self, now: Instant) -> Option<Instant> {
        let mut gone = Vec::new();
        let mut state = self.lock();
        while let Some((_, entry)) = state.next_due(now) {
            gone.push(entry);
        }
        let unclaimed = state.unclaimed(now);
        let next = state.wake_at();
        drop(state);
        drop(unclaimed);
        for entry in gone {
            let Stage::Held(held) = entry.stage else { continue };
            if let Some(lease) = held.lease {
                tracing::warn!(
                    pod = held.pod.name,
                    "a lease was not renewed in time; its units are written off"
                );
                self.counters.written_off.one();
                lease.write_off();
            }
        }
        next
    }

    /// Reaps for ever.
    pub(crate) async fn keep_time(&self) {
        loop {
            match self.reap(Instant::now()) {
                // Told earlier or not: both mean to look.
                Some(next) => {
                    drop(tokio::time::timeout_at(next.into(), self.earlier.notified()).await);
                }
                None => self.earlier.notified().await,
            }
        }
    }
}

/// The parked asks by the names of their former leases, with the time until which they are kept.
type ParkedByName = HashMap<Name, (Parked, Instant)>;
