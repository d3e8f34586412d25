//! A network with a seed: delay, loss, duplicates, reordering.

use fastrand::Rng;

/// How messages travel between a gate and the ledger.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Network {
    /// Least time of one way, microseconds.
    pub delay_us: u64,
    /// Mean of what comes on top, exponential, microseconds. Messages overtake each other by it.
    pub jitter_us: u64,
    /// Share of messages that never arrive, 0 to 1.
    pub loss: f64,
    /// Share of pushes that never arrive, on top of `loss`.
    pub push_loss: f64,
    /// Share of messages that arrive twice.
    pub twice: f64,
}

impl Network {
    /// A round trip of 0.5 ms, always; nothing is lost.
    #[must_use]
    pub fn quiet() -> Network {
        Network { delay_us: 250, jitter_us: 0, loss: 0.0, push_loss: 0.0, twice: 0.0 }
    }

    /// A round trip of 0.5 ms with jitter as long; 2 % lost, 10 % of pushes, 2 % doubled.
    #[must_use]
    pub fn rough() -> Network {
        Network { delay_us: 250, jitter_us: 250, loss: 0.02, push_loss: 0.1, twice: 0.02 }
    }

    /// The delays after which a message arrives: none, one or two.
    #[must_use]
    pub fn send(&self, is_push: bool, random: &mut Rng) -> Vec<u64> {
        let loss = if is_push { self.loss + self.push_loss } else { self.loss };
        if loss > 0.0 && random.f64() < loss {
            return Vec::new();
        }
        let copies = if self.twice > 0.0 && random.f64() < self.twice { 2 } else { 1 };
        (0..copies).map(|_| self.delay(random)).collect()
    }

    fn delay(&self, random: &mut Rng) -> u64 {
        if self.jitter_us == 0 {
            return self.delay_us;
        }
        let more = -(1.0 - random.f64()).ln() * self.jitter_us as f64;
        // One in fifty copies is held up for long, so that it arrives among words of another time.
        let late = if random.u32(..50) == 0 { random.u64(..200_000) } else { 0 };
        self.delay_us + more as u64 + if self.twice > 0.0 { late } else { 0 }
    }
}
