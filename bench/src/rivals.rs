//! The proxies beside which ours is measured, what stands behind all of them, and the closed-loop load.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use sluicegate_testkit::process::Process;
use tempfile::TempDir;

use crate::world::{OTHER_CORE, PODS, PROXY_CORE, block_on, folder, free_ports, loopback, pinned};
use crate::{Outcome, machine};

const SOON: Duration = Duration::from_secs(20);

/// A server with its files.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) addrs: Vec<SocketAddr>,
    _folder: TempDir,
}

impl Server {
    /// Runs `command` in `folder` and waits until all of `addrs` answer.
    pub(crate) fn start(mut command: Command, folder: TempDir, addrs: Vec<SocketAddr>) -> Server {
        command.current_dir(folder.path());
        let mut process = Process::spawn(command);
        for addr in &addrs {
            block_on(process.port(*addr, SOON));
        }
        Server { process, addrs, _folder: folder }
    }
}

/// One nginx that answers on ten ports with two bytes: the pods of a speed measurement.
///
/// # Errors
/// No folder or port.
///
/// # Panics
/// With its output, if it does not start.
pub(crate) fn tiny_pods() -> Outcome<Server> {
    let addrs: Vec<SocketAddr> = free_ports(PODS)?.into_iter().map(loopback).collect();
    let listen: String = addrs.iter().map(|addr| format!("listen {addr}; ")).collect();
    let server = format!("server {{ {listen} location / {{ default_type text/plain; return 200 ok; }} }}");
    Nginx { http: &server, ..Nginx::on(OTHER_CORE) }.start(addrs)
}

/// nginx as a proxy: one process, connections to the pods kept.
///
/// # Errors
/// No folder or port.
///
/// # Panics
/// With its output, if it does not start.
pub(crate) fn nginx(pods: &[SocketAddr]) -> Outcome<Server> {
    let listen = loopback(free_ports(1)?[0]);
    let servers: String = pods.iter().map(|pod| format!("server {pod}; ")).collect();
    let server = format!(
        "upstream pods {{ {servers} keepalive 64; keepalive_requests 1000000000; }} \
         server {{ listen {listen}; location / {{ proxy_pass http://pods; proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; }} }}"
    );
    Nginx { http: &server, ..Nginx::on(PROXY_CORE) }.start(vec![listen])
}

/// An nginx of one process, by its configuration.
pub(crate) struct Nginx<'a> {
    pub(crate) core: &'a str,
    /// Directives before all blocks.
    pub(crate) main: &'a str,
    /// Directives of the block `http`.
    pub(crate) http: &'a str,
    /// Files beside the configuration: names and texts. `$prefix` is their folder.
    pub(crate) files: &'a [(&'a str, &'a str)],
}

impl<'a> Nginx<'a> {
    /// One that serves nothing yet.
    pub(crate) fn on(core: &'a str) -> Nginx<'a> {
        Nginx { core, main: "", http: "", files: &[] }
    }

    /// Starts it and waits for `addrs`.
    ///
    /// # Errors
    /// No folder.
    ///
    /// # Panics
    /// With its output, if it does not start.
    pub(crate) fn start(&self, addrs: Vec<SocketAddr>) -> Outcome<Server> {
        let temp = nginx_temp();
        let text = format!(
            "{} daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log stderr crit; \
             events {{ worker_connections 8192; }} \
             http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; {temp} {} }}",
            self.main, self.http
        );
        nginx_on(self.core, &text, self.files, addrs)
    }
}

/// Directives of the block `http` that keep nginx in its folder.
pub(crate) fn nginx_temp() -> String {
    ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {what}; "))
        .concat()
}

/// nginx with a whole configuration, which must keep it in the foreground, and the files beside it.
///
/// # Errors
/// No folder.
///
/// # Panics
/// With its output, if it does not start.
pub(crate) fn nginx_on(
    core: &str,
    text: &str,
    files: &[(&str, &str)],
    addrs: Vec<SocketAddr>,
) -> Outcome<Server> {
    let folder = folder()?;
    let config = folder.path().join("nginx.conf");
    for (name, text) in files.iter().copied().chain([("nginx.conf", text)]) {
        let path = folder.path().join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let mut command = pinned(core, "nginx");
    command.arg("-p").arg(folder.path()).arg("-c").arg(&config).args(["-e", "stderr"]);
    Ok(Server::start(command, folder, addrs))
}

/// HAProxy: one thread, round robin, connections to the pods kept and shared.
///
/// # Errors
/// No folder or port.
///
/// # Panics
/// With its output, if it does not start.
pub(crate) fn haproxy(pods: &[SocketAddr]) -> Outcome<Server> {
    let server = |(number, pod): (usize, &SocketAddr)| format!("  server p{number} {pod}\n");
    let servers: String = pods.iter().enumerate().map(server).collect();
    haproxy_with(&format!("  default_backend pods\nbackend pods\n  balance roundrobin\n{servers}"))
}

/// HAProxy that answers 429 to everything, with headers and a body like ours: what a refusal costs at least.
///
/// # Errors
/// No folder or port.
///
/// # Panics
/// With its output, if it does not start.
pub(crate) fn haproxy_refusing() -> Outcome<Server> {
    let body = "x".repeat(REFUSAL_BYTES);
    haproxy_with(&format!(
        "  http-request return status 429 content-type application/problem+json hdr retry-after 1 \
         hdr x-sluicegate-reason no_room string {body}\n"
    ))
}

/// About as long as the body of our refusals.
const REFUSAL_BYTES: usize = 250;

/// HAProxy of one thread whose only frontend goes on with `frontend`.
///
/// # Errors
/// No folder or port.
///
/// # Panics
/// With its output, if it does not start.
pub(crate) fn haproxy_with(frontend: &str) -> Outcome<Server> {
    let folder = folder()?;
    let listen = loopback(free_ports(1)?[0]);
    let text = format!(
        "global\n  nbthread 1\n  maxconn 8192\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  \
         option http-keep-alive\n  http-reuse always\n\
         frontend in\n  bind {listen}\n{frontend}"
    );
    let config = folder.path().join("haproxy.cfg");
    std::fs::write(&config, text).map_err(|error| format!("{}: {error}", config.display()))?;
    let mut command = pinned(PROXY_CORE, "haproxy");
    command.arg("-db").arg("-f").arg(config);
    Ok(Server::start(command, folder, vec![listen]))
}

/// Envoy's binary: `SLUICEGATE_ENVOY`, or where `scripts/install-parts` puts it.
///
/// # Errors
/// It is in neither place.
pub(crate) fn envoy() -> Outcome<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let parts = folder("SLUICEGATE_PARTS").or_else(|| {
        let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
        Some(cache?.join("sluicegate-parts"))
    });
    let path = folder("SLUICEGATE_ENVOY").or_else(|| Some(parts?.join(ENVOY)));
    let missing = "Envoy is not there: scripts/install-parts, or name its binary in SLUICEGATE_ENVOY";
    path.filter(|path| path.is_file()).ok_or_else(|| missing.to_owned())
}

/// Below the folder of parts; the version is that of `scripts/install-parts`.
const ENVOY: &str = "envoy-1.40.0/envoy";

/// Their versions, as they say themselves.
pub(crate) fn versions() -> String {
    let haproxy = machine::said("haproxy", &["-v"]);
    let haproxy = haproxy.split_whitespace().nth(2).unwrap_or("?");
    let nginx = machine::said("dpkg-query", &["--show", "--showformat", "${Version}", "nginx"]);
    format!("HAProxy {haproxy}, nginx {}", nginx.split('-').next().unwrap_or("?"))
}

/// `Envoy 1.40.0`, as it says itself.
pub(crate) fn envoy_version() -> String {
    let said = envoy().ok().map(|path| machine::said(&path.to_string_lossy(), &["--version"]));
    // `... version: HASH/1.40.0/Clean/RELEASE/BoringSSL`
    let said = said.unwrap_or_default();
    format!("Envoy {}", said.split('/').nth_back(3).unwrap_or("?"))
}

/// What a closed loop of 32 connections got done.
pub(crate) struct Done {
    pub(crate) requests: u64,
    /// Answers that were neither 2xx nor 3xx.
    pub(crate) others: u64,
}

/// Runs wrk on the other core.
///
/// # Errors
/// It is not there, or what it prints is not as expected.
pub(crate) fn wrk(target: SocketAddr, path: &str, seconds: f64) -> Outcome<Done> {
    // wrk takes whole seconds only.
    let seconds = format!("{}s", seconds.ceil().max(1.0) as u64);
    let mut command = pinned(OTHER_CORE, "wrk");
    command.args(["-t1", "-c32", "-d", &seconds]).arg(format!("http://{target}{path}"));
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("wrk: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
    let others = text.lines().find_map(|line| line.trim().strip_prefix("Non-2xx or 3xx responses:"));
    let others = others.map_or(Some(0), |count| count.trim().parse().ok());
    match (requests, others) {
        (Some(requests), Some(others)) if requests > 0 && !text.contains("Socket errors") => {
            Ok(Done { requests, others })
        }
        _ => Err(format!("wrk against {target}: {text}{}", String::from_utf8_lossy(&output.stderr))),
    }
}
