//! Leases of gates that are gone.

use std::time::Instant;

use sluicegate::{ApiId, PodId};

use super::{Adoption, Book, Held, Key, Stage};
use crate::names::Name;
use crate::server::Busy;

impl Book {
    /// True if there is an entry of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.lock().find_mut(name).is_some()
    }

    /// Takes a lease over. Its units do not count here before [`Book::count_adopted`]. `None`: it was given back before. True if it is the first of
    /// its gate to wait for that.
    pub(crate) fn adopt(&self, id: &str, adoption: Adoption) -> Option<bool> {
        let Adoption { gate, api, pod, weight, hold } = adoption;
        let name: Name = id.into();
        // An adopted id is given out as it came, so nobody asks for the api's part of its tag.
        let held =
            Held { api, api_short: 0, lease: None, adopted: Some(weight), pod, hold: Some(hold), line: None };
        let busy = Busy::new(&self.tally);
        let mut state = self.lock();
        if state.has_ended(id) {
            return None;
        }
        if state.find_mut(id).is_some() {
            return Some(false);
        }
        let key = state.insert(name, None, Stage::Held(Box::new(held)), busy);
        let is_first = !state.adopted.contains_key(&gate);
        state.adopted.entry(gate).or_default().push(key.clone());
        self.schedule(state, &key, Some(Instant::now() + hold));
        Some(is_first)
    }

    /// What was adopted of `gate` counts here from now on, if it does not yet.
    pub(crate) fn count_adopted(&self, gate: &str) {
        let keys = self.lock().adopted.get(gate).cloned().unwrap_or_default();
        for key in keys {
            let Some((api, pod, weight)) = self.uncounted(&key) else { continue };
            // The gate's lock is not taken under the book's.
            let mut lease = self.gate.adopt(api, pod, weight);
            let mut state = self.lock();
            if let Some(Stage::Held(held)) = state.entry_mut(&key).map(|entry| &mut entry.stage)
                && held.lease.is_none()
            {
                held.lease = lease.take();
            }
            drop(state);
            // Still there if it was given back or counted meanwhile.
            drop(lease);
        }
    }

    /// The units of `gate` have come back from the ledger: from now on what was adopted of it is this gate's alone.
    pub(crate) fn settle_adopted(&self, gate: &str) {
        self.count_adopted(gate);
        self.lock().adopted.remove(gate);
    }

    fn uncounted(&self, key: &Key) -> Option<(ApiId, PodId, u32)> {
        let mut state = self.lock();
        let Stage::Held(held) = &state.entry_mut(key)?.stage else { return None };
        let weight = held.adopted.filter(|weight| *weight > 0 && held.lease.is_none())?;
        Some((held.api, held.pod.id, weight))
    }

    /// `gate` was only silent: its leases are its own again.
    pub(crate) fn forget_adopted(&self, gate: &str) {
        let mut state = self.lock();
        let keys = state.adopted.remove(gate).unwrap_or_default();
        let entries: Vec<_> = keys.iter().filter_map(|key| state.remove_this(key)).collect();
        drop(state);
        drop(entries);
    }

    /// A lease that is not this gate's was given back: nobody shall adopt it after that.
    pub(crate) fn remember(&self, id: &str) {
        self.lock().remember(id);
    }
}
