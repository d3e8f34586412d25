//! A shared ledger in this process: the core's keeper behind the library's trait, with faults.

#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sluicegate::link::{
    Document, Ear, Exchanged, GateGone, GateSeen, Ledger, LinkError, LinkErrorKind, Names, Stored,
};
use sluicegate::policy::Policy;
use sluicegate::{Gate, GateId, OnLoss, PodId, Rules, SharedSettings, Timing};
use sluicegate_core::keeper::Keeper;
use sluicegate_core::shared::{Push, Report};
use sluicegate_core::time::Micros;

/// Long enough for a busy machine; nothing waits this long when all is well.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Times of the tests: a gate's credit ends 400 ms after its last word.
pub(crate) const TIMING: Timing =
    Timing { ttl_us: 500_000, pace_us: 1_000, hold_max_us: 2_000_000, timeout_us: 100_000 };

/// The only place that knows how a keeper is made.
fn keeper() -> Keeper {
    let mut keeper = Keeper::new(Rules::default());
    // This pool never ran before: nothing has to be waited for.
    keeper.found(7, 1);
    keeper
}

pub(crate) struct World {
    keeper: Mutex<Keeper>,
    ears: Mutex<BTreeMap<GateId, Sender<Push>>>,
    document: Mutex<Document>,
    gates: Mutex<BTreeMap<GateId, GateSeen>>,
    began: Instant,
    /// Every call fails.
    pub(crate) failing: AtomicBool,
    /// Nobody hears pushes.
    pub(crate) deaf: AtomicBool,
    /// Calls of `connect`.
    pub(crate) connects: AtomicU64,
    /// Ledgers and ears not yet dropped.
    pub(crate) alive: AtomicUsize,
}

impl World {
    pub(crate) fn new() -> Arc<World> {
        Arc::new(World {
            keeper: Mutex::new(keeper()),
            ears: Mutex::default(),
            document: Mutex::default(),
            gates: Mutex::default(),
            began: Instant::now(),
            failing: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
            connects: AtomicU64::new(0),
            alive: AtomicUsize::new(0),
        })
    }

    pub(crate) fn gate(self: &Arc<World>, policy: &Policy, label: &str, on_loss: OnLoss) -> Gate {
        let settings =
            SharedSettings { timing: TIMING, rules: Rules::default(), label: label.to_owned(), on_loss };
        self.alive.fetch_add(1, Ordering::SeqCst);
        let ledger = InProcess { world: Arc::clone(self), label: label.to_owned(), connected: false };
        Gate::shared(policy.clone(), settings, Box::new(ledger)).unwrap()
    }

    /// Units of all pods that the ledger counts for gates.
    pub(crate) fn held(&self, pods: u32) -> u64 {
        let keeper = self.keeper.lock().unwrap();
        (0..pods).map(|pod| keeper.held(PodId(pod))).sum()
    }

    /// Gates that live, as the ledger knows.
    pub(crate) fn gates(&self) -> usize {
        self.keeper.lock().unwrap().gates()
    }

    pub(crate) fn forget_document(&self) {
        *self.document.lock().unwrap() = Document::default();
    }

    pub(crate) fn document(&self) -> Document {
        let now_ms = self.began.elapsed().as_millis() as u64;
        Document { now_ms, ..self.document.lock().unwrap().clone() }
    }

    fn now(&self) -> Micros {
        Micros(self.began.elapsed().as_micros() as u64)
    }

    fn check(&self) -> Result<(), LinkError> {
        if self.failing.load(Ordering::SeqCst) {
            return Err(LinkError::new(LinkErrorKind::Lost, "the test cut it"));
        }
        Ok(())
    }
}

struct InProcess {
    world: Arc<World>,
    label: String,
    connected: bool,
}

impl InProcess {
    fn check(&mut self) -> Result<(), LinkError> {
        assert!(self.connected, "it is used although its connection is gone");
        self.connected = self.world.check().is_ok();
        self.world.check()
    }
}

impl Ledger for InProcess {
    fn connect(&mut self, _: GateId) -> Result<u64, LinkError> {
        self.world.connects.fetch_add(1, Ordering::SeqCst);
        self.world.check()?;
        self.connected = true;
        Ok(1)
    }

    fn exchange(&mut self, _: &Names, report: &Report) -> Result<Exchanged, LinkError> {
        self.check()?;
        let mut pushes = Vec::new();
        let mut keeper = self.world.keeper.lock().unwrap();
        let before = keeper.counts().touched;
        let mut reply = keeper.exchange(self.world.now(), report, &mut pushes);
        let touched = (keeper.counts().touched - before) as u32;
        drop(keeper);
        reply.version = self.world.document.lock().unwrap().version;
        let seen = GateSeen {
            id: report.gate,
            label: self.label.clone(),
            in_use: 0,
            credit: u64::from(report.idle),
            waiting: report.waiters.len() as u64,
            last_seen_ms: 0,
            version: report.version,
            digest: report.digest,
        };
        self.world.gates.lock().unwrap().insert(report.gate, seen);
        let made = pushes.len() as u32;
        let ears = self.world.ears.lock().unwrap();
        for (gate, push) in pushes {
            if let Some(ear) = ears.get(&gate) {
                // An ear that is gone hears nothing, as over a network.
                let _ = ear.send(push);
            }
        }
        Ok(Exchanged { reply, pushes: made, touched })
    }

    fn listen(&mut self, gate: GateId) -> Result<Box<dyn Ear>, LinkError> {
        self.check()?;
        if self.world.deaf.load(Ordering::SeqCst) {
            return Err(LinkError::new(LinkErrorKind::Refused, "no channel for you"));
        }
        let (speak, hear) = channel();
        self.world.ears.lock().unwrap().insert(gate, speak);
        self.world.alive.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(InProcessEar { hear, world: Arc::clone(&self.world) }))
    }

    fn gone(&mut self) -> Result<Vec<GateGone>, LinkError> {
        self.check()?;
        Ok(Vec::new())
    }

    fn document(&mut self) -> Result<Document, LinkError> {
        self.check()?;
        Ok(self.world.document())
    }

    fn store(&mut self, expected: u64, document: &Document) -> Result<Stored, LinkError> {
        self.check()?;
        let mut stored = self.world.document.lock().unwrap();
        if stored.version != expected {
            return Ok(Stored::Conflict(stored.version));
        }
        *stored = document.clone();
        Ok(Stored::Stored(stored.version))
    }

    fn gates(&mut self) -> Result<Vec<GateSeen>, LinkError> {
        self.check()?;
        Ok(self.world.gates.lock().unwrap().values().cloned().collect())
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.world.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

struct InProcessEar {
    hear: Receiver<Push>,
    world: Arc<World>,
}

impl Ear for InProcessEar {
    fn next(&mut self, _: &Names, patience: Duration) -> Result<Option<Push>, LinkError> {
        self.world.check()?;
        match self.hear.recv_timeout(patience) {
            Ok(push) => Ok(Some(push)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(LinkError::new(LinkErrorKind::Lost, "another ear took its place"))
            }
        }
    }
}

impl Drop for InProcessEar {
    fn drop(&mut self) {
        self.world.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Units at the pods themselves, all gates together: the judge.
#[derive(Default)]
pub(crate) struct Gauges {
    in_use: Vec<AtomicI64>,
    peak: AtomicI64,
}

impl Gauges {
    pub(crate) fn new(pods: usize) -> Arc<Gauges> {
        Arc::new(Gauges { in_use: (0..pods).map(|_| AtomicI64::new(0)).collect(), peak: AtomicI64::new(0) })
    }

    pub(crate) fn begin(&self, pod: PodId, units: u32) {
        let units = i64::from(units);
        let now = self.in_use[pod.index()].fetch_add(units, Ordering::SeqCst) + units;
        self.peak.fetch_max(now, Ordering::SeqCst);
    }

    pub(crate) fn end(&self, pod: PodId, units: u32) {
        self.in_use[pod.index()].fetch_sub(i64::from(units), Ordering::SeqCst);
    }

    /// The most units that any pod had in use at once.
    pub(crate) fn peak(&self) -> i64 {
        self.peak.load(Ordering::SeqCst)
    }
}

/// Waits for a state, not for an edge.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < SOON, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
