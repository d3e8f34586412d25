//! What a backlog in the background costs the requests whose clients wait.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use sluicegate_testkit::client::Raw;
use sluicegate_trial::load::{Plan, equal_erlangs};

use crate::page::Section;
use crate::traffic::{Job, To, sent};
use crate::world::{self, Gateway, POD_UNITS, PODS, PodKind, Pods, pool, sluicegate};
use crate::{Outcome, Settings};

/// Jobs in the backlog.
const BACKLOG: u64 = 100_000;
/// Connections that fill it.
const FILLERS: u64 = 16;
/// Of the clients' requests, in units of the pool.
const LOAD: f64 = 0.5;
/// Mean work of a request, and work of a job.
const MEAN_MS: f64 = 100.0;
/// Without `--runs` 20 would take an hour.
const RUNS_MAX: u32 = 3;

/// # Errors
/// The program is missing, the backlog cannot be filled or does not last, or the page cannot be written.
pub(crate) fn run(settings: &Settings) -> Outcome<()> {
    let bin = sluicegate(settings)?;
    let seconds = settings.seconds.unwrap_or(20.0);
    let mut section = Section::begin("queues");
    section.table(&[
        "run",
        "p50 ms alone",
        "p99",
        "p50 ms with the backlog",
        "p99",
        "p99 ratio",
        "bar",
        "jobs left",
        "highest pod",
    ]);
    for run in 1..=settings.runs.min(RUNS_MAX) {
        section.row(format!("{run} | {}", beside(&bin, seconds, u64::from(run))?));
    }
    section.note(format!(
        "{PODS} pods of {POD_UNITS} units. Clients' requests of weights 1, 2 and 3 at load {LOAD}, open loop, mean work \
         {MEAN_MS:.0} ms, `wait: 1s`, {seconds:.0} s; then the same beside {BACKLOG} jobs of the overflow (weight 1, \
         {MEAN_MS:.0} ms), which fill all units that are free. From the client's send to the last byte."
    ));
    section.end(settings)
}

/// The cells of a row.
fn beside(bin: &Path, seconds: f64, seed: u64) -> Outcome<String> {
    let pods = Pods::start(PodKind { count_only: true, ..PodKind::default() })?;
    let folder = world::folder()?;
    let api =
        |weight: u32| format!("  - {{name: w{weight}, match: \"GET /w/{weight}\", weight: {weight}}}\n");
    let rules = format!(
        "{}apis:\n{}  - {{name: job, match: \"POST /w/1/**\", weight: 1, overflow: enqueue}}\n\
         overflow: {{store: {{path: \"{}\"}}, jobs: 200000}}\n",
        pool(&pods.addrs),
        [1, 2, 3].map(api).concat(),
        folder.path().join("jobs.redb").display()
    );
    let gateway = Gateway::start(bin, &rules, None, &[])?;
    let plan =
        || Plan { apis: equal_erlangs(&[1, 2, 3], PODS as u32 * POD_UNITS, LOAD, MEAN_MS), seconds, seed };
    let measure = || -> Outcome<(u64, u64)> {
        let record = sent(&[Job::new(plan(), To::One(gateway.listen))], None)?.remove(0);
        let summary = record.summary();
        if summary.void {
            return Err(format!("void: the load lagged {} ms", summary.lag_us_max / 1000));
        }
        Ok((summary.total.p50_us, summary.total.p99_us))
    };
    let (alone_p50, alone_p99) = measure()?;
    fill(gateway.listen)?;
    let (p50, p99) = measure()?;
    let served = |reading: &sluicegate_trial::pod::GaugeReading| reading.served;
    let gauges = pods.gauges()?;
    let left = (BACKLOG + 2 * offered(seconds)).saturating_sub(gauges.iter().map(served).sum());
    let peak = gauges.iter().map(|gauge| gauge.peak).max().unwrap_or(0);
    let ms = |micros: u64| micros as f64 / 1000.0;
    Ok(format!(
        "{:.1} | {:.1} | {:.1} | {:.1} | {:.2} | 1.2 | {left} | {peak} / {POD_UNITS}",
        ms(alone_p50),
        ms(alone_p99),
        ms(p50),
        ms(p99),
        p99 as f64 / alone_p99.max(1) as f64
    ))
}

/// Clients' requests of one measurement, about.
fn offered(seconds: f64) -> u64 {
    // A third of the units in use by each weight: 1/1 + 1/2 + 1/3 requests per unit and hold.
    let units = f64::from(PODS as u32 * POD_UNITS) * LOAD / 3.0;
    (units * (1.0 + 0.5 + 1.0 / 3.0) * 1000.0 / MEAN_MS * seconds) as u64
}

/// Puts the backlog into the overflow.
fn fill(gateway: SocketAddr) -> Outcome<()> {
    let begin = Instant::now();
    world::block_on(async {
        let mut fillers = tokio::task::JoinSet::new();
        for _ in 0..FILLERS {
            fillers.spawn(async move {
                let mut client = Raw::connect(gateway).await?;
                let target = format!("/w/1/job?ms={MEAN_MS:.0}");
                for _ in 0..BACKLOG / FILLERS {
                    client.request("POST", &target, &["prefer: respond-async", "content-length: 0"]).await?;
                    let answer = client.answer().await?;
                    if answer.head.status != 202 {
                        return Err(std::io::Error::other(format!(
                            "a job was answered {}",
                            answer.head.status
                        )));
                    }
                }
                Ok(())
            });
        }
        while let Some(filler) = fillers.join_next().await {
            let filled = filler.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            filled.map_err(|error| format!("the backlog: {error}"))?;
        }
        Ok::<(), String>(())
    })?;
    if begin.elapsed() > Duration::from_secs(300) {
        return Err("the backlog took more than five minutes to fill, and is half gone".to_owned());
    }
    Ok(())
}
