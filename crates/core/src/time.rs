//! Time as the core knows it: a number it is told.

use std::ops::{Add, Sub};

/// An instant in microseconds since an origin the caller chose. Only differences mean anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub u64);

/// Microseconds in one second.
pub const SECOND: u64 = 1_000_000;

impl Micros {
    /// The instant after every other one.
    pub const NEVER: Micros = Micros(u64::MAX);

    /// Microseconds from `earlier` to here, 0 if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Micros) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for Micros {
    type Output = Micros;
    fn add(self, micros: u64) -> Micros {
        Micros(self.0.saturating_add(micros))
    }
}

impl Sub<u64> for Micros {
    type Output = Micros;
    fn sub(self, micros: u64) -> Micros {
        Micros(self.0.saturating_sub(micros))
    }
}
