//! What a gate of many says of itself and what it makes of what it is lent, against a ledger made by hand.

use sluicegate_core::exchange::{Ending, Entry, Place};
use sluicegate_core::gate::{Answer, Ask};
use sluicegate_core::ids::PodId;
use sluicegate_core::policy::{Amount, Order, PodPolicy, Policy, Trickle};
use sluicegate_core::refusal::Reason;
use sluicegate_core::shared::{Account, Kept, Lent, Stamp, Verdict};
use sluicegate_core::time::Micros;

use crate::desk::{Desk, HEAVY, LIFE, LIGHT, OTHER, POD, held, policy, timing};

/// Everything that has limits.
fn limited() -> Policy {
    let mut policy = policy();
    policy.pods[1].burst = 3;
    policy.apis[0].max = Some(Amount::Share(50_000));
    policy.apis[1].min = Amount::Share(15_000);
    policy.apis[1].protected = true;
    policy.admission.capacity = Some(Amount::Units(17));
    policy.admission.reserve = Amount::Share(5_000);
    policy.admission.trickle =
        Some(Trickle { share: Amount::Share(20_000), rate_milli: 20_000, ceiling: 110_000 });
    policy
}

#[test]
fn terms_are_resolved_to_units_and_said_until_heard() {
    let mut desk = Desk::alone(&limited(), Default::default());
    let first = desk.exchange(|reply| reply.verdict = Verdict::Resync(LIFE));
    let terms = first.terms.clone().expect("nobody heard them yet");
    // C = 17: reserve 0.85 rounds up, share 3.4 down, ceiling 18.7 - (17 - 3) down, max 8.5 down, min 2.55 up.
    assert_eq!((terms.fair, terms.cap, terms.reserve), (false, Some(17), 1));
    assert_eq!((terms.share, terms.trickle_milli, terms.trickle_most), (3, 20_000, 4));
    assert_eq!(terms.pods, [(POD, 10, 0), (OTHER, 10, 3)]);
    assert_eq!(terms.apis, [(LIGHT, 0, Some(8), false), (HEAVY, 3, None, true)]);
    assert!(first.digest > 0 && first.digest < 1 << 53);
    // Said again in the new life; a report that was not taken told nobody.
    let second = desk.exchange(|reply| reply.verdict = Verdict::Stale);
    assert_eq!((second.terms, second.digest), (Some(terms.clone()), first.digest));
    assert_eq!(desk.exchange(|_| ()).terms, Some(terms.clone()));
    let later = desk.exchange(|reply| reply.verdict = Verdict::Resync(Stamp { epoch: 4, ..LIFE }));
    assert_eq!((later.terms, later.digest), (None, first.digest), "the digest is always said");
    assert_eq!(desk.exchange(|_| ()).terms, Some(terms));
    assert_eq!(desk.exchange(|_| ()).terms, None);
}

#[test]
fn new_terms_are_said_at_once_and_the_same_under_another_order_have_the_same_digest() {
    let mut desk = Desk::new(&limited());
    let before = desk.exchange(|_| ());
    let mut rules = limited();
    rules.pods[0].draining = true;
    desk.member.configure(desk.at(), &rules, &mut desk.out).expect("the policy is sound");
    let (then, report) = (desk.now, desk.exchange(|_| ()));
    assert!(desk.now <= then + 10_000, "not with the next heartbeat");
    assert_ne!(report.digest, before.digest);
    let terms = report.terms.expect("they are new");
    assert_eq!(terms.pods, [(POD, 0, 0), (OTHER, 10, 3)], "a draining pod holds nothing");
    assert_eq!(terms.cap, None, "the cap is above what is left");

    let mut turned = limited();
    turned.pods.reverse();
    turned.apis.reverse();
    assert_eq!(Desk::new(&turned).report().digest, before.digest);
    // Something that the ledger does not need to know.
    turned.apis[0].wait_us += 1;
    assert_eq!(Desk::new(&turned).report().digest, before.digest);
    turned.pods[0].burst += 1;
    assert_ne!(Desk::new(&turned).report().digest, before.digest);
}

#[test]
fn units_of_the_trickle_go_back_as_soon_as_their_lease_ends() {
    let mut desk = Desk::new(&limited());
    desk.credit(OTHER, 10);
    assert_eq!(desk.fill().len(), 0, "light asks have a max, and nothing of it was lent");
    let allowance = desk.lent(Account::Api(LIGHT), 7, None);
    desk.push(vec![allowance]);
    assert_eq!(desk.fill().len(), 7);
    desk.take(HEAVY);
    // The pod is full for the ledger, but bears three more.
    let ticket = desk.wait(HEAVY);
    desk.exchange(|_| ());
    desk.trickle(OTHER, 3, ticket);
    let entered = desk.granted();
    assert_eq!(entered.len(), 1);
    assert_eq!((entered[0].pod, entered[0].entry), (OTHER, Entry::Trickle));
    let report = desk.report();
    assert_eq!(held(&report, Account::Trickle), None, "as it was lent");
    desk.answer(&report, |_| ());
    desk.release(&entered[0]);
    let (then, report) = (desk.now, desk.report());
    assert!(desk.now <= then + 10_000, "at once");
    assert_eq!(held(&report, Account::Trickle), Some(0));
    assert_eq!(held(&report, Account::Pod(OTHER)), Some(10));
    assert_eq!(report.unspent, 0, "it ran");
}

#[test]
fn tokens_that_nobody_used_are_told_once_per_epoch() {
    let mut desk = Desk::new(&limited());
    // The waiter is gone when they come.
    let ticket = desk.wait(HEAVY);
    desk.exchange(|_| ());
    assert!(desk.member.cancel(desk.at(), ticket, &mut desk.out));
    desk.trickle(POD, 3, ticket);
    let report = desk.exchange(|_| ());
    assert_eq!(report.unspent, 3);
    assert_eq!(held(&report, Account::Pod(POD)), Some(0));
    assert_eq!(held(&report, Account::Trickle), Some(0));
    // The lease was granted and never used.
    let ticket = desk.wait(HEAVY);
    desk.exchange(|_| ());
    desk.trickle(POD, 3, ticket);
    let granted = desk.granted();
    assert!(desk.member.unused(desk.at(), granted[0].lease, &mut desk.out));
    assert_eq!(desk.exchange(|_| ()).unspent, 6);
    // It never reached its pod.
    let ticket = desk.wait(HEAVY);
    desk.exchange(|_| ());
    desk.trickle(POD, 3, ticket);
    let granted = desk.granted();
    let again = desk.member.retry(desk.at(), granted[0].lease, Ending::NeverStarted, &mut desk.out);
    assert!(matches!(again, Some(Answer::Waits(_))), "its units are gone: {again:?}");
    assert_eq!(desk.exchange(|_| ()).unspent, 9);
    // Another epoch counts from nothing.
    desk.life = Stamp { epoch: 4, ..LIFE };
    assert_eq!(desk.join().unspent, 0);
}

#[test]
fn under_fair_ages_are_start_tags_and_the_pools_virtual_time_is_heard() {
    let mut policy = policy();
    policy.admission.order = Order::Fair;
    let mut desk = Desk::new(&policy);
    desk.credit(POD, 3);
    let all = desk.fill();
    assert_eq!(all.len(), 3);
    let keyed = |key| Ask { key: Some(key), ..Ask::new(LIGHT) };
    desk.ask_for(keyed(u64::from(LIGHT.0)));
    desk.ask_for(keyed(9));
    desk.ask_for(keyed(9));
    let report = desk.exchange(|reply| reply.vtime = 100 << 16);
    let ages: Vec<i64> = report.waiters.iter().map(|waiting| waiting.age_us).collect();
    // The new key goes first, its second ask after one unit; the key that was served three has the tag 3.
    assert_eq!(ages, [0, -(3 << 16), -(1 << 16)]);
    assert_eq!(report.vtime, 2 << 16, "start tag of the last that was served");
    // Who lags behind the pool by more than four heaviest asks does so no longer.
    let report = desk.exchange(|_| ());
    let ages: Vec<i64> = report.waiters.iter().map(|waiting| waiting.age_us).collect();
    assert_eq!(ages, [-(88 << 16), -(88 << 16), -(89 << 16)]);
    assert_eq!(report.vtime, 100 << 16);
}

#[test]
fn under_fair_a_claim_stands_against_keys_with_later_tags() {
    for (tag, back) in [(2, true), (4, false)] {
        let mut policy = policy();
        policy.admission.order = Order::Fair;
        let mut desk = Desk::new(&policy);
        desk.credit(POD, 3);
        let all = desk.fill();
        // Its key was served three units, so it waits with the tag 3.
        desk.wait(LIGHT);
        desk.exchange(|reply| reply.kept = Some(Kept { pod: POD, age_us: -(tag << 16) }));
        desk.release(&all[0]);
        assert_eq!(desk.granted().is_empty(), back, "the claimant's tag is {tag}");
        assert_eq!(desk.member.lent(POD), if back { 2 } else { 3 });
    }
}

#[test]
fn an_unhealthy_pods_credit_goes_back_and_is_asked_for_no_more() {
    let mut desk = Desk::new(&policy());
    desk.credit(POD, 4);
    desk.credit(OTHER, 4);
    let running = desk.ask_for(Ask { place: Place::Pin(POD), ..Ask::new(HEAVY) });
    let Answer::Granted(running) = running else { panic!("it has room") };
    desk.exchange(|_| ());
    desk.member.set_ready(desk.at(), POD, false, &mut desk.out);
    let (then, report) = (desk.now, desk.exchange(|_| ()));
    assert!(desk.now <= then + 10_000, "at once");
    assert_eq!((held(&report, Account::Pod(POD)), &report.avoid[..]), (Some(3), &[POD][..]));
    // What it is lent there all the same goes back, and its waiter waits on.
    let ticket = desk.ask_for(Ask { place: Place::Pin(POD), ..Ask::new(LIGHT) });
    let Answer::Waits(ticket) = ticket else { panic!("no room on that pod") };
    desk.exchange(|_| ());
    let lent = desk.lent(Account::Pod(POD), 1, Some(ticket));
    desk.push(vec![lent]);
    let report = desk.exchange(|_| ());
    assert_eq!((held(&report, Account::Pod(POD)), report.waiters.len()), (Some(3), 1));
    assert_eq!(report.applied, 3);
    // What ends there goes back too.
    desk.release(&running);
    let report = desk.exchange(|_| ());
    assert_eq!((held(&report, Account::Pod(POD)), &report.avoid[..]), (Some(0), &[POD][..]));
    desk.member.set_ready(desk.at(), POD, true, &mut desk.out);
    assert_eq!(desk.exchange(|_| ()).avoid, []);
    desk.credit(POD, 1);
    assert_eq!(desk.granted().len(), 1, "it is used again");
}

#[test]
fn a_pods_word_about_its_use_is_passed_on_and_limits_nothing_here() {
    let mut desk = Desk::new(&policy());
    desk.credit(POD, 4);
    desk.member.report_in_use(desk.at(), POD, 8, &mut desk.out);
    desk.member.report_in_use(desk.at(), POD, 9, &mut desk.out);
    desk.member.report_in_use(desk.at(), PodId(77), 9, &mut desk.out);
    assert_eq!(desk.fill().len(), 4, "the nine may be other gates' leases");
    assert_eq!(desk.exchange(|_| ()).outside, [(POD, 9)]);
    assert_eq!(desk.exchange(|_| ()).outside, [], "it was said");
}

#[test]
fn units_that_go_back_settle_first() {
    let mut policy = policy();
    policy.pods[0].settle_us = 50_000;
    let mut desk = Desk::new(&policy);
    desk.credit(POD, 4);
    let all = desk.fill();
    desk.exchange(|reply| reply.over = vec![Account::Pod(POD)]);
    desk.release(&all[0]);
    desk.now += 20_000;
    desk.release(&all[1]);
    desk.wait(LIGHT);
    let report = desk.exchange(|reply| reply.over = vec![Account::Pod(POD)]);
    assert_eq!(held(&report, Account::Pod(POD)), None, "nothing may be used elsewhere yet");
    assert_eq!(desk.member.next_wake().0.max(desk.now), desk.member.next_wake().0);
    desk.now += 25_000;
    let report = desk.report();
    assert_eq!(held(&report, Account::Pod(POD)), Some(3), "the first has settled");
    desk.answer(&report, |reply| reply.over = vec![Account::Pod(POD)]);
    desk.now += 20_000;
    let report = desk.exchange(|_| ());
    assert_eq!(held(&report, Account::Pod(POD)), Some(2));
    assert_eq!(desk.granted(), [], "its own waiter got none of them");
    // What is not owed comes back to this gate's own waiter when it has settled.
    desk.release(&all[2]);
    assert_eq!(desk.granted(), []);
    desk.advance(50_000);
    assert_eq!(desk.granted().len(), 1);
    assert_eq!(desk.member.lent(POD), 2);
}

#[test]
fn a_pod_that_is_gone_or_drains_keeps_only_its_leases() {
    let mut desk = Desk::new(&policy());
    desk.credit(POD, 4);
    desk.credit(OTHER, 4);
    let running = desk.take(HEAVY);
    let mut rules = policy();
    let (gone, drained) = (running.pod, PodId(1 - running.pod.0));
    rules.pods[drained.index()].draining = true;
    rules.pods.remove(gone.index());
    rules.pods.push(PodPolicy::new("c", 5));
    desk.member.configure(desk.at(), &rules, &mut desk.out).expect("the policy is sound");
    let report = desk.exchange(|_| ());
    assert_eq!(held(&report, Account::Pod(gone)), Some(3));
    assert_eq!(held(&report, Account::Pod(drained)), Some(0));
    assert_eq!(report.avoid, [drained]);
    // Units on their way are taken, because they are numbered, and given back.
    desk.credit(gone, 2);
    desk.credit(drained, 3);
    desk.credit(PodId(2), 1);
    let (then, report) = (desk.now, desk.exchange(|_| ()));
    assert!(desk.now <= then + 10_000, "at once");
    assert_eq!(held(&report, Account::Pod(gone)), Some(3));
    assert_eq!(held(&report, Account::Pod(drained)), Some(0));
    assert_eq!((report.applied, held(&report, Account::Pod(PodId(2)))), (5, None));
    assert_eq!(desk.fill().len(), 1, "on the new pod");
    assert_eq!(desk.member.names().0, ["a", "b", "c"]);
}

#[test]
fn words_about_pods_that_this_gate_does_not_know_are_ignored() {
    let mut desk = Desk::new(&policy());
    desk.credit(POD, 2);
    let strange = PodId(40);
    desk.exchange(|reply| {
        reply.over = vec![Account::Pod(strange), Account::Api(LIGHT), Account::Api(HEAVY)];
        reply.kept = Some(Kept { pod: strange, age_us: 1_000_000_000 });
    });
    assert_eq!(desk.member.view(desk.at()).claimed, None);
    desk.credit(strange, 3);
    let report = desk.exchange(|_| ());
    assert_eq!((held(&report, Account::Pod(strange)), report.applied), (Some(0), 2));
    assert_eq!(desk.fill().len(), 2);
}

#[test]
fn sums_of_work_and_queue_are_told() {
    let mut desk = Desk::new(&policy());
    desk.credit(POD, 3);
    let first = desk.exchange(|_| ());
    assert_eq!((first.past_us, first.hold_us), (0, 60_000_000), "it never had a lease");
    let running = desk.take(HEAVY);
    desk.wait(LIGHT);
    desk.wait(HEAVY);
    let report = desk.exchange(|_| ());
    assert_eq!((report.done, report.queued, report.status), (0, 4, (3, 2)));
    assert_eq!(report.past_us, 0, "nothing was admitted before this life of the ledger");
    desk.release(&running);
    let report = desk.exchange(|_| ());
    assert_eq!((report.done, report.queued, report.status), (3, 3, (1, 1)));
    desk.life = Stamp { epoch: 4, ..LIFE };
    let report = desk.join();
    assert_eq!((report.done, report.past_us), (0, 0), "another epoch counts from nothing");
    desk.life = Stamp { incarnation: 8, epoch: 1 };
    assert_eq!(desk.join().past_us, 60_000_000, "a request of the life before may still run");
}

/// Also when this gate never had one, or none for long: others may.
#[test]
fn a_gate_without_leases_says_that_requests_of_others_may_still_run() {
    for quiet_us in [0, 300_000_000] {
        let mut desk = Desk::new(&policy());
        let until = desk.now + quiet_us;
        while desk.now < until {
            desk.exchange(|_| ());
        }
        desk.life = Stamp { incarnation: 8, epoch: 1 };
        assert_eq!(desk.join().past_us, 60_000_000, "quiet for {quiet_us} us");
        // Nor does a second loss within the recovery forget it, whatever ran meanwhile.
        desk.credit(POD, 1);
        let lease = desk.take(LIGHT);
        desk.advance(10_000);
        desk.release(&lease);
        desk.exchange(|reply| reply.recovering = true);
        desk.life = Stamp { incarnation: 9, epoch: 1 };
        assert_eq!(desk.join().past_us, 60_000_000);
    }
}

#[test]
fn the_pace_is_the_slower_of_its_own_and_the_ledgers() {
    let mut desk = Desk::new(&policy());
    assert_eq!(desk.member.view(desk.at()).pace_us, timing().pace_us);
    desk.exchange(|reply| reply.pace_us = 20_000);
    assert_eq!(desk.member.view(desk.at()).pace_us, 20_000);
    let sent = desk.exchange(|reply| reply.pace_us = 20_000);
    let then = desk.now;
    desk.wait(LIGHT);
    assert_eq!(desk.poll(), None);
    let next = desk.report();
    assert!(desk.now >= then + 19_000 && desk.now <= then + 20_000, "{} after {then}", desk.now);
    assert_eq!((next.number, next.waiters.len()), (sent.number + 1, 1));
}

#[test]
fn an_ask_that_does_not_wait_is_given_an_exchange_and_refused_for_want_of_room() {
    let mut desk = Desk::new(&policy());
    let hasty = Ask { wait_us: Some(0), ..Ask::new(LIGHT) };
    let Answer::Waits(_) = desk.ask_for(hasty) else { panic!("the ledger is asked") };
    desk.advance(2 * timing().pace_us + 4_000);
    assert_eq!(desk.refused(), []);
    desk.advance(1_000);
    let refused = desk.refused();
    assert_eq!(refused.iter().map(|refusal| refusal.reason()).collect::<Vec<_>>(), [Reason::NoRoom]);
    // One that must not wait at all is refused in the same call.
    let Answer::Refused(refusal) = desk.try_ask(LIGHT) else { panic!("nothing is lent") };
    assert_eq!(refusal.reason(), Reason::NoRoom);
    desk.credit(POD, 1);
    assert!(matches!(desk.try_ask(LIGHT), Answer::Granted(_)));
}

#[test]
fn credit_that_the_ledger_does_not_have_is_not_asked_for_again_at_once() {
    let mut desk = Desk::new(&policy());
    desk.exchange(|reply| reply.target = 8);
    let then = desk.now;
    // It may want eight, and gets none.
    desk.exchange(|reply| reply.target = 8);
    desk.exchange(|reply| reply.target = 8);
    assert!(desk.now >= then + timing().heartbeat_us(), "it asks with each heartbeat");
    // Once it got some, it asks soon when those are used.
    let lent = desk.lent(Account::Pod(POD), 8, None);
    desk.exchange(|reply| {
        reply.target = 8;
        reply.lent = vec![lent];
    });
    desk.exchange(|reply| reply.target = 8);
    let then = desk.now;
    assert_eq!(desk.fill().len(), 8);
    desk.exchange(|_| ());
    assert!(desk.now <= then + 10_000);
}

#[test]
fn the_picture_of_a_gate_shows_what_was_declared() {
    let mut desk = Desk::new(&limited());
    desk.credit(POD, 2);
    let snapshot = desk.member.snapshot();
    assert_eq!((snapshot.version, snapshot.capacity), (1, 17));
    assert_eq!((snapshot.reserve, snapshot.share), (1, 3));
    assert_eq!(snapshot.pods.iter().map(|pod| pod.capacity).collect::<Vec<_>>(), [10, 10]);
    let limits: Vec<_> = snapshot.apis.iter().map(|api| (api.min, api.max)).collect();
    assert_eq!(limits, [(0, Some(8)), (3, None)]);
    let version = desk.member.configure(desk.at(), &policy(), &mut desk.out).expect("it is sound");
    assert_eq!((version, desk.member.snapshot().capacity), (2, 20));
    desk.member.set_version(17);
    assert_eq!(desk.exchange(|reply| reply.version = 18).version, 17);
    let view = desk.member.view(desk.at());
    assert_eq!((view.version, view.ledger_version, view.credit), (17, 18, 2));
    assert_eq!((view.stamp, view.valid, view.emergency), (LIFE, true, false));
}

#[test]
fn a_request_that_was_written_off_is_counted_and_gives_its_units_back() {
    let mut desk = Desk::new(&policy());
    desk.credit(POD, 3);
    let granted = desk.take(HEAVY);
    assert!(desk.member.write_off(desk.at(), granted.lease, &mut desk.out));
    assert!(!desk.member.write_off(desk.at(), granted.lease, &mut desk.out));
    assert_eq!(desk.member.snapshot().abandoned_units, 3);
    assert_eq!(desk.fill().len(), 3);
    assert_eq!(desk.member.exempt(LIGHT), Some(OTHER), "the least used of those declared");
    desk.member.count_failed(LIGHT);
    let counts = desk.member.snapshot().apis[0].counts;
    assert_eq!((counts.exempt, counts.failed), (1, 1));
}

#[test]
fn a_max_that_comes_and_goes_is_told() {
    let mut desk = Desk::new(&policy());
    desk.credit(POD, 10);
    let all = desk.fill();
    let mut rules = policy();
    rules.apis[0].max = Some(Amount::Units(4));
    desk.member.configure(desk.at(), &rules, &mut desk.out).expect("the policy is sound");
    let report = desk.exchange(|reply| reply.over = vec![Account::Api(LIGHT)]);
    assert_eq!(held(&report, Account::Api(LIGHT)), Some(10));
    desk.release(&all[0]);
    assert!(matches!(desk.try_ask(LIGHT), Answer::Refused(_)), "its max is exceeded");
    let report = desk.exchange(|_| ());
    assert_eq!(held(&report, Account::Api(LIGHT)), Some(9));
    desk.member.configure(desk.at(), &policy(), &mut desk.out).expect("the policy is sound");
    assert!(matches!(desk.try_ask(LIGHT), Answer::Granted(_)));
    assert_eq!(held(&desk.exchange(|_| ()), Account::Api(LIGHT)), Some(0), "it counts no more");
}

#[test]
fn a_waiter_with_more_weight_than_was_lent_is_not_too_heavy() {
    let mut rules = policy();
    rules.apis[1].max = Some(Amount::Units(6));
    let mut desk = Desk::new(&rules);
    let ticket = desk.wait(HEAVY);
    // New rules must not take the three units that it lacks for a limit.
    desk.member.configure(Micros(desk.now), &rules, &mut desk.out).expect("the policy is sound");
    assert_eq!(desk.refused(), []);
    desk.exchange(|_| ());
    let lent = [desk.lent(Account::Api(HEAVY), 3, None), desk.lent(Account::Pod(POD), 3, Some(ticket))];
    desk.push(lent.to_vec());
    assert_eq!(desk.granted().len(), 1);
    let seven = Ask { weight: Some(7), ..Ask::new(HEAVY) };
    let Answer::Refused(refusal) = desk.ask_for(seven) else { panic!("it can never be served") };
    assert_eq!(refusal.reason(), Reason::TooHeavy);
}

#[test]
fn special_units_whose_waiter_is_gone_go_back() {
    let mut desk = Desk::new(&policy());
    let ticket = desk.wait(HEAVY);
    desk.exchange(|_| ());
    assert!(desk.member.cancel(desk.at(), ticket, &mut desk.out));
    let lent = desk.lent(Account::Pod(POD), 3, Some(ticket));
    desk.push(vec![Lent { special: true, ..lent }]);
    assert_eq!(desk.fill().len(), 0);
    assert_eq!(held(&desk.exchange(|_| ()), Account::Pod(POD)), Some(0));
}
