//! Many gates over one ledger, in virtual time: 429 share and cost.
//!
//! `cargo run --release -p sluicegate-sim --example shared_pool -- gates=4 pods=10 load=0.9 wait_ms=50 service_ms=100`
//!
//! Other words: `arrivals=`, `seed=`, `pace_us=`, `network=rough`, `faults=N`, `ttl_ms=`, `hold_max_ms=`, `units=`,
//! `off=RULE[,RULE]`, `weights=1,2,3`, `rare=0.01` (the last weight's share of the units),
//! `limits=1` (the second api has a guarantee and the reserve, the third a `max`).

use std::collections::BTreeMap;

use sluicegate_core::member::OnLoss;
use sluicegate_core::policy::{Amount, ApiPolicy, Policy};
use sluicegate_core::shared::{Rules, Timing};
use sluicegate_sim::faults::schedule;
use sluicegate_sim::load::Load;
use sluicegate_sim::network::Network;
use sluicegate_sim::pool_world::{Outcome, Setup, run};

/// The words of the command line.
struct Words(BTreeMap<String, String>);

impl Words {
    fn number(&self, key: &str, default: f64) -> f64 {
        self.0.get(key).map_or(default, |value| value.parse().expect("a number stands after the ="))
    }

    fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }
}

fn main() {
    let split = |word: String| word.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    let words = Words(std::env::args().skip(1).filter_map(split).collect());
    let outcome = run(&setup(&words)).expect("the policy is sound");
    show(&outcome);
}

fn setup(words: &Words) -> Setup {
    let wait_us = (words.number("wait_ms", 50.0) * 1000.0) as u64;
    let policy = policy(words, wait_us);
    let mut timing = Timing::of_wait(wait_us);
    timing.pace_us = words.number("pace_us", timing.pace_us as f64) as u64;
    timing.ttl_us = (words.number("ttl_ms", 5000.0) * 1000.0) as u64;
    timing.hold_max_us = (words.number("hold_max_ms", 60_000.0) * 1000.0) as u64;
    let service_us = (words.number("service_ms", 100.0) * 1000.0) as u64;
    let load = Load::of_pool(&policy, words.number("load", 0.9), service_us);
    let load = if words.text("rare").is_empty() { load } else { load.with_rare(words.number("rare", 0.01)) };
    let arrivals = words.number("arrivals", 200_000.0) as usize;
    let rate: f64 = load.apis.iter().map(|api| api.per_s).sum();
    let (seed, gates) = (words.number("seed", 1.0) as u64, words.number("gates", 4.0) as usize);
    let span_us = (arrivals as f64 / rate * 1_000_000.0) as u64;
    let faults = schedule(seed, words.number("faults", 0.0) as usize, span_us, gates, timing.ttl_us);
    let rules = rules_without(words.text("off"));
    let network = if words.text("network") == "rough" { Network::rough() } else { Network::quiet() };
    let on_loss = OnLoss::Refuse;
    Setup { policy, gates, timing, rules, on_loss, founded: true, network, load, arrivals, faults, seed }
}

fn policy(words: &Words, wait_us: u64) -> Policy {
    let pods: Vec<String> = (0..words.number("pods", 10.0) as usize).map(|pod| format!("p{pod}")).collect();
    let units = words.number("units", 20.0) as u32;
    let pods: Vec<(&str, u32)> = pods.iter().map(|name| (name.as_str(), units)).collect();
    let mut policy = Policy::simple(&pods, &[]);
    let weights = Some(words.text("weights")).filter(|text| !text.is_empty()).unwrap_or("1,2,3");
    for weight in weights.split(',') {
        let api = ApiPolicy::new(&format!("w{weight}"), weight.parse().expect("weights are numbers"));
        policy.apis.push(ApiPolicy { wait_us, ..api });
    }
    if !words.text("limits").is_empty() {
        policy.apis[1].min = Amount::Share(20_000);
        policy.apis[1].protected = true;
        policy.apis[2].max = Some(Amount::Share(30_000));
        policy.admission.reserve = Amount::Share(5_000);
    }
    policy
}

#[allow(clippy::print_stdout, reason = "the answer of a command")]
fn show(outcome: &Outcome) {
    println!(
        "refused {:.4}%; per 1,000 requests: {:.1} exchanges, {:.1} pushes, {:.1} balances written",
        outcome.share_refused() * 100.0,
        outcome.exchanges_per_1000(),
        outcome.pushes_per_1000(),
        outcome.touched_per_1000(),
    );
    println!(
        "handover p50 {} p99 {} max {} us; mean wait {:.2} ms; by api (offered, refused) {:?}",
        outcome.handover.quantile_us(0.5),
        outcome.handover.quantile_us(0.99),
        outcome.handover.quantile_us(1.0),
        outcome.waits.mean_us() / 1000.0,
        outcome.by_api,
    );
    println!("{:?}\n{:?}\n{:?}", outcome.ledger, outcome.gates, outcome.faults);
    println!(
        "over {} unlawful {} leaked {} forgotten {}",
        outcome.over, outcome.unlawful, outcome.leaked, outcome.forgotten
    );
    for fault in outcome.faults_in_books.iter().take(5) {
        println!("books: {fault}");
    }
}

/// All rules but those named.
fn rules_without(names: &str) -> Rules {
    let mut rules = Rules::default();
    for name in names.split(',').filter(|name| !name.is_empty()) {
        *rules.named(name).unwrap_or_else(|| panic!("no rule is named {name}")) = false;
    }
    rules
}
