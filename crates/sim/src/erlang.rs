//! Erlang's formulas: requests of one unit in a pool of so many, Poisson arrivals.

/// Erlang B: the share of requests that finds all `servers` busy when nobody waits, whatever the service times.
///
/// `erlangs` is arrivals per second times mean service in seconds.
#[must_use]
pub fn blocking(servers: u32, erlangs: f64) -> f64 {
    // The recursion over servers is stable where factorials overflow.
    (1..=servers).fold(1.0, |share, count| erlangs * share / (f64::from(count) + erlangs * share))
}

/// Erlang C: the share of requests that has to wait when all wait as long as it takes (M/M/c, exponential service).
/// 1 when `erlangs` is not below `servers`: then the queue has no end.
#[must_use]
pub fn waiting(servers: u32, erlangs: f64) -> f64 {
    let servers_f = f64::from(servers);
    if erlangs >= servers_f {
        return 1.0;
    }
    let blocked = blocking(servers, erlangs);
    servers_f * blocked / (servers_f - erlangs * (1.0 - blocked))
}

/// M/M/c: the mean wait of all requests, those included that do not wait, in the unit of `mean_service`. Infinite
/// when `erlangs` is not below `servers`.
#[must_use]
pub fn mean_wait(servers: u32, erlangs: f64, mean_service: f64) -> f64 {
    let spare = f64::from(servers) - erlangs;
    if spare <= 0.0 { f64::INFINITY } else { waiting(servers, erlangs) * mean_service / spare }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // 2 Erlangs on 2 servers: (2^2/2!) / (1 + 2 + 2).
        assert!((blocking(2, 2.0) - 0.4).abs() < 1e-12);
        // M/M/1 at half load: half of them wait, one service time on average.
        assert!((waiting(1, 0.5) - 0.5).abs() < 1e-12);
        assert!((mean_wait(1, 0.5, 10.0) - 10.0).abs() < 1e-9);
        // 2 servers, 1 Erlang: 1/3 wait.
        assert!((waiting(2, 1.0) - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_pool_that_cannot_keep_up_has_no_end() {
        assert_eq!(waiting(3, 3.0), 1.0);
        assert!(mean_wait(3, 4.0, 1.0).is_infinite());
        assert!(blocking(100_000, 90_000.0) < 1e-9);
    }
}
