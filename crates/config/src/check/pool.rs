//! Whether the rules can be obeyed together: weights, limits and guarantees against the pool.

use sluicegate_core::policy::{Policy, WHOLE};

use super::{Check, at};
use crate::config::PodSource;
use crate::sums::Sums;
use crate::tree::Step;
use crate::wire;

impl Check<'_> {
    /// Only called while nothing else is wrong, for a sum over half of the file says nothing.
    pub(super) fn rules(&mut self, file: &wire::File, policy: &Policy, source: Option<&PodSource>) {
        if !self.problems.is_empty() {
            return;
        }
        self.ceiling(file, policy, source);
        if policy.pods.is_empty() {
            self.weights_of_found(policy, source);
            return;
        }
        let sums = Sums::of(policy);
        self.capacity(policy, &sums);
        if sums.capacity > 0 && self.guarantees(policy, &sums) {
            for index in 0..policy.apis.len() {
                self.api_fits(policy, &sums, index);
            }
        }
        if source == Some(&PodSource::Registered) {
            // Pods come and go one by one: what today's cannot hold may fit tomorrow's, and a pod that died must be
            // let go whatever the others can hold.
            self.warnings.append(&mut self.problems);
        }
    }

    /// A ceiling above the pool asks the pods to bear more than their capacity.
    fn ceiling(&mut self, file: &wire::File, policy: &Policy, source: Option<&PodSource>) {
        let Some(trickle) = policy.admission.trickle.filter(|trickle| trickle.ceiling > WHOLE) else {
            return;
        };
        let held = file.admission.as_ref().is_some_and(|admission| admission.max_hold.is_some());
        // Pods that are not known yet may declare burst when they come, save those of `dns`.
        let may =
            matches!(source, Some(PodSource::File { .. } | PodSource::Registered)) && policy.pods.is_empty();
        if held || may || policy.pods.iter().any(|pod| pod.burst > 0) {
            return;
        }
        let more = percent_text(trickle.ceiling - WHOLE);
        let what = format!(
            "a trickle ceiling of {} asks the pods to bear {more} more than their capacity, and none of them declares \
             `burst`; their own locks would answer 429, and nothing bounds how long a slow request holds its units",
            percent_text(trickle.ceiling)
        );
        let mend = "give the pods `burst: N` (units that their lock really bears above capacity), or set \
                    `admission.max_hold`, or write `ceiling: 100%`";
        self.problem(at!["admission", "trickle", "ceiling"], what, mend);
    }

    fn weights_of_found(&mut self, policy: &Policy, source: Option<&PodSource>) {
        let Some(PodSource::Dns { capacity, .. }) = source else { return };
        for (index, api) in policy.apis.iter().enumerate() {
            if !api.exempt && api.weight > *capacity {
                let what = format!("weight {} is above every pod: each has {capacity} units", api.weight);
                let mend = "lower the weight, or raise `pods.capacity`";
                self.problem(&self.weight_path(policy, index), what, mend);
            }
        }
    }

    fn capacity(&mut self, policy: &Policy, sums: &Sums) {
        if policy.admission.capacity.is_none() {
            return;
        }
        let path = at!["admission", "capacity"];
        if sums.capacity == 0 {
            self.problem(
                path,
                "a pool of 0 units refuses every request",
                "write at least the heaviest weight",
            );
        } else if sums.capacity == sums.declared {
            let what = format!("no cap: the pods together have {} units", sums.declared);
            self.warning(path, what, format!("write less than {}, or take it out", sums.declared));
        }
    }

    /// False: the kept parts exceed the pool, so that no sum below makes sense.
    fn guarantees(&mut self, policy: &Policy, sums: &Sums) -> bool {
        let mins: u64 = sums.mins.iter().sum();
        let kept = mins + sums.reserve + sums.share;
        if kept <= sums.capacity {
            return true;
        }
        let Sums { reserve, share, capacity, .. } = sums;
        let what = format!(
            "more is kept than the pool has: guarantees (`min`) {mins} + reserve {reserve} + trickle share {share} \
             = {kept} units of {capacity}"
        );
        let mend = format!("lower `min`, `reserve` or `share` by {} units together", kept - capacity);
        // Points at the reserve where the rest would fit without it, else at the last guarantee.
        let min = sums.mins.iter().rposition(|min| *min > 0).map(|index| self.api_path(policy, index, "min"));
        let path = match min {
            _ if *reserve > 0 && mins + share <= *capacity => at!["admission", "reserve"].to_vec(),
            Some(path) => path,
            None => at!["admission", "trickle", "share"].to_vec(),
        };
        self.problem(&path, what, mend);
        false
    }

    fn api_fits(&mut self, policy: &Policy, sums: &Sums, index: usize) {
        let api = &policy.apis[index];
        if api.exempt {
            return;
        }
        let (weight, min) = (u64::from(api.weight), sums.mins[index]);
        if let Some(max) = sums.maxs[index] {
            if min > max {
                let what = format!("min is above max: {min} of at most {max} units");
                let mend = format!("write at most {max}, or raise `max`");
                self.problem(&self.api_path(policy, index, "min"), what, mend);
            }
            if weight > max {
                let what = format!(
                    "weight {weight} is above the api's own max of {max} units, so it is never admitted"
                );
                let mend = format!("raise `max` to at least {weight}, or lower the weight");
                self.problem(&self.weight_path(policy, index), what, mend);
                return;
            }
            if max > sums.capacity {
                let what = format!("no limit: the pool has {} units", sums.capacity);
                let path = self.api_path(policy, index, "max");
                self.warning(&path, what, format!("write less than {}, or take it out", sums.capacity));
            }
        }
        if min > 0 && min < weight {
            let what = format!("a guarantee of {min} units holds no request of weight {weight}");
            let path = self.api_path(policy, index, "min");
            self.warning(&path, what, format!("write a multiple of {weight}, or take it out"));
        }
        if sums.trickles(weight) {
            return;
        }
        if weight > sums.largest {
            let what = format!("weight {weight} is above every pod: the largest has {} units", sums.largest);
            let mend = "lower the weight, or give a pod that capacity if it really bears it";
            self.problem(&self.weight_path(policy, index), what, mend);
            return;
        }
        let reach = sums.reach(policy, index);
        if weight > reach {
            let what = format!(
                "weight {weight} is above the {reach} units that this api ever reaches: pool {} - trickle share {} - \
                 reserve {} - guarantees of the others {}",
                sums.capacity,
                sums.share,
                if api.protected { 0 } else { sums.reserve },
                sums.mins.iter().sum::<u64>() - min
            );
            let mend = "lower `reserve`, `share` or the others' `min`, or the weight";
            self.problem(&self.weight_path(policy, index), what, mend);
        }
    }

    /// The key of an api in the file; api `default` may not stand there.
    fn api_path(&self, policy: &Policy, index: usize, key: &'static str) -> Vec<Step<'static>> {
        let listed = self.root.get("apis").map_or(0, |apis| apis.items().len());
        if index < listed {
            return at!["apis", index, key].to_vec();
        }
        debug_assert_eq!(policy.apis[index].name, "default");
        at!["default_weight"].to_vec()
    }

    /// Where the weight is written, or where the api begins if the weight is the default.
    fn weight_path(&self, policy: &Policy, index: usize) -> Vec<Step<'static>> {
        self.api_path(policy, index, "weight")
    }
}

/// Thousandths of a per cent as `12.5%`.
pub(crate) fn percent_text(share: u32) -> String {
    let (whole, part) = (share / 1000, share % 1000);
    if part == 0 {
        return format!("{whole}%");
    }
    format!("{whole}.{}%", format!("{part:03}").trim_end_matches('0'))
}
