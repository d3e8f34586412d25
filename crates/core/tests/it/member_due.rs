//! When one gate of many speaks.

use sluicegate_core::policy::Policy;
use sluicegate_core::shared::{Account, Push, Recall};

use crate::desk::{Desk, HEAVY, LIGHT, POD, held, policy, timing};

/// Said by a push when nobody is found units any more: who holds idle credit then, or later, is asked for it by nobody.
#[test]
fn what_is_idle_goes_back_at_once_while_somebody_waits_elsewhere() {
    let mut desk = Desk::new(&policy());
    desk.credit(POD, 3);
    let leases = desk.fill();
    // It has said that nothing is idle, and need say nothing more.
    desk.exchange(|_| ());
    assert!(desk.poll().is_none());
    let scarce = Push { stamp: desk.life, lent: Vec::new(), recall: None, kept: None, scarce: true };
    desk.member.on_push(desk.at(), &scarce, &mut desk.out);
    assert!(desk.poll().is_none(), "it has nothing to give");
    desk.release(&leases[0]);
    let then = desk.now;
    let report = desk.report();
    assert!(desk.now - then <= timing().pace_us, "after {} us", desk.now - then);
    assert_eq!(held(&report, Account::Pod(POD)), Some(2));
    // Own waiters come first.
    desk.answer(&report, |reply| reply.scarce = true);
    desk.wait(LIGHT);
    desk.release(&leases[1]);
    assert_eq!(desk.granted().len(), 1);
    assert_eq!(desk.member.snapshot().in_use, 2);
}

/// Completions bring the heaviest weight within a tenth of four paces, and the last answer was heard while they did.
fn calm() -> Desk {
    let mut desk = Desk::new(&policy());
    desk.credit(POD, 3);
    let mut reports = 0;
    while reports < 3 {
        desk.fill().iter().for_each(|lease| desk.release(lease));
        desk.advance(1_000);
        if let Some(report) = desk.poll() {
            desk.answer(&report, |_| ());
            reports += 1;
        }
    }
    desk
}

#[test]
fn a_calm_gate_tells_of_who_has_waited_two_paces() {
    let mut desk = calm();
    let leases = desk.fill();
    let pace_us = timing().pace_us;
    desk.advance(2 * pace_us);
    let ticket = desk.wait(LIGHT);
    let since = desk.now;
    let report = desk.report();
    assert_eq!(desk.now, since + 2 * pace_us);
    assert_eq!(report.waiters.iter().map(|waiting| waiting.ticket).collect::<Vec<_>>(), [ticket]);
    desk.answer(&report, |_| ());
    // Of one that is gone by then it says nothing, and the next is given as long.
    let gone = desk.wait(HEAVY);
    assert!(desk.member.cancel(desk.at(), ticket, &mut desk.out));
    desk.advance(pace_us);
    assert!(desk.member.cancel(desk.at(), gone, &mut desk.out));
    desk.wait(HEAVY);
    let since = desk.now;
    desk.report();
    assert_eq!(desk.now, since + 2 * pace_us);
    leases.iter().for_each(|lease| desk.release(lease));
}

#[test]
fn any_other_gate_tells_at_once() {
    let mut desk = Desk::new(&policy());
    desk.credit(POD, 3);
    desk.fill();
    desk.exchange(|_| ());
    desk.advance(timing().pace_us);
    desk.wait(LIGHT);
    assert_eq!(desk.poll().map(|report| report.waiters.len()), Some(1));
}

/// While the ledger has plenty for whoever comes, four times the target; else twice.
#[test]
fn more_is_kept_while_the_ledger_has_plenty() {
    let policy = Policy::simple(&[("a", 100)], &[("light", 1), ("heavy", 3)]);
    // A target of twelve is enough for four of the heaviest.
    for (target, idle, keeps) in
        [(12, 48, 48), (12, 49, 12), (11, 22, 22), (11, 23, 11), (1, 2, 2), (1, 3, 1)]
    {
        let mut desk = Desk::new(&policy);
        desk.exchange(|reply| reply.target = target);
        desk.credit(POD, idle);
        desk.advance(timing().pace_us);
        let said = desk.poll().map_or(idle, |report| held(&report, Account::Pod(POD)).expect("it is listed"));
        assert_eq!(said, keeps, "target {target}, idle {idle}");
    }
}

/// A report tells of sixteen. When those are gone the next are told of, though nobody new came.
#[test]
fn who_found_no_place_in_a_report_is_told_of_in_the_next() {
    let mut desk = Desk::new(&policy());
    let tickets: Vec<_> = (0..18).map(|_| desk.wait(LIGHT)).collect();
    assert_eq!(desk.exchange(|_| ()).waiters.len(), 16);
    for ticket in &tickets[..16] {
        assert!(desk.member.cancel(desk.at(), *ticket, &mut desk.out));
    }
    let then = desk.now;
    let report = desk.report();
    assert!(desk.now <= then + timing().pace_us, "after {} us", desk.now - then);
    assert_eq!(report.waiters.len(), 2);
}

/// What was pushed since the report was sent may be younger than its answer.
#[test]
fn a_push_that_overtakes_a_reply_is_not_undone_by_it() {
    let recall = Some(Recall { number: 1, units: 1, api: None });
    for (scarce, recall) in [(true, None), (false, recall)] {
        let mut desk = Desk::new(&policy());
        desk.credit(POD, 3);
        let lease = desk.fill().pop().expect("it has room");
        let report = desk.report();
        let push = Push { stamp: desk.life, lent: Vec::new(), recall, kept: None, scarce };
        desk.member.on_push(desk.at(), &push, &mut desk.out);
        desk.answer(&report, |_| ());
        desk.release(&lease);
        let then = desk.now;
        let report = desk.report();
        assert!(desk.now <= then + timing().pace_us, "after {} us", desk.now - then);
        assert_eq!((report.recalled, held(&report, Account::Pod(POD))), (u64::from(!scarce), Some(2)));
        assert_eq!(desk.member.view(desk.at()).recall, None, "what was recalled was given back");
        // The next answer is younger.
        desk.answer(&report, |_| ());
        desk.credit(POD, 1);
        desk.advance(timing().pace_us);
        assert!(desk.poll().is_none(), "nobody wants it any more");
    }
}
