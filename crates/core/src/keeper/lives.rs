//! Who is alive, and what becomes of what the silent held.

use super::{Keeper, Record, Remains};
use crate::shared::{GateId, Report, Stamp, Verdict};
use crate::time::Micros;

/// Most gates and remains that one exchange ends; the rest follow with the next.
const REAP_MAX: usize = 4;

impl Keeper {
    /// The ledger's clock goes on by what the server's did, within reason: a clock that was set must end no epoch.
    pub(super) fn tick(&mut self, now: Micros) {
        let passed = self.seen.map_or(0, |seen| now.since(seen));
        let most = if self.rules.steady_clock { self.timing.heartbeat_us() } else { u64::MAX };
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
            self.outwait(report.hold_us);
            return;
        }
        self.counts.losses += 1;
        self.incarnation = report.nonce.max(1);
        self.server = report.server;
        self.records.clear();
        self.remains.clear();
        self.line.clear();
        self.claim = None;
        self.scarce = false;
        self.scarce_apis.clear();
        self.accounts.forget();
        self.recover_from = self.clock;
        self.recover_until = self.clock + 1;
        self.outwait(report.hold_us);
    }

    /// A recovery lasts until what any gate admitted on credit of an earlier life has ended.
    fn outwait(&mut self, hold_us: u64) {
        if self.clock >= self.recover_until {
            return;
        }
        let hold_us = hold_us.min(self.timing.hold_max_us);
        let until = self.recover_from + (self.timing.ttl_us + self.timing.margin_us() + hold_us);
        self.recover_until = self.recover_until.max(until);
    }

    /// Silence ends an epoch; what it held comes back when all that it may have admitted has ended.
    pub(super) fn reap(&mut self) {
        let ttl_us = self.timing.ttl_us;
        let silent = |record: &Record| self.clock >= record.last + ttl_us;
        let gone = self.records.iter().filter(|(_, record)| silent(record)).map(|(gate, _)| *gate);
        let gone: Vec<GateId> = gone.take(REAP_MAX).collect();
        for gate in gone {
            self.counts.expired += 1;
            self.end_epoch(gate);
        }
        let over = self.remains.iter().filter(|(_, remains)| self.clock >= remains.due);
        let over: Vec<(GateId, u64)> = over.map(|(key, _)| *key).take(REAP_MAX).collect();
        for key in over {
            self.release_remains(key);
        }
    }

    fn end_epoch(&mut self, gate: GateId) {
        let Some(record) = self.records.remove(&gate) else { return };
        for place in &record.waiters {
            self.line.remove(place);
        }
        let hold_us = if self.rules.linger { record.hold_us.min(self.timing.hold_max_us) } else { 0 };
        let due = record.last + (self.timing.ttl_us + hold_us);
        let held = record.held();
        let remains = Remains { held, used: record.used, due };
        self.remains.insert((gate, record.epoch), remains);
    }

    fn release_remains(&mut self, key: (GateId, u64)) {
        let Some(remains) = self.remains.remove(&key) else { return };
        for (account, units) in remains.held {
            self.counts.touched += 1;
            self.accounts.change(account, u64::from(units), 0);
        }
        for (api, units) in remains.used {
            self.accounts.use_changed(api, u64::from(units), 0);
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
            self.release_remains(key);
        }
    }
}
