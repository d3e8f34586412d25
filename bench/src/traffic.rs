//! Open loads, sent from a process of their own.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluicegate_trial::load::{Plan, Record, RunOptions, Target, run};

use crate::{Outcome, world};

/// One load of several that are sent at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) plan: Plan,
    pub(crate) to: To,
    /// Seconds before it begins.
    pub(crate) after: f64,
    /// Milliseconds after which a client leaves.
    pub(crate) patience_ms: u64,
}

/// Where a load goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum To {
    One(SocketAddr),
    Random(Vec<SocketAddr>),
    RoundRobin(Vec<SocketAddr>),
}

impl Job {
    /// A load that begins at once, with patient clients.
    pub(crate) fn new(plan: Plan, to: To) -> Job {
        Job { plan, to, after: 0.0, patience_ms: 120_000 }
    }
}

/// Sends the jobs from a new process, on `core` if given, and reads their records.
///
/// # Errors
/// The process failed, or a record cannot be read.
pub(crate) fn sent(jobs: &[Job], core: Option<&str>) -> Outcome<Vec<Record>> {
    let folder = world::folder()?;
    let path = folder.path().join("jobs.json");
    let text = serde_json::to_string(jobs).map_err(|error| format!("jobs: {error}"))?;
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    let program = std::env::current_exe().map_err(|error| format!("this program's own path: {error}"))?;
    let mut command = match core {
        Some(core) => world::pinned(core, program),
        None => Command::new(program),
    };
    let ended = command.arg("load").arg(&path).stdin(Stdio::null()).status();
    if !ended.as_ref().is_ok_and(std::process::ExitStatus::success) {
        return Err(format!("the load failed: {ended:?}"));
    }
    let read = |number| {
        let path = record_path(&path, number);
        let file = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Record::read_from(&mut BufReader::new(file)).map_err(|error| format!("{}: {error}", path.display()))
    };
    (0..jobs.len()).map(read).collect()
}

/// The sending process.
///
/// # Errors
/// A target cannot be reached, or a file cannot be read or written.
pub(crate) async fn send(path: &Path) -> Outcome<()> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let jobs: Vec<Job> =
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut tasks = Vec::new();
    for job in jobs {
        tasks.push(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs_f64(job.after)).await;
            let target = match job.to {
                To::One(addr) => Target::One(addr),
                To::Random(addrs) => Target::Random(addrs),
                To::RoundRobin(addrs) => Target::RoundRobin(addrs),
            };
            let timeout = Duration::from_millis(job.patience_ms);
            run(&job.plan, target, RunOptions { timeout, connections_max: 8192, ..RunOptions::default() })
                .await
        }));
    }
    for (number, task) in tasks.into_iter().enumerate() {
        let record = task.await.map_err(|error| format!("the load: {error}"))?;
        let record = record.map_err(|error| format!("the load: {error}"))?;
        let path = record_path(path, number);
        let written = File::create(&path).and_then(|file| {
            let mut out = BufWriter::new(file);
            record.write_to(&mut out)?;
            out.flush()
        });
        written.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

fn record_path(jobs: &Path, number: usize) -> std::path::PathBuf {
    jobs.with_file_name(format!("record-{number}.jsonl"))
}
