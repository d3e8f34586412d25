//! The planner against theory, against itself, and against bad input.
//!
//! Lengths are for profile `test-release`; an unoptimised build runs a tenth.
//! `SLUICEGATE_SEED=N` runs with another seed.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and says what it saw"
)]

mod advice;
mod report;
mod theory;
mod traces;

use sluicegate_config::Config;
use sluicegate_plan::{Options, Plan, Row, Silent, Traffic, Wanted, plan};

/// A configuration of `pods` pods of `capacity` units.
pub(crate) fn pool(pods: usize, capacity: u32, rest: &str) -> Config {
    let pod =
        |n| format!("  - {{name: p{n}, url: \"http://127.0.0.1:{}\", capacity: {capacity}}}\n", 9000 + n);
    let pods: String = (0..pods).map(pod).collect();
    parsed(&format!("pool: shop\npods:\n{pods}{rest}\n"))
}

pub(crate) fn parsed(text: &str) -> Config {
    sluicegate_config::parse("shop.yaml", text, &|_| None).unwrap().config
}

/// Apis of weights 1, 2 and 3.
pub(crate) const APIS: &str = "apis:\n  - {name: quote, match: \"GET /quotes/*\"}\n  - {name: order, match: \"POST \
                               /orders\", weight: 2}\n  - {name: report, match: \"GET /reports/**\", weight: 3}\n";

/// A length for the build at hand.
pub(crate) fn long(arrivals: usize) -> usize {
    if cfg!(debug_assertions) { arrivals / 10 } else { arrivals }
}

pub(crate) fn at_load(config: &Config, load: f64, arrivals: usize) -> Traffic {
    let wanted = Wanted { load: Some(load), arrivals: Some(arrivals), seed: seed(), ..Wanted::default() };
    Traffic::made(&config.policy, &wanted).unwrap()
}

/// `SLUICEGATE_SEED=N` runs with another seed.
pub(crate) fn seed() -> u64 {
    std::env::var("SLUICEGATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// Only these scenarios.
pub(crate) fn only(config: &Config, traffic: &Traffic, keys: &[&str]) -> Plan {
    let only = keys.iter().map(|key| (*key).to_owned()).collect();
    plan(config, traffic, None, &Options { only, ..Options::default() }, &Silent).unwrap()
}

/// One scenario.
pub(crate) fn one(config: &Config, traffic: &Traffic, key: &str) -> Row {
    only(config, traffic, &[key]).row(key).unwrap().clone()
}
