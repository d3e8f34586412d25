//! What one big pod without a queue refuses, exactly: the Kaufman-Roberts recursion.

/// One class of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Class {
    /// Units of one request, at least 1.
    pub weight: u32,
    /// Mean number of its requests that would run at once if none were refused (arrivals per second times mean
    /// hold in seconds).
    pub erlangs: f64,
}

/// The share of each class's requests that finds no room, for Poisson arrivals and any service times, in
/// one pod of `capacity` units where all free units can be used together.
///
/// The answer has the order of `classes`; every share is between 0 and 1.
#[must_use]
pub fn blocking(capacity: u32, classes: &[Class]) -> Vec<f64> {
    let capacity = capacity as usize;
    let mut q = vec![0.0_f64; capacity + 1];
    q[0] = 1.0;
    for used in 1..=capacity {
        let mut sum = 0.0;
        for class in classes.iter().filter(|class| class.weight as usize <= used) {
            sum += class.erlangs * f64::from(class.weight) * q[used - class.weight as usize];
        }
        q[used] = sum / used as f64;
        // Only ratios matter; large pools would leave the range of f64.
        if q[used] > 1e200 {
            q[..=used].iter_mut().for_each(|value| *value *= 1e-200);
        }
    }
    let total: f64 = q.iter().sum();
    let share = |class: &Class| {
        let blocked = (class.weight as usize).min(capacity + 1);
        q[capacity + 1 - blocked..].iter().sum::<f64>() / total
    };
    classes.iter().map(share).collect()
}

/// The share of all requests that finds no room: the classes' shares weighted by how often each arrives.
/// Service times are taken as equal, so arrivals are in proportion to Erlangs.
#[must_use]
pub fn blocking_of_all(capacity: u32, classes: &[Class]) -> f64 {
    let erlangs: f64 = classes.iter().map(|class| class.erlangs).sum();
    let shares = blocking(capacity, classes);
    classes.iter().zip(shares).map(|(class, share)| class.erlangs * share).sum::<f64>() / erlangs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_class_of_weight_one_is_erlang_b() {
        // Erlang B, 2 Erlangs on 2 servers: (2^2/2!) / (1 + 2 + 2) = 0.4.
        let shares = blocking(2, &[Class { weight: 1, erlangs: 2.0 }]);
        assert!((shares[0] - 0.4).abs() < 1e-12);
    }

    #[test]
    fn what_never_fits_is_always_refused() {
        let classes = [Class { weight: 1, erlangs: 1.0 }, Class { weight: 5, erlangs: 1.0 }];
        let shares = blocking(4, &classes);
        assert!((shares[1] - 1.0).abs() < 1e-12);
    }

    #[test]
    fn large_pools_stay_in_range() {
        let classes = [Class { weight: 1, erlangs: 90_000.0 }];
        let share = blocking(100_000, &classes)[0];
        assert!(share.is_finite() && share < 1e-9);
    }
}
