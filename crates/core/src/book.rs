//! Conditions 2 and 3 of the model: what apis and the pool hold, and the trickle.

use crate::exchange::{Entry, Holding};
use crate::ids::ApiId;
use crate::policy::{Policy, Units};
use crate::time::Micros;

/// Tokens are kept in thousand-millionths, so that a rate in units per 1000 s and a time in microseconds
/// multiply to an exact integer.
const TOKEN: u128 = 1_000_000_000;

/// One api's account. `None` in `max` means no limit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ApiBook {
    pub(crate) used: u64,
    pub(crate) min: Units,
    pub(crate) max: Option<Units>,
    pub(crate) protected: bool,
}

impl ApiBook {
    fn unfilled(&self) -> u64 {
        u64::from(self.min).saturating_sub(self.used)
    }
}

/// The accounts of the pool.
///
/// **Invariant:** `pooled` = units of live leases that did not enter by the trickle, `trickled` = those
/// that did, `unfilled` = the sum of the apis' unfilled guarantees.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) apis: Vec<ApiBook>,
    /// C of DESIGN section 3.
    pub(crate) capacity: Units,
    pub(crate) reserve: Units,
    pub(crate) share: Units,
    /// Units that trickle leases may hold together.
    trickle_most: u64,
    rate_milli: u64,
    tokens: u128,
    filled_at: Micros,
    pub(crate) pooled: u64,
    pub(crate) trickled: u64,
    unfilled: u64,
    /// Units in use by others, by the pods' own word.
    pub(crate) outside: u64,
}

impl Book {
    /// Takes the limits of `policy` for pods that declare `declared` units together. The trickle's bucket
    /// keeps its tokens, and starts full when there was none before.
    pub(crate) fn configure(&mut self, now: Micros, policy: &Policy, ids: &[ApiId], declared: u64) {
        let admission = &policy.admission;
        let declared = declared.min(u64::from(Units::MAX)) as Units;
        let cap = admission.capacity.map_or(declared, |amount| amount.floor_of(declared));
        self.fill(now);
        let had_trickle = self.share > 0;
        self.capacity = cap.min(declared);
        self.reserve = admission.reserve.ceil_of(self.capacity);
        self.share = admission.trickle.map_or(0, |trickle| trickle.share.floor_of(self.capacity));
        self.rate_milli = admission.trickle.map_or(0, |trickle| trickle.rate_milli);
        self.trickle_most = admission.trickle.map_or(0, |trickle| {
            let ceiling =
                u64::from(self.capacity) * u64::from(trickle.ceiling) / u64::from(crate::policy::WHOLE);
            ceiling.saturating_sub(u64::from(self.capacity.saturating_sub(self.share)))
        });
        let full = u128::from(self.share) * TOKEN;
        self.tokens = if had_trickle { self.tokens.min(full) } else { full };
        for api in &mut self.apis {
            *api = ApiBook { used: api.used, ..ApiBook::default() };
        }
        for (rule, id) in policy.apis.iter().zip(ids) {
            if self.apis.len() <= id.index() {
                self.apis.resize(id.index() + 1, ApiBook::default());
            }
            let api = &mut self.apis[id.index()];
            api.min = rule.min.ceil_of(self.capacity);
            api.max = rule.max.map(|max| max.floor_of(self.capacity));
            api.protected = rule.protected;
        }
        self.unfilled = self.apis.iter().map(ApiBook::unfilled).sum();
    }

    /// Units that trickle leases may hold together.
    pub(crate) fn trickle_most(&self) -> u64 {
        self.trickle_most
    }

    /// Condition 2.
    pub(crate) fn under_max(&self, api: ApiId, weight: Units) -> bool {
        let book = &self.apis[api.index()];
        book.max.is_none_or(|max| book.used + u64::from(weight) <= u64::from(max))
    }

    /// Whether the api has `min` or `max`.
    pub(crate) fn has_limits(&self, api: ApiId) -> bool {
        let book = &self.apis[api.index()];
        book.min > 0 || book.max.is_some()
    }

    /// Condition 3 with `more` units on top: T + w + kept(a) + more <= C - share.
    pub(crate) fn pool_has(&self, api: ApiId, weight: Units, more: Units) -> bool {
        let need = self.pooled + self.outside + self.kept(api) + u64::from(weight) + u64::from(more);
        need <= u64::from(self.capacity.saturating_sub(self.share))
    }

    /// Whether `weight` more units lie within the api's own guarantee.
    pub(crate) fn is_guaranteed(&self, api: ApiId, weight: Units) -> bool {
        self.apis[api.index()].unfilled() >= u64::from(weight)
    }

    /// kept(a): the others' unfilled guarantees, and the reserve unless a is protected.
    fn kept(&self, api: ApiId) -> u64 {
        let book = &self.apis[api.index()];
        let reserve = if book.protected { 0 } else { u64::from(self.reserve) };
        self.unfilled - book.unfilled() + reserve
    }

    /// Whether the trickle could ever admit `weight`.
    pub(crate) fn trickle_could(&self, weight: Units) -> bool {
        weight <= self.share && u64::from(weight) <= self.trickle_most
    }

    /// Whether the trickle admits `weight` now.
    pub(crate) fn trickle_has(&mut self, now: Micros, weight: Units) -> bool {
        if !self.trickle_could(weight) || self.trickled + u64::from(weight) > self.trickle_most {
            return false;
        }
        self.fill(now);
        self.tokens >= u128::from(weight) * TOKEN
    }

    /// When tokens for `weight` are there, if time alone brings them.
    pub(crate) fn tokens_at(&self, weight: Units) -> Option<Micros> {
        let blocked = self.trickled + u64::from(weight) > self.trickle_most;
        if blocked || !self.trickle_could(weight) || self.rate_milli == 0 {
            return None;
        }
        let missing = (u128::from(weight) * TOKEN).saturating_sub(self.tokens);
        Some(self.filled_at + missing.div_ceil(u128::from(self.rate_milli)) as u64)
    }

    fn fill(&mut self, now: Micros) {
        let gained = u128::from(now.since(self.filled_at)) * u128::from(self.rate_milli);
        self.tokens = (self.tokens + gained).min(u128::from(self.share) * TOKEN);
        self.filled_at = self.filled_at.max(now);
    }

    pub(crate) fn take(&mut self, now: Micros, holding: &Holding) {
        let weight = u64::from(holding.weight);
        self.change_api(holding.api, |used| used + weight);
        match holding.entry {
            Entry::Pool | Entry::Forced => self.pooled += weight,
            Entry::Trickle => {
                self.fill(now);
                self.tokens = self.tokens.saturating_sub(u128::from(holding.weight) * TOKEN);
                self.trickled += weight;
            }
        }
    }

    /// Completion gives no token back; a trickle grant that never ran does.
    pub(crate) fn give_back(&mut self, holding: &Holding, ran: bool) {
        let weight = u64::from(holding.weight);
        self.change_api(holding.api, |used| used - weight);
        match holding.entry {
            Entry::Pool | Entry::Forced => self.pooled -= weight,
            Entry::Trickle => {
                self.trickled -= weight;
                if !ran {
                    let full = u128::from(self.share) * TOKEN;
                    self.tokens = (self.tokens + u128::from(holding.weight) * TOKEN).min(full);
                }
            }
        }
    }

    fn change_api(&mut self, api: ApiId, change: impl FnOnce(u64) -> u64) {
        let book = &mut self.apis[api.index()];
        let before = book.unfilled();
        book.used = change(book.used);
        self.unfilled = self.unfilled - before + book.unfilled();
    }

    /// The most units one ask of `api` could get from an empty pool whose largest pod holds `largest`
    /// (`largest_burst` with burst).
    pub(crate) fn most(&self, api: ApiId, largest: Units, largest_burst: Units) -> Units {
        let book = &self.apis[api.index()];
        let others: u64 = self.apis.iter().map(|api| u64::from(api.min)).sum::<u64>() - u64::from(book.min);
        let reserve = if book.protected { 0 } else { u64::from(self.reserve) };
        let pool = u64::from(self.capacity.saturating_sub(self.share)).saturating_sub(others + reserve);
        let pool = pool.min(u64::from(largest)) as Units;
        let trickle = u64::from(self.share).min(self.trickle_most).min(u64::from(largest_burst)) as Units;
        pool.max(trickle).min(book.max.unwrap_or(Units::MAX))
    }

    /// Recomputes what is kept incrementally.
    pub(crate) fn audit(&self) -> Result<(), String> {
        let unfilled: u64 = self.apis.iter().map(ApiBook::unfilled).sum();
        let used: u64 = self.apis.iter().map(|api| api.used).sum();
        if unfilled != self.unfilled {
            return Err(format!("unfilled guarantees are {unfilled}, kept as {}", self.unfilled));
        }
        if used != self.pooled + self.trickled {
            return Err(format!("apis use {used}, the pool {} + {}", self.pooled, self.trickled));
        }
        Ok(())
    }
}
