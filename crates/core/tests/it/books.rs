//! The rules of DESIGN sections 3 to 5, computed from scratch from lists of live leases and waiting asks.
//!
//! Nothing here is kept incrementally and nothing is taken from the core but its public plain types: a figure is
//! summed anew each time it is asked for. Slow, and hard to get wrong in the same way as the core.

use std::collections::BTreeMap;

use sluicegate_core::exchange::{Entry, Place};
use sluicegate_core::ids::{LeaseId, PodId, Ticket};
use sluicegate_core::policy::{Amount, ApiPolicy, Order, PodPolicy, Policy, WHOLE};

/// Tags of `fair` per unit.
const TAG: u64 = 1 << 16;
/// Tokens are counted in units x 10^9, so that rate (units per 1000 s) x microseconds is exact.
const TOKEN: u128 = 1_000_000_000;

#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) rule: PodPolicy,
    pub(crate) gone: bool,
    pub(crate) ready: bool,
    pub(crate) outside: (u64, u64),
    pub(crate) withheld: (u64, u64),
    pub(crate) settling: Vec<(u64, u64)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) lease: LeaseId,
    pub(crate) pod: usize,
    pub(crate) weight: u64,
    pub(crate) entry: Entry,
    pub(crate) wish: Wish,
}

/// An ask, waiting or about to be decided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) api: usize,
    pub(crate) weight: u64,
    pub(crate) own_weight: bool,
    pub(crate) place: Place,
    pub(crate) key: u64,
    pub(crate) arrival: u64,
    pub(crate) wait_us: u64,
    pub(crate) behind_us: u64,
    /// Order of entry into the queue; the last of all for an ask that is not in it.
    pub(crate) seq: u64,
    pub(crate) again: bool,
}

impl Wish {
    pub(crate) fn deadline(&self) -> u64 {
        self.arrival.saturating_add(self.wait_us)
    }
}

/// The best waiter's hold, as far as it concerns the others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) wish: Wish,
    pub(crate) pod: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Books {
    pub(crate) policy: Policy,
    /// By pod number; gone ones stay.
    pub(crate) pods: Vec<Pod>,
    /// By api number, with whether it is gone.
    pub(crate) apis: Vec<(ApiPolicy, bool)>,
    pub(crate) live: Vec<Live>,
    pub(crate) waiting: Vec<(Ticket, Wish)>,
    pub(crate) now: u64,
    tokens: u128,
    filled_at: u64,
    finish: BTreeMap<u64, u64>,
    virtual_time: u64,
}

impl Books {
    pub(crate) fn new(policy: &Policy, now: u64) -> Books {
        let mut books = Books {
            policy: policy.clone(),
            pods: Vec::new(),
            apis: Vec::new(),
            live: Vec::new(),
            waiting: Vec::new(),
            now,
            tokens: 0,
            filled_at: now,
            finish: BTreeMap::new(),
            virtual_time: 0,
        };
        books.policy.admission.trickle = None;
        books.configure(policy);
        books
    }

    pub(crate) fn configure(&mut self, policy: &Policy) {
        self.fill();
        let had_trickle = self.share() > 0;
        if self.policy.admission.order != policy.admission.order {
            self.finish.clear();
            self.virtual_time = 0;
        }
        self.policy = policy.clone();
        self.pods.iter_mut().for_each(|pod| pod.gone = true);
        for rule in &policy.pods {
            match self.pods.iter_mut().find(|pod| pod.rule.name == rule.name) {
                Some(pod) => {
                    pod.rule = rule.clone();
                    pod.gone = false;
                }
                None => self.pods.push(Pod {
                    rule: rule.clone(),
                    gone: false,
                    ready: true,
                    outside: (0, 0),
                    withheld: (0, 0),
                    settling: Vec::new(),
                }),
            }
        }
        self.apis.iter_mut().for_each(|api| api.1 = true);
        for rule in &policy.apis {
            match self.apis.iter_mut().find(|api| api.0.name == rule.name) {
                Some(api) => *api = (rule.clone(), false),
                None => self.apis.push((rule.clone(), false)),
            }
        }
        let full = u128::from(self.share()) * TOKEN;
        self.tokens = if had_trickle { self.tokens.min(full) } else { full };
        for (_, wish) in &mut self.waiting {
            if !wish.own_weight {
                wish.weight = u64::from(self.apis[wish.api].0.weight);
            }
        }
    }

    /// What time alone changes.
    pub(crate) fn pass(&mut self, now: u64) {
        self.now = self.now.max(now);
        let now = self.now;
        self.fill();
        for pod in &mut self.pods {
            pod.settling.retain(|(due, _)| *due > now);
            if pod.withheld.1 <= now {
                pod.withheld.0 = 0;
            }
            if pod.outside.1 <= now {
                pod.outside.0 = 0;
            }
        }
    }

    fn fill(&mut self) {
        let rate = self.policy.admission.trickle.map_or(0, |trickle| trickle.rate_milli);
        let gained = u128::from(self.now - self.filled_at) * u128::from(rate);
        self.tokens = (self.tokens + gained).min(u128::from(self.share()) * TOKEN);
        self.filled_at = self.now;
    }

    // What the limits are.

    fn counts(&self, pod: usize) -> bool {
        !self.pods[pod].gone && !self.pods[pod].rule.draining
    }

    pub(crate) fn is_up(&self, pod: usize) -> bool {
        self.counts(pod) && self.pods[pod].ready
    }

    pub(crate) fn could_hold(&self, pod: PodId, wish: &Wish) -> bool {
        self.counts(pod.index()) && u64::from(self.pods[pod.index()].rule.capacity) >= wish.weight
    }

    /// When time alone changes something next: a deadline, or units that have settled.
    pub(crate) fn next_time(&self) -> Option<u64> {
        let deadlines = self.waiting.iter().map(|(_, wish)| wish.deadline());
        let settled = self.pods.iter().flat_map(|pod| pod.settling.iter().map(|(due, _)| *due));
        deadlines.chain(settled).min()
    }

    /// Some pod is up, and some pod that counts has units at all.
    pub(crate) fn any_can_serve(&self) -> bool {
        let has_units = |pod: usize| self.counts(pod) && self.pods[pod].rule.capacity > 0;
        let mut pods = 0..self.pods.len();
        pods.clone().any(|pod| self.is_up(pod)) && pods.any(has_units)
    }

    pub(crate) fn capacity(&self) -> u64 {
        let pods = (0..self.pods.len()).filter(|pod| self.counts(*pod));
        let declared: u64 = pods.map(|pod| u64::from(self.pods[pod].rule.capacity)).sum();
        self.policy.admission.capacity.map_or(declared, |cap| floor(cap, declared).min(declared))
    }

    pub(crate) fn share(&self) -> u64 {
        self.policy.admission.trickle.map_or(0, |trickle| floor(trickle.share, self.capacity()))
    }

    pub(crate) fn reserve(&self) -> u64 {
        ceil(self.policy.admission.reserve, self.capacity())
    }

    fn trickle_most(&self) -> u64 {
        let ceiling = self.policy.admission.trickle.map_or(0, |trickle| {
            (u128::from(self.capacity()) * u128::from(trickle.ceiling) / u128::from(WHOLE)) as u64
        });
        ceiling.saturating_sub(self.capacity().saturating_sub(self.share()))
    }

    pub(crate) fn min(&self, api: usize) -> u64 {
        if self.apis[api].1 { 0 } else { ceil(self.apis[api].0.min, self.capacity()) }
    }

    pub(crate) fn max(&self, api: usize) -> Option<u64> {
        let max = self.apis[api].0.max.filter(|_| !self.apis[api].1)?;
        Some(floor(max, self.capacity()))
    }

    fn heaviest(&self) -> u64 {
        let apis = self.policy.apis.iter().filter(|api| !api.exempt);
        apis.map(|api| u64::from(api.weight)).max().unwrap_or(1)
    }

    fn lightest(&self) -> u64 {
        let apis = self.policy.apis.iter().filter(|api| !api.exempt);
        apis.map(|api| u64::from(api.weight)).min().unwrap_or(1)
    }

    /// The most one ask of `api` could get from an empty pool.
    pub(crate) fn most(&self, api: usize) -> u64 {
        let pods = || (0..self.pods.len()).filter(|pod| self.counts(*pod)).map(|pod| &self.pods[pod].rule);
        let largest = pods().map(|rule| u64::from(rule.capacity)).max().unwrap_or(0);
        let with_burst =
            pods().map(|rule| u64::from(rule.capacity) + u64::from(rule.burst)).max().unwrap_or(0);
        let kept: u64 = (0..self.apis.len()).filter(|other| *other != api).map(|other| self.min(other)).sum();
        let kept = kept + self.reserve_for(api);
        let pool = (self.capacity().saturating_sub(self.share())).saturating_sub(kept).min(largest);
        let trickle = self.share().min(self.trickle_most()).min(with_burst);
        pool.max(trickle).min(self.max(api).unwrap_or(u64::MAX))
    }

    // What is in use.

    pub(crate) fn on_pod(&self, pod: usize) -> u64 {
        self.live.iter().filter(|live| live.pod == pod).map(|live| live.weight).sum()
    }

    pub(crate) fn of_api(&self, api: usize) -> u64 {
        self.live.iter().filter(|live| live.wish.api == api).map(|live| live.weight).sum()
    }

    pub(crate) fn trickled(&self) -> u64 {
        let trickled = self.live.iter().filter(|live| live.entry == Entry::Trickle);
        trickled.map(|live| live.weight).sum()
    }

    fn pooled(&self) -> u64 {
        let all: u64 = self.live.iter().map(|live| live.weight).sum();
        let outside =
            (0..self.pods.len()).filter(|pod| self.counts(*pod)).map(|pod| self.pods[pod].outside.0);
        all - self.trickled() + outside.sum::<u64>()
    }

    fn reserve_for(&self, api: usize) -> u64 {
        if self.apis[api].0.protected && !self.apis[api].1 { 0 } else { self.reserve() }
    }

    fn kept(&self, api: usize) -> u64 {
        let others = (0..self.apis.len()).filter(|other| *other != api);
        let unfilled = others.map(|other| self.min(other).saturating_sub(self.of_api(other)));
        unfilled.sum::<u64>() + self.reserve_for(api)
    }

    /// Usable units of a pod.
    pub(crate) fn room(&self, pod: usize, burst: bool) -> u64 {
        if !self.is_up(pod) {
            return 0;
        }
        let it = &self.pods[pod];
        let settling: u64 = it.settling.iter().map(|(_, weight)| weight).sum();
        let ceiling = u64::from(it.rule.capacity) + if burst { u64::from(it.rule.burst) } else { 0 };
        ceiling.saturating_sub(self.on_pod(pod) + it.outside.0 + it.withheld.0 + settling)
    }

    // Conditions.

    pub(crate) fn under_max(&self, wish: &Wish) -> bool {
        self.max(wish.api).is_none_or(|max| self.of_api(wish.api) + wish.weight <= max)
    }

    pub(crate) fn pool_has(&self, wish: &Wish, held: u64) -> bool {
        let need = self.pooled() + wish.weight + self.kept(wish.api) + held;
        need <= self.capacity().saturating_sub(self.share())
    }

    fn trickle_could(&self, wish: &Wish) -> bool {
        wish.weight <= self.share() && wish.weight <= self.trickle_most()
    }

    fn trickle_has(&self, wish: &Wish) -> bool {
        self.trickle_could(wish)
            && self.trickled() + wish.weight <= self.trickle_most()
            && self.tokens >= u128::from(wish.weight) * TOKEN
    }

    /// Units of the pool that `claim` keeps from a worse rank.
    fn held(&self, wish: &Wish, claim: &Claim) -> u64 {
        if self.is_guaranteed(wish) {
            return 0;
        }
        let fair = self.policy.admission.order == Order::Fair;
        let in_front = claim.wish.behind_us == 0 && !matches!(claim.wish.place, Place::Pin(_));
        if wish.behind_us > 0 && in_front && !fair {
            return self.capacity();
        }
        let lead = self.start_tag(wish.key).saturating_sub(self.start_tag(claim.wish.key));
        if fair && lead > self.heaviest() * TAG {
            return claim.wish.weight.max(self.capacity() / 16);
        }
        if self.now >= claim.wish.arrival + claim.wish.wait_us / 10 * 8 {
            return self.room(claim.pod, false).min(claim.wish.weight);
        }
        0
    }

    fn is_guaranteed(&self, wish: &Wish) -> bool {
        self.min(wish.api).saturating_sub(self.of_api(wish.api)) >= wish.weight
    }

    /// How `wish` would enter on `pod` now, with `claim` of a better rank (if any) obeyed.
    pub(crate) fn entry_on(&self, wish: &Wish, pod: usize, claim: Option<&Claim>) -> Option<Entry> {
        let claimed = |pod: usize| claim.is_some_and(|claim| claim.pod == pod);
        let roomy = |pod: usize| allows(wish, pod) && self.room(pod, false) >= wish.weight;
        if !allows(wish, pod) || !self.under_max(wish) {
            return None;
        }
        let free = |pod: usize| roomy(pod) && !claimed(pod);
        let held = claim.map_or(0, |claim| self.held(wish, claim));
        if self.pool_has(wish, held) {
            // A guarantee may use a claimed pod, if it must.
            let must = self.is_guaranteed(wish) && !(0..self.pods.len()).any(free);
            return (free(pod) || (must && roomy(pod))).then_some(Entry::Pool);
        }
        let tokens_kept =
            claim.is_some_and(|claim| !self.pool_has(&claim.wish, 0) && self.trickle_could(&claim.wish));
        if claimed(pod) || tokens_kept || self.pool_has(wish, 0) || !self.trickle_has(wish) {
            return None;
        }
        let bursts = !(0..self.pods.len()).any(free) && self.room(pod, true) >= wish.weight;
        (free(pod) || bursts).then_some(Entry::Trickle)
    }

    pub(crate) fn fits_anywhere(&self, wish: &Wish, claim: Option<&Claim>) -> Option<usize> {
        (0..self.pods.len()).find(|pod| self.entry_on(wish, *pod, claim).is_some())
    }

    // Order.

    fn start_tag(&self, key: u64) -> u64 {
        let floor = self.virtual_time.saturating_sub(4 * self.heaviest() * TAG);
        self.finish.get(&key).copied().unwrap_or(0).max(floor)
    }

    /// Smaller goes first.
    pub(crate) fn rank(&self, wish: &Wish) -> (u64, bool, u64) {
        let value = match self.policy.admission.order {
            Order::Fifo | Order::LightFirst if wish.behind_us > 0 => wish.arrival + wish.behind_us,
            Order::Fifo => wish.arrival,
            Order::Fair => self.start_tag(wish.key),
            Order::LightFirst => wish.arrival + self.offset(wish),
        };
        (value, !wish.again, wish.seq)
    }

    fn offset(&self, wish: &Wish) -> u64 {
        let (light, heavy) = (u128::from(self.lightest()), u128::from(self.heaviest()));
        let pods = self.policy.pods.iter().map(|pod| u128::from(pod.capacity));
        let largest = pods.max().unwrap_or(0);
        if light == heavy || largest == 0 {
            return 0;
        }
        let above = u128::from(wish.weight).clamp(light, heavy) - light;
        let offset = u128::from(wish.wait_us) * 9 * above.pow(2) / (10 * (heavy - light).pow(2));
        (offset * largest.saturating_sub(u128::from(wish.weight)) / largest) as u64
    }

    /// Waiters, best first.
    pub(crate) fn in_order(&self) -> Vec<(Ticket, Wish)> {
        let mut all = self.waiting.clone();
        all.sort_by_key(|(_, wish)| self.rank(wish));
        all
    }

    /// The waiter that claims: the best one that its api's `max` does not block and that some pod could hold.
    pub(crate) fn claimant(&self) -> Option<(Ticket, Wish)> {
        if !self.policy.admission.claims {
            return None;
        }
        self.in_order()
            .into_iter()
            .find(|(_, wish)| self.under_max(wish) && !self.claimable(wish).0.is_empty())
    }

    /// Pods that could ever hold the claimant, and the usable units of the widest of them.
    pub(crate) fn claimable(&self, wish: &Wish) -> (Vec<usize>, u64) {
        if let Place::Pin(PodId(pod)) = wish.place {
            return (vec![pod as usize], self.room(pod as usize, false));
        }
        let able = |pod: &usize| self.is_up(*pod) && u64::from(self.pods[*pod].rule.capacity) >= wish.weight;
        let able: Vec<usize> = (0..self.pods.len()).filter(able).collect();
        let widest = able.iter().map(|pod| self.room(*pod, false)).max().unwrap_or(0);
        (able, widest)
    }

    // What is done.

    pub(crate) fn take(&mut self, live: Live) {
        if live.entry == Entry::Trickle {
            self.tokens = self.tokens.saturating_sub(u128::from(live.weight) * TOKEN);
        }
        if self.policy.admission.order == Order::Fair {
            let start = self.start_tag(live.wish.key);
            self.virtual_time = self.virtual_time.max(start);
            self.finish.insert(live.wish.key, start + live.weight * TAG);
        }
        self.live.push(live);
    }

    /// A lease ended because the pod ended.
    pub(crate) fn complete(&mut self, index: usize) -> Live {
        let live = self.live.remove(index);
        let pod = &mut self.pods[live.pod];
        pod.withheld.0 = 0;
        if pod.rule.settle_us > 0 {
            pod.settling.push((self.now + pod.rule.settle_us, live.weight));
        }
        live
    }

    /// A lease ended though its request did not run.
    pub(crate) fn undo(&mut self, index: usize, refused_by_pod: bool) -> Live {
        let live = self.live.remove(index);
        let full = u128::from(self.share()) * TOKEN;
        if live.entry == Entry::Trickle {
            self.tokens = (self.tokens + u128::from(live.weight) * TOKEN).min(full);
        }
        if let Some(finish) = self.finish.get_mut(&live.wish.key) {
            *finish = finish.saturating_sub(live.weight * TAG);
        }
        if refused_by_pod {
            let pod = &mut self.pods[live.pod];
            let most = u64::from(pod.rule.capacity);
            pod.withheld = ((pod.withheld.0 + live.weight).min(most), self.now + 1_000_000);
        }
        live
    }

    pub(crate) fn report(&mut self, pod: usize, in_use: u64) {
        let surplus = in_use.saturating_sub(self.on_pod(pod));
        let it = &mut self.pods[pod];
        it.outside = (surplus.min(u64::from(it.rule.capacity)), self.now + 1_000_000);
    }
}

pub(crate) fn allows(wish: &Wish, pod: usize) -> bool {
    match wish.place {
        Place::Pin(PodId(pinned)) => pinned as usize == pod,
        Place::Any | Place::Prefer(_) => true,
    }
}

fn floor(amount: Amount, of: u64) -> u64 {
    match amount {
        Amount::Units(units) => u64::from(units),
        Amount::Share(share) => of * u64::from(share) / u64::from(WHOLE),
    }
}

fn ceil(amount: Amount, of: u64) -> u64 {
    match amount {
        Amount::Units(units) => u64::from(units),
        Amount::Share(share) => (of * u64::from(share)).div_ceil(u64::from(WHOLE)),
    }
}
