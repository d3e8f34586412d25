//! Ten times the load: what refusals cost, what the admitted feel, how soon it is over.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use sluicegate_trial::load::{Plan, Record, Sample, Service, Shape};

use crate::page::Section;
use crate::stats::{Spread, quantile};
use crate::traffic::{Job, To, sent};
use crate::world::{
    Gateway, OTHER_CORE, POD_UNITS, PODS, PROXY_CORE, PodKind, Pods, example, pool, sluicegate,
};
use crate::{Outcome, Settings, cpu, rivals};

/// Units of each pod in the burst: a pool so small that one core can send ten times what it bears.
const BURST_UNITS: u32 = 4;
const HOLD_MS: f64 = 50.0;

/// What the burst's pool serves in a second.
const PER_S: f64 = PODS as f64 * BURST_UNITS as f64 * 1000.0 / HOLD_MS;

/// Load before, during and after the burst, of what the pool bears.
const USUAL: f64 = 0.5;
const BURST: f64 = 10.0;

/// Seconds: the burst begins, ends, and the run ends.
const BEGINS: f64 = 3.0;
const ENDS: f64 = 6.0;
const LASTS: f64 = 9.0;

/// # Errors
/// A program is missing, or the page cannot be written.
pub(crate) fn run(settings: &Settings) -> Outcome<()> {
    let bin = sluicegate(settings)?;
    let mut section = Section::begin("overload");
    cost(&mut section, &bin, settings)?;
    section.table(&[
        "burst of 10x",
        "served/s in it",
        "over the hold, ms: p50, p99 before",
        "p50, p99 in it",
        "429 % in it",
        "429 % per 100 ms after it, worst of each second",
        "gateway CPU in it, cores",
        "failed",
    ]);
    for wait in ["0", "100ms", "1s"] {
        section.row(burst(&bin, wait)?);
    }
    section.note(format!(
        "Ten pods of {BURST_UNITS} units, weight 1, hold {HOLD_MS:.0} ms: {PER_S:.0}/s. Offered {USUAL} of it for \
         {LASTS:.0} s, and {BURST} times it more from second {BEGINS:.0} to {ENDS:.0}, open loop. Counted are the \
         requests of the usual load only, which the burst's are mixed with. An api that may wait up to 1 s is served \
         after a wait near 1 s while the burst lasts: that is its rule, not a delay of the gateway."
    ));
    section.end(settings)
}

/// CPU of a refused request beside a proxied one, and what the two others pay for theirs.
fn cost(section: &mut Section, bin: &Path, settings: &Settings) -> Outcome<()> {
    let tiny = rivals::tiny_pods()?;
    let proxying = Gateway::start(bin, &example(&tiny.addrs), Some(1), &["taskset", "-c", PROXY_CORE])?;
    let pods = Pods::start(PodKind::default())?;
    let rules = format!(
        "{}apis:\n  - {{name: whole, match: \"GET /w/{POD_UNITS}\", weight: {POD_UNITS}, max_hold: 10m}}\n  \
         - {{name: quote, match: \"GET /quotes/*\", weight: 1, wait: 0}}\n",
        pool(&pods.addrs)
    );
    let refusing = Gateway::start(bin, &rules, Some(1), &["taskset", "-c", PROXY_CORE])?;
    let held = refusing.hold_pool()?;
    let (haproxy, haproxy_refuses) = (rivals::haproxy(&tiny.addrs)?, rivals::haproxy_refusing()?);
    let mut sides = [
        Side::new("Sluicegate, proxied", proxying.pid(), proxying.listen, false),
        Side::new("Sluicegate, refused (`wait: 0`, pool full)", refusing.pid(), refusing.listen, true),
        Side::new("HAProxy, proxied", haproxy.process.id(), haproxy.addrs[0], false),
        Side::new(
            "HAProxy, refused (a fixed answer)",
            haproxy_refuses.process.id(),
            haproxy_refuses.addrs[0],
            true,
        ),
    ];
    for turn in 0..settings.runs as usize {
        for step in 0..sides.len() {
            let place = (turn + step) % sides.len();
            sides[place].measure(settings.seconds.unwrap_or(2.0))?;
        }
    }
    drop(held);
    section.table(&["closed loop of 32, one core", "CPU µs per request, median", "min..max", "bar"]);
    for side in &sides {
        section.row(format!("{} | {} | ", side.name, Spread::of(&side.cpu_us).cells(2)));
    }
    for (name, proxied, bar) in [("Sluicegate", 0, "at least 5"), ("HAProxy", 2, "")] {
        let ratio = Spread::of_ratios(&sides[proxied].cpu_us, &sides[proxied + 1].cpu_us);
        section.row(format!("{name}, proxied over refused, run by run | {} | {bar}", ratio.cells(2)));
    }
    Ok(())
}

/// One server that either proxies or refuses.
struct Side {
    name: &'static str,
    pid: u32,
    addr: SocketAddr,
    refuses: bool,
    /// Microseconds of CPU per request, run by run.
    cpu_us: Vec<f64>,
}

impl Side {
    fn new(name: &'static str, pid: u32, addr: SocketAddr, refuses: bool) -> Side {
        Side { name, pid, addr, refuses, cpu_us: Vec::new() }
    }

    fn measure(&mut self, seconds: f64) -> Outcome<()> {
        let before = cpu::cpu_ns(self.pid)?;
        let done = rivals::wrk(self.addr, "/quotes/1", seconds)?;
        let ns = cpu::cpu_ns(self.pid)? - before;
        if done.others != if self.refuses { done.requests } else { 0 } {
            return Err(format!("{}: {} of {} were refusals", self.name, done.others, done.requests));
        }
        self.cpu_us.push(ns as f64 / done.requests as f64 / 1000.0);
        Ok(())
    }
}

/// A row.
fn burst(bin: &Path, wait: &str) -> Outcome<String> {
    let pods = Pods::start(PodKind { units: BURST_UNITS, ..PodKind::default() })?;
    let rules = pool(&pods.addrs).replace("capacity: 20", &format!("capacity: {BURST_UNITS}"));
    let rules = format!(
        "{rules}apis:\n  - {{name: quote, match: \"GET /w/1\", weight: 1}}\nadmission: {{wait: {wait}}}\n"
    );
    let gateway = Gateway::start(bin, &rules, Some(1), &["taskset", "-c", PROXY_CORE])?;
    let plan = |load: f64, seconds: f64, seed: u64| Plan {
        apis: vec![Shape {
            method: "GET".to_owned(),
            path: "/w/1".to_owned(),
            weight: 1,
            rate_per_s: load * PER_S,
            service: Service::Fixed { ms: HOLD_MS },
        }],
        seconds,
        seed,
    };
    let to = To::One(gateway.listen);
    let jobs = [
        Job::new(plan(USUAL, LASTS, 1), to.clone()),
        Job { after: BEGINS, ..Job::new(plan(BURST, ENDS - BEGINS, 2), to) },
    ];
    let (pid, records) = (
        gateway.pid(),
        std::thread::scope(|scope| {
            let load = scope.spawn(|| sent(&jobs, Some(OTHER_CORE)));
            std::thread::sleep(Duration::from_secs_f64(BEGINS + 0.5));
            let before = cpu::cpu_ns(gateway.pid());
            std::thread::sleep(Duration::from_secs(2));
            let after = cpu::cpu_ns(gateway.pid());
            let cores = after.and_then(|after| Ok((after - before?) as f64 / 2e9));
            load.join()
                .map_err(|_| "the load panicked".to_owned())
                .flatten()
                .and_then(|all| Ok((all, cores?)))
        }),
    );
    let (records, cores) = records.map_err(|error| format!("gateway {pid}: {error}"))?;
    Ok(format!("`wait: {wait}` | {}", cells(&records, cores)))
}

fn cells(records: &[Record], cores: f64) -> String {
    let usual = &records[0];
    let within = |from: f64, to: f64| {
        usual.samples.iter().filter(move |sample| {
            let at = sample.planned_us as f64 / 1e6;
            (from..to).contains(&at)
        })
    };
    let over = |from: f64, to: f64| {
        let served = within(from, to).filter(|sample| sample.is_served());
        let mut over: Vec<u64> =
            served.map(|sample| (sample.done_us - sample.sent_us).saturating_sub(sample.hold_us)).collect();
        let ms = [0.5, 0.99].map(|q| format!("{:.1}", quantile(&mut over, q) as f64 / 1000.0));
        ms.join(", ")
    };
    let refused = |from: f64, to: f64| {
        let count = within(from, to).count().max(1);
        within(from, to).filter(|sample| sample.is_refused()).count() as f64 / count as f64 * 100.0
    };
    let worst = |from: f64| {
        let windows =
            (0..10).map(|tenth| refused(from + f64::from(tenth) / 10.0, from + f64::from(tenth + 1) / 10.0));
        format!("{:.0}", windows.fold(0.0, f64::max))
    };
    let ended_in = |record: &Record, begun: f64| {
        let ended = |sample: &&Sample| (BEGINS..ENDS).contains(&(sample.done_us as f64 / 1e6 + begun));
        record.samples.iter().filter(|sample| sample.is_served()).filter(ended).count()
    };
    let served_in = ended_in(usual, 0.0) + ended_in(&records[1], BEGINS);
    let lost = |sample: &&Sample| !sample.is_served() && !sample.is_refused();
    let failed = records.iter().flat_map(|record| &record.samples).filter(lost).count();
    let lag = records.iter().map(Record::lag_us_max).max().unwrap_or(0);
    let void = if lag > 50_000 { format!(" (void: lag {} ms)", lag / 1000) } else { String::new() };
    format!(
        "{:.0}{void} | {} | {} | {:.1} | {}, {}, {} | {cores:.2} | {failed}",
        served_in as f64 / (ENDS - BEGINS),
        over(0.0, BEGINS),
        over(BEGINS + 0.5, ENDS),
        refused(BEGINS, ENDS),
        worst(ENDS),
        worst(ENDS + 1.0),
        worst(ENDS + 2.0),
    )
}
