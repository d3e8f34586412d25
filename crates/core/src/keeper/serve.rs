//! Who gets what is free: waiters of all gates in one order, then credit.

use std::collections::BTreeSet;

use super::{Claim, Keeper, Place};
use crate::ids::{ApiId, PodId};
use crate::policy::Units;
use crate::shared::{Account, GateId, Lent, Push, Recall, Waiting};

/// Most pods that one exchange takes credit from.
const CREDIT_PODS_MAX: usize = 64;

/// Waiters that nobody could serve in one pass.
#[derive(Default)]
struct Unmet {
    /// For want of units on pods or in the pool, best first.
    pods: Vec<(Place, Waiting)>,
    /// For want of their api's `max`.
    apis: Vec<(Place, Waiting)>,
    /// From this weight on nothing more fits anywhere.
    weight: Option<Units>,
}

impl Keeper {
    /// Lends what is free: to waiters by rank, and if none is left unmet to the speaker as credit.
    pub(super) fn serve(&mut self, speaker: GateId, pushes: &mut Vec<(GateId, Push)>) {
        let mut told: BTreeSet<GateId> = BTreeSet::new();
        let before = self.kept().map(|kept| kept.pod);
        let unmet = self.serve_waiters(speaker, &mut told);
        self.scarce = !unmet.pods.is_empty();
        self.scarce_apis.clear();
        for (_, waiting) in &unmet.apis {
            if !self.scarce_apis.contains(&waiting.api) {
                self.scarce_apis.push(waiting.api);
            }
        }
        self.recall(&unmet, &mut told);
        self.give_credit(speaker);
        self.give_allowances(speaker);
        if self.claim.is_some_and(|claim| Some(claim.pod) != before) {
            self.tell_holders(&mut told);
        }
        if self.rules.pushes {
            self.push(speaker, &told, pushes);
        }
    }

    fn serve_waiters(&mut self, speaker: GateId, told: &mut BTreeSet<GateId>) -> Unmet {
        let before = self.claim.take();
        let mut unmet = Unmet::default();
        if self.line.is_empty() {
            return unmet;
        }
        let waiters: Vec<(Place, Waiting)> = self.line.iter().map(|(place, one)| (*place, *one)).collect();
        for (place, waiting) in waiters {
            let record = &self.records[&place.1];
            if record.is_served(waiting.ticket) {
                continue;
            }
            let account = Account::Api(waiting.api);
            if self.accounts.exists(account) && self.accounts.open(account) < waiting.weight {
                unmet.apis.push((place, waiting));
                continue;
            }
            let hopeless =
                waiting.pin.is_none() && unmet.weight.is_some_and(|weight| waiting.weight >= weight);
            let pod = if hopeless { None } else { self.place(&waiting) };
            let Some(pod) = pod else {
                self.stake(place, &waiting, before);
                if waiting.pin.is_none() {
                    // Guarantees differ between apis, so only the pods' room says this for all.
                    let claimed = self.claim.map(|claim| claim.pod);
                    if self.accounts.narrowest(waiting.weight, claimed).is_none() {
                        unmet.weight = Some(unmet.weight.map_or(waiting.weight, |w| w.min(waiting.weight)));
                    }
                }
                unmet.pods.push((place, waiting));
                continue;
            };
            self.lend_to_waiter(place.1, &waiting, pod);
            if place.1 != speaker {
                self.counts.across += 1;
                told.insert(place.1);
            }
        }
        unmet
    }

    /// Conditions 1 and 3, and a better rank's claim.
    fn place(&self, waiting: &Waiting) -> Option<PodId> {
        if !self.accounts.pool_has(waiting.api, waiting.weight) {
            return None;
        }
        let claimed = self.claim.map(|claim| claim.pod);
        match waiting.pin {
            Some(pod) => {
                let room = self.accounts.open(Account::Pod(pod)) >= waiting.weight;
                (room && Some(pod) != claimed).then_some(pod)
            }
            None => self.accounts.narrowest(waiting.weight, claimed),
        }
    }

    /// The best unmet waiter claims a pod.
    fn stake(&mut self, place: Place, waiting: &Waiting, before: Option<Claim>) {
        if self.claim.is_some() || !self.rules.claims {
            return;
        }
        let same = before.filter(|claim| (claim.place.1, claim.place.2) == (place.1, place.2));
        let pod = match waiting.pin {
            Some(pod) => Some(pod),
            None => self.accounts.claimable(waiting.weight, same.map(|claim| claim.pod)),
        };
        self.claim = pod.map(|pod| Claim { place, pod });
    }

    fn lend_to_waiter(&mut self, gate: GateId, waiting: &Waiting, pod: PodId) {
        let account = Account::Api(waiting.api);
        let special = self.accounts.ordinary() < u64::from(waiting.weight);
        if self.accounts.exists(account) {
            self.lend(
                gate,
                Lent { account, units: waiting.weight, number: 0, waiter: None, special, trickle: false },
            );
        }
        let (account, waiter) = (Account::Pod(pod), Some(waiting.ticket));
        self.lend(gate, Lent { account, units: waiting.weight, number: 0, waiter, special, trickle: false });
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
            let Some(gate) = able.max_by_key(|(_, record)| record.idle).map(|(gate, _)| *gate) else { break };
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
        let free = self.accounts.undistributed().min(self.accounts.ordinary());
        (free / (self.records.len() as u64 + 1)) as Units
    }

    /// Whole pods where possible: scattered single units fit no heavy ask.
    fn give_credit(&mut self, gate: GateId) {
        let target = self.target();
        let record = &self.records[&gate];
        if record.syncing || record.idle >= target {
            return;
        }
        let mut want = u64::from(target - record.idle).min(self.accounts.ordinary()) as Units;
        let claimed = self.claim.map(|claim| claim.pod);
        for _ in 0..CREDIT_PODS_MAX {
            let Some((open, pod)) = self.accounts.widest(claimed).filter(|_| want > 0) else { return };
            let units = open.min(want);
            let account = Account::Pod(pod);
            self.lend(gate, Lent { account, units, number: 0, waiter: None, special: false, trickle: false });
            self.records.get_mut(&gate).expect("it was just lent to").idle += units;
            want -= units;
        }
    }

    /// Credit within the apis' `max`.
    fn give_allowances(&mut self, gate: GateId) {
        let gates = self.records.len() as u64 + 1;
        let record = &self.records[&gate];
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
                self.lend(
                    gate,
                    Lent { account, units, number: 0, waiter: None, special: false, trickle: false },
                );
            }
        }
    }

    /// A new claim is told to those who hold units of its pod.
    fn tell_holders(&self, told: &mut BTreeSet<GateId>) {
        let Some(claim) = self.claim else { return };
        let account = Account::Pod(claim.pod);
        let holds = |record: &super::Record| record.holds.get(&account).is_some_and(|units| *units > 0);
        told.extend(self.records.iter().filter(|(_, record)| holds(record)).map(|(gate, _)| *gate));
    }

    fn push(&mut self, speaker: GateId, told: &BTreeSet<GateId>, pushes: &mut Vec<(GateId, Push)>) {
        for gate in told.iter().filter(|gate| **gate != speaker) {
            let record = &self.records[gate];
            let push = Push {
                stamp: crate::shared::Stamp { incarnation: self.incarnation, epoch: record.epoch },
                lent: record.pending.iter().copied().collect(),
                recall: record.recall,
                kept: self.kept(),
            };
            pushes.push((*gate, push));
            self.counts.pushes += 1;
        }
    }
}
