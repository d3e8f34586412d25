//! The only place of the library that reads a clock.

use std::time::Instant;

use sluicegate_core::time::Micros;

/// Microseconds since an origin that never changes while the gate lives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clock {
    /// For a gate alone: since the gate was made.
    Since(Instant),
    /// For a gate among many: since the machine was started, times of suspend included. What a ledger lent
    /// ends on a machine that sleeps, too.
    Boot,
}

impl Clock {
    #[allow(clippy::disallowed_methods)] // the one place
    pub(crate) fn start() -> Clock {
        Clock::Since(Instant::now())
    }

    #[inline]
    pub(crate) fn now(&self) -> Micros {
        match self {
            Clock::Since(origin) => {
                let elapsed = origin.elapsed();
                Micros(elapsed.as_secs() * 1_000_000 + u64::from(elapsed.subsec_micros()))
            }
            Clock::Boot => since_boot(),
        }
    }
}

#[cfg(unix)]
fn since_boot() -> Micros {
    use rustix::time::{ClockId, clock_gettime};
    // Elsewhere than on Linux the monotonic clock is the nearest there is.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: ClockId = ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let now = clock_gettime(CLOCK);
    // Neither is ever negative.
    Micros(now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000)
}

#[cfg(not(unix))]
fn since_boot() -> Micros {
    static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    #[allow(clippy::disallowed_methods)] // the one place
    let elapsed = ORIGIN.get_or_init(Instant::now).elapsed();
    Micros(u64::try_from(elapsed.as_micros()).expect("half a million years are not over"))
}
