//! Which states of the protocol a fault meets.

use super::PoolWorld;
use crate::faults::Fault;

/// States of a gate with its ledger; several may hold at once.
pub const STATES: [&str; 13] = [
    "joining",
    "syncing",
    "credit",
    "leases",
    "waiting",
    "scarce",
    "recall",
    "claim",
    "unheard",
    "lapsed",
    "recovering",
    "leaving",
    "remains",
];

impl PoolWorld {
    pub(super) fn note_states(&mut self, fault: &Fault) {
        let struck: Vec<usize> = match fault.gate() {
            Some(gate) => vec![gate],
            None => (0..self.gates.len()).collect(),
        };
        for index in struck.into_iter().filter(|index| self.gates[*index].alive) {
            let view = self.gates[index].member.view(self.clock(index));
            let is = [
                view.stamp.incarnation == 0,
                view.syncing,
                view.credit > 0,
                self.gates[index].member.snapshot().in_use > 0,
                !self.gates[index].waiting.is_empty(),
                view.scarce,
                view.recall.is_some(),
                view.claimed.is_some(),
                self.keeper.unheard(view.id) > 0,
                view.lapsed,
                view.recovering,
                view.leaving,
                self.keeper.remains() > 0,
            ];
            for (state, _) in STATES.iter().zip(is).filter(|(_, is)| *is) {
                *self.outcome.met.entry((fault.name(), state)).or_default() += 1;
            }
        }
    }
}
