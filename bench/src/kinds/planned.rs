//! What `sluicegate plan` foretells beside what the real gateway then answers, under the same traffic.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sluicegate_trial::load::{LAG_MAX, Plan, Record, equal_erlangs};

use crate::page::Section;
use crate::stats::Beside;
use crate::traffic::{Job, To, sent};
use crate::world::{Gateway, POD_UNITS, PODS, PodKind, Pods, folder, sluicegate, weights};
use crate::{Outcome, Settings};

const MEAN_MS: f64 = 100.0;
/// Load and wait of each run.
const CASES: [(f64, &str); 6] =
    [(0.9, "0"), (1.0, "0"), (1.2, "0"), (1.0, "50ms"), (1.2, "50ms"), (1.2, "1s")];
/// Before this the goodput is not counted: the pool fills.
const WARM_S: f64 = 3.0;
/// Length of the blocks whose scatter gives sigma.
const BLOCK_US: u64 = 1_000_000;

/// # Errors
/// A process failed, or the page cannot be written.
pub(crate) fn run(settings: &Settings) -> Outcome<()> {
    let bin = sluicegate(settings)?;
    let seconds = settings.seconds.unwrap_or(30.0);
    let mut section = Section::begin("planned");
    section.table(&[
        "load",
        "wait",
        "gateway, 429 %",
        "± 2 σ",
        "`plan` from the trace, 429 %",
        "ratio",
        "`plan` from rates alone, 429 %",
        "ratio",
        "gateway, goodput %",
        "`plan`, utilisation %",
        "bar",
    ]);
    for (number, (load, wait)) in CASES.into_iter().enumerate() {
        section.row(case(&bin, load, wait, seconds, number as u64 + 1)?);
    }
    section.note(format!(
        "{seconds:.0} s each, ten refusing pods of {POD_UNITS} units, weights 1/2/3 in equal Erlangs, exponential work with a mean of \
         {MEAN_MS:.0} ms; gateway, pods and load in a process each. The trace is a CSV as one would cut it from a log: time, api, \
         duration (sending to last byte, without the gate's wait) and status; `plan` draws what the refused would have held. From \
         rates alone: `--rps`, `--share` and `--service` as they were asked for, so the scatter of this one run is not in it. A share is \
         that of the whole run."
    ));
    section.end(settings)
}

/// A row.
fn case(bin: &Path, load: f64, wait: &str, seconds: f64, seed: u64) -> Outcome<String> {
    let pods = Pods::start(PodKind::default())?;
    let rules = weights(&pods.addrs, &format!("{{wait: {wait}}}"));
    let gateway = Gateway::start(bin, &rules, None, &[])?;
    let apis = equal_erlangs(&[1, 2, 3], POD_UNITS * PODS as u32, load, MEAN_MS);
    let plan = Plan { apis, seconds, seed };
    let records = sent(&[Job::new(plan.clone(), To::One(gateway.listen))], None)?;
    let record = &records[0];
    let total = record.summary().total;
    let folder = folder()?;
    let (config, trace) = (folder.path().join("shop.yaml"), folder.path().join("trace.csv"));
    let write = |path: &Path, text: &str| {
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    write(&config, &rules)?;
    write(&trace, &csv(record))?;
    let from_trace = foretold(bin, &config, &["--trace", &trace.to_string_lossy()])?;
    let rate: f64 = plan.apis.iter().map(|api| api.rate_per_s).sum();
    let shares = plan.apis.iter().map(|api| format!("w{}={}", api.weight, api.rate_per_s));
    let shares = shares.collect::<Vec<_>>().join(",");
    let service = format!("exp:{MEAN_MS}ms");
    let made = ["--rps", &rate.to_string(), "--share", &shares, "--service", &service];
    let from_rates = foretold(bin, &config, &made)?;
    let share = |row: &Value| row["refused_share"].as_f64().unwrap_or(f64::NAN);
    let lag = u128::from(record.lag_us_max()) > LAG_MAX.as_micros();
    let (expected, by_rates) = (share(&from_trace), share(&from_rates));
    Ok(format!(
        "{load} | {wait} | {:.2}{} | {:.2} | {:.2} | {:.3} | {:.2} | {:.3} | {:.1} | {:.1} | 0.85 to 1.15",
        total.refused_share * 100.0,
        if lag { " (void: lag)" } else { "" },
        two_sigma(record) * 100.0,
        expected * 100.0,
        total.refused_share / expected,
        by_rates * 100.0,
        total.refused_share / by_rates,
        goodput(record) * 100.0,
        from_trace["utilisation"].as_f64().unwrap_or(f64::NAN) * 100.0,
    ))
}

/// The run as a log.
fn csv(record: &Record) -> String {
    let mut text = "time,api,duration_us,status\n".to_owned();
    for sample in &record.samples {
        let weight = record.plan.apis[sample.api].weight;
        let (at_s, held_us) = (sample.sent_us as f64 / 1e6, sample.held_us());
        // A string takes all that is written.
        let _ = writeln!(text, "{at_s:.6},w{weight},{held_us},{}", sample.status);
    }
    text
}

/// The scenario that the configuration describes, as `plan` sees it.
fn foretold(bin: &Path, config: &Path, traffic: &[&str]) -> Outcome<Value> {
    let mut command = Command::new(bin);
    command.arg("plan").arg("-c").arg(config).args(["--only", "pooled", "--json"]).args(traffic);
    let output = command.output().map_err(|error| format!("plan: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let made: Value = serde_json::from_slice(&output.stdout).map_err(|_| format!("plan: {said}"))?;
    let row = made["scenarios"].as_array().and_then(|rows| rows.first().cloned());
    row.ok_or_else(|| format!("plan: no scenario: {said}"))
}

/// Twice the deviation of the gateway's share, from the scatter of its seconds.
fn two_sigma(record: &Record) -> f64 {
    let mut blocks: Vec<(u64, u64)> = Vec::new();
    for sample in &record.samples {
        let block = (sample.planned_us / BLOCK_US) as usize;
        blocks.resize(blocks.len().max(block + 1), (0, 0));
        blocks[block].0 += u64::from(sample.is_refused());
        blocks[block].1 += 1;
    }
    Beside::of(&blocks).map_or(0.0, |beside| beside.three_sigma * 2.0 / 3.0)
}

/// Units at useful work after the pool had filled, over the pool's.
fn goodput(record: &Record) -> f64 {
    let (from_us, to_us) = ((WARM_S * 1e6) as u64, (record.plan.seconds * 1e6) as u64);
    let served = record.samples.iter().filter(|sample| sample.is_served());
    let unit_us: f64 = served
        .map(|sample| {
            let begun_us = sample.done_us.saturating_sub(sample.held_us());
            let inside_us = sample.done_us.min(to_us).saturating_sub(begun_us.max(from_us));
            f64::from(record.plan.apis[sample.api].weight) * inside_us as f64
        })
        .sum();
    unit_us / (to_us.saturating_sub(from_us).max(1) as f64 * f64::from(POD_UNITS) * PODS as f64)
}
