//! Light first, nobody starved; guarantees; fair shares.

use sluicegate_core::policy::{Amount, Order};
use sluicegate_sim::{Load, Watch, World, simulate};

use crate::world::{MEAN_US, equal_units, long, pool, seeded};

#[test]
fn light_first_starves_nobody_at_load_11() {
    seeded("overload::light_first_starves_nobody_at_load_11", |seed| {
        let policy = pool(1_000_000, &[1, 2, 3]);
        let load = Load::of_pool(&policy, 1.1, MEAN_US);
        let report = simulate(&policy, &load, seed, long(1_000_000)).unwrap();
        println!("{report}");
        assert_eq!(report.apis[0].refused_all(), 0, "weight 1 is never refused");
        assert!(report.apis[2].share_refused() <= 0.2, "weight 3 at most a fifth");
        assert!(report.apis[0].waits.mean_us() < report.apis[1].waits.mean_us());
        assert!(report.apis[1].waits.mean_us() < report.apis[2].waits.mean_us());
    });
}

/// Looks whether a guarantee lay idle while its owner waited.
struct Guarantee {
    api: usize,
    min: u64,
    weight: u64,
    moments: u64,
    idle: u64,
}

impl Watch for Guarantee {
    fn after(&mut self, world: &World) {
        if world.waiting(self.api) > 0 {
            self.moments += 1;
            self.idle += u64::from(world.in_use(self.api) + self.weight <= self.min);
        }
    }
}

/// At load 2.5 the api of weight 1 that has `min` uses it whenever it has demand; so does weight 3, but for the
/// moments in which no single pod has three units together.
#[test]
fn a_guarantee_is_kept_at_load_25() {
    seeded("overload::a_guarantee_is_kept_at_load_25", |seed| {
        for order in [Order::LightFirst, Order::Fifo, Order::Fair] {
            for (api, weight) in [(0, 1), (2, 3)] {
                let mut policy = pool(1_000_000, &[1, 2, 3]);
                policy.admission.order = order;
                policy.apis[api].min = Amount::Units(60);
                let load = Load::of_pool(&policy, 2.5, MEAN_US);
                let mut watch = Guarantee { api, min: 60, weight, moments: 0, idle: 0 };
                let mut world = World::new(&policy, seed).unwrap();
                let report = world.run_watched(load.arrivals(seed).take(long(200_000)), &mut watch);
                let units = report.apis[api].unit_us as f64 / report.span_us as f64;
                let idle = watch.idle as f64 / watch.moments.max(1) as f64;
                println!(
                    "{order:?}, weight {weight} with min 60: {units:.1} units, idle in {:.2} % of {} moments",
                    idle * 100.0,
                    watch.moments
                );
                assert!(watch.moments > 1000);
                if weight == 1 {
                    assert_eq!(watch.idle, 0, "a guarantee lay idle");
                }
                assert!(units >= 0.95 * 60.0, "{units}");
            }
        }
    });
}

/// Demand within the guarantee is not refused, however large the crowd.
#[test]
fn within_its_guarantee_nothing_is_refused() {
    seeded("overload::within_its_guarantee_nothing_is_refused", |seed| {
        for weight in [1, 3] {
            let mut policy = pool(1_000_000, &[1, 2, 3, weight]);
            policy.apis[3].min = Amount::Units(60);
            let mut load = Load::of_pool(&policy, 2.5, MEAN_US);
            // Forty units on average: within sixty but for rare moments, and then it may wait.
            load.apis[3].per_s = 40.0 / f64::from(weight) / 0.1;
            let report = simulate(&policy, &load, seed, long(400_000)).unwrap();
            println!("{report}");
            assert_eq!(report.apis[3].refused_all(), 0);
            assert!(report.share_refused() > 0.3, "the others do feel the load");
        }
    });
}

/// Equal demand, equal units, whatever the weights.
#[test]
fn fair_gives_equal_units_at_load_25() {
    seeded("overload::fair_gives_equal_units_at_load_25", |seed| {
        for weights in [&[1, 1, 1][..], &[1, 2, 3], &[2, 3, 5]] {
            let mut policy = pool(1_000_000, weights);
            policy.admission.order = Order::Fair;
            let report = simulate(&policy, &equal_units(&policy, 2.5), seed, long(400_000)).unwrap();
            let units: Vec<f64> =
                report.apis.iter().map(|api| api.unit_us as f64 / report.span_us as f64).collect();
            println!(
                "fair, weights {weights:?}: units {units:.1?}, {:.1} % used",
                report.utilisation() * 100.0
            );
            let mean = units.iter().sum::<f64>() / units.len() as f64;
            assert!(units.iter().all(|units| (units / mean - 1.0).abs() < 0.05), "{units:?}");
            assert!(report.utilisation() > 0.95);
        }
    });
}

/// A key that asks for less than its share gets all of it, beside one that floods.
#[test]
fn fair_serves_the_modest_in_full() {
    seeded("overload::fair_serves_the_modest_in_full", |seed| {
        let mut policy = pool(1_000_000, &[2, 2, 2]);
        policy.admission.order = Order::Fair;
        let mut load = equal_units(&policy, 1.0);
        load.apis[0].per_s *= 6.0;
        load.apis[1].per_s *= 0.5;
        load.apis[2].per_s *= 0.5;
        let report = simulate(&policy, &load, seed, long(400_000)).unwrap();
        println!("{report}");
        assert_eq!(report.apis[1].refused_all() + report.apis[2].refused_all(), 0);
        assert!(report.apis[0].share_refused() > 0.4);
    });
}
