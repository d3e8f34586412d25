//! Memory of requests that wait.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sluicegate_testkit::client::{H2, Raw};
use sluicegate_testkit::process::Process;
use tokio::task::JoinSet;

use crate::page::Section;
use crate::world::{Gateway, POD_UNITS, PODS, PodKind, Pods, pool, sluicegate};
use crate::{Outcome, Settings, cpu};

/// Time for all waiters to arrive.
const ARRIVE: Duration = Duration::from_secs(50);

/// Time for all of them to be gone, beyond which the measurement gives up.
const LEAVE: Duration = Duration::from_secs(20);

/// # Errors
/// Not all waiters arrived or left, or the page cannot be written.
pub(crate) fn run(settings: &Settings) -> Outcome<()> {
    let bin = sluicegate(settings)?;
    let mut section = Section::begin("waiting");
    section.table(&[
        "waiting requests",
        "KiB each",
        "bar",
        "arrived within s",
        "gone after ms",
        "bar ms",
        "KiB each left",
    ]);
    for (connections, streams) in [(15_000, 0), (100, 1000)] {
        section.row(waited(&bin, connections, streams)?);
    }
    section.note(format!(
        "All {} units of the pool are held by requests that hang; then each waiter asks for one unit (`queue: 200000, \
         wait: 60s`). Growth of the resident memory from the full pool to the last waiter, by the waiters. Gone: from \
         the SIGKILL of the clients' process to `waiting: 0` in `/v1/state`, seen every 5 ms. Left: the growth that \
         stays with the process two seconds later, for the next waiters.",
        PODS as u32 * POD_UNITS
    ));
    section.end(settings)
}

/// A row.
fn waited(bin: &Path, connections: usize, streams: usize) -> Outcome<String> {
    let pods = Pods::start(PodKind::default())?;
    let rules = format!(
        "{}apis:\n  - {{name: whole, match: \"GET /w/{POD_UNITS}\", weight: {POD_UNITS}, max_hold: 10m}}\n  \
         - {{name: one, match: \"GET /w/1\", weight: 1}}\nadmission: {{wait: 60s, queue: 200000}}\n",
        pool(&pods.addrs)
    );
    let gateway = Gateway::start(bin, &rules, None, &[])?;
    let held = gateway.hold_pool()?;
    let count = if streams == 0 { connections } else { connections * streams };
    let before = cpu::resident(gateway.pid())?;
    let program = std::env::current_exe().map_err(|error| format!("this program's own path: {error}"))?;
    let mut command = Command::new(program);
    command
        .arg("waiters")
        .arg(gateway.listen.to_string())
        .args([connections.to_string(), streams.to_string()]);
    let mut clients = Process::spawn(command);
    let arrived = gateway
        .until_waiting(count as u64, ARRIVE)
        .map_err(|error| format!("{error}; the clients printed: {}", clients.output()))?;
    let full = cpu::resident(gateway.pid())?;
    clients.kill();
    let gone = gateway.until_waiting(0, LEAVE)?;
    std::thread::sleep(Duration::from_secs(2));
    let left = cpu::resident(gateway.pid())?;
    drop(held);
    let each = |now: u64| now.saturating_sub(before) as f64 / 1024.0 / count as f64;
    let what = if streams == 0 {
        format!("{count} HTTP/1.1 connections")
    } else {
        format!("{count} HTTP/2 streams ({connections} x {streams})")
    };
    Ok(format!(
        "{what} | {:.1} | 16 | {:.1} | {} | 1000 | {:.1}",
        each(full),
        arrived.as_secs_f64(),
        gone.as_millis(),
        each(left)
    ))
}

/// The clients' process: every request waits until it is killed.
///
/// # Errors
/// A connection or request failed, which none should.
pub(crate) async fn wait(target: SocketAddr, connections: usize, streams: usize) -> Outcome<()> {
    if streams == 0 {
        let mut waiting = Vec::with_capacity(connections);
        for _ in 0..connections {
            let mut client = Raw::connect(target).await.map_err(|error| format!("connect: {error}"))?;
            client.request("GET", "/w/1", &[]).await.map_err(|error| format!("send: {error}"))?;
            waiting.push(client);
        }
        return std::future::pending().await;
    }
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let client = H2::connect(target).await.map_err(|error| format!("connect: {error}"))?;
        for _ in 0..streams {
            tasks.spawn(client.send(client.get("/w/1")));
        }
        // Lets the connection's task write before the next thousand: one at a time, as clients arrive.
        tokio::task::yield_now().await;
    }
    Err(match tasks.join_next().await {
        Some(Ok(Ok(answer))) => format!("a waiter was answered {}", answer.status()),
        Some(Ok(Err(error))) => format!("a waiter failed: {error}"),
        Some(Err(error)) => format!("a waiter's task failed: {error}"),
        None => "there was no waiter".to_owned(),
    })
}
