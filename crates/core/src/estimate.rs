//! How fast units complete, and what that says about a queue.

use std::collections::BTreeMap;

use crate::exchange::Holding;
use crate::ids::{ApiId, PodId};
use crate::policy::{Policy, Units};
use crate::time::{Micros, SECOND};

const BUCKETS: usize = 16;
/// Fewer completions than this say nothing about a rate.
pub(crate) const KNOWN_MIN: u64 = 20;
/// A queue is called out of reach only when it is by half more than the rate explains: at most 1 % of
/// those refused early would have been served (replayed in `sluicegate-sim`).
const DOUBT: (u64, u64) = (3, 2);
/// Retry-After in whole seconds: never at once, never longer than a minute.
const RETRY_S: (u64, u64) = (1, 60);

/// Units completed over the last window, in sixteen buckets.
#[derive(Clone, Debug)]
pub(crate) struct Rate {
    units: [u64; BUCKETS],
    counts: [u64; BUCKETS],
    width_us: u64,
    /// Number of the bucket that is being filled, since time 0.
    current: u64,
    /// End of that bucket.
    ends: Micros,
}

impl Rate {
    pub(crate) fn new(window_us: u64) -> Rate {
        let width_us = (window_us / BUCKETS as u64).max(1);
        Rate { units: [0; BUCKETS], counts: [0; BUCKETS], width_us, current: 0, ends: Micros(width_us) }
    }

    /// Takes another window; what was counted is forgotten if it differs.
    pub(crate) fn set_window(&mut self, window_us: u64) {
        if (window_us / BUCKETS as u64).max(1) != self.width_us {
            *self = Rate::new(window_us);
        }
    }

    #[inline]
    pub(crate) fn add(&mut self, now: Micros, units: Units) {
        if now >= self.ends {
            self.turn(now);
        }
        let slot = (self.current % BUCKETS as u64) as usize;
        self.units[slot] += u64::from(units);
        self.counts[slot] += 1;
    }

    fn turn(&mut self, now: Micros) {
        let bucket = now.0 / self.width_us;
        let steps = (bucket - self.current).min(BUCKETS as u64);
        for step in 0..steps {
            let slot = ((bucket - step) % BUCKETS as u64) as usize;
            self.units[slot] = 0;
            self.counts[slot] = 0;
        }
        self.current = bucket;
        self.ends = Micros((bucket + 1).saturating_mul(self.width_us));
    }

    /// Units completed and the microseconds they took, from the first bucket of the window in which
    /// anything completed; `None` while too little is known.
    pub(crate) fn measured(&mut self, now: Micros) -> Option<(u64, u64)> {
        if now >= self.ends {
            self.turn(now);
        }
        if self.counts.iter().sum::<u64>() < KNOWN_MIN {
            return None;
        }
        let oldest = self.current.saturating_sub(BUCKETS as u64 - 1);
        let first = (oldest..=self.current)
            .find(|bucket| self.counts[(bucket % BUCKETS as u64) as usize] > 0)
            .expect("at least KNOWN_MIN were counted");
        let since = Micros(first * self.width_us);
        Some((self.units.iter().sum(), now.since(since).max(1)))
    }
}

/// How long after their turn asks were served of late: now less rank, by weight.
///
/// A queue's length says little of a late rank's prospects where waiters leave as their time runs out: at five times the
/// load a third of those whom the drain rate called out of reach would have been served. So nobody is turned away who
/// could be served as late as others were that are as heavy.
#[derive(Debug)]
pub(crate) struct Turns {
    window_us: u64,
    by_weight: BTreeMap<Units, Late>,
}

/// Least lateness in this window and in the one before, microseconds; negative before the turn.
#[derive(Clone, Copy, Debug)]
struct Late {
    since: Micros,
    least: [i64; 2],
}

impl Turns {
    /// Weights that are told apart; asks may bring any.
    const WEIGHTS_MAX: usize = 64;

    fn note(&mut self, now: Micros, weight: Units, late_us: i64) {
        if self.by_weight.len() >= Turns::WEIGHTS_MAX && !self.by_weight.contains_key(&weight) {
            let window_us = self.window_us;
            self.by_weight.retain(|_, late| now.since(late.since) < 2 * window_us);
        }
        let late = self.by_weight.entry(weight).or_insert(Late { since: now, least: [i64::MAX; 2] });
        late.turn(now, self.window_us);
        late.least[0] = late.least[0].min(late_us);
    }

    /// Least lateness of those served of late that hold `weight` or more; `None` if there were none.
    fn least(&mut self, now: Micros, weight: Units) -> Option<i64> {
        let mut least = i64::MAX;
        for late in self.by_weight.range_mut(weight..).map(|(_, late)| late) {
            late.turn(now, self.window_us);
            least = least.min(late.least[0]).min(late.least[1]);
        }
        (least < i64::MAX).then_some(least)
    }
}

impl Late {
    fn turn(&mut self, now: Micros, window_us: u64) {
        let passed = now.since(self.since);
        if passed >= window_us {
            self.least = [i64::MAX, if passed < 2 * window_us { self.least[0] } else { i64::MAX }];
            self.since = now;
        }
    }
}

/// What a gate of many knows of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PoolView {
    /// Nothing can be said now: the ledger is not heard, or lends nothing yet.
    pub(crate) blind: bool,
    /// Units that completed at all gates, and the microseconds they took; `None` while too little is known.
    pub(crate) rate: Option<(u64, u64)>,
    /// Units asked for by waiters of other gates.
    pub(crate) elsewhere: u64,
}

impl PoolView {
    /// The rate at which a queue of `queued` units moves here: what this gate completed, or its queue's part of what
    /// the pool did, whichever is more. What is free goes to waiters of all gates in one order.
    fn of_queue(&self, own: Option<(u64, u64)>, queued: u64) -> Option<(u64, u64)> {
        if self.blind {
            return None;
        }
        let part = self.rate.map(|(units, micros)| {
            let queued = u128::from(queued.max(1));
            let all = queued + u128::from(self.elsewhere);
            (units, (u128::from(micros) * all / queued).min(u128::from(u64::MAX)) as u64)
        });
        match (own, part) {
            (Some(own), Some(part)) => Some(if is_faster(part, own) { part } else { own }),
            (own, part) => own.or(part),
        }
    }

    /// A rate measured here of one api or pod, when the queue moves faster than what was measured here of all.
    fn of_some(&self, some: (u64, u64), own: Option<(u64, u64)>, queued: u64) -> Option<(u64, u64)> {
        let own = own?;
        let now = self.of_queue(Some(own), queued)?;
        // some x (now / own), with the quotient in the time.
        let slower = u128::from(own.0) * u128::from(now.1);
        let faster = u128::from(now.0) * u128::from(own.1);
        let micros = u128::from(some.1) * slower.min(faster) / faster.max(1);
        Some((some.0, micros.clamp(1, u128::from(u64::MAX)) as u64))
    }
}

fn is_faster(one: (u64, u64), other: (u64, u64)) -> bool {
    u128::from(one.0) * u128::from(other.1) > u128::from(other.0) * u128::from(one.1)
}

/// The rates of one pool: together, per api and per pod. Each is asked for a queue of so many units, because in a
/// gate of many that decides how fast it moves.
#[derive(Debug)]
pub(crate) struct Rates {
    /// `None` where this gate has the pool for itself.
    pub(crate) view: Option<PoolView>,
    pool: Rate,
    apis: Vec<Rate>,
    pods: Vec<Rate>,
    turns: Turns,
}

impl Rates {
    pub(crate) fn new() -> Rates {
        let turns = Turns { window_us: SECOND, by_weight: BTreeMap::new() };
        Rates { view: None, pool: Rate::new(SECOND), apis: Vec::new(), pods: Vec::new(), turns }
    }

    /// Measures over [`window_us`].
    pub(crate) fn configure(&mut self, policy: &Policy, pods: usize, apis: usize) {
        let window_us = window_us(policy);
        self.apis.resize(apis, Rate::new(window_us));
        self.pods.resize(pods, Rate::new(window_us));
        let all = std::iter::once(&mut self.pool).chain(&mut self.apis).chain(&mut self.pods);
        all.for_each(|rate| rate.set_window(window_us));
        // What was remembered from before an onset delays the first early refusal by one to two of these.
        self.turns.window_us = window_us / 2;
    }

    /// An ask of `weight` was served while others waited, or after it had: `late_us` after its turn.
    pub(crate) fn note_turn(&mut self, now: Micros, weight: Units, late_us: i64) {
        self.turns.note(now, weight, late_us);
    }

    /// Whether of late somebody who asked for `weight` or more was served at most `late_us` after the turn.
    pub(crate) fn served_as_late(&mut self, now: Micros, weight: Units, late_us: i64) -> bool {
        self.turns.least(now, weight).is_some_and(|least| least <= late_us)
    }

    #[inline]
    pub(crate) fn add(&mut self, now: Micros, holding: &Holding) {
        self.pool.add(now, holding.weight);
        self.apis[holding.api.index()].add(now, holding.weight);
        self.pods[holding.pod.index()].add(now, holding.weight);
    }

    /// What was counted says nothing of what comes.
    pub(crate) fn forget(&mut self) {
        let all = std::iter::once(&mut self.pool).chain(&mut self.apis).chain(&mut self.pods);
        all.for_each(|rate| *rate = Rate::new(rate.width_us * BUCKETS as u64));
        self.turns.by_weight.clear();
    }

    /// What completed here, whatever the others do.
    pub(crate) fn own(&mut self, now: Micros) -> Option<(u64, u64)> {
        self.pool.measured(now)
    }

    pub(crate) fn of_pool(&mut self, now: Micros, queued: u64) -> Option<(u64, u64)> {
        let own = self.pool.measured(now);
        self.view.map_or(own, |view| view.of_queue(own, queued))
    }

    pub(crate) fn of_api(&mut self, now: Micros, api: ApiId, queued: u64) -> Option<(u64, u64)> {
        let measured = self.apis[api.index()].measured(now)?;
        self.of_some(now, measured, queued)
    }

    pub(crate) fn of_pod(&mut self, now: Micros, pod: PodId, queued: u64) -> Option<(u64, u64)> {
        let measured = self.pods.get_mut(pod.index())?.measured(now)?;
        self.of_some(now, measured, queued)
    }

    fn of_some(&mut self, now: Micros, measured: (u64, u64), queued: u64) -> Option<(u64, u64)> {
        let Some(view) = self.view else { return Some(measured) };
        view.of_some(measured, self.pool.measured(now), queued)
    }
}

/// The time over which rates are measured: the longest wait, 1 s at least and 60 s at most.
pub(crate) fn window_us(policy: &Policy) -> u64 {
    let longest = policy.apis.iter().map(|api| api.wait_us).max().unwrap_or(0);
    longest.clamp(SECOND, 60 * SECOND)
}

/// Microseconds until `ahead` units have completed at the measured rate.
pub(crate) fn time_to_drain(measured: (u64, u64), ahead: u64) -> u64 {
    let (units, micros) = measured;
    (u128::from(ahead) * u128::from(micros) / u128::from(units.max(1))).min(u128::from(u64::MAX)) as u64
}

/// Whether a queue that drains in `drain_us` is beyond reach within `wait_us`.
pub(crate) fn out_of_reach(drain_us: u64, wait_us: u64) -> bool {
    u128::from(drain_us) * u128::from(DOUBT.1) > u128::from(wait_us) * u128::from(DOUBT.0)
}

/// Whole seconds to ask again after: the time the queue needs, spread by up to half per request, so that
/// those refused together do not come back together.
pub(crate) fn retry_after_s(drain_us: Option<u64>, random: &mut fastrand::Rng) -> u32 {
    let base = drain_us.unwrap_or(SECOND).clamp(1, RETRY_S.1 * SECOND);
    let spread = base + random.u64(0..=base / 2);
    spread.div_ceil(SECOND).clamp(RETRY_S.0, RETRY_S.1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_twenty_completions_and_forgets_the_old() {
        let mut rate = Rate::new(SECOND);
        for step in 0..19 {
            rate.add(Micros(step * 10_000), 2);
        }
        assert_eq!(rate.measured(Micros(200_000)), None);
        rate.add(Micros(200_000), 2);
        let (units, micros) = rate.measured(Micros(200_000)).unwrap();
        assert_eq!(units, 40);
        assert_eq!(micros, 200_000);
        assert_eq!(rate.measured(Micros(3 * SECOND)), None);
    }

    #[test]
    fn a_queue_moves_as_fast_as_its_part_of_the_pool_or_as_this_gate_did() {
        let view = PoolView { blind: false, rate: Some((1000, SECOND)), elsewhere: 300 };
        // A quarter of the queue: 250 units a second; this gate did 100.
        assert_eq!(view.of_queue(Some((100, SECOND)), 100), Some((1000, 4 * SECOND)));
        // This gate does more than its part.
        assert_eq!(view.of_queue(Some((400, SECOND)), 100), Some((400, SECOND)));
        // Only the pool is known; nothing is known; nothing may be said.
        assert_eq!(view.of_queue(None, 300), Some((1000, 2 * SECOND)));
        assert_eq!(PoolView { rate: None, ..view }.of_queue(None, 300), None);
        assert_eq!(PoolView { blind: true, ..view }.of_queue(Some((400, SECOND)), 100), None);
        // An api that did 20 units here while all did 100 now moves 2.5 times as fast as they did.
        assert_eq!(view.of_some((20, SECOND), Some((100, SECOND)), 100), Some((20, SECOND * 2 / 5)));
        assert_eq!(view.of_some((20, SECOND), Some((400, SECOND)), 100), Some((20, SECOND)));
    }

    #[test]
    fn turns_are_remembered_for_one_to_two_windows_by_weight() {
        let mut rates = Rates::new();
        rates.turns.window_us = SECOND;
        let at = |ms: u64| Micros(ms * 1_000);
        assert!(!rates.served_as_late(at(0), 1, i64::MAX), "nobody was served");
        rates.note_turn(at(100), 2, 500);
        rates.note_turn(at(200), 2, 300);
        rates.note_turn(at(300), 1, -50);
        assert!(rates.served_as_late(at(400), 2, 300));
        assert!(!rates.served_as_late(at(400), 2, 299), "who is lighter slips into gaps");
        assert!(rates.served_as_late(at(400), 1, -50) && !rates.served_as_late(at(400), 1, -51));
        assert!(!rates.served_as_late(at(400), 3, i64::MAX), "nobody as heavy was");
        assert!(rates.served_as_late(at(1_200), 2, 300), "one window ago");
        rates.note_turn(at(1_250), 2, 900);
        assert!(rates.served_as_late(at(2_050), 2, 300));
        assert!(!rates.served_as_late(at(2_250), 2, 899) && rates.served_as_late(at(2_250), 2, 900));
        assert!(!rates.served_as_late(at(5_000), 2, i64::MAX), "all that is long ago");
        rates.note_turn(at(5_000), 2, 1);
        rates.forget();
        assert!(!rates.served_as_late(at(5_000), 2, 1));
    }

    #[test]
    fn weights_without_end_are_forgotten_as_they_grow_old() {
        let mut turns = Turns { window_us: SECOND, by_weight: BTreeMap::new() };
        for weight in 1..1_000 {
            turns.note(Micros(u64::from(weight) * SECOND), weight, 0);
            assert!(turns.by_weight.len() <= Turns::WEIGHTS_MAX);
        }
        assert_eq!(turns.least(Micros(1_000 * SECOND), 998), Some(0));
    }

    #[test]
    fn retry_after_is_spread_and_bounded() {
        let mut random = fastrand::Rng::with_seed(7);
        let all: Vec<u32> = (0..1000).map(|_| retry_after_s(Some(20 * SECOND), &mut random)).collect();
        assert!(all.iter().all(|seconds| (20..=30).contains(seconds)));
        assert!(all.contains(&21) && all.contains(&30));
        assert_eq!(retry_after_s(Some(0), &mut random), 1);
        assert_eq!(retry_after_s(Some(u64::MAX), &mut random), 60);
    }
}
