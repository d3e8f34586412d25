//! Leases over HTTP: pairs of acquire and release, beside a hyper server that does nothing.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use sluicegate_testkit::process::Process;
use tokio::net::TcpListener;

use crate::page::Section;
use crate::stats::Spread;
use crate::world::{OTHER_CORE, PROXY_CORE, block_on, example, folder, pinned, sluicegate};
use crate::{Outcome, Settings, cpu, rivals};

/// Kept connections, each with one call at a time.
const CONNECTIONS: usize = 16;
const SOON: Duration = Duration::from_secs(60);
/// What is asked for.
const ASK: &str = "{\"method\": \"GET\", \"path\": \"/quotes/1\"}";

/// What a run of calls saw.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Called {
    requests: u64,
    /// Neither 201 nor 204.
    others: u64,
}

struct Side {
    name: &'static str,
    process: Process,
    addr: SocketAddr,
    cpu_us: Vec<f64>,
    rate: Vec<f64>,
}

/// # Errors
/// A program is missing, a call was not answered 201 or 204, or the page cannot be written.
pub(crate) fn run(settings: &Settings) -> Outcome<()> {
    let bin = sluicegate(settings)?;
    let mut section = Section::begin("decisions");
    let pods = rivals::tiny_pods()?;
    let dir = folder()?;
    let file = dir.path().join("sluicegate.yaml");
    let rules = format!("{}decisions: {{http: \"127.0.0.1:0\"}}\n", example(&pods.addrs));
    std::fs::write(&file, rules).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut ours = pinned(PROXY_CORE, bin);
    ours.arg("run").arg("-c").arg(&file);
    let program = std::env::current_exe().map_err(|error| format!("this program's own path: {error}"))?;
    let mut empty = pinned(PROXY_CORE, program);
    empty.arg("empty");
    let mut sides = [
        side("Sluicegate, acquire and release", ours, "decisions listening")?,
        side("empty hyper server, the same calls", empty, "empty listening")?,
    ];
    let seconds = settings.seconds.unwrap_or(2.0);
    for side in &sides {
        called(side.addr, 1.0)?;
    }
    for turn in 0..settings.runs as usize {
        for step in 0..sides.len() {
            // Whoever goes first changes from turn to turn.
            measure(&mut sides[(turn + step) % 2], seconds)?;
        }
    }
    section.table(&["closed loop, one core", "CPU µs per call, median", "min..max", "calls/s", "bar"]);
    for side in &sides {
        let rate = Spread::of(&side.rate).median;
        section.row(format!("{} | {} | {rate:.0} | ", side.name, Spread::of(&side.cpu_us).cells(2)));
    }
    let ratio = Spread::of_ratios(&sides[0].cpu_us, &sides[1].cpu_us);
    section.row(format!("Sluicegate over empty, run by run | {} | | 2.0", ratio.cells(3)));
    section.note(format!(
        "{} alternating runs of {seconds:.0} s, {CONNECTIONS} kept connections from the other core: `POST /v1/leases` by method \
         and path, then `DELETE` of what it gave; to the empty server the same bytes with one id. The design's example in \
         force, one worker.",
        settings.runs
    ));
    section.end(settings)
}

fn side(name: &'static str, command: Command, line: &str) -> Outcome<Side> {
    let mut process = Process::spawn(command);
    let addr = process.line(SOON, |said| {
        let (_, fields) = said.split_once(line)?;
        fields.split_once("listen=")?.1.split_whitespace().next()?.parse().ok()
    });
    Ok(Side { name, process, addr, cpu_us: Vec::new(), rate: Vec::new() })
}

fn measure(side: &mut Side, seconds: f64) -> Outcome<()> {
    let before = cpu::cpu_ns(side.process.id())?;
    let done = called(side.addr, seconds)?;
    let used = cpu::cpu_ns(side.process.id())? - before;
    if done.others > 0 {
        return Err(format!("{}: {} of {} calls failed", side.name, done.others, done.requests));
    }
    side.cpu_us.push(used as f64 / done.requests as f64 / 1000.0);
    side.rate.push(done.requests as f64 / seconds);
    Ok(())
}

/// Calls from a new process on the other core.
fn called(target: SocketAddr, seconds: f64) -> Outcome<Called> {
    let program = std::env::current_exe().map_err(|error| format!("this program's own path: {error}"))?;
    let mut command = pinned(OTHER_CORE, program);
    command.args(["pairs", &target.to_string(), &seconds.to_string()]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("the calls: {error}"))?;
    serde_json::from_slice(&output.stdout).map_err(|error| format!("the calls to {target}: {error}"))
}

/// The calling process: prints a [`Called`].
///
/// # Errors
/// A connection failed.
pub(crate) fn call(target: SocketAddr, seconds: f64) -> Outcome<()> {
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let threads: Vec<_> =
        (0..CONNECTIONS).map(|_| std::thread::spawn(move || pairs(target, until))).collect();
    let mut all = Called { requests: 0, others: 0 };
    for thread in threads {
        let done = thread.join().map_err(|_| "a calling thread panicked".to_owned())?;
        let done = done.map_err(|error| format!("{target}: {error}"))?;
        all.requests += done.requests;
        all.others += done.others;
    }
    println!("{}", serde_json::to_string(&all).map_err(|error| error.to_string())?);
    Ok(())
}

fn pairs(target: SocketAddr, until: Instant) -> io::Result<Called> {
    let mut stream = TcpStream::connect(target)?;
    stream.set_nodelay(true)?;
    let ask = format!(
        "POST /v1/leases HTTP/1.1\r\nHost: {target}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{ASK}",
        ASK.len()
    );
    let mut done = Called { requests: 0, others: 0 };
    let mut buffer = [0; 2048];
    while Instant::now() < until {
        stream.write_all(ask.as_bytes())?;
        let (status, body) = answer(&mut stream, &mut buffer)?;
        let id = body.split_once("\"id\":\"").and_then(|(_, rest)| rest.split('"').next());
        // As long as one of ours.
        let id = id.unwrap_or("0123456789abcdef._g0123456789abcdef0123456789abcdef");
        let give_back = format!("DELETE /v1/leases/{id} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        stream.write_all(give_back.as_bytes())?;
        let (ended, _) = answer(&mut stream, &mut buffer)?;
        done.requests += 2;
        done.others += u64::from(status != 201) + u64::from(ended != 204);
    }
    Ok(done)
}

/// Status and body of one answer.
fn answer<'a>(stream: &mut TcpStream, buffer: &'a mut [u8]) -> io::Result<(u16, &'a str)> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Err(bad());
        }
        filled += read;
        let Some(head_len) = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&buffer[..head_len]).map_err(|_| bad())?;
        let length = head.lines().filter_map(|line| line.split_once(':'));
        let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length = length.filter_map(|(_, value)| value.trim().parse::<usize>().ok()).next().unwrap_or(0);
        if filled >= head_len + 4 + length {
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(bad)?;
            let body = std::str::from_utf8(&buffer[head_len + 4..filled]).map_err(|_| bad())?;
            return Ok((status, body));
        }
    }
}

/// The server that does nothing: 201 to a `POST`, 204 to all else.
///
/// # Errors
/// It cannot listen.
pub(crate) fn empty() -> Outcome<()> {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
        let addr = listener.local_addr().map_err(|error| error.to_string())?;
        println!("empty listening listen={addr}");
        loop {
            let (stream, _) = listener.accept().await.map_err(|error| error.to_string())?;
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let served = hyper::server::conn::http1::Builder::new();
                drop(served.serve_connection(TokioIo::new(stream), service_fn(nothing)).await);
            });
        }
    })
}

async fn nothing(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut answer = Response::new(Full::default());
    let is_post = request.method() == hyper::Method::POST;
    *answer.status_mut() = if is_post { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    Ok(answer)
}
