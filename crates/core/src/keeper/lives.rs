//! Who is alive, and what becomes of what the silent held.

use super::accounts::Accounts;
use super::{Keeper, Record, Remains};
use crate::policy::Units;
use crate::shared::{GateId, Report, Stamp, Terms, Verdict};
use crate::time::Micros;

/// Most gates that one exchange ends; the rest follow with the next.
const REAP_MAX: usize = 4;
/// Most accounts that one exchange gives back of what the silent held.
const RELEASE_MAX: usize = 64;

impl Keeper {
    /// By so much the ledger's clock advances at most at once.
    fn heartbeat_us(&self) -> u64 {
        self.ttl_us / 5
    }

    /// The ledger's clock goes on by what the server's did, within reason: a clock that was set must end no epoch.
    pub(super) fn tick(&mut self, now: Micros) {
        let passed = self.seen.map_or(0, |seen| now.since(seen));
        let most = if self.rules.steady_clock { self.heartbeat_us() } else { u64::MAX };
        self.clock = self.clock + passed.min(most);
        self.seen = Some(now);
    }

    /// A state that is missing, that came from another server or that ran back knows nothing: a new life begins,
    /// and lends nothing until every credit of earlier ones has ended.
    pub(super) fn notice_loss(&mut self, report: &Report) {
        let detect = self.rules.detect_rollback;
        let moved = detect && report.server != self.server;
        let ran_back = detect && report.stamp.incarnation == self.incarnation && report.step > self.step;
        if self.incarnation != 0 && !moved && !ran_back {
            self.outwait(report);
            return;
        }
        self.counts.losses += 1;
        self.incarnation = report.nonce.max(1);
        self.server = report.server;
        self.records.clear();
        self.remains.clear();
        self.terms.clear();
        self.line.clear();
        self.claim = None;
        self.scarce = false;
        self.tight = false;
        self.scarce_apis.clear();
        self.accounts = Accounts::default();
        self.accounts.fill(self.clock);
        (self.done, self.queued) = (0, 0);
        self.recover_from = self.clock;
        self.recover_until = self.clock + 1;
        self.outwait(report);
    }

    /// A recovery lasts until what any gate admitted on credit of an earlier life has ended.
    fn outwait(&mut self, report: &Report) {
        if self.clock >= self.recover_until {
            return;
        }
        let past_us = match report.stamp.incarnation {
            0 => 0,
            known if known == self.incarnation => report.past_us,
            // It has not heard of the loss yet.
            _ => report.hold_us,
        };
        // The margin by which gates stop early is a fifth, as the heartbeat is.
        let until = self.recover_from + (self.ttl_us + self.heartbeat_us() + past_us);
        self.recover_until = self.recover_until.max(until);
    }

    /// Silence ends an epoch; what it held comes back when all that it may have admitted has ended.
    pub(super) fn reap(&mut self) {
        self.accounts.forget_outside(self.clock);
        let silent = |record: &Record| self.clock >= record.last + self.ttl_us;
        let gone = self.records.iter().filter(|(_, record)| silent(record));
        let mut gone: Vec<(Micros, GateId)> = gone.map(|(gate, record)| (record.last, *gate)).collect();
        gone.sort_unstable();
        for (_, gate) in gone.into_iter().take(REAP_MAX) {
            self.counts.expired += 1;
            self.end_epoch(gate);
        }
        let due = self.remains.iter().filter(|(_, remains)| self.clock >= remains.due);
        let due: Vec<(GateId, u64)> = due.map(|(key, _)| *key).collect();
        let mut left = RELEASE_MAX;
        for key in due {
            self.release_remains(key, &mut left);
        }
    }

    /// A gate's life is over. What it holds stays counted until all that it admitted has surely ended.
    pub(super) fn end_epoch(&mut self, gate: GateId) {
        let Some(record) = self.records.remove(&gate) else { return };
        for place in &record.waiters {
            self.line.remove(place);
        }
        self.queued -= record.queued;
        let hold_us = if self.rules.linger { record.hold_us } else { 0 };
        let due = record.last + (self.ttl_us + hold_us);
        let held = record.held();
        if !held.is_empty() || record.used.values().any(|units| *units > 0) {
            self.remains.insert((gate, record.epoch), Remains { held, used: record.used, due });
        }
        self.drop_terms(record.digest);
    }

    fn release_remains(&mut self, key: (GateId, u64), left: &mut usize) {
        while *left > 0 {
            let Some(remains) = self.remains.get_mut(&key) else { return };
            let Some((account, units)) = remains.held.pop_first() else {
                let used = std::mem::take(&mut remains.used);
                self.remains.remove(&key);
                used.into_iter().for_each(|(api, units)| self.accounts.use_changed(api, u64::from(units), 0));
                return;
            };
            *left -= 1;
            self.counts.touched += 1;
            self.accounts.change(account, u64::from(units), 0);
        }
    }

    /// A gate that this state does not know, or not in this life. It gets a new epoch and lends nothing until it has
    /// said all that it holds.
    pub(super) fn welcome(&mut self, report: &Report) -> Verdict {
        self.counts.resyncs += 1;
        let gate = report.gate;
        let known = self.records.get(&gate).map(|record| (record.syncing, record.number));
        match known {
            // It did not hear of its new life yet.
            Some((true, number)) if report.number > number => {}
            // A late word of an earlier life. Its present one goes on.
            Some((_, number)) if self.rules.numbered && report.number <= number => {}
            Some(_) => {
                self.end_epoch(gate);
                self.begin_epoch(report);
            }
            None => self.begin_epoch(report),
        }
        let clock = self.clock;
        let record = self.records.get_mut(&gate).expect("it has one now");
        record.number = record.number.max(report.number);
        if record.syncing {
            record.last = clock;
            record.hold_us = report.hold_us;
        }
        Verdict::Resync(Stamp { incarnation: self.incarnation, epoch: record.epoch })
    }

    fn begin_epoch(&mut self, report: &Report) {
        self.epochs += 1;
        let record = Record {
            epoch: self.epochs,
            number: report.number,
            syncing: true,
            last: self.clock,
            hold_us: report.hold_us,
            ..Record::default()
        };
        self.records.insert(report.gate, record);
    }

    /// All that the gate holds is said: what was kept of its earlier lives is counted in it.
    pub(super) fn end_sync(&mut self, gate: GateId) {
        let Some(record) = self.records.get_mut(&gate) else { return };
        record.syncing = false;
        let earlier = self.remains.range((gate, 0)..=(gate, u64::MAX));
        let earlier: Vec<(GateId, u64)> = earlier.map(|(key, _)| *key).collect();
        for key in earlier {
            let mut all = usize::MAX;
            self.release_remains(key, &mut all);
        }
    }

    /// The terms that a gate obeys. Others than before count from now on.
    pub(super) fn hear_terms(&mut self, report: &Report) {
        let record = self.records.get_mut(&report.gate).expect("it is being heard");
        let before = record.digest;
        if report.digest == before {
            return;
        }
        if let Some(terms) = &report.terms {
            self.terms.entry(report.digest).or_insert_with(|| (0, (**terms).clone()));
        }
        let Some((gates, _)) = self.terms.get_mut(&report.digest) else { return };
        *gates += 1;
        let is_new = *gates == 1;
        record.digest = report.digest;
        if self.forget_terms(before) || is_new {
            self.merge_terms();
        }
    }

    fn drop_terms(&mut self, digest: u64) {
        if self.forget_terms(digest) {
            self.merge_terms();
        }
    }

    /// One gate fewer obeys these. True if nobody does any more.
    fn forget_terms(&mut self, digest: u64) -> bool {
        let Some((gates, _)) = self.terms.get_mut(&digest) else { return false };
        *gates -= 1;
        let unused = *gates == 0;
        if unused {
            self.terms.remove(&digest);
        }
        unused
    }

    /// The stricter of each figure is in force. When nobody is left, what was stays.
    fn merge_terms(&mut self) {
        let mut all = self.terms.values().map(|(_, terms)| terms);
        let Some(first) = all.next() else { return };
        let merged = all.fold(first.clone(), |merged, terms| merged.stricter(terms));
        self.fair = merged.fair;
        let gone = self.accounts.configure(self.clock, &merged);
        self.tight = self.accounts.is_pool_over();
        for account in gone {
            for record in self.records.values_mut() {
                record.holds.remove(&account);
                // Their numbers stay, so that there is no gap.
                let pending = record.pending.iter_mut().filter(|lent| lent.account == account);
                pending.for_each(|lent| lent.units = 0);
            }
            for remains in self.remains.values_mut() {
                remains.held.remove(&account);
            }
        }
    }
}

impl Terms {
    /// The stricter of each figure of two gates' terms. A pod that only one of them lists has that one's limits.
    #[must_use]
    pub fn stricter(&self, other: &Terms) -> Terms {
        let mut pods = std::collections::BTreeMap::new();
        for (pod, capacity, burst) in self.pods.iter().chain(&other.pods).copied() {
            let one: &mut (Units, Units) = pods.entry(pod).or_insert((capacity, burst));
            *one = (one.0.min(capacity), one.1.min(burst));
        }
        let mut apis = std::collections::BTreeMap::new();
        for (api, min, max, protected) in self.apis.iter().chain(&other.apis).copied() {
            let one = apis.entry(api).or_insert((0, None, true, 0));
            one.0 = Units::max(one.0, min);
            one.1 = match (one.1, max) {
                (Some(a), Some(b)) => Some(Units::min(a, b)),
                (a, b) => a.or(b),
            };
            one.2 &= protected;
            one.3 += 1;
        }
        let apis = apis
            .into_iter()
            .map(|(api, (min, max, protected, said))| (api, min, max, protected && said == 2));
        Terms {
            fair: self.fair || other.fair,
            cap: match (self.cap, other.cap) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
            reserve: self.reserve.max(other.reserve),
            share: self.share.max(other.share),
            trickle_milli: self.trickle_milli.min(other.trickle_milli),
            trickle_most: self.trickle_most.min(other.trickle_most),
            pods: pods.into_iter().map(|(pod, (capacity, burst))| (pod, capacity, burst)).collect(),
            apis: apis.collect(),
        }
    }
}
