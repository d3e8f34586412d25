//! The shared ledger's half: what all gates hold, who waits, and who gets what is free.
//!
//! One [`Report`] in, one [`Reply`] out, and the [`Push`]es that it made possible for other gates. Integers and
//! ordered maps only, and every step short, so that a script inside a store can do the same.
//!
//! **Law:** for each account, the sum of what gates hold (said by them, plus lent and not yet acknowledged) is at
//! most its limit; only a limit that was lowered, trickle leases on a pod that bears more, and gates that come back
//! from silence leave it above, and then nothing is lent of it.

mod accounts;
mod lives;
mod serve;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::{ApiId, PodId, Ticket};
use crate::policy::Units;
use crate::shared::{
    Account, GateId, Kept, Lent, Part, Push, Recall, Reply, Report, Rules, Stamp, Terms, Verdict, Waiting,
};
use crate::time::Micros;
use accounts::Accounts;

/// A pod's word about use by others counts for so long.
const OUTSIDE_US: u64 = 1_000_000;
/// Least microseconds between two exchanges of one gate, per gate: at most 10,000 exchanges per second in all.
const GATE_PACE_US: u64 = 100;

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
    /// The terms it obeys; 0: none said yet.
    digest: u64,
    /// Version of the pool's document it obeys.
    version: u64,
    /// Units completed in this epoch, asked for by its waiters, and lent out of the trickle but never used.
    done: u64,
    queued: u64,
    unspent: u64,
    /// Pods that it cannot use now.
    avoid: Vec<PodId>,
    /// The last word to it said that units are scarce.
    warned: bool,
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

    /// What it may still use of an api's `max`, what is on its way included.
    fn spare(&self, api: ApiId) -> Units {
        self.held_of(Account::Api(api)).saturating_sub(self.used.get(&api).copied().unwrap_or(0))
    }

    /// What it may hold of one account, what is on its way included.
    fn held_of(&self, account: Account) -> Units {
        let coming = self.pending.iter().filter(|lent| lent.account == account);
        self.holds.get(&account).copied().unwrap_or(0) + coming.map(|lent| lent.units).sum::<Units>()
    }

    /// Everything it may hold, per account.
    fn held(&self) -> BTreeMap<Account, Units> {
        let mut held = self.holds.clone();
        for lent in &self.pending {
            if lent.units > 0 {
                *held.entry(lent.account).or_default() += lent.units;
            }
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
    /// Units lent by the trickle's tokens.
    pub trickled: u64,
}

/// The shared ledger.
#[derive(Clone, Debug)]
pub struct Keeper {
    rules: Rules,
    accounts: Accounts,
    /// Terms by digest, with the gates that obey them.
    terms: BTreeMap<u64, (usize, Terms)>,
    fair: bool,
    /// Longest time to live that a gate said.
    ttl_us: u64,
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
    /// Terms came into force that leave the pool less than is held of it, and it is still so.
    tight: bool,
    done: u64,
    queued: u64,
    vtime: u64,
    counts: KeeperCounts,
}

impl Keeper {
    /// A ledger without a past: its first exchange begins a life of the state, and nothing is lent until whatever
    /// an earlier one lent has surely ended. Limits and times come with the gates' reports.
    #[must_use]
    pub fn new(rules: Rules) -> Keeper {
        Keeper {
            rules,
            accounts: Accounts::default(),
            terms: BTreeMap::new(),
            fair: false,
            ttl_us: 0,
            version: 0,
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
            tight: false,
            done: 0,
            queued: 0,
            vtime: 0,
            counts: KeeperCounts::default(),
        }
    }

    /// Says that this pool never ran before, so that there is nothing to wait for. Whoever says it of a pool that
    /// did run lends units twice.
    pub fn found(&mut self, incarnation: u64, server: u64) {
        self.incarnation = incarnation;
        self.server = server;
    }

    /// A part of the state was lost (a key evicted): the next exchange begins a new life.
    pub fn lose_key(&mut self) {
        self.incarnation = 0;
    }

    /// The pool's document has another version; gates learn of it with their next reply.
    pub fn set_version(&mut self, version: u64) {
        self.version = version;
    }

    /// Gates that obey this version of the pool's document or a later one.
    #[must_use]
    pub fn acknowledged(&self, version: u64) -> usize {
        self.records.values().filter(|record| record.version >= version).count()
    }

    /// One exchange at the server's time `now`. Words for other gates are appended to `pushes`.
    pub fn exchange(&mut self, now: Micros, report: &Report, pushes: &mut Vec<(GateId, Push)>) -> Reply {
        self.counts.exchanges += 1;
        self.ttl_us = self.ttl_us.max(report.ttl_us);
        self.tick(now);
        self.notice_loss(report);
        self.step += 1;
        self.reap();
        let verdict = self.hear(report);
        if report.leaving && verdict == Verdict::Applied {
            self.end_epoch(report.gate);
        }
        let heard = verdict == Verdict::Applied || !self.rules.numbered;
        if heard && !self.is_recovering() {
            self.serve(report.gate, pushes);
        }
        self.tight &= self.accounts.is_pool_over();
        self.answer(report, verdict)
    }

    /// Whether nothing is lent yet after a loss.
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        self.rules.recovery && self.clock < self.recover_until
    }

    /// Which life of its state this is.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
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

    /// Loans to a gate that it has not yet said to have.
    #[must_use]
    pub fn unheard(&self, gate: GateId) -> usize {
        self.records.get(&gate).map_or(0, |record| record.pending.len())
    }

    /// Lives of silent gates whose units are still kept.
    #[must_use]
    pub fn remains(&self) -> usize {
        self.remains.len()
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
        self.hear_terms(report);
        self.hear_holds(report);
        self.hear_used(report);
        self.hear_rates(report);
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
            if lent.units > 0 {
                *record.holds.entry(lent.account).or_default() += lent.units;
            }
        }
        for (account, units) in report.holds.iter().copied() {
            if matches!(account, Account::Api(_)) && !self.accounts.exists(account) {
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

    fn hear_rates(&mut self, report: &Report) {
        let record = self.records.get_mut(&report.gate).expect("it is being heard");
        self.done += report.done.saturating_sub(record.done);
        self.queued = self.queued + report.queued - record.queued;
        self.vtime = self.vtime.max(report.vtime);
        self.accounts.refund(report.unspent.saturating_sub(record.unspent));
        (record.done, record.queued, record.unspent) = (report.done, report.queued, report.unspent);
        record.version = report.version;
        record.avoid.clone_from(&report.avoid);
        for (pod, in_use) in report.outside.iter().copied() {
            self.accounts.hear_outside(pod, u64::from(in_use), self.clock + OUTSIDE_US);
        }
    }

    /// Who waited before keeps its place: its age says the same as it did. Under `fair` ranks move with what is served.
    fn hear_waiters(&mut self, report: &Report) {
        let record = self.records.get_mut(&report.gate).expect("it is being heard");
        let mut before: BTreeMap<Ticket, Place> =
            record.waiters.drain(..).map(|place| (place.2, place)).collect();
        let base = if self.fair { 0 } else { self.clock.0 as i64 };
        let mut come = Vec::new();
        for waiting in &report.waiters {
            let same = |place: &&Place| self.line.get(*place).is_some_and(|known| known.is_same_ask(waiting));
            let place = match before.get(&waiting.ticket).filter(same).copied() {
                Some(place) if !self.fair => {
                    before.remove(&waiting.ticket);
                    place
                }
                _ => {
                    let place = (base - waiting.age_us, report.gate, waiting.ticket);
                    come.push((place, *waiting));
                    place
                }
            };
            record.waiters.push(place);
        }
        for place in before.values() {
            self.line.remove(place);
        }
        self.line.extend(come);
    }

    fn answer(&self, report: &Report, verdict: Verdict) -> Reply {
        let recovering = self.is_recovering();
        let record = self.records.get(&report.gate);
        let over: BTreeSet<Account> = record.map_or(BTreeSet::new(), |record| {
            let coming = record.pending.iter().filter(|lent| lent.units > 0).map(|lent| lent.account);
            let held = record.holds.keys().copied().chain(coming);
            held.filter(|account| self.accounts.is_over(*account)).collect()
        });
        let pending = record.filter(|record| !record.syncing).map(|record| &record.pending);
        Reply {
            stamp: report.stamp,
            number: report.number,
            verdict,
            step: self.step,
            lent: pending.into_iter().flatten().copied().collect(),
            target: self.target(),
            scarce: self.scarce && !recovering,
            scarce_apis: self.scarce_apis.clone(),
            tight: self.tight,
            recovering,
            recall: record.and_then(|record| record.recall),
            kept: self.kept(),
            over: over.into_iter().take(crate::shared::PART_MAX).collect(),
            pace_us: self.records.len() as u64 * GATE_PACE_US,
            version: self.version,
            gates: self.records.len() as u32,
            done: self.done,
            queued: self.queued,
            vtime: self.vtime,
        }
    }

    fn kept(&self) -> Option<Kept> {
        let claim = self.claim?;
        let base = if self.fair { 0 } else { self.clock.0 as i64 };
        Some(Kept { pod: claim.pod, age_us: base - claim.place.0 })
    }

    /// Checks that every sum equals what the records add up to.
    ///
    /// # Errors
    /// What differs, in words. It never should; the tests ask after each step.
    pub fn audit(&self) -> Result<(), String> {
        let mut held: BTreeMap<Account, u64> = BTreeMap::new();
        let mut used: BTreeMap<ApiId, u64> = BTreeMap::new();
        let mut add_used = |by: &BTreeMap<ApiId, Units>| {
            for (api, units) in by {
                *used.entry(*api).or_default() += u64::from(*units);
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
        let queued: u64 = self.records.values().map(|record| record.queued).sum();
        if queued != self.queued {
            return Err(format!("gates queue {queued} units, kept as {}", self.queued));
        }
        self.accounts.audit(&held, &used)
    }

    /// The whole state, one line for each thing kept, in an order of its own. A script that keeps the same state
    /// writes the same lines.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        self.accounts.describe(&mut lines);
        let (from, until) = (self.recover_from.0, self.recover_until.0);
        lines.push(format!(
            "life {} {} {} {} {}",
            self.incarnation,
            self.step,
            self.epochs,
            u8::from(self.fair),
            u8::from(self.tight)
        ));
        lines.push(format!("clock {} {from} {until} {}", self.clock.0, self.ttl_us));
        lines.push(format!("rates {} {} {}", self.done, self.queued, self.vtime));
        for (digest, (gates, _)) in &self.terms {
            lines.push(format!("terms {digest} {gates}"));
        }
        for (gate, record) in &self.records {
            record.describe(*gate, &mut lines);
        }
        for ((gate, epoch), remains) in &self.remains {
            lines.push(format!("remains {:032x} {epoch} {}", gate.0, remains.due.0));
            describe_units(*epoch, &remains.held, &remains.used, &mut lines);
        }
        for ((rank, gate, ticket), waiting) in &self.line {
            let pin = waiting.pin.map_or(String::new(), |pod| Account::Pod(pod).to_string());
            let (api, weight) = (Account::Api(waiting.api), waiting.weight);
            lines.push(format!("waits {rank} {:032x} {} {weight} {api} {pin}", gate.0, ticket.0));
        }
        if let Some(claim) = self.claim {
            let (rank, gate, ticket) = claim.place;
            let pod = Account::Pod(claim.pod);
            lines.push(format!("claim {rank} {:032x} {} {pod}", gate.0, ticket.0));
        }
        lines.sort_unstable();
        lines
    }
}

impl Record {
    fn describe(&self, gate: GateId, lines: &mut Vec<String>) {
        let Record { epoch, number, last, hold_us, lent, idle, recalls, digest, .. } = self;
        let (syncing, warned) = (u8::from(self.syncing), u8::from(self.warned));
        let recall = self.recall.map_or(0, |recall| recall.number);
        lines.push(format!(
            "gate {:032x} {epoch} {number} {syncing} {} {hold_us} {lent} {idle} {recalls} {recall} {warned} {digest}",
            gate.0, last.0
        ));
        describe_units(*epoch, &self.holds, &self.used, lines);
        for one in &self.pending {
            let waiter = one.waiter.map_or(String::new(), |ticket| ticket.0.to_string());
            let flags = u8::from(one.special) + 2 * u8::from(one.trickle);
            lines.push(format!("lent {epoch} {} {} {} {waiter} {flags}", one.number, one.account, one.units));
        }
    }
}

fn describe_units(
    epoch: u64,
    held: &BTreeMap<Account, Units>,
    used: &BTreeMap<ApiId, Units>,
    lines: &mut Vec<String>,
) {
    lines.extend(held.iter().map(|(account, units)| format!("holds {epoch} {account} {units}")));
    lines.extend(used.iter().map(|(api, units)| format!("uses {epoch} {} {units}", Account::Api(*api))));
}
