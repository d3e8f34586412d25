//! What all tests share: the pool of DESIGN section 1, seeds, lengths.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use sluicegate_core::policy::Policy;
use sluicegate_sim::Load;

/// Mean service time, microseconds.
pub(crate) const MEAN_US: u64 = 100_000;

/// Ten pods of 20 units.
pub(crate) const PODS: [u32; 10] = [20; 10];

/// Ten pods of 20 units and apis of these weights that wait `wait_us`.
pub(crate) fn pool(wait_us: u64, weights: &[u32]) -> Policy {
    let pods: Vec<String> = (0..PODS.len()).map(|index| format!("pod{index}")).collect();
    let pods: Vec<(&str, u32)> = pods.iter().map(String::as_str).zip(PODS).collect();
    let apis: Vec<String> =
        weights.iter().enumerate().map(|(at, weight)| format!("api{at}x{weight}")).collect();
    let apis: Vec<(&str, u32)> = apis.iter().map(String::as_str).zip(weights.iter().copied()).collect();
    let mut policy = Policy::simple(&pods, &apis);
    policy.apis.iter_mut().for_each(|api| api.wait_us = wait_us);
    policy
}

/// Apis in equal units instead of equal Erlangs: all ask for the same part of the pool.
pub(crate) fn equal_units(policy: &Policy, load: f64) -> Load {
    let mut made = Load::of_pool(policy, load, MEAN_US);
    let units: f64 = made.apis.iter().map(|api| api.per_s * f64::from(api.weight)).sum();
    let each = units / made.apis.len() as f64;
    made.apis.iter_mut().for_each(|api| api.per_s = each / f64::from(api.weight));
    made
}

/// A length for the build and the patience at hand.
pub(crate) fn long(arrivals: usize) -> usize {
    let full = std::env::var("SLUICEGATE_FULL").is_ok_and(|value| value == "1");
    match (full, cfg!(debug_assertions)) {
        (true, _) => arrivals * 10,
        (false, true) => arrivals / 10,
        (false, false) => arrivals,
    }
}

/// Runs `test` with the seed at hand; a failure prints the command that replays it.
pub(crate) fn seeded(name: &str, test: impl FnOnce(u64)) {
    let given = std::env::var("SLUICEGATE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or(1);
    if let Err(cause) = catch_unwind(AssertUnwindSafe(|| test(seed))) {
        eprintln!(
            "replay: SLUICEGATE_SEED={seed} cargo test --profile test-release -p sluicegate-sim --test it \
             {name} -- --exact --nocapture"
        );
        resume_unwind(cause);
    }
}

/// Whether `share` of `offered` lies within `part` of `reference`, three deviations of the counts aside.
pub(crate) fn within(share: f64, reference: f64, part: f64, offered: u64) -> bool {
    let sigma = (reference * (1.0 - reference) / offered as f64).sqrt();
    share <= reference * (1.0 + part) + 3.0 * sigma
}
