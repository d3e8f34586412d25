//! Who gets what is free: waiters of all gates in one order, then credit.

use std::collections::BTreeSet;

use super::{Claim, Keeper, Place, Record};
use crate::ids::{ApiId, PodId};
use crate::policy::Units;
use crate::shared::{Account, GateId, Lent, Push, Recall, Stamp, Waiting};

/// Most pods that one exchange takes credit from.
const CREDIT_PODS_MAX: usize = 64;
/// Most waiters that one exchange looks at.
const LOOK_MAX: usize = 256;

/// Waiters that nobody could serve in one pass.
#[derive(Default)]
struct Unmet {
    /// For want of units on pods or in the pool, best first.
    pods: Vec<(Place, Waiting)>,
    /// For want of their api's `max`.
    apis: Vec<(Place, Waiting)>,
    /// From this weight on nothing more fits anywhere.
    weight: Option<Units>,
    /// A better rank waits for tokens.
    tokens_kept: bool,
}

/// Where a waiter may enter.
struct Found {
    pod: PodId,
    trickle: bool,
}

impl Keeper {
    /// Lends what is free: to waiters by rank, and if none is left unmet to the speaker as credit.
    pub(super) fn serve(&mut self, speaker: GateId, pushes: &mut Vec<(GateId, Push)>) {
        let mut told: BTreeSet<GateId> = BTreeSet::new();
        self.accounts.fill(self.clock);
        let before = self.claim.map(|claim| claim.pod);
        let unmet = self.serve_waiters(speaker, &mut told);
        let was_scarce = std::mem::replace(&mut self.scarce, !unmet.pods.is_empty());
        if self.scarce && !was_scarce && self.rules.recalls {
            // What comes free at a gate that last spoke of none would idle there beside the waiter until it speaks again.
            let unaware = self.records.iter().filter(|(_, record)| !record.warned);
            told.extend(unaware.map(|(gate, _)| *gate));
        }
        let apis: BTreeSet<ApiId> = unmet.apis.iter().map(|(_, waiting)| waiting.api).collect();
        self.scarce_apis = apis.into_iter().collect();
        self.recall(&unmet, &mut told);
        self.give_credit(speaker);
        self.give_allowances(speaker);
        if self.claim.is_some_and(|claim| Some(claim.pod) != before) {
            self.tell_holders(&mut told);
        }
        told.remove(&speaker);
        for gate in &told {
            self.records.get_mut(gate).expect("only gates with a record are told").warned |= self.scarce;
        }
        if let Some(record) = self.records.get_mut(&speaker) {
            record.warned = self.scarce;
        }
        if self.rules.pushes {
            self.push(&told, pushes);
        }
    }

    fn serve_waiters(&mut self, speaker: GateId, told: &mut BTreeSet<GateId>) -> Unmet {
        let before = self.claim.take();
        let mut unmet = Unmet::default();
        let waiters = self.line.iter().take(LOOK_MAX);
        let waiters: Vec<(Place, Waiting)> = waiters.map(|(place, one)| (*place, *one)).collect();
        for (place, waiting) in waiters {
            if self.records[&place.1].is_served(waiting.ticket) {
                continue;
            }
            let account = Account::Api(waiting.api);
            if self.accounts.exists(account) && self.accounts.open(account) < waiting.weight {
                unmet.apis.push((place, waiting));
                continue;
            }
            if let Some(found) = self.find(place.1, &waiting, &mut unmet) {
                self.lend_to_waiter(place.1, &waiting, &found);
                self.counts.across += u64::from(place.1 != speaker);
                told.insert(place.1);
                continue;
            }
            self.stake(place, &waiting, before);
            self.note_hopeless(&waiting, &mut unmet);
            unmet.pods.push((place, waiting));
            if self.is_exhausted(&unmet) {
                break;
            }
        }
        unmet
    }

    /// Nothing is open but what is claimed, and more waiters are known to be unmet than recalls may stand.
    fn is_exhausted(&self, unmet: &Unmet) -> bool {
        let claimed = self.claim.map(|claim| claim.pod);
        unmet.pods.len() >= self.records.len()
            && self.accounts.share == 0
            && self.accounts.widest(|pod| Some(pod) == claimed).is_none()
    }

    /// From some weight on nothing more fits. Guarantees differ between apis, so only the pods' room says it for all.
    fn note_hopeless(&self, waiting: &Waiting, unmet: &mut Unmet) {
        let claimed = self.claim.map(|claim| claim.pod);
        if waiting.pin.is_none()
            && unmet.weight.is_none_or(|weight| waiting.weight < weight)
            && self.accounts.narrowest(waiting.weight, |pod| Some(pod) == claimed).is_none()
        {
            unmet.weight = Some(waiting.weight);
        }
    }

    /// A pod that this gate may not be lent: claimed by a better rank, unusable there, or not in its terms.
    fn is_barred(&self, gate: GateId, pod: PodId) -> bool {
        if self.claim.is_some_and(|claim| claim.pod == pod) {
            return true;
        }
        let record = &self.records[&gate];
        record.avoid.contains(&pod) || (self.terms.len() > 1 && !self.is_listed(record, pod))
    }

    fn is_listed(&self, record: &Record, pod: PodId) -> bool {
        self.terms
            .get(&record.digest)
            .is_some_and(|(_, terms)| terms.pods.iter().any(|(one, ..)| *one == pod))
    }

    /// Conditions 1 and 3, or the trickle, and a better rank's claim.
    fn find(&self, gate: GateId, waiting: &Waiting, unmet: &mut Unmet) -> Option<Found> {
        let hopeless = waiting.pin.is_none() && unmet.weight.is_some_and(|weight| waiting.weight >= weight);
        if self.accounts.pool_has(waiting.api, waiting.weight) {
            let pod = if hopeless { None } else { self.place(gate, waiting) };
            return pod.map(|pod| Found { pod, trickle: false });
        }
        if unmet.tokens_kept || !self.accounts.trickle_bears(waiting.weight) {
            return None;
        }
        let pod = if hopeless { None } else { self.place(gate, waiting) };
        let pod = pod.or_else(|| self.place_burst(gate, waiting))?;
        if !self.accounts.trickle_has(waiting.weight) {
            unmet.tokens_kept = true;
            return None;
        }
        Some(Found { pod, trickle: true })
    }

    fn place(&self, gate: GateId, waiting: &Waiting) -> Option<PodId> {
        let barred = |pod| self.is_barred(gate, pod);
        match waiting.pin {
            Some(pod) => {
                let room = self.accounts.open(Account::Pod(pod)) >= waiting.weight;
                (room && !barred(pod)).then_some(pod)
            }
            None => self.accounts.narrowest(waiting.weight, barred),
        }
    }

    fn place_burst(&self, gate: GateId, waiting: &Waiting) -> Option<PodId> {
        let barred = |pod| self.is_barred(gate, pod);
        match waiting.pin {
            Some(pod) => {
                let room = self.accounts.burst_room(pod) >= u64::from(waiting.weight);
                (room && !barred(pod)).then_some(pod)
            }
            None => self.accounts.widest_burst(waiting.weight, barred),
        }
    }

    /// The best unmet waiter claims a pod, once its turn has come: a rank is an arrival and what its weight may be passed
    /// by. Earlier a claim costs every gate an exchange for each unit that comes free there, and refuses no fewer.
    fn stake(&mut self, place: Place, waiting: &Waiting, before: Option<Claim>) {
        let has_turn = self.fair || place.0 <= self.clock.0 as i64;
        if self.claim.is_some() || !has_turn || !self.rules.claims {
            return;
        }
        let same = before.filter(|claim| (claim.place.1, claim.place.2) == (place.1, place.2));
        let pod = match waiting.pin {
            Some(pod) => Some(pod),
            None => {
                let barred = |pod| self.is_barred(place.1, pod);
                self.accounts.claimable(waiting.weight, same.map(|claim| claim.pod), barred)
            }
        };
        self.claim = pod.map(|pod| Claim { place, pod });
    }

    fn lend_to_waiter(&mut self, gate: GateId, waiting: &Waiting, found: &Found) {
        let Found { pod, trickle } = *found;
        let units = waiting.weight;
        let special = trickle || self.accounts.ordinary() < u64::from(units);
        let lent = |account, waiter| Lent { account, units, number: 0, waiter, special, trickle };
        if self.accounts.exists(Account::Api(waiting.api)) {
            self.lend(gate, lent(Account::Api(waiting.api), None));
        }
        if trickle {
            self.accounts.spend(units);
            self.counts.trickled += u64::from(units);
            self.lend(gate, lent(Account::Trickle, None));
        }
        self.lend(gate, lent(Account::Pod(pod), Some(waiting.ticket)));
    }

    fn lend(&mut self, gate: GateId, lent: Lent) {
        let record = self.records.get_mut(&gate).expect("only gates with a record are lent to");
        record.lent += 1;
        record.pending.push_back(Lent { number: record.lent, ..lent });
        self.accounts.change(lent.account, 0, u64::from(lent.units));
        self.counts.touched += 1;
    }

    /// Asks gates with idle credit for what unmet waiters need: one gate per waiter, one recall per gate.
    fn recall(&mut self, unmet: &Unmet, told: &mut BTreeSet<GateId>) {
        if !self.rules.recalls {
            return;
        }
        let most = self.records.len();
        for (place, waiting) in unmet.pods.iter().take(most) {
            let others = self.records.iter().filter(|(gate, _)| **gate != place.1);
            let able =
                others.filter(|(_, record)| record.recall.is_none() && record.idle > 0 && !record.syncing);
            let Some(gate) = able.max_by_key(|(_, record)| record.idle).map(|(gate, _)| *gate) else {
                continue;
            };
            self.recall_from(gate, waiting.weight, None);
            told.insert(gate);
        }
        for (place, waiting) in unmet.apis.iter().take(most) {
            let others = self.records.iter().filter(|(gate, _)| **gate != place.1);
            let able = others.filter(|(_, record)| record.recall.is_none() && !record.syncing);
            let spare = able.map(|(gate, record)| (record.spare(waiting.api), *gate)).max();
            let Some((_, gate)) = spare.filter(|(units, _)| *units > 0) else { continue };
            self.recall_from(gate, waiting.weight, Some(waiting.api));
            told.insert(gate);
        }
    }

    fn recall_from(&mut self, gate: GateId, units: Units, api: Option<ApiId>) {
        let record = self.records.get_mut(&gate).expect("it was just chosen");
        record.recalls += 1;
        record.recall = Some(Recall { number: record.recalls, units, api });
        if api.is_none() {
            record.idle = record.idle.saturating_sub(units);
        }
        self.counts.recalls += 1;
    }

    /// Credit that each gate should have.
    pub(super) fn target(&self) -> Units {
        if self.scarce {
            return 0;
        }
        (self.accounts.ordinary() / (self.records.len() as u64 + 1)) as Units
    }

    /// Whole pods where possible: scattered single units fit no heavy ask.
    fn give_credit(&mut self, gate: GateId) {
        let target = self.target();
        let Some(record) = self.records.get(&gate) else { return };
        if record.syncing || record.idle >= target {
            return;
        }
        let mut want = u64::from(target - record.idle).min(self.accounts.ordinary()) as Units;
        for _ in 0..CREDIT_PODS_MAX {
            let widest = self.accounts.widest(|pod| self.is_barred(gate, pod));
            let Some((open, pod)) = widest.filter(|_| want > 0) else { return };
            let units = open.min(want);
            let (account, waiter) = (Account::Pod(pod), None);
            self.lend(gate, Lent { account, units, number: 0, waiter, special: false, trickle: false });
            self.records.get_mut(&gate).expect("it was just lent to").idle += units;
            want -= units;
        }
    }

    /// Credit within the apis' `max`.
    fn give_allowances(&mut self, gate: GateId) {
        let gates = self.records.len() as u64 + 1;
        let Some(record) = self.records.get(&gate) else { return };
        if record.syncing || record.pending.iter().any(|lent| matches!(lent.account, Account::Api(_))) {
            return;
        }
        let known = record.used.keys().copied();
        let apis: Vec<ApiId> = known.filter(|api| !self.scarce_apis.contains(api)).collect();
        for api in apis {
            let account = Account::Api(api);
            let target = (u64::from(self.accounts.open(account)) / gates) as Units;
            let spare = self.records[&gate].spare(api);
            if spare < target / 4 {
                let units = target - spare;
                let waiter = None;
                self.lend(gate, Lent { account, units, number: 0, waiter, special: false, trickle: false });
            }
        }
    }

    /// A new claim is told to those who hold units of its pod.
    fn tell_holders(&self, told: &mut BTreeSet<GateId>) {
        let Some(claim) = self.claim else { return };
        let account = Account::Pod(claim.pod);
        let holders = self.records.iter().filter(|(_, record)| record.held_of(account) > 0);
        told.extend(holders.map(|(gate, _)| *gate));
    }

    fn push(&mut self, told: &BTreeSet<GateId>, pushes: &mut Vec<(GateId, Push)>) {
        for gate in told {
            let record = &self.records[gate];
            let push = Push {
                stamp: Stamp { incarnation: self.incarnation, epoch: record.epoch },
                lent: record.pending.iter().copied().collect(),
                recall: record.recall,
                kept: self.kept(),
                scarce: self.scarce,
            };
            pushes.push((*gate, push));
            self.counts.pushes += 1;
        }
    }
}
