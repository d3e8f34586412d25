//! The door for Envoy: beside an ext_proc server that answers at once, alone and behind the real Envoy.

pub(crate) mod empty;
pub(crate) mod streams;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sluicegate_testkit::process::Process;
use tempfile::TempDir;

use crate::page::Section;
use crate::stats::Spread;
use crate::world::{
    Gateway, OTHER_CORE, PROXY_CORE, block_on, example, folder, free_ports, loopback, pinned, sluicegate,
};
use crate::{Outcome, Settings, cpu, rivals, steady};
use streams::Talk;

/// A request of an ordinary api of the example.
const PATH: &str = "/quotes/1";
const SOON: Duration = Duration::from_secs(20);
/// Open-loop runs of each side.
const OPEN_RUNS: u32 = 10;

/// A server and what it showed, run by run.
struct Side {
    name: &'static str,
    /// Where the load goes.
    addr: SocketAddr,
    /// Whose CPU is counted.
    pid: u32,
    cpu_us: Vec<f64>,
    rate: Vec<f64>,
}

impl Side {
    fn new(name: &'static str, addr: SocketAddr, pid: u32) -> Side {
        Side { name, addr, pid, cpu_us: Vec::new(), rate: Vec::new() }
    }

    fn note(&mut self, requests: u64, used_ns: u64, seconds: f64) {
        self.cpu_us.push(used_ns as f64 / requests as f64 / 1000.0);
        self.rate.push(requests as f64 / seconds);
    }
}

/// The server that decides nothing.
struct Empty {
    process: Process,
    addr: SocketAddr,
}

impl Empty {
    fn start(core: &str) -> Outcome<Empty> {
        let addr = loopback(free_ports(1)?[0]);
        let program = std::env::current_exe().map_err(|error| format!("this program's own path: {error}"))?;
        let mut command = pinned(core, program);
        command.arg("empty-ext-proc").arg(addr.to_string());
        let mut process = Process::spawn(command);
        block_on(process.port(addr, SOON));
        Ok(Empty { process, addr })
    }
}

/// Sluicegate with the design's example in force and this door.
pub(super) struct Ours {
    gateway: Gateway,
    pub(super) ext_proc: SocketAddr,
}

impl Ours {
    pub(super) fn start(bin: &Path, pods: &[SocketAddr], core: &str) -> Outcome<Ours> {
        let ext_proc = loopback(free_ports(1)?[0]);
        let rules = format!("{}decisions: {{ext_proc: \"{ext_proc}\"}}\n", example(pods));
        Ok(Ours { gateway: Gateway::start(bin, &rules, Some(1), &["taskset", "-c", core])?, ext_proc })
    }
}

/// # Errors
/// A program is missing, a request was not served, or the page cannot be written.
pub(crate) fn run(settings: &Settings) -> Outcome<()> {
    let bin = sluicegate(settings)?;
    let mut section = Section::begin("extproc");
    let pods = rivals::tiny_pods()?;
    alone(&mut section, settings, &bin, &pods.addrs)?;
    behind_envoy(&mut section, settings, &bin, &pods.addrs)?;
    section.end(settings)
}

/// The servers by themselves, on a core of their own, asked as Envoy asks.
fn alone(section: &mut Section, settings: &Settings, bin: &Path, pods: &[SocketAddr]) -> Outcome<()> {
    let (empty, ours) = (Empty::start(PROXY_CORE)?, Ours::start(bin, pods, PROXY_CORE)?);
    let seconds = settings.seconds.unwrap_or(2.0);
    section.table(&[
        "ext_proc server alone, one core",
        "CPU µs per stream, median",
        "min..max",
        "streams/s",
        "bar",
    ]);
    for (talk, bar) in [(Talk::Both, "0.8"), (Talk::RequestOnly, "0.8")] {
        let mut sides = [
            Side::new("Sluicegate", ours.ext_proc, ours.gateway.pid()),
            Side::new("empty server", empty.addr, empty.process.id()),
        ];
        for turn in 0..settings.runs as usize {
            for step in 0..sides.len() {
                let side = &mut sides[(turn + step) % 2];
                let before = cpu::cpu_ns(side.pid)?;
                let done = streams::sent(side.addr, talk, seconds)?;
                side.note(done, cpu::cpu_ns(side.pid)? - before, seconds);
            }
        }
        for side in &sides {
            let rate = Spread::of(&side.rate).median;
            section.row(format!(
                "{}, {talk} | {} | {rate:.0} | ",
                side.name,
                Spread::of(&side.cpu_us).cells(2)
            ));
        }
        let rates = Spread::of_ratios(&sides[0].rate, &sides[1].rate);
        section.row(format!(
            "streams/s over those of the empty server, run by run | {} | | {bar}",
            rates.cells(3)
        ));
    }
    section.note(format!(
        "{} alternating runs of {seconds:.0} s; the load, on the other core, keeps {} streams on each of {} connections in flight, \
         sends what Envoy 1.40 sends, and resets each stream at its end as Envoy does. The empty server: tonic's own on the same \
         hyper, as one would write it; answers `CONTINUE` at once and knows nothing of units.",
        settings.runs,
        streams::STREAMS,
        streams::CONNECTIONS,
    ));
    Ok(())
}

/// Envoy on a core of its own; servers, pods and load on the other.
fn behind_envoy(section: &mut Section, settings: &Settings, bin: &Path, pods: &[SocketAddr]) -> Outcome<()> {
    let (empty, ours) = (Empty::start(OTHER_CORE)?, Ours::start(bin, pods, OTHER_CORE)?);
    let envoys = [
        Envoy::start(Some(ours.ext_proc), pods)?,
        Envoy::start(Some(empty.addr), pods)?,
        Envoy::start(None, pods)?,
    ];
    let names = ["with Sluicegate", "with the empty server", "without ext_proc"];
    let mut sides: Vec<Side> = names
        .into_iter()
        .zip(&envoys)
        .map(|(name, envoy)| Side::new(name, envoy.addr, envoy.process.id()))
        .collect();
    let seconds = settings.seconds.unwrap_or(2.0).ceil().max(1.0);
    for turn in 0..settings.runs as usize {
        for step in 0..sides.len() {
            let place = (turn + step) % sides.len();
            let side = &mut sides[place];
            let before = cpu::cpu_ns(side.pid)?;
            let done = rivals::wrk(side.addr, PATH, seconds)?;
            if done.others > 0 {
                return Err(format!(
                    "{}: {} of {} answers were not 2xx",
                    side.name, done.others, done.requests
                ));
            }
            side.note(done.requests, cpu::cpu_ns(side.pid)? - before, seconds);
        }
    }
    section.table(&[
        "Envoy, one thread on one core",
        "its CPU µs per request, median",
        "min..max",
        "requests/s",
        "bar",
    ]);
    for side in &sides {
        let rate = Spread::of(&side.rate).median;
        section.row(format!("{} | {} | {rate:.0} | ", side.name, Spread::of(&side.cpu_us).cells(2)));
    }
    let rates = Spread::of_ratios(&sides[0].rate, &sides[1].rate);
    section.row(format!(
        "requests/s with Sluicegate over those with the empty server | {} | | ",
        rates.cells(3)
    ));
    let rates = Spread::of_ratios(&sides[0].rate, &sides[2].rate);
    section.row(format!("requests/s with Sluicegate over those without ext_proc | {} | | ", rates.cells(3)));
    section.note(format!(
        "{}. {} alternating runs of {seconds:.0} s, wrk with 32 kept connections, nginx as the pods, and the ext_proc servers on the \
         other core; `examples/envoy/envoy.yaml` with ten pods.",
        rivals::envoy_version(),
        settings.runs,
    ));
    latency(section, settings, &sides)
}

/// The same rate for all, half of the slowest one's peak.
fn latency(section: &mut Section, settings: &Settings, sides: &[Side]) -> Outcome<()> {
    let rate = Spread::of(&sides[0].rate).median / 2.0;
    let seconds = settings.seconds.unwrap_or(2.0) * 2.0;
    let mut figures = vec![(Vec::new(), Vec::new()); sides.len()];
    let mut lag_us_max = 0;
    for turn in 0..OPEN_RUNS.min(settings.runs) {
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
    section.table(&["open loop through Envoy", "p50 µs, median", "min..max", "p99 µs, median", "min..max"]);
    for (side, (p50, p99)) in sides.iter().zip(&figures) {
        section.row(format!(
            "{}, {rate:.0}/s | {} | {}",
            side.name,
            Spread::of(p50).cells(0),
            Spread::of(p99).cells(0)
        ));
    }
    let added = |with: &[f64], without: &[f64]| {
        Spread::of(&with.iter().zip(without).map(|(with, without)| with - without).collect::<Vec<_>>())
    };
    let (ours, plain) = (&figures[0], &figures[2]);
    section.row(format!(
        "added by Sluicegate, run by run | {} | {}",
        added(&ours.0, &plain.0).cells(0),
        added(&ours.1, &plain.1).cells(0)
    ));
    let lag_ms = lag_us_max as f64 / 1000.0;
    let void = if lag_ms > 50.0 { ": void, it is over 50 ms" } else { "" };
    section.note(format!("Runs of {seconds:.0} s at half the peak with Sluicegate; largest lag of the load {lag_ms:.1} ms{void}."));
    Ok(())
}

/// The real Envoy with one worker thread.
pub(super) struct Envoy {
    process: Process,
    pub(super) addr: SocketAddr,
    _folder: TempDir,
}

impl Envoy {
    /// Asks `ext_proc`, or nobody.
    pub(super) fn start(ext_proc: Option<SocketAddr>, pods: &[SocketAddr]) -> Outcome<Envoy> {
        let ports = free_ports(2)?;
        let (listen, admin) = (loopback(ports[0]), loopback(ports[1]));
        let text = setting(ext_proc, pods, listen, admin)?;
        let folder = folder()?;
        let config = folder.path().join("envoy.yaml");
        std::fs::write(&config, text).map_err(|error| format!("{}: {error}", config.display()))?;
        let mut command: Command = pinned(PROXY_CORE, rivals::envoy()?);
        command.arg("-c").arg(config).args(["--concurrency", "1", "-l", "warning", "--use-dynamic-base-id"]);
        let mut process = Process::spawn(command);
        block_on(process.http(admin, "/ready", SOON));
        Ok(Envoy { process, addr: listen, _folder: folder })
    }
}

/// The example, on these ports and with these pods; without the two filters that make it ask, if nobody is to be asked.
fn setting(
    ext_proc: Option<SocketAddr>,
    pods: &[SocketAddr],
    listen: SocketAddr,
    admin: SocketAddr,
) -> Outcome<String> {
    let mut text = include_str!("../../../examples/envoy/envoy.yaml").to_owned();
    let port = |port: u16| format!("port_value: {port}}}");
    let endpoint = |port: &str| {
        format!("        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, {port}}}}}}}\n")
    };
    let all: String = pods.iter().map(|pod| endpoint(&port(pod.port()).replace('}', ""))).collect();
    let mut changes = vec![
        (endpoint("port_value: 9001"), all),
        (endpoint("port_value: 9002"), String::new()),
        (port(8080), port(listen.port())),
        (port(9901), port(admin.port())),
    ];
    match ext_proc {
        Some(ext_proc) => changes.push((port(8091), port(ext_proc.port()))),
        None => {
            let (from, to) =
                ("          # A client must not name a pod", "          - name: envoy.filters.http.router");
            let begin = text.find(from).ok_or("the example has other filters than expected")?;
            let end = text.find(to).ok_or("the example has no router")?;
            text.replace_range(begin..end, "");
        }
    }
    for (from, to) in changes {
        if !text.contains(&from) {
            return Err(format!("the example has no `{}`", from.trim()));
        }
        text = text.replace(&from, &to);
    }
    Ok(text)
}
