//! The pods of one pool and the choice among them.

use std::collections::VecDeque;

use crate::ids::PodId;
use crate::policy::{Placement, PodPolicy, Units};
use crate::time::{Micros, SECOND};

/// A pod's own refusal lowers its usable units for at most this long.
const WITHHELD_US: u64 = SECOND;
/// A pod's report of use by others counts for this long.
const OUTSIDE_US: u64 = SECOND;

#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) rule: PodPolicy,
    /// Health, as the surface sees it. Moves placement, never a limit.
    pub(crate) ready: bool,
    /// Left the source. Kept while leases run on it, and for its number.
    pub(crate) gone: bool,
    /// Sum over live leases, trickle ones included.
    pub(crate) used: Units,
    /// Units in use by others than this pool's leases, by the pod's own word.
    pub(crate) outside: Units,
    outside_until: Micros,
    /// Units that the pod's own refusal took from use, until its next completion.
    withheld: Units,
    withheld_until: Micros,
    /// Freed units that wait for `settle`, oldest first.
    settling: VecDeque<(Micros, Units)>,
    settling_units: Units,
    /// Units of it that a gate of many may use; `None` where all of it is this gate's.
    lent: Option<Units>,
    /// Settling units that are no longer this gate's: they leave `lent` once they have settled.
    owed: Units,
    /// Times its own lock refused what was handed to it.
    pub(crate) refusals: u64,
}

impl Pod {
    fn new(rule: PodPolicy, shared: bool) -> Pod {
        Pod {
            rule,
            ready: true,
            gone: false,
            used: 0,
            outside: 0,
            outside_until: Micros::NEVER,
            withheld: 0,
            withheld_until: Micros::NEVER,
            settling: VecDeque::new(),
            settling_units: 0,
            lent: shared.then_some(0),
            owed: 0,
            refusals: 0,
        }
    }

    /// In the sum C: neither draining nor gone.
    pub(crate) fn counts(&self) -> bool {
        !self.gone && !self.rule.draining
    }

    pub(crate) fn takes_asks(&self) -> bool {
        self.ready && self.counts()
    }

    fn usable(&self, ceiling: Units) -> Units {
        if !self.takes_asks() {
            return 0;
        }
        let taken = self.used.saturating_add(self.outside);
        let taken = taken.saturating_add(self.withheld).saturating_add(self.settling_units);
        ceiling.min(self.lent.unwrap_or(Units::MAX)).saturating_sub(taken)
    }

    /// Most units for ordinary asks. What was lent may include trickle leases, which `burst` bears.
    fn ceiling(&self) -> Units {
        let burst = if self.lent.is_some() { self.rule.burst } else { 0 };
        self.rule.capacity.saturating_add(burst)
    }
}

/// The table of pods.
///
/// **Invariant:** `open[p]` is the usable units of pod p: capacity (in a gate of many what was lent, if that is less)
/// less used, outside, withheld and settling units, and 0 while the pod takes nothing.
#[derive(Debug)]
pub(crate) struct Pods {
    pods: Vec<Pod>,
    /// Dense, because the choice reads all of it on every admission.
    open: Vec<Units>,
    /// Their sum.
    open_units: u64,
    /// Where the last spread choice fell, so that equals take turns.
    turn: usize,
    /// Earliest settling, withheld or outside expiry.
    next_event: Micros,
    /// Only what is lent may be used.
    shared: bool,
    /// Sum of what is owed.
    owed_units: u64,
    /// Pods whose owed units left `lent` since the last [`Pods::take_returned`].
    returned: Vec<PodId>,
}

impl Pods {
    pub(crate) fn new() -> Pods {
        Pods {
            pods: Vec::new(),
            open: Vec::new(),
            open_units: 0,
            turn: 0,
            next_event: Micros::NEVER,
            shared: false,
            owed_units: 0,
            returned: Vec::new(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PodId, &Pod)> {
        self.pods.iter().enumerate().map(|(index, pod)| (PodId(index as u32), pod))
    }

    pub(crate) fn get(&self, id: PodId) -> Option<&Pod> {
        self.pods.get(id.index())
    }

    pub(crate) fn find(&self, name: &str) -> Option<PodId> {
        self.iter().find(|(_, pod)| !pod.gone && pod.rule.name == name).map(|(id, _)| id)
    }

    /// Usable units of a pod for ordinary asks.
    pub(crate) fn open(&self, id: PodId) -> Units {
        self.open.get(id.index()).copied().unwrap_or(0)
    }

    pub(crate) fn any_takes_asks(&self) -> bool {
        self.pods.iter().any(Pod::takes_asks)
    }

    /// Sum of declared capacity of the pods that count, and the largest of them.
    pub(crate) fn capacity(&self) -> (u64, Units) {
        self.pods.iter().filter(|pod| pod.counts()).fold((0, 0), |(sum, largest), pod| {
            (sum + u64::from(pod.rule.capacity), largest.max(pod.rule.capacity))
        })
    }

    pub(crate) fn largest_with_burst(&self) -> Units {
        let counting = self.pods.iter().filter(|pod| pod.counts());
        counting.map(|pod| pod.rule.capacity.saturating_add(pod.rule.burst)).max().unwrap_or(0)
    }

    pub(crate) fn outside(&self) -> u64 {
        self.pods.iter().filter(|pod| pod.counts()).map(|pod| u64::from(pod.outside)).sum()
    }

    /// Takes the pods of a new policy: same name, same number; unknown ones are added, missing ones are gone.
    pub(crate) fn configure(&mut self, rules: &[PodPolicy]) {
        for pod in &mut self.pods {
            pod.gone = true;
        }
        for rule in rules {
            match self.pods.iter_mut().find(|pod| pod.rule.name == rule.name) {
                Some(pod) => {
                    pod.rule = rule.clone();
                    pod.gone = false;
                }
                None => self.pods.push(Pod::new(rule.clone(), self.shared)),
            }
        }
        self.open.resize(self.pods.len(), 0);
        (0..self.pods.len()).for_each(|index| self.refresh(index));
    }

    /// From now on only what is lent may be used, which is nothing yet.
    pub(crate) fn share(&mut self) {
        self.shared = true;
        (0..self.pods.len()).for_each(|index| self.lend(PodId(index as u32), 0));
    }

    /// Units of a pod that a gate of many may use.
    pub(crate) fn lent(&self, id: PodId) -> Units {
        self.get(id).map_or(0, |pod| pod.lent.unwrap_or(pod.rule.capacity))
    }

    /// A gate of many may use so many units of a pod, its leases among them.
    pub(crate) fn lend(&mut self, id: PodId, units: Units) {
        if let Some(pod) = self.pods.get_mut(id.index()) {
            pod.lent = Some(units);
            self.refresh(id.index());
        }
    }

    /// Units of a pod that leases hold or that settle after them.
    pub(crate) fn busy(&self, id: PodId) -> Units {
        self.get(id).map_or(0, |pod| pod.used.saturating_add(pod.settling_units))
    }

    /// Units that settle, or are about to, and that are somebody else's afterwards.
    pub(crate) fn owe(&mut self, id: PodId, units: Units) {
        let pod = &mut self.pods[id.index()];
        pod.owed += units;
        self.owed_units += u64::from(units);
    }

    /// All that settles now is owed.
    pub(crate) fn owe_settling(&mut self, id: PodId) {
        let pod = &self.pods[id.index()];
        let more = pod.settling_units.saturating_sub(pod.owed);
        self.owe(id, more);
    }

    /// When the next settling units may be back, if some are owed.
    pub(crate) fn owed_at(&self) -> Micros {
        if self.owed_units > 0 { self.next_event } else { Micros::NEVER }
    }

    /// Pods of which owed units were given up, to be told.
    pub(crate) fn take_returned(&mut self) -> Vec<PodId> {
        std::mem::take(&mut self.returned)
    }

    pub(crate) fn take(&mut self, id: PodId, weight: Units) {
        self.pods[id.index()].used += weight;
        self.refresh(id.index());
    }

    /// Units of a lease come back. `completed` is false if the pod never ran it.
    pub(crate) fn give_back(&mut self, now: Micros, id: PodId, weight: Units, completed: bool) {
        let pod = &mut self.pods[id.index()];
        pod.used -= weight;
        if completed {
            pod.withheld = 0;
            if pod.rule.settle_us > 0 {
                let due = now + pod.rule.settle_us;
                // In order of time, also after `settle` was made shorter.
                let at = pod.settling.partition_point(|(other, _)| *other <= due);
                pod.settling.insert(at, (due, weight));
                pod.settling_units += weight;
                self.next_event = self.next_event.min(due);
            }
        }
        self.refresh(id.index());
    }

    /// The pod's own lock refused `weight` units.
    pub(crate) fn withhold(&mut self, now: Micros, id: PodId, weight: Units) {
        let pod = &mut self.pods[id.index()];
        pod.refusals += 1;
        pod.withheld = pod.withheld.saturating_add(weight).min(pod.rule.capacity);
        pod.withheld_until = now + WITHHELD_US;
        self.next_event = self.next_event.min(pod.withheld_until);
        self.refresh(id.index());
    }

    /// The pod says that `in_use` units are taken on it, all callers together.
    pub(crate) fn report(&mut self, now: Micros, id: PodId, in_use: Units) {
        let Some(pod) = self.pods.get_mut(id.index()) else { return };
        pod.outside = in_use.saturating_sub(pod.used).min(pod.rule.capacity);
        pod.outside_until = now + OUTSIDE_US;
        if pod.outside > 0 {
            self.next_event = self.next_event.min(pod.outside_until);
        }
        self.refresh(id.index());
    }

    pub(crate) fn set_ready(&mut self, id: PodId, ready: bool) {
        if let Some(pod) = self.pods.get_mut(id.index()) {
            pod.ready = ready;
            self.refresh(id.index());
        }
    }

    pub(crate) fn next_event(&self) -> Micros {
        self.next_event
    }

    /// Lets time pass. True if some units became usable.
    pub(crate) fn advance(&mut self, now: Micros) -> bool {
        if now < self.next_event {
            return false;
        }
        let mut next = Micros::NEVER;
        let mut freed = false;
        for index in 0..self.pods.len() {
            let pod = &mut self.pods[index];
            let before = (pod.settling_units, pod.withheld, pod.outside);
            while pod.settling.front().is_some_and(|(due, _)| *due <= now) {
                let (_, weight) = pod.settling.pop_front().expect("front was just seen");
                pod.settling_units -= weight;
                let back = pod.owed.min(weight);
                if back > 0 {
                    pod.owed -= back;
                    self.owed_units -= u64::from(back);
                    pod.lent = pod.lent.map(|lent| lent.saturating_sub(back));
                    self.returned.push(PodId(index as u32));
                }
            }
            if pod.withheld > 0 && pod.withheld_until <= now {
                pod.withheld = 0;
            }
            if pod.outside > 0 && pod.outside_until <= now {
                pod.outside = 0;
            }
            if let Some((due, _)) = pod.settling.front() {
                next = next.min(*due);
            }
            if pod.withheld > 0 {
                next = next.min(pod.withheld_until);
            }
            if pod.outside > 0 {
                next = next.min(pod.outside_until);
            }
            freed |= before != (pod.settling_units, pod.withheld, pod.outside);
            self.refresh(index);
        }
        self.next_event = next;
        freed
    }

    fn refresh(&mut self, index: usize) {
        let pod = &self.pods[index];
        let open = pod.usable(pod.ceiling());
        self.open_units = self.open_units - u64::from(self.open[index]) + u64::from(open);
        self.open[index] = open;
    }

    /// Sum of the usable units of all pods.
    pub(crate) fn open_units(&self) -> u64 {
        self.open_units
    }

    /// The pod for an ask of `weight`, by the placement rule, passing over `skip`.
    ///
    /// `auto` spreads while the heaviest api (`heaviest` units) still finds a pod with room afterwards,
    /// else it packs: spreading cools the pods, packing keeps slots for the heavy.
    pub(crate) fn choose(
        &mut self,
        weight: Units,
        skip: Option<PodId>,
        placement: Placement,
        heaviest: Units,
    ) -> Option<PodId> {
        let skip = skip.map_or(usize::MAX, PodId::index);
        let (mut widest, mut most, mut second) = (usize::MAX, 0, 0);
        for (index, open) in self.open.iter().copied().enumerate() {
            if index == skip {
                continue;
            }
            if open >= weight && (widest == usize::MAX || open > most) {
                second = second.max(most);
                (widest, most) = (index, open);
            } else {
                second = second.max(open);
            }
        }
        if widest == usize::MAX {
            return None;
        }
        let spread = match placement {
            Placement::Spread => true,
            Placement::Pack => false,
            Placement::Auto => second.max(most - weight) >= heaviest,
        };
        if !spread {
            return self.narrowest(weight, skip);
        }
        if second == most {
            // Equals take turns.
            let equal = |index: &usize| *index != skip && self.open[*index] == most;
            widest = (self.turn..self.open.len()).find(equal).unwrap_or(widest);
        }
        self.turn = if widest + 1 == self.open.len() { 0 } else { widest + 1 };
        Some(PodId(widest as u32))
    }

    /// The pod with the fewest usable units that hold `weight`.
    fn narrowest(&self, weight: Units, skip: usize) -> Option<PodId> {
        let open = self.open.iter().enumerate();
        let fits = open.filter(|(index, open)| *index != skip && **open >= weight);
        fits.min_by_key(|(_, open)| **open).map(|(index, _)| PodId(index as u32))
    }

    /// The pod for a trickle ask that fits on no pod's capacity: the one with most units left below
    /// capacity + burst.
    pub(crate) fn choose_burst(&self, weight: Units, skip: Option<PodId>) -> Option<PodId> {
        self.iter()
            .filter(|(id, pod)| pod.rule.burst > 0 && Some(*id) != skip)
            .map(|(id, pod)| (pod.usable(pod.rule.capacity.saturating_add(pod.rule.burst)), id))
            .filter(|(open, _)| *open >= weight)
            .max_by_key(|(open, id)| (*open, std::cmp::Reverse(*id)))
            .map(|(_, id)| id)
    }

    pub(crate) fn has_burst_room(&self, id: PodId, weight: Units) -> bool {
        self.get(id).is_some_and(|pod| pod.usable(pod.rule.capacity.saturating_add(pod.rule.burst)) >= weight)
    }

    /// The pod for a claim of `weight`: most usable units among those that could ever hold it. `held` is
    /// kept unless another has more.
    pub(crate) fn choose_claim(&self, weight: Units, held: Option<PodId>) -> Option<PodId> {
        let able = |pod: &Pod| pod.takes_asks() && pod.rule.capacity >= weight;
        let held = held.filter(|id| self.get(*id).is_some_and(able));
        let best = self
            .iter()
            .filter(|(_, pod)| able(pod))
            .max_by_key(|(id, _)| (self.open(*id), std::cmp::Reverse(*id)))
            .map(|(id, _)| id);
        match (held, best) {
            (Some(held), Some(best)) if self.open(best) <= self.open(held) => Some(held),
            (_, best) => best,
        }
    }

    /// The least used pod that takes asks, in proportion to its capacity; equals take turns.
    pub(crate) fn least_used(&mut self) -> Option<PodId> {
        let count = self.pods.len();
        let mut best: Option<usize> = None;
        for step in 0..count {
            let index = (self.turn + step) % count;
            let pod = &self.pods[index];
            if !pod.takes_asks() {
                continue;
            }
            let less = best.is_none_or(|held| {
                let other = &self.pods[held];
                u64::from(pod.used) * u64::from(other.rule.capacity)
                    < u64::from(other.used) * u64::from(pod.rule.capacity)
            });
            if less {
                best = Some(index);
            }
        }
        if let Some(index) = best {
            self.turn = (index + 1) % count;
        }
        best.map(|index| PodId(index as u32))
    }

    /// Recomputes what is kept incrementally.
    pub(crate) fn audit(&self) -> Result<(), String> {
        for (id, pod) in self.iter() {
            let settling: Units = pod.settling.iter().map(|(_, weight)| weight).sum();
            if settling != pod.settling_units {
                return Err(format!("pod {}: settling {} is kept as {}", id.0, settling, pod.settling_units));
            }
            if pod.owed > settling {
                return Err(format!("pod {}: {} of {settling} settling units are owed", id.0, pod.owed));
            }
            if self.open(id) != pod.usable(pod.ceiling()) {
                return Err(format!("pod {}: open units are stale", id.0));
            }
        }
        Ok(())
    }
}
