//! What the same requests cost Redis by each way, in alternating runs on one server.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use sluicegate_sim::{Arrival, Load};
use sluicegate_testkit::redis::{CommandUse, Redis};

use super::drive::{self, Ran};
use super::gates::{Gates, Talk, WEIGHT_MAX, World};
use super::judge::Judge;
use super::rivals::{Kind, Rival};
use crate::Outcome;
use crate::stats::Spread;

/// Commands that gates and rivals send; what scripts call counts in the script.
const SENT: [&str; 4] = ["fcall", "evalsha", "decrby", "incrby"];

/// A run and its bill.
pub(super) struct Cost {
    pub(super) ran: Ran,
    /// Processor time of the server, user and system.
    pub(super) redis: Duration,
    /// Of this process: gates or clients, and the load itself.
    own: Duration,
    pub(super) talk: Talk,
    /// What was sent.
    sent: CommandUse,
}

impl Cost {
    fn per_request(&self, figure: f64) -> f64 {
        figure / self.ran.samples.len().max(1) as f64
    }

    /// Microseconds of the server for one request.
    pub(super) fn redis_us(&self) -> f64 {
        self.per_request(micros(self.redis))
    }

    fn own_us(&self) -> f64 {
        self.per_request(micros(self.own))
    }

    /// Commands for 1,000 requests.
    pub(super) fn commands(&self) -> f64 {
        self.per_request(self.sent.calls as f64 * 1000.0)
    }

    pub(super) fn pushes(&self) -> f64 {
        self.per_request(self.talk.pushes as f64 * 1000.0)
    }

    pub(super) fn touched(&self) -> f64 {
        self.per_request(self.talk.touched as f64 * 1000.0)
    }

    /// Microseconds of one command, without the reading of it and the writing of its answer.
    fn command_us(&self) -> f64 {
        micros(self.sent.time) / self.sent.calls.max(1) as f64
    }

    fn refused(&self) -> f64 {
        self.per_request(self.ran.refused() as f64 * 100.0)
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The same arrivals through the library's gates.
///
/// # Errors
/// A gate failed, or kept something after the run.
pub(super) fn by_gates(redis: &Redis, gates: &Gates, world: &World, plans: &[Vec<Arrival>]) -> Outcome<Cost> {
    let before = gates.talk();
    let judge = Judge::new(&world.capacities(), WEIGHT_MAX);
    let mut cost = billed(redis, || drive::run(plans, &judge, |gate| gates.way(gate)))?;
    cost.talk = gates.talk().since(&before);
    gates.quiet()?;
    Ok(cost)
}

/// And through commands of each request.
///
/// # Errors
/// A connection failed.
pub(super) fn by_rival(redis: &Redis, kind: Kind, world: &World, plans: &[Vec<Arrival>]) -> Outcome<Cost> {
    let rival = Rival::new(redis, kind, world)?;
    let judge = Judge::new(&world.capacities(), WEIGHT_MAX);
    billed(redis, || drive::run(plans, &judge, |gate| rival.way(redis, gate as u64 + 1)))
}

fn billed(redis: &Redis, run: impl FnOnce() -> Outcome<Ran>) -> Outcome<Cost> {
    let (own, sent, cpu) = (own_time(), sent(redis), redis.cpu());
    let ran = run()?;
    let (cpu, own) = (redis.cpu() - cpu, own_time() - own);
    let now = self::sent(redis);
    let sent = CommandUse { calls: now.calls - sent.calls, time: now.time - sent.time };
    Ok(Cost { ran, redis: cpu, own, talk: Talk::default(), sent })
}

fn sent(redis: &Redis) -> CommandUse {
    let commands = redis.commands();
    let uses = SENT.iter().filter_map(|name| commands.get(*name));
    uses.fold(CommandUse::default(), |all, one| CommandUse {
        calls: all.calls + one.calls,
        time: all.time + one.time,
    })
}

/// Processor time of this process, threads that ended included.
fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Runs that alternate: the gates', the scripts', the counters', by the same arrivals.
#[derive(Default)]
pub(super) struct Alternated {
    pub(super) gates: Vec<Cost>,
    scripts: Vec<Cost>,
    counters: Vec<Cost>,
    /// Rounds of three in which a load lagged; their figures are not used.
    void: u32,
}

impl Alternated {
    /// # Errors
    /// A run failed, or the load lagged in more rounds than it did not.
    pub(super) fn run(
        redis: &Redis,
        gates: &Gates,
        world: &World,
        load: &Load,
        (runs, seconds): (u32, f64),
    ) -> Outcome<Alternated> {
        let mut all = Alternated::default();
        for seed in 1.. {
            if all.gates.len() as u32 == runs {
                break;
            }
            if all.void > runs {
                return Err(format!("the load lagged in {} rounds: the machine is too busy", all.void));
            }
            let plans = drive::plans(load, seconds, gates.len(), seed);
            let ours = by_gates(redis, gates, world, &plans)?;
            let scripts = by_rival(redis, Kind::Scripts, world, &plans)?;
            let counters = by_rival(redis, Kind::Counters, world, &plans)?;
            if [&ours, &scripts, &counters].iter().any(|cost| cost.ran.is_void()) {
                all.void += 1;
                continue;
            }
            all.gates.push(ours);
            all.scripts.push(scripts);
            all.counters.push(counters);
        }
        Ok(all)
    }

    /// The rows of a case: each way, then what the others take over ours, run by run.
    pub(super) fn rows(&self, case: &str, units: u32, bar: &Bar) -> Vec<String> {
        let ways = [("gates", &self.gates), ("two scripts", &self.scripts), ("counters", &self.counters)];
        let mut rows: Vec<String> =
            ways.iter().map(|(name, costs)| row(case, name, costs, units, bar)).collect();
        let redis = |costs: &[Cost]| costs.iter().map(Cost::redis_us).collect::<Vec<_>>();
        for (name, costs) in &ways[1..] {
            let ratio = Spread::of_ratios(&redis(costs), &redis(&self.gates));
            let least =
                if *name == "two scripts" { format!("at least {}", bar.times) } else { String::new() };
            // Commands, pushes and the rest are beside each way already.
            rows.push(format!(
                "{case} | {name} over gates | {} | {least}{}",
                ratio.cells(1),
                " | ".repeat(7)
            ));
        }
        if self.void > 0 {
            rows.push(format!("{case} | void rounds: {}{}", self.void, " | ".repeat(10)));
        }
        rows
    }
}

/// What a case must reach.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bar {
    /// The two scripts' processor time over the gates'.
    pub(super) times: u32,
    /// Commands of the gates for 1,000 requests; `None`: no bar.
    pub(super) commands: Option<u32>,
}

/// The columns of [`Alternated::rows`].
pub(super) const COLUMNS: [&str; 12] = [
    "case",
    "way",
    "Redis CPU µs per request, median",
    "min..max",
    "bar",
    "commands per 1,000",
    "pushes per 1,000",
    "pods touched per 1,000",
    "µs of a command in Redis",
    "own CPU µs per request, load included",
    "429 %",
    "peak of a pod, starts over it",
];

fn row(case: &str, name: &str, costs: &[Cost], units: u32, bar: &Bar) -> String {
    let spread = |of: fn(&Cost) -> f64| Spread::of(&costs.iter().map(of).collect::<Vec<_>>());
    let is_ours = name == "gates";
    let talked =
        |of: fn(&Cost) -> f64| if is_ours { format!("{:.1}", spread(of).median) } else { String::new() };
    let bar =
        bar.commands.filter(|_| is_ours).map_or(String::new(), |most| format!("at most {most} commands"));
    let peak = costs.iter().map(|cost| cost.ran.verdict.peak).max().unwrap_or(0);
    let over: u64 = costs.iter().map(|cost| cost.ran.verdict.over).sum();
    format!(
        "{case} | {name} | {} | {bar} | {:.1} | {} | {} | {:.1} | {:.1} | {:.3} | {peak} of {units}, {over}",
        spread(Cost::redis_us).cells(2),
        spread(Cost::commands).median,
        talked(Cost::pushes),
        talked(Cost::touched),
        spread(Cost::command_us).median,
        spread(Cost::own_us).median,
        spread(Cost::refused).median,
    )
}
