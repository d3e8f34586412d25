//! What an owner asks of a gate of many beside admission: names, health, and how it stands.

use super::{Member, MemberCounts};
use crate::gate::{Gate, Granted, Output};
use crate::ids::{ApiId, PodId};
use crate::member::basis::Basis;
use crate::policy::Units;
use crate::shared::{Account, GateId, PART_MAX, Recall, Stamp};
use crate::snapshot::Snapshot;
use crate::time::Micros;

/// How a gate of many stands with the ledger, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Who it is.
    pub id: GateId,
    /// In which lives of the ledger's state and of its own; zeros before the first answer.
    pub stamp: Stamp,
    /// Credit may be used.
    pub valid: bool,
    /// Credit ended because no exchange was acknowledged in time, or never began.
    pub lapsed: bool,
    /// It is telling the ledger everything anew.
    pub syncing: bool,
    /// The ledger lends nothing yet after a loss.
    pub recovering: bool,
    /// It admits by itself, as [`OnLoss`](super::OnLoss) says.
    pub emergency: bool,
    /// Its mode is `off`: the ledger knows nothing of its leases.
    pub off: bool,
    /// It is leaving, or has left.
    pub leaving: bool,
    /// Gates that live, as the ledger last said; 0 before.
    pub gates: u32,
    /// Most gates seen within a ttl: what a share is one part of.
    pub most_gates: u32,
    /// Least microseconds between its exchanges.
    pub pace_us: u64,
    /// Microseconds since its last report; `None` before the first.
    pub silent_us: Option<u64>,
    /// Microseconds for which credit is still valid.
    pub valid_us: u64,
    /// Units lent that no lease uses.
    pub credit: u64,
    /// Credit that the ledger would have it hold.
    pub target: Units,
    /// Somebody waits for units that nobody has free.
    pub scarce: bool,
    /// The recall that stood last.
    pub recall: Option<Recall>,
    /// The pod that the pool's best unmet waiter claims.
    pub claimed: Option<PodId>,
    /// Version of the pool's document that the owner obeys ([`Member::set_version`]).
    pub version: u64,
    /// The one that the ledger has.
    pub ledger_version: u64,
    /// Names its terms: gates whose files agree have the same.
    pub digest: u64,
    /// Pods that it can use nothing of: unhealthy, draining or gone.
    pub avoided: Vec<PodId>,
    /// Reports sent.
    pub reports: u64,
    /// Those and other work.
    pub counts: MemberCounts,
}

impl Member {
    /// The gate inside, to look at. Its limits are what was lent.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Who it is.
    #[must_use]
    pub fn id(&self) -> GateId {
        self.id
    }

    /// Work done so far.
    #[must_use]
    pub fn counts(&self) -> MemberCounts {
        let emergency = self.counts.emergency + self.granted_by_itself();
        MemberCounts { emergency, ..self.counts }
    }

    /// Whether credit may be used at `now`.
    #[must_use]
    pub fn is_valid(&self, now: Micros) -> bool {
        !self.rules.validity || now < self.valid_until
    }

    /// Units of a pod that it may use, its leases among them.
    #[must_use]
    pub fn lent(&self, pod: PodId) -> Units {
        self.gate.ledger.pods.lent(pod)
    }

    /// How it stands with the ledger.
    #[must_use]
    pub fn view(&self, now: Micros) -> MemberView {
        MemberView {
            id: self.id,
            stamp: self.stamp,
            valid: !self.lapsed && self.is_valid(now),
            lapsed: self.lapsed,
            syncing: self.syncing,
            recovering: self.advice.recovering,
            emergency: self.is_by_itself(),
            off: self.loss.basis == Basis::Off,
            leaving: self.leaving != super::Leaving::Stays,
            gates: self.advice.gates,
            most_gates: self.loss.most_gates(),
            pace_us: self.pace_us,
            silent_us: self.sent.map(|sent| now.since(sent)),
            valid_us: self.valid_until.since(now),
            credit: self.idle(),
            target: self.advice.target,
            scarce: self.advice.scarce,
            recall: self.recall_due(),
            claimed: self.advice.kept.map(|(pod, _)| pod),
            version: self.version,
            ledger_version: self.advice.version,
            digest: self.digest,
            avoided: self.health.shut.iter().copied().collect(),
            reports: self.counts.reports,
            counts: self.counts(),
        }
    }

    /// The owner obeys this version of the pool's document from now on; the ledger hears of it at once.
    pub fn set_version(&mut self, version: u64) {
        self.urgent |= version != self.version;
        self.version = version;
    }

    /// The number of the api of this name.
    #[must_use]
    pub fn api_id(&self, name: &str) -> Option<ApiId> {
        self.gate.api_id(name)
    }

    /// The name of an api.
    #[must_use]
    pub fn api_name(&self, api: ApiId) -> Option<&str> {
        self.gate.api_name(api)
    }

    /// The number of the pod of this name.
    #[must_use]
    pub fn pod_id(&self, name: &str) -> Option<PodId> {
        self.gate.pod_id(name)
    }

    /// The name of a pod.
    #[must_use]
    pub fn pod_name(&self, pod: PodId) -> Option<&str> {
        self.gate.pod_name(pod)
    }

    /// Names of all pods and of all apis ever known here, each in the order of their numbers.
    #[must_use]
    pub fn names(&self) -> (Vec<String>, Vec<String>) {
        let pods = self.gate.ledger.pods.iter().map(|(_, pod)| pod.rule.name.clone());
        let apis = self.gate.apis.iter().map(|api| api.rule.name.clone());
        (pods.collect(), apis.collect())
    }

    /// A copy of what it knows: limits and capacities as declared, use and waiters of this gate.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.gate.snapshot()
    }

    /// The pod for a request that holds nothing, as [`Gate::exempt`].
    pub fn exempt(&mut self, api: ApiId) -> Option<PodId> {
        self.gate.exempt(api)
    }

    /// Counts a request that runs already, as [`Gate::adopt`]. The next report says so to the ledger.
    pub fn adopt(
        &mut self,
        now: Micros,
        (api, pod): (ApiId, PodId),
        weight: Units,
        out: &mut Vec<Output>,
    ) -> Option<Granted> {
        self.pass(now, out);
        let granted = self.gate.adopt(now, (api, pod), weight, out)?;
        self.cover(pod);
        self.cover_api(api);
        Some(granted)
    }

    /// A request was kept for later without having asked.
    pub fn count_enqueued(&mut self, api: ApiId) {
        self.gate.count_enqueued(api);
    }

    /// A request that was admitted failed at its pod.
    pub fn count_failed(&mut self, api: ApiId) {
        self.gate.count_failed(api);
    }

    /// The surface saw a pod's health change. Credit on one that is unhealthy goes back at once, and none is lent here
    /// until it is healthy again.
    pub fn set_ready(&mut self, now: Micros, pod: PodId, ready: bool, out: &mut Vec<Output>) {
        self.pass(now, out);
        self.gate.set_ready(now, pod, ready, out);
        self.see_health();
    }

    /// A pod said that `in_use` units are taken on it by all callers together. The ledger hears it with the next report:
    /// it knows what all gates hold there.
    pub fn report_in_use(&mut self, now: Micros, pod: PodId, in_use: Units, out: &mut Vec<Output>) {
        self.pass(now, out);
        if self.gate.ledger.pods.get(pod).is_some_and(|pod| !pod.gone) {
            self.health.outside.insert(pod, in_use);
        }
    }

    /// Nothing of a pod that takes no asks here is kept.
    pub(super) fn see_health(&mut self) {
        let pods = self.gate.ledger.pods.iter();
        let shut = pods.filter(|(_, pod)| !pod.takes_asks()).map(|(id, _)| id).collect();
        let before = std::mem::replace(&mut self.health.shut, shut);
        self.urgent |= before != self.health.shut;
        if self.loss.basis == Basis::Ledger {
            let shut: Vec<PodId> = self.health.shut.iter().copied().collect();
            shut.into_iter().for_each(|pod| self.shut_off(pod));
        }
    }

    /// Whether nothing of a pod can be used here; true of one that this gate does not know.
    pub(super) fn is_shut(&self, pod: PodId) -> bool {
        self.gate.ledger.pods.get(pod).is_none() || self.health.shut.contains(&pod)
    }

    /// Pods on which nothing should be lent to this gate. Of those that are gone its terms say nothing, which is enough.
    pub(super) fn avoid(&self) -> Vec<PodId> {
        let pods = &self.gate.ledger.pods;
        let stays = |id: &PodId| pods.get(*id).is_some_and(|pod| !pod.gone);
        if self.wants_nothing() {
            return pods.iter().map(|(id, _)| id).filter(stays).collect();
        }
        self.health.shut.iter().copied().filter(stays).collect()
    }

    pub(super) fn take_outside(&mut self) -> Vec<(PodId, Units)> {
        let said: Vec<(PodId, Units)> =
            self.health.outside.iter().take(PART_MAX).map(|(pod, units)| (*pod, *units)).collect();
        self.health.outside.retain(|pod, _| !said.iter().any(|(one, _)| one == pod));
        said
    }

    /// Checks the books of the gate inside, that leases use no more than was lent, and that whatever the ledger does
    /// not know is about to be said.
    ///
    /// # Errors
    /// What differs, in words. It never should; the tests ask after each step.
    pub fn audit(&self) -> Result<(), String> {
        self.gate.audit()?;
        for (id, _) in self.gate.ledger.pods.iter() {
            let busy = self.gate.ledger.pods.busy(id);
            if busy > self.lent(id) {
                return Err(format!("pod {}: {busy} units used or settling, {} lent", id.0, self.lent(id)));
            }
        }
        if self.loss.basis != Basis::Ledger {
            return Ok(());
        }
        let pods = self.pods().into_iter().map(Account::Pod);
        for account in pods.chain(self.limited().into_iter().map(Account::Api)) {
            let (held, known) = (self.held(account), self.known.get(&account).copied().unwrap_or(0));
            if held != known && !self.dirty.contains_key(&account) {
                return Err(format!("{account:?}: {held} units held, the ledger counts {known}"));
            }
        }
        Ok(())
    }
}
