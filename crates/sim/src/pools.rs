//! Small pools of all kinds, each with its traffic, its network and what goes wrong in it, from a seed.

use fastrand::Rng;
use sluicegate_core::member::OnLoss;
use sluicegate_core::policy::{
    Admission, Amount, ApiPolicy, Order, Placement, PodPolicy, Policy, Trickle, Units,
};
use sluicegate_core::shared::{Rules, Timing};

use crate::faults::schedule;
use crate::load::Load;
use crate::network::Network;
use crate::pool_world::Setup;

/// A whole run of some virtual seconds: one to six pods of 2 to 20 units, one to four apis, two to five gates, all
/// orders; limits, guarantees, reserve, trickle and burst in some; loads from 0.5 to 2; and `faults` faults at least.
/// Lives and holds are short, so that silence, expiry and recovery all happen in it. The same seed gives the same run.
#[must_use]
pub fn random_setup(seed: u64, faults: usize) -> Setup {
    let mut random = Rng::with_seed(seed ^ 0x9_0015);
    let policy = random_policy(&mut random);
    let wait_us = policy.apis.iter().map(|api| api.wait_us).min().unwrap_or(0);
    let gates = random.usize(2..=5);
    let timing = Timing {
        ttl_us: random.u64(200_000..600_000),
        // A third of the runs hold units for longer than the time to live.
        hold_max_us: if random.u32(..3) == 0 { 1_200_000 } else { 300_000 },
        timeout_us: 50_000,
        ..Timing::of_wait(wait_us)
    };
    let load = Load::of_pool(&policy, f64::from(random.u32(5..20)) / 10.0, random.u64(30_000..150_000));
    let rate: f64 = load.apis.iter().map(|api| api.per_s).sum();
    let span_us = 6 * timing.ttl_us;
    let arrivals = ((rate * span_us as f64 / 1e6) as usize).clamp(60, 500);
    let span_us = (arrivals as f64 / rate * 1e6) as u64;
    let faults = schedule(seed, faults + random.usize(..4), span_us, gates, timing.ttl_us);
    let network = if random.u32(..4) == 0 { Network::quiet() } else { Network::rough() };
    Setup {
        policy,
        gates,
        timing,
        rules: Rules::default(),
        on_loss: OnLoss::Refuse,
        founded: true,
        network,
        load,
        arrivals,
        faults,
        seed,
    }
}

fn random_policy(random: &mut Rng) -> Policy {
    let pods: Vec<PodPolicy> = (0..random.usize(1..=6))
        .map(|pod| PodPolicy {
            burst: if random.u32(..4) == 0 { random.u32(1..=4) } else { 0 },
            ..PodPolicy::new(&format!("p{pod}"), random.u32(2..=20))
        })
        .collect();
    let largest = pods.iter().map(|pod| pod.capacity).max().unwrap_or(1);
    let apis = (0..random.usize(1..=4)).map(|api| random_api(random, api, largest)).collect();
    let reserve = if random.u32(..3) == 0 { random.u32(..15_000) } else { 0 };
    let trickle = (random.u32(..3) == 0).then(|| Trickle {
        share: Amount::Share(random.u32(5_000..30_000)),
        rate_milli: random.u64(1_000..50_000),
        ceiling: random.u32(100_000..130_000),
    });
    let capacity = (random.u32(..6) == 0).then(|| Amount::Share(random.u32(60_000..100_000)));
    let order = [Order::LightFirst, Order::LightFirst, Order::Fifo, Order::Fair][random.usize(..4)];
    let placement = [Placement::Auto, Placement::Pack, Placement::Spread][random.usize(..3)];
    let reserve = Amount::Share(reserve);
    let admission = Admission { order, placement, reserve, trickle, capacity, ..Admission::default() };
    Policy { pods, apis, admission }
}

fn random_api(random: &mut Rng, index: usize, largest: Units) -> ApiPolicy {
    let weight = random.u32(1..=largest.min(5));
    ApiPolicy {
        wait_us: [0, 20_000, 50_000, 200_000, 400_000][random.usize(..5)],
        min: if random.u32(..4) == 0 { Amount::Share(random.u32(5_000..20_000)) } else { Amount::Units(0) },
        max: (random.u32(..4) == 0).then(|| Amount::Share(random.u32(20_000..80_000))),
        protected: random.u32(..4) == 0,
        ..ApiPolicy::new(&format!("a{index}"), weight)
    }
}
