//! Figures with their spread.

use std::fmt;

/// The same figure from several runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one figure.
    pub(crate) fn of(figures: &[f64]) -> Spread {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Spread { median, min: sorted[0], max: sorted[sorted.len() - 1] }
    }

    /// Of the ratios run by run: what slows both sides of a run falls out.
    pub(crate) fn of_ratios(over: &[f64], under: &[f64]) -> Spread {
        Spread::of(&over.iter().zip(under).map(|(over, under)| over / under).collect::<Vec<_>>())
    }

    /// `12.3 | 11.9..14.0`: two cells.
    pub(crate) fn cells(&self, decimals: usize) -> String {
        format!("{:.*} | {:.*}..{:.*}", decimals, self.median, decimals, self.min, decimals, self.max)
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(2);
        write!(f, "{:.*} ({:.*}..{:.*})", decimals, self.median, decimals, self.min, decimals, self.max)
    }
}

/// The value at or below which the share `q` (0 to 1) of all lies; 0 of none.
pub(crate) fn quantile(values: &mut [u64], q: f64) -> u64 {
    if values.is_empty() {
        return 0;
    }
    values.sort_unstable();
    let rank = (q * values.len() as f64).ceil() as usize;
    values[rank.clamp(1, values.len()) - 1]
}

/// A count measured beside a count expected on the same events, block by block in time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beside {
    /// measured / expected.
    pub(crate) ratio: f64,
    /// Three standard deviations of the ratio, from the scatter of the blocks: refusals come in clusters, so
    /// counting them as independent would say too little.
    pub(crate) three_sigma: f64,
}

impl Beside {
    /// From at least two blocks. `None` if nothing was expected.
    pub(crate) fn of(blocks: &[(u64, u64)]) -> Option<Beside> {
        let (measured, expected) =
            blocks.iter().fold((0, 0), |sum, block| (sum.0 + block.0, sum.1 + block.1));
        if expected == 0 || blocks.len() < 2 {
            return None;
        }
        let ratio = measured as f64 / expected as f64;
        let residual = |block: &(u64, u64)| block.0 as f64 - ratio * block.1 as f64;
        let count = blocks.len() as f64;
        let variance = blocks.iter().map(|block| residual(block).powi(2)).sum::<f64>() / (count - 1.0);
        Some(Beside { ratio, three_sigma: 3.0 * (count * variance).sqrt() / expected as f64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let spread = Spread::of(&[4.0, 1.0, 2.0, 3.0]);
        assert_eq!(spread, Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(format!("{spread:.1}"), "2.5 (1.0..4.0)");
    }

    #[test]
    fn quantiles_are_values_that_occur() {
        let mut values: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(quantile(&mut values, 0.99), 99);
        assert_eq!(quantile(&mut values, 1.0), 100);
        assert_eq!(quantile(&mut [], 0.5), 0);
    }

    #[test]
    fn blocks_in_proportion_leave_no_doubt() {
        let beside = Beside::of(&[(2, 1), (4, 2), (6, 3)]).expect("something was expected");
        assert_eq!((beside.ratio, beside.three_sigma), (2.0, 0.0));
        assert!(Beside::of(&[(2, 0), (4, 0)]).is_none());
    }
}
