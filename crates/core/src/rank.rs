//! The one number that orders waiting asks.

use std::collections::BTreeMap;

use crate::exchange::Request;
use crate::policy::{Order, Policy, Units};

/// Start tags of `fair` advance by this much per unit, so that shares stay exact for weights of 1.
pub(crate) const TAG: u64 = 1 << 16;
/// Heaviest requests that a key may lag behind the pool's virtual time and still make up for.
const LAG_MAX: u64 = 4;
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
/// `light-first` and `fifo` fix an ask's rank when it arrives; background work ranks by a bound of its own behind
/// its arrival, so it goes after the foreground and yet never starves. While a better rank of the foreground waits for room
/// it takes nothing (`held_from` in the ledger). `fair` is start-time fair queueing: the
/// rank is the start tag of the ask's key, which moves only when the key is *served*; so asks that gave
/// up cost their key nothing. Light asks slip past a heavy head wherever single units come free, so a key
/// that was passed keeps its tag (up to [`LAG_MAX`]), and one that [is ahead](Ranker::is_ahead) holds back.
#[derive(Debug, Default)]
pub(crate) struct Ranker {
    order: Order,
    lightest: Units,
    heaviest: Units,
    /// The largest pod's capacity.
    largest: Units,
    /// Largest start tag served so far: the pool's virtual time.
    virtual_time: u64,
    /// Finish tag of the last ask served per key.
    finish: BTreeMap<u64, u64>,
    /// Keys that lag no more than a new one would are forgotten when there are this many.
    finish_max: usize,
}

impl Ranker {
    pub(crate) fn configure(&mut self, policy: &Policy) {
        let weights = policy.apis.iter().filter(|api| !api.exempt).map(|api| api.weight);
        self.lightest = weights.clone().min().unwrap_or(1);
        self.heaviest = weights.max().unwrap_or(1);
        self.largest = policy.pods.iter().map(|pod| pod.capacity).max().unwrap_or(0);
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

    /// Whether weights differ in rank, so that who came later may go first.
    pub(crate) fn has_offsets(&self) -> bool {
        self.order == Order::LightFirst && self.heaviest > self.lightest
    }

    /// The number that an ask keeps while it waits.
    pub(crate) fn value(&self, request: &Request) -> u64 {
        match self.order {
            // Among background work the first come goes first: waits are long, and so an offset would be.
            Order::Fifo | Order::LightFirst if request.behind_us > 0 => {
                request.arrival.0.saturating_add(request.behind_us)
            }
            Order::Fifo => request.arrival.0,
            // The key's start tag stands in for it when waiters are compared.
            Order::Fair => 0,
            Order::LightFirst => request.arrival.0.saturating_add(self.offset(request)),
        }
    }

    /// 0.9 x wait x x^2 x (1 - y), x = the weight's place between the lightest and the heaviest, y = its part of
    /// the largest pod: a deadline order in which light asks hardly wait and heavy ones still go before their
    /// time runs out. Without y an ask for half a pod has its turn too late for the claimed pod to drain: in
    /// simulation (rare ones among light asks at load 1.0) 33 % of them were refused, and none with it.
    fn offset(&self, request: &Request) -> u64 {
        let span = u128::from(self.heaviest - self.lightest);
        if span == 0 || self.largest == 0 {
            return 0;
        }
        let above = u128::from(request.weight.clamp(self.lightest, self.heaviest) - self.lightest);
        let offset = u128::from(request.wait_us) * 9 * above * above / (10 * span * span);
        let spare = u128::from(self.largest.saturating_sub(request.weight));
        (offset * spare / u128::from(self.largest)) as u64
    }

    /// The start tag that `key` would be served with now.
    pub(crate) fn start_tag(&self, key: u64) -> u64 {
        self.finish.get(&key).copied().unwrap_or(0).max(self.lag_floor())
    }

    /// Largest start tag served so far; 0 but under `fair`.
    pub(crate) fn virtual_time(&self) -> u64 {
        self.virtual_time
    }

    /// Elsewhere an ask was served with the start tag `virtual_time`: who waits here was not served meanwhile, and
    /// who did not wait gains nothing by it.
    pub(crate) fn raise(&mut self, virtual_time: u64) {
        if self.order == Order::Fair {
            self.virtual_time = self.virtual_time.max(virtual_time);
        }
    }

    fn lag_floor(&self) -> u64 {
        self.virtual_time.saturating_sub(LAG_MAX * u64::from(self.heaviest) * TAG)
    }

    /// Whether `key` was served more than one heaviest request further than `claimant`. Only under `fair`.
    pub(crate) fn is_ahead(&self, key: u64, claimant: u64) -> bool {
        self.is_fair() && self.start_tag(key) > self.start_tag(claimant) + u64::from(self.heaviest) * TAG
    }

    /// An ask of `key` was served.
    pub(crate) fn served(&mut self, key: u64, weight: Units) {
        if self.order != Order::Fair {
            return;
        }
        let start = self.start_tag(key);
        self.virtual_time = self.virtual_time.max(start);
        self.finish.insert(key, start + u64::from(weight) * TAG);
        if self.finish.len() > self.finish_max.max(KEYS_IDLE_MAX) {
            let floor = self.lag_floor();
            self.finish.retain(|_, finish| *finish > floor);
            // Twice what is left, so that a crowd of busy keys is not walked at every grant.
            self.finish_max = 2 * self.finish.len();
        }
    }

    /// A served ask never ran: its key is charged nothing.
    pub(crate) fn refund(&mut self, key: u64, weight: Units) {
        if let Some(finish) = self.finish.get_mut(&key) {
            *finish = finish.saturating_sub(u64::from(weight) * TAG);
        }
    }
}
