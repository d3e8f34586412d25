//! Leases whose request turned out to be on another pod, or on none.

use super::Member;
use crate::exchange::{Entry, Holding};
use crate::gate::Output;
use crate::ids::{LeaseId, PodId};
use crate::member::basis::Basis;
use crate::shared::Account;
use crate::time::Micros;

impl Member {
    /// As [`Gate::relocate`](crate::gate::Gate::relocate). What the lease holds on the pod where it runs counts as lent
    /// there, also above what the ledger lent: the next report tells it.
    pub fn relocate(&mut self, now: Micros, lease: LeaseId, pod: PodId, out: &mut Vec<Output>) -> bool {
        self.pass(now, out);
        self.leave_pod(lease, pod);
        let moved = self.gate.relocate(now, lease, pod, out);
        if moved {
            self.cover(pod);
        }
        moved
    }

    /// As [`Gate::turned_away`](crate::gate::Gate::turned_away).
    pub fn turned_away(&mut self, now: Micros, lease: LeaseId, out: &mut Vec<Output>) -> bool {
        self.pass(now, out);
        self.free(now, lease, false);
        self.gate.turned_away(now, lease, out)
    }

    /// A lease is about to be moved to `to`: its units on the pod that it leaves stay here, or are kept for the ledger.
    fn leave_pod(&mut self, lease: LeaseId, to: PodId) {
        let known = self.gate.ledger.pods.get(to).is_some();
        let lease = self.gate.leases.get(lease.0).filter(|lease| known && lease.holding.pod != to);
        let Some(lease) = lease else { return };
        let Holding { pod, api, weight, entry, .. } = lease.holding;
        if self.loss.basis != Basis::Ledger {
            if entry == Entry::Trickle {
                self.forget_share(Account::Pod(pod), weight);
            }
            let beyond = self.lent(pod).saturating_sub(self.allotted(pod));
            self.end_loan(pod, weight.min(beyond), false);
        } else if entry == Entry::Trickle || self.goes_back(pod, api, weight) {
            self.end_loan(pod, weight, false);
            self.urgent = true;
        }
    }
}
