//! An open loop for rates at which the trial load would need a core of its own: a thread for each connection, which
//! takes the next planned request, sleeps until its time, writes it and reads its answer.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sluicegate_trial::load::{Arrival, Plan, Service, Shape};

use crate::Outcome;
use crate::stats::quantile;
use crate::world::{OTHER_CORE, pinned};

/// Many more than are ever on their way: a request that finds none free is sent late, and its lag shows it.
const CONNECTIONS: usize = 64;

/// What a run saw. Times are microseconds; latencies from the planned sending to the last byte.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) requests: usize,
    /// Answered anything but 200, or not at all.
    pub(crate) failed: usize,
    pub(crate) lag_us_max: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
}

/// One run from a new process on the other core.
///
/// # Errors
/// The process failed.
pub(crate) fn sent(target: SocketAddr, path: &str, rate: f64, seconds: f64, seed: u64) -> Outcome<Seen> {
    let program = std::env::current_exe().map_err(|error| format!("this program's own path: {error}"))?;
    let mut command = pinned(OTHER_CORE, program);
    command.args(["steady", &target.to_string(), path]);
    command.args([rate.to_string(), seconds.to_string(), seed.to_string()]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("the load: {error}"))?;
    serde_json::from_slice(&output.stdout).map_err(|error| format!("the load against {target}: {error}"))
}

/// The sending process: prints a [`Seen`].
///
/// # Errors
/// A connection failed.
pub(crate) fn send(target: SocketAddr, path: &str, rate: f64, seconds: f64, seed: u64) -> Outcome<()> {
    let shape = Shape {
        method: "GET".to_owned(),
        path: path.to_owned(),
        weight: 1,
        rate_per_s: rate,
        service: Service::Fixed { ms: 0.0 },
    };
    let arrivals = Plan { apis: vec![shape], seconds, seed }.arrivals();
    let connect = || TcpStream::connect(target).and_then(|stream| stream.set_nodelay(true).map(|()| stream));
    let streams: io::Result<Vec<TcpStream>> = (0..CONNECTIONS).map(|_| connect()).collect();
    let streams = streams.map_err(|error| format!("connect to {target}: {error}"))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    let (next, samples) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(arrivals.len())));
    // Time for all threads to be asleep.
    let start = Instant::now() + Duration::from_millis(100);
    std::thread::scope(|scope| {
        for mut stream in streams {
            let (next, samples, arrivals, request) = (&next, &samples, &arrivals, request.as_bytes());
            scope.spawn(move || {
                let mut own = Vec::new();
                while let Some(arrival) = arrivals.get(next.fetch_add(1, Ordering::Relaxed)) {
                    own.push(one(&mut stream, request, start, arrival));
                }
                samples.lock().expect("no thread panics while it adds its samples").extend(own);
            });
        }
    });
    let samples = samples.into_inner().expect("no thread panics while it adds its samples");
    let mut took: Vec<u64> = samples.iter().filter_map(|sample| sample.took_us).collect();
    let seen = Seen {
        requests: samples.len(),
        failed: samples.len() - took.len(),
        lag_us_max: samples.iter().map(|sample| sample.lag_us).max().unwrap_or(0),
        p50_us: quantile(&mut took, 0.5),
        p99_us: quantile(&mut took, 0.99),
    };
    println!("{}", serde_json::to_string(&seen).map_err(|error| error.to_string())?);
    Ok(())
}

struct Sample {
    lag_us: u64,
    /// `None`: not answered 200.
    took_us: Option<u64>,
}

fn one(stream: &mut TcpStream, request: &[u8], start: Instant, arrival: &Arrival) -> Sample {
    let due = start + Duration::from_micros(arrival.at_us);
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
    let lag_us = due.elapsed().as_micros() as u64;
    let answered = stream.write_all(request).and_then(|()| answer(stream));
    let took_us = answered.is_ok_and(|status| status == 200).then(|| due.elapsed().as_micros() as u64);
    Sample { lag_us, took_us }
}

/// Reads one answer with a `content-length`, and gives its status.
fn answer(stream: &mut TcpStream) -> io::Result<u16> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let (mut buffer, mut filled) = ([0; 4096], 0);
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Err(bad("the answer broke off, or is longer than the buffer"));
        }
        filled += read;
        let Some(head_len) = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&buffer[..head_len]).map_err(|_| bad("the head is not text"))?;
        let length = head.lines().filter_map(|line| line.split_once(':'));
        let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length = length.filter_map(|(_, value)| value.trim().parse::<usize>().ok()).next();
        if filled >= head_len + 4 + length.ok_or_else(|| bad("no content-length"))? {
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
            return status.ok_or_else(|| bad("no status"));
        }
    }
}
