//! Admissions per second of the core in virtual time, beside those of a bare event heap.
//!
//! `cargo run --release -p sluicegate-sim --example rate [PODS] [ARRIVALS]`
//!
//! The heap does what any simulator must do at least: it takes each arrival and its end in order of time. What the
//! core takes on top is its own. Runs alternate; the median of nine is printed, on one thread.

#![allow(clippy::print_stdout, reason = "the answer")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;
use std::time::Instant;

use sluicegate_core::policy::{ApiPolicy, Policy};
use sluicegate_sim::{Arrival, Load, replay};

const RUNS: usize = 9;

fn main() {
    let number = |at: usize| std::env::args().nth(at).and_then(|text| text.parse().ok());
    let pods = number(1).unwrap_or(10);
    let count = number(2).unwrap_or(1_000_000);
    for (load, wait_us) in [(0.8, 0), (0.8, 1_000_000), (0.95, 1_000_000), (1.1, 1_000_000)] {
        let policy = policy(pods, wait_us);
        let arrivals: Vec<Arrival> = Load::of_pool(&policy, load, 100_000).arrivals(1).take(count).collect();
        let (mut core, mut heap) = (Vec::new(), Vec::new());
        let mut admitted = 0;
        for _ in 0..RUNS {
            let begin = Instant::now();
            admitted = replay(&policy, &arrivals).expect("a good policy").admitted();
            core.push(admitted as f64 / begin.elapsed().as_secs_f64());
            let begin = Instant::now();
            black_box(bare_heap(&arrivals));
            heap.push(arrivals.len() as f64 / begin.elapsed().as_secs_f64());
        }
        let (core, heap) = (median(core), median(heap));
        println!(
            "{pods} pods, load {load}, wait {} ms: core {:.2} million admissions/s ({admitted} of {count}), \
             bare heap {:.2} million/s, ratio {:.2}",
            wait_us / 1000,
            core / 1e6,
            heap / 1e6,
            core / heap
        );
    }
}

fn policy(pods: usize, wait_us: u64) -> Policy {
    let names: Vec<String> = (0..pods).map(|pod| format!("p{pod}")).collect();
    let pods: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 20)).collect();
    let mut policy = Policy::simple(&pods, &[]);
    for weight in 1..=3 {
        policy.apis.push(ApiPolicy { wait_us, ..ApiPolicy::new(&format!("w{weight}"), weight) });
    }
    policy
}

/// Every arrival starts at once and ends; the time of the last end.
fn bare_heap(arrivals: &[Arrival]) -> u64 {
    let mut ends: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut last = 0;
    for (index, arrival) in arrivals.iter().enumerate() {
        while let Some(Reverse((end, _))) =
            ends.peek().copied().filter(|Reverse((end, _))| *end <= arrival.at_us)
        {
            last = end;
            ends.pop();
        }
        ends.push(Reverse((arrival.at_us + arrival.hold_us, index)));
    }
    while let Some(Reverse((end, _))) = ends.pop() {
        last = end;
    }
    last
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
