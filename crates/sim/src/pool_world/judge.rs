//! The judge: it knows what runs on the pods, and what the rules say.

use sluicegate_core::ids::PodId;
use sluicegate_core::policy::{ApiPolicy, Policy, Units};

use super::PoolWorld;

impl PoolWorld {
    /// Conditions 2 and 3 of the model for what is in use, after a start of `api`. Credit counts as admitted when it was
    /// lent, so a protected api may have entered the reserve between the two; what may never be is that unprotected
    /// apis use the reserve or that a guarantee finds no room.
    pub(super) fn is_lawful(&self, api: usize) -> bool {
        let Policy { pods, apis, admission } = &self.setup.policy;
        let capacity: Units = pods.iter().map(|pod| pod.capacity).sum();
        let capacity = admission.capacity.map_or(capacity, |cap| cap.floor_of(capacity)).min(capacity);
        let rules = || apis.iter().zip(&self.of_api);
        let min = |rule: &ApiPolicy| u64::from(rule.min.ceil_of(capacity));
        let unfilled: u64 = rules().map(|(rule, used)| min(rule).saturating_sub(*used)).sum();
        let room = self.of_api.iter().sum::<u64>() + unfilled <= u64::from(capacity);
        let ordinary: u64 = rules().map(|(rule, used)| if rule.protected { min(rule) } else { *used }).sum();
        let reserved = ordinary + u64::from(admission.reserve.ceil_of(capacity)) <= u64::from(capacity);
        let below = apis[api].max.is_none_or(|max| self.of_api[api] <= u64::from(max.floor_of(capacity)));
        below && room && (reserved || apis[api].protected)
    }

    pub(super) fn note_room(&mut self) {
        let pods = self.setup.policy.pods.iter().zip(&self.on_pod);
        let most = pods.map(|(pod, used)| u64::from(pod.capacity).saturating_sub(*used)).max().unwrap_or(0);
        for (weight, since) in &mut self.room_since {
            if u64::from(*weight) > most {
                *since = None;
            } else if since.is_none() {
                *since = Some(self.now);
            }
        }
    }

    /// Nothing runs any more: all units must be free, or credit of a gate that is alive.
    pub(super) fn judge_quiet(&mut self) {
        for gate in self.gates.iter().filter(|gate| gate.alive) {
            self.outcome.forgotten += gate.waiting.len() as u64;
            let counts = gate.member.counts();
            let sum = &mut self.outcome.gates;
            sum.reports += counts.reports;
            sum.retries += counts.retries;
            sum.lapses += counts.lapses;
            sum.resyncs += counts.resyncs;
            sum.gaps += counts.gaps;
            sum.unusable += counts.unusable;
            sum.foreign += counts.foreign;
            sum.for_waiters += counts.for_waiters;
            sum.for_credit += counts.for_credit;
            sum.for_others += counts.for_others;
        }
        for (index, pod) in self.setup.policy.pods.iter().enumerate() {
            let id = PodId(index as u32);
            let alive = self.gates.iter().filter(|gate| gate.alive);
            let lent: u64 = alive.map(|gate| u64::from(gate.member.lent(id))).sum();
            let usable = u64::from(self.keeper.open(id)) + lent;
            self.outcome.leaked += u64::from(pod.capacity).abs_diff(usable) + self.on_pod[index];
        }
    }
}
