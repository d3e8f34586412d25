//! What a door adds: a proxy that asks Sluicegate beside the same proxy that does not.

use std::any::Any;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::page::Section;
use crate::rivals::{self, Server};
use crate::stats::Spread;
use crate::world::{Gateway, PROXY_CORE, example, folder, free_ports, loopback, sluicegate};
use crate::{Outcome, Settings, steady};

/// A request of an ordinary api of the example.
const PATH: &str = "/quotes/1";
/// The open loop's rate over the smallest peak of all sides: low enough that nobody queues for the core.
const OPEN_SHARE: f64 = 0.4;

/// One way to the pods, and what it showed run by run.
struct Side {
    name: &'static str,
    addr: SocketAddr,
    /// The side that is the same proxy without Sluicegate.
    without: Option<usize>,
    /// Its processes and folders, which end with it.
    _keep: Box<dyn Any>,
    rate: Vec<f64>,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
}

/// # Errors
/// A program is missing, a request was not answered 2xx, or the page cannot be written.
pub(crate) fn run(settings: &Settings) -> Outcome<()> {
    let bin = sluicegate(settings)?;
    let mut section = Section::begin("doors");
    let pods = rivals::tiny_pods()?;
    let mut sides = sides(&bin, &pods.addrs)?;
    for side in &sides {
        rivals::wrk(side.addr, PATH, 1.0)?;
    }
    let seconds = settings.seconds.unwrap_or(2.0);
    in_turns(&mut sides, settings.runs, |side, _| {
        let done = rivals::wrk(side.addr, PATH, seconds)?;
        if done.others > 0 {
            return Err(format!("{}: {} of {} answers were not 2xx", side.name, done.others, done.requests));
        }
        side.rate.push(done.requests as f64 / seconds.ceil().max(1.0));
        Ok(())
    })?;
    let slowest = sides.iter().map(|side| Spread::of(&side.rate).median).fold(f64::INFINITY, f64::min);
    let rate = (slowest * OPEN_SHARE).round();
    let mut lag_us_max = 0;
    in_turns(&mut sides, settings.runs, |side, turn| {
        let seen = steady::sent(side.addr, PATH, rate, seconds, u64::from(turn) + 1)?;
        if seen.failed > 0 {
            return Err(format!("{}: {} of {} not served", side.name, seen.failed, seen.requests));
        }
        lag_us_max = lag_us_max.max(seen.lag_us_max);
        side.p50_us.push(seen.p50_us as f64);
        side.p99_us.push(seen.p99_us as f64);
        Ok(())
    })?;
    rows(&mut section, &sides);
    let lag_ms = lag_us_max as f64 / 1000.0;
    let void = if lag_ms > 50.0 { ": void, it is over 50 ms" } else { "" };
    section.note(format!(
        "{}. Each proxy and its Sluicegate share one core; load and pods are on the other. {} alternating runs of {seconds:.0} s: \
         requests per second by wrk with 32 kept connections; p50 and p99 in an open loop of {rate:.0} requests a second, the same for \
         all ({OPEN_SHARE} of the smallest peak), from the planned sending to the last byte; largest lag of the load {lag_ms:.1} ms{void}. \
         Differences and ratios run by run, median (smallest..largest). The design's example in force, room for all.",
        rivals::versions(),
        settings.runs,
    ));
    section.end(settings)
}

/// All sides. A new door adds the proxy without Sluicegate and the one with it here.
fn sides(bin: &Path, pods: &[SocketAddr]) -> Outcome<Vec<Side>> {
    let before = ["taskset", "-c", PROXY_CORE];
    let socket_dir = folder()?;
    let (tcp, socket) = (loopback(free_ports(1)?[0]), socket_dir.path().join("decisions.sock"));
    let asked = |at: &str| format!("{}decisions: {{http: \"{at}\"}}\n", example(pods));
    let by_tcp = Gateway::start(bin, &asked(&tcp.to_string()), Some(1), &before)?;
    let by_socket = Gateway::start(bin, &asked(&format!("unix:{}", socket.display())), Some(1), &before)?;
    let gateway = by_tcp.listen;

    let nginx = rivals::nginx(pods)?;
    let lua_tcp = nginx_lua(&format!("http://{tcp}"))?;
    let lua_socket = nginx_lua(&format!("unix:{}", socket.display()))?;
    let nginx_behind = rivals::nginx(&[gateway])?;
    let haproxy = rivals::haproxy(pods)?;
    let haproxy_behind = rivals::haproxy(&[gateway])?;
    Ok(vec![
        of("nginx", None, nginx),
        of("nginx with Lua, decision service over TCP", Some(0), lua_tcp),
        side(
            "nginx with Lua, over a Unix socket",
            Some(0),
            lua_socket.addrs[0],
            (lua_socket, by_socket, socket_dir),
        ),
        of("nginx, gateway behind it", Some(0), nginx_behind),
        of("HAProxy", None, haproxy),
        of("HAProxy, gateway behind it", Some(4), haproxy_behind),
        side("the gateway alone", None, gateway, by_tcp),
    ])
}

fn of(name: &'static str, without: Option<usize>, server: Server) -> Side {
    side(name, without, server.addrs[0], server)
}

fn side(name: &'static str, without: Option<usize>, addr: SocketAddr, keep: impl Any) -> Side {
    let (rate, p50_us, p99_us) = (Vec::new(), Vec::new(), Vec::new());
    Side { name, addr, without, _keep: Box::new(keep), rate, p50_us, p99_us }
}

/// The configuration that is shipped, with this measurement's addresses.
fn nginx_lua(decisions: &str) -> Outcome<Server> {
    let plugins = fs::canonicalize("plugins/nginx").map_err(|error| format!("plugins/nginx: {error}"))?;
    let shipped = plugins.join("nginx.conf");
    let text = fs::read_to_string(&shipped).map_err(|error| format!("{}: {error}", shipped.display()))?;
    let listen = loopback(free_ports(1)?[0]);
    let changes = [
        ("worker_processes auto;", "worker_processes 1; daemon off; master_process off;".to_owned()),
        ("error_log stderr warn;", "error_log stderr crit;".to_owned()),
        (
            "http {\n",
            format!("http {{ access_log off; keepalive_requests 1000000000; {}\n", rivals::nginx_temp()),
        ),
        ("/etc/nginx/sluicegate/?.lua", format!("{}/?.lua", plugins.display())),
        ("http://127.0.0.1:8090", decisions.to_owned()),
        ("keepalive_timeout 4s;", "keepalive_requests 1000000000;".to_owned()),
        ("listen 127.0.0.1:8080;", format!("listen {listen};")),
    ];
    let mut changed = text;
    for (from, to) in changes {
        if !changed.contains(from) {
            return Err(format!("{} has no `{from}` any more", shipped.display()));
        }
        changed = changed.replace(from, &to);
    }
    rivals::nginx_on(PROXY_CORE, &changed, &[], vec![listen])
}

/// Whoever goes first changes from turn to turn.
fn in_turns(
    sides: &mut [Side],
    turns: u32,
    mut one: impl FnMut(&mut Side, u32) -> Outcome<()>,
) -> Outcome<()> {
    for turn in 0..turns {
        for step in 0..sides.len() {
            let place = (turn as usize + step) % sides.len();
            one(&mut sides[place], turn)?;
        }
    }
    Ok(())
}

fn rows(section: &mut Section, sides: &[Side]) {
    section.table(&[
        "way to the pods",
        "requests/s",
        "of the same without",
        "p50 µs",
        "added",
        "p99 µs",
        "added",
    ]);
    for side in sides {
        let median = |figures: &[f64]| Spread::of(figures).median;
        let beside = side.without.map(|place| &sides[place]);
        let share = beside
            .map_or_else(String::new, |other| format!("{:.2}", Spread::of_ratios(&side.rate, &other.rate)));
        let added = |own: &[f64], others: fn(&Side) -> &Vec<f64>| {
            beside.map_or_else(String::new, |other| {
                let differences: Vec<f64> =
                    own.iter().zip(others(other)).map(|(own, other)| own - other).collect();
                format!("{:.0}", Spread::of(&differences))
            })
        };
        section.row(format!(
            "{} | {:.0} | {share} | {:.0} | {} | {:.0} | {}",
            side.name,
            median(&side.rate),
            median(&side.p50_us),
            added(&side.p50_us, |side| &side.p50_us),
            median(&side.p99_us),
            added(&side.p99_us, |side| &side.p99_us),
        ));
    }
}
