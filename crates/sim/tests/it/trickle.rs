//! The hybrid rule: a part of the pool that is entered by tokens which only time brings back.

use sluicegate_core::policy::{Amount, Policy, Trickle};
use sluicegate_sim::{Arrival, Watch, World, replay};

use crate::world::pool;

const SECOND: u64 = 1_000_000;

/// One light request every `gap_us`, each holding its unit for `hold_us`.
fn stream(count: u64, gap_us: u64, hold_us: u64) -> Vec<Arrival> {
    (0..count).map(|at| Arrival { at_us: at * gap_us, api: 0, weight: 1, hold_us }).collect()
}

/// 200 units, a tenth of them by tokens at 20 per second.
fn hybrid(ceiling: u32) -> Policy {
    let mut policy = pool(0, &[1]);
    let share = Amount::Share(10_000);
    policy.admission.trickle = Some(Trickle { share, rate_milli: 20_000, ceiling });
    policy
}

/// Most units in use by second, and those entered by tokens.
#[derive(Default)]
struct Peaks {
    in_use: Vec<u64>,
    trickled: u64,
}

impl Watch for Peaks {
    fn after(&mut self, world: &World) {
        let second = (world.now().0 / SECOND) as usize;
        self.in_use.resize(self.in_use.len().max(second + 1), 0);
        self.in_use[second] = self.in_use[second].max(world.in_use(0));
        self.trickled = self.trickled.max(world.gate().snapshot().trickled);
    }
}

/// Requests that never end within the run: the pool is wedged. At a ceiling of 100 % the trickle fills its share and
/// stops; above it, it goes on at its rate up to the ceiling, where `burst` says pods bear it.
#[test]
fn a_ceiling_with_burst_moves_a_wedged_pool() {
    for (ceiling, burst, most) in [(100_000, 0, 200), (120_000, 4, 240), (120_000, 0, 200)] {
        let mut policy = hybrid(ceiling);
        policy.pods.iter_mut().for_each(|pod| pod.burst = burst);
        let mut peaks = Peaks::default();
        let mut world = World::new(&policy, 1).unwrap();
        let report = world.run_watched(stream(4000, 1000, 3600 * SECOND), &mut peaks);
        println!("ceiling {ceiling}, burst {burst}: in use by second {:?}", &peaks.in_use[..4]);
        assert_eq!(report.admitted(), most, "ceiling {ceiling}, burst {burst}");
        assert!(report.peaks.iter().all(|peak| *peak <= 20 + burst), "no pod beyond what it bears");
        if burst > 0 {
            // 180 by the pool, 20 tokens at once, then 20 a second and no faster.
            assert!(peaks.in_use[0] <= 220 && peaks.in_use[0] >= 215, "{:?}", peaks.in_use[0]);
            assert_eq!(peaks.in_use[3], 240);
        }
    }
}

/// Completions give no token back: entries by tokens are the bucket plus the rate times the time, however short the
/// requests are.
#[test]
fn tokens_pace_the_last_share() {
    // 180 units are held for good; all others must enter by tokens and hold for 1 ms only.
    let mut arrivals: Vec<Arrival> =
        (0..180).map(|_| Arrival { at_us: 0, api: 0, weight: 1, hold_us: 3600 * SECOND }).collect();
    arrivals
        .extend(stream(10_000, 1000, 1000).into_iter().map(|one| Arrival { at_us: one.at_us + 1, ..one }));
    let report = replay(&hybrid(100_000), &arrivals).unwrap();
    let entered = report.admitted() - 180;
    println!("entered by tokens in 10 s: {entered}");
    assert!((219..=221).contains(&entered), "20 + 20/s x 10 s, not {entered}");
    // The same pool without the rule admits them all: it is the price of the pace, and `plan` shows it.
    let mut plain = hybrid(100_000);
    plain.admission.trickle = None;
    assert_eq!(replay(&plain, &arrivals).unwrap().refused(), 0);
}

/// Waiting, too, is paced: whoever waits for a token gets it when time brings it.
#[test]
fn a_waiter_gets_the_token_that_time_brings() {
    let mut policy = hybrid(100_000);
    policy.apis[0].wait_us = 10 * SECOND;
    policy.admission.trickle.as_mut().unwrap().rate_milli = 1_000;
    let mut arrivals: Vec<Arrival> =
        (0..200).map(|_| Arrival { at_us: 0, api: 0, weight: 1, hold_us: 3600 * SECOND }).collect();
    // The share is full of leases; one ends at 2.5 s, its token does not come back, but two have grown by then.
    arrivals[199].hold_us = 2 * SECOND + SECOND / 2;
    arrivals.push(Arrival { at_us: 1, api: 0, weight: 1, hold_us: SECOND });
    arrivals.push(Arrival { at_us: 2, api: 0, weight: 1, hold_us: SECOND });
    let report = replay(&policy, &arrivals).unwrap();
    assert_eq!(report.admitted(), 202);
    let longest = report.apis[0].waits.max_us();
    assert!((3 * SECOND..=4 * SECOND).contains(&longest), "served when the first had ended: {longest}");
}
