//! How fast the whole pool works, as far as a gate hears of it.

use std::collections::VecDeque;

use super::Member;
use crate::estimate::{KNOWN_MIN, PoolView};
use crate::member::basis::Basis;
use crate::policy::Units;
use crate::shared::Reply;
use crate::time::{Micros, SECOND};

/// Samples in one window.
const SAMPLES: u64 = 16;

/// Units that completed at all gates, over the last window.
#[derive(Debug)]
pub(super) struct Course {
    window_us: u64,
    /// When the ledger counted how many, oldest first; thinned.
    samples: VecDeque<(Micros, u64)>,
    latest: (Micros, u64),
    /// Units that wait at other gates, as of the last reply.
    elsewhere: u64,
}

impl Default for Course {
    fn default() -> Course {
        Course { window_us: SECOND, samples: VecDeque::new(), latest: (Micros(0), 0), elsewhere: 0 }
    }
}

impl Course {
    pub(super) fn set_window(&mut self, window_us: u64) {
        self.window_us = window_us;
    }

    /// What was counted belongs to another life of the ledger, or to a time that says nothing.
    pub(super) fn restart(&mut self) {
        self.samples.clear();
        self.elsewhere = 0;
    }

    fn add(&mut self, now: Micros, done: u64) {
        if done < self.latest.1 {
            self.samples.clear();
        }
        self.latest = (now, done);
        let last = self.samples.back().map(|(at, _)| *at);
        if last.is_none_or(|last| now.since(last) >= self.window_us / SAMPLES) {
            self.samples.push_back((now, done));
        }
        // The oldest is where the window begins.
        while self.samples.get(1).is_some_and(|(at, _)| now.since(*at) >= self.window_us) {
            self.samples.pop_front();
        }
    }

    /// Units, and the microseconds they took; `None` before as many completed as 20 asks of `heaviest` hold.
    fn rate(&self, heaviest: Units) -> Option<(u64, u64)> {
        let (since, before) = *self.samples.front()?;
        let (now, done) = self.latest;
        let units = done - before;
        let known = units >= KNOWN_MIN * u64::from(heaviest) && now > since;
        known.then(|| (units, now.since(since)))
    }
}

impl Member {
    /// What a reply tells of the whole pool. `queued`: units that waited here when its report was written.
    pub(super) fn hear_of_pool(&mut self, now: Micros, reply: &Reply, queued: u64) {
        self.loss.saw_gates(now, reply.gates, self.timing.ttl_us);
        self.set_pace(reply.pace_us);
        self.gate.ledger.ranker.raise(reply.vtime);
        self.course.add(now, reply.done);
        self.course.elsewhere = reply.queued.saturating_sub(queued);
    }

    /// The gate inside estimates with what is known of the pool now.
    pub(super) fn look(&mut self) {
        let lent = self.loss.basis == Basis::Ledger;
        let blind = lent && (self.lapsed || self.syncing || self.advice.recovering);
        // One that admits by itself moves its queue by itself.
        let heaviest = self.gate.ledger.ranker.heaviest();
        self.gate.ledger.rates.view = Some(PoolView {
            blind,
            rate: self.course.rate(heaviest).filter(|_| lent),
            elsewhere: if lent { self.course.elsewhere } else { 0 },
        });
    }
}
