//! DESIGN section 1's table, and the long run without a refusal.

use std::time::Instant;

use sluicegate_core::policy::{Placement, Policy};
use sluicegate_sim::kaufman_roberts::{Class, blocking_of_all};
use sluicegate_sim::{
    Arrival, Balance, Load, Service, WaitOrder, each_pod_alone, replay, replay_best_fit,
    replay_best_fit_waiting, simulate,
};

use crate::world::{MEAN_US, PODS, long, pool, seeded, within};

const WEIGHTS: [u32; 3] = [1, 2, 3];

fn arrivals(policy: &Policy, load: f64, seed: u64, count: usize) -> Vec<Arrival> {
    Load::of_pool(policy, load, MEAN_US).arrivals(seed).take(count).collect()
}

/// `wait: 0`: the core against a replay of the same arrivals that shares no code with it.
#[test]
fn without_waiting_the_core_is_as_good_as_best_fit() {
    seeded("table::without_waiting_the_core_is_as_good_as_best_fit", |seed| {
        for load in [0.8, 0.9, 1.0, 1.1] {
            let mut policy = pool(0, &WEIGHTS);
            let arrivals = arrivals(&policy, load, seed, long(400_000));
            let best = replay_best_fit(&arrivals, &PODS).share_refused();
            let mut shares = Vec::new();
            for placement in [Placement::Pack, Placement::Auto, Placement::Spread] {
                policy.admission.placement = placement;
                let report = replay(&policy, &arrivals).unwrap();
                assert!(
                    report.peaks.iter().zip(PODS).all(|(peak, pod)| *peak <= pod),
                    "a pod was overfilled"
                );
                shares.push(report.share_refused());
            }
            println!(
                "load {load}: best fit {:.3} %, core pack {:.3}, auto {:.3}, spread {:.3}",
                best * 100.0,
                shares[0] * 100.0,
                shares[1] * 100.0,
                shares[2] * 100.0
            );
            let offered = arrivals.len() as u64;
            assert!(within(shares[0], best, 0.15, offered), "pack {} best {best}", shares[0]);
            assert!(within(shares[1], best, 0.25, offered), "auto {} best {best}", shares[1]);
            assert!(load > 1.0 || shares[1] < shares[2], "auto keeps more room for the heavy than spread");
        }
    });
}

/// What users have today, with the figures of the design.
#[test]
fn pods_alone_refuse_as_the_design_says() {
    seeded("table::pods_alone_refuse_as_the_design_says", |seed| {
        let design = [(0.8, 0.1297, 0.085), (0.9, 0.1697, 0.126), (1.0, 0.212, 0.168), (1.1, 0.249, 0.211)];
        for (load, random, robin) in design {
            let arrivals = arrivals(&pool(0, &WEIGHTS), load, seed, long(400_000));
            let share = |balance| each_pod_alone(&arrivals, &PODS, balance, seed).share_refused();
            let (by_chance, in_turn) = (share(Balance::Random), share(Balance::RoundRobin));
            let least = share(Balance::LeastConnections);
            println!(
                "load {load}: each pod alone {:.2} %, in turn {:.2} %, fewest running {:.2} %",
                by_chance * 100.0,
                in_turn * 100.0,
                least * 100.0
            );
            let near = |share: f64, figure: f64| (share / figure - 1.0).abs() < 0.06;
            assert!(near(by_chance, random) && near(in_turn, robin));
            assert!(least < in_turn);
        }
    });
}

/// One pod of 200 units has an exact answer.
#[test]
fn one_big_pod_is_kaufman_and_roberts() {
    seeded("table::one_big_pod_is_kaufman_and_roberts", |seed| {
        for load in [0.8, 0.9, 1.0] {
            let mut policy = pool(0, &WEIGHTS);
            policy.pods.truncate(1);
            policy.pods[0].capacity = 200;
            let erlangs = load * 200.0 / 6.0;
            let exact = blocking_of_all(200, &WEIGHTS.map(|weight| Class { weight, erlangs }));
            for service in
                [Service::Exponential(MEAN_US), Service::LogNormal { mean_us: MEAN_US, sigma: 1.0 }]
            {
                let load = Load::of_pool(&policy, load, MEAN_US).with_service(service);
                let report = simulate(&policy, &load, seed, long(2_000_000)).unwrap();
                let share = report.share_refused();
                println!("{service:?}: one big pod {:.3} %, exact {:.3} %", share * 100.0, exact * 100.0);
                let refused = report.refused().max(1) as f64;
                // Refusals come in bursts: their deviation is about three times that of a coin.
                let sigma = 3.0 / refused.sqrt();
                assert!((share / exact - 1.0).abs() < 0.05 + 3.0 * sigma, "{share} {exact}");
            }
        }
    });
}

/// The bar: 10^6 arrivals, wait 1 s, load 0.95, none refused.
#[test]
fn a_million_arrivals_at_load_095_and_none_refused() {
    seeded("table::a_million_arrivals_at_load_095_and_none_refused", |seed| {
        let policy = pool(1_000_000, &WEIGHTS);
        let load = Load::of_pool(&policy, 0.95, MEAN_US);
        let begin = Instant::now();
        let report = simulate(&policy, &load, seed, long(1_000_000)).unwrap();
        let took = begin.elapsed().as_secs_f64();
        println!("{report}");
        println!("{:.0} admissions per second of the core and its world", report.admitted() as f64 / took);
        assert_eq!(report.refused(), 0);
        assert_eq!(report.admitted(), report.offered());
    });
}

/// With a wait: beside the best-fit model with the same wait and order, which has no claims.
#[test]
fn a_short_wait_is_worth_fifty_times() {
    seeded("table::a_short_wait_is_worth_fifty_times", |seed| {
        for (load, wait_us) in
            [(0.8, 50_000), (0.9, 50_000), (1.0, 50_000), (0.95, 1_000_000), (1.1, 1_000_000)]
        {
            let policy = pool(wait_us, &WEIGHTS);
            let arrivals = arrivals(&policy, load, seed, long(400_000));
            let report = replay(&policy, &arrivals).unwrap();
            let model = replay_best_fit_waiting(&arrivals, &PODS, wait_us, WaitOrder::LightFirst);
            let (share, reference) = (report.share_refused(), model.share_refused());
            println!(
                "load {load}, wait {} ms: core {:.4} %, model {:.4} %",
                wait_us / 1000,
                share * 100.0,
                reference * 100.0
            );
            let without = replay_best_fit(&arrivals, &PODS).share_refused();
            assert!(within(share, reference, 0.25, report.offered()), "{share} {reference}");
            let part = if load < 1.0 { 3.0 } else { 2.0 };
            assert!(load > 1.0 || share < without / part, "waiting is worth it: {share} {without}");
        }
    });
}

/// The seed is the run.
#[test]
fn the_same_seed_gives_the_same_report() {
    seeded("table::the_same_seed_gives_the_same_report", |seed| {
        let policy = pool(1_000_000, &WEIGHTS);
        let load = Load::of_pool(&policy, 1.1, MEAN_US);
        let run = |seed| simulate(&policy, &load, seed, 20_000).unwrap();
        assert_eq!(run(seed), run(seed));
        assert_ne!(run(seed), run(seed + 1));
    });
}
