//! Leases whose request turned out to be elsewhere, or nowhere: what a door learns that does not place requests itself.

use crate::exchange::{Change, Ending};
use crate::gate::{Gate, Lease, Output};
use crate::ids::{LeaseId, PodId};
use crate::time::Micros;

impl Gate {
    /// The request of a lease runs on `pod`, whatever pod was chosen for it: its units are moved there. That pod may
    /// then hold more than its capacity; it is a fact, and nothing is admitted there until enough completes. What it
    /// left is free at once, because it never ran there. False if the lease had ended, or there never was such a pod;
    /// then nothing changed.
    pub fn relocate(&mut self, now: Micros, lease: LeaseId, pod: PodId, out: &mut Vec<Output>) -> bool {
        let now = self.pass(now, out);
        if self.ledger.pods.get(pod).is_none() {
            return false;
        }
        let Some(Lease { holding, .. }) = self.leases.get_mut(lease.0) else { return false };
        let before = *holding;
        if before.pod != pod {
            holding.pod = pod;
            self.ledger.exchange(now, Change::Move(before, pod), &mut self.grants);
            self.hand_over(now, out);
        }
        true
    }

    /// The pod's own lock refused the request, and it is not tried elsewhere: as [`Gate::retry`] with
    /// [`Ending::PodRefused`], but it asks no more. False if the lease had ended before.
    pub fn turned_away(&mut self, now: Micros, lease: LeaseId, out: &mut Vec<Output>) -> bool {
        self.end_without_run(now, lease, Ending::PodRefused, out)
    }

    /// A lease that was granted and never used comes back: no completion, and a trickle lease's tokens
    /// return too. False if it had ended before.
    pub fn unused(&mut self, now: Micros, lease: LeaseId, out: &mut Vec<Output>) -> bool {
        self.end_without_run(now, lease, Ending::NeverStarted, out)
    }

    fn end_without_run(
        &mut self,
        now: Micros,
        lease: LeaseId,
        ending: Ending,
        out: &mut Vec<Output>,
    ) -> bool {
        let now = self.pass(now, out);
        let Some(Lease { holding, .. }) = self.leases.remove(lease.0) else { return false };
        self.ledger.exchange(now, Change::Return(holding, ending), &mut self.grants);
        // It does not ask again, so those who wait are served now.
        self.ledger.exchange(now, Change::Tick, &mut self.grants);
        self.hand_over(now, out);
        true
    }
}
