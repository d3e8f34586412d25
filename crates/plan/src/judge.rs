//! What a run can show. A pool that is offered more than it can work off fills its queue for as long as the longest wait
//! before it refuses anybody, so a run that is short beside that wait calls an overload enough.

use crate::row::Row;
use crate::scenario::Job;
use crate::traffic::{WAITS, longest_wait_s};

/// Up to this load a queue comes and goes within a run of any length.
const LOAD_SURE: f64 = 0.95;

/// Whether what `row` saw will also be so in the long run.
///
/// # Errors
/// Why not, in words that can follow a sentence.
pub(crate) fn bears(job: &Job, row: &Row) -> Result<(), String> {
    let load = job.traffic.load(&job.policy);
    if load <= LOAD_SURE {
        return Ok(());
    }
    let wait_s = longest_wait_s(&job.policy);
    let (first_us, last_us) = job.traffic.window_us();
    let span_s = (last_us - first_us) as f64 / 1e6;
    if span_s < WAITS * wait_s {
        return Err(format!(
            "the load is {load:.3}, and a run of {span_s:.1} s beside a wait of {wait_s} s cannot show whether the pool bears \
             it"
        ));
    }
    // What comes in excess is refused sooner or later, by the units or by the requests.
    if load >= 1.0 && row.refused_share <= excess(load) * mean_part(job) {
        return Err(format!(
            "the load is {load:.3}: what is in excess of 1 waits at first and is refused later"
        ));
    }
    Ok(())
}

/// The part of the work that a pool without idle units cannot do.
pub(crate) fn excess(load: f64) -> f64 {
    1.0 - 1.0 / load.max(1.0)
}

/// Work of a mean request over that of the costliest api's: the fewest requests that an excess can cost.
pub(crate) fn mean_part(job: &Job) -> f64 {
    let Job { traffic, policy, .. } = job;
    let work = |stream: &crate::Stream| f64::from(policy.apis[stream.api].weight) * stream.mean_us;
    let most = traffic.streams.iter().map(work).fold(f64::MIN_POSITIVE, f64::max);
    let sum: f64 = traffic.streams.iter().map(|stream| work(stream) * stream.per_s).sum();
    sum / traffic.per_s().max(f64::MIN_POSITIVE) / most
}
