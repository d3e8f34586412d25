//! What goes wrong in a shared pool, and schedules of it with a seed.

use fastrand::Rng;

/// One thing that goes wrong. Each heals by itself, so that a run can end in quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The gate's process ends; what it admitted runs on. Another starts in its place.
    Kill {
        /// Which gate.
        gate: usize,
        /// Microseconds until the other starts.
        back_us: u64,
    },
    /// The gate's process stands still; its sockets fill.
    Pause {
        /// Which gate.
        gate: usize,
        /// Microseconds.
        for_us: u64,
    },
    /// Nothing passes between the gate and the ledger.
    Cut {
        /// Which gate.
        gate: usize,
        /// Microseconds.
        for_us: u64,
    },
    /// The ledger answers nobody.
    Down {
        /// Microseconds.
        for_us: u64,
    },
    /// The ledger's server starts again and has forgotten everything.
    Restart,
    /// The ledger's state is deleted under it; connections stay.
    Flush,
    /// Another server takes over, with a state from some time ago.
    Rollback,
    /// The ledger server's clock is set.
    Clock {
        /// Microseconds, to either side.
        by_us: i64,
    },
}

impl Fault {
    /// Its name, for counting.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Kill { .. } => "kill",
            Fault::Pause { .. } => "pause",
            Fault::Cut { .. } => "cut",
            Fault::Down { .. } => "down",
            Fault::Restart => "restart",
            Fault::Flush => "flush",
            Fault::Rollback => "rollback",
            Fault::Clock { .. } => "clock",
        }
    }
}

/// `count` faults at times up to `span_us`, for `gates` gates and a ledger with this time to live. The same seed gives
/// the same schedule.
#[must_use]
pub fn schedule(seed: u64, count: usize, span_us: u64, gates: usize, ttl_us: u64) -> Vec<(u64, Fault)> {
    let mut random = Rng::with_seed(seed ^ 0xfa17);
    let mut faults: Vec<(u64, Fault)> = Vec::new();
    for _ in 0..count {
        let at = span_us / 20 + random.u64(..span_us * 9 / 10);
        let gate = random.usize(..gates);
        // From a moment to well beyond the time to live.
        let for_us = random.u64(1_000..ttl_us * 3);
        let fault = match random.u32(..9) {
            0 => Fault::Kill { gate, back_us: for_us / 4 },
            1 | 2 => Fault::Pause { gate, for_us },
            3 => Fault::Cut { gate, for_us },
            4 => Fault::Down { for_us: for_us / 2 },
            5 => Fault::Restart,
            6 => Fault::Flush,
            7 => Fault::Rollback,
            // One step of the clock within what the margin covers, or far back.
            _ => Fault::Clock { by_us: random.i64(-10_000_000..10_000_000) },
        };
        faults.push((at, fault));
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}
