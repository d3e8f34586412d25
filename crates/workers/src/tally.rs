//! What came of the messages of one source, and where they stand now.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How one try of a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Answered; the broker is told next.
    Done,
    /// Put back for another try.
    Again,
    /// A dead letter.
    Dead,
    /// It ran, but the broker could not be told: it comes again.
    Untold,
}

impl End {
    /// All of them, in the order of [`Ends`].
    pub const ALL: [End; 4] = [End::Done, End::Again, End::Dead, End::Untold];

    /// Its place in [`Ends`].
    fn place(self) -> usize {
        self as usize
    }

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            End::Done => "done",
            End::Again => "again",
            End::Dead => "dead",
            End::Untold => "untold",
        }
    }
}

/// How often each of [`End::ALL`] came. They only grow.
pub type Ends = [u64; 4];

/// Counts of one source. Messages that a connection lost are taken again.
#[derive(Debug)]
pub struct Tally {
    /// Name of the source.
    pub source: String,
    /// `rabbitmq` or `kafka`.
    pub broker: &'static str,
    taken: AtomicU64,
    redelivered: AtomicU64,
    held: AtomicU64,
    running: AtomicU64,
    partitions: AtomicU64,
    paused: AtomicU64,
    tables: Mutex<Tables>,
}

/// What has names. Behind a lock: it is touched a few times for each message, which takes milliseconds.
#[derive(Debug, Default)]
struct Tables {
    ends: BTreeMap<String, Ends>,
    prefetch: BTreeMap<String, u64>,
}

/// A look at a [`Tally`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TallyView {
    /// Messages taken from the broker.
    pub taken: u64,
    /// Those of them that it had given out before. Kafka does not tell.
    pub redelivered: u64,
    /// Messages held now: waiting for their turn, for room, for another try, or running.
    pub held: u64,
    /// Those of them that a pod works at.
    pub running: u64,
    /// Kafka: partitions that this process reads, since they gave a message.
    pub partitions: u64,
    /// Those of them that are paused, because they hold their share.
    pub paused: u64,
    /// What came of them, by api.
    pub ends: BTreeMap<String, Ends>,
    /// RabbitMQ: messages that each queue's consumer may hold.
    pub prefetch: BTreeMap<String, u64>,
}

impl TallyView {
    /// How often messages ended so, of all apis.
    #[must_use]
    pub fn count(&self, end: End) -> u64 {
        self.ends.values().map(|ends| ends[end.place()]).sum()
    }
}

impl Tally {
    /// Of a source that has taken nothing yet.
    #[must_use]
    pub fn new(source: &str, broker: &'static str) -> Tally {
        Tally {
            source: source.to_owned(),
            broker,
            taken: AtomicU64::new(0),
            redelivered: AtomicU64::new(0),
            held: AtomicU64::new(0),
            running: AtomicU64::new(0),
            partitions: AtomicU64::new(0),
            paused: AtomicU64::new(0),
            tables: Mutex::default(),
        }
    }

    /// How it stands.
    #[must_use]
    pub fn view(&self) -> TallyView {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let tables = self.tables();
        TallyView {
            taken: read(&self.taken),
            redelivered: read(&self.redelivered),
            held: read(&self.held),
            running: read(&self.running),
            partitions: read(&self.partitions),
            paused: read(&self.paused),
            ends: tables.ends.clone(),
            prefetch: tables.prefetch.clone(),
        }
    }

    pub(crate) fn took(&self, redelivered: bool) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.redelivered.fetch_add(u64::from(redelivered), Ordering::Relaxed);
    }

    pub(crate) fn ended(&self, api: &str, end: End) {
        let mut tables = self.tables();
        if !tables.ends.contains_key(api) {
            tables.ends.insert(api.to_owned(), Ends::default());
        }
        let ends = tables.ends.get_mut(api).expect("it was just put in");
        ends[end.place()] += 1;
    }

    pub(crate) fn set_prefetch(&self, queue: &str, prefetch: u16) {
        self.tables().prefetch.insert(queue.to_owned(), u64::from(prefetch));
    }

    pub(crate) fn set_partitions(&self, all: usize, paused: usize) {
        self.partitions.store(all as u64, Ordering::Relaxed);
        self.paused.store(paused as u64, Ordering::Relaxed);
    }

    /// One message is held as long as what this gives lives.
    pub(crate) fn hold(&self) -> One<'_> {
        One::of(&self.held)
    }

    /// The same for a source that counts them itself.
    pub(crate) fn set_held(&self, held: usize) {
        self.held.store(held as u64, Ordering::Relaxed);
    }

    /// A pod works at one message as long as what this gives lives.
    pub(crate) fn run(&self) -> One<'_> {
        One::of(&self.running)
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One more in a count, until it is dropped: a task that is aborted drops it too.
pub(crate) struct One<'a>(&'a AtomicU64);

impl One<'_> {
    fn of(count: &AtomicU64) -> One<'_> {
        count.fetch_add(1, Ordering::Relaxed);
        One(count)
    }
}

impl Drop for One<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
