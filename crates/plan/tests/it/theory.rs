//! What is known exactly: Kaufman-Roberts, Erlang B and C, the fairness bound of start-time fair queueing.

use sluicegate_config::Config;
use sluicegate_core::policy::{Order, Policy};
use sluicegate_core::refusal::Refusal;
use sluicegate_plan::{ServiceOf, Traffic, Wanted};
use sluicegate_sim::{Arrival, Load, Service, Watch, World, erlang};

use crate::{APIS, at_load, long, one, only, pool, seed};

/// Weights 1, 2 and 3 in equal Erlangs on one pod of 200 units, nobody waits: within 5 %, whatever the service times.
/// Refusals come in bursts: a single run of 10^6 arrivals at load 0.8 scatters by 3.4 % (40 seeds, mean -0.6 %), so a plan
/// makes more runs where one is vague.
#[test]
fn one_big_pod_is_kaufman_and_roberts() {
    let config = pool(1, 200, APIS);
    for load in [0.8, 0.9, 1.0, 1.1, 1.2] {
        for service in [Service::Exponential(100_000), Service::LogNormal { mean_us: 100_000, sigma: 1.0 }] {
            let services = vec![ServiceOf { api: None, service }];
            let arrivals = Some(long(1_000_000));
            let wanted = Wanted { load: Some(load), services, arrivals, seed: seed(), ..Wanted::default() };
            let (off, error) = against_kaufman_roberts(&config, &wanted);
            println!("load {load}, {service:?}: off by {off:+.4}, said ±{error:.4}");
            // Runs of a tenth scatter three times as much.
            assert!(off.abs() < if cfg!(debug_assertions) { 0.15 } else { 0.05 }, "load {load}: {off}");
            // The error that is told is that of 95 in 100 plans.
            assert!(off.abs() < 2.5 * error, "load {load}: {off} {error}");
        }
    }
}

/// How far a run is off, relatively, and how far it says that it may be.
fn against_kaufman_roberts(config: &Config, wanted: &Wanted) -> (f64, f64) {
    let traffic = Traffic::made(&config.policy, wanted).unwrap();
    let plan = only(config, &traffic, &["one_big_pod", "pooled_no_wait"]);
    let (exact, run) = (plan.row("one_big_pod").unwrap(), plan.row("pooled_no_wait").unwrap());
    let error = run.refused_share_error.unwrap();
    for (api, exact) in run.apis.iter().zip(&exact.apis) {
        assert!((api.refused_share - exact.refused_share).abs() < 0.05 * exact.refused_share + 4.0 * error);
    }
    (run.refused_share / exact.refused_share - 1.0, error / exact.refused_share)
}

/// One weight: it does not matter how the units are spread over pods.
#[test]
fn one_weight_is_erlang_b() {
    let config = pool(10, 5, "apis:\n  - {name: a, match: \"GET /a\"}");
    for load in [0.7, 0.9, 1.1] {
        let row = one(&config, &at_load(&config, load, long(1_000_000)), "pooled_no_wait");
        let exact = erlang::blocking(50, load * 50.0);
        println!("load {load}: {:.4} %, exact {:.4} %", row.refused_share * 100.0, exact * 100.0);
        let most = if cfg!(debug_assertions) { 0.15 } else { 0.05 };
        assert!((row.refused_share / exact - 1.0).abs() < most, "{} {exact}", row.refused_share);
    }
}

/// Each pod alone behind a random balancer is a pool of its own.
#[test]
fn pods_alone_are_kaufman_and_roberts_each() {
    let config = pool(10, 20, APIS);
    let traffic = at_load(&config, 0.9, long(1_000_000));
    let alone = one(&config, &traffic, "alone_random").refused_share;
    let single = pool(1, 20, APIS);
    let exact = one(&single, &at_load(&single, 0.9, 1_000), "one_big_pod").refused_share;
    assert!((alone / exact - 1.0).abs() < 0.03, "{alone} {exact}");
}

/// M/M/c: nobody is refused, and the mean wait is that of Erlang C.
#[test]
fn waits_are_erlang_c() {
    let config =
        pool(4, 5, "apis:\n  - {name: a, match: \"GET /a\"}\nadmission: {wait: 60s, queue: 1000000}");
    for load in [0.7, 0.8, 0.9] {
        let row = one(&config, &at_load(&config, load, long(1_000_000)), "pooled");
        let exact_ms = erlang::mean_wait(20, load * 20.0, 100.0);
        let wait = row.wait.unwrap();
        println!("load {load}: mean wait {:.3} ms, exact {exact_ms:.3} ms", wait.mean_ms);
        let most = if cfg!(debug_assertions) { 0.25 } else { 0.06 };
        assert!((wait.mean_ms / exact_ms - 1.0).abs() < most);
        assert_eq!(row.refused, 0);
        assert!((row.utilisation / load - 1.0).abs() < 0.02, "{}", row.utilisation);
    }
}

/// Units started per api while both have waiters.
struct Fair<'a> {
    arrivals: &'a [Arrival],
    units: [i64; 2],
    /// Least and most of the difference since both have had waiters.
    span: Option<(i64, i64)>,
    worst: i64,
    moments: u64,
}

impl Watch for Fair<'_> {
    fn after(&mut self, world: &World) {
        if world.waiting(0) == 0 || world.waiting(1) == 0 {
            self.span = None;
            return;
        }
        let apart = self.units[0] - self.units[1];
        let (least, most) = self.span.map_or((apart, apart), |(low, high)| (low.min(apart), high.max(apart)));
        self.span = Some((least, most));
        self.worst = self.worst.max(most - least);
        self.moments += 1;
    }

    fn decided(&mut self, index: usize, _: bool, outcome: Result<u64, Refusal>) {
        if outcome.is_ok() {
            let arrival = self.arrivals[index];
            self.units[arrival.api] += i64::from(arrival.weight);
        }
    }
}

/// SFQ(D), start-time fair queueing with up to D requests in service: over any time in which two keys have waiters
/// the units that they are given differ by at most (D + 1) times the sum of their largest requests.
#[test]
fn fair_keeps_the_bound_of_start_time_fair_queueing() {
    for weights in [[1, 1], [1, 3], [2, 5]] {
        let mut policy = Policy::simple(&[("a", 12)], &[("light", weights[0]), ("heavy", weights[1])]);
        policy.admission.order = Order::Fair;
        policy.admission.early = false;
        let mut load = Load::of_pool(&policy, 3.0, 100_000);
        load.apis[1].per_s = load.apis[0].per_s * f64::from(weights[0]) / f64::from(weights[1]);
        let arrivals: Vec<Arrival> = load.arrivals(1).take(long(200_000)).collect();
        let mut fair = Fair { arrivals: &arrivals, units: [0, 0], span: None, worst: 0, moments: 0 };
        World::new(&policy, 1).unwrap().run_watched(arrivals.iter().copied(), &mut fair);
        let depth = i64::from(12 / weights[0]);
        let bound = (depth + 1) * i64::from(weights[0] + weights[1]);
        println!(
            "weights {weights:?}: apart by {} units at most, bound {bound}; {:?}",
            fair.worst, fair.units
        );
        assert!(fair.moments > 1_000, "both wait most of the time");
        assert!(fair.worst <= bound);
    }
}
