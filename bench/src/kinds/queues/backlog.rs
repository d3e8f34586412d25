//! What a backlog in the background costs the requests whose clients wait.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use sluicegate_testkit::client::Raw;
use sluicegate_trial::load::{ApiSummary, Plan, Service, equal_erlangs};
use tempfile::TempDir;

use super::topics::{self, MEAN_MS};
use super::{Extent, RUNS_MAX};
use crate::Outcome;
use crate::page::Section;
use crate::stats::Spread;
use crate::traffic::{Job, To, sent};
use crate::world::{self, Gateway, POD_UNITS, PODS, PodKind, Pods, loopback, pool};

/// Connections that fill the overflow.
const FILLERS: u64 = 16;
/// Of the clients' requests, in units of the pool.
const LOAD: f64 = 0.5;
/// Left out at the beginning of a run.
const WARM_US: u64 = 500_000;
const SOON: Duration = Duration::from_secs(60);
/// Most p99 beside the backlog, of that without.
const BAR: f64 = 1.2;
const TOPIC: &str = "backlog";

/// What waits in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    Nothing,
    Jobs,
    Messages,
}

/// What the clients' requests have in common.
#[derive(Clone, Copy, Debug)]
struct Requests {
    name: &'static str,
    service: Service,
}

const REQUESTS: [Requests; 2] = [
    Requests { name: "100 ms each", service: Service::Fixed { ms: MEAN_MS } },
    Requests { name: "100 ms in the mean, exponential", service: Service::Exponential { mean_ms: MEAN_MS } },
];

/// What one run saw.
struct Seen {
    total: ApiSummary,
    /// p99 of the weights 1, 2 and 3.
    p99_us: Vec<u64>,
    /// Work in the background done meanwhile, and left afterwards.
    done: u64,
    left: u64,
    peak: u32,
}

/// # Errors
/// The backlog cannot be filled or does not last, or the load was not the planned one.
pub(super) fn measured(bin: &Path, brokers: &str, extent: &Extent, section: &mut Section) -> Outcome<()> {
    let jobs = Filled::new(bin, extent.backlog)?;
    topics::fill(brokers, TOPIC, extent.backlog, &[1])?;
    let pods = Pods::start(PodKind { count_only: true, ..PodKind::default() })?;
    section.table(&[
        "requests",
        "background",
        "run",
        "p50 ms alone",
        "p99",
        "p50 ms beside it",
        "p99",
        "of weights 1 / 2 / 3",
        "p99 ratio",
        "bar",
        "429",
        "background units/s",
        "left",
        "highest pod",
    ]);
    let mut ratios: [[Vec<f64>; 2]; REQUESTS.len()] = Default::default();
    for run in 1..=extent.runs {
        for (kind, requests) in REQUESTS.iter().enumerate() {
            let once = |behind: Behind| {
                let backlog = Backlog { bin, brokers, jobs: &jobs, behind, run, kind };
                backlog.beside(&pods, requests.service, extent)
            };
            let alone = once(Behind::Nothing)?;
            for (at, behind) in [Behind::Jobs, Behind::Messages].into_iter().enumerate() {
                let seen = once(behind)?;
                let ratio = seen.total.p99_us as f64 / alone.total.p99_us.max(1) as f64;
                ratios[kind][at].push(ratio);
                section.row(row(requests.name, behind, run, &alone, &seen, ratio, extent.seconds));
            }
        }
    }
    for (requests, [jobs, messages]) in REQUESTS.iter().zip(ratios) {
        let median = |ratios: Vec<f64>| Spread::of(&ratios).median;
        section.note(format!(
            "Requests of {}: p99 beside {} jobs of the overflow {:.2} times, beside as many messages of Kafka {:.2} times \
             that without (medians of the runs).",
            requests.name,
            extent.backlog,
            median(jobs),
            median(messages)
        ));
    }
    section.note(format!(
        "{PODS} pods of {POD_UNITS} units. Clients' requests of weights 1, 2 and 3 at load {LOAD}, open loop, `wait: 1s`, \
         {:.0} s; alternately alone and beside {} jobs of the overflow or messages of Kafka (weight 1, {MEAN_MS:.0} ms in \
         the mean, exponential), which take all units that are free. From the planned send to the last byte. At most \
         {RUNS_MAX} runs.",
        extent.seconds, extent.backlog
    ));
    Ok(())
}

fn row(
    requests: &str,
    behind: Behind,
    run: u32,
    alone: &Seen,
    seen: &Seen,
    ratio: f64,
    seconds: f64,
) -> String {
    let ms = |micros: u64| format!("{:.1}", micros as f64 / 1000.0);
    let what = if behind == Behind::Jobs { "jobs" } else { "messages" };
    let by_weight: Vec<String> = seen.p99_us.iter().map(|micros| ms(*micros)).collect();
    format!(
        "{requests} | {what} | {run} | {} | {} | {} | {} | {} | {ratio:.2} | {BAR} | {} | {:.0} | {} | {} / {POD_UNITS}",
        ms(alone.total.p50_us),
        ms(alone.total.p99_us),
        ms(seen.total.p50_us),
        ms(seen.total.p99_us),
        by_weight.join(" / "),
        seen.total.refused,
        seen.done as f64 / seconds,
        seen.left,
        seen.peak
    )
}

/// One run's background.
struct Backlog<'a> {
    bin: &'a Path,
    brokers: &'a str,
    jobs: &'a Filled,
    behind: Behind,
    run: u32,
    kind: usize,
}

impl Backlog<'_> {
    fn beside(&self, pods: &Pods, service: Service, extent: &Extent) -> Outcome<Seen> {
        pods.until_idle()?;
        let folder = world::folder()?;
        let store = folder.path().join("jobs.redb");
        if self.behind == Behind::Jobs {
            self.jobs.copy_to(&store)?;
        }
        let mut rules = rules(&pods.addrs, &store);
        if self.behind == Behind::Messages {
            let group = format!("backlog-{}-{}", self.kind, self.run);
            rules += &topics::worker(self.brokers, TOPIC, &group);
        }
        let gateway = Gateway::start(self.bin, &rules, None, &[])?;
        pods.reset()?;
        if self.behind != Behind::Nothing {
            until_full(&gateway)?;
        }
        let before = served(pods)?;
        let mut apis = equal_erlangs(&[1, 2, 3], PODS as u32 * POD_UNITS, LOAD, MEAN_MS);
        apis.iter_mut().for_each(|shape| shape.service = service);
        let plan = Plan { apis, seconds: extent.seconds, seed: u64::from(self.run) };
        let mut record = sent(&[Job::new(plan, To::One(gateway.listen))], None)?.remove(0);
        let done = served(pods)?;
        let peak = pods.gauges()?.iter().map(|gauge| gauge.peak).max().unwrap_or(0);
        drop(gateway);
        record.warmup_us = WARM_US;
        let summary = record.summary();
        if summary.void || summary.total.failed > 0 {
            let (lag, failed) = (summary.lag_us_max / 1000, summary.total.failed);
            return Err(format!("void: the load lagged {lag} ms, {failed} requests failed"));
        }
        let requests = record.samples.iter().filter(|sample| sample.is_served()).count() as u64;
        let left = extent.backlog.saturating_sub(done.saturating_sub(requests));
        if self.behind != Behind::Nothing && left < extent.backlog / 10 {
            return Err(format!("the backlog did not last: {left} of {} are left", extent.backlog));
        }
        Ok(Seen {
            p99_us: summary.apis.iter().map(|api| api.p99_us).collect(),
            total: summary.total,
            done: (done - before).saturating_sub(requests),
            left,
            peak,
        })
    }
}

fn served(pods: &Pods) -> Outcome<u64> {
    Ok(pods.gauges()?.iter().map(|gauge| gauge.served).sum())
}

fn until_full(gateway: &Gateway) -> Outcome<()> {
    let begin = Instant::now();
    let most = f64::from(PODS as u32 * POD_UNITS);
    while gateway.state()?["in_use"].as_f64().unwrap_or(0.0) < most * 0.95 {
        if begin.elapsed() > SOON {
            return Err("the background did not fill the pool within a minute".to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Weights 1, 2 and 3, and jobs of weight 1 that are kept in `store`.
fn rules(pods: &[SocketAddr], store: &Path) -> String {
    let api =
        |weight: u32| format!("  - {{name: w{weight}, match: \"GET /w/{weight}\", weight: {weight}}}\n");
    format!(
        "{}apis:\n{}  - {{name: job, match: \"POST /w/1/**\", weight: 1, overflow: enqueue}}\n\
         admission: {{wait: 1s}}\noverflow: {{store: {{path: \"{}\"}}, jobs: 200000}}\n",
        pool(pods),
        [1, 2, 3].map(api).concat(),
        store.display()
    )
}

/// A file full of jobs that were never begun.
struct Filled {
    folder: TempDir,
}

impl Filled {
    /// By a gateway whose pods are not there, so that none is worked off meanwhile.
    fn new(bin: &Path, count: u64) -> Outcome<Filled> {
        let folder = world::folder()?;
        let nobody: Vec<SocketAddr> = world::free_ports(PODS)?.into_iter().map(loopback).collect();
        let mut gateway = Gateway::start(bin, &rules(&nobody, &folder.path().join("jobs.redb")), None, &[])?;
        fill(gateway.listen, count)?;
        gateway.process.terminate();
        gateway.process.exit(SOON);
        Ok(Filled { folder })
    }

    fn copy_to(&self, store: &Path) -> Outcome<()> {
        let copied = std::fs::copy(self.folder.path().join("jobs.redb"), store);
        copied.map(|_| ()).map_err(|error| format!("{}: {error}", store.display()))
    }
}

fn fill(gateway: SocketAddr, count: u64) -> Outcome<()> {
    world::block_on(async {
        let mut fillers = tokio::task::JoinSet::new();
        for filler in 0..FILLERS {
            fillers.spawn(async move {
                let mut random = fastrand::Rng::with_seed(filler);
                let mut client = Raw::connect(gateway).await?;
                for _ in 0..count / FILLERS {
                    let target = format!("/w/1/job?ms={:.2}", topics::work_ms(&mut random));
                    client.request("POST", &target, &["prefer: respond-async", "content-length: 0"]).await?;
                    let answer = client.answer().await?;
                    if answer.head.status != 202 {
                        let what = format!("answered {}: {}", answer.head.status, answer.text());
                        return Err(std::io::Error::other(what));
                    }
                }
                Ok(())
            });
        }
        while let Some(filler) = fillers.join_next().await {
            let filled = filler.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            filled.map_err(|error| format!("a job of the backlog: {error}"))?;
        }
        Ok(())
    })
}
