//! What the service counts beside the gate. Requests, refusals and units are the gate's own figures.

use std::sync::atomic::{AtomicU64, Ordering};

/// One count, only growing.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) leases: Count,
    pub(crate) written_off: Count,
    pub(crate) undelivered: Count,
    pub(crate) replayed: Count,
    pub(crate) passed_on: Count,
    pub(crate) adopted: Count,
}

/// What the service has counted since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Leases given out.
    pub leases: u64,
    /// Leases that were not renewed in time. Their units are in the gate's own `sluicegate_units_abandoned_total`.
    pub written_off: u64,
    /// Leases given back because their caller was gone before the answer was written.
    pub undelivered: u64,
    /// Asks answered with the lease of an earlier ask of the same id or key.
    pub replayed: u64,
    /// Calls answered by another gate.
    pub passed_on: u64,
    /// Leases taken over from a gate that is gone.
    pub adopted: u64,
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
            written_off: self.written_off.get(),
            undelivered: self.undelivered.get(),
            replayed: self.replayed.get(),
            passed_on: self.passed_on.get(),
            adopted: self.adopted.get(),
        }
    }
}

impl Counts {
    /// Name, help and value of each, for a metrics page. Names are without `_total`, as `prometheus-client` wants them.
    #[must_use]
    pub fn families(&self) -> [(&'static str, &'static str, u64); 6] {
        [
            ("sluicegate_leases", "Leases given out over HTTP by this gate.", self.leases),
            ("sluicegate_leases_written_off", "Leases that were not renewed in time.", self.written_off),
            (
                "sluicegate_leases_undelivered",
                "Leases given back because the caller was gone before the answer.",
                self.undelivered,
            ),
            ("sluicegate_leases_replayed", "Asks answered with the lease of an earlier ask.", self.replayed),
            ("sluicegate_leases_adopted", "Leases taken over from a gate that is gone.", self.adopted),
            ("sluicegate_decisions_passed_on", "Calls answered by another gate of the pool.", self.passed_on),
        ]
    }
}
