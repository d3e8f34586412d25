//! A dense table whose keys go stale: slot in the low half, generation in the high half.
//!
//! A key that was removed names nothing ever after (until 2^32 reuses of one slot), which is what
//! makes a second release, or a release that comes too late, have no effect.

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    /// Generation of slots yet to be made; above that of every slot that was given back.
    base: u32,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Slab<T> {
        Slab { slots: Vec::new(), free: Vec::new(), base: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn insert(&mut self, value: T) -> u64 {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Slot { generation: self.base, value: None });
                (self.slots.len() - 1) as u32
            }
        };
        let entry = &mut self.slots[slot as usize];
        entry.value = Some(value);
        (u64::from(entry.generation) << 32) | u64::from(slot)
    }

    pub(crate) fn get(&self, key: u64) -> Option<&T> {
        let slot = self.slots.get(key as u32 as usize)?;
        if slot.generation != (key >> 32) as u32 {
            return None;
        }
        slot.value.as_ref()
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let slot = self.slots.get_mut(key as u32 as usize)?;
        if slot.generation != (key >> 32) as u32 {
            return None;
        }
        slot.value.as_mut()
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<T> {
        let slot = self.slots.get_mut(key as u32 as usize)?;
        if slot.generation != (key >> 32) as u32 {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key as u32);
        // A burst of waiters must not pin its memory for ever.
        if self.free.len() == self.slots.len() && self.slots.len() > 4096 {
            self.shed();
        }
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.slots.iter().enumerate().filter_map(|(slot, entry)| {
            let key = (u64::from(entry.generation) << 32) | slot as u64;
            entry.value.as_ref().map(|value| (key, value))
        })
    }

    /// Gives memory back when all slots are empty. New slots start at a generation above every old one,
    /// so old keys stay stale.
    fn shed(&mut self) {
        let next = self.slots.iter().map(|slot| slot.generation).max().unwrap_or(0);
        self.slots.truncate(1024);
        self.slots.shrink_to_fit();
        for slot in &mut self.slots {
            slot.generation = next;
        }
        self.free = (0..self.slots.len() as u32).rev().collect();
        self.base = next;
    }
}
