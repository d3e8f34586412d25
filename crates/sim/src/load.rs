//! Who arrives when, and how long each request holds its units.

use std::sync::Arc;

use fastrand::Rng;
use sluicegate_core::policy::{Policy, Units};

/// Microseconds in one second.
const SECOND: f64 = 1_000_000.0;

/// One request: made by a [`Load`], or recorded from real traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Microseconds since the start.
    pub at_us: u64,
    /// Index into [`Policy::apis`].
    pub api: usize,
    /// Units it holds while it runs.
    pub weight: Units,
    /// Microseconds from its start on a pod to its end.
    pub hold_us: u64,
}

/// How long requests hold their units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Service {
    /// Always so many microseconds.
    Fixed(u64),
    /// Exponential with this mean in microseconds.
    Exponential(u64),
    /// Log-normal with this mean in microseconds; `sigma` is the deviation of the logarithm (1.0 has a heavy
    /// tail: one request in a hundred takes six times the mean).
    LogNormal {
        /// Mean, microseconds.
        mean_us: u64,
        /// Deviation of the logarithm.
        sigma: f64,
    },
}

impl Service {
    /// Mean, microseconds.
    #[must_use]
    pub fn mean_us(self) -> u64 {
        match self {
            Service::Fixed(mean_us) | Service::Exponential(mean_us) | Service::LogNormal { mean_us, .. } => {
                mean_us
            }
        }
    }

    /// One draw, microseconds, at least 1.
    #[must_use]
    pub fn draw(self, random: &mut Rng) -> u64 {
        let drawn = match self {
            Service::Fixed(us) => us as f64,
            Service::Exponential(mean_us) => exponential(random) * mean_us as f64,
            Service::LogNormal { mean_us, sigma } => {
                // The mean of exp(N(m, s)) is exp(m + s^2 / 2).
                mean_us as f64 * (sigma * normal(random) - sigma * sigma / 2.0).exp()
            }
        };
        (drawn.round() as u64).max(1)
    }
}

/// Traffic of one api.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ApiLoad {
    /// Index into [`Policy::apis`].
    pub api: usize,
    /// Units of one request.
    pub weight: Units,
    /// Requests per second, Poisson.
    pub per_s: f64,
    /// How long they hold their units.
    pub service: Service,
}

/// Traffic of a pool: independent Poisson streams, or arrivals that were recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// The streams.
    pub apis: Vec<ApiLoad>,
    /// Arrivals in order of time that stand in for the streams, whatever the seed.
    pub recorded: Option<Arc<[Arrival]>>,
}

impl Load {
    /// All apis of `policy` that are not exempt, in equal Erlangs, so that they ask together for `load` times the
    /// declared units of the pool; exponential service of `mean_us` microseconds.
    #[must_use]
    pub fn of_pool(policy: &Policy, load: f64, mean_us: u64) -> Load {
        let capacity: u64 = policy.pods.iter().map(|pod| u64::from(pod.capacity)).sum();
        let apis: Vec<(usize, Units)> = policy
            .apis
            .iter()
            .enumerate()
            .filter(|(_, api)| !api.exempt)
            .map(|(index, api)| (index, api.weight))
            .collect();
        let weights: u64 = apis.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let erlangs = load * capacity as f64 / weights.max(1) as f64;
        let per_s = erlangs * SECOND / mean_us as f64;
        let service = Service::Exponential(mean_us);
        let streams = apis.into_iter().map(|(api, weight)| ApiLoad { api, weight, per_s, service });
        Load { apis: streams.collect(), recorded: None }
    }

    /// The same units a second, but the last stream asks for `share` of them and the others alike for the rest.
    #[must_use]
    pub fn with_rare(mut self, share: f64) -> Load {
        let units: f64 = self.apis.iter().map(|api| api.per_s * f64::from(api.weight)).sum();
        let others = self.apis.len().saturating_sub(1).max(1) as f64;
        let last = self.apis.len().saturating_sub(1);
        for (index, api) in self.apis.iter_mut().enumerate() {
            let part = if index == last { share } else { (1.0 - share) / others };
            api.per_s = units * part / f64::from(api.weight);
        }
        self
    }

    /// Exactly these arrivals, which are in order of time.
    #[must_use]
    pub fn of_recorded(recorded: Arc<[Arrival]>) -> Load {
        Load { apis: Vec::new(), recorded: Some(recorded) }
    }

    /// The same streams with other service times of the same mean load: rates follow the new mean.
    #[must_use]
    pub fn with_service(mut self, service: Service) -> Load {
        for api in &mut self.apis {
            api.per_s *= api.service.mean_us() as f64 / service.mean_us() as f64;
            api.service = service;
        }
        self
    }

    /// The arrivals of this load: endless, or those recorded. The same seed gives the same arrivals.
    #[must_use]
    pub fn arrivals(&self, seed: u64) -> Arrivals {
        let total = self.apis.iter().map(|api| api.per_s).sum();
        let recorded = self.recorded.clone();
        Arrivals {
            apis: self.apis.clone(),
            total,
            at_us: 0.0,
            random: Rng::with_seed(seed),
            recorded,
            next: 0,
        }
    }
}

/// Arrivals in order of time. Endless, unless the load is empty or recorded.
#[derive(Clone, Debug)]
pub struct Arrivals {
    apis: Vec<ApiLoad>,
    /// Requests per second of all streams together.
    total: f64,
    /// Kept as a fraction: rounding each gap would change the rate.
    at_us: f64,
    random: Rng,
    recorded: Option<Arc<[Arrival]>>,
    /// Index of the next one recorded.
    next: usize,
}

impl Iterator for Arrivals {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        if let Some(recorded) = &self.recorded {
            self.next += 1;
            return recorded.get(self.next - 1).copied();
        }
        if self.total <= 0.0 {
            return None;
        }
        self.at_us += exponential(&mut self.random) * SECOND / self.total;
        let mut pick = self.random.f64() * self.total;
        let chosen = self.apis.iter().find(|api| {
            pick -= api.per_s;
            pick < 0.0
        });
        // Rounding may leave a crumb behind the last stream.
        let api = chosen.or(self.apis.last())?;
        let hold_us = api.service.draw(&mut self.random);
        Some(Arrival { at_us: self.at_us as u64, api: api.api, weight: api.weight, hold_us })
    }
}

/// Exponential with mean 1.
fn exponential(random: &mut Rng) -> f64 {
    -(1.0 - random.f64()).ln()
}

/// Normal with mean 0 and deviation 1 (Box and Muller).
fn normal(random: &mut Rng) -> f64 {
    let radius = (2.0 * exponential(random)).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(service: Service) -> f64 {
        let mut random = Rng::with_seed(1);
        (0..200_000).map(|_| service.draw(&mut random) as f64).sum::<f64>() / 200_000.0
    }

    #[test]
    fn service_times_have_the_mean_they_say() {
        assert!((mean(Service::Fixed(5_000)) - 5_000.0).abs() < 1e-9);
        assert!((mean(Service::Exponential(100_000)) / 100_000.0 - 1.0).abs() < 0.01);
        let log_normal = Service::LogNormal { mean_us: 100_000, sigma: 1.0 };
        assert!((mean(log_normal) / 100_000.0 - 1.0).abs() < 0.02);
    }

    #[test]
    fn the_load_is_what_was_asked_for_and_the_seed_is_the_run() {
        let policy = Policy::simple(&[("a", 100), ("b", 100)], &[("x", 1), ("y", 2), ("z", 3)]);
        let load = Load::of_pool(&policy, 0.9, 100_000);
        let arrivals: Vec<Arrival> = load.arrivals(3).take(200_000).collect();
        let span = arrivals[arrivals.len() - 1].at_us as f64;
        let units: f64 = arrivals.iter().map(|one| one.hold_us as f64 * f64::from(one.weight)).sum();
        assert!((units / (span * 200.0) / 0.9 - 1.0).abs() < 0.02, "{}", units / (span * 200.0));
        assert!(load.arrivals(3).take(1000).eq(arrivals.into_iter().take(1000)));
        assert!(load.arrivals(4).next() != load.arrivals(3).next());
    }

    #[test]
    fn recorded_arrivals_come_as_they_were() {
        let arrivals: Vec<Arrival> =
            (0..3).map(|at_us| Arrival { at_us, api: 0, weight: 1, hold_us: 5 }).collect();
        let load = Load::of_recorded(arrivals.clone().into());
        assert_eq!(load.arrivals(7).collect::<Vec<_>>(), arrivals);
    }
}
