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
    /// One of the ledger's keys is gone.
    Evict,
    /// Another server takes over with a state from some time ago, and the old one goes on answering some gates.
    Split {
        /// Those gates: bit n is gate n.
        stay: u32,
        /// Microseconds until the old server's fence stops it.
        fence_us: u64,
    },
    /// The gate goes in good order; another starts in its place.
    Leave {
        /// Which gate.
        gate: usize,
        /// It does not wait for its requests to end.
        at_once: bool,
        /// Microseconds until the other starts.
        back_us: u64,
    },
    /// Other limits: each gate reads them at a moment of its own.
    Reload {
        /// Drives what changes.
        seed: u64,
    },
    /// The ledger server's clock is set.
    Clock {
        /// Microseconds, to either side.
        by_us: i64,
    },
}

impl Fault {
    /// The names of all.
    pub const NAMES: [&str; 12] = [
        "kill", "pause", "cut", "down", "restart", "flush", "evict", "rollback", "split", "leave", "reload",
        "clock",
    ];

    /// The one gate that it strikes; `None` if it strikes the ledger, or all.
    #[must_use]
    pub fn gate(&self) -> Option<usize> {
        match self {
            Fault::Kill { gate, .. }
            | Fault::Pause { gate, .. }
            | Fault::Cut { gate, .. }
            | Fault::Leave { gate, .. } => Some(*gate),
            _ => None,
        }
    }

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
            Fault::Evict => "evict",
            Fault::Split { .. } => "split",
            Fault::Leave { .. } => "leave",
            Fault::Reload { .. } => "reload",
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
        let fault = match random.u32(..14) {
            0 => Fault::Kill { gate, back_us: for_us / 4 },
            1 | 2 => Fault::Pause { gate, for_us },
            3 => Fault::Cut { gate, for_us },
            4 => Fault::Down { for_us: for_us / 2 },
            5 => Fault::Restart,
            6 => Fault::Flush,
            7 => Fault::Evict,
            8 => Fault::Rollback,
            9 | 10 => {
                Fault::Split { stay: random.u32(1..1 << gates), fence_us: random.u64(..=fence_us(ttl_us)) }
            }
            11 => Fault::Leave { gate, at_once: random.bool(), back_us: for_us / 4 },
            12 => Fault::Reload { seed: random.u64(..) },
            _ => Fault::Clock { by_us: random.i64(-10_000_000..10_000_000) },
        };
        faults.push((at, fault));
    }
    faults.sort_by_key(|(at, _)| *at);
    space_out(&mut faults, ttl_us);
    faults
}

/// The longest that an old server may go on beside its successor. Whoever it renewed last may admit for ttl x 4/5, and
/// the successor lends again after ttl x 6/5.
#[must_use]
pub fn fence_us(ttl_us: u64) -> u64 {
    ttl_us * 2 / 5
}

/// The margin of a fifth covers one step of the ledger's clock, and a recovery's two fifths a fence: what uses up a
/// margin comes only when what used it before is over.
fn space_out(faults: &mut Vec<(u64, Fault)>, ttl_us: u64) {
    let mut free_from = 0;
    faults.retain(|(at, fault)| {
        let uses =
            matches!(fault, Fault::Split { .. }) || matches!(fault, Fault::Clock { by_us } if *by_us > 0);
        let stays = !uses || *at >= free_from;
        if uses && stays {
            free_from = at + 4 * ttl_us;
        }
        stays
    });
}
