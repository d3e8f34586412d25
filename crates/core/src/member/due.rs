//! When a gate has something to say.

use super::{Leaving, Member};
use crate::estimate::time_to_drain;
use crate::gate::Output;
use crate::ledger::Ledger;
use crate::member::basis::{Basis, OnLoss};
use crate::policy::Mode;
use crate::shared::{Report, WAITERS_MAX};
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
        } else if self.owes_now() || self.owes_some() {
            self.counts.for_others += 1;
        }
        self.give_back();
        Some(self.write(now))
    }

    /// When [`Member::poll`] or [`Member::advance`] has something to do, if nothing else happens before.
    #[must_use]
    pub fn next_wake(&self) -> Micros {
        let pods = &self.gate.ledger.pods;
        let inside = self.gate.next_wake().unwrap_or(Micros::NEVER).min(pods.owed_at());
        // Credit that settles or is withheld is somebody's elsewhere as soon as it is not.
        let wanted = self.advice.scarce || self.advice.tight || self.advice.kept.is_some();
        let hidden = if wanted { pods.next_event() } else { Micros::NEVER };
        let wake = inside.min(hidden).min(self.due());
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
        if owed || self.owes_now() {
            return sent + self.pace_us;
        }
        let mut due = sent + self.timing.heartbeat_us();
        if self.is_low() || self.owes_some() {
            let is_wanted = self.advice.scarce && !self.is_low();
            due = sent + self.pace_us.max(if is_wanted { self.calm_us / 2 } else { self.calm_us });
        }
        if self.loss.basis == Basis::Shares {
            // Gates that come and go change the shares of all.
            due = due.min(sent + self.pace_us.max(self.timing.heartbeat_us() / 10));
        }
        if !waits {
            return due;
        }
        let is_told = self.told.iter().any(|ticket| self.gate.ledger.line.get(*ticket).is_some());
        if is_told {
            due = due.min(sent + self.pace_us.max(self.wait_us / 10));
        }
        // Also of those for whom the last report had no place.
        if self.news || !is_told {
            due = due.min((sent + self.pace_us).max(self.news_from()));
        }
        due
    }

    /// From when on the ledger is to hear of waiters that it was not told of: at once, or in a calm gate when the first
    /// of them has waited a while. Who stands behind one of the same class that it was told of is told with it.
    fn news_from(&self) -> Micros {
        let Ledger { line, ranker, .. } = &self.gate.ledger;
        if self.calm_us == 0 || line.classes() > WAITERS_MAX {
            return Micros(0);
        }
        let untold = line.heads_by_class(ranker).filter(|(head, _)| !self.told.contains(&head.ticket));
        let arrivals = untold.filter_map(|(head, _)| line.get(head.ticket)).map(|one| one.request.arrival);
        arrivals.min().map_or(Micros::NEVER, |first| first + self.calm_us / 2)
    }

    /// Where a gate's own completions bring the heaviest weight within a tenth of what it may keep to itself (four paces,
    /// at most a fifth of the wait), most of its waiters are served before an exchange could help them. Then it speaks
    /// of low credit and of what it could spare only after so long, and gives what somebody waits for and tells of a
    /// waiter of its own after half of it. Where requests are slower, as in the quality bars of 100 ms on 10 pods,
    /// nothing changes.
    pub(super) fn set_calm(&mut self, now: Micros) {
        let drain_us = self
            .gate
            .ledger
            .rates
            .own(now)
            .map_or(u64::MAX, |own| time_to_drain(own, u64::from(self.heaviest)));
        let calm_us = (4 * self.pace_us).min(self.wait_us / 5);
        self.calm_us = if drain_us.saturating_mul(10) <= calm_us { calm_us } else { 0 };
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

    /// Whether units are asked of this gate by name.
    fn owes_now(&self) -> bool {
        let advice = &self.advice;
        let recalled = self.recall_due().is_some();
        let wanted = || self.holds_claimed() || self.wants_nothing() || advice.tight;
        !self.lapsed && (recalled || (self.idle() > 0 && wanted()))
    }

    /// Whether credit is so badly wanted somewhere that it is worth an exchange.
    fn owes_some(&self) -> bool {
        let (advice, idle) = (&self.advice, self.idle());
        let scarce = advice.scarce && self.rules.fragments;
        !self.lapsed && idle > 0 && (scarce || (!advice.recovering && self.has_surplus(idle)))
    }

    /// Least time between two exchanges; an ask that does not wait is given the time of one.
    pub(super) fn set_pace(&mut self, pace_us: u64) {
        self.pace_us = pace_us.max(self.timing.pace_us);
        self.gate.least_wait_us = 2 * self.pace_us + 5_000;
    }
}
