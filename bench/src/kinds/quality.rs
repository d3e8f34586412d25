//! 429 shares and peaks of real traffic, beside best fit in virtual time and beside each pod alone.

use std::path::Path;

use sluicegate_sim::{Arrival, WaitOrder, replay_best_fit_waiting};
use sluicegate_trial::load::{LAG_MAX, Plan, Record, Sample, equal_erlangs};

use crate::page::Section;
use crate::stats::{Beside, quantile};
use crate::traffic::{Job, To, sent};
use crate::world::{Gateway, POD_UNITS, PODS, PodKind, Pods, sluicegate, weights};
use crate::{Outcome, Settings};

const MEAN_MS: f64 = 100.0;

/// Share of the clients that leave, where some do, and how long they stay.
const LEAVERS: f64 = 0.05;
const LEAVERS_STAY_MS: u64 = 30;

/// Length of the blocks whose scatter gives sigma: several holding times.
const BLOCK_US: u64 = 1_000_000;

/// One run through the gateway.
#[derive(Clone, Copy)]
struct Case {
    load: f64,
    wait_ms: u64,
    placement: &'static str,
    pods: PodKind,
    /// Of the clients.
    leavers: bool,
    /// The most that the share may be over the replay's, before 3 sigma.
    bar: f64,
}

impl Case {
    const fn new(load: f64, wait_ms: u64, placement: &'static str, bar: f64) -> Case {
        let pods = PodKind { count_only: true, late: 0, units: 0 };
        Case { load, wait_ms, placement, pods, leavers: false, bar }
    }

    /// What sets it apart.
    fn words(&self) -> String {
        let count = if self.pods.count_only { "count only" } else { "refusing" };
        let late =
            if self.pods.late > 0 { format!(", {} free 2 ms late", self.pods.late) } else { String::new() };
        let leave = if self.leavers { ", 5 % of the clients leave" } else { "" };
        format!("{} | {} | {} | {count}{late}{leave}", self.load, self.wait_ms, self.placement)
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for load in [0.8, 0.9, 1.0] {
        cases.push(Case::new(load, 0, "pack", 1.15));
        cases.push(Case::new(load, 0, "auto", 1.25));
    }
    let waiting = Case::new(0.95, 1000, "auto", 1.25);
    let refusing = PodKind::default();
    let late = PodKind { late: 3, ..refusing };
    cases.extend([
        waiting,
        Case { pods: refusing, ..Case::new(0.9, 0, "pack", 1.15) },
        Case { pods: refusing, ..Case::new(0.9, 0, "auto", 1.25) },
        Case { pods: refusing, ..waiting },
        Case { pods: late, ..Case::new(0.9, 0, "auto", 1.25) },
        Case { pods: late, ..waiting },
        Case { pods: PodKind { count_only: true, ..late }, ..waiting },
        Case { leavers: true, ..Case::new(0.9, 0, "auto", 1.25) },
        Case { leavers: true, ..waiting },
    ]);
    cases
}

/// # Errors
/// A process failed, or the page cannot be written.
pub(crate) fn run(settings: &Settings) -> Outcome<()> {
    let bin = sluicegate(settings)?;
    let seconds = settings.seconds.unwrap_or(60.0);
    let mut section = Section::begin("quality");
    section.table(&[
        "load",
        "wait ms",
        "placement",
        "pods and clients",
        "429 %",
        "best fit %",
        "best fit, holds as asked %",
        "ratio",
        "± 3 σ",
        "bar",
        "peak of a pod",
        "refused by pods",
        "failed",
        "p99 over the hold, ms",
    ]);
    for (number, case) in cases().iter().enumerate() {
        // The same seed for both placements of a load: the same arrivals.
        let seed = number as u64 / 2 + 1;
        section.row(through_gateway(&bin, case, seconds, seed)?);
    }
    section.table(&["each pod alone: load", "random pod, 429 %", "round robin, 429 %"]);
    for load in [0.8, 0.9, 1.0] {
        let mut row = format!("{load}");
        for random in [true, false] {
            row += &format!(" | {:.2}", alone(load, random, seconds)? * 100.0);
        }
        section.row(row);
    }
    section.note(format!(
        "{seconds:.0} s each; ten pods of {POD_UNITS} units, weights 1/2/3 in equal Erlangs, exponential holds with a \
         mean of {MEAN_MS:.0} ms; gateway, pods and load in a process each. Best fit: the same arrivals and measured \
         holds replayed in virtual time, with the same wait; the hold is the client's, so it is a little longer than the \
         lease was, and the replay with the holds that were asked for is the bound from the other side. Sigma from the scatter of blocks of one second. \
         Clients that leave do so after {LEAVERS_STAY_MS} ms, and their pods work on."
    ));
    section.end(settings)
}

/// A row.
fn through_gateway(bin: &Path, case: &Case, seconds: f64, seed: u64) -> Outcome<String> {
    let pods = Pods::start(case.pods)?;
    let admission = format!("{{wait: {}ms, placement: {}}}", case.wait_ms, case.placement);
    let gateway = Gateway::start(bin, &weights(&pods.addrs, &admission), None, &[])?;
    pods.reset()?;
    let plan = |share: f64, seed: u64| Plan {
        apis: equal_erlangs(&[1, 2, 3], POD_UNITS * PODS as u32, case.load * share, MEAN_MS),
        seconds,
        seed,
    };
    let to = To::One(gateway.listen);
    let mut jobs = vec![Job::new(plan(1.0, seed), to.clone())];
    if case.leavers {
        jobs = vec![
            Job::new(plan(1.0 - LEAVERS, seed), to.clone()),
            Job { patience_ms: LEAVERS_STAY_MS, ..Job::new(plan(LEAVERS, seed + 1000), to) },
        ];
    }
    let records = sent(&jobs, None)?;
    pods.until_idle()?;
    let gauges = pods.gauges()?;
    let mut events = events(&records);
    let measured = Measured::of(&mut events, case.wait_ms);
    let lag = records.iter().map(Record::lag_us_max).max().unwrap_or(0);
    let peak = gauges.iter().map(|gauge| gauge.peak).max().unwrap_or(0);
    let refused_by_pods: u64 = gauges.iter().map(|gauge| gauge.refused).sum();
    let beside = Beside::of(&measured.blocks);
    let (ratio, sigma) = match beside {
        Some(beside) => (format!("{:.3}", beside.ratio), format!("{:.3}", beside.three_sigma)),
        None => ("none expected".to_owned(), String::new()),
    };
    let void = if u128::from(lag) > LAG_MAX.as_micros() { " (void: lag)" } else { "" };
    Ok(format!(
        "{} | {:.3}{void} | {:.3} | {:.3} | {ratio} | {sigma} | {} | {peak} of {POD_UNITS} | {refused_by_pods} | {} | {:.1}",
        case.words(),
        measured.refused * 100.0,
        measured.expected * 100.0,
        measured.expected_as_asked * 100.0,
        case.bar,
        measured.failed,
        measured.over_p99_us as f64 / 1000.0,
    ))
}

/// One request of a run, with what the replay needs.
struct Event {
    arrival: Arrival,
    sample: Sample,
    /// Its client was one that leaves.
    leaver: bool,
}

/// All requests in the order of their sending.
fn events(records: &[Record]) -> Vec<Event> {
    let mut events = Vec::new();
    for (number, record) in records.iter().enumerate() {
        // What a hold takes beyond what was asked: the pod's timer, and the way there and back.
        let served = record.samples.iter().filter(|sample| sample.is_served());
        let mut over: Vec<u64> =
            served.map(|sample| sample.held_us().saturating_sub(sample.hold_us)).collect();
        let over = quantile(&mut over, 0.5);
        for sample in &record.samples {
            let hold_us = if sample.is_served() { sample.held_us() } else { sample.hold_us + over };
            let weight = record.plan.apis[sample.api].weight;
            let arrival = Arrival { at_us: sample.sent_us, api: sample.api, weight, hold_us };
            events.push(Event { arrival, sample: sample.clone(), leaver: number > 0 });
        }
    }
    events.sort_by_key(|event| event.arrival.at_us);
    events
}

/// A run beside its replay.
struct Measured {
    refused: f64,
    expected: f64,
    /// The same with the holds that were asked for: less than any real pod can do, its timer alone takes more.
    expected_as_asked: f64,
    /// Refused and expected, by blocks of time.
    blocks: Vec<(u64, u64)>,
    /// Neither served nor refused, but for the clients that left.
    failed: usize,
    over_p99_us: u64,
}

impl Measured {
    fn of(events: &mut [Event], wait_ms: u64) -> Measured {
        let arrivals: Vec<Arrival> = events.iter().map(|event| event.arrival).collect();
        let replay = |arrivals: &[Arrival]| {
            replay_best_fit_waiting(arrivals, &[POD_UNITS; PODS], wait_ms * 1000, WaitOrder::LightFirst)
        };
        let best = replay(&arrivals);
        let as_asked = events.iter().map(|event| Arrival { hold_us: event.sample.hold_us, ..event.arrival });
        let as_asked = replay(&as_asked.collect::<Vec<_>>());
        let mut blocks: Vec<(u64, u64)> = Vec::new();
        for (event, served) in events.iter().zip(&best.served) {
            let block = (event.arrival.at_us / BLOCK_US) as usize;
            blocks.resize(blocks.len().max(block + 1), (0, 0));
            blocks[block].0 += u64::from(event.sample.is_refused());
            blocks[block].1 += u64::from(!served);
        }
        let refused: u64 = blocks.iter().map(|block| block.0).sum();
        let lost = |event: &&Event| !event.sample.is_served() && !event.sample.is_refused() && !event.leaver;
        let served = events.iter().filter(|event| event.sample.is_served());
        let mut over: Vec<u64> = served
            .map(|event| (event.sample.done_us - event.sample.sent_us).saturating_sub(event.sample.hold_us))
            .collect();
        Measured {
            refused: refused as f64 / events.len().max(1) as f64,
            expected: best.share_refused(),
            expected_as_asked: as_asked.share_refused(),
            failed: events.iter().filter(lost).count(),
            over_p99_us: quantile(&mut over, 0.99),
            blocks,
        }
    }
}

/// The share that pods refuse when nobody co-ordinates them.
fn alone(load: f64, random: bool, seconds: f64) -> Outcome<f64> {
    let pods = Pods::start(PodKind::default())?;
    let to = if random { To::Random(pods.addrs.clone()) } else { To::RoundRobin(pods.addrs.clone()) };
    let apis = equal_erlangs(&[1, 2, 3], POD_UNITS * PODS as u32, load, MEAN_MS);
    let records = sent(&[Job::new(Plan { apis, seconds, seed: 1 }, to)], None)?;
    Ok(records[0].summary().total.refused_share)
}
