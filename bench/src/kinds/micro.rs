//! The core's hot paths in instructions, which do not depend on what else the machine does, beside the last recorded ones;
//! and how fast the core is in virtual time, beside a bare heap of events.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Write as _;
use std::hint::black_box;

use sluicegate_core::gate::{Answer, Ask, Gate, Output};
use sluicegate_core::ids::{ApiId, LeaseId};
use sluicegate_core::keeper::Keeper;
use sluicegate_core::member::Member;
use sluicegate_core::policy::{Placement, Policy};
use sluicegate_core::shared::{GateId, Rules, Timing};
use sluicegate_core::time::Micros;
use sluicegate_sim::{Load, simulate};

use crate::page::{self, Section};
use crate::stats::Spread;
use crate::world::POD_UNITS;
use crate::{Outcome, Settings, cpu, machine};

/// The last recorded figures: the profile of the build, then one line for each path, its instructions behind it.
const RECORD: &str = "bench/micro.txt";
/// A path that takes so much more than recorded is a regression. The counts themselves repeat to a thousandth.
const WORSE: f64 = 0.03;
/// Lengths of the two counts whose difference is taken, so that the start falls out.
const SHORT: u64 = 2_000;
const LONG: u64 = 12_000;

/// What is done with the figures.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Choice {
    /// Compare with the recorded instructions, name what takes more, and fail if anything does.
    #[arg(long)]
    check: bool,
    /// Record the instructions for later comparisons.
    #[arg(long, conflicts_with = "check")]
    record: bool,
}

/// One path: what is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// An ask that fits and its release, nobody else: this placement, so many pods.
    Admit(Placement, usize),
    /// A full pool of ten pods with so many waiting: a release, which serves the best, and an ask that waits.
    Queue(usize),
    /// A shared ledger of so many pods: an ask, a release, and, when one is due, a report, the ledger's half and the reply.
    Exchange(usize),
}

const PATHS: [Path; 13] = [
    Path::Admit(Placement::Auto, 10),
    Path::Admit(Placement::Auto, 100),
    Path::Admit(Placement::Auto, 1_000),
    Path::Admit(Placement::Spread, 10),
    Path::Admit(Placement::Spread, 100),
    Path::Admit(Placement::Spread, 1_000),
    Path::Admit(Placement::Pack, 10),
    Path::Admit(Placement::Pack, 100),
    Path::Admit(Placement::Pack, 1_000),
    Path::Queue(100),
    Path::Queue(10_000),
    Path::Exchange(10),
    Path::Exchange(1_000),
];

impl Path {
    /// Its name in the record, which is also what the counting process is called with.
    fn name(self) -> String {
        match self {
            Path::Admit(placement, pods) => format!("admit-{placement:?}-{pods}").to_lowercase(),
            Path::Queue(waiting) => format!("queue-{waiting}"),
            Path::Exchange(pods) => format!("exchange-{pods}"),
        }
    }

    fn words(self) -> String {
        match self {
            Path::Admit(placement, pods) => {
                format!("ask and release, {pods} pods, placement `{placement:?}`").to_lowercase()
            }
            Path::Queue(waiting) => format!("full pool, {waiting} waiting: release, serve, ask, wait"),
            Path::Exchange(pods) => format!("shared: ask, release, and the exchange when due, {pods} pods"),
        }
    }

    fn repeat(self, count: u64) -> Outcome<()> {
        match self {
            Path::Admit(placement, pods) => admit(placement, pods, count),
            Path::Queue(waiting) => queue(waiting, count),
            Path::Exchange(pods) => exchange(pods, count),
        }
    }
}

/// # Errors
/// valgrind is not there, a record cannot be read or written, or `--check` found a regression.
pub(crate) fn run(settings: &Settings, choice: Choice) -> Outcome<()> {
    let recorded = if choice.check { read()? } else { BTreeMap::new() };
    let mut section = Section::begin("micro");
    let heads: &[&str] = &["path", "instructions", "recorded"];
    section.table(if choice.check { heads } else { &heads[..2] });
    let (mut record, mut worse) = (format!("profile {}\n", page::profile()), Vec::new());
    for path in PATHS {
        let (name, count) = (path.name(), instructions(path)?);
        let before = recorded.get(&name).copied();
        let beside = before.map_or_else(String::new, |before| format!(" | {before:.0}"));
        section.row(format!("{} | {count:.0}{beside}", path.words()));
        writeln!(record, "{name} {count:.0}").expect("a string takes all that is written");
        worse.extend(regression(&name, count, before.filter(|_| choice.check), choice.check));
    }
    if choice.check {
        section.end(&Settings { write: false, ..settings.clone() })?;
        return if worse.is_empty() { Ok(()) } else { Err(worse.join("\n")) };
    }
    if choice.record {
        std::fs::write(RECORD, record).map_err(|error| format!("{RECORD}: {error}"))?;
    }
    speed(&mut section, settings)?;
    section.note(
        "Instructions in user space by callgrind, the difference of two lengths. Two apis of weights 1 and 3; both wait where there is a queue. Speed: \
         one thread, CPU time by the scheduler's account, ten pods of 20 units, weights 1/2/3, arrivals drawn as they come. The bare heap \
         pushes one end for each arrival and pops those that are due, with the same times, and does nothing else.",
    );
    section.end(settings)
}

/// What a check says of one path: `None` if it takes no more than recorded.
fn regression(name: &str, count: f64, before: Option<f64>, checks: bool) -> Option<String> {
    match before {
        Some(before) if count > before * (1.0 + WORSE) => {
            let more = (count / before - 1.0) * 100.0;
            Some(format!(
                "{name}: {count:.0} instructions, {more:.1} % more than the {before:.0} of {RECORD}"
            ))
        }
        None if checks => Some(format!("{name}: not in {RECORD}: `bench/run micro --record`")),
        _ => None,
    }
}

fn read() -> Outcome<BTreeMap<String, f64>> {
    let text = std::fs::read_to_string(RECORD).map_err(|error| format!("{RECORD}: {error}"))?;
    let mut lines = text.lines();
    let profile = lines.next().and_then(|line| line.strip_prefix("profile ")).unwrap_or("?");
    if profile != page::profile() {
        return Err(format!(
            "{RECORD} is of a build with profile {profile}, this one is {}",
            page::profile()
        ));
    }
    let line = |line: &str| {
        let (name, count) = line.split_once(' ')?;
        Some((name.to_owned(), count.trim().parse().ok()?))
    };
    let lines = lines.map(|text| line(text).ok_or_else(|| format!("{RECORD}: `{text}`")));
    lines.collect()
}

fn instructions(path: Path) -> Outcome<f64> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let program = program.to_string_lossy();
    let count = |operations: u64| {
        machine::instructions(&[&program, "micro-loop", &path.name(), &operations.to_string()])
    };
    Ok(count(LONG)?.saturating_sub(count(SHORT)?) as f64 / (LONG - SHORT) as f64)
}

/// The counting process.
///
/// # Errors
/// There is no such path.
pub(crate) fn repeat(name: &str, count: u64) -> Outcome<()> {
    let path = PATHS.into_iter().find(|path| path.name() == name);
    path.ok_or_else(|| format!("no path `{name}`"))?.repeat(count)
}

fn policy(pods: usize) -> Policy {
    let names: Vec<String> = (0..pods).map(|number| format!("p{number}")).collect();
    let pods: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), POD_UNITS)).collect();
    let mut policy = Policy::simple(&pods, &[("light", 1), ("heavy", 3)]);
    policy.apis.iter_mut().for_each(|api| api.wait_us = 3_600_000_000);
    // A queue that stands for an hour is meant here.
    policy.admission.early = false;
    policy.admission.queue = 100_000;
    policy
}

fn gate(policy: Policy) -> Outcome<Gate> {
    Gate::new(policy, 1, Micros(0)).map_err(|error| error.to_string())
}

fn admit(placement: Placement, pods: usize, count: u64) -> Outcome<()> {
    let mut policy = policy(pods);
    policy.admission.placement = placement;
    let mut gate = gate(policy)?;
    let (light, mut out) = (ApiId(0), Vec::new());
    for turn in 0..count {
        let Answer::Granted(granted) = gate.ask(Micros(turn), Ask::new(light), &mut out) else {
            return Err("an empty pool has room".to_owned());
        };
        gate.release(Micros(turn), black_box(granted).lease, &mut out);
    }
    Ok(())
}

fn queue(waiting: usize, count: u64) -> Outcome<()> {
    let mut gate = gate(policy(10))?;
    let (light, mut out) = (ApiId(0), Vec::new());
    let mut held: std::collections::VecDeque<LeaseId> = std::collections::VecDeque::new();
    while let Answer::Granted(granted) = gate.ask(Micros(0), Ask::new(light), &mut out) {
        held.push_back(granted.lease);
    }
    for turn in 1..waiting as u64 {
        gate.ask(Micros(turn), Ask::new(ApiId((turn % 2) as u32)), &mut out);
    }
    for turn in 0..count {
        let now = Micros(waiting as u64 + turn);
        let lease = held.pop_front().ok_or("nobody is served any more")?;
        gate.release(now, lease, &mut out);
        for output in out.drain(..) {
            if let Output::Granted(_, granted) = output {
                held.push_back(black_box(granted).lease);
            }
        }
        gate.ask(now, Ask::new(ApiId((turn % 2) as u32)), &mut out);
    }
    Ok(())
}

fn exchange(pods: usize, count: u64) -> Outcome<()> {
    let (mut policy, rules) = (policy(pods), Rules::default());
    policy.apis.iter_mut().for_each(|api| api.wait_us = 1_000_000);
    let timing = Timing::of_wait(1_000_000);
    let mut keeper = Keeper::new(rules);
    keeper.found(1, 1);
    let member = Member::new(&policy, timing, rules, GateId(1), (1, 1), Micros(0));
    let mut member = member.map_err(|error| error.to_string())?;
    let (mut out, mut pushes) = (Vec::new(), Vec::new());
    let mut held: Vec<LeaseId> = Vec::new();
    // An exchange is due at every pace; ten seconds are past all beginnings.
    for turn in 0..2_000 + count {
        let now = Micros(turn * timing.pace_us);
        if let Answer::Granted(granted) = member.ask(now, Ask::new(ApiId(0)), &mut out) {
            held.push(granted.lease);
        }
        if held.len() > 10 {
            member.release(now, held.remove(0), &mut out);
        }
        if let Some(report) = member.poll(now, &mut out) {
            let reply = keeper.exchange(now, &report, &mut pushes);
            member.on_reply(now, black_box(&reply), &mut out);
        }
        for output in out.drain(..) {
            if let Output::Granted(_, granted) = output {
                held.push(granted.lease);
            }
        }
        pushes.clear();
    }
    Ok(())
}

/// Arrivals of one run in virtual time.
const ARRIVALS: usize = 1_000_000;

fn speed(section: &mut Section, settings: &Settings) -> Outcome<()> {
    section.table(&["core in virtual time", "million admissions per s of CPU, median", "min..max", "bar"]);
    let runs = settings.runs.min(5);
    for (load, wait_us) in [(0.8, 0), (0.8, 1_000_000), (0.95, 1_000_000), (1.1, 1_000_000)] {
        let names: Vec<String> = (0..10).map(|number| format!("p{number}")).collect();
        let pods: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), POD_UNITS)).collect();
        let mut policy = Policy::simple(&pods, &[("one", 1), ("two", 2), ("three", 3)]);
        policy.apis.iter_mut().for_each(|api| api.wait_us = wait_us);
        let traffic = Load::of_pool(&policy, load, 100_000);
        let figures = (0..runs).map(|seed| {
            let before = cpu::own_thread_ns()?;
            let report = simulate(&policy, &traffic, u64::from(seed) + 1, ARRIVALS);
            let report = report.map_err(|error| error.to_string())?;
            Ok(report.admitted() as f64 * 1e3 / (cpu::own_thread_ns()? - before) as f64)
        });
        let figures = figures.collect::<Outcome<Vec<f64>>>()?;
        let wait = if wait_us == 0 { "no waiting" } else { "wait 1 s" };
        section.row(format!("load {load}, {wait} | {} | about 2", Spread::of(&figures).cells(2)));
    }
    let bare = (0..runs).map(|seed| {
        let policy =
            Policy::simple(&[("one big pod", POD_UNITS * 10)], &[("one", 1), ("two", 2), ("three", 3)]);
        let traffic = Load::of_pool(&policy, 0.8, 100_000);
        let before = cpu::own_thread_ns()?;
        let mut heap = BinaryHeap::new();
        for (number, arrival) in traffic.arrivals(u64::from(seed) + 1).take(ARRIVALS).enumerate() {
            while heap.peek().is_some_and(|Reverse((at_us, _))| *at_us <= arrival.at_us) {
                black_box(heap.pop());
            }
            heap.push(Reverse((arrival.at_us + arrival.hold_us, number)));
        }
        Ok(ARRIVALS as f64 * 1e3 / (cpu::own_thread_ns()? - before) as f64)
    });
    let bare = bare.collect::<Outcome<Vec<f64>>>()?;
    section.row(format!("a bare heap of events, load 0.8 | {} | ", Spread::of(&bare).cells(2)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{PATHS, regression};

    #[test]
    fn every_path_can_be_repeated() {
        for path in PATHS {
            path.repeat(20).unwrap_or_else(|why| panic!("{}: {why}", path.name()));
        }
    }

    #[test]
    fn only_more_is_a_regression() {
        assert!(regression("x", 103.5, Some(100.0), true).is_some_and(|text| text.starts_with("x: 104")));
        assert_eq!(regression("x", 102.0, Some(100.0), true), None);
        assert_eq!(regression("x", 50.0, Some(100.0), true), None);
        assert!(regression("x", 50.0, None, true).is_some());
        assert_eq!(regression("x", 50.0, None, false), None);
    }
}
