//! Leases that turn out to be on another pod, at one gate of many.

use sluicegate_core::exchange::Ending;
use sluicegate_core::gate::{Answer, Ask};
use sluicegate_core::ids::{LeaseId, PodId};
use sluicegate_core::shared::{Account, Kept, Push};

use crate::desk::{Desk, HEAVY, LIGHT, OTHER, POD, held, policy};

/// The ledger lent three units of one pod, and one request ran on another: the next report says so, at once.
#[test]
fn a_lease_that_moved_is_held_where_it_runs_and_the_ledger_is_told() {
    let mut desk = Desk::new(&policy());
    desk.credit(POD, 3);
    let leases = desk.fill();
    assert_eq!(leases.len(), 3);
    assert!(desk.member.relocate(desk.at(), leases[0].lease, OTHER, &mut desk.out));
    let (then, report) = (desk.now, desk.report());
    assert!(desk.now <= then + 10_000, "at once");
    assert_eq!(held(&report, Account::Pod(OTHER)), Some(1), "more than was lent of it: {report:?}");
    desk.answer(&report, |_| ());
    desk.release(&leases[0]);
    for lease in &leases[1..] {
        desk.release(lease);
    }
    assert_eq!(desk.member.snapshot().in_use, 0);
}

/// What it left is this gate's to use, and no more than that.
#[test]
fn the_pod_that_a_lease_left_can_be_used_again() {
    let mut desk = Desk::new(&policy());
    desk.credit(POD, 3);
    let leases = desk.fill();
    assert!(desk.member.relocate(desk.at(), leases[0].lease, OTHER, &mut desk.out));
    let next = desk.take(LIGHT);
    assert_eq!(next.pod, POD);
    desk.wait(HEAVY);
    let in_use = desk.member.snapshot().in_use;
    assert_eq!(in_use, 4, "three where they were lent, and the one that moved");
}

#[test]
fn nothing_is_moved_that_has_ended_or_to_a_pod_that_never_was() {
    let mut desk = Desk::new(&policy());
    desk.credit(POD, 3);
    let lease = desk.take(LIGHT);
    assert!(!desk.member.relocate(desk.at(), lease.lease, PodId(7), &mut desk.out));
    assert!(!desk.member.relocate(desk.at(), LeaseId(u64::MAX), OTHER, &mut desk.out));
    assert!(desk.member.turned_away(desk.at(), lease.lease, &mut desk.out));
    assert!(!desk.member.turned_away(desk.at(), lease.lease, &mut desk.out), "once");
    let snapshot = desk.member.snapshot();
    assert_eq!(snapshot.in_use, 0);
    // Its own lock had no room, so for a moment it is given less.
    assert!(matches!(desk.member.ask(desk.at(), Ask::new(HEAVY), &mut desk.out), Answer::Waits(_)));
}

/// Units that settle or that a pod refused are usable for nobody for a while. Afterwards they are credit, also at a gate where
/// nobody asks for anything: somebody else may wait for them.
#[test]
fn hidden_credit_of_a_quiet_gate_goes_to_who_waits_elsewhere() {
    for (settle_us, hidden_us) in [(50_000, 50_000), (0, 1_000_000)] {
        let mut rules = policy();
        rules.pods[0].settle_us = settle_us;
        let mut desk = Desk::new(&rules);
        desk.credit(POD, 3);
        let running = desk.take(HEAVY);
        if settle_us > 0 {
            desk.release(&running);
        } else {
            let again = desk.member.retry(desk.at(), running.lease, Ending::PodRefused, &mut desk.out);
            let Some(Answer::Waits(ticket)) = again else {
                panic!("the pod is full by its own word: {again:?}")
            };
            assert!(desk.member.cancel(desk.at(), ticket, &mut desk.out));
        }
        let begun = desk.now;
        let kept = Some(Kept { pod: POD, age_us: 1_000_000 });
        let push = Push { stamp: desk.life, lent: Vec::new(), recall: None, kept, scarce: false };
        desk.member.on_push(desk.at(), &push, &mut desk.out);
        while held(&desk.exchange(|reply| reply.kept = kept), Account::Pod(POD)) != Some(0) {
            assert!(desk.now < begun + hidden_us + 5_000, "nobody can use them although they are free");
        }
        assert!(
            desk.now >= begun + hidden_us && desk.now < begun + hidden_us + 10_000,
            "at once: {}",
            desk.now
        );
    }
}
