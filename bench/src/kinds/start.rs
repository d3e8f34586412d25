//! The first second after a start.

use std::path::Path;
use std::time::Duration;

use sluicegate_trial::load::{Plan, Record, Sample, equal_erlangs};

use crate::page::Section;
use crate::traffic::{Job, To, sent};
use crate::world::{Gateway, POD_UNITS, PODS, PodKind, Pods, sluicegate, weights};
use crate::{Outcome, Settings};

const LOAD: f64 = 0.8;
const MEAN_MS: f64 = 100.0;

/// Seconds that are looked at; the last ones show what is usual.
const SECONDS: usize = 4;

/// # Errors
/// A process failed, or the page cannot be written.
pub(crate) fn run(settings: &Settings) -> Outcome<()> {
    let bin = sluicegate(settings)?;
    let mut section = Section::begin("start");
    section.table(&[
        "starts at load 0.8",
        "requests per second",
        "429 in second 1",
        "2",
        "3",
        "4",
        "failed",
        "bar",
    ]);
    for wait in ["0", "1s"] {
        for killed in [false, true] {
            let mut sum = Seconds::default();
            for turn in 0..settings.runs {
                sum.add(&started(&bin, wait, killed, u64::from(turn) + 1)?);
            }
            let how =
                if killed { "killed under load, and at once a new one" } else { "new gateway, idle pods" };
            let refused = sum.refused.map(|count| count.to_string()).join(" | ");
            section.row(format!(
                "{} x {how}, `wait: {wait}` | {} | {refused} | {} | second 1 <= second 2",
                settings.runs,
                sum.requests / u64::from(settings.runs) / SECONDS as u64,
                sum.failed
            ));
        }
    }
    section.note(
        "Counts over all starts together, from the moment the gateway is ready; ten refusing pods of twenty units, \
         weights 1/2/3. After the kill the pods still work for the requests of the old gateway, of which the new one \
         knows nothing: their own locks refuse, and those refusals go back to the queue.",
    );
    section.end(settings)
}

/// What the seconds after the starts saw.
#[derive(Default)]
struct Seconds {
    requests: u64,
    refused: [u64; SECONDS],
    failed: u64,
}

impl Seconds {
    fn add(&mut self, record: &Record) {
        for sample in &record.samples {
            let second = (sample.planned_us / 1_000_000) as usize;
            self.requests += 1;
            self.refused[second.min(SECONDS - 1)] += u64::from(sample.is_refused());
            self.failed += u64::from(!Sample::is_served(sample) && !sample.is_refused());
        }
    }
}

fn started(bin: &Path, wait: &str, killed: bool, seed: u64) -> Outcome<Record> {
    let pods = Pods::start(PodKind::default())?;
    let rules = weights(&pods.addrs, &format!("{{wait: {wait}}}"));
    let plan = |seconds: f64, seed: u64| Plan {
        apis: equal_erlangs(&[1, 2, 3], POD_UNITS * PODS as u32, LOAD, MEAN_MS),
        seconds,
        seed,
    };
    if killed {
        let mut old = Gateway::start(bin, &rules, None, &[])?;
        let job = Job::new(plan(2.0, seed + 1000), To::One(old.listen));
        std::thread::scope(|scope| {
            let load = scope.spawn(|| sent(&[job], None));
            std::thread::sleep(Duration::from_millis(1500));
            old.process.kill();
            // The new one is started while the load of the old one ends in refused connections.
            let record = restarted(bin, &rules, plan(SECONDS as f64, seed));
            let ended = load.join().map_err(|_| "the load before the kill panicked".to_owned())?;
            ended.and(record)
        })
    } else {
        restarted(bin, &rules, plan(SECONDS as f64, seed))
    }
}

fn restarted(bin: &Path, rules: &str, plan: Plan) -> Outcome<Record> {
    let gateway = Gateway::start(bin, rules, None, &[])?;
    Ok(sent(&[Job::new(plan, To::One(gateway.listen))], None)?.remove(0))
}
