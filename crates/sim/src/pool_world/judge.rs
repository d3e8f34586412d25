//! The judge: it knows what runs on the pods, and what the rules say.

use sluicegate_core::ids::PodId;
use sluicegate_core::policy::{ApiPolicy, Policy, Units, WHOLE};

use super::PoolWorld;

impl PoolWorld {
    /// A request began on `pod`: within some rules that were in force of late, or not.
    pub(super) fn judge_start(&mut self, pod: usize, api: usize) {
        let over = |policy: &Policy| self.over(policy, pod);
        let beyond = self.in_force().map(over).min().expect("some rules are always in force");
        let lawful = self.in_force().any(|policy| self.is_lawful(policy, api));
        if self.era.is_of_strangers(self.now, &self.setup.timing) {
            self.outcome.strangers += u64::from(beyond > 0 || !lawful);
            return;
        }
        self.outcome.over += u64::from(beyond > 0);
        self.outcome.over_units = self.outcome.over_units.max(beyond);
        // Between two sets of rules a mixture of both may hold: figures come into force one by one.
        let mixed = self.in_force().count() > 1;
        self.outcome.unlawful += u64::from(!lawful && !mixed);
    }

    /// The rules of now, and earlier ones that a gate still obeys or obeyed until two times to live ago: as long may
    /// credit be used that was lent under them.
    fn in_force(&self) -> impl Iterator<Item = &Policy> {
        let memory_us = 2 * self.setup.timing.ttl_us;
        let newest = self.reigns.len() - 1;
        let reigns = self.reigns.iter().enumerate().filter(move |(index, reign)| {
            let obeyed = || self.gates.iter().any(|gate| gate.alive && gate.policy == *index);
            *index == newest || self.now < reign.left + memory_us || obeyed()
        });
        reigns.map(|(_, reign)| &reign.policy)
    }

    /// Units on a pod above what it bears: its capacity, and its burst for those that entered by the trickle. A pod that
    /// drains takes nothing new.
    fn over(&self, policy: &Policy, pod: usize) -> u64 {
        let rule = &policy.pods[pod];
        let capacity = if rule.draining { 0 } else { u64::from(rule.capacity) };
        let plain = (self.on_pod[pod] - self.trickle_on_pod[pod]).saturating_sub(capacity);
        let all = self.on_pod[pod].saturating_sub(capacity + u64::from(rule.burst));
        let trickled =
            if self.trickle_on_pod[pod] == 0 { self.on_pod[pod].saturating_sub(capacity) } else { 0 };
        plain.max(all).max(trickled)
    }

    /// Conditions 2 and 3 of the model for what is in use, after a start of `api`. Credit counts as admitted when it was
    /// lent, so a protected api may have entered the reserve between the two; what may never be is that unprotected
    /// apis use the reserve or that a guarantee finds no room.
    fn is_lawful(&self, policy: &Policy, api: usize) -> bool {
        let Policy { pods, apis, admission } = policy;
        let capacity: Units = pods.iter().filter(|pod| !pod.draining).map(|pod| pod.capacity).sum();
        let capacity = admission.capacity.map_or(capacity, |cap| cap.floor_of(capacity)).min(capacity);
        let share = admission.trickle.map_or(0, |trickle| trickle.share.floor_of(capacity));
        let plain = u64::from(capacity - share);
        let rules = || apis.iter().zip(&self.of_api);
        let min = |rule: &ApiPolicy| u64::from(rule.min.ceil_of(capacity));
        let unfilled: u64 = rules().map(|(rule, used)| min(rule).saturating_sub(*used)).sum();
        let trickled: u64 = self.trickle_on_pod.iter().sum();
        let used = self.of_api.iter().sum::<u64>() - trickled;
        // A trickle lease fills a guarantee without filling the pool; when it ends, credit was lent on its account.
        let most = |ceiling: u32| u64::from(capacity) * u64::from(ceiling) / u64::from(WHOLE);
        let borne = admission.trickle.map_or(0, |trickle| most(trickle.ceiling) - plain);
        let room = used + unfilled <= plain + borne;
        let ordinary: u64 = rules().map(|(rule, used)| if rule.protected { min(rule) } else { *used }).sum();
        let reserved = ordinary.saturating_sub(trickled) + u64::from(admission.reserve.ceil_of(capacity))
            <= plain + borne;
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
            sum.emergency += counts.emergency;
        }
        let rules = &self.reigns.last().expect("there are always some").policy;
        for (index, pod) in rules.pods.iter().enumerate() {
            let id = PodId(index as u32);
            let alive = self.gates.iter().filter(|gate| gate.alive);
            let lent: u64 = alive.map(|gate| u64::from(gate.member.lent(id))).sum();
            let usable = u64::from(self.keeper.open(id)) + lent;
            let capacity = if pod.draining { 0 } else { u64::from(pod.capacity) };
            self.outcome.leaked += capacity.abs_diff(usable) + self.on_pod[index];
        }
    }
}
