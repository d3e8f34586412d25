//! Queues by units: what a backlog in the background costs the requests whose clients wait, and what a consumer that
//! counts units does beside one whose concurrency was tuned by hand.

mod backlog;
pub(crate) mod consumer;
mod topics;
mod tuned;

use sluicegate_testkit::kafka::Kafka;

use crate::page::Section;
use crate::world::sluicegate;
use crate::{Outcome, Settings};

/// Of each topic.
const PARTITIONS: u32 = 4;
/// Without `--runs` 20 would take more than an hour.
const RUNS_MAX: u32 = 2;

/// How much and how long.
struct Extent {
    runs: u32,
    /// Length of one run.
    seconds: f64,
    /// Length of one step in the search for the best concurrency.
    step_s: f64,
    /// Jobs and messages in the background.
    backlog: u64,
    /// Messages of a topic whose throughput is measured.
    messages: u64,
}

impl Extent {
    fn of(settings: &Settings, quick: bool) -> Extent {
        let runs = settings.runs.min(if quick { 1 } else { RUNS_MAX });
        let seconds = settings.seconds.unwrap_or(if quick { 3.0 } else { 12.0 });
        let step_s = if quick { 1.5 } else { 3.5 };
        let (backlog, messages) = if quick { (8_000, 30_000) } else { (100_000, 100_000) };
        Extent { runs, seconds, step_s, backlog, messages }
    }
}

/// `quick`: a minute of everything, to see that it works.
///
/// # Errors
/// The program or Kafka is missing, a backlog does not last, or the page cannot be written.
pub(crate) fn run(settings: &Settings, quick: bool) -> Outcome<()> {
    if quick && settings.write {
        return Err("figures of --quick mean nothing: they are not written".to_owned());
    }
    let bin = sluicegate(settings)?;
    let extent = Extent::of(settings, quick);
    let mut section = Section::begin("queues");
    let kafka = Kafka::start(PARTITIONS);
    let brokers = kafka.addr().to_string();
    backlog::measured(&bin, &brokers, &extent, &mut section)?;
    tuned::measured(&bin, &brokers, &extent, &mut section)?;
    section.end(settings)
}
