//! The balances of the shared ledger.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{ApiId, PodId};
use crate::policy::{Policy, Units};
use crate::shared::Account;

/// One account.
#[derive(Clone, Copy, Debug, Default)]
struct Balance {
    limit: u64,
    held: u64,
}

impl Balance {
    fn open(&self) -> Units {
        self.limit.saturating_sub(self.held).min(u64::from(Units::MAX)) as Units
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
/// **Invariant:** `pooled` = the sum of what is held of pods; `by_open` has every pod with open units once;
/// `unfilled` = the sum of max(0, min - used) over apis.
#[derive(Clone, Debug, Default)]
pub(super) struct Accounts {
    balances: BTreeMap<Account, Balance>,
    by_open: BTreeSet<(Units, PodId)>,
    apis: Vec<ApiRule>,
    capacity: u64,
    reserve: u64,
    pooled: u64,
    unfilled: u64,
}

impl Accounts {
    /// Takes the limits of `policy`; what is held stays.
    pub(super) fn configure(&mut self, policy: &Policy) {
        let counting = policy.pods.iter().filter(|pod| !pod.draining);
        let declared: u64 = counting.map(|pod| u64::from(pod.capacity)).sum();
        let units = declared.min(u64::from(Units::MAX)) as Units;
        let cap = policy.admission.capacity.map_or(units, |amount| amount.floor_of(units)).min(units);
        self.capacity = u64::from(cap);
        self.reserve = u64::from(policy.admission.reserve.ceil_of(cap));
        for balance in self.balances.values_mut() {
            balance.limit = 0;
        }
        for (index, pod) in policy.pods.iter().enumerate() {
            let limit = if pod.draining { 0 } else { u64::from(pod.capacity) };
            self.balances.entry(Account::Pod(PodId(index as u32))).or_default().limit = limit;
        }
        self.apis.resize(policy.apis.len().max(self.apis.len()), ApiRule::default());
        for (index, api) in policy.apis.iter().enumerate() {
            let rule = &mut self.apis[index];
            rule.min = u64::from(api.min.ceil_of(cap));
            rule.protected = api.protected;
            let account = Account::Api(ApiId(index as u32));
            match api.max {
                Some(max) => self.balances.entry(account).or_default().limit = u64::from(max.floor_of(cap)),
                // Without a limit there is nothing to count; gates say nothing of it from now on.
                None => drop(self.balances.remove(&account)),
            }
        }
        self.sum_up();
    }

    fn sum_up(&mut self) {
        self.unfilled = self.apis.iter().map(|api| api.min.saturating_sub(api.used)).sum();
        let open = |(account, balance): (&Account, &Balance)| match account {
            Account::Pod(pod) if balance.open() > 0 => Some((balance.open(), *pod)),
            _ => None,
        };
        self.by_open = self.balances.iter().filter_map(open).collect();
    }

    /// Nothing is held any more, as far as is known.
    pub(super) fn forget(&mut self) {
        self.balances.values_mut().for_each(|balance| balance.held = 0);
        self.apis.iter_mut().for_each(|api| api.used = 0);
        self.pooled = 0;
        self.sum_up();
    }

    pub(super) fn exists(&self, account: Account) -> bool {
        self.balances.contains_key(&account)
    }

    pub(super) fn open(&self, account: Account) -> Units {
        self.balances.get(&account).map_or(0, Balance::open)
    }

    pub(super) fn limit(&self, account: Account) -> u64 {
        self.balances.get(&account).map_or(0, |balance| balance.limit)
    }

    pub(super) fn held(&self, account: Account) -> u64 {
        self.balances.get(&account).map_or(0, |balance| balance.held)
    }

    pub(super) fn is_over(&self, account: Account) -> bool {
        self.balances.get(&account).is_some_and(|balance| balance.held > balance.limit)
    }

    /// What is held of an account becomes `new` where it was `old`.
    pub(super) fn change(&mut self, account: Account, old: u64, new: u64) {
        let Some(balance) = self.balances.get_mut(&account) else { return };
        let before = balance.open();
        balance.held = balance.held - old + new;
        let after = balance.open();
        if let Account::Pod(pod) = account {
            self.pooled = self.pooled - old + new;
            if before != after {
                self.by_open.remove(&(before, pod));
                if after > 0 {
                    self.by_open.insert((after, pod));
                }
            }
        }
    }

    /// What an api uses becomes `new` where it was `old`.
    pub(super) fn use_changed(&mut self, api: ApiId, old: u64, new: u64) {
        let Some(rule) = self.apis.get_mut(api.index()) else { return };
        let before = rule.min.saturating_sub(rule.used);
        rule.used = rule.used - old + new;
        self.unfilled = self.unfilled - before + rule.min.saturating_sub(rule.used);
    }

    /// Condition 3 for an ordinary api without a guarantee: units that it could take.
    pub(super) fn ordinary(&self) -> u64 {
        self.capacity.saturating_sub(self.pooled + self.reserve + self.unfilled)
    }

    /// Condition 3 for one api.
    pub(super) fn pool_has(&self, api: ApiId, weight: Units) -> bool {
        let rule = self.apis.get(api.index()).copied().unwrap_or_default();
        let own = rule.min.saturating_sub(rule.used);
        let kept = self.unfilled - own + if rule.protected { 0 } else { self.reserve };
        self.pooled + u64::from(weight) + kept <= self.capacity
    }

    /// The pod with the fewest open units that hold `weight`, passing over `skip`.
    pub(super) fn narrowest(&self, weight: Units, skip: Option<PodId>) -> Option<PodId> {
        let fits = self.by_open.range((weight.max(1), PodId(0))..);
        fits.map(|(_, pod)| *pod).find(|pod| Some(*pod) != skip)
    }

    /// The pod with most open units, passing over `skip`.
    pub(super) fn widest(&self, skip: Option<PodId>) -> Option<(Units, PodId)> {
        self.by_open.iter().rev().copied().find(|(_, pod)| Some(*pod) != skip)
    }

    /// The pod for a claim: most open units among those that could hold `weight`; `before` stays unless another
    /// has more.
    pub(super) fn claimable(&self, weight: Units, before: Option<PodId>) -> Option<PodId> {
        let able = |pod: PodId| self.limit(Account::Pod(pod)) >= u64::from(weight);
        let best = self.by_open.iter().rev().copied().find(|(_, pod)| able(*pod));
        let stays = before.filter(|pod| able(*pod));
        match (best, stays) {
            (Some((open, pod)), Some(stays)) => {
                Some(if open > self.open(Account::Pod(stays)) { pod } else { stays })
            }
            (Some((_, pod)), None) => Some(pod),
            (None, Some(stays)) => Some(stays),
            // No pod has anything open: any that could hold it.
            (None, None) => self.balances.keys().find_map(|account| match account {
                Account::Pod(pod) if able(*pod) => Some(*pod),
                _ => None,
            }),
        }
    }

    /// Units of pods that nobody holds.
    pub(super) fn undistributed(&self) -> u64 {
        self.capacity.saturating_sub(self.pooled)
    }

    /// Recomputes what is kept incrementally, `held` being what the gates' records say.
    pub(super) fn audit(&self, held: &BTreeMap<Account, u64>, used: &[u64]) -> Result<(), String> {
        let mut pooled = 0;
        for (account, balance) in &self.balances {
            let said = held.get(account).copied().unwrap_or(0);
            if said != balance.held {
                return Err(format!("{account:?}: gates hold {said}, kept as {}", balance.held));
            }
            if let Account::Pod(pod) = account {
                pooled += said;
                if (balance.open() > 0) != self.by_open.contains(&(balance.open(), *pod)) {
                    return Err(format!("{account:?}: its open units are stale"));
                }
            }
        }
        if pooled != self.pooled {
            return Err(format!("pods are held {pooled}, kept as {}", self.pooled));
        }
        for (index, api) in self.apis.iter().enumerate() {
            let said = used.get(index).copied().unwrap_or(0);
            if said != api.used {
                return Err(format!("api {index}: gates use {said}, kept as {}", api.used));
            }
        }
        let unfilled: u64 = self.apis.iter().map(|api| api.min.saturating_sub(api.used)).sum();
        if unfilled != self.unfilled {
            return Err(format!("unfilled guarantees are {unfilled}, kept as {}", self.unfilled));
        }
        Ok(())
    }
}
