//! Random policies, random histories, all judged after each step.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use sluicegate_core::exchange::{Ending, Place};
use sluicegate_core::gate::Ask;
use sluicegate_core::ids::{ApiId, PodId};
use sluicegate_core::policy::{
    Admission, Amount, ApiPolicy, Mode, Order, Placement, PodPolicy, Policy, Trickle,
};

use crate::judge::Judge;

/// One input. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Ask {
        api: usize,
        weight: Option<u32>,
        wait_us: Option<u64>,
        place: u8,
        pod: usize,
        key: Option<u64>,
        behind_us: u64,
    },
    Release(usize),
    WriteOff(usize),
    Cancel(usize),
    PodRefused(usize),
    NeverStarted(usize),
    Unused(usize, bool),
    Relocate(usize, usize),
    Advance(u64),
    Ready(usize, bool),
    Report(usize, u32),
    Late(usize),
    Configure(Box<Policy>),
}

fn step() -> impl Strategy<Value = Step> {
    let ask = (
        0..4usize,
        proptest::option::weighted(0.1, 1..12u32),
        proptest::option::weighted(0.3, prop_oneof![Just(0), 1..2_000_000u64]),
        prop_oneof![8 => Just(0u8), 1 => Just(1), 1 => Just(2)],
        0..4usize,
        proptest::option::weighted(0.4, 0..4u64),
        prop_oneof![3 => Just(0u64), 1 => 1..3_000_000u64],
    );
    let ask = ask.prop_map(|(api, weight, wait_us, place, pod, key, behind_us)| Step::Ask {
        api,
        weight,
        wait_us,
        place,
        pod,
        key,
        behind_us,
    });
    prop_oneof![
        40 => ask,
        28 => (0..64usize).prop_map(Step::Release),
        1 => (0..64usize).prop_map(Step::WriteOff),
        4 => (0..64usize).prop_map(Step::Cancel),
        3 => (0..64usize).prop_map(Step::PodRefused),
        2 => (0..64usize).prop_map(Step::NeverStarted),
        2 => (0..64usize, any::<bool>()).prop_map(|(at, refused)| Step::Unused(at, refused)),
        2 => (0..64usize, 0..4usize).prop_map(|(at, pod)| Step::Relocate(at, pod)),
        12 => prop_oneof![0..50_000u64, 0..1_500_000u64].prop_map(Step::Advance),
        3 => (0..4usize, any::<bool>()).prop_map(|(pod, ready)| Step::Ready(pod, ready)),
        2 => (0..4usize, 0..14u32).prop_map(|(pod, units)| Step::Report(pod, units)),
        1 => (0..64usize).prop_map(Step::Late),
        2 => policy().prop_map(|policy| Step::Configure(Box::new(policy))),
    ]
}

fn amount(most: u32) -> impl Strategy<Value = Amount> {
    prop_oneof![(0..most).prop_map(Amount::Units), (0..60_000u32).prop_map(Amount::Share),]
}

fn api(index: usize) -> impl Strategy<Value = ApiPolicy> {
    (
        prop_oneof![4 => 1..4u32, 1 => 1..10u32],
        prop_oneof![3 => Just(Amount::Units(0)), 1 => amount(6)],
        proptest::option::weighted(0.25, amount(14)),
        any::<bool>(),
        prop_oneof![1 => Just(0u64), 3 => 1..2_000_000u64],
    )
        .prop_map(move |(weight, min, max, protected, wait_us)| ApiPolicy {
            name: format!("api{index}"),
            weight,
            min,
            max,
            protected,
            exempt: false,
            wait_us,
        })
}

fn pod(index: usize) -> impl Strategy<Value = PodPolicy> {
    (
        prop_oneof![1 => Just(0u32), 9 => 1..11u32],
        prop_oneof![2 => Just(0u32), 1 => 1..5u32],
        prop_oneof![3 => Just(0u64), 1 => 1..200_000u64],
        proptest::bool::weighted(0.1),
    )
        .prop_map(move |(capacity, burst, settle_us, draining)| PodPolicy {
            name: format!("pod{index}"),
            capacity,
            burst,
            settle_us,
            draining,
        })
}

fn admission() -> impl Strategy<Value = Admission> {
    let trickle = (amount(8), 0..200_000u64, 100_000..160_000u32)
        .prop_map(|(share, rate_milli, ceiling)| Trickle { share, rate_milli, ceiling });
    (
        prop_oneof![8 => Just(Mode::Enforce), 1 => Just(Mode::Shadow), 1 => Just(Mode::Off)],
        prop_oneof![Just(Order::LightFirst), Just(Order::Fifo), Just(Order::Fair)],
        prop_oneof![Just(Placement::Auto), Just(Placement::Spread), Just(Placement::Pack)],
        prop_oneof![1 => 0..4u32, 3 => Just(100u32)],
        proptest::option::weighted(0.2, amount(30)),
        prop_oneof![2 => Just(Amount::Units(0)), 1 => amount(5)],
        proptest::option::weighted(0.3, trickle),
        proptest::bool::weighted(0.9),
    )
        .prop_map(|(mode, order, placement, queue, capacity, reserve, trickle, claims)| Admission {
            mode,
            order,
            placement,
            queue,
            capacity,
            reserve,
            trickle,
            claims,
            ..Admission::default()
        })
}

/// All four apis always, so that every number stays good; one to four pods.
fn policy() -> impl Strategy<Value = Policy> {
    let pods = (pod(0), pod(1), pod(2), pod(3), 1..5usize)
        .prop_map(|(a, b, c, d, count)| vec![a, b, c, d].into_iter().take(count).collect());
    let apis = (api(0), api(1), api(2), api(3)).prop_map(|(a, b, c, d)| vec![a, b, c, d]);
    (pods, apis, admission()).prop_map(|(pods, apis, admission)| Policy { pods, apis, admission })
}

fn run(first: &Policy, steps: &[Step]) -> String {
    let mut judge = Judge::new(first);
    let quiet = |policy: &Policy| policy.admission.mode == Mode::Enforce;
    if !quiet(first) {
        judge.shadow();
    }
    for step in steps {
        let live = judge.books.live.len().max(1);
        let waiting = judge.books.waiting.len().max(1);
        let pods = judge.books.pods.len();
        match step {
            Step::Ask { api, weight, wait_us, place, pod, key, behind_us } => {
                let pod = PodId((pod % pods) as u32);
                let place = [Place::Any, Place::Prefer(pod), Place::Pin(pod)][usize::from(*place)];
                judge.ask(Ask {
                    api: ApiId(*api as u32),
                    weight: *weight,
                    wait_us: *wait_us,
                    place,
                    key: *key,
                    behind_us: *behind_us,
                    overflows: false,
                });
            }
            Step::Release(at) if !judge.books.live.is_empty() => judge.release(at % live),
            Step::WriteOff(at) if !judge.books.live.is_empty() => judge.write_off(at % live),
            Step::PodRefused(at) if !judge.books.live.is_empty() => {
                judge.retry(at % live, Ending::PodRefused);
            }
            Step::NeverStarted(at) if !judge.books.live.is_empty() => {
                judge.retry(at % live, Ending::NeverStarted);
            }
            Step::Unused(at, refused) if !judge.books.live.is_empty() => judge.unused(at % live, *refused),
            Step::Relocate(at, pod) if !judge.books.live.is_empty() => judge.relocate(at % live, pod % pods),
            Step::Cancel(at) if !judge.books.waiting.is_empty() => judge.cancel(at % waiting),
            Step::Advance(by_us) => judge.advance(*by_us),
            Step::Ready(pod, ready) => judge.set_ready(pod % pods, *ready),
            Step::Report(pod, units) => judge.report(pod % pods, *units),
            Step::Late(which) => judge.late(*which),
            Step::Configure(policy) => {
                if !quiet(policy) {
                    judge.shadow();
                }
                judge.configure(policy);
            }
            Step::Release(_)
            | Step::WriteOff(_)
            | Step::PodRefused(_)
            | Step::NeverStarted(_)
            | Step::Unused(..)
            | Step::Relocate(..)
            | Step::Cancel(_) => {}
        }
    }
    judge.account();
    // In the end everything can end, and then nothing is left.
    while !judge.books.waiting.is_empty() {
        judge.cancel(0);
    }
    while !judge.books.live.is_empty() {
        judge.release(0);
    }
    assert_eq!(judge.gate.snapshot().in_use, 0);
    judge.transcript
}

fn config() -> ProptestConfig {
    // About a minute in profile test-release; an unoptimised build looks at fewer.
    let cases = if cfg!(debug_assertions) { 2_000 } else { 250_000 };
    let full = std::env::var("SLUICEGATE_FULL").is_ok_and(|value| value == "1");
    ProptestConfig {
        cases: if full { 10 * cases } else { cases },
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/it/laws.regressions"))),
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// Goal: sections 3 and 4 hold at every moment. Method: see `judge`.
    #[test]
    fn laws_hold_on_random_histories(
        first in policy(),
        steps in proptest::collection::vec(step(), 1..90),
    ) {
        run(&first, &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..config() })]

    /// The same calls give the same answers.
    #[test]
    fn a_history_has_one_outcome(
        first in policy(),
        steps in proptest::collection::vec(step(), 1..90),
    ) {
        prop_assert_eq!(run(&first, &steps), run(&first, &steps));
    }
}
