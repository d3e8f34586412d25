//! Named cases: bugs of other admission controllers, and bugs that the judge found here.

use sluicegate_core::exchange::{Ending, Entry, Place};
use sluicegate_core::gate::{Answer, Ask, Gate, Output};
use sluicegate_core::ids::{ApiId, PodId};
use sluicegate_core::policy::{Amount, Mode, Order, Policy, Trickle};
use sluicegate_core::refusal::{Reason, Refusal};
use sluicegate_core::time::{Micros, SECOND};

use crate::judge::Judge;

const LIGHT: ApiId = ApiId(0);
const HEAVY: ApiId = ApiId(1);

/// Weights 1 and `heavy`, wait 1 s, first come first served.
fn policy(pods: &[u32], heavy: u32) -> Policy {
    let names = ["a", "b", "c", "d"];
    let pods: Vec<(&str, u32)> = names.into_iter().zip(pods.iter().copied()).collect();
    let mut policy = Policy::simple(&pods, &[("light", 1), ("heavy", heavy)]);
    policy.admission.order = Order::Fifo;
    policy
}

fn waiting(judge: &Judge) -> Vec<u64> {
    judge.books.in_order().iter().map(|(_, wish)| wish.weight).collect()
}

fn in_use(judge: &Judge) -> u64 {
    judge.gate.snapshot().in_use
}

/// Aperture and llm-d-router let a request in as soon as anything was free.
#[test]
fn a_hundred_units_wait_though_one_is_free() {
    let mut judge = Judge::new(&policy(&[100], 100));
    assert_eq!(judge.ask(Ask::new(LIGHT)), Some(true));
    for _ in 0..98 {
        judge.ask(Ask::new(LIGHT));
    }
    assert_eq!(in_use(&judge), 99);
    assert_eq!(judge.ask(Ask::new(HEAVY)), Some(false));
    while !judge.books.waiting.is_empty() {
        assert!(in_use(&judge) > 0);
        judge.release(0);
    }
    assert_eq!(in_use(&judge), 100);
}

/// kubernetes#134196: capacity 0, and weights above every pod.
#[test]
fn too_heavy_for_every_pod_is_refused_for_good() {
    let mut gate = Gate::new(policy(&[3, 0], 4), 1, Micros(0)).unwrap();
    let mut out = Vec::new();
    let Answer::Refused(refusal) = gate.ask(Micros(0), Ask::new(HEAVY), &mut out) else { panic!() };
    assert_eq!(refusal, Refusal::Never { api: HEAVY, weight: 4, most: 3 });
    let mut gate = Gate::new(policy(&[0, 0], 4), 1, Micros(0)).unwrap();
    let Answer::Refused(refusal) = gate.ask(Micros(0), Ask::new(LIGHT), &mut out) else { panic!() };
    assert_eq!(refusal.reason(), Reason::NoReadyPod);
    let mut gate = Gate::new(policy(&[], 4), 1, Micros(0)).unwrap();
    let Answer::Refused(refusal) = gate.ask(Micros(0), Ask::new(LIGHT), &mut out) else { panic!() };
    assert_eq!(refusal.reason(), Reason::NoReadyPod);
}

/// resilience4j#981: a limit that shrinks below what is in use, and grows again.
#[test]
fn a_capacity_below_use_admits_nothing_until_enough_completes() {
    let mut judge = Judge::new(&policy(&[6], 2));
    for _ in 0..6 {
        judge.ask(Ask::new(LIGHT));
    }
    judge.configure(&policy(&[3], 2));
    assert_eq!(judge.ask(Ask::new(LIGHT)), Some(false));
    for expected in [5, 4, 3] {
        judge.release(0);
        assert_eq!((in_use(&judge), waiting(&judge).len()), (expected, 1), "still above the limit");
    }
    judge.release(0);
    assert_eq!((in_use(&judge), waiting(&judge).len()), (3, 0));
    judge.ask(Ask::new(HEAVY));
    judge.configure(&policy(&[5], 2));
    assert_eq!((in_use(&judge), waiting(&judge).len()), (5, 0), "growing admits at once");
}

/// redisson#4678: initialising again while everything is in use must not hand it out twice.
#[test]
fn the_same_rules_again_change_nothing() {
    let rules = policy(&[3, 2], 2);
    let mut judge = Judge::new(&rules);
    for _ in 0..5 {
        judge.ask(Ask::new(LIGHT));
    }
    judge.ask(Ask::new(HEAVY));
    judge.configure(&rules);
    assert_eq!((in_use(&judge), waiting(&judge)), (5, vec![2]));
}

/// redisson#6664: a release of two must not wake only the one that needs one, nor lose the rest.
#[test]
fn one_release_of_two_serves_whom_it_can() {
    for (first, second, left) in [(HEAVY, LIGHT, vec![1]), (LIGHT, HEAVY, vec![2])] {
        let mut judge = Judge::new(&policy(&[2], 2));
        judge.ask(Ask::new(HEAVY));
        judge.ask(Ask::new(first));
        judge.ask(Ask::new(second));
        judge.release(0);
        assert_eq!(waiting(&judge), left, "the one in front goes first");
        judge.release(0);
        assert!(waiting(&judge).is_empty());
    }
    let mut judge = Judge::new(&policy(&[2], 2));
    judge.ask(Ask::new(HEAVY));
    judge.ask(Ask::new(LIGHT));
    judge.ask(Ask::new(LIGHT));
    judge.release(0);
    assert_eq!((in_use(&judge), waiting(&judge).len()), (2, 0), "both light ones go");
}

/// A stream of light requests must not pass a heavy head for ever; without claims it does.
#[test]
fn a_heavy_head_gets_its_turn_in_a_light_stream() {
    let served = |claims: bool| {
        let mut rules = policy(&[4, 4], 4);
        rules.admission.claims = claims;
        rules.apis[1].wait_us = 60 * SECOND;
        let mut judge = Judge::new(&rules);
        for _ in 0..8 {
            judge.ask(Ask::new(LIGHT));
        }
        judge.ask(Ask::new(HEAVY));
        for _ in 0..100 {
            judge.ask(Ask::new(LIGHT));
            judge.release(0);
            if !judge.books.waiting.iter().any(|(_, wish)| wish.weight == 4) {
                return true;
            }
        }
        false
    };
    assert!(served(true));
    assert!(!served(false), "the claim is what helps it");
}

/// A head that the new capacity can never serve must not stand in the way of the others.
#[test]
fn a_head_that_became_hopeless_is_refused_and_blocks_nobody() {
    let mut rules = policy(&[4, 4], 4);
    let mut judge = Judge::new(&rules);
    for _ in 0..8 {
        judge.ask(Ask::new(LIGHT));
    }
    judge.ask(Ask::new(HEAVY));
    judge.ask(Ask::new(LIGHT));
    rules.pods[0].capacity = 3;
    rules.pods[1].capacity = 3;
    judge.configure(&rules);
    assert_eq!(waiting(&judge), [1]);
    assert!(judge.transcript.contains("Never { api: ApiId(1), weight: 4, most: 3 }"));
    // The same by the pool's limits: pods could hold it, the reserve does not leave enough.
    let mut rules = policy(&[4], 4);
    let mut judge = Judge::new(&rules);
    judge.ask(Ask::new(HEAVY));
    judge.ask(Ask::new(HEAVY));
    judge.ask(Ask::new(LIGHT));
    rules.admission.reserve = Amount::Units(1);
    judge.configure(&rules);
    judge.release(0);
    assert_eq!((in_use(&judge), waiting(&judge).len()), (1, 0));
}

#[test]
fn late_and_double_releases_change_nothing() {
    let mut gate = Gate::new(policy(&[2], 2), 1, Micros(0)).unwrap();
    let mut out = Vec::new();
    let Answer::Granted(first) = gate.ask(Micros(0), Ask::new(HEAVY), &mut out) else { panic!() };
    assert!(gate.release(Micros(1), first.lease, &mut out));
    // The slot is used again by another lease: the old name must not end the new one.
    let Answer::Granted(second) = gate.ask(Micros(2), Ask::new(HEAVY), &mut out) else { panic!() };
    assert_ne!(first.lease, second.lease);
    for _ in 0..3 {
        assert!(!gate.release(Micros(3), first.lease, &mut out));
        assert!(!gate.write_off(Micros(3), first.lease, &mut out));
    }
    assert_eq!(gate.snapshot().in_use, 2);
    assert_eq!(gate.snapshot().abandoned_units, 0);
    gate.audit().unwrap();
}

/// HAProxy's rank wraps after 17 minutes; ours must hold for any clock.
#[test]
fn ranks_do_not_wrap() {
    for start in [0, 1 << 32, 1 << 52, u64::MAX - 10 * SECOND] {
        let mut rules = policy(&[3], 3);
        rules.admission.order = Order::LightFirst;
        let mut gate = Gate::new(rules, 1, Micros(start)).unwrap();
        let mut out = Vec::new();
        let Answer::Granted(first) = gate.ask(Micros(start), Ask::new(HEAVY), &mut out) else { panic!() };
        let long = Ask { wait_us: Some(u64::MAX), ..Ask::new(HEAVY) };
        let Answer::Waits(heavy) = gate.ask(Micros(start), long, &mut out) else { panic!() };
        let now = Micros(start + 2 * SECOND);
        let Answer::Waits(light) = gate.ask(now, Ask::new(LIGHT), &mut out) else { panic!() };
        assert!(gate.release(now, first.lease, &mut out));
        let granted: Vec<_> = out
            .iter()
            .map(|output| match output {
                Output::Granted(ticket, _) => *ticket,
                Output::Refused(..) => panic!("refused at {start}"),
            })
            .collect();
        // A whole pod's weight has no offset, so the earlier one goes first.
        assert_eq!(granted, [heavy], "at {start}; {light:?}");
    }
}

/// The pod's own 429: back with the old rank, its units withheld until its next completion or one second.
#[test]
fn a_pods_refusal_keeps_the_rank_and_withholds_units() {
    let mut judge = Judge::new(&policy(&[2, 2], 2));
    judge.ask(Ask { place: Place::Prefer(PodId(0)), ..Ask::new(HEAVY) });
    judge.ask(Ask { place: Place::Prefer(PodId(1)), ..Ask::new(LIGHT) });
    judge.ask(Ask { place: Place::Prefer(PodId(1)), ..Ask::new(LIGHT) });
    judge.advance(10);
    judge.ask(Ask::new(HEAVY));
    judge.retry(0, Ending::PodRefused);
    assert_eq!(judge.books.in_order()[0].1.arrival, 0, "it stands before the one that came later");
    assert_eq!(in_use(&judge), 2, "pod 0 takes nothing though nothing runs there");
    judge.advance(900_000);
    assert_eq!(in_use(&judge), 2);
    judge.advance(99_990);
    // A second after the refusal the units are usable again, but the asks' own time is over first.
    assert_eq!(judge.books.waiting.len(), 1);
    judge.advance(10);
    assert_eq!((in_use(&judge), judge.books.waiting.len()), (4, 0));
}

#[test]
fn a_completion_ends_the_withholding() {
    let mut judge = Judge::new(&policy(&[4], 2));
    judge.ask(Ask::new(HEAVY));
    judge.ask(Ask::new(HEAVY));
    judge.retry(0, Ending::PodRefused);
    assert_eq!((in_use(&judge), waiting(&judge)), (2, vec![2]));
    judge.release(0);
    assert_eq!((in_use(&judge), waiting(&judge).len()), (2, 0));
}

/// What a returning request gives back may serve a better rank before itself.
#[test]
fn one_that_comes_back_does_not_pass_a_better_rank() {
    let mut rules = policy(&[7], 2);
    rules.apis[1].max = Some(Amount::Units(2));
    let mut judge = Judge::new(&rules);
    judge.ask(Ask::new(HEAVY));
    judge.advance(10);
    let early = Ask { key: Some(9), ..Ask::new(HEAVY) };
    judge.ask(early);
    judge.advance(10);
    judge.retry(0, Ending::NeverStarted);
    assert_eq!(judge.books.waiting[0].1.key, 9, "the returning one is older and is served again");
    rules.admission.order = Order::Fair;
    let mut judge = Judge::new(&rules);
    judge.ask(Ask { key: Some(1), ..Ask::new(HEAVY) });
    judge.ask(Ask { key: Some(1), ..Ask::new(LIGHT) });
    judge.ask(early);
    judge.retry(0, Ending::NeverStarted);
    assert_eq!(judge.books.waiting[0].1.key, 1, "its key was served more, so the other goes first");
}

/// Under `fair` a full queue is the flooder's, not everybody's.
#[test]
fn a_flooding_key_loses_its_own_places_in_a_full_queue() {
    let mut rules = policy(&[1], 1);
    rules.admission.order = Order::Fair;
    rules.admission.queue = 10;
    let mut judge = Judge::new(&rules);
    judge.ask(Ask::new(LIGHT));
    for _ in 0..10 {
        assert_eq!(judge.ask(Ask { key: Some(1), ..Ask::new(LIGHT) }), Some(false));
    }
    assert_eq!(judge.ask(Ask { key: Some(1), ..Ask::new(LIGHT) }), None, "the flooder has no more places");
    for _ in 0..4 {
        assert_eq!(judge.ask(Ask { key: Some(2), ..Ask::new(LIGHT) }), Some(false));
    }
    let of_key = |key: u64| judge.books.waiting.iter().filter(|(_, wish)| wish.key == key).count();
    assert_eq!((of_key(1), of_key(2)), (6, 4));
}

/// Pinned asks wait for their pod alone, and a refusal names one with room.
#[test]
fn a_pinned_refusal_names_another_pod() {
    let mut gate = Gate::new(policy(&[1, 1], 1), 1, Micros(0)).unwrap();
    let mut out = Vec::new();
    let pin = Ask { place: Place::Pin(PodId(0)), wait_us: Some(0), ..Ask::new(LIGHT) };
    assert!(matches!(gate.ask(Micros(0), pin, &mut out), Answer::Granted(_)));
    let Answer::Refused(refusal) = gate.ask(Micros(0), pin, &mut out) else { panic!() };
    let Refusal::NotNow { reason, elsewhere, .. } = refusal else { panic!() };
    assert_eq!((reason, elsewhere), (Reason::PodFull, Some(PodId(1))));
}

/// Draining: what runs ends, nothing new comes, the pool is smaller at once.
#[test]
fn a_draining_pod_takes_nothing_and_comes_back() {
    let mut rules = policy(&[2, 2], 2);
    let mut judge = Judge::new(&rules);
    for _ in 0..4 {
        judge.ask(Ask::new(LIGHT));
    }
    rules.pods[0].draining = true;
    judge.configure(&rules);
    judge.ask(Ask::new(LIGHT));
    while judge.books.on_pod(0) > 0 {
        let index = judge.books.live.iter().position(|live| live.pod == 0).unwrap();
        judge.release(index);
    }
    assert_eq!((in_use(&judge), waiting(&judge).len()), (2, 1), "pod 1 is full, pod 0 drains");
    rules.pods[0].draining = false;
    judge.configure(&rules);
    assert_eq!((in_use(&judge), waiting(&judge).len()), (3, 0));
}

/// A pod that leaves with leases on it keeps them, and its number when it returns.
#[test]
fn a_pod_that_left_and_returned_still_holds_its_leases() {
    let rules = policy(&[2, 2], 2);
    let mut judge = Judge::new(&rules);
    judge.ask(Ask { place: Place::Pin(PodId(1)), ..Ask::new(HEAVY) });
    let mut without = rules.clone();
    without.pods.remove(1);
    judge.configure(&without);
    assert_eq!(judge.gate.snapshot().pods.len(), 2, "it is shown while it holds something");
    judge.configure(&rules);
    assert_eq!(judge.gate.pod_id("b"), Some(PodId(1)));
    assert_eq!(judge.ask(Ask { place: Place::Pin(PodId(1)), ..Ask::new(LIGHT) }), Some(false));
}

/// An unhealthy pod moves placement, never a limit.
#[test]
fn health_moves_placement_and_no_limit() {
    let mut judge = Judge::new(&policy(&[2, 2], 2));
    judge.set_ready(0, false);
    assert_eq!(judge.gate.snapshot().capacity, 4);
    judge.ask(Ask::new(HEAVY));
    judge.ask(Ask::new(HEAVY));
    assert_eq!(judge.books.on_pod(0), 0);
    judge.set_ready(1, false);
    judge.release(0);
    assert_eq!((in_use(&judge), waiting(&judge).len()), (0, 1), "nobody is up");
    judge.set_ready(0, true);
    assert_eq!(judge.books.on_pod(0), 2);
}

/// `shadow` decides and counts, delays nobody and refuses nothing.
#[test]
fn shadow_counts_what_it_would_have_refused() {
    let mut rules = policy(&[2], 2);
    rules.admission.mode = Mode::Shadow;
    let mut judge = Judge::new(&rules);
    judge.shadow();
    for _ in 0..3 {
        assert_eq!(judge.ask(Ask::new(HEAVY)), Some(true));
    }
    let entries: Vec<Entry> = judge.books.live.iter().map(|live| live.entry).collect();
    assert_eq!(entries, [Entry::Pool, Entry::Forced, Entry::Forced]);
    assert_eq!(judge.gate.snapshot().apis[1].counts.refused_all(), 2);
    rules.admission.mode = Mode::Enforce;
    judge.configure(&rules);
    assert_eq!(judge.ask(Ask::new(LIGHT)), Some(false), "use was counted all along");
    judge.release(0);
    judge.release(0);
    assert_eq!(waiting(&judge).len(), 1, "two units still run");
    judge.release(0);
    assert!(waiting(&judge).is_empty());
}

/// Nobody is left waiting when the rules stop delaying.
#[test]
fn switching_off_lets_all_waiters_in() {
    for mode in [Mode::Shadow, Mode::Off] {
        let mut rules = policy(&[2], 2);
        let mut judge = Judge::new(&rules);
        judge.shadow();
        for _ in 0..4 {
            judge.ask(Ask::new(HEAVY));
        }
        rules.admission.mode = mode;
        judge.configure(&rules);
        assert_eq!((in_use(&judge), waiting(&judge).len()), (8, 0));
    }
}

/// A guarantee holds against any crowd, and is not stranded in leases.
#[test]
fn a_guarantee_is_kept_free_and_counted_from_use() {
    let mut rules = policy(&[6], 2);
    rules.apis[1].min = Amount::Units(4);
    let mut judge = Judge::new(&rules);
    for _ in 0..5 {
        judge.ask(Ask::new(LIGHT));
    }
    assert_eq!(in_use(&judge), 2, "four are kept");
    assert_eq!(judge.ask(Ask::new(HEAVY)), Some(true));
    assert_eq!(judge.ask(Ask::new(HEAVY)), Some(true));
    // One completion of a light one goes to a light one: the guarantee is filled by use.
    judge.release(0);
    assert_eq!((in_use(&judge), waiting(&judge).len()), (6, 2));
}

/// Tokens come back with time only, and a filled guarantee lets others in (a wake-up that was once lost).
#[test]
fn the_trickle_is_paced_by_time_alone() {
    let mut rules = policy(&[10], 2);
    let share = Amount::Units(2);
    rules.admission.trickle = Some(Trickle { share, rate_milli: 1_000, ceiling: 100_000 });
    rules.apis[0].wait_us = 10 * SECOND;
    let mut judge = Judge::new(&rules);
    for _ in 0..11 {
        judge.ask(Ask::new(LIGHT));
    }
    let trickled = |judge: &Judge| judge.gate.snapshot().trickled;
    assert_eq!((in_use(&judge), trickled(&judge)), (10, 2));
    // A trickle lease completes: no token comes back, so nobody follows it.
    let index = judge.books.live.iter().position(|live| live.entry == Entry::Trickle).unwrap();
    judge.release(index);
    assert_eq!((in_use(&judge), trickled(&judge), waiting(&judge).len()), (9, 1, 1));
    let wake = judge.gate.next_wake().unwrap();
    assert_eq!(wake, Micros(SECOND), "one token at 1/s");
    judge.advance(SECOND - 1);
    assert_eq!(waiting(&judge).len(), 1);
    judge.advance(1);
    assert_eq!((in_use(&judge), trickled(&judge)), (10, 2));
}

/// A backlog that took each unit as it came free would leave a heavy request one pod to gather its units on: two such
/// requests at once would wait for each other.
#[test]
fn a_backlog_takes_nothing_while_a_request_waits_for_room() {
    let behind = Ask { behind_us: 10 * SECOND, wait_us: Some(60 * SECOND), ..Ask::new(LIGHT) };
    let mut judge = Judge::new(&policy(&[3, 3], 2));
    for _ in 0..9 {
        judge.ask(behind);
    }
    assert_eq!((in_use(&judge), waiting(&judge)), (6, vec![1; 3]), "the backlog fills what is free");
    for _ in 0..2 {
        assert_eq!(judge.ask(Ask::new(HEAVY)), Some(false));
    }
    let on = |judge: &Judge, pod: usize| judge.books.live.iter().position(|live| live.pod == pod).unwrap();
    for pod in [0, 1] {
        judge.release(on(&judge, pod));
        assert_eq!(waiting(&judge), [2, 2, 1, 1, 1], "one unit of each pod is free, and kept");
    }
    for left in [vec![2, 1, 1, 1], vec![1; 3]] {
        judge.release(on(&judge, left.len() % 2));
        assert_eq!(waiting(&judge), left, "each request has its pod");
    }
    judge.release(0);
    assert_eq!(waiting(&judge), [1; 2], "nobody waits in front: the backlog goes on");
    // Bounded: what waits longer than it ranks behind goes before requests that come now.
    judge.advance(10 * SECOND);
    assert_eq!(judge.ask(Ask::new(HEAVY)), Some(false));
    judge.release(0);
    assert!(waiting(&judge).contains(&2), "{:?}", waiting(&judge));
    assert!(waiting(&judge).len() < 3, "the backlog took the unit");
}
