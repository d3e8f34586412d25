//! The only place of the library that reads a clock.

use std::time::Instant;

use sluicegate_core::time::Micros;

/// Microseconds since the gate was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    #[allow(clippy::disallowed_methods)] // the one place
    pub(crate) fn start() -> Clock {
        Clock { origin: Instant::now() }
    }

    #[inline]
    pub(crate) fn now(&self) -> Micros {
        let elapsed = self.origin.elapsed();
        Micros(elapsed.as_secs() * 1_000_000 + u64::from(elapsed.subsec_micros()))
    }
}
