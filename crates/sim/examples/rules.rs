//! What goes red when rules of the shared ledger are switched off, over random pools and faults.
//!
//! `cargo run --release -p sluicegate-sim --example rules -- 1000`; further words are sets of rules to switch off together, as in
//! `numbered,stamped`, instead of each by itself; `fence=0.5` lets an old server go on for so many times to live.

use std::time::Instant;

use sluicegate_core::shared::Rules;
use sluicegate_sim::faults::Fault;
use sluicegate_sim::pool_world::{Outcome, run};
use sluicegate_sim::pools::random_setup;

/// Rules of truth, and pairs of which one covers for the other.
const SETS: [&str; 11] = [
    "none",
    "numbered",
    "stamped",
    "validity",
    "steady_clock",
    "linger",
    "drop_on_return",
    "recovery",
    "detect_rollback",
    "numbered,stamped",
    "validity,drop_on_return",
];

#[allow(clippy::print_stdout, reason = "the answer of a command")]
fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let count: u64 =
        words.first().map_or(1_000, |word| word.parse().expect("the first word is a number of seeds"));
    let fence = words.iter().find_map(|word| word.strip_prefix("fence="));
    let fence: Option<f64> = fence.map(|part| part.parse().expect("a part of the time to live"));
    let sets: Vec<&str> =
        words.iter().skip(1).map(String::as_str).filter(|word| !word.contains('=')).collect();
    for set in if sets.is_empty() { SETS.to_vec() } else { sets } {
        let began = Instant::now();
        let mut red = [0; 5];
        let (mut all, mut first) = (0, Vec::new());
        for seed in 0..count {
            let mut setup = random_setup(seed, 5);
            setup.rules = rules_without(set);
            for (_, fault) in &mut setup.faults {
                if let (Fault::Split { fence_us, .. }, Some(fence)) = (fault, fence) {
                    *fence_us = (setup.timing.ttl_us as f64 * fence) as u64;
                }
            }
            let outcome = run(&setup).expect("random pools are sound");
            let found = wrongs(&outcome);
            all += u64::from(found.contains(&true));
            if found.contains(&true) && first.len() < 8 {
                first.push(seed);
            }
            red.iter_mut().zip(found).for_each(|(sum, is)| *sum += u64::from(is));
        }
        let [over, unlawful, leaked, forgotten, books] = red;
        println!(
            "{set:>24}: red in {all} of {count}: pod exceeded {over}, limit broken {unlawful}, leaked {leaked}, \
             forgotten {forgotten}, books {books}; first {first:?}; {:.1} s",
            began.elapsed().as_secs_f64()
        );
    }
}

fn wrongs(outcome: &Outcome) -> [bool; 5] {
    [
        outcome.over > 0,
        outcome.unlawful > 0,
        outcome.leaked > 0,
        outcome.forgotten > 0,
        !outcome.faults_in_books.is_empty(),
    ]
}

fn rules_without(names: &str) -> Rules {
    let mut rules = Rules::default();
    for name in names.split(',').filter(|name| *name != "none") {
        *rules.named(name).unwrap_or_else(|| panic!("no rule is named {name}")) = false;
    }
    rules
}
