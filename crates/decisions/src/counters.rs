//! What the service counts beside the gate. Requests, refusals and units are the gate's own figures.

use std::sync::atomic::{AtomicU64, Ordering};

/// One count, only growing.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) leases: Count,
    pub(crate) overdue: Count,
    pub(crate) written_off: Count,
    pub(crate) undelivered: Count,
    pub(crate) replayed: Count,
    pub(crate) passed_on: Count,
    pub(crate) streams: Count,
    pub(crate) early_ends: Count,
    pub(crate) moved: Count,
    pub(crate) elsewhere: Count,
}

/// What the service has counted since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Leases given out over HTTP.
    pub leases: u64,
    /// Leases whose hold passed without a renewal.
    pub overdue: u64,
    /// Leases written off: not given back within twice their hold. Their units are in the gate's own
    /// `sluicegate_units_abandoned_total`.
    pub written_off: u64,
    /// Leases given back because their caller was gone before the answer was written.
    pub undelivered: u64,
    /// Asks answered with the lease of an earlier ask of the same id.
    pub replayed: u64,
    /// Calls passed on to another gate.
    pub passed_on: u64,
    /// Streams of Envoy.
    pub streams: u64,
    /// Streams that ended so soon after the decision that the response can hardly have been over.
    pub early_ends: u64,
    /// Leases moved to the pod that really answered.
    pub moved: u64,
    /// Answers from another place than the chosen pod.
    pub elsewhere: u64,
}

impl Count {
    pub(crate) fn one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(crate) fn read(&self) -> Counts {
        Counts {
            leases: self.leases.get(),
            overdue: self.overdue.get(),
            written_off: self.written_off.get(),
            undelivered: self.undelivered.get(),
            replayed: self.replayed.get(),
            passed_on: self.passed_on.get(),
            streams: self.streams.get(),
            early_ends: self.early_ends.get(),
            moved: self.moved.get(),
            elsewhere: self.elsewhere.get(),
        }
    }
}

impl Counts {
    /// Name, help and value of each, for a metrics page. Names are without `_total`, as `prometheus-client` wants them.
    #[must_use]
    pub fn families(&self) -> [(&'static str, &'static str, u64); 10] {
        [
            ("sluicegate_leases", "Leases given out over HTTP by this gate.", self.leases),
            ("sluicegate_leases_overdue", "Leases whose hold passed without a renewal.", self.overdue),
            ("sluicegate_leases_written_off", "Leases not given back within twice their hold.", self.written_off),
            ("sluicegate_leases_undelivered", "Leases whose caller was gone before the answer.", self.undelivered),
            ("sluicegate_leases_replayed", "Asks answered with the lease of an earlier ask.", self.replayed),
            ("sluicegate_decisions_passed_on", "Calls passed on to the gate that holds the lease.", self.passed_on),
            ("sluicegate_ext_proc_streams", "Streams of Envoy.", self.streams),
            (
                "sluicegate_ext_proc_early_ends",
                "Streams that ended at once after the decision: response_trailer_mode is not SEND.",
                self.early_ends,
            ),
            ("sluicegate_ext_proc_moved", "Leases moved to the pod that really answered.", self.moved),
            (
                "sluicegate_ext_proc_elsewhere",
                "Answers from another place than the chosen pod.",
                self.elsewhere,
            ),
        ]
    }
}
