//! CPU of a proxied request and p99, beside HAProxy and nginx.

use std::net::SocketAddr;

use crate::page::Section;
use crate::stats::Spread;
use crate::world::{Gateway, PROXY_CORE, example, sluicegate};
use crate::{Outcome, Settings, cpu, rivals, steady};

/// A request of an ordinary api of the example, as `wrk` and the open loop send it.
const PATH: &str = "/quotes/1";

/// Open-loop runs of each side.
const OPEN_RUNS: u32 = 10;

/// One proxy and what it showed, run by run.
struct Side {
    name: &'static str,
    pid: u32,
    addr: SocketAddr,
    /// Microseconds of CPU per request.
    cpu_us: Vec<f64>,
    /// Requests per second.
    rate: Vec<f64>,
}

impl Side {
    fn new(name: &'static str, pid: u32, addr: SocketAddr) -> Side {
        Side { name, pid, addr, cpu_us: Vec::new(), rate: Vec::new() }
    }
}

/// # Errors
/// A program is missing, a request was not answered 2xx, or the page cannot be written.
pub(crate) fn run(settings: &Settings) -> Outcome<()> {
    let bin = sluicegate(settings)?;
    let mut section = Section::begin("proxy");
    let pods = rivals::tiny_pods()?;
    let ours = Gateway::start(&bin, &example(&pods.addrs), Some(1), &["taskset", "-c", PROXY_CORE])?;
    let haproxy = rivals::haproxy(&pods.addrs)?;
    let nginx = rivals::nginx(&pods.addrs)?;
    let mut sides = [
        Side::new("Sluicegate", ours.pid(), ours.listen),
        Side::new("HAProxy", haproxy.process.id(), haproxy.addrs[0]),
        Side::new("nginx", nginx.process.id(), nginx.addrs[0]),
    ];
    for side in &sides {
        rivals::wrk(side.addr, PATH, 1.0)?;
    }
    for turn in 0..settings.runs as usize {
        for step in 0..sides.len() {
            // Whoever goes first changes from turn to turn.
            let place = (turn + step) % sides.len();
            measure(&mut sides[place], settings.seconds.unwrap_or(2.0))?;
        }
    }
    closed_rows(&mut section, &sides, settings);
    open_rows(&mut section, &sides[..2], settings)?;
    section.end(settings)
}

fn measure(side: &mut Side, seconds: f64) -> Outcome<()> {
    let before = cpu::cpu_ns(side.pid)?;
    let done = rivals::wrk(side.addr, PATH, seconds)?;
    let used = cpu::cpu_ns(side.pid)? - before;
    if done.others > 0 {
        return Err(format!("{}: {} of {} answers were not 2xx", side.name, done.others, done.requests));
    }
    side.cpu_us.push(used as f64 / done.requests as f64 / 1000.0);
    side.rate.push(done.requests as f64 / seconds.ceil().max(1.0));
    Ok(())
}

fn closed_rows(section: &mut Section, sides: &[Side; 3], settings: &Settings) {
    section.table(&["closed loop, one core", "CPU µs per request, median", "min..max", "requests/s", "bar"]);
    for side in sides {
        let rate = Spread::of(&side.rate).median;
        section.row(format!("{} | {} | {rate:.0} | ", side.name, Spread::of(&side.cpu_us).cells(2)));
    }
    for (other, bar) in [(1, "1.25, goal 1.0"), (2, "")] {
        let ratio = Spread::of_ratios(&sides[0].cpu_us, &sides[other].cpu_us);
        section.row(format!(
            "Sluicegate over {}, run by run | {} | | {bar}",
            sides[other].name,
            ratio.cells(3)
        ));
    }
    section.note(format!(
        "{}. {} alternating runs of {:.0} s, wrk with 32 kept connections and nginx as the pods on the other core; \
         Sluicegate with `workers: 1` and the design's example in force.",
        rivals::versions(),
        settings.runs,
        settings.seconds.unwrap_or(2.0)
    ));
}

/// The same rate for both, half of HAProxy's peak.
fn open_rows(section: &mut Section, sides: &[Side], settings: &Settings) -> Outcome<()> {
    let rate = Spread::of(&sides[1].rate).median / 2.0;
    let seconds = settings.seconds.unwrap_or(2.0) * 2.0;
    let mut figures = vec![(Vec::new(), Vec::new()); sides.len()];
    let mut lag_us_max = 0;
    for turn in 0..OPEN_RUNS {
        for step in 0..sides.len() {
            let place = (turn as usize + step) % sides.len();
            let seen = steady::sent(sides[place].addr, PATH, rate, seconds, u64::from(turn) + 1)?;
            if seen.failed > 0 {
                return Err(format!(
                    "{}: {} of {} not served",
                    sides[place].name, seen.failed, seen.requests
                ));
            }
            lag_us_max = lag_us_max.max(seen.lag_us_max);
            figures[place].0.push(seen.p50_us as f64);
            figures[place].1.push(seen.p99_us as f64);
        }
    }
    section.table(&["open loop at half of HAProxy's peak", "p50 µs", "p99 µs, median", "min..max", "bar"]);
    for (side, (p50, p99)) in sides.iter().zip(&figures) {
        let p50 = Spread::of(p50).median;
        section.row(format!("{}, {rate:.0}/s | {p50:.0} | {} | ", side.name, Spread::of(p99).cells(0)));
    }
    let ratio = Spread::of_ratios(&figures[0].1, &figures[1].1);
    section.row(format!("p99 of Sluicegate over HAProxy, run by run | | {} | 1.0", ratio.cells(2)));
    let lag_ms = lag_us_max as f64 / 1000.0;
    let void = if lag_ms > 50.0 { ": void, it is over 50 ms" } else { "" };
    section.note(format!(
        "{OPEN_RUNS} alternating runs of {seconds:.0} s, load and pods on the other core, from the planned sending to \
         the last byte; largest lag of the load {lag_ms:.1} ms{void}."
    ));
    Ok(())
}
