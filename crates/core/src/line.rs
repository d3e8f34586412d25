//! The waiting asks, by class.
//!
//! Asks of one class (same api, weight, pin and fairness key) meet the same conditions, so only the best
//! of each class need be looked at, and units ahead of a rank are a sum over few classes.

use std::collections::{BTreeMap, VecDeque};

use crate::exchange::{Place, Request};
use crate::ids::{ApiId, PodId, Ticket};
use crate::policy::Units;
use crate::rank::{Rank, Ranker, TAG};
use crate::slab::Slab;

/// Numbers of asks that wait for the first time begin here, above those that came back.
const SEQ_FRESH: u64 = 1 << 48;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClassKey {
    pub(crate) api: ApiId,
    pub(crate) weight: Units,
    pub(crate) pin: Option<PodId>,
    /// The fairness key; 0 unless the order is `fair`.
    pub(crate) key: u64,
    /// Ranks behind its arrival. A class of its own, so that a backlog is not walked by each ask that goes before it.
    pub(crate) background: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    pub(crate) request: Request,
    pub(crate) rank: Rank,
}

/// **Invariant:** `entries` is sorted by rank; its first and last entries are live; `live` counts the
/// entries whose ticket is still in the slab.
#[derive(Debug, Default)]
struct Class {
    entries: VecDeque<(Rank, Ticket)>,
    live: usize,
}

/// The best waiter of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Head {
    pub(crate) rank: Rank,
    pub(crate) ticket: Ticket,
}

#[derive(Debug)]
pub(crate) struct Line {
    waiters: Slab<Waiter>,
    /// Non-empty classes only.
    classes: BTreeMap<ClassKey, Class>,
    seq: u64,
    /// The same for asks that come back from a pod: they go first among equals, as they did before.
    seq_again: u64,
    /// Units asked for by waiters in the foreground, and by those in the background.
    units: [u64; 2],
}

impl Line {
    pub(crate) fn new() -> Line {
        Line { waiters: Slab::new(), classes: BTreeMap::new(), seq: SEQ_FRESH, seq_again: 0, units: [0; 2] }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.len() == 0
    }

    /// Units asked for by all waiters.
    pub(crate) fn units(&self) -> u64 {
        self.units.iter().sum()
    }

    /// Units asked for by waiters in the foreground: what background work asks for stands in nobody's way.
    pub(crate) fn units_in_front(&self) -> u64 {
        self.units[0]
    }

    /// Units that are queued as `request` sees it.
    pub(crate) fn units_around(&self, request: &Request) -> u64 {
        if request.behind_us > 0 { self.units() } else { self.units[0] }
    }

    pub(crate) fn get(&self, ticket: Ticket) -> Option<&Waiter> {
        self.waiters.get(ticket.0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ticket, &Waiter)> {
        self.waiters.iter().map(|(key, waiter)| (Ticket(key), waiter))
    }

    /// The rank of an ask that arrives now: behind all that have the same number.
    pub(crate) fn rank_of_newcomer(&self, request: &Request, ranker: &Ranker) -> Rank {
        let value = if ranker.is_fair() { ranker.start_tag(request.key) } else { ranker.value(request) };
        Rank { value, seq: if request.again { SEQ_FRESH - 1 } else { u64::MAX } }
    }

    pub(crate) fn enter(&mut self, request: Request, ranker: &Ranker) -> Ticket {
        let seq = if request.again { &mut self.seq_again } else { &mut self.seq };
        let rank = Rank { value: ranker.value(&request), seq: *seq };
        *seq += 1;
        let ticket = Ticket(self.waiters.insert(Waiter { request, rank }));
        self.units[usize::from(request.behind_us > 0)] += u64::from(request.weight);
        let class = self.classes.entry(class_of(&request, ranker)).or_default();
        class.live += 1;
        let at = match class.entries.back() {
            Some((last, _)) if *last > rank => class.entries.partition_point(|(other, _)| *other < rank),
            _ => class.entries.len(),
        };
        class.entries.insert(at, (rank, ticket));
        ticket
    }

    pub(crate) fn leave(&mut self, ticket: Ticket, ranker: &Ranker) -> Option<Waiter> {
        let waiter = self.waiters.remove(ticket.0)?;
        self.units[usize::from(waiter.request.behind_us > 0)] -= u64::from(waiter.request.weight);
        let key = class_of(&waiter.request, ranker);
        let class = self.classes.get_mut(&key).expect("a waiter's class exists");
        class.live -= 1;
        if class.live == 0 {
            self.classes.remove(&key);
            return Some(waiter);
        }
        let waiters = &self.waiters;
        let dead = |entry: Option<&(Rank, Ticket)>| entry.is_some_and(|(_, t)| waiters.get(t.0).is_none());
        while dead(class.entries.front()) {
            class.entries.pop_front();
        }
        while dead(class.entries.back()) {
            class.entries.pop_back();
        }
        // Leavers in the middle stay as gaps until they are an eighth: removing each at once would move
        // half the queue each time when a crowd of clients goes.
        if class.entries.len() - class.live > 64 + class.live / 8 {
            class.entries.retain(|(_, ticket)| waiters.get(ticket.0).is_some());
        }
        Some(waiter)
    }

    /// The best waiter of each class, best first.
    pub(crate) fn heads(&self, ranker: &Ranker, heads: &mut Vec<Head>) {
        heads.clear();
        heads.extend(self.heads_by_class(ranker).map(|(head, _)| head));
        heads.sort_unstable();
    }

    /// How many classes wait.
    pub(crate) fn classes(&self) -> usize {
        self.classes.len()
    }

    /// The best waiter of each class, by class.
    pub(crate) fn heads_by_class<'a>(
        &'a self,
        ranker: &'a Ranker,
    ) -> impl Iterator<Item = (Head, &'a ClassKey)> {
        self.classes.iter().map(|(key, class)| {
            let (mut rank, ticket) = *class.entries.front().expect("classes are not empty");
            if ranker.is_fair() {
                rank.value = ranker.start_tag(key.key);
            }
            (Head { rank, ticket }, key)
        })
    }

    /// The best of each class first, then others by rank, `most` together: rank numbers and tickets.
    pub(crate) fn best(&self, ranker: &Ranker, most: usize) -> Vec<(u64, Ticket)> {
        let mut best = Vec::new();
        self.heads(ranker, &mut best);
        best.truncate(most);
        let live = |(_, ticket): &&(Rank, Ticket)| self.get(*ticket).is_some();
        let behind = |class: &'_ Class| -> Vec<Head> {
            let entries = class.entries.iter().filter(live).skip(1).take(most);
            entries.map(|(rank, ticket)| Head { rank: *rank, ticket: *ticket }).collect()
        };
        let mut others: Vec<Head> = self.classes.values().flat_map(behind).collect();
        others.sort_unstable();
        others.truncate(most - best.len());
        best.extend(others);
        best.into_iter().map(|head| (head.rank.value, head.ticket)).collect()
    }

    /// What [`Line::worst`] compares a newcomer by, when there is no more room to wait. Under `fair` the key
    /// that has queued most goes last.
    pub(crate) fn tail_rank_of_newcomer(&self, request: &Request, ranker: &Ranker) -> Rank {
        let mut rank = self.rank_of_newcomer(request, ranker);
        if ranker.is_fair() {
            let queued = self.classes.get(&class_of(request, ranker)).map_or(0, |class| class.live as u64);
            rank.value += (queued + 1) * u64::from(request.weight) * TAG;
        }
        rank
    }

    /// The waiter who goes last of all.
    pub(crate) fn worst(&self, ranker: &Ranker) -> Option<Head> {
        let tail = |(key, class): (&ClassKey, &Class)| {
            let (mut rank, ticket) = *class.entries.back().expect("classes are not empty");
            if ranker.is_fair() {
                rank.value = ranker.start_tag(key.key) + class.live as u64 * u64::from(key.weight) * TAG;
            }
            Head { rank, ticket }
        };
        self.classes.iter().map(tail).max()
    }

    /// Units asked for by waiters that rank before `rank`, in the classes that `counts` admits.
    pub(crate) fn units_ahead(
        &self,
        request: &Request,
        rank: Rank,
        ranker: &Ranker,
        counts: impl Fn(&ClassKey) -> bool,
    ) -> u64 {
        let classes = self.classes.iter().filter(|(key, _)| counts(key));
        if ranker.is_fair() {
            // Each other key goes ahead of this one at most as far as this one has units queued.
            let queued = |(key, class): (&ClassKey, &Class)| class.live as u64 * u64::from(key.weight);
            let own: u64 = classes.clone().filter(|(key, _)| key.key == request.key).map(queued).sum();
            let others = classes.filter(|(key, _)| key.key != request.key).map(queued);
            return own + others.map(|units| units.min(own + u64::from(request.weight))).sum::<u64>();
        }
        classes
            .map(|(key, class)| {
                let before = class.entries.partition_point(|(other, _)| *other < rank);
                before.min(class.live) as u64 * u64::from(key.weight)
            })
            .sum()
    }

    /// All waiters in order of entry, to be placed again under other rules by [`Line::rebuild`].
    pub(crate) fn in_order(&self) -> Vec<(Ticket, Request)> {
        let mut all: Vec<(Rank, Ticket, Request)> =
            self.iter().map(|(ticket, waiter)| (waiter.rank, ticket, waiter.request)).collect();
        all.sort_by_key(|(rank, _, _)| rank.seq);
        all.into_iter().map(|(_, ticket, request)| (ticket, request)).collect()
    }

    /// Puts the same tickets back with changed requests.
    pub(crate) fn rebuild(&mut self, requests: &[(Ticket, Request)], ranker: &Ranker) {
        self.classes.clear();
        self.units = [0; 2];
        for (ticket, request) in requests {
            let waiter = self.waiters.get_mut(ticket.0).expect("its ticket was just read");
            waiter.request = *request;
            waiter.rank.value = ranker.value(request);
            let rank = waiter.rank;
            self.units[usize::from(request.behind_us > 0)] += u64::from(request.weight);
            let class = self.classes.entry(class_of(request, ranker)).or_default();
            class.live += 1;
            let at = class.entries.partition_point(|(other, _)| *other < rank);
            class.entries.insert(at, (rank, *ticket));
        }
    }

    /// Recomputes what is kept incrementally.
    pub(crate) fn audit(&self) -> Result<(), String> {
        let mut units = [0u64; 2];
        for (_, Waiter { request, .. }) in self.iter() {
            units[usize::from(request.behind_us > 0)] += u64::from(request.weight);
        }
        if units != self.units {
            return Err(format!("waiters ask {units:?} units, kept as {:?}", self.units));
        }
        let live: usize = self.classes.values().map(|class| class.live).sum();
        if live != self.waiters.len() {
            return Err(format!("{} wait, the classes count {live}", self.waiters.len()));
        }
        for class in self.classes.values() {
            if !class.entries.iter().is_sorted() {
                return Err("a class is out of order".to_owned());
            }
            let ends = [class.entries.front(), class.entries.back()];
            if ends.iter().any(|end| end.is_none_or(|(_, ticket)| self.get(*ticket).is_none())) {
                return Err("a class begins or ends with a leaver".to_owned());
            }
        }
        Ok(())
    }
}

fn class_of(request: &Request, ranker: &Ranker) -> ClassKey {
    let pin = match request.place {
        Place::Pin(pod) => Some(pod),
        Place::Any | Place::Prefer(_) => None,
    };
    let key = if ranker.is_fair() { request.key } else { 0 };
    ClassKey { api: request.api, weight: request.weight, pin, key, background: request.behind_us > 0 }
}
