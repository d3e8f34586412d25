//! Answers counted in slices of time, to see when a disturbed pool is its old self again.

use std::time::Duration;

/// How long the share of refusals has to stay low to count as back to normal.
const STAYS: Duration = Duration::from_secs(1);

/// Requests and refusals by the time at which they were sent.
#[derive(Clone, Debug)]
pub struct Buckets {
    width_us: u64,
    counts: Vec<Count>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    requests: u64,
    refused: u64,
}

impl Count {
    fn share(self) -> f64 {
        if self.requests == 0 { 0.0 } else { self.refused as f64 / self.requests as f64 }
    }
}

/// What was usual before a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normal {
    /// Mean share of refusals, 0..=1.
    pub share: f64,
    /// Spread of that share over the slices, at least that of a coin of this share tossed as often as a slice has requests.
    pub sigma: f64,
}

impl Normal {
    /// A slice above this is not normal.
    #[must_use]
    pub fn limit(&self) -> f64 {
        self.share + 3.0 * self.sigma
    }
}

impl Buckets {
    /// Slices of this width, from time zero on.
    ///
    /// # Panics
    /// If it is shorter than a microsecond.
    #[must_use]
    pub fn new(width: Duration) -> Self {
        assert!(width >= Duration::from_micros(1), "a slice of no width holds nothing");
        Self { width_us: u64::try_from(width.as_micros()).unwrap_or(u64::MAX), counts: Vec::new() }
    }

    /// Counts one request.
    pub fn count(&mut self, sent_us: u64, refused: bool) {
        let index = self.index(sent_us);
        if self.counts.len() <= index {
            self.counts.resize(index + 1, Count::default());
        }
        self.counts[index].requests += 1;
        self.counts[index].refused += u64::from(refused);
    }

    /// What was usual in the whole slices between two times.
    ///
    /// # Panics
    /// If not even one whole slice lies between them.
    #[must_use]
    pub fn normal(&self, from_us: u64, to_us: u64) -> Normal {
        let (first, end) = (from_us.div_ceil(self.width_us), to_us / self.width_us);
        let slices: Vec<Count> = (first..end).map(|index| self.at(index)).collect();
        assert!(!slices.is_empty(), "nothing between {from_us} and {to_us} us");
        let requests: u64 = slices.iter().map(|slice| slice.requests).sum();
        let refused: u64 = slices.iter().map(|slice| slice.refused).sum();
        let share = Count { requests, refused }.share();
        let count = slices.len() as f64;
        let spread = slices.iter().map(|slice| (slice.share() - share).powi(2)).sum::<f64>() / count;
        // Few slices without any refusal do not show that there is no spread: one more is always possible.
        let likely = share.max(1.0 / requests.max(1) as f64);
        let coin = likely * (1.0 - likely) * count / requests.max(1) as f64;
        Normal { share, sigma: spread.max(coin).sqrt() }
    }

    /// The worst share of any slice that begins in this time, 0..=1.
    #[must_use]
    pub fn worst(&self, from_us: u64, to_us: u64) -> f64 {
        self.slices(from_us, to_us).map(|(_, share)| share).fold(0.0, f64::max)
    }

    /// Time from `fault_us` until the share was normal and stayed so for a second; zero if it never left it, `None` if
    /// it did not come back before `end_us`.
    ///
    /// A fault may be felt late (credit lasts a while) and twice, so what is looked for is the first good second after the
    /// last slice that was at least half as bad as the worst.
    #[must_use]
    pub fn back_to_normal(&self, fault_us: u64, end_us: u64, normal: Normal) -> Option<Duration> {
        let limit = normal.limit();
        let worst = self.worst(fault_us, end_us);
        if worst <= limit {
            return Some(Duration::ZERO);
        }
        let bad = limit.max(worst / 2.0);
        let slices: Vec<(u64, f64)> = self.slices(fault_us, end_us).collect();
        let after = slices.iter().rposition(|(_, share)| *share >= bad).map_or(0, |last| last + 1);
        let stays = usize::try_from(STAYS.as_micros() as u64 / self.width_us).unwrap_or(usize::MAX).max(1);
        let good = slices[after..].windows(stays).find(|run| run.iter().all(|(_, share)| *share <= limit))?;
        Some(Duration::from_micros(good[0].0.saturating_sub(fault_us)))
    }

    /// Begin and share of the whole slices that end after one time and not after another.
    fn slices(&self, from_us: u64, to_us: u64) -> impl Iterator<Item = (u64, f64)> {
        let (first, end) = (from_us / self.width_us, to_us / self.width_us);
        (first..end).map(|index| (index * self.width_us, self.at(index).share()))
    }

    fn at(&self, index: u64) -> Count {
        usize::try_from(index).ok().and_then(|index| self.counts.get(index)).copied().unwrap_or_default()
    }

    fn index(&self, at_us: u64) -> usize {
        usize::try_from(at_us / self.width_us).expect("a run is shorter than the memory is large")
    }
}
