//! Words for the log that are worth one line a minute, not one for each request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(60);

/// Says when it is time to say it again.
#[derive(Debug)]
pub(crate) struct Loud {
    start: Instant,
    /// Milliseconds after `start` from which on it may be said; an atomic because every stream asks.
    next_ms: AtomicU64,
}

impl Loud {
    pub(crate) fn new() -> Loud {
        Loud { start: Instant::now(), next_ms: AtomicU64::new(0) }
    }

    /// True at most once a minute.
    pub(crate) fn is_time(&self) -> bool {
        let now_ms = millis(self.start.elapsed());
        let next_ms = self.next_ms.load(Ordering::Relaxed);
        let after = now_ms + millis(EVERY);
        now_ms >= next_ms
            && self.next_ms.compare_exchange(next_ms, after, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
