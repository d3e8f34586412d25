//! What a gate says to the ledger, and what it makes of the answers.

use std::collections::BTreeMap;

use super::{Advice, Flight, Leaving, Member, Sums};
use crate::exchange::{Entry, Place};
use crate::gate::Output;
use crate::ids::{ApiId, PodId, Ticket};
use crate::member::basis::Basis;
use crate::policy::Units;
use crate::rank::TAG;
use crate::shared::{
    Account, Kept, Lent, PART_MAX, Part, Push, Recall, Reply, Report, Stamp, Verdict, WAITERS_MAX, Waiting,
};
use crate::time::Micros;

impl Member {
    pub(super) fn write(&mut self, now: Micros) -> Report {
        if !self.gap {
            // Whoever was lent trickle units has them or is gone.
            self.trickle_lent = self.trickled();
            self.note(Account::Trickle);
        }
        self.ask_shares(now);
        if self.loss.basis != Basis::Ledger {
            self.note_all();
        }
        self.number += 1;
        let (part, holds) = self.list_holds();
        let terms = (!self.terms_known).then(|| Box::new(self.terms.clone()));
        let leaving = self.says_farewell();
        let idle = self.idle().min(u64::from(Units::MAX)) as Units;
        let queued = self.gate.ledger.line.units_in_front();
        let told = terms.as_ref().map(|_| self.digest);
        self.flight = Some(Flight { number: self.number, sent: now, part, told, idle, queued, leaving });
        self.sent = Some(now);
        self.urgent = false;
        self.news = false;
        self.gap = false;
        self.counts.reports += 1;
        let outside = self.take_outside();
        let waiters = self.waiters(now);
        self.told = waiters.iter().map(|one| one.ticket).collect();
        let book = &self.gate.ledger.book;
        Report {
            gate: self.id,
            stamp: self.stamp,
            number: self.number,
            nonce: self.random.u64(1..),
            server: self.server,
            step: self.step,
            applied: self.applied,
            version: self.version,
            part,
            holds,
            used: self.used(),
            idle,
            waiters,
            recalled: self.recalled,
            hold_us: self.longest_hold_us(),
            past_us: self.past_us,
            ttl_us: self.timing.ttl_us,
            digest: self.digest,
            terms,
            done: self.sums.done,
            queued,
            vtime: self.gate.ledger.ranker.virtual_time(),
            unspent: self.sums.unspent,
            avoid: self.avoid(),
            outside,
            leaving,
            status: (book.pooled + book.trickled, self.gate.ledger.line.len() as u64),
        }
    }

    /// What changed, or while everything is said the next part of it.
    fn list_holds(&mut self) -> (Part, Vec<(Account, Units)>) {
        let most = if self.syncing { PART_MAX } else { usize::MAX };
        let accounts: Vec<Account> = self.dirty.keys().copied().take(most).collect();
        let part = match (self.syncing, accounts.len() == self.dirty.len()) {
            (false, _) => Part::Changes,
            (true, false) => Part::More,
            (true, true) => Part::Last,
        };
        self.dirty.values_mut().for_each(|first| *first = self.number + 1);
        for account in &accounts {
            self.dirty.insert(*account, self.number);
        }
        let holds: Vec<(Account, Units)> =
            accounts.into_iter().map(|account| (account, self.held(account))).collect();
        for (account, units) in &holds {
            if *units == 0 {
                self.known.remove(account);
            } else {
                self.known.insert(*account, *units);
            }
        }
        (part, holds)
    }

    fn used(&self) -> Vec<(ApiId, Units)> {
        if self.loss.basis == Basis::Off {
            return Vec::new();
        }
        let counted = self.kinds.iter().enumerate().filter(|(_, kind)| kind.special || kind.limited);
        counted
            .map(|(index, _)| (ApiId(index as u32), self.gate.ledger.book.apis[index].used as Units))
            .collect()
    }

    /// The best waiters, with ages; under `fair` less the start tags that they will have in their turn.
    fn waiters(&self, now: Micros) -> Vec<Waiting> {
        let crate::ledger::Ledger { line, ranker, .. } = &self.gate.ledger;
        let mut before: BTreeMap<u64, u64> = BTreeMap::new();
        let mut word = |(rank, ticket): (u64, Ticket)| {
            let request = line.get(ticket)?.request;
            let pin = match request.place {
                Place::Pin(pod) => Some(pod),
                Place::Any | Place::Prefer(_) => None,
            };
            let age_us = if ranker.is_fair() {
                let units = before.entry(request.key).or_default();
                let tag = ranker.start_tag(request.key) + *units * TAG;
                *units += u64::from(request.weight);
                -(tag as i64)
            } else {
                now.0 as i64 - rank as i64
            };
            Some(Waiting { ticket, api: request.api, weight: request.weight, pin, age_us })
        };
        line.best(ranker, WAITERS_MAX).into_iter().filter_map(&mut word).collect()
    }

    /// The answer to a report.
    pub fn on_reply(&mut self, now: Micros, reply: &Reply, out: &mut Vec<Output>) {
        self.pass(now, out);
        let answered = self.flight.filter(|flight| flight.number == reply.number);
        let Some(flight) = answered.filter(|_| !self.rules.stamped || reply.stamp == self.stamp) else {
            self.counts.foreign += 1;
            return;
        };
        self.flight = None;
        self.step = self.step.max(reply.step);
        self.hear_of_pool(now, reply, flight.queued);
        self.set_calm(now);
        match reply.verdict {
            Verdict::Resync(stamp) => {
                self.begin_again(now, stamp);
                if flight.leaving && self.gate.leases.len() == 0 {
                    // It knows nothing of this gate, and there is nothing to know.
                    self.leaving = Leaving::Left;
                }
                self.look();
                return;
            }
            Verdict::Applied => self.acknowledged(now, flight),
            Verdict::Stale => {}
        }
        let lent_pods = reply.lent.iter().any(|lent| matches!(lent.account, Account::Pod(_)));
        self.dry = !lent_pods && u64::from(flight.idle) * 4 < u64::from(reply.target);
        self.advice = Advice {
            target: reply.target,
            // A push that was heard since the report was sent may be younger than its answer.
            scarce: reply.scarce || std::mem::take(&mut self.alarmed),
            scarce_apis: reply.scarce_apis.clone(),
            tight: reply.tight,
            recovering: reply.recovering,
            recall: self.youngest(reply.recall),
            kept: reply.kept.and_then(|kept| self.on_own_clock(now, kept)),
            over: reply.over.iter().copied().collect(),
            version: reply.version,
            gates: reply.gates,
        };
        self.stand(now, out);
        if self.loss.basis == Basis::Shares && reply.verdict == Verdict::Applied {
            self.hear_shares();
        }
        if self.is_by_itself() {
            // There may be more gates than before, or fewer.
            self.allot_all();
            self.dispatch(now, out);
        }
        self.look();
        self.take(now, &reply.lent, out);
    }

    /// A word of the ledger that was not asked for.
    pub fn on_push(&mut self, now: Micros, push: &Push, out: &mut Vec<Output>) {
        self.pass(now, out);
        if self.rules.stamped && (push.stamp != self.stamp || self.syncing) {
            self.counts.foreign += 1;
            return;
        }
        self.advice.scarce |= push.scarce;
        self.alarmed |= push.scarce && self.flight.is_some();
        self.advice.recall = self.youngest(push.recall);
        self.advice.kept = push.kept.and_then(|kept| self.on_own_clock(now, kept)).or(self.advice.kept);
        self.take(now, &push.lent, out);
    }

    /// Pushes and replies come by two ways, so an older word may be heard after a younger one.
    fn youngest(&self, recall: Option<Recall>) -> Option<Recall> {
        recall.into_iter().chain(self.advice.recall).max_by_key(|recall| recall.number)
    }

    /// What is recalled and was not given back yet.
    pub(super) fn recall_due(&self) -> Option<Recall> {
        self.advice.recall.filter(|recall| recall.number > self.recalled)
    }

    fn acknowledged(&mut self, now: Micros, flight: Flight) {
        self.counts.acknowledged += 1;
        self.dirty.retain(|_, first| *first > flight.number);
        if flight.part == Part::Last {
            self.syncing = false;
        }
        self.terms_known |= flight.told == Some(self.digest);
        if flight.leaving && self.leaving != Leaving::Stays {
            self.leaving = Leaving::Left;
        }
        // A part of everything is no base for credit: only when the ledger knows all may more be used.
        if flight.part != Part::More {
            let until = flight.sent + (self.timing.ttl_us - self.timing.margin_us());
            self.valid_until = self.valid_until.max(until);
            // The answer may have come too late to help.
            let lapsed = !self.is_valid(now);
            if self.lapsed && !lapsed {
                // What completed while nothing was lent is no measure of what is to come.
                self.gate.ledger.rates.forget();
                self.course.restart();
            }
            self.lapsed = lapsed;
        }
    }

    /// The ledger knows nothing of this life: another begins, in which everything is said anew.
    fn begin_again(&mut self, now: Micros, stamp: Stamp) {
        self.counts.resyncs += 1;
        // Before everything is said nothing more is taken than leases use.
        self.loss.from = self.loss.from.max(now + 2 * self.timing.timeout_us);
        // Whoever admitted by itself had no more than a share. Others may still use what they were lent, and say so
        // with their next report.
        let hear_us = if self.loss.basis == Basis::Emergency { 0 } else { self.timing.heartbeat_us() };
        match self.loss.basis {
            Basis::Emergency | Basis::Shares => self.rebase(Basis::Ledger),
            Basis::Ledger if self.rules.drop_on_return => self.drop_credit(),
            Basis::Ledger | Basis::Off => {}
        }
        if stamp.incarnation != self.stamp.incarnation {
            self.shares.from = now + (hear_us + 2 * self.timing.timeout_us);
            // Requests that gates nobody knows any more admitted before the loss last as long as ours did, or if we had none
            // of late as long as any may. A gate that comes to a ledger for the first time knows of none.
            let longest_us = match self.longest_hold_us() {
                _ if self.stamp.incarnation == 0 => 0,
                0 => self.timing.hold_max_us,
                longest_us => longest_us,
            };
            // A loss within a recovery forgets nothing.
            self.past_us = if self.advice.recovering { longest_us.max(self.past_us) } else { longest_us };
            self.step = 0;
            self.course.restart();
        }
        if stamp != self.stamp {
            self.dirty.clear();
            self.known.clear();
            self.sums = Sums::default();
        }
        self.stamp = stamp;
        self.applied = 0;
        self.recalled = 0;
        self.syncing = true;
        self.terms_known = false;
        self.dry = false;
        self.advice.recall = None;
        self.advice.kept = None;
        self.advice.over.clear();
        self.note_all();
        self.urgent = true;
    }

    /// Lent units, in order and each once.
    fn take(&mut self, now: Micros, lent: &[Lent], out: &mut Vec<Output>) {
        for one in lent {
            if self.rules.numbered {
                if one.number <= self.applied {
                    continue;
                }
                if one.number > self.applied + 1 {
                    self.counts.gaps += 1;
                    self.gap = true;
                    break;
                }
            }
            self.applied = one.number;
            *self.known.entry(one.account).or_default() += one.units;
            self.take_one(now, one, out);
        }
        if !lent.is_empty() {
            self.dispatch(now, out);
        }
    }

    fn take_one(&mut self, now: Micros, lent: &Lent, out: &mut Vec<Output>) {
        let Lent { account, units, .. } = *lent;
        if self.lapsed || self.loss.basis != Basis::Ledger {
            // It came too late to be used; what is held is said anew.
            self.not_spent(lent);
            self.said(account);
            self.urgent |= self.loss.basis != Basis::Off;
            return;
        }
        let pod = match account {
            Account::Api(api) if self.is_limited(api) => {
                let allowance = self.allowance(api);
                self.gate.ledger.book.apis[api.index()].max = Some(allowance + units);
                return;
            }
            Account::Trickle => {
                self.trickle_lent += units;
                return;
            }
            Account::Pod(pod) if !self.is_shut(pod) => pod,
            // Nothing here can use it.
            Account::Api(_) | Account::Pod(_) => {
                self.not_spent(lent);
                self.counts.unusable += 1;
                self.said(account);
                self.urgent = true;
                return;
            }
        };
        self.gate.ledger.pods.lend(pod, self.lent(pod) + units);
        let Some(ticket) = lent.waiter else { return };
        let entry = if lent.trickle { Entry::Trickle } else { Entry::Pool };
        let served = self.gate.ledger.serve(now, ticket, (pod, entry), &mut self.gate.grants);
        self.gate.hand_over(now, out);
        if !served {
            self.counts.unusable += 1;
            if lent.special || lent.trickle {
                self.not_spent(lent);
                self.take_back(pod, units);
                self.urgent = true;
            }
        }
    }

    /// Tokens of the trickle that were spent for nobody.
    fn not_spent(&mut self, lent: &Lent) {
        if lent.trickle && matches!(lent.account, Account::Pod(_)) {
            self.sums.unspent += u64::from(lent.units);
            // The units of the trickle's account that came with them go back with the next report.
        }
    }

    /// A claim, with its rank among the own waiters. None if this gate does not know the pod.
    fn on_own_clock(&self, now: Micros, kept: Kept) -> Option<(PodId, i64)> {
        self.gate.ledger.pods.get(kept.pod)?;
        let base = if self.gate.ledger.ranker.is_fair() { 0 } else { now.0 as i64 };
        Some((kept.pod, base - kept.age_us))
    }
}
