//! The one number that orders waiting asks.

use std::collections::BTreeMap;

use crate::exchange::Request;
use crate::policy::{Order, Policy, Units};

/// Start tags of `fair` advance by this much per unit, so that shares stay exact for weights of 1.
const TAG: u64 = 1 << 16;
/// Keys that have no waiter are forgotten beyond this many.
const KEYS_IDLE_MAX: usize = 4096;

/// Smaller goes first; the sequence number settles equals, first come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) value: u64,
    pub(crate) seq: u64,
}

/// Makes ranks.
///
/// `light-first` and `fifo` fix an ask's rank when it arrives. `fair` is start-time fair queueing: the
/// rank is the start tag of the ask's key, which moves only when the key is *served*; so asks that gave
/// up cost their key nothing.
#[derive(Debug, Default)]
pub(crate) struct Ranker {
    order: Order,
    lightest: Units,
    heaviest: Units,
    /// Largest start tag served so far: the pool's virtual time.
    virtual_time: u64,
    /// Finish tag of the last ask served per key.
    finish: BTreeMap<u64, u64>,
}

impl Ranker {
    pub(crate) fn configure(&mut self, policy: &Policy) {
        let weights = policy.apis.iter().filter(|api| !api.exempt).map(|api| api.weight);
        self.lightest = weights.clone().min().unwrap_or(1);
        self.heaviest = weights.max().unwrap_or(1);
        if self.order != policy.admission.order {
            self.finish.clear();
            self.virtual_time = 0;
        }
        self.order = policy.admission.order;
    }

    /// The heaviest api's weight: what placement keeps room for.
    pub(crate) fn heaviest(&self) -> Units {
        self.heaviest
    }

    pub(crate) fn is_fair(&self) -> bool {
        self.order == Order::Fair
    }

    /// The number that an ask keeps while it waits.
    pub(crate) fn value(&self, request: &Request) -> u64 {
        match self.order {
            Order::Fifo | Order::Fair => request.arrival.0,
            Order::LightFirst => request.arrival.0.saturating_add(self.offset(request)),
        }
    }

    /// 0.9 x wait x x^2, x = the weight's place between the lightest and the heaviest: a deadline order
    /// in which light asks hardly wait and heavy ones still go before their time runs out.
    fn offset(&self, request: &Request) -> u64 {
        let span = u128::from(self.heaviest - self.lightest);
        if span == 0 {
            return 0;
        }
        let above = u128::from(request.weight.clamp(self.lightest, self.heaviest) - self.lightest);
        (u128::from(request.wait_us) * 9 * above * above / (10 * span * span)) as u64
    }

    /// The start tag that `key` would be served with now.
    pub(crate) fn start_tag(&self, key: u64) -> u64 {
        self.finish.get(&key).copied().unwrap_or(0).max(self.virtual_time)
    }

    /// An ask of `key` was served.
    pub(crate) fn served(&mut self, key: u64, weight: Units) {
        if self.order != Order::Fair {
            return;
        }
        let start = self.start_tag(key);
        self.virtual_time = start;
        self.finish.insert(key, start + u64::from(weight) * TAG);
        if self.finish.len() > KEYS_IDLE_MAX {
            let now = self.virtual_time;
            self.finish.retain(|_, finish| *finish > now);
        }
    }

    /// A served ask never ran: its key is charged nothing.
    pub(crate) fn refund(&mut self, key: u64, weight: Units) {
        if let Some(finish) = self.finish.get_mut(&key) {
            *finish = finish.saturating_sub(u64::from(weight) * TAG);
        }
    }
}
