//! What a door adds: a proxy that asks Sluicegate beside the same proxy that does not.

use std::any::Any;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::extproc::{Envoy, Ours};
use crate::page::Section;
use crate::rivals::{self, Server};
use crate::stats::Spread;
use crate::world::{Gateway, PROXY_CORE, example, folder, free_ports, loopback, sluicegate};
use crate::{Outcome, Settings, steady};

/// A request of an ordinary api of the example.
const PATH: &str = "/quotes/1";
/// The open loop's rate over the smallest peak of all sides: low enough that nobody queues for the core.
const OPEN_SHARE: f64 = 0.3;
/// Turns of the open loop, at most.
const OPEN_RUNS: u32 = 10;
/// A turn in which the load lagged more counts for no side.
const LAG_US_MAX: u64 = 50_000;

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
    let seconds = settings.seconds.unwrap_or(1.0).ceil().max(1.0);
    for turn in 0..settings.runs {
        for place in order(turn, sides.len()) {
            let side = &mut sides[place];
            let done = rivals::wrk(side.addr, PATH, seconds)?;
            if done.others > 0 {
                return Err(format!(
                    "{}: {} of {} answers were not 2xx",
                    side.name, done.others, done.requests
                ));
            }
            side.rate.push(done.requests as f64 / seconds);
        }
    }
    let slowest = sides.iter().map(|side| Spread::of(&side.rate).median).fold(f64::INFINITY, f64::min);
    let rate = (slowest * OPEN_SHARE).round();
    let turns = OPEN_RUNS.min(settings.runs);
    let left_out = open_loop(&mut sides, turns, rate, 3.0 * seconds)?;
    rows(&mut section, &sides);
    let void = if left_out * 2 > turns { ": **void**, more than half" } else { "" };
    section.note(format!(
        "{}, {}. Each proxy and its Sluicegate share one core; load and pods are on the other. Requests per second: {} alternating \
         runs of {seconds:.0} s by wrk with 32 kept connections. p50 and p99: {turns} alternating runs of {:.0} s in an open loop of {rate:.0} \
         requests a second, the same for all ({OPEN_SHARE} of the smallest peak), from the planned sending to the last byte; a turn in which \
         the load lagged over {} ms counts for no side: {left_out} of {turns}{void}. Differences and ratios run by run, median \
         (smallest..largest). The design's example in force, room for all. The plugins run on the tests' shims of Kong and APISIX, in \
         the same nginx: without the gateways' own work, so only what they add says something.",
        rivals::versions(),
        rivals::envoy_version(),
        settings.runs,
        3.0 * seconds,
        LAG_US_MAX / 1000,
    ));
    section.end(settings)
}

/// Whoever goes first changes from turn to turn.
fn order(turn: u32, sides: usize) -> impl Iterator<Item = usize> {
    (0..sides).map(move |step| (turn as usize + step) % sides)
}

/// The same rate for all. Answers how many turns were left out.
fn open_loop(sides: &mut [Side], turns: u32, rate: f64, seconds: f64) -> Outcome<u32> {
    let mut left_out = 0;
    for turn in 0..turns {
        let mut all = Vec::new();
        for place in order(turn, sides.len()) {
            let side = &sides[place];
            let seen = steady::sent(side.addr, PATH, rate, seconds, u64::from(turn) + 1)?;
            if seen.failed > 0 {
                return Err(format!("{}: {} of {} not served", side.name, seen.failed, seen.requests));
            }
            all.push((place, seen));
        }
        // Where nothing else is left, a lagging turn still says how it was: the page says that it is void.
        let lagged = all.iter().any(|(_, seen)| seen.lag_us_max > LAG_US_MAX);
        left_out += u32::from(lagged);
        if lagged && left_out * 2 <= turns {
            continue;
        }
        for (place, seen) in all {
            sides[place].p50_us.push(seen.p50_us as f64);
            sides[place].p99_us.push(seen.p99_us as f64);
        }
    }
    Ok(left_out)
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
    let kong = nginx_shim("kong", "kong_shim", &format!("http://{tcp}"))?;
    let apisix = nginx_shim("apisix", "apisix_shim", &format!("http://{tcp}"))?;
    let asked = Ours::start(bin, pods, PROXY_CORE)?;
    let envoy = Envoy::start(None, pods)?;
    let envoy_asks = Envoy::start(Some(asked.ext_proc), pods)?;
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
        of("nginx with the Kong plugin on its shim, TCP", Some(0), kong),
        of("nginx with the APISIX plugin on its shim, TCP", Some(0), apisix),
        of("HAProxy", None, haproxy),
        of("HAProxy, gateway behind it", Some(6), haproxy_behind),
        side("Envoy", None, envoy.addr, envoy),
        side("Envoy with ext_proc", Some(8), envoy_asks.addr, (envoy_asks, asked)),
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

/// nginx with a plugin under the tests' stand-in of its gateway.
fn nginx_shim(gateway: &str, shim: &str, decisions: &str) -> Outcome<Server> {
    let path = |path: &str| fs::canonicalize(path).map_err(|error| format!("{path}: {error}"));
    let (plugins, shims) = (path("plugins")?, path("crates/cli/tests/doors/shims")?);
    let listen = loopback(free_ports(1)?[0]);
    let conf = "on_loss = \"fail-closed\", on_disconnect = \"stops\"";
    let http = format!(
        "lua_package_path \"{0}/nginx/?.lua;{0}/{gateway}/?.lua;{1}/?.lua;/usr/share/lua/5.1/?.lua;;\"; \
         lua_socket_log_errors off; \
         init_by_lua_block {{ require \"resty.core\" shim = require \"{shim}\" shim.install() \
         shim.load(\"sluicegate\", {{ decisions = \"{decisions}\", {conf} }}) }} \
         log_by_lua_block {{ shim.log() }} \
         upstream pods {{ server 0.0.0.1; balancer_by_lua_block {{ shim.balancer() }} keepalive 64; keepalive_requests 1000000000; }} \
         server {{ listen {listen}; location / {{ lua_check_client_abort on; access_by_lua_block {{ shim.access() }} \
         proxy_pass http://pods; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_next_upstream off; }} }}",
        plugins.display(),
        shims.display(),
    );
    let main = "load_module /usr/lib/nginx/modules/ndk_http_module.so; load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;";
    rivals::Nginx { main, http: &http, ..rivals::Nginx::on(PROXY_CORE) }.start(vec![listen])
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
