//! A gate over a ledger that many gates share: how it is made, and what it tells of itself.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sluicegate_core::member::{Member, OnLoss};
use sluicegate_core::policy::{Policy, PolicyError};
use sluicegate_core::shared::{GateId, Rules, Timing};
use sluicegate_core::time::Micros;

use crate::clock::Clock;
use crate::courier::Courier;
use crate::ear;
use crate::engine::Engine;
use crate::gate::{Gate, Handle, Shared};
use crate::link::{Document, Ear, GateGone, GateSeen, Ledger, LinkError, LinkErrorKind, Names, Stored};

/// Longest that a caller waits for the link thread, which may be busy with a server that does not answer.
const JOB_MAX: Duration = Duration::from_secs(5);
/// A list of gates may be so old.
const GATES_US: u64 = 1_000_000;
/// Longest that one who looks waits for a fresh list.
const LOOK_MAX: Duration = Duration::from_millis(100);

/// Upper ends of the buckets of [`LedgerView::rtt_counts`], microseconds; one more bucket holds what is above.
pub const RTT_BOUNDS_US: [u64; 9] = [250, 500, 1_000, 2_000, 5_000, 10_000, 25_000, 50_000, 100_000];

/// How a gate takes part in a pool that many share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSettings {
    /// Times of the pool.
    pub timing: Timing,
    /// Which rules of the shared ledger are in force: all, but in trials.
    pub rules: Rules,
    /// What people call this gate.
    pub label: String,
    /// What it does when the ledger is gone and its credit has run out.
    pub on_loss: OnLoss,
}

/// The ledger, as one gate sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerView {
    /// `memory` or `redis`.
    pub kind: &'static str,
    /// The last exchange was answered. Always true in memory.
    pub up: bool,
    /// This gate's id; `None` in memory, where there is one gate.
    pub id: Option<GateId>,
    /// What people call this gate.
    pub label: String,
    /// Exchanges that were answered.
    pub exchanges: u64,
    /// Words of the ledger that came unasked.
    pub pushes_heard: u64,
    /// Words to other gates that this one's exchanges caused.
    pub pushes_made: u64,
    /// Accounts whose balance this gate's exchanges changed.
    pub touched: u64,
    /// Least microseconds between two exchanges.
    pub pace_us: u64,
    /// Nothing is lent yet after a loss of the ledger's state.
    pub recovering: bool,
    /// This gate's life in that state; 0: none yet.
    pub epoch: u64,
    /// What was lent may be used.
    pub valid: bool,
    /// Nothing was lent that may be used: it admits by itself, as [`SharedSettings::on_loss`] says.
    pub emergency: bool,
    /// Units lent to this gate that no lease uses.
    pub credit: u64,
    /// Gates that live, as far as the ledger knows.
    pub gates_known: u32,
    /// Units that the ledger wants back now, and the api whose `max` they are of.
    pub recall: Option<(u32, Option<String>)>,
    /// The pod on which a claim of the pool's best waiter stands.
    pub claim: Option<String>,
    /// Times that credit ended because no exchange was answered in time.
    pub lapses: u64,
    /// Times that everything had to be said anew, the first included.
    pub resyncs: u64,
    /// Version of the pool's document that is obeyed; 0: none.
    pub version: u64,
    /// Why the pool's document of a later version is not obeyed.
    pub document_error: Option<String>,
    /// What failed last. Stays when the ledger answers again.
    pub last_error: Option<String>,
    /// Duration of the last exchange, microseconds.
    pub rtt_us: u64,
    /// Duration of all exchanges together.
    pub rtt_sum_us: u64,
    /// Exchanges by their duration, with the ends of [`RTT_BOUNDS_US`].
    pub rtt_counts: [u64; RTT_BOUNDS_US.len() + 1],
}

impl LedgerView {
    pub(crate) fn count_rtt(&mut self, rtt_us: u64) {
        self.rtt_us = rtt_us;
        self.rtt_sum_us += rtt_us;
        self.rtt_counts[RTT_BOUNDS_US.partition_point(|bound| *bound < rtt_us)] += 1;
    }
}

/// Takes a new version of the pool's document; an error says why it cannot be obeyed.
pub(crate) type OnDocument = Box<dyn FnMut(&Document) -> Result<(), String> + Send>;

/// Where callers and the two threads of a shared gate meet. Locks are taken in this order: the gate's state,
/// then the desk.
pub(crate) struct Post {
    /// With the gate's state: wakes the link thread.
    pub(crate) bell: Condvar,
    desk: Mutex<Desk>,
    /// With the desk: wakes the ear thread.
    pub(crate) ear_bell: Condvar,
    /// With the desk: something that a caller waits for has happened.
    pub(crate) told: Condvar,
    /// Called by the link thread with nothing locked but itself.
    pub(crate) on_document: Mutex<Option<OnDocument>>,
}

pub(crate) struct Desk {
    /// As of the last configuration: whatever the core numbers has a name here.
    pub(crate) names: Arc<Names>,
    pub(crate) jobs: VecDeque<Job>,
    pub(crate) view: LedgerView,
    gates: Vec<GateSeen>,
    /// When `gates` was read.
    gates_at: Option<Micros>,
    gates_asked: bool,
    /// A new ear, on its way from the link thread to the ear thread.
    pub(crate) ear: Option<Box<dyn Ear>>,
    /// Which ear counts: one of an earlier connection is dropped.
    pub(crate) ear_life: u64,
    /// The link thread should make another.
    pub(crate) ear_lost: bool,
    /// The ledger knows that this gate has gone; nothing more is said to it.
    pub(crate) left: bool,
    /// Somebody new wants to know the document.
    pub(crate) reread: bool,
}

/// What a caller wants of the ledger. The link thread does it between exchanges.
pub(crate) enum Job {
    Document(SyncSender<Result<Document, LinkError>>),
    Store(u64, Box<Document>, SyncSender<Result<Stored, LinkError>>),
    Gone(SyncSender<Result<Vec<GateGone>, LinkError>>),
    /// With nobody to answer: for those who look.
    Gates(Option<SyncSender<Result<Vec<GateSeen>, LinkError>>>),
}

impl Post {
    fn new(names: Names, view: LedgerView) -> Post {
        let desk = Desk {
            names: Arc::new(names),
            jobs: VecDeque::new(),
            view,
            gates: Vec::new(),
            gates_at: None,
            gates_asked: false,
            ear: None,
            ear_life: 0,
            ear_lost: true,
            left: false,
            reread: false,
        };
        Post {
            bell: Condvar::new(),
            desk: Mutex::new(desk),
            ear_bell: Condvar::new(),
            told: Condvar::new(),
            on_document: Mutex::new(None),
        }
    }

    pub(crate) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn renamed(&self, names: Names) {
        self.desk().names = Arc::new(names);
    }

    /// The gate is gone; every thread and everybody who waits looks again.
    pub(crate) fn wake_all(&self) {
        self.bell.notify_all();
        // Under the lock, so that a thread between its look and its wait hears it.
        let desk = self.desk();
        self.ear_bell.notify_all();
        self.told.notify_all();
        drop(desk);
    }

    pub(crate) fn gates_came(&self, now: Micros, gates: Result<&Vec<GateSeen>, &LinkError>) {
        let mut desk = self.desk();
        desk.gates_asked = false;
        if let Ok(gates) = gates {
            desk.gates.clone_from(gates);
            desk.gates_at = Some(now);
        }
        self.told.notify_all();
    }
}

impl Shared {
    /// The link thread has something to do.
    fn ring(&self, post: &Post) {
        self.lock().link_armed = Micros(0);
        post.bell.notify_one();
    }

    /// Has the link thread do a job, and waits for what came of it.
    fn order<T>(&self, job: impl FnOnce(SyncSender<Result<T, LinkError>>) -> Job) -> Result<T, LinkError> {
        let Some(post) = &self.post else {
            let what = "the memory ledger is this gate's own; only a shared one keeps a document";
            return Err(LinkError::new(LinkErrorKind::Refused, what));
        };
        let (answer, answered) = sync_channel(1);
        post.desk().jobs.push_back(job(answer));
        self.ring(post);
        answered.recv_timeout(JOB_MAX).unwrap_or_else(|_| {
            let what = format!("no answer within {} s", JOB_MAX.as_secs());
            Err(LinkError::new(LinkErrorKind::Lost, what))
        })
    }
}

/// 128 bits that no other process has, from the system's own random source by way of the standard hasher.
fn random_id() -> GateId {
    let half = || u128::from(RandomState::new().hash_one(0u8));
    GateId(half() << 64 | half())
}

impl Gate {
    /// A gate over a ledger that many gates share. Needs no runtime; two threads of its own speak with the
    /// ledger and end with the gate. It admits as soon as the ledger lent it units, which a first connection
    /// takes some milliseconds for; until then asks wait.
    ///
    /// # Errors
    /// [`PolicyError`] as for [`Gate::new`]. That the ledger cannot be reached is none: the gate tries again and
    /// again, and meanwhile does as [`SharedSettings::on_loss`] says.
    pub fn shared(
        policy: Policy,
        settings: SharedSettings,
        ledger: Box<dyn Ledger>,
    ) -> Result<Gate, PolicyError> {
        let SharedSettings { timing, rules, label, on_loss } = settings;
        let (clock, id) = (Clock::Boot, random_id());
        let seed = RandomState::new().hash_one(1u8);
        // The server's id is told when the connection is made.
        let mut member = Member::new(&policy, timing, rules, id, (0, seed), clock.now())?;
        member.set_on_loss(on_loss);
        let core = Engine::Shared(Box::new(member));
        let view = LedgerView { kind: "redis", id: Some(id), label, ..LedgerView::default() };
        let post = Post::new(core.names(), view);
        let shared = Arc::new(Shared::new(core, clock, Some(post)));
        let courier = Courier::new(Arc::clone(&shared), id, ledger);
        spawn("sluicegate-link", move || courier.run());
        let heard = Arc::clone(&shared);
        spawn("sluicegate-ear", move || ear::run(&heard));
        Ok(Gate { handle: Arc::new(Handle { shared }) })
    }

    /// The ledger, as this gate sees it now.
    #[must_use]
    pub fn ledger(&self) -> LedgerView {
        let shared = &self.handle.shared;
        let Some(post) = &shared.post else {
            return LedgerView {
                kind: "memory",
                up: true,
                valid: true,
                gates_known: 1,
                ..LedgerView::default()
            };
        };
        let (state, now) = shared.enter();
        let mut view = post.desk().view.clone();
        if let Engine::Shared(member) = &state.core {
            let (stand, counts) = (member.view(now), member.counts());
            (view.valid, view.emergency, view.credit) = (stand.valid, stand.emergency, stand.credit);
            view.pace_us = stand.pace_us;
            (view.lapses, view.resyncs) = (counts.lapses, counts.resyncs);
        }
        view
    }

    /// All gates that the ledger knows, this one included; empty in memory. At most a second old while the
    /// ledger answers, else as they were last. Waits a tenth of a second at most.
    #[must_use]
    pub fn gates(&self) -> Vec<GateSeen> {
        let shared = &self.handle.shared;
        let Some(post) = &shared.post else { return Vec::new() };
        let now = shared.clock.now();
        let mut desk = post.desk();
        let before = desk.gates_at;
        if before.is_some_and(|at| now.since(at) < GATES_US) || !desk.view.up {
            return desk.gates.clone();
        }
        if !std::mem::replace(&mut desk.gates_asked, true) {
            desk.jobs.push_back(Job::Gates(None));
            drop(desk);
            shared.ring(post);
            desk = post.desk();
        }
        let fresh = post.told.wait_timeout_while(desk, LOOK_MAX, |desk| desk.gates_at == before);
        let (desk, _) = fresh.unwrap_or_else(PoisonError::into_inner);
        desk.gates.clone()
    }

    /// As [`Gate::gates`], read now.
    ///
    /// # Errors
    /// The ledger does not answer, or is this gate's own.
    pub fn gates_now(&self) -> Result<Vec<GateSeen>, LinkError> {
        self.handle.shared.order(|answer| Job::Gates(Some(answer)))
    }

    /// The gates that are gone and whose units still count, read now. Blocks for a round trip, 5 s at most.
    ///
    /// # Errors
    /// The ledger does not answer, or is this gate's own.
    pub fn gone(&self) -> Result<Vec<GateGone>, LinkError> {
        self.handle.shared.order(Job::Gone)
    }

    /// The pool's document, read now. Blocks for a round trip, 5 s at most.
    ///
    /// # Errors
    /// The ledger does not answer, or is this gate's own.
    pub fn document(&self) -> Result<Document, LinkError> {
        self.handle.shared.order(Job::Document)
    }

    /// Stores the pool's document as [`Ledger::store`] does. Once it is stored, this gate has been told of it by
    /// [`Gate::on_document`]; the others learn of it by their next exchanges. Blocks for a round trip, 5 s at most.
    ///
    /// # Errors
    /// The ledger does not answer, or is this gate's own.
    pub fn store_document(&self, expected: u64, document: Document) -> Result<Stored, LinkError> {
        self.handle.shared.order(|answer| Job::Store(expected, Box::new(document), answer))
    }

    /// Calls `obey` with the pool's document as it is, and again with each that comes. Nothing happens over the
    /// memory ledger.
    ///
    /// It runs on the link thread, so that exchanges wait for it. It may call the gate, but nothing that waits for
    /// the ledger ([`Gate::document`] and its like), and it must not keep the gate alive: give it a weak reference.
    pub fn on_document(&self, obey: impl FnMut(&Document) -> Result<(), String> + Send + 'static) {
        let shared = &self.handle.shared;
        let Some(post) = &shared.post else { return };
        *post.on_document.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(obey));
        post.desk().reread = true;
        shared.ring(post);
    }

    /// Gives all credit back and tells the ledger that this gate goes, so that others need not wait for its time to
    /// live to end. What its leases hold is theirs to their end. Call it when nothing more is to be admitted.
    /// Answers whether the ledger heard it within `patience`; always over the memory ledger.
    pub fn leave(&self, patience: Duration) -> bool {
        let shared = &self.handle.shared;
        let Some(post) = &shared.post else { return true };
        self.handle.step(|core, now, out| {
            if let Engine::Shared(member) = core {
                member.leave_at_once(now, out);
            }
        });
        let gone = post.told.wait_timeout_while(post.desk(), patience, |desk| !desk.left);
        gone.unwrap_or_else(PoisonError::into_inner).0.left
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.expect("a thread that speaks with the ledger can be started");
}
