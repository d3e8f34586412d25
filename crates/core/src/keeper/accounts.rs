//! The balances of the shared ledger.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{ApiId, PodId};
use crate::policy::Units;
use crate::shared::{Account, Terms};
use crate::time::Micros;

/// Millionths of a token in one.
const MICRO: u64 = 1_000_000;

/// One account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Balance {
    limit: u64,
    held: u64,
    /// Units of a pod in use by others than this pool, by the pod's own word.
    outside: u64,
}

impl Balance {
    fn open(&self) -> Units {
        self.limit.saturating_sub(self.held + self.outside).min(u64::from(Units::MAX)) as Units
    }
}

/// What section 3 says of one api.
#[derive(Clone, Copy, Debug, Default)]
struct ApiRule {
    min: u64,
    protected: bool,
    used: u64,
}

/// Limits, and what all gates hold of them.
///
/// **Invariant:** `pooled` = the sum of what is held of pods; `outside` = the sum of what others use of them;
/// `by_open` has every pod with open units once; `unfilled` = the sum of max(0, min - used) over apis.
#[derive(Clone, Debug, Default)]
pub(super) struct Accounts {
    balances: BTreeMap<Account, Balance>,
    by_open: BTreeSet<(Units, PodId)>,
    apis: BTreeMap<ApiId, ApiRule>,
    capacity: u64,
    reserve: u64,
    /// The trickle: its part of the pool, its tokens per 1000 s, its tokens in millionths and their age.
    pub(super) share: u64,
    milli: u64,
    tokens: u64,
    tokens_at: Micros,
    pooled: u64,
    outside: u64,
    unfilled: u64,
    /// Pods that bear more for trickle leases, with that much.
    bursts: Vec<(PodId, u64)>,
    /// Pods by number, each with more capacity than all before it: the first that could hold a weight is among them.
    tall: Vec<(u64, PodId)>,
    /// When pods' words about use by others lose their force.
    outside_until: BTreeMap<PodId, Micros>,
}

impl Accounts {
    /// Takes the limits of `terms`; what is held stays. Answers the accounts that no longer exist.
    pub(super) fn configure(&mut self, clock: Micros, terms: &Terms) -> Vec<Account> {
        let declared: u64 = terms.pods.iter().map(|(_, capacity, _)| u64::from(*capacity)).sum();
        self.capacity = terms.cap.map_or(declared, |cap| declared.min(u64::from(cap)));
        self.reserve = u64::from(terms.reserve);
        self.fill(clock);
        self.share = u64::from(terms.share);
        self.milli = terms.trickle_milli;
        self.tokens = self.tokens.min(self.share * MICRO);
        self.balances.values_mut().for_each(|balance| balance.limit = 0);
        self.bursts.clear();
        self.tall.clear();
        for (pod, capacity, burst) in terms.pods.iter().copied() {
            let capacity = u64::from(capacity);
            self.balances.entry(Account::Pod(pod)).or_default().limit = capacity;
            if burst > 0 {
                self.bursts.push((pod, u64::from(burst)));
            }
            if self.tall.last().is_none_or(|(most, _)| capacity > *most) {
                self.tall.push((capacity, pod));
            }
        }
        if terms.share > 0 {
            self.balances.entry(Account::Trickle).or_default().limit = u64::from(terms.trickle_most);
        }
        let gone = self.configure_apis(terms);
        self.balances.retain(|_, balance| balance.limit > 0 || balance.held > 0 || balance.outside > 0);
        self.sum_up();
        gone
    }

    fn configure_apis(&mut self, terms: &Terms) -> Vec<Account> {
        self.apis.values_mut().for_each(|rule| *rule = ApiRule { used: rule.used, ..ApiRule::default() });
        let mut limited = BTreeSet::new();
        for (api, min, max, protected) in terms.apis.iter().copied() {
            let rule = self.apis.entry(api).or_default();
            rule.min = u64::from(min);
            rule.protected = protected;
            if let Some(max) = max {
                limited.insert(Account::Api(api));
                self.balances.entry(Account::Api(api)).or_default().limit = u64::from(max);
            }
        }
        // Without a limit there is nothing to count; gates say nothing of it from now on.
        let gone = |account: &&Account| matches!(account, Account::Api(_)) && !limited.contains(account);
        let gone: Vec<Account> = self.balances.keys().filter(gone).copied().collect();
        self.balances.retain(|account, _| !gone.contains(account));
        self.apis.retain(|_, rule| rule.min > 0 || rule.protected || rule.used > 0);
        gone
    }

    fn sum_up(&mut self) {
        self.unfilled = self.apis.values().map(|api| api.min.saturating_sub(api.used)).sum();
        let open = |(account, balance): (&Account, &Balance)| match account {
            Account::Pod(pod) if balance.open() > 0 => Some((balance.open(), *pod)),
            _ => None,
        };
        self.by_open = self.balances.iter().filter_map(open).collect();
    }

    pub(super) fn exists(&self, account: Account) -> bool {
        self.balances.contains_key(&account)
    }

    pub(super) fn open(&self, account: Account) -> Units {
        self.balances.get(&account).map_or(0, Balance::open)
    }

    pub(super) fn held(&self, account: Account) -> u64 {
        self.balances.get(&account).map_or(0, |balance| balance.held)
    }

    pub(super) fn is_over(&self, account: Account) -> bool {
        self.balances.get(&account).is_some_and(|one| one.held + one.outside > one.limit)
    }

    /// What is held of an account becomes `new` where it was `old`. An api without a limit has no account.
    pub(super) fn change(&mut self, account: Account, old: u64, new: u64) {
        if old == new || (matches!(account, Account::Api(_)) && !self.exists(account)) {
            return;
        }
        let balance = self.balances.entry(account).or_default();
        let before = balance.open();
        balance.held = balance.held + new - old;
        let after = balance.open();
        if let Account::Pod(pod) = account {
            self.pooled = self.pooled + new - old;
            self.reorder(pod, before, after);
        }
    }

    fn reorder(&mut self, pod: PodId, before: Units, after: Units) {
        if before != after {
            self.by_open.remove(&(before, pod));
            if after > 0 {
                self.by_open.insert((after, pod));
            }
        }
    }

    /// A pod said how many units are in use on it. What no gate holds of them counts as used until `until`.
    pub(super) fn hear_outside(&mut self, pod: PodId, in_use: u64, until: Micros) {
        let Some(balance) = self.balances.get(&Account::Pod(pod)) else { return };
        let units = in_use.saturating_sub(balance.held).min(balance.limit);
        self.set_outside(pod, units);
        if units > 0 {
            self.outside_until.insert(pod, until);
        }
    }

    fn set_outside(&mut self, pod: PodId, units: u64) {
        self.outside_until.remove(&pod);
        let Some(balance) = self.balances.get_mut(&Account::Pod(pod)) else { return };
        let (before, old) = (balance.open(), balance.outside);
        balance.outside = units;
        let after = balance.open();
        self.outside = self.outside + units - old;
        self.reorder(pod, before, after);
    }

    /// Pods' words of long ago lose their force.
    pub(super) fn forget_outside(&mut self, clock: Micros) {
        let old = self.outside_until.iter().filter(|(_, until)| clock >= **until);
        let old: Vec<PodId> = old.map(|(pod, _)| *pod).collect();
        old.into_iter().for_each(|pod| self.set_outside(pod, 0));
    }

    /// What an api uses becomes `new` where it was `old`.
    pub(super) fn use_changed(&mut self, api: ApiId, old: u64, new: u64) {
        let rule = self.apis.entry(api).or_default();
        let before = rule.min.saturating_sub(rule.used);
        rule.used = rule.used + new - old;
        self.unfilled = self.unfilled + rule.min.saturating_sub(rule.used) - before;
        if rule.used == 0 && rule.min == 0 && !rule.protected {
            self.apis.remove(&api);
        }
    }

    /// T of condition 3, and what `admission` leaves it.
    fn pool(&self) -> (u64, u64) {
        let used = self.pooled + self.outside - self.held(Account::Trickle).min(self.pooled);
        (used, self.capacity.saturating_sub(self.share))
    }

    /// Condition 3 for an ordinary api without a guarantee: units that it could take.
    pub(super) fn ordinary(&self) -> u64 {
        let (used, most) = self.pool();
        most.saturating_sub(used + self.reserve + self.unfilled)
    }

    /// Whether more is held than condition 3 leaves ordinary apis.
    pub(super) fn is_pool_over(&self) -> bool {
        let (used, most) = self.pool();
        used + self.reserve + self.unfilled > most
    }

    /// Condition 3 for one api.
    pub(super) fn pool_has(&self, api: ApiId, weight: Units) -> bool {
        let rule = self.apis.get(&api).copied().unwrap_or_default();
        let own = rule.min.saturating_sub(rule.used);
        let kept = self.unfilled - own + if rule.protected { 0 } else { self.reserve };
        let (used, most) = self.pool();
        used + u64::from(weight) + kept <= most
    }

    /// Tokens that came back with time.
    pub(super) fn fill(&mut self, clock: Micros) {
        let gained = clock.since(self.tokens_at).saturating_mul(self.milli) / 1000;
        if gained > 0 || self.milli == 0 {
            self.tokens = (self.tokens + gained).min(self.share * MICRO);
            self.tokens_at = clock;
        }
    }

    /// Tokens of units that were never used.
    pub(super) fn refund(&mut self, units: u64) {
        self.tokens = (self.tokens + units * MICRO).min(self.share * MICRO);
    }

    /// Whether the trickle lets `weight` enter now.
    pub(super) fn trickle_has(&self, weight: Units) -> bool {
        self.tokens >= u64::from(weight) * MICRO && self.open(Account::Trickle) >= weight
    }

    /// Whether the trickle could ever let `weight` enter.
    pub(super) fn trickle_bears(&self, weight: Units) -> bool {
        let most = self.balances.get(&Account::Trickle).map_or(0, |balance| balance.limit);
        self.milli > 0 && u64::from(weight) <= self.share.min(most)
    }

    pub(super) fn spend(&mut self, weight: Units) {
        self.tokens -= u64::from(weight) * MICRO;
    }

    /// Room of a pod for a trickle lease, burst included.
    pub(super) fn burst_room(&self, pod: PodId) -> u64 {
        let burst = self.bursts.iter().find(|(other, _)| *other == pod).map_or(0, |(_, burst)| *burst);
        let balance = self.balances.get(&Account::Pod(pod)).copied().unwrap_or_default();
        // A pod that drains bears nothing more.
        let burst = if balance.limit == 0 { 0 } else { burst };
        (balance.limit + burst).saturating_sub(balance.held + balance.outside)
    }

    /// The pod with most room for a trickle lease, among those that bear more than their capacity.
    pub(super) fn widest_burst(&self, weight: Units, barred: impl Fn(PodId) -> bool) -> Option<PodId> {
        let pods = self.bursts.iter().map(|(pod, _)| *pod).filter(|pod| !barred(*pod));
        let room = pods.map(|pod| (self.burst_room(pod), std::cmp::Reverse(pod)));
        room.max().filter(|(room, _)| *room >= u64::from(weight)).map(|(_, pod)| pod.0)
    }

    /// The pod with the fewest open units that hold `weight`, of those not barred.
    pub(super) fn narrowest(&self, weight: Units, barred: impl Fn(PodId) -> bool) -> Option<PodId> {
        let fits = self.by_open.range((weight.max(1), PodId(0))..);
        fits.map(|(_, pod)| *pod).find(|pod| !barred(*pod))
    }

    /// The pod with most open units, of those not barred.
    pub(super) fn widest(&self, barred: impl Fn(PodId) -> bool) -> Option<(Units, PodId)> {
        self.by_open.iter().rev().copied().find(|(_, pod)| !barred(*pod))
    }

    /// The pod for a claim: most open units among those that could hold `weight`; `before` stays unless another
    /// has more.
    pub(super) fn claimable(
        &self,
        weight: Units,
        before: Option<PodId>,
        barred: impl Fn(PodId) -> bool,
    ) -> Option<PodId> {
        let limit = |pod| self.balances.get(&Account::Pod(pod)).map_or(0, |balance| balance.limit);
        let able = |pod: PodId| limit(pod) >= u64::from(weight) && !barred(pod);
        let best = self.by_open.iter().rev().copied().find(|(_, pod)| able(*pod));
        let stays = before.filter(|pod| able(*pod));
        match (best, stays) {
            (Some((open, pod)), Some(stays)) => {
                Some(if open > self.open(Account::Pod(stays)) { pod } else { stays })
            }
            (Some((_, pod)), None) => Some(pod),
            (None, Some(stays)) => Some(stays),
            // No pod has anything open: the first that could hold it.
            (None, None) => self.tall.iter().map(|(_, pod)| *pod).find(|pod| able(*pod)),
        }
    }

    /// Recomputes what is kept incrementally, `held` and `used` being what the gates' records say.
    pub(super) fn audit(
        &self,
        held: &BTreeMap<Account, u64>,
        used: &BTreeMap<ApiId, u64>,
    ) -> Result<(), String> {
        let (mut pooled, mut outside) = (0, 0);
        for (account, balance) in &self.balances {
            let said = held.get(account).copied().unwrap_or(0);
            if said != balance.held {
                return Err(format!("{account:?}: gates hold {said}, kept as {}", balance.held));
            }
            if let Account::Pod(pod) = account {
                pooled += said;
                outside += balance.outside;
                if (balance.open() > 0) != self.by_open.contains(&(balance.open(), *pod)) {
                    return Err(format!("{account:?}: its open units are stale"));
                }
            }
        }
        if (pooled, outside) != (self.pooled, self.outside) {
            return Err(format!("pods are held {pooled}, kept as {}", self.pooled));
        }
        for (api, rule) in &self.apis {
            let said = used.get(api).copied().unwrap_or(0);
            if said != rule.used {
                return Err(format!("{api:?}: gates use {said}, kept as {}", rule.used));
            }
        }
        let unfilled: u64 = self.apis.values().map(|api| api.min.saturating_sub(api.used)).sum();
        if unfilled != self.unfilled {
            return Err(format!("unfilled guarantees are {unfilled}, kept as {}", self.unfilled));
        }
        Ok(())
    }

    /// All that is kept, one line each, as the script's own state is written down for comparison.
    pub(super) fn describe(&self, lines: &mut Vec<String>) {
        for (account, one) in &self.balances {
            lines.push(format!("balance {account} {} {} {}", one.limit, one.held, one.outside));
        }
        for (open, pod) in &self.by_open {
            lines.push(format!("open {open} {}", Account::Pod(*pod)));
        }
        for (api, rule) in &self.apis {
            let protected = u8::from(rule.protected);
            lines.push(format!("api {} {} {protected} {}", Account::Api(*api), rule.min, rule.used));
        }
        lines.push(format!("pool {} {} {} {}", self.capacity, self.reserve, self.share, self.milli));
        lines.push(format!("sums {} {} {} {}", self.pooled, self.outside, self.unfilled, self.tokens));
    }
}
