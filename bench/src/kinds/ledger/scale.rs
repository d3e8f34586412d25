//! The bar of a big pool, by arithmetic: how often its gates speak and what they change, in virtual time, at the price
//! that one exchange and one pod have in a real Redis.

use std::time::Duration;

use sluicegate::Rules;
use sluicegate_sim::Load;
use sluicegate_sim::network::Network;
use sluicegate_sim::pool_world::{self, Setup};

use super::gates::World;
use super::micro::{PODS, Prices, Took, prices};
use crate::Outcome;

const GATES: usize = 50;
const LOAD: f64 = 0.8;
const SERVICE_US: u64 = 8_000;

/// The columns of a row.
pub(super) const COLUMNS: [&str; 7] = [
    "a gate holds units on",
    "exchanges/s",
    "pods touched/s",
    "pods touched x µs, cores of Redis",
    "bar",
    "with the exchanges themselves, inside the script",
    "the same, all processor time",
];

/// 1,000 pods, 50 gates, 1,000,000 requests/s for so many requests, priced for a gate with few pods and with many.
///
/// # Errors
/// The policy is not sound.
pub(super) fn rows(all: &[Took], arrivals: usize) -> Outcome<Vec<String>> {
    let world = World {
        gates: GATES,
        pods: PODS as usize,
        units: 20,
        service_us: SERVICE_US,
        wait_us: 50_000,
        ttl_us: 5_000_000,
    };
    let policy = world.policy();
    let load = Load::of_pool(&policy, LOAD, SERVICE_US);
    let per_s: f64 = load.apis.iter().map(|api| api.per_s).sum();
    let setup = Setup {
        timing: world.timing(),
        policy,
        gates: GATES,
        rules: Rules::default(),
        on_loss: sluicegate_core::member::OnLoss::Refuse,
        founded: true,
        network: Network::quiet(),
        load,
        arrivals,
        faults: Vec::new(),
        seed: 1,
    };
    let outcome = pool_world::run(&setup).map_err(|error| error.to_string())?;
    // By the arrivals' own span: what comes after them is quiet.
    let seconds = Duration::from_secs_f64(arrivals as f64 / per_s).as_secs_f64();
    let exchanges = outcome.ledger.exchanges as f64 / seconds;
    let touched = outcome.ledger.touched as f64 / seconds;
    let row = |held: u32| {
        let (script, cpu) = prices(all, held);
        let cores = |prices: Prices| (exchanges * prices.exchange + touched * prices.pod) / 1e6;
        format!(
            "{held} pods | {exchanges:.0} | {touched:.0} | {touched:.0} x {:.2} µs = {:.3} | 0.5 | {:.3} + {exchanges:.0} x {:.1} µs = {:.3} | {:.3}",
            script.pod,
            touched * script.pod / 1e6,
            touched * script.pod / 1e6,
            script.exchange,
            cores(script),
            cores(cpu),
        )
    };
    Ok([20, 200].map(row).into())
}
