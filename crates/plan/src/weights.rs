//! Weights that a trace suggests: units in proportion to what requests cost.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::Serialize;
use sluicegate_core::policy::{Policy, Units};

use crate::trace::{CostKind, Row, Trace};

/// Fewest requests of an api that say anything.
const ROWS_MIN: usize = 30;
/// Fewest requests of a trace from which a slow-down can be read.
const SLOWDOWN_ROWS_MIN: usize = 2_000;
/// A slow-down counts if it is so many standard errors from none.
const ERRORS_MIN: f64 = 3.0;
/// The lightest weighs up to so many units, if only then the others come out whole.
const LIGHTEST_MAX: u32 = 4;
/// How far a whole weight may be off its measured cost.
const ROUNDING: f64 = 0.15;

/// Weights by measured cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Suggestion {
    /// How costs were measured, in words.
    pub by: String,
    /// The apis that the trace says enough of.
    pub apis: Vec<SuggestedWeight>,
}

/// One api's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SuggestedWeight {
    /// The api.
    pub name: String,
    /// Its weight in the configuration.
    pub declared: Units,
    /// The weight that fits its cost.
    pub suggested: Units,
    /// Its cost over that of the cheapest.
    pub relative_cost: f64,
}

/// Weights by what `trace` says of costs; the reason in words if it says too little.
///
/// # Errors
/// Why there is no suggestion, with what to log to get one.
pub fn suggest(policy: &Policy, trace: &Trace) -> Result<Suggestion, String> {
    let (by, costs) = match trace.cost {
        CostKind::Held => ("column `cost`: mean of what a request takes while it runs", held(policy, trace)),
        CostKind::Cpu => {
            ("column `cpu_ms`: processors that a request keeps busy while it runs", cpu(policy, trace))
        }
        CostKind::None => ("how much one running request slows the others", slowdown(policy, trace)?),
    };
    let known: Vec<(usize, f64)> = costs
        .into_iter()
        .enumerate()
        .filter_map(|(api, cost)| Some((api, cost.filter(|c| *c > 0.0)?)))
        .collect();
    if known.len() < 2 {
        return Err(format!(
            "no weights suggested: fewer than two apis have {ROWS_MIN} requests of known cost"
        ));
    }
    let least = known.iter().map(|(_, cost)| *cost).fold(f64::INFINITY, f64::min);
    let ratios: Vec<f64> = known.iter().map(|(_, cost)| cost / least).collect();
    let unit = unit_of(&ratios);
    let apis = known.iter().zip(&ratios).map(|((api, _), ratio)| SuggestedWeight {
        name: policy.apis[*api].name.clone(),
        declared: policy.apis[*api].weight,
        suggested: (ratio * f64::from(unit)).round() as Units,
        relative_cost: *ratio,
    });
    Ok(Suggestion { by: by.to_owned(), apis: apis.collect() })
}

/// Units of the lightest: as few as let every weight be whole without much rounding.
fn unit_of(ratios: &[f64]) -> u32 {
    let worst = |unit: u32| {
        let off = |ratio: &f64| {
            let exact = ratio * f64::from(unit);
            (exact.round() / exact - 1.0).abs()
        };
        ratios.iter().map(off).fold(0.0, f64::max)
    };
    let good = (1..=LIGHTEST_MAX).find(|unit| worst(*unit) <= ROUNDING);
    good.unwrap_or_else(|| (1..=LIGHTEST_MAX).min_by(|a, b| worst(*a).total_cmp(&worst(*b))).unwrap_or(1))
}

fn held(policy: &Policy, trace: &Trace) -> Vec<Option<f64>> {
    per_api(policy, trace, |row| Some((row.cost?, 1.0)))
}

fn cpu(policy: &Policy, trace: &Trace) -> Vec<Option<f64>> {
    per_api(policy, trace, |row| Some((row.cost?, row.hold_us? as f64 / 1e3)))
}

/// Sum of the first over sum of the second, by api.
fn per_api(policy: &Policy, trace: &Trace, pair: impl Fn(&Row) -> Option<(f64, f64)>) -> Vec<Option<f64>> {
    let mut sums = vec![(0usize, 0.0, 0.0); policy.apis.len()];
    for (row, (above, below)) in trace.rows.iter().filter_map(|row| Some((row, pair(row)?))) {
        let (count, over, under) = &mut sums[row.api];
        *count += 1;
        *over += above;
        *under += below;
    }
    let ratio =
        |(count, over, under): (usize, f64, f64)| (count >= ROWS_MIN && under > 0.0).then(|| over / under);
    let exempt = policy.apis.iter().map(|api| api.exempt);
    sums.into_iter().zip(exempt).map(|(sum, exempt)| if exempt { None } else { ratio(sum) }).collect()
}

/// Least squares: how much longer than its api's mean a request takes, by the requests of each api that ran when it
/// came. The costlier a request, the more it slows the others.
fn slowdown(policy: &Policy, trace: &Trace) -> Result<Vec<Option<f64>>, String> {
    const MEND: &str = "add a column `cost` or `cpu_ms` to the trace";
    let mut counts = vec![0usize; policy.apis.len()];
    trace.rows.iter().filter(|row| row.hold_us.is_some()).for_each(|row| counts[row.api] += 1);
    let enough = |api: &usize| counts[*api] >= ROWS_MIN && !policy.apis[*api].exempt;
    let apis: Vec<usize> = (0..policy.apis.len()).filter(enough).collect();
    let (samples, total) = samples(trace, &apis);
    if apis.len() < 2 || total < SLOWDOWN_ROWS_MIN {
        return Err(format!(
            "no weights suggested: {SLOWDOWN_ROWS_MIN} requests of two apis or more are needed to see how they slow \
             each other; {MEND}"
        ));
    }
    let fit = Fit::of(&samples, apis.len());
    let slow = fit.filter(|fit| fit.slopes.iter().all(|(slope, error)| *slope > ERRORS_MIN * error));
    let Some(fit) = slow else {
        return Err(format!(
            "no weights suggested: the trace shows no clear slow-down of one api by another; {MEND}"
        ));
    };
    let mut costs = vec![None; policy.apis.len()];
    apis.iter().zip(&fit.slopes).for_each(|(api, (slope, _))| costs[*api] = Some(*slope));
    Ok(costs)
}

/// For each api of `apis` its requests: duration over the api's mean, and how many of each api ran.
type Samples = Vec<Vec<(f64, Vec<f64>)>>;

fn samples(trace: &Trace, apis: &[usize]) -> (Samples, usize) {
    let place = |api: usize| apis.iter().position(|other| *other == api);
    let mut rows: Vec<(u64, usize, u64)> =
        trace.rows.iter().filter_map(|row| Some((row.at_us, place(row.api)?, row.hold_us?))).collect();
    rows.sort_unstable();
    let mut samples: Samples = vec![Vec::new(); apis.len()];
    let mut running = vec![0.0; apis.len()];
    let mut ends: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    for (at_us, api, hold_us) in &rows {
        while let Some(Reverse((_, ended))) = ends.peek().copied().filter(|Reverse((end, _))| end <= at_us) {
            ends.pop();
            running[ended] -= 1.0;
        }
        samples[*api].push((*hold_us as f64, running.clone()));
        running[*api] += 1.0;
        ends.push(Reverse((at_us + hold_us, *api)));
    }
    for of_api in &mut samples {
        let mean = of_api.iter().map(|(hold, _)| hold).sum::<f64>() / of_api.len().max(1) as f64;
        of_api.iter_mut().for_each(|(hold, _)| *hold /= mean.max(1.0));
    }
    let total = rows.len();
    (samples, total)
}

/// Slopes with their standard errors.
struct Fit {
    slopes: Vec<(f64, f64)>,
}

impl Fit {
    /// Each api has its own mean; what is fitted is how its requests deviate from it. `None`: not to be told apart.
    fn of(samples: &Samples, size: usize) -> Option<Fit> {
        let mut squares = vec![vec![0.0; size]; size];
        let mut products = vec![0.0; size];
        let mut total = 0.0;
        let mut count = 0usize;
        for of_api in samples {
            let number = of_api.len() as f64;
            let mut means = vec![0.0; size];
            of_api
                .iter()
                .for_each(|(_, x)| means.iter_mut().zip(x).for_each(|(mean, x)| *mean += x / number));
            for (y, x) in of_api {
                let x: Vec<f64> = x.iter().zip(&means).map(|(x, mean)| x - mean).collect();
                for (row, own) in x.iter().enumerate() {
                    products[row] += own * (y - 1.0);
                    x.iter().zip(&mut squares[row]).for_each(|(other, sum)| *sum += own * other);
                }
                total += (y - 1.0).powi(2);
            }
            count += of_api.len();
        }
        let inverse = inverted(squares)?;
        let dot = |row: &Vec<f64>| row.iter().zip(&products).map(|(a, b)| a * b).sum::<f64>();
        let slopes: Vec<f64> = inverse.iter().map(dot).collect();
        let explained: f64 = slopes.iter().zip(&products).map(|(a, b)| a * b).sum();
        let rest = (total - explained).max(0.0) / (count as f64 - 2.0 * size as f64).max(1.0);
        let error = |at: usize| (rest * inverse[at][at]).max(0.0).sqrt();
        Some(Fit { slopes: slopes.iter().enumerate().map(|(at, slope)| (*slope, error(at))).collect() })
    }
}

/// Gauss and Jordan with the largest pivot first; `None` if the matrix has no inverse worth the name.
fn inverted(mut left: Vec<Vec<f64>>) -> Option<Vec<Vec<f64>>> {
    let size = left.len();
    let mut right: Vec<Vec<f64>> =
        (0..size).map(|row| (0..size).map(|column| f64::from(u8::from(row == column))).collect()).collect();
    for column in 0..size {
        let pivot =
            (column..size).max_by(|a, b| left[*a][column].abs().total_cmp(&left[*b][column].abs()))?;
        left.swap(column, pivot);
        right.swap(column, pivot);
        let scale = left[column][column];
        if scale.abs() < 1e-9 {
            return None;
        }
        left[column].iter_mut().chain(&mut right[column]).for_each(|value| *value /= scale);
        let (own_left, own_right) = (left[column].clone(), right[column].clone());
        for row in (0..size).filter(|row| *row != column) {
            let factor = left[row][column];
            left[row].iter_mut().zip(&own_left).for_each(|(value, own)| *value -= factor * own);
            right[row].iter_mut().zip(&own_right).for_each(|(value, own)| *value -= factor * own);
        }
    }
    Some(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_weights_without_much_rounding() {
        assert_eq!(unit_of(&[1.0, 2.1, 2.9]), 1);
        assert_eq!(unit_of(&[1.0, 1.5]), 2);
        assert_eq!(unit_of(&[1.0, 1.3]), 3);
    }

    #[test]
    fn an_inverse() {
        let inverse = inverted(vec![vec![0.0, 2.0], vec![4.0, 0.0]]).expect("there is one");
        assert_eq!(inverse, [[0.0, 0.25], [0.5, 0.0]]);
        assert!(inverted(vec![vec![1.0, 2.0], vec![2.0, 4.0]]).is_none());
    }
}
