//! The load before it is sent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long a request asks the pod to work. The pod is told by the header `x-trial: ms=...`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// Exponentially distributed.
    Exponential {
        /// Mean in milliseconds.
        mean_ms: f64,
    },
    /// Always the same.
    Fixed {
        /// Milliseconds.
        ms: f64,
    },
}

/// One kind of request and how often it comes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// An HTTP method, `GET`.
    pub method: String,
    /// Path and query, from the first slash.
    pub path: String,
    /// Units, for the summary's goodput. The pod and the gate weigh by themselves.
    pub weight: u32,
    /// Mean arrivals per second; they come as a Poisson process.
    pub rate_per_s: f64,
    /// Time of work.
    pub service: Service,
}

/// A load: the shapes, how long, and the seed of all draws.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The kinds of requests; a sample names its kind by the index here.
    pub apis: Vec<Shape>,
    /// Length in seconds.
    pub seconds: f64,
    /// The same seed and shapes give the same arrivals.
    pub seed: u64,
}

/// One planned request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Microseconds after the start.
    pub at_us: u64,
    /// Index of [`Plan::apis`].
    pub api: usize,
    /// Time of work asked for, in microseconds.
    pub hold_us: u64,
}

impl Plan {
    /// All arrivals in the order of their time.
    ///
    /// Each shape draws from its own stream, so a change of one leaves the arrivals of the others as they were.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        for (api, shape) in self.apis.iter().enumerate() {
            if shape.rate_per_s <= 0.0 {
                continue;
            }
            let mut random =
                fastrand::Rng::with_seed(self.seed.wrapping_add(api as u64).wrapping_mul(STREAM));
            let mut at_s = exponential(&mut random, 1.0 / shape.rate_per_s);
            while at_s < self.seconds {
                let hold_ms = match shape.service {
                    Service::Exponential { mean_ms } => exponential(&mut random, mean_ms),
                    Service::Fixed { ms } => ms,
                };
                arrivals.push(Arrival { at_us: micros(at_s), api, hold_us: micros(hold_ms / 1000.0) });
                at_s += exponential(&mut random, 1.0 / shape.rate_per_s);
            }
        }
        arrivals.sort_by_key(|arrival| (arrival.at_us, arrival.api));
        arrivals
    }
}

/// Spreads neighbouring seeds (2^64 divided by the golden ratio, made odd).
const STREAM: u64 = 0x9e37_79b9_7f4a_7c15;

fn exponential(random: &mut fastrand::Rng, mean: f64) -> f64 {
    // 1 - u is in (0, 1]: the logarithm is finite.
    -(1.0 - random.f64()).ln() * mean
}

fn micros(seconds: f64) -> u64 {
    u64::try_from(Duration::try_from_secs_f64(seconds).unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

/// One shape `GET /w/WEIGHT` for each weight, all with the same number of requests in the air on average, which
/// together offer `load` times the `capacity` (units) at an exponential service time of `mean_ms`.
#[must_use]
pub fn equal_erlangs(weights: &[u32], capacity: u32, load: f64, mean_ms: f64) -> Vec<Shape> {
    let units: u32 = weights.iter().sum();
    let rate_per_s = load * f64::from(capacity) / f64::from(units) / (mean_ms / 1000.0);
    let shape = |&weight: &u32| Shape {
        method: "GET".to_owned(),
        path: format!("/w/{weight}"),
        weight,
        rate_per_s,
        service: Service::Exponential { mean_ms },
    };
    weights.iter().map(shape).collect()
}
