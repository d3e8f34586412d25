//! What claims are for: heavy requests in a crowd of light ones.

use sluicegate_sim::{Load, Report, replay};

use crate::world::{MEAN_US, long, pool, seeded};

/// One unit in a hundred is asked for by heavy requests, the rest by light ones. Just below saturation none is
/// refused. At load 1.0 the light queue alone drifts beyond any wait, so there claims can only help.
#[test]
fn a_heavy_head_is_not_refused_for_want_of_a_claim() {
    seeded("claims::a_heavy_head_is_not_refused_for_want_of_a_claim", |seed| {
        for load in [0.98, 1.0] {
            for heavy in [3, 5, 10] {
                let (with, without) = with_and_without(load, heavy, seed);
                let share = |report: &Report| report.apis[1].share_refused();
                let waits = |report: &Report| report.apis[0].waits.mean_us() / 1000.0;
                println!(
                    "load {load}, weight {heavy} among light ones: refused {:.2} % with claims, {:.2} % without; \
                     light ones wait {:.1} ms and {:.1} ms",
                    share(&with) * 100.0,
                    share(&without) * 100.0,
                    waits(&with),
                    waits(&without)
                );
                assert_eq!(with.apis[0].refused_all(), 0, "the light ones do not pay with refusals");
                if load < 1.0 {
                    assert_eq!(with.apis[1].refused_all(), 0, "refused though it had a claim");
                    assert!(share(&without) > 0.03, "then the claim is what served it");
                } else {
                    assert!(share(&with) < 0.6 * share(&without));
                }
            }
        }
    });
}

fn with_and_without(load: f64, heavy: u32, seed: u64) -> (Report, Report) {
    let mut policy = pool(1_000_000, &[1, heavy]);
    let mut made = Load::of_pool(&policy, load, MEAN_US);
    made.apis[0].per_s = 0.99 * load * 200.0 / 0.1;
    made.apis[1].per_s = 0.01 * load * 200.0 / 0.1 / f64::from(heavy);
    let arrivals: Vec<_> = made.arrivals(seed).take(long(200_000)).collect();
    let with = replay(&policy, &arrivals).expect("a good policy");
    policy.admission.claims = false;
    (with, replay(&policy, &arrivals).expect("a good policy"))
}

/// Whole pods: they need a pod to drain, which takes time; below saturation all of them get it.
#[test]
fn a_whole_pod_can_be_had_at_load_095() {
    seeded("claims::a_whole_pod_can_be_had_at_load_095", |seed| {
        let (with, without) = with_and_without(0.95, 20, seed);
        let share = |report: &Report| report.apis[1].share_refused();
        println!(
            "whole pods: refused {:.2} % with claims, {:.2} % without",
            share(&with) * 100.0,
            share(&without) * 100.0
        );
        assert!(share(&with) < 0.01 && share(&without) > 0.5);
    });
}
