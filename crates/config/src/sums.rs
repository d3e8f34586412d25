//! What the rules come to in units: section 3 of the design as plain sums.
//!
//! Rounds as the core does: guarantees and the reserve up, limits and the share down.

use sluicegate_core::policy::{Amount, Policy, WHOLE};

/// The pool's figures, all in units.
pub(crate) struct Sums {
    /// Declared by the pods together.
    pub(crate) declared: u64,
    /// C: declared, capped by `admission.capacity`.
    pub(crate) capacity: u64,
    pub(crate) share: u64,
    pub(crate) reserve: u64,
    /// Most that trickle leases hold together.
    pub(crate) trickle: u64,
    /// Guarantee of each api.
    pub(crate) mins: Vec<u64>,
    /// Limit of each api.
    pub(crate) maxs: Vec<Option<u64>>,
    /// The largest pod.
    pub(crate) largest: u64,
    /// The largest pod with its burst.
    pub(crate) largest_burst: u64,
}

impl Sums {
    pub(crate) fn of(policy: &Policy) -> Sums {
        let admission = &policy.admission;
        let declared = policy.pods.iter().map(|pod| u64::from(pod.capacity)).sum();
        let capacity = admission.capacity.map_or(declared, |amount| floor(amount, declared).min(declared));
        let share = admission.trickle.map_or(0, |trickle| floor(trickle.share, capacity));
        let ceiling =
            admission.trickle.map_or(0, |trickle| capacity * u64::from(trickle.ceiling) / u64::from(WHOLE));
        let holds = policy.apis.iter().map(|api| !api.exempt);
        Sums {
            declared,
            capacity,
            share,
            reserve: ceil(admission.reserve, capacity),
            trickle: ceiling.saturating_sub(capacity.saturating_sub(share)),
            mins: policy
                .apis
                .iter()
                .zip(holds)
                .map(|(api, holds)| if holds { ceil(api.min, capacity) } else { 0 })
                .collect(),
            maxs: policy.apis.iter().map(|api| api.max.map(|max| floor(max, capacity))).collect(),
            largest: policy.pods.iter().map(|pod| u64::from(pod.capacity)).max().unwrap_or(0),
            largest_burst: policy
                .pods
                .iter()
                .map(|pod| u64::from(pod.capacity) + u64::from(pod.burst))
                .max()
                .unwrap_or(0),
        }
    }

    /// Most units of the pool that an api reaches without the trickle while the others' guarantees stand
    /// unused: C - share - reserve (not for a protected one) - the others' `min`.
    pub(crate) fn reach(&self, policy: &Policy, api: usize) -> u64 {
        let others: u64 = self.mins.iter().sum::<u64>() - self.mins[api];
        let reserve = if policy.apis[api].protected { 0 } else { self.reserve };
        self.capacity.saturating_sub(self.share).saturating_sub(others + reserve)
    }

    /// True when an ask of so many units can enter by the trickle at all.
    pub(crate) fn trickles(&self, weight: u64) -> bool {
        weight <= self.share && weight <= self.trickle && weight <= self.largest_burst
    }
}

fn floor(amount: Amount, capacity: u64) -> u64 {
    match amount {
        Amount::Units(units) => u64::from(units),
        Amount::Share(share) => capacity * u64::from(share) / u64::from(WHOLE),
    }
}

fn ceil(amount: Amount, capacity: u64) -> u64 {
    match amount {
        Amount::Units(units) => u64::from(units),
        Amount::Share(share) => (capacity * u64::from(share)).div_ceil(u64::from(WHOLE)),
    }
}
