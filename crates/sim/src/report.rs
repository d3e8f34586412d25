//! What came out of a run.

use std::fmt;

use sluicegate_core::policy::Units;
use sluicegate_core::refusal::Reason;

/// Sub-buckets per power of two: a quantile is exact to 1/64.
const SUB_BITS: u32 = 6;

/// Counts of microseconds in buckets that grow with the value; a quantile is at most 1.6 % too high.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    sum_us: u128,
    max_us: u64,
}

impl Histogram {
    /// Counts one value.
    pub fn add(&mut self, us: u64) {
        let bucket = bucket_of(us);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
        self.sum_us += u128::from(us);
        self.max_us = self.max_us.max(us);
    }

    /// Mean, microseconds; 0 when empty.
    #[must_use]
    pub fn mean_us(&self) -> f64 {
        self.sum_us as f64 / self.total.max(1) as f64
    }

    /// Largest value, microseconds.
    #[must_use]
    pub fn max_us(&self) -> u64 {
        self.max_us
    }

    /// The value below or at which the share `q` (0 to 1) of all lies, microseconds; 0 when empty.
    #[must_use]
    pub fn quantile_us(&self, q: f64) -> u64 {
        let wanted = ((self.total as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_of(bucket).min(self.max_us);
            }
        }
        self.max_us
    }
}

fn bucket_of(us: u64) -> usize {
    let shift = (u64::BITS - us.leading_zeros()).saturating_sub(SUB_BITS + 1);
    ((shift as usize) << SUB_BITS) + (us >> shift) as usize
}

fn upper_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 << SUB_BITS {
        return bucket;
    }
    let shift = (bucket >> SUB_BITS) - 1;
    let top = bucket - (shift << SUB_BITS);
    ((top + 1) << shift) - 1
}

/// One api in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiReport {
    /// Its name.
    pub name: String,
    /// Units of one request.
    pub weight: Units,
    /// Requests that arrived.
    pub offered: u64,
    /// Requests that got their units.
    pub admitted: u64,
    /// Refusals, by the order of [`Reason::ALL`].
    pub refused: [u64; Reason::ALL.len()],
    /// Those of them that were refused at once, though they would have waited, because the queue could not
    /// have reached them.
    pub refused_early: u64,
    /// How long the admitted ones waited.
    pub waits: Histogram,
    /// Units times microseconds that its ended requests held.
    pub unit_us: u128,
}

impl ApiReport {
    /// Refusals of all reasons.
    #[must_use]
    pub fn refused_all(&self) -> u64 {
        self.refused.iter().sum()
    }

    /// Refusals of one reason.
    #[must_use]
    pub fn refused_by(&self, reason: Reason) -> u64 {
        let index = Reason::ALL.iter().position(|other| *other == reason);
        index.map_or(0, |index| self.refused[index])
    }

    /// Refused over offered, 0 to 1.
    #[must_use]
    pub fn share_refused(&self) -> f64 {
        self.refused_all() as f64 / self.offered.max(1) as f64
    }
}

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// By the order of the policy's apis.
    pub apis: Vec<ApiReport>,
    /// Declared units of the pool.
    pub capacity: u64,
    /// Most units that each pod held at once.
    pub peaks: Vec<Units>,
    /// Virtual time from the start to the last event, microseconds.
    pub span_us: u64,
    /// Calls into the core.
    pub calls: u64,
}

impl Report {
    /// Requests that arrived.
    #[must_use]
    pub fn offered(&self) -> u64 {
        self.apis.iter().map(|api| api.offered).sum()
    }

    /// Requests that got their units.
    #[must_use]
    pub fn admitted(&self) -> u64 {
        self.apis.iter().map(|api| api.admitted).sum()
    }

    /// Refusals of all apis and reasons.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.apis.iter().map(ApiReport::refused_all).sum()
    }

    /// Refused over offered, 0 to 1.
    #[must_use]
    pub fn share_refused(&self) -> f64 {
        self.refused() as f64 / self.offered().max(1) as f64
    }

    /// Mean units in use over declared units, 0 to 1.
    #[must_use]
    pub fn utilisation(&self) -> f64 {
        let units: u128 = self.apis.iter().map(|api| api.unit_us).sum();
        units as f64 / (self.capacity as f64 * self.span_us as f64).max(1.0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<12} {:>6} {:>9} {:>9} {:>9} {:>8} {:>10} {:>9} {:>9} {:>7}",
            "api", "weight", "offered", "admitted", "refused", "share", "mean wait", "p50", "p99", "units"
        )?;
        for api in &self.apis {
            writeln!(
                f,
                "{:<12} {:>6} {:>9} {:>9} {:>9} {:>7.3}% {:>8.1}ms {:>7.1}ms {:>7.1}ms {:>7.1}",
                api.name,
                api.weight,
                api.offered,
                api.admitted,
                api.refused_all(),
                api.share_refused() * 100.0,
                api.waits.mean_us() / 1000.0,
                api.waits.quantile_us(0.5) as f64 / 1000.0,
                api.waits.quantile_us(0.99) as f64 / 1000.0,
                api.unit_us as f64 / self.span_us.max(1) as f64,
            )?;
            for (reason, count) in Reason::ALL.iter().zip(api.refused).filter(|(_, count)| *count > 0) {
                writeln!(f, "{:<12} {:>36} {}", "", count, reason.as_str())?;
            }
        }
        write!(
            f,
            "all: {} offered, {:.3}% refused, {:.1}% of {} units in use on average",
            self.offered(),
            self.share_refused() * 100.0,
            self.utilisation() * 100.0,
            self.capacity
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_all_values_in_order() {
        let mut last = 0;
        for us in (0..100_000).chain((17..63).map(|bits| (1 << bits) + 12_345)) {
            let bucket = bucket_of(us);
            assert!(bucket >= last, "{us}");
            last = bucket;
            let upper = upper_of(bucket);
            assert!(upper >= us && (upper - us) as f64 <= us as f64 / 64.0, "{us} {upper}");
        }
    }

    #[test]
    fn quantiles_are_close() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|us| histogram.add(us * 1000));
        assert!((histogram.mean_us() - 500_500.0).abs() < 1e-6);
        let close = |q: f64, us: f64| (histogram.quantile_us(q) as f64 / us - 1.0).abs() < 0.017;
        assert!(close(0.5, 500_000.0) && close(0.99, 990_000.0));
        assert_eq!(histogram.quantile_us(1.0), 1_000_000);
        assert_eq!(Histogram::default().quantile_us(0.5), 0);
    }
}
