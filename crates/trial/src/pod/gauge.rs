//! The pod's own count of its units: one lock, so that `peak` is what truly happened.

use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

/// One reading of a [`Gauge`]; the body of `GET /gauge`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GaugeReading {
    /// Units in use now.
    pub in_use: u32,
    /// Most units in use at one time since the start or the last reset.
    pub peak: u32,
    /// Units the pod bears.
    pub capacity: u32,
    /// Requests that took units and have given them back.
    pub served: u64,
    /// Units that they have given back, all together.
    pub units: u64,
    /// Requests refused by the pod's own lock.
    pub refused: u64,
}

/// A pod's units.
///
/// **Invariant**: `in_use` is the sum of the weights of the live `Units` taken since the last `forget_all`.
#[derive(Debug)]
pub struct Gauge {
    count_only: bool,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    reading: GaugeReading,
    /// Moves when all units are forgotten, so that units of a dead pod are not given back to the one after it.
    epoch: u64,
}

impl Gauge {
    pub(super) fn new(capacity: u32, count_only: bool) -> Self {
        let reading = GaugeReading { capacity, ..GaugeReading::default() };
        Self { count_only, counts: Mutex::new(Counts { reading, epoch: 0 }) }
    }

    /// The counts at one moment.
    #[must_use]
    pub fn read(&self) -> GaugeReading {
        self.counts().reading
    }

    /// Sets `peak` to what is in use, `served`, `units` and `refused` to 0.
    pub fn reset(&self) {
        let reading = &mut self.counts().reading;
        *reading = GaugeReading {
            peak: reading.in_use,
            in_use: reading.in_use,
            capacity: reading.capacity,
            ..GaugeReading::default()
        };
    }

    /// Changes the units the pod bears, for trials of a capacity that moves. What is in use stays, also above it.
    pub fn set_capacity(&self, capacity: u32) {
        self.counts().reading.capacity = capacity;
    }

    /// Takes `weight` units, or counts a refusal and gives None.
    pub(super) fn take(self: &Arc<Self>, weight: u32) -> Option<Units> {
        let mut counts = self.counts();
        let reading = &mut counts.reading;
        let after = reading.in_use.saturating_add(weight);
        if after > reading.capacity && !self.count_only {
            reading.refused += 1;
            return None;
        }
        reading.in_use = after;
        reading.peak = reading.peak.max(after);
        let epoch = counts.epoch;
        Some(Units { gauge: self.clone(), weight, epoch })
    }

    /// The pod died: nothing is in use, and live [`Units`] give nothing back.
    pub(super) fn forget_all(&self) {
        let mut counts = self.counts();
        counts.epoch += 1;
        counts.reading.in_use = 0;
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().expect("no code panics while it holds the counts")
    }
}

/// Units taken; given back by drop, once.
#[derive(Debug)]
pub(super) struct Units {
    gauge: Arc<Gauge>,
    weight: u32,
    epoch: u64,
}

impl Drop for Units {
    fn drop(&mut self) {
        let mut counts = self.gauge.counts();
        if counts.epoch == self.epoch {
            counts.reading.in_use -= self.weight;
            counts.reading.served += 1;
            counts.reading.units += u64::from(self.weight);
        }
    }
}
