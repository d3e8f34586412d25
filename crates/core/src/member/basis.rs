//! What the units that a gate's asks may use rest on: what the ledger lent, its own share while the ledger is not
//! heard, or nothing at all.

use super::Member;
use crate::gate::Output;
use crate::ids::{ApiId, PodId};
use crate::policy::{Mode, Units};
use crate::shared::Account;
use crate::time::Micros;

/// What a gate does when the ledger is not heard, or lends nothing because it lost its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnLoss {
    /// Nothing new is admitted. The only one that never exceeds a pod.
    #[default]
    Refuse,
    /// It may fill its share of each pod: capacity / the most gates seen within a ttl, at least the heaviest api's
    /// weight; what its leases hold there counts. While the ledger is heard but recovers, a share is used only when
    /// the ledger has written it down.
    Share,
    /// It may fill each pod as if it were alone; the pods' own locks are the guard.
    PodLimit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Basis {
    /// What the ledger lent.
    Ledger,
    /// By itself, as [`OnLoss`] says.
    Emergency,
    /// Its share, as far as a ledger that lends nothing yet has written it down.
    Shares,
    /// Mode `off`: the ledger knows nothing of it.
    Off,
}

/// What is known and decided for the time without a ledger.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss {
    pub(super) on_loss: OnLoss,
    pub(super) basis: Basis,
    /// Without valid credit it admits by itself from here on.
    pub(super) from: Micros,
    /// Most gates seen in this ttl and in the one before, and when this one began.
    gates: (u32, u32),
    since: Micros,
}

impl Loss {
    pub(super) fn new(from: Micros) -> Loss {
        Loss { on_loss: OnLoss::Refuse, basis: Basis::Ledger, from, gates: (1, 1), since: Micros(0) }
    }

    pub(super) fn saw_gates(&mut self, now: Micros, gates: u32, ttl_us: u64) {
        if now.since(self.since) >= ttl_us {
            self.gates.1 = self.gates.0;
            self.gates.0 = 1;
            self.since = now;
        }
        self.gates.0 = self.gates.0.max(gates);
    }

    pub(super) fn most_gates(&self) -> u32 {
        self.gates.0.max(self.gates.1)
    }

    /// One gate's part of `limit`, with room for one ask of `least`.
    fn part(&self, limit: Units, least: Units) -> Units {
        match self.on_loss {
            OnLoss::Refuse => 0,
            OnLoss::Share => (limit / self.most_gates()).max(least.min(limit)),
            OnLoss::PodLimit => limit,
        }
    }
}

impl Member {
    /// What to do while the ledger is not heard. In force from the next call on.
    pub fn set_on_loss(&mut self, on_loss: OnLoss) {
        self.loss.on_loss = on_loss;
    }

    fn wanted_basis(&self, now: Micros) -> Basis {
        if self.gate.mode == Mode::Off {
            return Basis::Off;
        }
        let alone = self.lapsed && now >= self.loss.from;
        let recovering = self.advice.recovering && !self.syncing && !self.lapsed;
        let may = self.gate.mode == Mode::Enforce && self.loss.on_loss != OnLoss::Refuse;
        match self.loss.on_loss {
            OnLoss::Share if may && recovering => Basis::Shares,
            _ if may && (alone || recovering) => Basis::Emergency,
            _ => Basis::Ledger,
        }
    }

    /// Sees to it that the units that asks may use rest on what they should now.
    pub(super) fn stand(&mut self, now: Micros, out: &mut Vec<Output>) {
        let basis = self.wanted_basis(now);
        if basis != self.loss.basis {
            self.rebase(basis);
            self.dispatch(now, out);
        }
    }

    /// Units of the old basis that no lease uses are given up first.
    pub(super) fn rebase(&mut self, basis: Basis) {
        self.counts.emergency += self.granted_by_itself();
        self.granted = self.gate.granted;
        let before = std::mem::replace(&mut self.loss.basis, basis);
        for pod in self.pods() {
            self.gate.ledger.pods.owe_settling(pod);
        }
        if basis == Basis::Shares {
            self.begin_shares(before == Basis::Ledger);
        }
        self.allot_all();
        self.trickle_lent = self.trickled();
        self.note_all();
        self.urgent = true;
        // What completed so far says nothing of what may complete now.
        self.gate.ledger.rates.forget();
        self.look();
    }

    /// What asks may use of each account when nothing was lent: what leases use, and what they may by themselves.
    pub(super) fn allot_all(&mut self) {
        self.pods().into_iter().for_each(|pod| self.allot(pod));
        for api in self.limited() {
            let used = self.gate.ledger.book.apis[api.index()].used as Units;
            let allotted = used.max(self.allotted_api(api));
            self.gate.ledger.book.apis[api.index()].max = Some(allotted);
        }
    }

    fn allot(&mut self, pod: PodId) {
        let busy = self.gate.ledger.pods.busy(pod);
        self.gate.ledger.pods.lend(pod, busy.max(self.allotted(pod)));
    }

    pub(super) fn allotted(&self, pod: PodId) -> Units {
        self.allotted_of(Account::Pod(pod))
    }

    fn allotted_api(&self, api: ApiId) -> Units {
        self.allotted_of(Account::Api(api))
    }

    fn allotted_of(&self, account: Account) -> Units {
        match self.loss.basis {
            Basis::Ledger => 0,
            Basis::Emergency => self.part_of(account),
            Basis::Shares => self.shares.confirmed(account),
            Basis::Off => self.limit_of(account),
        }
    }

    /// What one account has for the whole pool.
    fn limit_of(&self, account: Account) -> Units {
        match account {
            Account::Pod(pod) => self.gate.ledger.pods.get(pod).map_or(0, |pod| pod.rule.capacity),
            Account::Api(api) => {
                let whole = self.gate.whole.as_ref().and_then(|whole| whole.apis[api.index()].max);
                whole.unwrap_or(0)
            }
            Account::Trickle => 0,
        }
    }

    /// What this gate may have of it without being lent it.
    pub(super) fn part_of(&self, account: Account) -> Units {
        let least = match account {
            Account::Api(api) => self.gate.apis[api.index()].rule.weight,
            Account::Pod(_) | Account::Trickle => self.gate.ledger.ranker.heaviest(),
        };
        self.loss.part(self.limit_of(account), least)
    }

    /// The same without room for a heavy ask: those of all gates together are no more than there is.
    pub(super) fn even_part_of(&self, account: Account) -> Units {
        self.limit_of(account) / self.loss.most_gates()
    }

    /// Whether it admits what nobody lent it.
    pub(super) fn is_by_itself(&self) -> bool {
        matches!(self.loss.basis, Basis::Emergency | Basis::Shares)
    }

    /// A lease of a gate that admits by itself is about to end: above its share nothing is used again.
    pub(super) fn free_by_itself(&mut self, pod: PodId, api: ApiId, weight: Units, ran: bool) {
        let beyond = self.lent(pod).saturating_sub(self.allotted(pod));
        self.end_loan(pod, weight.min(beyond), ran);
        if self.kinds[api.index()].limited {
            let allowance = self.allowance(api);
            let beyond = allowance.saturating_sub(self.allotted_api(api));
            self.gate.ledger.book.apis[api.index()].max = Some(allowance - weight.min(beyond));
        }
    }

    /// In `shadow` and `off`, and after a move, leases may hold more of a pod than was lent: then that much is lent.
    pub(super) fn cover(&mut self, pod: PodId) {
        let busy = self.gate.ledger.pods.busy(pod);
        if busy > self.lent(pod) {
            self.gate.ledger.pods.lend(pod, busy);
            self.note(Account::Pod(pod));
            self.urgent |= self.loss.basis == Basis::Ledger;
        }
    }

    /// The same for an api's `max`.
    pub(super) fn cover_api(&mut self, api: ApiId) {
        let used = self.gate.ledger.book.apis[api.index()].used as Units;
        if self.kinds[api.index()].limited && used > self.allowance(api) {
            self.gate.ledger.book.apis[api.index()].max = Some(used);
            self.note(Account::Api(api));
            self.urgent |= self.loss.basis == Basis::Ledger;
        }
    }

    pub(super) fn cover_all(&mut self) {
        self.pods().into_iter().for_each(|pod| self.cover(pod));
        self.limited().into_iter().for_each(|api| self.cover_api(api));
    }

    /// Units that had to settle before they went back have settled.
    pub(super) fn note_returned(&mut self) {
        for pod in self.gate.ledger.pods.take_returned() {
            if self.loss.basis != Basis::Ledger {
                self.allot(pod);
            }
            self.note(Account::Pod(pod));
            self.urgent = true;
        }
    }
}
