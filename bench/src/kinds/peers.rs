//! The ways to stand before a pool, side by side in one run: the same pods, the same open-loop arrivals, the same weights.

mod chart;
mod ways;

use std::path::Path;

use sluicegate_trial::load::{LAG_MAX, Plan, Record, Sample, equal_erlangs};

use crate::page::Section;
use crate::stats::quantile;
use crate::traffic::{Job, To, sent};
use crate::world::{OTHER_CORE, POD_UNITS, PODS, PodKind, Pods, sluicegate};
use crate::{Outcome, Settings, cpu, rivals};
use ways::{Running, Way};

const MEAN_MS: f64 = 100.0;
/// Before anything is counted: a queue that only begins to fill refuses nobody.
const WARM_S: f64 = 3.0;
const COUNTED_S: f64 = 8.0;
/// Length of a run with pods that only count, of which the peak is taken.
const COUNT_ONLY_S: f64 = 4.0;

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Choice {
    /// Offered units over the pool's units.
    #[arg(long, value_delimiter = ',', default_value = "0.7,0.8,0.9,1.0,1.2")]
    loads: Vec<f64>,
    /// Only these, by their letters: `a1,f`. With it nothing can be written.
    #[arg(long, value_name = "WAY", value_delimiter = ',')]
    only: Vec<String>,
}

/// One way at one load.
#[derive(Clone, Copy, Debug)]
struct Seen {
    load: f64,
    /// Answered 429 or 503, 0 to 1.
    refused: f64,
    /// Answered neither so nor 200.
    failed: usize,
    /// Refusals of the pods' own locks, per 1,000 requests.
    by_pods: f64,
    /// Units by which a pod that only counts was exceeded at most.
    over: u32,
    /// Units at useful work on average, over the pool's.
    goodput: f64,
    /// Milliseconds from the planned sending to the last byte, beyond the work asked for: p50, p99, p99.9.
    added_ms: [f64; 3],
    /// CPU of the proxies and of their store, microseconds per request.
    cpu_us: [f64; 2],
    lag_us: u64,
}

impl Seen {
    fn is_void(&self) -> bool {
        u128::from(self.lag_us) > LAG_MAX.as_micros()
    }
}

/// One way at all loads.
struct Row {
    way: Way,
    seen: Vec<Seen>,
}

/// # Errors
/// A part is missing or failed, or the page or the picture cannot be written.
pub(crate) fn run(settings: &Settings, choice: &Choice) -> Outcome<()> {
    let ways = chosen(&choice.only)?;
    if settings.write && ways.len() < Way::ALL.len() {
        return Err("--write and --only: the page and the picture need all ways".to_owned());
    }
    let bin = sluicegate(settings)?;
    let mut section = Section::begin("peers");
    let counted_s = settings.seconds.unwrap_or(COUNTED_S);
    let mut rows = Vec::new();
    for way in ways {
        let seen = measured(&bin, way, &choice.loads, counted_s)?;
        rows.push(Row { way, seen });
    }
    tables(&mut section, &rows, &choice.loads);
    section.note(better(&rows));
    section.note(said(&rows, counted_s));
    for row in &rows {
        section.note(format!("**{} {}**: {}.", row.way.letter(), row.way.name(), row.way.how()));
    }
    if settings.write {
        let path = "docs/peers.svg";
        std::fs::write(path, chart::svg(&rows, &choice.loads)).map_err(|error| format!("{path}: {error}"))?;
    }
    section.end(settings)
}

fn chosen(only: &[String]) -> Outcome<Vec<Way>> {
    let find = |letter: &String| Way::ALL.into_iter().find(|way| way.letter() == letter);
    if let Some(stranger) = only.iter().find(|letter| find(letter).is_none()) {
        let letters = Way::ALL.map(Way::letter).join(", ");
        return Err(format!("there is no way `{stranger}`; there are {letters}"));
    }
    Ok(if only.is_empty() { Way::ALL.to_vec() } else { only.iter().filter_map(find).collect() })
}

/// First with pods that refuse, then with pods that only count; each time one start for all loads, so that what learns may
/// have learnt.
fn measured(bin: &Path, way: Way, loads: &[f64], counted_s: f64) -> Outcome<Vec<Seen>> {
    let mut all: Vec<Seen> = Vec::new();
    let pods = pods(false)?;
    let running = way.start(bin, &pods.addrs)?;
    for (number, load) in loads.iter().enumerate() {
        let seen = refusing(&pods, &running, *load, WARM_S + counted_s, number as u64 + 1)?;
        all.push(seen);
    }
    drop((running, pods));
    let pods = self::pods(true)?;
    let running = way.start(bin, &pods.addrs)?;
    for (number, seen) in all.iter_mut().enumerate() {
        let seconds = COUNT_ONLY_S.min(WARM_S + counted_s);
        let (records, peak) = sent_to(&pods, &running, seen.load, seconds, number as u64 + 1)?;
        seen.lag_us = seen.lag_us.max(records.iter().map(Record::lag_us_max).max().unwrap_or(0));
        seen.over = peak.saturating_sub(POD_UNITS);
        eprintln!("{} {}: {}", way.letter(), way.name(), line(seen));
    }
    Ok(all)
}

fn line(seen: &Seen) -> String {
    let Seen { load, refused, failed, by_pods, over, goodput, added_ms, cpu_us, .. } = seen;
    format!(
        "load {load}: refused {:.2} %, by pods {by_pods:.1} of 1000, over by {over}, goodput {:.1} %, added {added_ms:.1?} ms, \
         CPU {cpu_us:.1?} us, failed {failed}{}",
        refused * 100.0,
        goodput * 100.0,
        if seen.is_void() { ", VOID: the load lagged" } else { "" }
    )
}

fn pods(count_only: bool) -> Outcome<Pods> {
    let pods = Pods::start(PodKind { count_only, late: 0, units: 0 })?;
    pods.confine(OTHER_CORE)?;
    Ok(pods)
}

/// The load's records, and the highest peak of a pod.
fn sent_to(
    pods: &Pods,
    running: &Running,
    load: f64,
    seconds: f64,
    seed: u64,
) -> Outcome<(Vec<Record>, u32)> {
    pods.until_idle()?;
    pods.reset()?;
    let apis = equal_erlangs(&[1, 2, 3], POD_UNITS * PODS as u32, load, MEAN_MS);
    let to = match running.targets.as_slice() {
        [one] => To::One(*one),
        many => To::RoundRobin(many.to_vec()),
    };
    let records = sent(&[Job::new(Plan { apis, seconds, seed }, to)], Some(OTHER_CORE))?;
    let peak = pods.gauges()?.iter().map(|gauge| gauge.peak).max().unwrap_or(0);
    Ok((records, peak))
}

fn refusing(pods: &Pods, running: &Running, load: f64, seconds: f64, seed: u64) -> Outcome<Seen> {
    let spent = |pids: &[u32]| pids.iter().map(|pid| cpu::cpu_ns(*pid)).sum::<Outcome<u64>>();
    let before = [spent(&running.proxies)?, spent(&running.stores)?];
    let (records, _) = sent_to(pods, running, load, seconds, seed)?;
    let after = [spent(&running.proxies)?, spent(&running.stores)?];
    let by_pods: u64 = pods.gauges()?.iter().map(|gauge| gauge.refused).sum();
    let record = &records[0];
    let all = record.samples.len().max(1) as f64;
    let counted: Vec<&Sample> =
        record.samples.iter().filter(|sample| sample.planned_us as f64 >= WARM_S * 1e6).collect();
    let refused = counted.iter().filter(|sample| is_refused(sample)).count();
    let served: Vec<&&Sample> = counted.iter().filter(|sample| sample.is_served()).collect();
    let (from_us, to_us) = ((WARM_S * 1e6) as u64, (seconds * 1e6) as u64);
    let work_us = |sample: &Sample| {
        // The work is the last part of the time that the request took.
        let begun_us = sample.done_us.saturating_sub(sample.hold_us);
        sample.done_us.min(to_us).saturating_sub(begun_us.max(from_us))
    };
    let done = record.samples.iter().filter(|sample| sample.is_served());
    let unit_us: f64 =
        done.map(|sample| f64::from(record.plan.apis[sample.api].weight) * work_us(sample) as f64).sum();
    let added = |sample: &&&Sample| (sample.done_us - sample.planned_us).saturating_sub(sample.hold_us);
    let mut added: Vec<u64> = served.iter().map(added).collect();
    Ok(Seen {
        load,
        refused: refused as f64 / counted.len().max(1) as f64,
        failed: counted.len() - refused - served.len(),
        by_pods: by_pods as f64 * 1000.0 / all,
        over: 0,
        goodput: unit_us / ((to_us - from_us) as f64 * f64::from(POD_UNITS) * PODS as f64),
        added_ms: [0.5, 0.99, 0.999].map(|q| quantile(&mut added, q) as f64 / 1e3),
        cpu_us: [0, 1].map(|side| (after[side] - before[side]) as f64 / all / 1e3),
        lag_us: record.lag_us_max(),
    })
}

/// A refusal in the words of any of the ways.
fn is_refused(sample: &Sample) -> bool {
    matches!(sample.status, 429 | 503)
}

/// A figure of the tables: what it is, how it is printed, and what to compare, where less is better.
struct Figure {
    title: &'static str,
    print: fn(&Seen) -> String,
    worth: fn(&Seen) -> f64,
}

const FIGURES: [Figure; 6] = [
    Figure {
        title: "429 or 503, % of the requests",
        print: |seen| format!("{:.2}", seen.refused * 100.0),
        worth: |seen| round(seen.refused * 100.0, 2),
    },
    Figure {
        title: "most units above its capacity of any pod (pods that only count)",
        print: |seen| seen.over.to_string(),
        worth: |seen| f64::from(seen.over),
    },
    Figure {
        title: "refused by the pods' own locks, per 1,000 requests",
        print: |seen| format!("{:.1}", seen.by_pods),
        worth: |seen| round(seen.by_pods, 1),
    },
    Figure {
        title: "goodput: units at useful work, % of the pool",
        print: |seen| format!("{:.1}", seen.goodput * 100.0),
        worth: |seen| -round(seen.goodput * 100.0, 1),
    },
    Figure {
        title: "added latency of the served, ms: p50 / p99 / p99.9",
        print: |seen| seen.added_ms.map(|ms| format!("{ms:.1}")).join(" / "),
        worth: |seen| round(seen.added_ms[1], 1),
    },
    Figure {
        title: "CPU of the proxies, µs per request, and of their Redis",
        print: |seen| {
            let [proxies, store] = seen.cpu_us;
            if store > 0.0 { format!("{proxies:.0} + {store:.0}") } else { format!("{proxies:.0}") }
        },
        worth: |seen| round(seen.cpu_us.iter().sum(), 0),
    },
];

fn round(value: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    (value * scale).round() / scale
}

fn tables(section: &mut Section, rows: &[Row], loads: &[f64]) {
    for figure in &FIGURES {
        let heads: Vec<String> = loads.iter().map(|load| format!("load {load}")).collect();
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        section.note(format!("**{}{}**", figure.title[..1].to_uppercase(), &figure.title[1..]));
        section.table(&[&["", "way"], heads.as_slice()].concat());
        let of_load = |at: usize| rows.iter().map(move |row| &row.seen[at]).filter(|seen| !seen.is_void());
        let best = |at: usize| of_load(at).map(figure.worth).fold(f64::INFINITY, f64::min);
        let best: Vec<f64> = (0..loads.len()).map(best).collect();
        for row in rows {
            let cell = |(seen, best): (&Seen, &f64)| {
                let text = (figure.print)(seen);
                match seen.is_void() {
                    true => format!("{text} (void)"),
                    false if (figure.worth)(seen) <= *best => format!("**{text}**"),
                    false => text,
                }
            };
            let cells: Vec<String> = row.seen.iter().zip(&best).map(cell).collect();
            section.row(format!("{} | {} | {}", row.way.letter(), row.way.name(), cells.join(" | ")));
        }
    }
}

/// Where others are better than Sluicegate with one gate at every load, in words.
fn better(rows: &[Row]) -> String {
    let Some(ours) = rows.iter().find(|row| row.way == Way::Memory) else { return String::new() };
    let mut said = Vec::new();
    for figure in &FIGURES {
        let wins = |row: &&Row| {
            let mut pairs = row.seen.iter().zip(&ours.seen);
            !row.way.is_ours() && pairs.all(|(other, our)| (figure.worth)(other) < (figure.worth)(our))
        };
        let names: Vec<&str> = rows.iter().filter(wins).map(|row| row.way.name()).collect();
        if !names.is_empty() {
            said.push(format!("{}: {}", figure.title, names.join(", ")));
        }
    }
    if said.is_empty() {
        return "No other way is better than one Sluicegate gate at every load in any of these.".to_owned();
    }
    format!(
        "Better than one Sluicegate gate at every load, by their p99 where latency is meant: {}.",
        said.join("; ")
    )
}

fn said(rows: &[Row], counted_s: f64) -> String {
    let failed: usize = rows.iter().flat_map(|row| &row.seen).map(|seen| seen.failed).sum();
    let lag = rows.iter().flat_map(|row| &row.seen).map(|seen| seen.lag_us).max().unwrap_or(0);
    format!(
        "{}, {}. Ten pods of {POD_UNITS} units, weights 1/2/3 in equal Erlangs, exponential work with a mean of {MEAN_MS:.0} ms; \
         at each load all ways get the same arrivals. Proxies, gates and Redis on one core, pods and load on the other. \
         {WARM_S:.0} s are sent before {counted_s:.0} s that count; {COUNT_ONLY_S:.0} s more with pods that only count. Added latency: from \
         the planned sending to the last byte, without the work asked for; a way that refuses at once has no waits in it. Bold: the \
         best of its column. Neither served nor refused: {failed} requests. Largest lag of the load: {:.1} ms (void above 50).",
        rivals::versions(),
        rivals::envoy_version(),
        lag as f64 / 1e3
    )
}
