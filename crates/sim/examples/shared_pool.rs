//! Many gates over one ledger, in virtual time: 429 share and cost.
//!
//! `cargo run --release -p sluicegate-sim --example shared_pool -- gates=4 pods=10 load=0.9 wait_ms=50 service_ms=100`
//! Other words: `arrivals=`, `seed=`, `pace_us=`, `network=rough`, `faults=N`, `ttl_ms=`, `off=RULE[,RULE]`, `weights=1,2,3`,
//! `limits=1` (the second api has a guarantee and the reserve, the third a `max`).

use std::collections::BTreeMap;

use sluicegate_core::policy::{Amount, ApiPolicy, Policy};
use sluicegate_core::shared::{Rules, Timing};
use sluicegate_sim::faults::schedule;
use sluicegate_sim::load::Load;
use sluicegate_sim::network::Network;
use sluicegate_sim::pool_world::{Setup, run};

#[allow(clippy::print_stdout, reason = "the answer of a command")]
fn main() {
    let words: BTreeMap<String, String> = std::env::args()
        .skip(1)
        .filter_map(|word| word.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())))
        .collect();
    let number = |key: &str, default: f64| -> f64 {
        words.get(key).map_or(default, |value| value.parse().expect("a number stands after the ="))
    };
    let pods: Vec<String> = (0..number("pods", 10.0) as usize).map(|pod| format!("p{pod}")).collect();
    let units = number("units", 20.0) as u32;
    let pods: Vec<(&str, u32)> = pods.iter().map(|name| (name.as_str(), units)).collect();
    let mut policy = Policy::simple(&pods, &[]);
    let weights = words.get("weights").map_or("1,2,3", String::as_str);
    let wait_us = (number("wait_ms", 50.0) * 1000.0) as u64;
    for weight in weights.split(',') {
        let api = ApiPolicy::new(&format!("w{weight}"), weight.parse().expect("weights are numbers"));
        policy.apis.push(ApiPolicy { wait_us, ..api });
    }
    if words.contains_key("limits") {
        policy.apis[1].min = Amount::Share(20_000);
        policy.apis[1].protected = true;
        policy.apis[2].max = Some(Amount::Share(30_000));
        policy.admission.reserve = Amount::Share(5_000);
    }
    let mut timing = Timing::of_wait(wait_us);
    timing.pace_us = number("pace_us", timing.pace_us as f64) as u64;
    timing.ttl_us = (number("ttl_ms", 5000.0) * 1000.0) as u64;
    timing.hold_max_us = (number("hold_max_ms", 60_000.0) * 1000.0) as u64;
    let rough = words.get("network").is_some_and(|name| name == "rough");
    let load = Load::of_pool(&policy, number("load", 0.9), (number("service_ms", 100.0) * 1000.0) as u64);
    let arrivals = number("arrivals", 200_000.0) as usize;
    let rate: f64 = load.apis.iter().map(|api| api.per_s).sum();
    let (seed, gates) = (number("seed", 1.0) as u64, number("gates", 4.0) as usize);
    let span_us = (arrivals as f64 / rate * 1_000_000.0) as u64;
    let faults = schedule(seed, number("faults", 0.0) as usize, span_us, gates, timing.ttl_us);
    let rules = rules_without(words.get("off").map_or("", String::as_str));
    let network = if rough { Network::rough() } else { Network::quiet() };
    let setup = Setup { policy, gates, timing, rules, network, load, arrivals, faults, seed };
    let outcome = run(&setup).expect("the policy is sound");
    println!(
        "refused {:.4}%  exchanges {:.1} pushes {:.1} touched {:.1} per 1000  handover p50 {} p99 {} max {} us  unlawful {} over {} leaked {} forgotten {}",
        outcome.share_refused() * 100.0,
        outcome.exchanges_per_1000(),
        outcome.pushes_per_1000(),
        outcome.touched_per_1000(),
        outcome.handover.quantile_us(0.5),
        outcome.handover.quantile_us(0.99),
        outcome.handover.quantile_us(1.0),
        outcome.unlawful,
        outcome.over,
        outcome.leaked,
        outcome.forgotten,
    );
    println!(
        "by api (offered, refused): {:?}; mean wait {:.2} ms",
        outcome.by_api,
        outcome.waits.mean_us() / 1000.0
    );
    println!("{:?}\n{:?}\n{:?}", outcome.ledger, outcome.gates, outcome.faults);
    for fault in outcome.faults_in_books.iter().take(5) {
        println!("BOOKS: {fault}");
    }
}

/// All rules but those named.
fn rules_without(names: &str) -> Rules {
    let mut rules = Rules::default();
    for name in names.split(',').filter(|name| !name.is_empty()) {
        let rule = match name {
            "own_first" => &mut rules.own_first,
            "recalls" => &mut rules.recalls,
            "pushes" => &mut rules.pushes,
            "fragments" => &mut rules.fragments,
            "numbered" => &mut rules.numbered,
            "stamped" => &mut rules.stamped,
            "validity" => &mut rules.validity,
            "steady_clock" => &mut rules.steady_clock,
            "linger" => &mut rules.linger,
            "drop_on_return" => &mut rules.drop_on_return,
            "recovery" => &mut rules.recovery,
            "detect_rollback" => &mut rules.detect_rollback,
            "claims" => &mut rules.claims,
            other => panic!("no rule is named {other}"),
        };
        *rule = false;
    }
    rules
}
