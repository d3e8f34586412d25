//! Schedules of faults over random pools, judged at the pods. `SLUICEGATE_FULL=1`: ten times as many.

#![allow(clippy::print_stdout, reason = "a person reads the figures with --nocapture")]

use std::collections::BTreeMap;

use sluicegate_core::member::OnLoss;
use sluicegate_sim::faults::Fault;
use sluicegate_sim::network::Network;
use sluicegate_sim::pool_world::{Outcome, STATES, Setup};
use sluicegate_sim::pools::random_setup;

use crate::shared_pool::{go, is_full, wrong};

/// What replays one schedule.
const AGAIN: &str =
    "cargo test --profile test-release -p sluicegate-sim --test it one_seed_of_faults -- --nocapture";

/// Faults that a schedule has at least.
const FAULTS: usize = 5;

#[test]
fn no_fault_exceeds_a_pod_or_leaks() {
    // A few are too short to count.
    let (seeds, wanted) = if is_full() { (0..100_500, 100_000) } else { (0..10_050, 10_000) };
    let mut met: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let (mut events, mut faults, mut long, mut strangers) = (0, 0, 0, 0);
    let mut red = Vec::new();
    for seed in seeds.clone() {
        let setup = random_setup(seed, FAULTS);
        let outcome = go(&setup);
        if let Some(wrong) = wrong(&outcome) {
            println!("seed {seed}: {wrong}; again: SLUICEGATE_SEED={seed} {AGAIN}");
            red.push(seed);
        }
        let struck = outcome.faults.values().sum::<u64>();
        strangers += u64::from(outcome.strangers > 0);
        long += u64::from(outcome.events >= 500 && struck >= 3);
        (events, faults) = (events + outcome.events, faults + struck);
        outcome.met.iter().for_each(|(cell, count)| *met.entry(*cell).or_default() += count);
    }
    println!("{seeds:?}: {events} events, {faults} faults; {long} runs of 500 events and 3 faults at least");
    println!(
        "stated limit, a loss of which only new gates tell: in {strangers} runs a pod or a limit was exceeded"
    );
    for fault in Fault::NAMES {
        let row: Vec<String> = STATES.iter().map(|state| cell(&met, fault, state).to_string()).collect();
        println!("{fault:>8} {}", row.join(" "));
    }
    assert!(
        red.is_empty(),
        "{} of {seeds:?} red: {red:?}; again: SLUICEGATE_SEED={} {AGAIN}",
        red.len(),
        red[0]
    );
    assert!(strangers * 5_000 <= wanted, "the stated limit was met in {strangers} runs");
    assert!(long >= wanted, "only {long} schedules have 500 events and 3 faults");
    let cells = Fault::NAMES.iter().flat_map(|fault| STATES.map(|state| (*fault, state)));
    let empty: Vec<(&str, &str)> = cells.filter(|(fault, state)| cell(&met, fault, state) == 0).collect();
    assert!(empty.is_empty(), "never met: {empty:?}");
}

fn cell(met: &BTreeMap<(&str, &str), u64>, fault: &str, state: &str) -> u64 {
    met.get(&(fault, state)).copied().unwrap_or(0)
}

/// Replays one schedule: `SLUICEGATE_SEED=17`, of those with shares with `SLUICEGATE_SHARES=1`.
#[test]
fn one_seed_of_faults() {
    let seed = std::env::var("SLUICEGATE_SEED").map_or(0, |seed| seed.parse().expect("a seed is a number"));
    let shares = std::env::var_os("SLUICEGATE_SHARES").is_some();
    let setup = if shares { setup_of_shares(seed) } else { random_setup(seed, FAULTS) };
    let outcome = go(&setup);
    println!("{:#?}\n{:?}\n{:?}\n{:?}", setup.policy, setup.timing, setup.network, setup.faults);
    println!("{:?}\n{:?}", outcome.ledger, outcome.gates);
    assert_eq!(wrong(&outcome), None, "seed {seed}");
}

fn setup_of_shares(seed: u64) -> Setup {
    let mut setup = random_setup(seed, FAULTS);
    setup.on_loss = OnLoss::Share;
    setup.founded = seed.is_multiple_of(2);
    setup.network = Network::quiet();
    setup.faults.retain(|(_, fault)| matches!(fault, Fault::Flush | Fault::Evict | Fault::Reload { .. }));
    setup
}

/// With `share` gates admit by themselves while a ledger without a past or without a memory lends nothing. What they hold of
/// their shares is written down first, so no pod and no `max` is exceeded, whoever comes first and however many come.
#[test]
fn a_share_exceeds_nothing_while_every_gate_hears_the_ledger() {
    let seeds = if is_full() { 20_000 } else { 2_000 };
    let (mut emergency, mut losses, mut red) = (0, 0, Vec::new());
    for seed in 0..seeds {
        let outcome = go(&setup_of_shares(seed));
        let Outcome { over, leaked, forgotten, strangers, faults_in_books, .. } = &outcome;
        if (*over, *leaked, *forgotten, *strangers) != (0, 0, 0, 0) || !faults_in_books.is_empty() {
            println!("seed {seed}: over {over}, leaked {leaked}, forgotten {forgotten}, {faults_in_books:?}");
            red.push(seed);
        }
        emergency += outcome.gates.emergency;
        losses += outcome.ledger.losses;
    }
    println!("{losses} losses, {emergency} leases by share");
    assert!(
        red.is_empty(),
        "{} red: {red:?}; again: SLUICEGATE_SHARES=1 SLUICEGATE_SEED={} {AGAIN}",
        red.len(),
        red[0]
    );
    assert!(emergency > 10 * seeds && losses > seeds / 2, "{losses} losses, {emergency} leases by share");
}

/// Each truth rule, switched off, is seen by the judge. With it the same seeds are clean, as the test above says.
#[test]
fn without_a_truth_rule_the_judge_sees_red() {
    for name in ["numbered", "validity", "steady_clock", "linger", "recovery", "detect_rollback"] {
        let red = |seed: &u64| {
            let mut setup = random_setup(*seed, FAULTS);
            *setup.rules.named(name).expect("the rule has a switch") = false;
            wrong(&go(&setup)).is_some()
        };
        let seed = (0..400).find(red);
        println!("without {name}: red at seed {seed:?}");
        assert!(seed.is_some(), "nothing shows what `{name}` is for");
    }
}
