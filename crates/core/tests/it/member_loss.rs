//! A gate of many without its ledger, in modes that do not obey it, and on its way out.

use sluicegate_core::exchange::{Entry, Place};
use sluicegate_core::gate::{Answer, Ask};
use sluicegate_core::member::OnLoss;
use sluicegate_core::policy::{Amount, Mode, Policy, Trickle, Units};
use sluicegate_core::shared::{Account, Recall, Reply, Report, Stamp, Verdict};

use crate::desk::{Desk, HEAVY, LIFE, LIGHT, OTHER, POD, held, policy, timing};

/// Long enough for credit to end, and for requests that wait to be refused.
const SILENCE_US: u64 = 4_100_000;

/// A gate that had credit, of a pool of `gates`, and then heard nothing for long.
fn cut_off(policy: &Policy, on_loss: OnLoss, gates: u32) -> Desk {
    let mut desk = Desk::new(policy);
    desk.member.set_on_loss(on_loss);
    desk.credit(POD, 6);
    desk.exchange(|reply| reply.gates = gates);
    desk
}

#[test]
fn with_refuse_nothing_new_is_admitted_when_the_ledger_is_silent() {
    let mut desk = cut_off(&policy(), OnLoss::Refuse, 2);
    let running = desk.take(LIGHT);
    desk.advance(SILENCE_US);
    assert_eq!(desk.fill().len(), 0);
    assert_eq!(desk.member.lent(POD), 1);
    desk.release(&running);
    assert_eq!(desk.fill().len(), 0);
    let view = desk.member.view(desk.at());
    assert_eq!((view.valid, view.lapsed, view.emergency, view.counts.emergency), (false, true, false, 0));
}

#[test]
fn with_share_a_gate_fills_its_part_of_each_pod_and_says_what_leases_use() {
    let mut desk = cut_off(&policy(), OnLoss::Share, 2);
    let first: Vec<_> = (0..6).map(|_| desk.take(LIGHT)).collect();
    desk.now += SILENCE_US;
    // Half of ten units each: one pod has six running, so nothing there before two of them end.
    let new = desk.fill();
    assert_eq!(new.iter().map(|granted| granted.pod).collect::<Vec<_>>(), [OTHER; 5]);
    desk.release(&first[0]);
    assert_eq!(desk.fill().len(), 0);
    desk.release(&first[1]);
    assert_eq!(desk.fill().len(), 1);
    let view = desk.member.view(desk.at());
    assert_eq!((view.emergency, view.counts.emergency, view.credit), (true, 6, 0));
    // Reports go on, and say what leases use although it was never lent.
    let report = desk.report();
    assert_eq!(held(&report, Account::Pod(POD)), Some(5));
    assert_eq!(held(&report, Account::Pod(OTHER)), Some(5));
    assert_eq!(report.idle, 0);
    // Once the ledger has heard it, only what runs is left, and it counts.
    desk.answer(&report, |_| ());
    assert_eq!(desk.fill().len(), 0);
    assert!(!desk.member.view(desk.at()).emergency);
    desk.release(&new[0]);
    assert_eq!(desk.fill().len(), 1, "its successor uses what it held");
}

#[test]
fn a_gate_that_stood_still_asks_the_ledger_before_it_admits_by_itself() {
    let mut desk = cut_off(&policy(), OnLoss::Share, 2);
    desk.now += timing().ttl_us + 1_000_000;
    assert_eq!(desk.fill().len(), 0);
    assert!(desk.poll().is_some(), "it asks at once");
    desk.now += timing().timeout_us;
    assert_eq!(desk.fill().len(), 0);
    // Nobody answers: now it does.
    desk.now += timing().timeout_us;
    assert_eq!(desk.fill().len(), 10);
}

#[test]
fn what_was_admitted_while_a_report_was_under_way_is_said_in_the_next() {
    let mut desk = cut_off(&policy(), OnLoss::Share, 2);
    desk.now += SILENCE_US;
    let report = desk.report();
    assert_eq!(held(&report, Account::Pod(POD)), Some(0));
    desk.take(HEAVY);
    desk.take(LIGHT);
    desk.answer(&report, |_| ());
    let (pod, other) = (desk.member.lent(POD), desk.member.lent(OTHER));
    assert_eq!(pod + other, 4, "what runs and no more");
    let (then, report) = (desk.now, desk.report());
    assert!(desk.now <= then + 10_000, "at once");
    let said =
        held(&report, Account::Pod(POD)).unwrap_or(0) + held(&report, Account::Pod(OTHER)).unwrap_or(0);
    assert_eq!(said, 4);
}

#[test]
fn a_share_has_room_for_the_heaviest_and_counts_the_most_gates_seen_of_late() {
    let rooms = |gates: &[u32]| {
        let mut desk = Desk::new(&policy());
        desk.member.set_on_loss(OnLoss::Share);
        for gates in gates {
            desk.now += timing().heartbeat_us();
            desk.exchange(|reply| reply.gates = *gates);
        }
        desk.now += SILENCE_US;
        desk.fill().len()
    };
    assert_eq!(rooms(&[1]), 20);
    assert_eq!(rooms(&[4]), 6, "a quarter of ten holds no heavy ask, so three on each pod");
    assert_eq!(rooms(&[2, 1, 2, 1]), 10);
    assert_eq!(rooms(&[2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]), 20, "the second gate left long ago");
}

#[test]
fn with_pod_limit_a_gate_fills_the_pods_and_an_apis_max() {
    let mut rules = policy();
    rules.apis[1].max = Some(Amount::Units(6));
    let mut desk = cut_off(&rules, OnLoss::PodLimit, 2);
    desk.now += SILENCE_US;
    let heavy: Vec<_> = std::iter::from_fn(|| match desk.try_ask(HEAVY) {
        Answer::Granted(granted) => Some(granted),
        _ => None,
    })
    .collect();
    assert_eq!(heavy.len(), 2);
    assert_eq!(desk.fill().len(), 14);
    let report = desk.report();
    assert_eq!(held(&report, Account::Api(HEAVY)), Some(6));
    assert_eq!((held(&report, Account::Pod(POD)), held(&report, Account::Pod(OTHER))), (Some(10), Some(10)));

    // With a share the max is shared too, but one ask always fits.
    let mut desk = cut_off(&rules, OnLoss::Share, 4);
    desk.now += SILENCE_US;
    assert!(matches!(desk.try_ask(HEAVY), Answer::Granted(_)));
    assert!(matches!(desk.try_ask(HEAVY), Answer::Refused(_)));
}

#[test]
fn a_gate_that_starts_without_a_ledger_waits_a_heartbeat_for_it() {
    let mut desk = Desk::alone(&policy(), OnLoss::Share);
    let ticket = desk.wait(LIGHT);
    desk.report();
    desk.now += timing().heartbeat_us() - 200_000;
    desk.member.advance(desk.at(), &mut desk.out);
    assert_eq!(desk.granted(), []);
    assert!(desk.member.cancel(desk.at(), ticket, &mut desk.out));
    desk.wait(LIGHT);
    // It wakes by itself when its time has come.
    while desk.granted().is_empty() {
        let wake = desk.member.next_wake().0;
        assert!(wake <= 1_000_000 + timing().heartbeat_us(), "nobody woke it");
        desk.now = wake.max(desk.now);
        desk.poll();
    }
    assert_eq!(desk.fill().len(), 19, "as far as it knows it is alone");
}

/// A gate that met a ledger without a past, and said everything to it. `gates` are known there.
fn newcomer(on_loss: OnLoss, gates: u32) -> Desk {
    let mut desk = Desk::alone(&policy(), on_loss);
    desk.exchange(|reply| {
        reply.verdict = Verdict::Resync(LIFE);
        recovers(reply, gates);
    });
    assert_eq!(desk.fill().len(), 0, "nothing before everything is said");
    desk.exchange(|reply| recovers(reply, gates));
    desk
}

fn recovers(reply: &mut Reply, gates: u32) {
    reply.recovering = true;
    reply.gates = gates;
}

/// Exchanges until the gate asks for more of `POD` than `before`, or anything else; answers what it says.
fn asks_other_than(desk: &mut Desk, before: Units, change: impl Fn(&mut Reply)) -> Report {
    for _ in 0..100 {
        let report = desk.report();
        if held(&report, Account::Pod(POD)).is_some_and(|units| units != before) {
            return report;
        }
        desk.answer(&report, &change);
    }
    panic!("it goes on with {before}");
}

#[test]
fn while_the_ledger_recovers_a_gate_serves_by_itself() {
    for (on_loss, served) in [(OnLoss::Refuse, 0), (OnLoss::Share, 10), (OnLoss::PodLimit, 20)] {
        let mut desk = newcomer(on_loss, 2);
        let begun = desk.now;
        while on_loss == OnLoss::Share && desk.now < begun + 2 * timing().heartbeat_us() {
            desk.exchange(|reply| recovers(reply, 2));
        }
        let all = desk.fill();
        assert_eq!(all.len(), served, "{on_loss:?}");
        desk.advance(0);
        assert_eq!(desk.member.view(desk.at()).counts.emergency, served as u64);
        // It is over when the ledger lends again; what runs stays.
        desk.exchange(|_| ());
        assert_eq!(desk.fill().len(), 0);
        assert!(!desk.member.view(desk.at()).emergency);
        if let Some(one) = all.first() {
            desk.release(one);
            assert_eq!(desk.fill().len(), 1);
        }
        // Credit is credit again, if the pod has room for it.
        desk.credit(POD, 1);
        assert_eq!(desk.fill().len(), usize::from(served < 20), "{on_loss:?}");
    }
}

#[test]
fn a_share_is_used_only_when_a_ledger_that_recovers_has_written_it_down() {
    let mut desk = newcomer(OnLoss::Share, 2);
    let begun = desk.now;
    // First the other gates must have had the time to say what they still use of an earlier life.
    let report = asks_other_than(&mut desk, 0, |reply| recovers(reply, 2));
    assert!(desk.now >= begun + timing().heartbeat_us(), "others may still hold what nobody said");
    assert_eq!((held(&report, Account::Pod(POD)), held(&report, Account::Pod(OTHER))), (Some(5), Some(5)));
    assert_eq!((desk.fill().len(), report.idle), (0, 0), "it is on its way");
    desk.answer(&report, |reply| recovers(reply, 2));
    let running = desk.fill();
    assert_eq!(running.len(), 10);
    // One more gate: each share is a third, and what comes free above it is not used again.
    let report = desk.exchange(|reply| {
        recovers(reply, 3);
        reply.over = vec![Account::Pod(POD)];
    });
    assert!(desk.now < begun + 2 * timing().heartbeat_us(), "it hears of others soon");
    assert_eq!(held(&report, Account::Pod(POD)), None, "as before");
    let on = |pod| running.iter().filter(move |granted| granted.pod == pod);
    on(POD).take(3).for_each(|granted| desk.release(granted));
    assert_eq!(desk.fill().len(), 1, "three of ten are its share, two run");
    // The other pod has room for all that is held, so it stays as it is.
    on(OTHER).take(1).for_each(|granted| desk.release(granted));
    assert_eq!(desk.fill().len(), 1);
    let report = desk.exchange(|reply| recovers(reply, 3));
    assert_eq!(held(&report, Account::Pod(POD)), Some(3));
}

#[test]
fn a_share_for_which_there_is_no_room_is_asked_for_by_halves() {
    let mut desk = newcomer(OnLoss::Share, 2);
    let over = |reply: &mut Reply| {
        recovers(reply, 2);
        reply.over = vec![Account::Pod(POD)];
    };
    let mut asked = vec![0];
    for _ in 0..5 {
        let report = asks_other_than(&mut desk, asked[asked.len() - 1], over);
        asked.push(held(&report, Account::Pod(POD)).expect("it is listed"));
        desk.answer(&report, over);
        assert_eq!(desk.fill_up_to(20), if asked.len() == 2 { 5 } else { 0 }, "those of the other pod");
    }
    assert_eq!(asked, [0, 5, 2, 1, 0, 5]);
    let report = asks_other_than(&mut desk, 5, over);
    assert_eq!(held(&report, Account::Pod(POD)), Some(2));
    desk.answer(&report, |reply| recovers(reply, 2));
    assert_eq!(desk.fill().len(), 2);
    let report = asks_other_than(&mut desk, 2, over);
    assert_eq!(held(&report, Account::Pod(POD)), Some(5), "all the rest of the share");
}

#[test]
fn after_a_loss_a_gate_goes_on_with_what_it_held_and_lets_go_when_it_is_too_much() {
    let mut desk = Desk::new(&policy());
    desk.member.set_on_loss(OnLoss::Share);
    desk.credit(POD, 9);
    let running = desk.fill();
    desk.life = Stamp { incarnation: 8, epoch: 1 };
    let life = desk.life;
    desk.exchange(|reply| {
        reply.verdict = Verdict::Resync(life);
        recovers(reply, 2);
    });
    let report = desk.exchange(|reply| recovers(reply, 2));
    assert_eq!(held(&report, Account::Pod(POD)), Some(9));
    desk.release(&running[0]);
    assert_eq!(desk.fill().len(), 1, "nobody else wants it");
    desk.exchange(|reply| {
        recovers(reply, 2);
        reply.over = vec![Account::Pod(POD)];
    });
    running[1..5].iter().for_each(|granted| desk.release(granted));
    assert_eq!(desk.fill().len(), 0, "half of the pod is its share");
    desk.release(&running[5]);
    assert_eq!(desk.fill().len(), 1);
}

/// A gate whose share of both pods, five units, is confirmed.
fn sharer() -> Desk {
    let mut desk = newcomer(OnLoss::Share, 2);
    let report = asks_other_than(&mut desk, 0, |reply| recovers(reply, 2));
    desk.answer(&report, |reply| recovers(reply, 2));
    desk
}

/// Where the limit was lowered, or the pod drains, what was confirmed before is nobody's any more.
#[test]
fn a_share_that_became_smaller_is_given_up_at_once() {
    let mut desk = sharer();
    let mut other = policy();
    other.pods[0].draining = true;
    other.pods[1].capacity = 4;
    desk.member.configure(desk.at(), &other, &mut desk.out).expect("it is sound");
    let report = desk.exchange(|reply| recovers(reply, 2));
    // Room for one heavy ask.
    assert_eq!((held(&report, Account::Pod(POD)), held(&report, Account::Pod(OTHER))), (Some(0), Some(3)));
    // As before, it is asked for first.
    desk.member.configure(desk.at(), &policy(), &mut desk.out).expect("it is sound");
    assert_eq!(desk.fill().len(), 3);
    let report = desk.exchange(|reply| recovers(reply, 2));
    assert_eq!((held(&report, Account::Pod(POD)), held(&report, Account::Pod(OTHER))), (Some(5), Some(5)));
    assert_eq!(desk.fill().len(), 7);
}

/// Units that only the pod's burst bears, or that moved away, are nobody's share when their lease ends.
#[test]
fn what_the_trickle_bought_is_no_share() {
    for moves in [false, true] {
        let mut other = policy();
        other.pods[1].burst = 3;
        other.admission.trickle =
            Some(Trickle { share: Amount::Units(3), rate_milli: 20_000, ceiling: 110_000 });
        let mut desk = Desk::new(&other);
        desk.member.set_on_loss(OnLoss::Share);
        desk.credit(OTHER, 9);
        let full = [desk.take(HEAVY), desk.take(HEAVY), desk.take(HEAVY)];
        let ticket = desk.wait(HEAVY);
        desk.exchange(|_| ());
        desk.trickle(OTHER, 3, ticket);
        let entered = desk.granted();
        assert_eq!((full[0].pod, entered[0].entry), (OTHER, Entry::Trickle));
        desk.life = Stamp { incarnation: 8, epoch: 1 };
        let life = desk.life;
        desk.exchange(|reply| {
            reply.verdict = Verdict::Resync(life);
            recovers(reply, 1);
        });
        desk.exchange(|reply| recovers(reply, 1));
        if moves {
            assert!(desk.member.relocate(desk.at(), entered[0].lease, POD, &mut desk.out));
        } else {
            desk.release(&entered[0]);
        }
        assert!(matches!(desk.try_ask(HEAVY), Answer::Refused(_)), "moves: {moves}");
        // What came by the pool is used again.
        desk.release(&full[0]);
        assert_eq!(desk.take(HEAVY).pod, OTHER);
    }
}

/// Somebody's rules leave less than ours do, and nobody told us.
#[test]
fn told_for_long_that_a_pod_is_over_a_gate_gives_up_all_that_is_idle_there() {
    // Even parts leave no room for a heavy ask, but none is needed here.
    for (answers, left) in [(15, 10), (16, 5)] {
        let mut desk = sharer();
        for _ in 0..answers {
            desk.exchange(|reply| {
                recovers(reply, 2);
                reply.over = vec![Account::Pod(POD)];
            });
        }
        assert_eq!(desk.fill().len(), left, "after {answers} answers");
    }
}

#[test]
fn told_of_a_new_life_a_gate_drops_its_share_before_it_says_everything() {
    let mut desk = cut_off(&policy(), OnLoss::Share, 2);
    desk.now += SILENCE_US;
    let running = desk.fill();
    assert_eq!(running.len(), 10);
    let report = desk.report();
    desk.release(&running[0]);
    desk.life = Stamp { incarnation: 8, epoch: 1 };
    let life = desk.life;
    desk.answer(&report, |reply| reply.verdict = Verdict::Resync(life));
    let said = desk.report();
    let units: u32 = said.holds.iter().map(|(_, units)| *units).sum();
    assert_eq!(units, 9);
    assert_eq!(desk.fill().len(), 0, "the report is on its way");
    desk.answer(&said, |_| ());
    // Nobody hears it once more: then it goes on with its share.
    let mut desk = cut_off(&policy(), OnLoss::Share, 2);
    desk.now += SILENCE_US;
    let report = desk.report();
    desk.answer(&report, |reply| reply.verdict = Verdict::Resync(life));
    desk.report();
    assert_eq!(desk.fill().len(), 0);
    desk.now += 3 * timing().timeout_us;
    assert_eq!(desk.fill().len(), 10);
}

#[test]
fn in_a_recovery_with_refuse_a_gate_uses_again_what_it_holds() {
    let mut desk = Desk::new(&policy());
    desk.credit(POD, 3);
    let running = desk.take(HEAVY);
    desk.life = Stamp { incarnation: 8, epoch: 1 };
    let life = desk.life;
    desk.exchange(|reply| {
        reply.verdict = Verdict::Resync(life);
        reply.recovering = true;
    });
    let report = desk.exchange(|reply| reply.recovering = true);
    assert_eq!(held(&report, Account::Pod(POD)), Some(3));
    desk.wait(HEAVY);
    desk.release(&running);
    assert_eq!(desk.granted().len(), 1);
}

#[test]
fn off_admits_everything_and_holds_nothing() {
    let mut rules = policy();
    rules.apis[1].max = Some(Amount::Units(6));
    let mut desk = Desk::new(&rules);
    desk.credit(POD, 8);
    let running = desk.take(LIGHT);
    let waits = desk.ask_for(Ask { place: Place::Pin(OTHER), ..Ask::new(LIGHT) });
    assert!(matches!(waits, Answer::Waits(_)));
    desk.exchange(|reply| reply.target = 5);
    rules.admission.mode = Mode::Off;
    desk.member.configure(desk.at(), &rules, &mut desk.out).expect("the policy is sound");
    assert_eq!(desk.granted().len(), 1, "nobody waits any more");
    let (then, report) = (desk.now, desk.exchange(|reply| reply.target = 5));
    assert!(desk.now <= then + 10_000, "credit goes back at once");
    assert_eq!((held(&report, Account::Pod(POD)), report.idle), (Some(0), 0));
    assert_eq!((&report.avoid[..], &report.used[..]), (&[POD, OTHER][..], &[][..]));
    // More than all pods hold, whatever is lent, and with heartbeats only.
    let then = desk.now;
    let all: Vec<_> = (0..30).map(|_| desk.take(HEAVY)).collect();
    desk.credit(POD, 4);
    let report = desk.exchange(|reply| reply.target = 5);
    assert!(desk.now >= then + timing().heartbeat_us() - 1_000);
    assert_eq!((held(&report, Account::Pod(POD)), report.applied), (Some(0), 2));
    assert_eq!(desk.member.view(desk.at()).credit, 0);
    all.iter().for_each(|granted| desk.release(granted));
    // Silence changes nothing.
    desk.now += SILENCE_US;
    assert_eq!(desk.fill_up_to(25), 25);
    desk.exchange(|_| ());
    // Enforced again, what runs is said.
    rules.admission.mode = Mode::Enforce;
    desk.release(&running);
    desk.member.configure(desk.at(), &rules, &mut desk.out).expect("the policy is sound");
    let report = desk.exchange(|_| ());
    let said: u32 = report.holds.iter().map(|(_, units)| *units).sum();
    assert_eq!((said, &report.avoid[..]), (26, &[][..]));
    assert!(matches!(desk.try_ask(LIGHT), Answer::Refused(_)));
}

#[test]
fn shadow_admits_everything_counts_what_was_not_lent_and_says_what_it_uses() {
    let mut rules = policy();
    rules.admission.mode = Mode::Shadow;
    rules.apis[1].max = Some(Amount::Units(6));
    let mut desk = Desk::new(&rules);
    desk.credit(POD, 2);
    let all: Vec<_> = (0..4).map(|_| desk.take(LIGHT)).collect();
    let heavy = desk.take(HEAVY);
    let counts: Vec<_> = desk.member.snapshot().apis.iter().map(|api| api.counts).collect();
    assert_eq!((counts[0].admitted, counts[0].refused_all()), (4, 2));
    assert_eq!((counts[1].admitted, counts[1].refused_all()), (1, 1));
    let (then, report) = (desk.now, desk.report());
    assert!(desk.now <= then + 10_000, "at once, so that nobody else is lent them");
    let said: u32 = [POD, OTHER].iter().filter_map(|pod| held(&report, Account::Pod(*pod))).sum();
    assert_eq!((said, held(&report, Account::Api(HEAVY))), (7, Some(3)));
    assert_eq!(report.status, (7, 0));
    // It goes on asking for credit.
    let lent = desk.lent(Account::Pod(OTHER), 1, None);
    desk.answer(&report, |reply| {
        reply.target = 8;
        reply.lent = vec![lent];
    });
    let (then, report) = (desk.now, desk.report());
    assert!(desk.now <= then + 10_000, "one is too little");
    desk.answer(&report, |_| ());
    desk.take(LIGHT);
    assert_eq!(desk.member.snapshot().apis[0].counts.refused_all(), 2, "that one was lent");
    // It never delays, heard or not.
    desk.now += SILENCE_US;
    desk.take(HEAVY);
    desk.release(&heavy);
    all.iter().for_each(|granted| desk.release(granted));
    let report = desk.exchange(|_| ());
    let said: u32 = [POD, OTHER].iter().map(|pod| desk.member.lent(*pod)).sum();
    assert_eq!((said, report.status), (4, (4, 0)));
}

#[test]
fn a_gate_that_leaves_gives_back_and_says_so_when_nothing_runs() {
    let mut desk = Desk::new(&policy());
    desk.credit(POD, 6);
    let running = desk.take(HEAVY);
    desk.exchange(|_| ());
    desk.member.leave(desk.at(), &mut desk.out);
    let (then, report) = (desk.now, desk.exchange(|reply| reply.target = 9));
    assert!(desk.now <= then + 10_000, "at once");
    assert_eq!((held(&report, Account::Pod(POD)), report.leaving), (Some(3), false));
    assert_eq!(report.avoid, [POD, OTHER], "it wants no credit");
    let then = desk.now;
    assert!(!desk.exchange(|reply| reply.target = 9).leaving);
    assert!(desk.now >= then + timing().heartbeat_us() - 1_000, "it waits for its lease");
    desk.release(&running);
    let (then, report) = (desk.now, desk.report());
    assert!(desk.now <= then + 10_000);
    assert_eq!((held(&report, Account::Pod(POD)), report.leaving), (Some(0), true));
    assert!(!desk.member.has_left());
    desk.answer(&report, |_| ());
    assert!(desk.member.has_left());
    desk.now += 100 * timing().ttl_us;
    assert_eq!(desk.poll(), None, "it says nothing more");
}

#[test]
fn a_gate_that_leaves_serves_who_still_waits() {
    let mut desk = Desk::new(&policy());
    let ticket = desk.wait(LIGHT);
    desk.member.leave(desk.at(), &mut desk.out);
    let report = desk.exchange(|_| ());
    assert_eq!((report.waiters.len(), &report.avoid[..]), (1, &[][..]));
    let lent = desk.lent(Account::Pod(POD), 1, Some(ticket));
    desk.push(vec![lent]);
    let granted = desk.granted();
    assert_eq!(granted.len(), 1);
    desk.release(&granted[0]);
    assert!(desk.exchange(|_| ()).leaving);
}

#[test]
fn a_gate_that_leaves_at_once_says_what_still_runs() {
    let mut desk = Desk::new(&policy());
    desk.credit(POD, 6);
    desk.take(HEAVY);
    desk.member.leave_at_once(desk.at(), &mut desk.out);
    let report = desk.report();
    assert_eq!((held(&report, Account::Pod(POD)), report.leaving), (Some(3), true));
    // A ledger that knows nothing of it is told what runs, and that it goes.
    desk.answer(&report, |reply| reply.verdict = Verdict::Resync(Stamp { epoch: 4, ..LIFE }));
    let report = desk.exchange(|_| ());
    assert_eq!((held(&report, Account::Pod(POD)), report.leaving), (Some(3), true));
    assert!(desk.member.has_left());
}

#[test]
fn a_recall_is_acknowledged_also_by_a_gate_without_credit() {
    let mut desk = cut_off(&policy(), OnLoss::Share, 2);
    let recall = Recall { number: 4, units: 1, api: None };
    desk.exchange(|reply| {
        reply.recovering = true;
        reply.recall = Some(recall);
    });
    assert!(desk.member.view(desk.at()).emergency);
    assert_eq!(desk.exchange(|_| ()).recalled, 4);
}
