//! The shared ledger on a real Redis: what it costs beside two commands per request, what it refuses, how soon a freed
//! unit runs for somebody at another gate. All gates live in this process and drive the library itself: real HTTP at
//! such rates would measure HTTP.

mod cost;
mod drive;
mod gates;
mod judge;
mod micro;
mod quality;
mod rivals;
mod scale;

use sluicegate_sim::Load;
use sluicegate_testkit::redis::{Redis, RedisOptions};

use self::cost::{Alternated, Bar};
use self::gates::{Gates, World};
use crate::page::Section;
use crate::{Outcome, Settings};

const TTL_US: u64 = 5_000_000;
/// With `--quick`: a new ledger lends nothing for ttl + margin.
const TTL_QUICK_US: u64 = 1_000_000;
/// Runs of quality are so many times as long as those of cost.
const LONGER: f64 = 5.0;

/// A pool, and what is asked of it.
struct Case {
    name: &'static str,
    world: World,
    /// Cost is measured, at load 0.8.
    cost: Option<Bar>,
    /// Loads, and the largest 429 share that may be, per cent.
    loads: &'static [(f64, Option<f64>)],
}

const fn world(pods: usize, service_ms: u64, wait_ms: u64) -> World {
    World {
        gates: 4,
        pods,
        units: 20,
        service_us: service_ms * 1000,
        wait_us: wait_ms * 1000,
        ttl_us: TTL_US,
    }
}

const CASES: [Case; 5] = [
    Case {
        name: "100 pods, 100 ms",
        world: world(100, 100, 50),
        cost: Some(Bar { times: 20, commands: Some(10) }),
        loads: &[(0.8, None), (0.9, None), (1.0, None)],
    },
    Case {
        name: "10 pods, 10 ms",
        world: world(10, 10, 50),
        cost: Some(Bar { times: 4, commands: None }),
        loads: &[(0.8, None), (0.9, None), (1.0, None)],
    },
    Case {
        name: "10 pods, 100 ms",
        world: world(10, 100, 50),
        cost: None,
        loads: &[(0.8, Some(0.05)), (0.9, Some(0.5)), (1.0, Some(3.6))],
    },
    Case {
        name: "10 pods, 100 ms, `wait: 10ms`",
        world: world(10, 100, 10),
        cost: None,
        loads: &[(0.8, Some(0.5)), (0.9, Some(2.3)), (1.0, Some(5.7))],
    },
    Case {
        name: "10 pods, 100 ms, `wait: 1s`",
        world: world(10, 100, 1000),
        cost: None,
        loads: &[(0.95, Some(0.0))],
    },
];

/// How long and how often.
struct Extent {
    quick: bool,
    runs: u32,
    seconds: f64,
    /// Arrivals of a run in virtual time: of a case, and of the big pool.
    simulated: (usize, usize),
}

impl Extent {
    fn of(settings: &Settings, quick: bool) -> Extent {
        let runs = if quick { settings.runs.min(5) } else { settings.runs };
        let seconds = settings.seconds.unwrap_or(if quick { 0.15 } else { 4.0 });
        let simulated = if quick { (10_000, 5_000) } else { (400_000, 1_000_000) };
        Extent { quick, runs, seconds, simulated }
    }
}

/// `quick`: a few seconds of everything, to see that it works; its figures mean nothing.
///
/// # Errors
/// A gate failed, kept something, or let a pod be exceeded; or the page cannot be written.
pub(crate) fn run(settings: &Settings, quick: bool) -> Outcome<()> {
    if quick && settings.write {
        return Err("figures of --quick mean nothing: they are not written".to_owned());
    }
    let extent = Extent::of(settings, quick);
    let mut section = Section::begin("ledger");
    let redis = Redis::with(RedisOptions::tcp());
    let (mut costs, mut qualities, mut over) = (Vec::new(), Vec::new(), 0);
    for (number, case) in CASES.iter().enumerate().filter(|(number, _)| !quick || *number < 2) {
        over += measured(&redis, number, case, &extent, &mut costs, &mut qualities)?;
    }
    section.table(&cost::COLUMNS);
    costs.into_iter().for_each(|row| section.row(row));
    section.table(&quality::COLUMNS);
    qualities.into_iter().for_each(|row| section.row(row));
    price(&redis, &extent, &mut section)?;
    section.note(words(&redis, &extent));
    section.end(settings)?;
    if over > 0 { Err(format!("{over} requests started above their pod's capacity")) } else { Ok(()) }
}

/// Adds a case's rows, and answers its starts above capacity.
fn measured(
    redis: &Redis,
    number: usize,
    case: &Case,
    extent: &Extent,
    costs: &mut Vec<String>,
    qualities: &mut Vec<String>,
) -> Outcome<u64> {
    let mut world = case.world;
    if extent.quick {
        world.ttl_us = TTL_QUICK_US;
    }
    let gates = Gates::start(redis, &format!("bench-{number}"), &world)?;
    let mut over = 0;
    if let Some(bar) = &case.cost {
        let load = Load::of_pool(&world.policy(), 0.8, world.service_us);
        // Holds of 100 ms have a long tail: one round shows that it works.
        let runs = if extent.quick && number == 0 { 1 } else { extent.runs };
        let all = Alternated::run(redis, &gates, &world, &load, (runs, extent.seconds))?;
        over += all.gates.iter().map(|cost| cost.ran.verdict.over).sum::<u64>();
        for row in all.rows(case.name, world.units, bar) {
            eprintln!("{row}");
            costs.push(row);
        }
    }
    let loads = if extent.quick { &case.loads[..1] } else { case.loads };
    for (load, bar) in loads {
        let extent = (extent.seconds * LONGER, extent.simulated.0);
        let judged = quality::judged(redis, &gates, &world, case.name, (*load, *bar), extent)?;
        if judged.admitted == 0 {
            return Err(format!("{}, load {load}: nothing was admitted", case.name));
        }
        over += judged.over;
        eprintln!("{}", judged.row);
        qualities.push(judged.row);
    }
    Ok(over)
}

/// The tables of one exchange's price and of the big pool.
fn price(redis: &Redis, extent: &Extent, section: &mut Section) -> Outcome<()> {
    let (rounds, exchanges) = if extent.quick { (1, 60) } else { (20, micro::BLOCK) };
    let all = micro::measured(redis, rounds, exchanges)?;
    section.table(&[
        "one exchange: pods held",
        "changed",
        "waiters without room",
        "µs in the script, median",
        "min..max",
        "CPU µs, median",
        "min..max",
        "pods touched, as Redis says",
    ]);
    for took in &all {
        let micro::Shape { held, changed, waiters } = took.shape;
        let (script, cpu) = (took.script.cells(1), took.cpu.cells(1));
        section.row(format!("{held} | {changed} | {waiters} | {script} | {cpu} | {:.1}", took.touched));
    }
    section.table(&scale::COLUMNS);
    scale::rows(&all, extent.simulated.1)?.into_iter().for_each(|row| section.row(row));
    Ok(())
}

fn words(redis: &Redis, extent: &Extent) -> String {
    let version = redis.info("server").remove("redis_version").unwrap_or_default();
    format!(
        "Redis {version} over TCP on loopback, nothing written to disk. Four gates in this process, each with its own \
         connections and threads; 20 units a pod, weights 1/2/3 in equal Erlangs, exponential holds, `wait: 50ms` where \
         nothing else stands; arrivals fixed beforehand, each for a gate at random. Cost: {} alternating runs of \
         {:.1} s each way at load 0.8, the same arrivals for all three; quality: {:.0} s. Redis CPU: `INFO cpu`, user and \
         system, by the requests sent. Two scripts: one `EVALSHA` takes units on the narrowest pod of a sorted set, one \
         gives them back, what is said in one step leaves in one packet, and nobody waits. Counters: `DECRBY` on a pod at random, \
         `INCRBY` if that went below zero, up to three pods. Simulated: the same pool in virtual time with a round trip of 0.5 ms. \
         Hand-over: from the end at one gate that made the room to the start of a request that waited at another; its bars are \
         pace + 2 and 3 paces + 4 mean round trips of that run. The big pool: 1,000 pods, 50 gates, 1,000,000 requests/s of 8 ms at load \
         0.8, in virtual time; a pod's price is the slope between one changed pod and sixteen, without waiters.",
        extent.runs,
        extent.seconds,
        extent.seconds * LONGER,
    )
}

#[cfg(test)]
mod tests {
    use super::rivals::Kind;
    use super::*;

    /// Both ways, on a pool small enough for the tests of a busy machine: no pod exceeded, something admitted,
    /// nothing kept.
    #[test]
    fn gates_and_rivals_hold_the_pods_limits() {
        let redis = Redis::with(RedisOptions::tcp());
        let world = World { gates: 3, pods: 3, units: 8, ttl_us: 500_000, ..world(3, 20, 50) };
        let gates = Gates::start(&redis, "smoke", &world).expect("the gates come up");
        let load = Load::of_pool(&world.policy(), 0.9, world.service_us);
        let plans = drive::plans(&load, 1.0, gates.len(), 1);
        let ours = cost::by_gates(&redis, &gates, &world, &plans).expect("the gates run");
        let scripts = cost::by_rival(&redis, Kind::Scripts, &world, &plans).expect("the scripts run");
        let counters = cost::by_rival(&redis, Kind::Counters, &world, &plans).expect("the counters run");
        for cost in [&ours, &scripts, &counters] {
            let (verdict, all) = (cost.ran.verdict, cost.ran.samples.len());
            assert_eq!((verdict.over, verdict.left), (0, 0), "{verdict:?}");
            assert!(verdict.peak <= 8 && cost.ran.refused() * 2 < all, "{} of {all}", cost.ran.refused());
            assert!(cost.commands() > 0.0);
        }
        // Two for each request that ran.
        assert!(scripts.commands() > 1_000.0, "{}", scripts.commands());
    }
}
