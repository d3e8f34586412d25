//! Schedules of faults over random pools, judged at the pods. `SLUICEGATE_FULL=1`: ten times as many.

#![allow(clippy::print_stdout, reason = "a person reads the figures with --nocapture")]

use std::collections::BTreeMap;

use sluicegate_sim::faults::Fault;
use sluicegate_sim::pool_world::STATES;
use sluicegate_sim::pools::random_setup;

use crate::shared_pool::{go, is_full, wrong};

/// What replays one schedule.
const AGAIN: &str =
    "cargo test --profile test-release -p sluicegate-sim --test it one_seed_of_faults -- --nocapture";

/// Faults that a schedule has at least.
const FAULTS: usize = 5;

/// What no fault can meet, and why.
const IMPOSSIBLE: [(&str, &str, &str); 0] = [];

#[test]
fn no_fault_exceeds_a_pod_or_leaks() {
    let seeds = if is_full() { 0..100_000 } else { 0..10_000 };
    let mut met: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let (mut events, mut faults, mut short) = (0, 0, 0);
    for seed in seeds.clone() {
        let setup = random_setup(seed, FAULTS);
        let outcome = go(&setup);
        if let Some(wrong) = wrong(&outcome) {
            panic!("seed {seed}: {wrong}; again: SLUICEGATE_SEED={seed} {AGAIN}");
        }
        let struck = outcome.faults.values().sum::<u64>();
        short += u64::from(outcome.events < 500 || struck < 3);
        (events, faults) = (events + outcome.events, faults + struck);
        outcome.met.iter().for_each(|(cell, count)| *met.entry(*cell).or_default() += count);
    }
    println!("{seeds:?}: {events} events, {faults} faults; {short} runs below 500 events or 3 faults");
    for fault in Fault::NAMES {
        let row: Vec<String> = STATES.iter().map(|state| cell(&met, fault, state).to_string()).collect();
        println!("{fault:>8} {}", row.join(" "));
    }
    assert_eq!(short, 0, "each schedule has 500 events and 3 faults at least");
    let cells = Fault::NAMES.iter().flat_map(|fault| STATES.map(|state| (*fault, state)));
    let empty: Vec<(&str, &str)> = cells.filter(|(fault, state)| cell(&met, fault, state) == 0).collect();
    let impossible = IMPOSSIBLE.map(|(fault, state, _)| (fault, state));
    assert_eq!(empty, impossible, "what no fault met");
}

fn cell(met: &BTreeMap<(&str, &str), u64>, fault: &str, state: &str) -> u64 {
    met.get(&(fault, state)).copied().unwrap_or(0)
}

/// Replays one schedule: `SLUICEGATE_SEED=17`.
#[test]
fn one_seed_of_faults() {
    let seed = std::env::var("SLUICEGATE_SEED").map_or(0, |seed| seed.parse().expect("a seed is a number"));
    let setup = random_setup(seed, FAULTS);
    let outcome = go(&setup);
    println!("{:#?}\n{:?}\n{:?}\n{:?}", setup.policy, setup.timing, setup.network, setup.faults);
    println!("{:?}\n{:?}", outcome.ledger, outcome.gates);
    assert_eq!(wrong(&outcome), None, "seed {seed}");
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
