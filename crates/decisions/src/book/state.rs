//! The tables of the book, which its lock protects.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::{Key, Parked, ParkedByName, Stage};
use crate::http::input::LeaseRequest;
use crate::names::{Name, is_drawn};
use crate::server::Busy;

/// How long an ended name is remembered: longer than a request may be under way.
const REMEMBER: Duration = Duration::from_secs(60);
/// Names remembered; the oldest go first.
const REMEMBERED_MAX: usize = 65_536;
/// How long the place in the line of a request that its pod did not run is kept for its caller.
pub(super) const PARK: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct State {
    entries: HashMap<Name, Entry>,
    /// What the reaper must look at, and when. By serial, because two may be due at once.
    due: BTreeMap<(Instant, u64), Name>,
    ended: HashMap<Name, Instant>,
    /// The same in order of time.
    ended_order: VecDeque<(Instant, Name)>,
    pub(super) parked: ParkedByName,
    /// Leases of gates that are gone and whose units have not come back.
    pub(super) adopted: HashMap<String, Vec<Key>>,
    next_serial: u64,
}

pub(super) struct Entry {
    /// Tells this entry from a later one of the same name.
    pub(super) serial: u64,
    /// What was asked for; `None` for a name that was drawn.
    pub(super) wording: Option<LeaseRequest>,
    pub(super) stage: Stage,
    /// When its hold passes.
    pub(super) due: Option<Instant>,
    /// Callers that wait for it or are being told of it; only counted with a chosen name.
    pub(super) telling: u32,
    /// Somebody knows of it. Only with a chosen name.
    pub(super) told: bool,
    /// A drain waits for it.
    _busy: Busy,
}

impl State {
    pub(super) fn insert(
        &mut self,
        name: Name,
        wording: Option<LeaseRequest>,
        stage: Stage,
        busy: Busy,
    ) -> Key {
        let serial = self.next_serial;
        self.next_serial += 1;
        let entry = Entry { serial, wording, stage, due: None, telling: 0, told: false, _busy: busy };
        self.entries.insert(name.clone(), entry);
        Key { name, serial }
    }

    pub(super) fn entry_named_mut(&mut self, name: &Name) -> Option<&mut Entry> {
        self.entries.get_mut(name)
    }

    pub(super) fn find_mut(&mut self, name: &str) -> Option<(Name, &mut Entry)> {
        let name = self.entries.get_key_value(name)?.0.clone();
        let entry = self.entries.get_mut(&name)?;
        Some((name, entry))
    }

    pub(super) fn entry_mut(&mut self, key: &Key) -> Option<&mut Entry> {
        self.entries.get_mut(&key.name).filter(|entry| entry.serial == key.serial)
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Entry> {
        let entry = self.entries.remove(name)?;
        if let Some(due) = entry.due {
            self.due.remove(&(due, entry.serial));
        }
        Some(entry)
    }

    pub(super) fn remove_this(&mut self, key: &Key) -> Option<Entry> {
        self.entry_mut(key)?;
        self.remove(&key.name)
    }

    /// True if the reaper has to be told.
    pub(super) fn schedule(&mut self, key: &Key, until: Option<Instant>) -> bool {
        let first = self.due.first_key_value().map(|((at, _), _)| *at);
        let Some(entry) = self.entries.get_mut(&key.name).filter(|entry| entry.serial == key.serial) else {
            return false;
        };
        let before = std::mem::replace(&mut entry.due, until);
        if let Some(before) = before {
            self.due.remove(&(before, key.serial));
        }
        let Some(until) = until else { return false };
        self.due.insert((until, key.serial), key.name.clone());
        first.is_none_or(|first| until < first)
    }

    /// Takes out one entry whose hold has passed.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<(Name, Entry)> {
        let (_, name) = self.due.first_key_value().filter(|((at, _), _)| *at <= now)?;
        let name = name.clone();
        let entry =
            self.remove(&name).expect("what is due is in the book until it is removed with its due time");
        if !is_drawn(&name) {
            self.remember(&name);
        }
        Some((name, entry))
    }

    /// Keeps an ask for its caller; answers until when.
    pub(super) fn park(&mut self, former: &str, parked: Parked) -> Option<Instant> {
        let until = Instant::now() + PARK;
        self.parked.insert(former.into(), (parked, until));
        Some(until)
    }

    /// Parked asks that nobody came for, to be dropped with the lock open.
    pub(super) fn unclaimed(&mut self, now: Instant) -> Vec<(Name, (Parked, Instant))> {
        if self.parked.is_empty() {
            return Vec::new();
        }
        self.parked.extract_if(|_, (_, until)| *until <= now).collect()
    }

    /// When the reaper has to look again.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let due = self.due.first_key_value().map(|((at, _), _)| *at);
        let parked = self.parked.values().map(|(_, until)| *until).min();
        due.into_iter().chain(parked).min()
    }

    pub(super) fn has_ended(&mut self, name: &str) -> bool {
        self.forget(Instant::now());
        self.ended.contains_key(name)
    }

    pub(super) fn remember(&mut self, name: &str) {
        let now = Instant::now();
        self.forget(now);
        if !self.ended.contains_key(name) {
            let name: Name = name.into();
            self.ended.insert(name.clone(), now);
            self.ended_order.push_back((now, name));
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, _)) = self.ended_order.front() {
            if self.ended_order.len() < REMEMBERED_MAX && now.duration_since(*at) < REMEMBER {
                return;
            }
            if let Some((_, name)) = self.ended_order.pop_front() {
                self.ended.remove(&name);
            }
        }
    }
}
