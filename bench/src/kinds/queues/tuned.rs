//! Units done per second by our consumer of Kafka, beside one whose concurrency was tuned by hand.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sluicegate_testkit::process::Process;

use super::consumer::Tuning;
use super::{Extent, topics};
use crate::Outcome;
use crate::page::Section;
use crate::stats::Spread;
use crate::world::{Gateway, OTHER_CORE, POD_UNITS, PODS, PROXY_CORE, PodKind, Pods, pinned, weights};

/// A consumer joins its group, or there is something wrong.
const SOON: Duration = Duration::from_secs(60);
/// Left out at the beginning of each tuning.
const SETTLE: Duration = Duration::from_millis(700);
/// Concurrencies tried, in parts of what fills the pool in the mean.
const PARTS: [f64; 7] = [0.6, 0.75, 0.9, 1.0, 1.15, 1.35, 1.7];
/// Pauses after a 429 tried, milliseconds.
const PAUSES_MS: [u64; 2] = [50, 10];

/// The weights of a topic's messages.
struct Mix {
    name: &'static str,
    topic: &'static str,
    weights: &'static [u32],
    bar: f64,
}

const MIXES: [Mix; 2] = [
    Mix { name: "all of 2", topic: "equal", weights: &[2], bar: 0.95 },
    Mix { name: "1, 2 and 3", topic: "mixed", weights: &[1, 2, 3], bar: 1.0 },
];

/// What the pods saw within a span.
#[derive(Clone, Copy, Debug)]
struct Seen {
    units_s: f64,
    /// 429s of their locks per 1,000 messages done.
    refused: f64,
}

/// # Errors
/// A topic cannot be filled or does not last, or a consumer does not begin.
pub(super) fn measured(bin: &Path, brokers: &str, extent: &Extent, section: &mut Section) -> Outcome<()> {
    section.table(&[
        "weights",
        "run",
        "ours, units/s",
        "429 per 1,000",
        "tuned, units/s",
        "429 per 1,000",
        "ratio",
        "bar",
    ]);
    let mut notes = Vec::new();
    for mix in &MIXES {
        topics::fill(brokers, mix.topic, extent.messages, mix.weights)?;
        let trial = Trial { bin, brokers, mix, extent };
        let (best, tried) = trial.search()?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for run in 1..=extent.runs {
            let mine = trial.ours(run)?;
            let tuned = trial.tuned(run, best)?;
            section.row(format!(
                "{} | {run} | {:.0} | {:.1} | {:.0} | {:.1} | {:.3} | {}{:.2}",
                mix.name,
                mine.units_s,
                mine.refused,
                tuned.units_s,
                tuned.refused,
                mine.units_s / tuned.units_s,
                if mix.bar < 1.0 { "at least " } else { "above " },
                mix.bar
            ));
            ours.push(mine.units_s);
            theirs.push(tuned.units_s);
        }
        notes.push(format!(
            "Weights {}: ours / tuned {:.3}, tuned to {} in flight and {} ms. Tried (in flight, pause: units/s, 429 per \
             1,000): {tried}.",
            mix.name,
            Spread::of_ratios(&ours, &theirs).median,
            best.concurrency,
            best.pause_ms
        ));
    }
    notes.into_iter().for_each(|note| section.note(note));
    section.note(format!(
        "{PODS} pods of {POD_UNITS} units with their own locks, messages of {:.0} ms in the mean (exponential), so at most \
         {:.0} units/s; units that the pods gave back in {:.0} s. *Ours*: `order: none` and else the defaults of a source. \
         *Tuned*: a consumer on the same client, with a fixed number of messages in flight, each sent to the next pod in \
         turn; after a 429 it waits (the pause, spread by half) and tries the next pod, until one takes it. The best of \
         {} settings, searched in the same run for these weights, {:.1} s each. It commits offsets as the client does by \
         itself, before the work is done. Each consumer has core {PROXY_CORE}, the pods core {OTHER_CORE}.",
        topics::MEAN_MS,
        f64::from(PODS as u32 * POD_UNITS) * 1000.0 / topics::MEAN_MS,
        extent.seconds,
        PARTS.len() * PAUSES_MS.len(),
        extent.step_s
    ));
    Ok(())
}

struct Trial<'a> {
    bin: &'a Path,
    brokers: &'a str,
    mix: &'a Mix,
    extent: &'a Extent,
}

impl Trial<'_> {
    fn pods(&self) -> Outcome<Pods> {
        let pods = Pods::start(PodKind::default())?;
        pods.confine(OTHER_CORE)?;
        Ok(pods)
    }

    /// The tuning with most units per second, and all that were tried in words.
    fn search(&self) -> Outcome<(Tuning, String)> {
        let pods = self.pods()?;
        let mean = f64::from(self.mix.weights.iter().sum::<u32>()) / self.mix.weights.len() as f64;
        let fills = f64::from(PODS as u32 * POD_UNITS) / mean;
        let tunings: Vec<Tuning> = PARTS
            .iter()
            .map(|part| (part * fills).round() as usize)
            .flat_map(|concurrency| PAUSES_MS.map(|pause_ms| Tuning { concurrency, pause_ms }))
            .collect();
        let mut consumer = self.consumer(&pods, "search", &tunings, self.extent.step_s)?;
        let (mut best, mut tried) = ((tunings[0], 0.0), Vec::new());
        for (number, tuning) in tunings.iter().enumerate() {
            let seen = self.watch(&pods, &mut consumer, number, self.extent.step_s - SETTLE.as_secs_f64())?;
            tried.push(format!(
                "{}, {} ms: {:.0}, {:.0}",
                tuning.concurrency, tuning.pause_ms, seen.units_s, seen.refused
            ));
            eprintln!("{}", tried.last().expect("it was just pushed"));
            if seen.units_s > best.1 {
                best = (*tuning, seen.units_s);
            }
        }
        Ok((best.0, tried.join("; ")))
    }

    fn tuned(&self, run: u32, best: Tuning) -> Outcome<Seen> {
        let pods = self.pods()?;
        let mut consumer = self.consumer(&pods, &format!("tuned-{run}"), &[best], 0.0)?;
        self.watch(&pods, &mut consumer, 0, self.extent.seconds)
    }

    fn ours(&self, run: u32) -> Outcome<Seen> {
        let pods = self.pods()?;
        let group = format!("ours-{}-{run}", self.mix.topic);
        let worker = topics::worker(self.brokers, self.mix.topic, &group);
        let rules = weights(&pods.addrs, "{wait: 1s}") + &worker;
        let gateway = Gateway::start(self.bin, &rules, None, &["taskset", "-c", PROXY_CORE])?;
        let begin = Instant::now();
        while reading(&pods)?.served == 0 {
            if begin.elapsed() > SOON {
                return Err(format!("no message within a minute:\n{}", gateway.process.output()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(SETTLE);
        self.span(&pods, self.extent.seconds)
    }

    fn consumer(&self, pods: &Pods, group: &str, tunings: &[Tuning], seconds: f64) -> Outcome<Process> {
        let program = std::env::current_exe().map_err(|error| format!("this program's own path: {error}"))?;
        let mut command: Command = pinned(PROXY_CORE, program);
        let group = format!("{group}-{}", self.mix.topic);
        let joined = |all: Vec<String>| all.join(",");
        let pods = joined(pods.addrs.iter().map(ToString::to_string).collect());
        let tunings = tunings.iter().map(|one| format!("{}:{}", one.concurrency, one.pause_ms)).collect();
        command.args(["consume", self.brokers, self.mix.topic, &group, &seconds.to_string()]).args([
            "--pods",
            &pods,
            "--tunings",
            &joined(tunings),
        ]);
        Ok(Process::spawn(command))
    }

    /// What the pods see within so many seconds of a tuning.
    fn watch(&self, pods: &Pods, consumer: &mut Process, number: usize, seconds: f64) -> Outcome<Seen> {
        let mark = format!("tuning {number}");
        consumer.line(SOON, |line| (line == mark).then_some(()));
        std::thread::sleep(SETTLE);
        self.span(pods, seconds)
    }

    fn span(&self, pods: &Pods, seconds: f64) -> Outcome<Seen> {
        let (begin, before) = (Instant::now(), reading(pods)?);
        std::thread::sleep(Duration::from_secs_f64(seconds));
        let (took, after) = (begin.elapsed(), reading(pods)?);
        if after.served >= self.extent.messages - self.extent.messages / 50 {
            return Err(format!("the {} messages of a topic did not last", self.extent.messages));
        }
        let done = after.served - before.served;
        Ok(Seen {
            units_s: (after.units - before.units) as f64 / took.as_secs_f64(),
            refused: (after.refused - before.refused) as f64 * 1000.0 / done.max(1) as f64,
        })
    }
}

/// All pods together.
struct Reading {
    served: u64,
    units: u64,
    refused: u64,
}

fn reading(pods: &Pods) -> Outcome<Reading> {
    let gauges = pods.gauges()?;
    Ok(Reading {
        served: gauges.iter().map(|gauge| gauge.served).sum(),
        units: gauges.iter().map(|gauge| gauge.units).sum(),
        refused: gauges.iter().map(|gauge| gauge.refused).sum(),
    })
}
