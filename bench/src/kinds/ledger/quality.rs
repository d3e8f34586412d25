//! 429 shares and hand-overs of real gates over a real Redis, beside the same pool in virtual time and beside best fit.

use sluicegate::Rules;
use sluicegate_sim::network::Network;
use sluicegate_sim::pool_world::{self, Setup};
use sluicegate_sim::{Arrival, Load, WaitOrder, replay_best_fit_waiting};
use sluicegate_testkit::redis::Redis;

use super::cost::{self, Cost};
use super::drive::{self, Sample};
use super::gates::{Gates, World};
use crate::Outcome;
use crate::stats::quantile;

/// The pool fills before anything counts: so many mean services, a second at most.
const FILLING: u64 = 10;

/// The columns of a row.
pub(super) const COLUMNS: [&str; 15] = [
    "case",
    "load",
    "429 %",
    "bar",
    "simulated",
    "best fit, same arrivals",
    "commands per 1,000 (simulated)",
    "pushes (simulated)",
    "pods touched (simulated)",
    "Redis CPU µs per request",
    "hand-overs: p50 ms",
    "p99 ms, longer than the bar",
    "simulated p50, p99 ms",
    "waited beside room from before: p99, max ms",
    "peak, starts over it",
];

/// A run's row, and the starts that found no room.
pub(super) struct Judged {
    pub(super) row: String,
    pub(super) over: u64,
    pub(super) admitted: usize,
}

/// One run at `load` (1: the whole pool), with the largest 429 share that may be (per cent); and its seconds, and arrivals
/// in virtual time.
///
/// # Errors
/// The run failed.
pub(super) fn judged(
    redis: &Redis,
    gates: &Gates,
    world: &World,
    case: &str,
    (load, bar): (f64, Option<f64>),
    (seconds, virtually): (f64, usize),
) -> Outcome<Judged> {
    let traffic = Load::of_pool(&world.policy(), load, world.service_us);
    let plans = drive::plans(&traffic, seconds, gates.len(), (load * 1000.0) as u64);
    let mut cost = cost::by_gates(redis, gates, world, &plans)?;
    let simulated = simulated(world, traffic, virtually)?;
    let counted_from = (world.service_us * FILLING).min(1_000_000);
    let shares = Shares::of(&cost.ran.samples, world, counted_from);
    let pace_ms = gates.pace_us(world) as f64 / 1000.0;
    let (over, admitted) = (cost.ran.verdict.over, cost.ran.samples.len() - cost.ran.refused());
    let void = if cost.ran.is_void() { " (void: lag)" } else { "" };
    let row = format!(
        "{case} | {load} | {:.3}{void} | {} | {:.3} | {:.3} | {:.1} ({:.1}) | {:.1} ({:.1}) | {:.1} ({:.1}) | {:.2} | {} | \
         {} of {}, {over}",
        shares.refused * 100.0,
        bar.map_or(String::new(), |bar| bar.to_string()),
        simulated.share_refused() * 100.0,
        shares.best_fit * 100.0,
        cost.commands(),
        simulated.exchanges_per_1000(),
        cost.pushes(),
        simulated.pushes_per_1000(),
        cost.touched(),
        simulated.touched_per_1000(),
        cost.redis_us(),
        handovers(&mut cost, pace_ms, &simulated),
        cost.ran.verdict.peak,
        world.units,
    );
    Ok(Judged { row, over, admitted })
}

/// Four cells: hand-overs beside their bars.
fn handovers(cost: &mut Cost, pace_ms: f64, simulated: &pool_world::Outcome) -> String {
    let rtt_ms = cost.talk.rtt_mean_us() / 1000.0;
    let ms = |us: u64| us as f64 / 1000.0;
    let times = &mut cost.ran.handover_us;
    let (count, p50, p99) = (times.len(), ms(quantile(times, 0.5)), ms(quantile(times, 0.99)));
    let (bar_p50, bar_p99) = (pace_ms + 2.0 * rtt_ms, 3.0 * pace_ms + 4.0 * rtt_ms);
    let late = times.iter().filter(|us| ms(**us) > bar_p99).count();
    let beside = &mut cost.ran.beside_us;
    format!(
        "{count}: {p50:.2} (bar {bar_p50:.2}) | {p99:.2} (bar {bar_p99:.2}), {late} | {:.2}, {:.2} | {}: {:.2}, {:.2}",
        ms(simulated.handover.quantile_us(0.5)),
        ms(simulated.handover.quantile_us(0.99)),
        beside.len(),
        ms(quantile(beside, 0.99)),
        ms(quantile(beside, 1.0)),
    )
}

fn simulated(world: &World, load: Load, arrivals: usize) -> Outcome<pool_world::Outcome> {
    let setup = Setup {
        policy: world.policy(),
        gates: world.gates,
        timing: world.timing(),
        rules: Rules::default(),
        on_loss: sluicegate_core::member::OnLoss::Refuse,
        founded: true,
        network: Network::quiet(),
        load,
        arrivals,
        faults: Vec::new(),
        seed: 1,
    };
    pool_world::run(&setup).map_err(|error| error.to_string())
}

/// Of the requests that arrived when the pool was filled.
struct Shares {
    refused: f64,
    best_fit: f64,
}

impl Shares {
    fn of(samples: &[Sample], world: &World, from_us: u64) -> Shares {
        let arrivals: Vec<Arrival> = samples.iter().map(replayed).collect();
        let best =
            replay_best_fit_waiting(&arrivals, &world.capacities(), world.wait_us, WaitOrder::LightFirst);
        let (mut offered, mut refused, mut expected) = (0u64, 0u64, 0u64);
        for (sample, served) in samples.iter().zip(best.served) {
            if sample.arrival.at_us >= from_us {
                offered += 1;
                refused += u64::from(sample.ran.is_none());
                expected += u64::from(!served);
            }
        }
        let share = |count: u64| count as f64 / offered.max(1) as f64;
        Shares { refused: share(refused), best_fit: share(expected) }
    }
}

/// With the hold that was measured; one that never ran would have held what was drawn.
fn replayed(sample: &Sample) -> Arrival {
    let hold_us = sample.ran.map_or(sample.arrival.hold_us, |(begin, end)| end - begin);
    Arrival { hold_us, ..sample.arrival }
}
