//! What a gate counted, per api.

use crate::gate::Gate;
use crate::ids::ApiId;
use crate::refusal::Reason;

/// Upper bounds of the wait histogram, microseconds; one more bucket holds what is above.
pub const WAIT_BOUNDS_US: [u64; 12] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000,
];

/// Counters of one api. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApiCounts {
    /// Requests that got a lease (in `shadow` and `off` also those that would not have).
    pub admitted: u64,
    /// Refusals by [`Reason::ALL`]; in `shadow` those that would have been refused or made to wait.
    pub refused: [u64; Reason::ALL.len()],
    /// Requests kept for later: those of `overflowed`, and those that asked for it.
    pub enqueued: u64,
    /// Requests counted in `refused` that were kept for later.
    pub overflowed: u64,
    /// Clients that left while waiting.
    pub cancelled: u64,
    /// Requests that were admitted and whose pod then failed.
    pub failed: u64,
    /// Requests of an exempt api.
    pub exempt: u64,
    /// Admitted requests by how long they waited, see [`WAIT_BOUNDS_US`].
    pub waits: [u64; WAIT_BOUNDS_US.len() + 1],
    /// Sum of those waits, microseconds.
    pub waited_us: u64,
}

impl ApiCounts {
    /// Refusals of all reasons together.
    #[must_use]
    pub fn refused_all(&self) -> u64 {
        self.refused.iter().sum()
    }

    /// Refusals that were told to a client: all but those whose request was kept for later.
    #[must_use]
    pub fn turned_away(&self) -> u64 {
        self.refused_all() - self.overflowed
    }

    #[inline]
    pub(crate) fn count_wait(&mut self, waited_us: u64) {
        self.admitted += 1;
        self.waited_us += waited_us;
        let bucket = if waited_us <= WAIT_BOUNDS_US[0] {
            0
        } else {
            WAIT_BOUNDS_US.partition_point(|bound| *bound < waited_us)
        };
        self.waits[bucket] += 1;
    }

    pub(crate) fn count_refusal(&mut self, reason: Reason) {
        let index = Reason::ALL.iter().position(|other| *other == reason);
        self.refused[index.expect("ALL names every reason")] += 1;
    }
}

impl Gate {
    /// A request was kept for later without having asked.
    pub fn count_enqueued(&mut self, api: ApiId) {
        self.apis[api.index()].counts.enqueued += 1;
    }

    /// A request that was admitted failed at its pod.
    pub fn count_failed(&mut self, api: ApiId) {
        self.apis[api.index()].counts.failed += 1;
    }
}
