//! Many gates over one ledger: quality and cost. What faults do is in `faults.rs`. `SLUICEGATE_FULL=1` makes them long.

#![allow(clippy::print_stdout, reason = "a person reads the figures with --nocapture")]

use sluicegate_core::member::OnLoss;
use sluicegate_core::policy::{Amount, ApiPolicy, Policy, Units};
use sluicegate_core::shared::{Rules, Timing};
use sluicegate_sim::Load;
use sluicegate_sim::network::Network;
use sluicegate_sim::pool_world::{Outcome, Setup, run};

pub(crate) fn is_full() -> bool {
    std::env::var_os("SLUICEGATE_FULL").is_some()
}

/// Weights 1, 2 and 3 in equal Erlangs on `pods` pods of 20 units, four gates.
fn pool(pods: usize, load: f64, wait_ms: u64, service_ms: u64) -> Setup {
    pool_of([1, 2, 3], pods, load, wait_ms, service_ms)
}

fn pool_of(weights: [Units; 3], pods: usize, load: f64, wait_ms: u64, service_ms: u64) -> Setup {
    let names: Vec<String> = (0..pods).map(|pod| format!("p{pod}")).collect();
    let pods: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 20)).collect();
    let mut policy = Policy::simple(&pods, &[]);
    for weight in weights {
        let api = ApiPolicy::new(&format!("w{weight}"), weight);
        policy.apis.push(ApiPolicy { wait_us: wait_ms * 1000, ..api });
    }
    Setup {
        gates: 4,
        timing: Timing::of_wait(wait_ms * 1000),
        rules: Rules::default(),
        on_loss: OnLoss::Refuse,
        founded: true,
        network: Network::quiet(),
        load: Load::of_pool(&policy, load, service_ms * 1000),
        arrivals: if is_full() { 1_000_000 } else { 200_000 },
        faults: Vec::new(),
        seed: 1,
        policy,
    }
}

/// The second api has a guarantee and may use the reserve, the third has a `max`.
fn limit(policy: &mut Policy) {
    policy.apis[1].min = Amount::Share(20_000);
    policy.apis[1].protected = true;
    policy.apis[2].max = Some(Amount::Share(30_000));
    policy.admission.reserve = Amount::Share(5_000);
}

pub(crate) fn go(setup: &Setup) -> Outcome {
    run(setup).expect("the policy is sound")
}

/// What no fault may bring about; in words if it did.
pub(crate) fn wrong(outcome: &Outcome) -> Option<String> {
    let Outcome { over, unlawful, leaked, forgotten, faults_in_books, .. } = outcome;
    if (*over, *unlawful, *leaked, *forgotten) == (0, 0, 0, 0) && faults_in_books.is_empty() {
        return None;
    }
    let books = faults_in_books.first();
    Some(format!("over {over}, unlawful {unlawful}, leaked {leaked}, forgotten {forgotten}, books {books:?}"))
}

fn cost(outcome: &Outcome) -> String {
    format!(
        "per 1,000 requests {:.1} exchanges, {:.1} pushes, {:.1} balances written",
        outcome.exchanges_per_1000(),
        outcome.pushes_per_1000(),
        outcome.touched_per_1000()
    )
}

fn check_quality(load: f64, wait_ms: u64, bar: f64) {
    let outcome = go(&pool(10, load, wait_ms, 100));
    assert_eq!(wrong(&outcome), None);
    let share = outcome.share_refused();
    println!("load {load} wait {wait_ms} ms: {:.4} %; {}", share * 100.0, cost(&outcome));
    assert!(share <= bar, "load {load} wait {wait_ms} ms: {share} is above {bar}");
}

#[test]
fn four_gates_refuse_no_more_than_the_bars_with_10_ms() {
    check_quality(0.8, 10, 0.005);
    check_quality(0.9, 10, 0.023);
    check_quality(1.0, 10, 0.057);
}

#[test]
fn four_gates_refuse_no_more_than_the_bars_with_50_ms() {
    check_quality(0.8, 50, 0.000_5);
    check_quality(0.9, 50, 0.005);
    check_quality(1.0, 50, 0.036);
}

#[test]
fn four_gates_refuse_nobody_at_0_95_who_can_wait_a_second() {
    check_quality(0.95, 1000, 0.0);
}

#[test]
fn exchanges_are_paid_for_scarcity_not_for_requests() {
    let cases = [(100, 100, 0.8, 5.0), (100, 100, 0.9, 40.0), (10, 10, 0.8, 110.0), (10, 10, 1.0, 90.0)];
    for (pods, service_ms, load, most) in cases {
        let outcome = go(&pool(pods, load, 1000, service_ms));
        assert_eq!(wrong(&outcome), None);
        println!("{pods} pods, service {service_ms} ms, load {load}: {}", cost(&outcome));
        let exchanges = outcome.exchanges_per_1000();
        assert!(exchanges <= most, "{pods} pods, load {load}: {exchanges} exchanges per 1,000 requests");
    }
}

#[test]
fn a_freed_unit_soon_runs_for_a_waiter_elsewhere() {
    // A pace and two round trips of 0.5 ms, three paces and four. Once more with a tenth of the pushes lost.
    for (load, wait_ms, push_loss) in
        [(0.9, 50, 0.0), (0.9, 50, 0.1), (0.9, 10, 0.0), (0.9, 10, 0.1), (0.95, 1000, 0.0), (0.95, 1000, 0.1)]
    {
        let mut setup = pool(10, load, wait_ms, 100);
        setup.network.push_loss = push_loss;
        let pace_us = setup.timing.pace_us;
        let outcome = go(&setup);
        let (half, most) = (outcome.handover.quantile_us(0.5), outcome.handover.quantile_us(0.99));
        println!("load {load}, wait {wait_ms} ms, pushes lost {push_loss}: median {half} us, p99 {most} us");
        assert!(half <= pace_us + 1_000 && most <= 3 * pace_us + 2_000, "median {half}, p99 {most} us");
    }
}

#[test]
fn limits_hold_across_gates() {
    for load in [0.8, 1.2] {
        let mut setup = pool(10, load, 50, 100);
        setup.arrivals = 50_000;
        limit(&mut setup.policy);
        let outcome = go(&setup);
        assert_eq!(wrong(&outcome), None);
        let (offered, refused) = outcome.by_api[1];
        assert!(refused * 1000 <= offered, "the guaranteed api was refused {refused} times of {offered}");
        assert!(outcome.by_api[2].1 > 0, "its max binds the third api");
    }
}

/// One unit in a hundred is asked for by weight 3, the rest by single units, as in `claims.rs` with one gate.
#[test]
fn a_heavy_head_is_served_by_its_claim_across_gates() {
    let shares = |claims: bool| {
        let mut setup = pool_of([1, 2, 3], 10, 0.98, 1000, 100);
        setup.policy.apis.remove(1);
        setup.load = Load::of_pool(&setup.policy, 0.98, 100_000).with_rare(0.01);
        setup.rules.claims = claims;
        let outcome = go(&setup);
        assert_eq!(wrong(&outcome), None);
        let share = |api: usize| outcome.by_api[api].1 as f64 / outcome.by_api[api].0 as f64;
        (share(0), share(1))
    };
    let ((light, heavy), (_, without)) = (shares(true), shares(false));
    println!("weight 3: {:.2} % refused with claims, {:.2} % without", heavy * 100.0, without * 100.0);
    assert!(light == 0.0 && heavy == 0.0, "light {light}, heavy {heavy}");
    assert!(without > 0.03, "then the claim is what served it");
}

/// Each cost rule, switched off, costs messages or refusals.
#[test]
fn without_a_cost_rule_more_is_paid() {
    let figures = |name: &str, weights: [Units; 3], service_ms: u64| {
        let mut setup = pool_of(weights, 10, 0.9, 50, service_ms);
        if !name.is_empty() {
            *setup.rules.named(name).expect("the rule has a switch") = false;
        }
        let outcome = go(&setup);
        (outcome.share_refused(), outcome.pushes_per_1000() + outcome.exchanges_per_1000())
    };
    // Claims are for those that single units slip past.
    for (name, weights, service_ms, factor) in
        [("fragments", [1, 2, 3], 100, 1.2), ("pushes", [1, 2, 3], 100, 1.5), ("claims", [1, 2, 8], 10, 1.5)]
    {
        let ((share, _), (without, _)) =
            (figures("", weights, service_ms), figures(name, weights, service_ms));
        println!("without {name}: {:.3} % refused, {:.3} % with it", without * 100.0, share * 100.0);
        assert!(without > share * factor, "without {name} {without} are refused, with it {share}");
    }
    // A unit on its way to another gate is lost for as long as a request of 10 ms runs.
    let ((share, cost), (without, messages)) =
        (figures("", [1, 2, 3], 10), figures("own_first", [1, 2, 3], 10));
    println!(
        "without own_first: {:.3} % refused, {messages:.1} messages per 1,000 requests",
        without * 100.0
    );
    println!("with it: {:.3} %, {cost:.1}", share * 100.0);
    assert!(without > share + 0.01, "without own_first {without} are refused, with it {share}");
    assert!(messages > cost * 1.1, "without own_first {messages} messages, with it {cost}");
}
