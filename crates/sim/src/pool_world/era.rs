//! Whether anybody told the ledger of what was before.
//!
//! A ledger that lost its state and one that never had any look alike, and so do a gate that is new and one that forgot. When
//! a ledger loses its state while every gate that knows of it stands still, is cut off or is gone, and only gates speak that
//! never heard of a ledger, then it lends again after ttl x 6/5, and what runs for the others may run longer. That is a
//! stated limit (docs/shared-ledger.md); what comes of it is counted apart, so that nothing hides in it.

use sluicegate_core::shared::{Report, Timing};

/// The ledger's present life, as the judge sees it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Era {
    incarnation: u64,
    began: u64,
    /// The first of all: nothing was before.
    is_first: bool,
    /// A gate that knew an earlier one spoke while it recovered.
    is_known: bool,
}

impl Era {
    /// A report came to the ledger, which is in the life of this number since.
    pub(super) fn note(&mut self, now: u64, report: &Report, incarnation: u64, timing: &Timing) {
        if incarnation != self.incarnation {
            *self = Era { incarnation, began: now, is_first: self.incarnation == 0, is_known: false };
        }
        let knew = report.stamp.incarnation != 0 && report.stamp.incarnation != incarnation;
        self.is_known |= knew && now < self.began + timing.ttl_us + timing.margin_us();
    }

    /// Whether requests of gates that the ledger has never heard of may still run.
    pub(super) fn is_of_strangers(&self, now: u64, timing: &Timing) -> bool {
        !self.is_first && !self.is_known && now < self.began + 3 * timing.ttl_us + timing.hold_max_us
    }
}
