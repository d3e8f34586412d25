//! The shared ledger's half: what all gates hold, who waits, and who gets what is free.
//!
//! One [`Report`] in, one [`Reply`] out, and the [`Push`]es that it made possible for other gates. Integers and
//! ordered maps only, and every step short, so that a script inside a store can do the same.
//!
//! **Law:** for each account, the sum of what gates hold (said by them, plus lent and not yet acknowledged) is at
//! most its limit; only a limit that was lowered and gates that come back from silence leave it above, and then
//! nothing is lent of it.

mod accounts;
mod lives;
mod serve;

use std::collections::{BTreeMap, VecDeque};

use crate::ids::{ApiId, PodId, Ticket};
use crate::policy::{Policy, PolicyError, Units};
use crate::shared::{
    Account, GateId, Kept, Lent, Part, Push, Recall, Reply, Report, Rules, Stamp, Timing, Verdict, Waiting,
};
use crate::time::Micros;
use accounts::Accounts;

/// Where a waiter stands among all: rank on the ledger's clock, then gate and ticket so that none are equal.
type Place = (i64, GateId, Ticket);

/// What is known of one gate in its present life.
#[derive(Clone, Debug, Default)]
struct Record {
    epoch: u64,
    /// Its last report.
    number: u64,
    /// It has not yet said all that it holds.
    syncing: bool,
    /// Ledger time of its last exchange.
    last: Micros,
    hold_us: u64,
    /// What it said it holds, with what it acknowledged.
    holds: BTreeMap<Account, Units>,
    /// Lent and not acknowledged, oldest first; counted in the balances as well.
    pending: VecDeque<Lent>,
    /// Number of the last unit lent to it.
    lent: u64,
    used: BTreeMap<ApiId, Units>,
    idle: Units,
    waiters: Vec<Place>,
    recall: Option<Recall>,
    recalls: u64,
}

impl Record {
    fn is_served(&self, ticket: Ticket) -> bool {
        self.pending.iter().any(|lent| lent.waiter == Some(ticket))
    }

    /// Credit on pods that it did not acknowledge yet.
    fn credit_pending(&self) -> Units {
        let credit = self.pending.iter().filter(|lent| lent.waiter.is_none());
        credit.filter(|lent| matches!(lent.account, Account::Pod(_))).map(|lent| lent.units).sum()
    }

    /// What it may still use of an api's `max`.
    fn spare(&self, api: ApiId) -> Units {
        let held = self.holds.get(&Account::Api(api)).copied().unwrap_or(0);
        held.saturating_sub(self.used.get(&api).copied().unwrap_or(0))
    }

    /// Everything it may hold, per account.
    fn held(&self) -> BTreeMap<Account, Units> {
        let mut held = self.holds.clone();
        for lent in &self.pending {
            *held.entry(lent.account).or_default() += lent.units;
        }
        held
    }
}

/// What a silent gate left behind.
#[derive(Clone, Debug)]
struct Remains {
    held: BTreeMap<Account, Units>,
    used: BTreeMap<ApiId, Units>,
    /// Ledger time at which all that it admitted has surely ended.
    due: Micros,
}

/// The best unmet waiter's hold on a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    place: Place,
    pod: PodId,
}

/// Work done, for those who watch the cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeeperCounts {
    /// Reports answered.
    pub exchanges: u64,
    /// Words to other gates.
    pub pushes: u64,
    /// Accounts whose balance was written.
    pub touched: u64,
    /// Units lent to waiters of other gates than the one that exchanged.
    pub across: u64,
    /// Recalls made.
    pub recalls: u64,
    /// Epochs that ended by silence.
    pub expired: u64,
    /// Gates told to say everything anew, joins included.
    pub resyncs: u64,
    /// Lives of the state begun after a loss.
    pub losses: u64,
    /// Reports without effect because a later one had come.
    pub stale: u64,
}

/// The shared ledger.
#[derive(Clone, Debug)]
pub struct Keeper {
    timing: Timing,
    rules: Rules,
    accounts: Accounts,
    version: u64,
    incarnation: u64,
    server: u64,
    step: u64,
    /// The ledger's own clock: never runs back, and after a jump goes on almost where it was.
    clock: Micros,
    /// The server's time at the last exchange.
    seen: Option<Micros>,
    recover_from: Micros,
    recover_until: Micros,
    records: BTreeMap<GateId, Record>,
    remains: BTreeMap<(GateId, u64), Remains>,
    line: BTreeMap<Place, Waiting>,
    claim: Option<Claim>,
    epochs: u64,
    /// Somebody waits for units that nobody has free, as of the last exchange.
    scarce: bool,
    scarce_apis: Vec<ApiId>,
    counts: KeeperCounts,
}

impl Keeper {
    /// A ledger without a past: its first exchange begins a life of the state, and nothing is lent until whatever
    /// an earlier one lent has surely ended.
    ///
    /// # Errors
    /// [`PolicyError`] if the policy breaks its invariant.
    pub fn new(policy: &Policy, timing: Timing, rules: Rules) -> Result<Keeper, PolicyError> {
        policy.check()?;
        let mut accounts = Accounts::default();
        accounts.configure(policy);
        Ok(Keeper {
            timing,
            rules,
            accounts,
            version: 1,
            incarnation: 0,
            server: 0,
            step: 0,
            clock: Micros(0),
            seen: None,
            recover_from: Micros(0),
            recover_until: Micros(0),
            records: BTreeMap::new(),
            remains: BTreeMap::new(),
            line: BTreeMap::new(),
            claim: None,
            epochs: 0,
            scarce: false,
            scarce_apis: Vec::new(),
            counts: KeeperCounts::default(),
        })
    }

    /// Says that this pool never ran before, so that there is nothing to wait for. Whoever says it of a pool that
    /// did run lends units twice.
    pub fn found(&mut self, incarnation: u64, server: u64) {
        self.incarnation = incarnation;
        self.server = server;
    }

    /// Takes new limits. What is held above a lowered one comes back as it completes. Answers the new version.
    ///
    /// # Errors
    /// [`PolicyError`] if the policy breaks its invariant; then nothing was changed.
    pub fn configure(&mut self, policy: &Policy) -> Result<u64, PolicyError> {
        policy.check()?;
        self.accounts.configure(policy);
        let known: Vec<Account> =
            self.records.values().flat_map(|record| record.holds.keys().copied()).collect();
        for account in known.into_iter().filter(|account| !self.accounts.exists(*account)) {
            self.records.values_mut().for_each(|record| {
                record.holds.remove(&account);
            });
        }
        self.version += 1;
        Ok(self.version)
    }

    /// One exchange at the server's time `now`. Words for other gates are appended to `pushes`.
    pub fn exchange(&mut self, now: Micros, report: &Report, pushes: &mut Vec<(GateId, Push)>) -> Reply {
        self.counts.exchanges += 1;
        self.tick(now);
        self.notice_loss(report);
        self.step += 1;
        self.reap();
        let verdict = self.hear(report);
        let heard = verdict == Verdict::Applied || !self.rules.numbered;
        if heard && !self.is_recovering() {
            self.serve(report.gate, pushes);
        }
        self.answer(report, verdict)
    }

    /// Whether nothing is lent yet after a loss.
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        self.rules.recovery && self.clock < self.recover_until
    }

    /// Work done so far.
    #[must_use]
    pub fn counts(&self) -> KeeperCounts {
        self.counts
    }

    /// Units of a pod that no gate holds.
    #[must_use]
    pub fn open(&self, pod: PodId) -> Units {
        self.accounts.open(Account::Pod(pod))
    }

    /// Units of a pod that gates hold, silent ones included.
    #[must_use]
    pub fn held(&self, pod: PodId) -> u64 {
        self.accounts.held(Account::Pod(pod))
    }

    /// Gates that are alive, as far as is known.
    #[must_use]
    pub fn gates(&self) -> usize {
        self.records.len()
    }

    /// What the report says is written down.
    fn hear(&mut self, report: &Report) -> Verdict {
        let current = Stamp {
            incarnation: self.incarnation,
            epoch: self.records.get(&report.gate).map_or(0, |record| record.epoch),
        };
        if current.epoch == 0 || (self.rules.stamped && report.stamp != current) {
            return self.welcome(report);
        }
        let record = self.records.get_mut(&report.gate).expect("its epoch was just read");
        if self.rules.numbered && report.number <= record.number {
            self.counts.stale += 1;
            return Verdict::Stale;
        }
        record.number = report.number;
        record.last = self.clock;
        record.hold_us = report.hold_us;
        if record.syncing && report.part == Part::Changes {
            // Said before it knew of this life.
            return Verdict::Resync(current);
        }
        self.hear_holds(report);
        self.hear_used(report);
        if report.part == Part::Last {
            self.end_sync(report.gate);
        }
        self.hear_waiters(report);
        let record = self.records.get_mut(&report.gate).expect("its epoch was just read");
        // Credit on its way to it counts: it may have to be recalled before the gate speaks again.
        record.idle = report.idle + record.credit_pending();
        record.recall = record.recall.filter(|recall| recall.number > report.recalled);
        Verdict::Applied
    }

    fn hear_holds(&mut self, report: &Report) {
        let record = self.records.get_mut(&report.gate).expect("it is being heard");
        // What it acknowledged is now its own word; the sum stays.
        while record.pending.front().is_some_and(|lent| lent.number <= report.applied) {
            let lent = record.pending.pop_front().expect("front was just seen");
            *record.holds.entry(lent.account).or_default() += lent.units;
        }
        for (account, units) in report.holds.iter().copied() {
            if !self.accounts.exists(account) {
                continue;
            }
            let old = if units == 0 {
                record.holds.remove(&account).unwrap_or(0)
            } else {
                record.holds.insert(account, units).unwrap_or(0)
            };
            self.counts.touched += u64::from(old != units);
            self.accounts.change(account, u64::from(old), u64::from(units));
        }
    }

    fn hear_used(&mut self, report: &Report) {
        let record = self.records.get_mut(&report.gate).expect("it is being heard");
        for (api, units) in report.used.iter().copied() {
            let old = record.used.insert(api, units).unwrap_or(0);
            self.accounts.use_changed(api, u64::from(old), u64::from(units));
        }
    }

    fn hear_waiters(&mut self, report: &Report) {
        let record = self.records.get_mut(&report.gate).expect("it is being heard");
        for place in record.waiters.drain(..) {
            self.line.remove(&place);
        }
        for waiting in &report.waiters {
            let place = (self.clock.0 as i64 - waiting.age_us, report.gate, waiting.ticket);
            self.line.insert(place, *waiting);
            record.waiters.push(place);
        }
    }

    fn answer(&self, report: &Report, verdict: Verdict) -> Reply {
        let record = self.records.get(&report.gate).expect("a gate that spoke has a record");
        let recovering = self.is_recovering();
        let over = record.holds.keys().copied().filter(|account| self.accounts.is_over(*account));
        Reply {
            stamp: report.stamp,
            number: report.number,
            verdict,
            step: self.step,
            lent: if record.syncing { Vec::new() } else { record.pending.iter().copied().collect() },
            target: self.target(),
            scarce: self.scarce && !recovering,
            scarce_apis: self.scarce_apis.clone(),
            recovering,
            recall: record.recall,
            kept: self.kept(),
            over: over.take(crate::shared::PART_MAX).collect(),
            pace_us: self.timing.pace_us.max(self.records.len() as u64 * 100),
            version: self.version,
            gates: self.records.len() as u32,
            done: 0,
            queued: 0,
            vtime: 0,
        }
    }

    fn kept(&self) -> Option<Kept> {
        let claim = self.claim?;
        Some(Kept { pod: claim.pod, age_us: self.clock.0 as i64 - claim.place.0 })
    }

    /// Checks that every sum equals what the records add up to.
    ///
    /// # Errors
    /// What differs, in words. It never should; the tests ask after each step.
    pub fn audit(&self) -> Result<(), String> {
        let mut held: BTreeMap<Account, u64> = BTreeMap::new();
        let mut used: Vec<u64> = Vec::new();
        let mut add_used = |by: &BTreeMap<ApiId, Units>| {
            for (api, units) in by {
                if used.len() <= api.index() {
                    used.resize(api.index() + 1, 0);
                }
                used[api.index()] += u64::from(*units);
            }
        };
        let mut add = |by: BTreeMap<Account, Units>| {
            for (account, units) in by {
                *held.entry(account).or_default() += u64::from(units);
            }
        };
        for record in self.records.values() {
            add(record.held());
            add_used(&record.used);
        }
        for remains in self.remains.values() {
            add(remains.held.clone());
            add_used(&remains.used);
        }
        let waiters: usize = self.records.values().map(|record| record.waiters.len()).sum();
        if waiters != self.line.len() {
            return Err(format!("records name {waiters} waiters, {} stand in line", self.line.len()));
        }
        self.accounts.audit(&held, &used)
    }
}
