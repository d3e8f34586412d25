//! The same pool at several loads, or the same traffic on several sizes of the pool.

use std::sync::Arc;

use serde::Serialize;
use sluicegate_config::Fault;

use crate::Options;
use crate::row::Row;
use crate::scenario::{Job, with_pods};
use crate::words::{Over, Sweep};
use crate::workers::{self, Progress};

/// What came out of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sweeping {
    /// `load` or `pods`.
    pub over: String,
    /// In rising order.
    pub points: Vec<SweepPoint>,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SweepPoint {
    /// The load, or the number of pods.
    pub value: f64,
    /// Pods alone in turn, pooled without waiting, and as configured.
    pub scenarios: Vec<Row>,
}

/// Scenarios of a sweep beside the configured one.
const KEYS: [&str; 2] = ["alone_round_robin", "pooled_no_wait"];

pub(crate) fn run(
    sweep: &Sweep,
    jobs: &[Job],
    configured: &str,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Sweeping, Fault> {
    let wanted =
        |job: &&Job| !options.only.is_empty() || job.key == configured || KEYS.contains(&job.key.as_str());
    let chosen: Vec<&Job> = jobs.iter().filter(wanted).collect();
    let first = &jobs[0];
    let mut all = Vec::new();
    for value in &sweep.values {
        let traffic = match sweep.over {
            Over::Load => Arc::new(first.traffic.at_load(&first.policy, *value)),
            Over::Pods => Arc::clone(&first.traffic),
        };
        for job in &chosen {
            let policy = match sweep.over {
                Over::Load => job.policy.clone(),
                Over::Pods => with_pods(&job.policy, *value as usize),
            };
            all.push(Job { policy, traffic: Arc::clone(&traffic), ..(*job).clone() });
        }
    }
    let rows = workers::all(&all, options.threads, progress, Job::run)
        .into_iter()
        .collect::<Result<Vec<Row>, Fault>>()?;
    let marked = |row: &Row| Row { configured: row.key == configured, ..row.clone() };
    let points = sweep.values.iter().zip(rows.chunks(chosen.len()));
    Ok(Sweeping {
        over: if sweep.over == Over::Load { "load" } else { "pods" }.to_owned(),
        points: points
            .map(|(value, rows)| SweepPoint { value: *value, scenarios: rows.iter().map(marked).collect() })
            .collect(),
    })
}
