//! Gates over one shared ledger: the threads, not the rules, which the core's own tests judge.

#![allow(clippy::disallowed_methods, reason = "a test has a clock of its own")]

mod documents;
pub(crate) mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use sluicegate::policy::Policy;
use sluicegate::{Ask, Gate, OnLoss, Reason, Refusal};
use world::{Gauges, SOON, World, until};

const PODS: [(&str, u32); 3] = [("a", 10), ("b", 10), ("c", 10)];

pub(crate) fn policy() -> Policy {
    Policy::simple(&PODS, &[("light", 1), ("middle", 2), ("heavy", 3)])
}

/// `count` requests at each gate, far more at once than the pool holds. Answers how many were served.
async fn load(gates: &[Gate], gauges: &Arc<Gauges>, count: usize) -> usize {
    let mut tasks = Vec::new();
    for (number, gate) in gates.iter().enumerate() {
        for request in 0..count {
            let (gate, gauges) = (gate.clone(), Arc::clone(gauges));
            let api = gate.api_id(["light", "middle", "heavy"][(request + number) % 3]).unwrap();
            tasks.push(tokio::spawn(async move {
                let Ok(lease) = gate.acquire(Ask::new(api).wait(SOON)).await else { return false };
                gauges.begin(lease.pod(), lease.weight());
                tokio::time::sleep(Duration::from_micros(500 + (request as u64 * 37) % 1500)).await;
                gauges.end(lease.pod(), lease.weight());
                drop(lease);
                true
            }));
        }
    }
    let mut served = 0;
    for task in tasks {
        served += usize::from(task.await.unwrap());
    }
    served
}

async fn until_lent(gate: &Gate) {
    until("credit", || gate.ledger().credit > 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_gates_fill_the_pods_and_never_overrun_one() {
    let world = World::new();
    let gates: Vec<Gate> = (0..4).map(|n| world.gate(&policy(), &format!("g{n}"), OnLoss::Refuse)).collect();
    let gauges = Gauges::new(PODS.len());
    assert_eq!(load(&gates, &gauges, 300).await, 1200);
    // Exactly full at some moment, since 1200 wanted in at once; never more.
    assert_eq!(gauges.peak(), 10);
    for gate in &gates {
        gate.audit().unwrap();
        let (now, ledger) = (gate.snapshot(), gate.ledger());
        assert_eq!((now.in_use, now.waiting), (0, 0));
        assert!(ledger.up && ledger.valid && ledger.epoch > 0 && ledger.exchanges > 0, "{ledger:?}");
        assert_eq!(ledger.rtt_counts.iter().sum::<u64>(), ledger.exchanges);
    }
    assert!(gates.iter().any(|gate| gate.ledger().pushes_heard > 0));
    assert_eq!(gates[0].gates_now().unwrap().len(), 4);
    // Far fewer exchanges than two per request.
    let exchanges: u64 = gates.iter().map(|gate| gate.ledger().exchanges).sum();
    assert!(exchanges < 2400, "{exchanges}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gates_without_ears_serve_everybody_too() {
    let world = World::new();
    world.deaf.store(true, Ordering::SeqCst);
    let gates: Vec<Gate> = (0..4).map(|n| world.gate(&policy(), &format!("g{n}"), OnLoss::Refuse)).collect();
    let gauges = Gauges::new(PODS.len());
    assert_eq!(load(&gates, &gauges, 100).await, 400);
    assert!(gauges.peak() <= 10);
    assert!(gates.iter().all(|gate| gate.ledger().pushes_heard == 0));
}

#[tokio::test]
async fn with_refuse_a_silent_ledger_ends_admission_and_its_return_begins_it_again() {
    let world = World::new();
    let gate = world.gate(&policy(), "g", OnLoss::Refuse);
    let light = gate.api_id("light").unwrap();
    let held = gate.acquire(Ask::new(light).wait(SOON)).await.unwrap();
    world.failing.store(true, Ordering::SeqCst);
    until("the end of validity", || !gate.ledger().valid).await;
    let ledger = gate.ledger();
    assert!(!ledger.up && ledger.last_error.unwrap().contains("the test cut it"));
    let refusal = gate.acquire(Ask::new(light).wait(Duration::from_millis(30))).await.unwrap_err();
    assert_eq!(refusal.reason(), Reason::WaitExceeded);
    // What runs goes on, and ends as ever.
    assert_eq!(gate.snapshot().in_use, 1);
    drop(held);
    assert_eq!(gate.snapshot().in_use, 0);
    let tries = world.connects.load(Ordering::SeqCst);
    until("another try", || world.connects.load(Ordering::SeqCst) > tries).await;
    let waits = tokio::spawn(gate.acquire(Ask::new(light).wait(SOON)));
    world.failing.store(false, Ordering::SeqCst);
    assert!(waits.await.unwrap().is_ok());
    assert!(gate.ledger().up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_share_each_gate_goes_on_with_its_part_of_each_pod() {
    let world = World::new();
    let gates: Vec<Gate> = (0..2).map(|n| world.gate(&policy(), &format!("g{n}"), OnLoss::Share)).collect();
    until("both", || gates.iter().all(|gate| gate.ledger().gates_known == 2)).await;
    world.failing.store(true, Ordering::SeqCst);
    until("the end of validity", || gates.iter().all(|gate| !gate.ledger().valid)).await;
    let light = gates[0].api_id("light").unwrap();
    for gate in &gates {
        let mut leases = Vec::new();
        // Half of each pod, and no unit more.
        while let Ok(lease) = gate.acquire(Ask::new(light).wait(Duration::from_millis(30))).await {
            leases.push(lease);
        }
        assert_eq!(leases.len(), 15);
        assert!(gate.ledger().emergency);
        gate.audit().unwrap();
    }
    world.failing.store(false, Ordering::SeqCst);
    until("both again", || gates.iter().all(|gate| gate.ledger().valid)).await;
    let gauges = Gauges::new(PODS.len());
    assert_eq!(load(&gates, &gauges, 100).await, 200);
    assert!(gauges.peak() <= 10);
}

/// Asks that wait already when their gate's credit ends are served by what `share` lets it use, with nobody else
/// to wake it.
#[tokio::test]
async fn who_waits_when_the_ledger_falls_silent_is_served_by_the_share() {
    let world = World::new();
    world.failing.store(true, Ordering::SeqCst);
    let gate = world.gate(&policy(), "g", OnLoss::Share);
    let heavy = gate.api_id("heavy").unwrap();
    // Long before its own deadline, which would wake the gate as well.
    let served = tokio::time::timeout(SOON, gate.acquire(Ask::new(heavy).wait(10 * SOON))).await;
    assert_eq!(served.unwrap().unwrap().weight(), 3);
}

#[tokio::test]
async fn nothing_waits_after_a_try() {
    let world = World::new();
    world.failing.store(true, Ordering::SeqCst);
    let gate = world.gate(&policy(), "g", OnLoss::Refuse);
    let light = gate.api_id("light").unwrap();
    let refusal = gate.try_acquire(Ask::new(light)).unwrap_err();
    assert!(matches!(refusal, Refusal::NotNow { reason: Reason::NoRoom, .. }), "{refusal:?}");
    let now = gate.snapshot();
    let counts = &now.apis[0].counts;
    assert_eq!((now.waiting, counts.refused_all(), counts.cancelled), (0, 1, 0));
    world.failing.store(false, Ordering::SeqCst);
    until_lent(&gate).await;
    assert!(gate.try_acquire(Ask::new(light)).is_ok());
    gate.audit().unwrap();
}

/// A task that slept while its credit ended (as a whole process may) must not start on what was granted before.
#[tokio::test]
async fn a_grant_that_is_looked_at_too_late_is_asked_for_again() {
    let world = World::new();
    let gate = world.gate(&policy(), "g", OnLoss::Refuse);
    let light = gate.api_id("light").unwrap();
    let mut late = Box::pin(gate.acquire(Ask::new(light).wait(SOON)));
    // Asked before anything was lent, so it waits; then granted, and not looked at.
    let mut poll = || {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        late.as_mut().poll(&mut cx)
    };
    assert!(poll().is_pending());
    until("its grant", || gate.snapshot().in_use == 1).await;
    world.failing.store(true, Ordering::SeqCst);
    until("the end of validity", || !gate.ledger().valid).await;
    assert!(poll().is_pending());
    let now = gate.snapshot();
    assert_eq!((now.in_use, now.waiting), (0, 1));
    world.failing.store(false, Ordering::SeqCst);
    let begin = std::time::Instant::now();
    let lease = loop {
        match poll() {
            Poll::Ready(lease) => break lease.unwrap(),
            Poll::Pending => tokio::time::sleep(Duration::from_millis(1)).await,
        }
        assert!(begin.elapsed() < SOON);
    };
    assert_eq!(lease.weight(), 1);
}

#[tokio::test]
async fn a_dropped_gate_ends_its_threads() {
    let world = World::new();
    let gate = world.gate(&policy(), "g", OnLoss::Refuse);
    let light = gate.api_id("light").unwrap();
    let lease = gate.acquire(Ask::new(light).wait(SOON)).await.unwrap();
    until("an ear", || world.alive.load(Ordering::SeqCst) == 2).await;
    drop(gate);
    // The lease is still this gate's.
    assert_eq!(world.alive.load(Ordering::SeqCst), 2);
    drop(lease);
    until("the end of both threads", || world.alive.load(Ordering::SeqCst) == 0).await;
    // Also one that never reached its ledger.
    world.failing.store(true, Ordering::SeqCst);
    let gate = world.gate(&policy(), "g", OnLoss::Refuse);
    until("a failure", || gate.ledger().last_error.is_some()).await;
    drop(gate);
    until("the end of both threads", || world.alive.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn who_leaves_gives_its_credit_back_at_once() {
    let world = World::new();
    let (gate, other) =
        (world.gate(&policy(), "g", OnLoss::Refuse), world.gate(&policy(), "h", OnLoss::Refuse));
    until_lent(&gate).await;
    until_lent(&other).await;
    let leaving = gate.clone();
    assert!(tokio::task::spawn_blocking(move || leaving.leave(SOON)).await.unwrap());
    assert_eq!(gate.ledger().credit, 0);
    let left = other.ledger().credit;
    assert!(world.held(3) <= 30 && left > 0);
    // Its epoch has ended, before its silence could end it.
    assert_eq!(world.gates(), 1);
    let heavy = other.api_id("heavy").unwrap();
    let mut leases = Vec::new();
    for _ in 0..9 {
        leases.push(other.acquire(Ask::new(heavy).wait(SOON)).await.unwrap());
    }
    assert_eq!(other.snapshot().in_use, 27);
    drop(other);
    // Over a ledger that does not answer it takes no longer than it is given.
    world.failing.store(true, Ordering::SeqCst);
    let cut = world.gate(&policy(), "i", OnLoss::Refuse);
    assert!(!cut.leave(Duration::from_millis(30)));
}

#[test]
fn the_memory_ledger_is_always_there_and_has_no_document() {
    let gate = Gate::new(policy()).unwrap();
    let ledger = gate.ledger();
    assert_eq!((ledger.kind, ledger.up, ledger.valid, ledger.gates_known), ("memory", true, true, 1));
    assert!(gate.gates().is_empty() && gate.leave(Duration::ZERO));
    assert!(gate.document().unwrap_err().to_string().contains("memory"));
}
