//! What a gate keeps of what was lent, and what goes back.

use super::Member;
use crate::gate::Output;
use crate::ids::{ApiId, PodId};
use crate::policy::Units;
use crate::shared::{Account, Recall};
use crate::time::Micros;

impl Member {
    /// Credit on pods that asks may use.
    pub(super) fn idle(&self) -> u64 {
        self.gate.ledger.pods.open_units()
    }

    fn open(&self, pod: PodId) -> Units {
        self.gate.ledger.pods.open(pod)
    }

    pub(super) fn allowance(&self, api: ApiId) -> Units {
        self.gate.ledger.book.apis[api.index()].max.unwrap_or(0)
    }

    fn spare(&self, api: ApiId) -> Units {
        let used = self.gate.ledger.book.apis[api.index()].used;
        u64::from(self.allowance(api)).saturating_sub(used) as Units
    }

    /// The next report says what is held of `account`.
    pub(super) fn said(&mut self, account: Account) {
        self.dirty.insert(account, self.number + 1);
    }

    /// Credit on a pod is given up for good.
    pub(super) fn cut(&mut self, pod: PodId, units: Units) {
        let units = units.min(self.open(pod));
        if units > 0 {
            let lent = self.lent(pod);
            self.gate.ledger.pods.lend(pod, lent - units);
            self.said(Account::Pod(pod));
        }
    }

    pub(super) fn cut_allowance(&mut self, api: ApiId, units: Units) {
        let allowance = self.allowance(api);
        self.gate.ledger.book.apis[api.index()].max = Some(allowance.saturating_sub(units));
        self.said(Account::Api(api));
        self.urgent = true;
    }

    /// All credit is given up; leases stay.
    pub(super) fn drop_credit(&mut self) {
        for pod in self.pods() {
            self.cut(pod, Units::MAX);
        }
        for api in self.limited() {
            self.cut_allowance(api, self.spare(api));
        }
    }

    pub(super) fn pods(&self) -> Vec<PodId> {
        self.gate.ledger.pods.iter().map(|(id, _)| id).collect()
    }

    pub(super) fn limited(&self) -> Vec<ApiId> {
        let limited = self.kinds.iter().enumerate().filter(|(_, kind)| kind.limited);
        limited.map(|(index, _)| ApiId(index as u32)).collect()
    }

    /// Whether units that are about to come free on `pod` are the ledger's.
    pub(super) fn goes_back(&self, pod: PodId, api: ApiId, weight: Units) -> bool {
        let owed = self.lapsed || self.kinds[api.index()].special;
        if owed || self.advice.over.contains(&Account::Pod(pod)) {
            return true;
        }
        if !self.rules.own_first && self.advice.scarce {
            return true;
        }
        let Some((kept, rank)) = self.advice.kept else { return false };
        kept == pod && !self.has_better(rank, self.open(pod) + weight)
    }

    /// Whether an own waiter ranks before `rank` and could use `open` units.
    fn has_better(&self, rank: i64, open: Units) -> bool {
        let crate::ledger::Ledger { line, ranker, book, .. } = &self.gate.ledger;
        line.any_head(ranker, |head, class| {
            (head.rank.value as i64) < rank && class.weight <= open && book.under_max(class.api, class.weight)
        })
    }

    /// Whether credit is so far from what it should be, or so badly wanted elsewhere, that it is worth an exchange.
    pub(super) fn wants_exchange(&self) -> bool {
        let advice = &self.advice;
        if self.lapsed {
            return false;
        }
        if advice.recall.is_some_and(|recall| recall.number > self.recalled) {
            return true;
        }
        let idle = self.idle();
        if idle == 0 && advice.target == 0 {
            return false;
        }
        let claimed = advice.kept.is_some_and(|(pod, _)| self.open(pod) > 0);
        if claimed || (advice.scarce && self.rules.fragments && idle > 0) {
            return true;
        }
        !advice.recovering && (idle * 4 < u64::from(advice.target) || self.has_surplus(idle))
    }

    /// Without waiters anywhere and with nothing undistributed, what is idle is best kept where it came free.
    fn has_surplus(&self, idle: u64) -> bool {
        self.advice.target > 0 && idle > 2 * u64::from(self.advice.target)
    }

    /// Gives up what is owed before a report is written.
    pub(super) fn give_back(&mut self) {
        if self.syncing {
            return;
        }
        for account in std::mem::take(&mut self.advice.over) {
            match account {
                Account::Pod(pod) => self.cut(pod, Units::MAX),
                Account::Api(api) => self.cut_allowance(api, self.spare(api)),
                Account::Trickle => {}
            }
            self.advice.over.insert(account);
        }
        if let Some((pod, _)) = self.advice.kept {
            self.cut(pod, Units::MAX);
        }
        if let Some(recall) = self.advice.recall.filter(|recall| recall.number > self.recalled) {
            self.recalled = recall.number;
            self.pay(recall);
        }
        if self.advice.scarce && self.rules.fragments {
            // Own waiters that fit it were served already.
            self.pods().into_iter().for_each(|pod| self.cut(pod, Units::MAX));
        }
        for api in self.advice.scarce_apis.clone() {
            if self.kinds[api.index()].limited && self.spare(api) > 0 {
                self.cut_allowance(api, self.spare(api));
            }
        }
        let idle = self.idle();
        if !self.advice.recovering && self.has_surplus(idle) {
            self.cut_fragments(idle - u64::from(self.advice.target));
        }
    }

    /// One pod's credit that is enough, else all.
    fn pay(&mut self, recall: Recall) {
        if let Some(api) = recall.api {
            if self.kinds[api.index()].limited {
                self.cut_allowance(api, self.spare(api));
            }
            return;
        }
        let mut open: Vec<(Units, PodId)> =
            self.pods().into_iter().map(|pod| (self.open(pod), pod)).collect();
        open.sort_unstable();
        if let Some((_, pod)) = open.iter().find(|(open, _)| *open >= recall.units) {
            self.cut(*pod, recall.units);
            return;
        }
        // Only where all fragments meet can they be joined.
        open.into_iter().for_each(|(units, pod)| self.cut(pod, units));
    }

    /// The smallest pieces go first: elsewhere they join others on their pod.
    fn cut_fragments(&mut self, units: u64) {
        let mut left = units.min(u64::from(Units::MAX)) as Units;
        let mut open: Vec<(Units, PodId)> =
            self.pods().into_iter().map(|pod| (self.open(pod), pod)).collect();
        open.sort_unstable();
        for (units, pod) in open {
            let units = units.min(left);
            self.cut(pod, units);
            left -= units;
        }
    }

    /// Own waiters get what fits them.
    pub(super) fn dispatch(&mut self, now: Micros, out: &mut Vec<Output>) {
        if !self.gate.ledger.line.is_empty() {
            self.gate.ledger.dispatch(now, &mut self.gate.grants);
            self.gate.hand_over(now, out);
        }
    }
}
