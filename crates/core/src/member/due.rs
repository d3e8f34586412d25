//! When a gate has something to say.

use super::{Leaving, Member};
use crate::gate::Output;
use crate::member::basis::{Basis, OnLoss};
use crate::policy::Mode;
use crate::shared::Report;
use crate::time::Micros;

impl Member {
    /// A report to send now, if there is one.
    pub fn poll(&mut self, now: Micros, out: &mut Vec<Output>) -> Option<Report> {
        self.pass(now, out);
        if now < self.due() {
            return None;
        }
        self.counts.retries += u64::from(self.flight.is_some());
        if !self.gate.ledger.line.is_empty() {
            self.counts.for_waiters += 1;
        } else if self.is_low() {
            self.counts.for_credit += 1;
        } else if self.owes() {
            self.counts.for_others += 1;
        }
        self.give_back();
        Some(self.write(now))
    }

    /// When [`Member::poll`] or [`Member::advance`] has something to do, if nothing else happens before.
    #[must_use]
    pub fn next_wake(&self) -> Micros {
        let inside = self.gate.next_wake().unwrap_or(Micros::NEVER).min(self.gate.ledger.pods.owed_at());
        let wake = inside.min(self.due());
        if !self.lapsed {
            return wake.min(self.valid_until);
        }
        let may = self.loss.on_loss != OnLoss::Refuse && self.gate.mode == Mode::Enforce;
        if may && self.loss.basis == Basis::Ledger { wake.min(self.loss.from) } else { wake }
    }

    /// When the next report is to be sent.
    fn due(&self) -> Micros {
        if self.has_left() {
            return Micros::NEVER;
        }
        if let Some(flight) = self.flight {
            return flight.sent + self.timing.timeout_us;
        }
        let Some(sent) = self.sent else { return Micros(0) };
        // Who was served meanwhile needs no exchange.
        let waits = !self.gate.ledger.line.is_empty();
        let owed = self.urgent || self.gap || self.syncing || self.says_farewell();
        if owed || (self.news && waits) || self.is_low() || self.owes() {
            return sent + self.pace_us;
        }
        let heartbeat = sent + self.timing.heartbeat_us();
        if !waits {
            return heartbeat;
        }
        heartbeat.min(sent + self.pace_us.max(self.wait_us / 10))
    }

    /// Whether the next report says that this gate goes.
    pub(super) fn says_farewell(&self) -> bool {
        match self.leaving {
            Leaving::Stays | Leaving::Left => false,
            Leaving::WhenEmpty => self.gate.leases.len() == 0 && self.gate.ledger.line.is_empty(),
            Leaving::Now => true,
        }
    }

    /// Whether credit is so far below what it should be that it is worth an exchange.
    fn is_low(&self) -> bool {
        if self.lapsed || self.dry || self.advice.recovering || self.loss.basis != Basis::Ledger {
            return false;
        }
        self.idle() * 4 < u64::from(self.advice.target) && !self.wants_nothing()
    }

    /// Whether credit is so badly wanted elsewhere that it is worth an exchange.
    fn owes(&self) -> bool {
        let advice = &self.advice;
        if self.lapsed {
            return false;
        }
        if advice.recall.is_some_and(|recall| recall.number > self.recalled) {
            return true;
        }
        let idle = self.idle();
        if idle == 0 {
            return false;
        }
        let scarce = advice.scarce && self.rules.fragments;
        self.holds_claimed()
            || scarce
            || self.wants_nothing()
            || (!advice.recovering && self.has_surplus(idle))
    }

    /// Least time between two exchanges; an ask that does not wait is given the time of one.
    pub(super) fn set_pace(&mut self, pace_us: u64) {
        self.pace_us = pace_us.max(self.timing.pace_us);
        self.gate.least_wait_us = 2 * self.pace_us + 5_000;
    }
}
