//! A gate's share while a ledger that lost its state lends nothing yet, but hears and writes down what gates say.
//!
//! With [`OnLoss::Share`](super::OnLoss::Share) a gate says that it holds a part of each pod, and uses it once the ledger has
//! written that down and no more is held there than the pod has. So whatever gates that are heard use is counted, also
//! where they do not agree yet how many they are, and also when the ledger lends again. Whoever asks too much is told that
//! the account is over, and asks for half; whoever holds more than its share of such an account lets go what comes free.

use std::collections::BTreeMap;

use super::Member;
use crate::member::basis::Basis;
use crate::policy::Units;
use crate::shared::{Account, PART_MAX};
use crate::time::Micros;

/// One account's share.
#[derive(Clone, Copy, Debug, Default)]
struct Claim {
    /// The ledger wrote it down and had room: it may be used.
    confirmed: Units,
    /// What the last report said: that, or more.
    asked: Units,
    /// So much more is asked for at once; `None`: all that is left of the share.
    step: Option<Units>,
    /// Answers one after the other that found the account over its limit.
    over: u32,
}

/// Others ask too much for a few answers at most. An account that is over for longer had its limit lowered, and then even
/// the room for one heavy ask at each gate may be too much together.
const OVER_LONG: u32 = 8;
/// And then even parts are.
const OVER_AGAIN: u32 = 16;

/// Shares of all accounts.
#[derive(Clone, Debug)]
pub(super) struct Shares {
    claims: BTreeMap<Account, Claim>,
    /// Nothing is asked for before: gates that still hold what an earlier life lent must have said so.
    pub(super) from: Micros,
}

impl Shares {
    pub(super) fn new(from: Micros) -> Shares {
        Shares { claims: BTreeMap::new(), from }
    }

    /// What may be used.
    pub(super) fn confirmed(&self, account: Account) -> Units {
        self.claims.get(&account).map_or(0, |claim| claim.confirmed)
    }

    /// What the ledger is told.
    pub(super) fn asked(&self, account: Account) -> Units {
        self.claims.get(&account).map_or(0, |claim| claim.asked)
    }
}

impl Member {
    /// The ledger knows of what is held now, and of nothing else.
    pub(super) fn begin_shares(&mut self, known: bool) {
        let held = |account| match account {
            Account::Pod(pod) if known => self.lent(pod),
            Account::Api(api) if known => self.allowance(api),
            account => self.used_of(account),
        };
        let accounts = self.shared_accounts();
        let claims = accounts.into_iter().map(|account| {
            let confirmed = held(account);
            (account, Claim { confirmed, asked: confirmed, ..Claim::default() })
        });
        self.shares.claims = claims.collect();
    }

    fn shared_accounts(&self) -> Vec<Account> {
        let pods = self.pods().into_iter().map(Account::Pod);
        pods.chain(self.limited().into_iter().map(Account::Api)).collect()
    }

    /// What leases hold of it.
    fn used_of(&self, account: Account) -> Units {
        match account {
            Account::Pod(pod) => self.gate.ledger.pods.busy(pod),
            Account::Api(api) => self.gate.ledger.book.apis[api.index()].used as Units,
            Account::Trickle => 0,
        }
    }

    /// What the report that is being written asks for. What is said is what is used from here on.
    pub(super) fn ask_shares(&mut self, now: Micros) {
        if self.loss.basis != Basis::Shares {
            return;
        }
        for account in self.shared_accounts() {
            let used = self.used_of(account);
            let may_ask = now >= self.shares.from;
            let over = self.shares.claims.get(&account).map_or(0, |claim| claim.over);
            let share = match over {
                _ if self.takes_nothing(account) => 0,
                ..OVER_LONG => self.part_of(account),
                OVER_LONG.. => self.even_part_of(account),
            };
            let claim = self.shares.claims.entry(account).or_default();
            // A share that became smaller is given up at once.
            claim.confirmed = claim.confirmed.min(share.max(used));
            let left = if may_ask { share.saturating_sub(claim.confirmed) } else { 0 };
            claim.asked = claim.confirmed + claim.step.map_or(left, |step| step.min(left));
        }
        self.allot_all();
    }

    /// Units that are about to come free are nobody's: a pod may bear them by its burst alone.
    pub(super) fn forget_share(&mut self, account: Account, units: Units) {
        if let Some(claim) = self.shares.claims.get_mut(&account) {
            claim.confirmed = claim.confirmed.saturating_sub(units);
            claim.asked = claim.asked.saturating_sub(units).max(claim.confirmed);
        }
    }

    /// A pod that takes nothing new from this gate.
    fn takes_nothing(&self, account: Account) -> bool {
        let Account::Pod(pod) = account else { return false };
        self.is_shut(pod) || self.gate.ledger.pods.get(pod).is_some_and(|pod| pod.rule.draining)
    }

    /// The ledger has written down what was asked for, and said where more is held than there is.
    pub(super) fn hear_shares(&mut self) {
        // A list that is full may leave out others.
        let is_whole = self.advice.over.len() < PART_MAX;
        let mut shares = std::mem::take(&mut self.shares.claims);
        for (account, claim) in &mut shares {
            let over = self.advice.over.contains(account);
            if !over && !is_whole {
                continue;
            }
            let more = claim.asked - claim.confirmed;
            claim.over = if over { claim.over + 1 } else { 0 };
            if over {
                let most = match claim.over {
                    ..OVER_LONG => self.part_of(*account),
                    OVER_LONG..OVER_AGAIN => self.even_part_of(*account),
                    // Somebody's rules leave less than ours do.
                    OVER_AGAIN.. => self.used_of(*account),
                };
                claim.confirmed = claim.confirmed.min(most);
                // After the last half nothing is asked for once, then all that is left.
                claim.step = (more > 0).then_some(more / 2);
            } else {
                claim.confirmed += more;
                claim.step = None;
            }
        }
        self.shares.claims = shares;
    }
}
