//! What claims are for: heavy requests in a crowd of light ones.

use sluicegate_sim::{Load, replay};

use crate::world::{MEAN_US, long, pool, seeded};

/// One unit in a hundred is asked for by heavy requests, the rest by light ones; load 1.0.
#[test]
fn a_heavy_head_is_not_refused_for_want_of_a_claim() {
    seeded("claims::a_heavy_head_is_not_refused_for_want_of_a_claim", |seed| {
        for heavy in [3, 5, 10] {
            let mut policy = pool(1_000_000, &[1, heavy]);
            let mut load = Load::of_pool(&policy, 1.0, MEAN_US);
            load.apis[0].per_s = 0.99 * 200.0 / 0.1;
            load.apis[1].per_s = 0.01 * 200.0 / 0.1 / f64::from(heavy);
            let arrivals: Vec<_> = load.arrivals(seed).take(long(400_000)).collect();
            let with = replay(&policy, &arrivals).unwrap();
            policy.admission.claims = false;
            let without = replay(&policy, &arrivals).unwrap();
            let waits = |report: &sluicegate_sim::Report| report.apis[0].waits.mean_us() / 1000.0;
            println!(
                "weight {heavy} among light ones: refused {:.2} % with claims, {:.2} % without; light ones wait \
                 {:.1} ms and {:.1} ms",
                with.apis[1].share_refused() * 100.0,
                without.apis[1].share_refused() * 100.0,
                waits(&with),
                waits(&without)
            );
            assert_eq!(with.apis[1].refused_all(), 0, "refused though it had a claim");
            assert!(without.apis[1].share_refused() > 0.1, "then the claim is what served it");
            assert_eq!(with.apis[0].refused_all(), 0, "and the light ones do not pay with refusals");
        }
    });
}

/// Whole pods: they need a pod to drain, which takes time; below saturation all of them get it.
#[test]
fn a_whole_pod_can_be_had_at_load_095() {
    seeded("claims::a_whole_pod_can_be_had_at_load_095", |seed| {
        let mut policy = pool(1_000_000, &[1, 20]);
        let mut load = Load::of_pool(&policy, 0.95, MEAN_US);
        load.apis[0].per_s = 0.94 * 200.0 / 0.1;
        load.apis[1].per_s = 0.01 * 200.0 / 0.1 / 20.0;
        let arrivals: Vec<_> = load.arrivals(seed).take(long(400_000)).collect();
        let with = replay(&policy, &arrivals).unwrap();
        policy.admission.claims = false;
        let without = replay(&policy, &arrivals).unwrap();
        let share = |report: &sluicegate_sim::Report| report.apis[1].share_refused();
        println!("whole pods: refused {:.2} % with claims, {:.2} % without", share(&with) * 100.0, share(&without) * 100.0);
        assert!(share(&with) < 0.01 && share(&without) > 0.5);
    });
}
