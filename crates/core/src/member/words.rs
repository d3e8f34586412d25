//! What a gate says to the ledger, and what it makes of the answers.

use super::{Advice, Flight, Member};
use crate::exchange::Place;
use crate::gate::Output;
use crate::ids::ApiId;
use crate::policy::Units;
use crate::shared::{
    Account, Kept, Lent, PART_MAX, Part, Push, Reply, Report, Stamp, Verdict, WAITERS_MAX, Waiting,
};
use crate::time::Micros;

impl Member {
    pub(super) fn write(&mut self, now: Micros) -> Report {
        self.number += 1;
        let most = if self.syncing { PART_MAX } else { usize::MAX };
        let accounts: Vec<Account> = self.dirty.keys().copied().take(most).collect();
        let part = match (self.syncing, accounts.len() == self.dirty.len()) {
            (false, _) => Part::Changes,
            (true, false) => Part::More,
            (true, true) => Part::Last,
        };
        for account in &accounts {
            self.dirty.insert(*account, self.number);
        }
        for (account, first) in &mut self.dirty {
            if !accounts.contains(account) {
                *first = self.number + 1;
            }
        }
        self.flight = Some(Flight { number: self.number, sent: now, part });
        self.sent = Some(now);
        self.urgent = false;
        self.news = false;
        self.gap = false;
        self.counts.reports += 1;
        Report {
            gate: self.id,
            stamp: self.stamp,
            number: self.number,
            nonce: self.random.u64(1..),
            server: self.server,
            step: self.step,
            applied: self.applied,
            version: self.advice.version,
            part,
            holds: accounts.into_iter().map(|account| (account, self.held(account))).collect(),
            used: self.used(),
            idle: self.idle().min(u64::from(Units::MAX)) as Units,
            waiters: self.waiters(now),
            recalled: self.recalled,
            hold_us: self.longest_hold_us(),
            past_us: self.longest_hold_us(),
            ttl_us: self.timing.ttl_us,
            digest: 0,
            terms: None,
            done: 0,
            queued: 0,
            vtime: 0,
            unspent: 0,
            avoid: Vec::new(),
            outside: Vec::new(),
            leaving: false,
            status: (0, 0),
        }
    }

    fn held(&self, account: Account) -> Units {
        match account {
            Account::Pod(pod) => self.lent(pod),
            Account::Api(api) => self.allowance(api),
            Account::Trickle => 0,
        }
    }

    fn used(&self) -> Vec<(ApiId, Units)> {
        let counted = self.kinds.iter().enumerate().filter(|(_, kind)| kind.special || kind.limited);
        counted
            .map(|(index, _)| (ApiId(index as u32), self.gate.ledger.book.apis[index].used as Units))
            .collect()
    }

    fn waiters(&self, now: Micros) -> Vec<Waiting> {
        let crate::ledger::Ledger { line, ranker, .. } = &self.gate.ledger;
        let word = |(rank, ticket): (u64, crate::ids::Ticket)| {
            let request = line.get(ticket)?.request;
            let pin = match request.place {
                Place::Pin(pod) => Some(pod),
                Place::Any | Place::Prefer(_) => None,
            };
            // `fair` ranks by virtual time, which gates do not share: between gates the first comes first.
            let rank = if ranker.is_fair() { request.arrival.0 } else { rank };
            let age_us = now.0 as i64 - rank as i64;
            Some(Waiting { ticket, api: request.api, weight: request.weight, pin, age_us })
        };
        line.best(ranker, WAITERS_MAX).into_iter().filter_map(word).collect()
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
        match reply.verdict {
            Verdict::Resync(stamp) => {
                self.begin_again(stamp);
                return;
            }
            Verdict::Applied => self.acknowledged(now, flight),
            Verdict::Stale => {}
        }
        self.advice = Advice {
            target: reply.target,
            scarce: reply.scarce,
            scarce_apis: reply.scarce_apis.clone(),
            recovering: reply.recovering,
            recall: reply.recall,
            kept: reply.kept.map(|kept| on_own_clock(now, kept)),
            over: reply.over.iter().copied().collect(),
            version: reply.version,
        };
        self.pace_us = reply.pace_us;
        self.take(now, &reply.lent, out);
    }

    /// A word of the ledger that was not asked for.
    pub fn on_push(&mut self, now: Micros, push: &Push, out: &mut Vec<Output>) {
        self.pass(now, out);
        if self.rules.stamped && (push.stamp != self.stamp || self.syncing) {
            self.counts.foreign += 1;
            return;
        }
        self.advice.recall = push.recall.or(self.advice.recall);
        self.advice.kept = push.kept.map(|kept| on_own_clock(now, kept)).or(self.advice.kept);
        self.take(now, &push.lent, out);
    }

    fn acknowledged(&mut self, now: Micros, flight: Flight) {
        self.dirty.retain(|_, first| *first > flight.number);
        if flight.part == Part::Last {
            self.syncing = false;
        }
        // A part of everything is no base for credit: only when the ledger knows all may more be used.
        if flight.part != Part::More {
            let until = flight.sent + (self.timing.ttl_us - self.timing.margin_us());
            self.valid_until = self.valid_until.max(until);
            // The answer may have come too late to help.
            self.lapsed = !self.is_valid(now);
        }
    }

    /// The ledger knows nothing of this life: another begins, in which everything is said anew.
    fn begin_again(&mut self, stamp: Stamp) {
        self.counts.resyncs += 1;
        if self.rules.drop_on_return {
            self.drop_credit();
        }
        if stamp.incarnation != self.stamp.incarnation {
            self.step = 0;
        }
        self.stamp = stamp;
        self.applied = 0;
        self.recalled = 0;
        self.syncing = true;
        self.advice.recall = None;
        self.advice.kept = None;
        self.advice.over.clear();
        let pods = self.pods().into_iter().map(Account::Pod);
        let accounts: Vec<Account> = pods.chain(self.limited().into_iter().map(Account::Api)).collect();
        for account in accounts {
            if self.held(account) > 0 {
                self.said(account);
            }
        }
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
            self.take_one(now, one, out);
        }
        if !lent.is_empty() {
            self.dispatch(now, out);
        }
    }

    fn take_one(&mut self, now: Micros, lent: &Lent, out: &mut Vec<Output>) {
        if self.lapsed {
            // It came too late to be used; what is held is said anew.
            self.said(lent.account);
            self.urgent = true;
            return;
        }
        let pod = match lent.account {
            Account::Api(api) => {
                let allowance = self.allowance(api);
                self.gate.ledger.book.apis[api.index()].max = Some(allowance + lent.units);
                return;
            }
            Account::Pod(pod) => pod,
            Account::Trickle => return,
        };
        self.gate.ledger.pods.lend(pod, self.lent(pod) + lent.units);
        let Some(ticket) = lent.waiter else { return };
        let served = self.gate.ledger.serve(now, ticket, pod, &mut self.gate.grants);
        self.gate.hand_over(now, out);
        if !served {
            self.counts.unusable += 1;
            if lent.special {
                self.cut(pod, lent.units);
                self.urgent = true;
            }
        }
    }
}

fn on_own_clock(now: Micros, kept: Kept) -> (crate::ids::PodId, i64) {
    (kept.pod, now.0 as i64 - kept.age_us)
}
