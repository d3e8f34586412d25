//! What came out of one scenario, as plain data.

use serde::Serialize;
use sluicegate_core::policy::{Policy, Units};
use sluicegate_sim::Histogram;

use crate::traffic::{Traffic, capacity};

/// Parts of a run whose shares are compared to say how far the whole may be off.
const BATCHES: usize = 20;

/// One scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Stable name, such as `pooled_no_wait`.
    pub key: String,
    /// The same for people.
    pub title: String,
    /// True for the scenario that the configuration describes.
    pub configured: bool,
    /// True for a formula: nothing was simulated, and `offered` and `refused` are 0.
    pub exact: bool,
    /// Runs whose mean this is: where one scatters much, more are made with other arrivals.
    pub runs: u32,
    /// Requests that were counted, in all runs.
    pub offered: u64,
    /// Those of them that were refused.
    pub refused: u64,
    /// Refused over offered, 0 to 1.
    pub refused_share: f64,
    /// Half of the 95 % interval of `refused_share`, from the scatter of 20 parts of each run; `None` where it
    /// is not known.
    pub refused_share_error: Option<f64>,
    /// Mean units in use over the units of the pool, 0 to 1.
    pub utilisation: f64,
    /// How long the admitted waited; `None` where nobody waits.
    pub wait: Option<Waits>,
    /// By api; those without traffic are left out.
    pub apis: Vec<ApiRow>,
    /// What the ledger has to do; `None` where there is none.
    pub ledger: Option<LedgerLoad>,
}

/// One api in a scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ApiRow {
    /// Its name.
    pub name: String,
    /// Units of one request.
    pub weight: Units,
    /// Requests that were counted.
    pub offered: u64,
    /// Those of them that were refused.
    pub refused: u64,
    /// Refused over offered, 0 to 1.
    pub refused_share: f64,
    /// How long its admitted requests waited; `None` where nobody waits.
    pub wait: Option<Waits>,
}

/// Waits of those that were admitted, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Waits {
    /// Mean.
    pub mean_ms: f64,
    /// Half waited at most so long.
    pub p50_ms: f64,
    /// 99 in 100 waited at most so long.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// Work of a shared ledger.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LedgerLoad {
    /// Script calls per second: one per exchange.
    pub commands_per_s: f64,
    /// Messages to other gates per second, published by these calls.
    pub pushes_per_s: f64,
    /// Balances of pods and apis written per second.
    pub balances_per_s: f64,
    /// Script calls per 1,000 requests.
    pub commands_per_1000: f64,
}

impl Row {
    /// The mean of this and one more run of a scenario in which nobody waits.
    pub(crate) fn and(mut self, other: &Row) -> Row {
        let runs = f64::from(self.runs);
        let mean = |all: f64, one: f64| (all * runs + one) / (runs + 1.0);
        self.offered += other.offered;
        self.refused += other.refused;
        self.refused_share = share(self.refused, self.offered);
        let errors = self.refused_share_error.zip(other.refused_share_error);
        self.refused_share_error = errors.map(|(all, one)| (all * runs).hypot(one) / (runs + 1.0));
        self.utilisation = mean(self.utilisation, other.utilisation);
        for api in &mut self.apis {
            let Some(one) = other.apis.iter().find(|one| one.name == api.name) else { continue };
            api.offered += one.offered;
            api.refused += one.refused;
            api.refused_share = share(api.refused, api.offered);
        }
        self.runs += 1;
        self
    }
}

impl Waits {
    pub(crate) fn of(waits: &Histogram) -> Waits {
        Waits {
            mean_ms: waits.mean_us() / 1e3,
            p50_ms: waits.quantile_us(0.5) as f64 / 1e3,
            p99_ms: waits.quantile_us(0.99) as f64 / 1e3,
            max_ms: waits.max_us() as f64 / 1e3,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct ApiTally {
    offered: u64,
    refused: u64,
    waits: Histogram,
}

/// Counts what becomes of each arrival, those of the warm-up apart.
pub(crate) struct Tally<'a> {
    traffic: &'a Traffic,
    apis: Vec<ApiTally>,
    waits: Histogram,
    /// Offered and refused by part of the run.
    batches: Vec<(u64, u64)>,
    /// Units times microseconds in use between the first and the last arrival that count.
    unit_us: u128,
}

impl<'a> Tally<'a> {
    pub(crate) fn new(traffic: &'a Traffic, apis: usize) -> Tally<'a> {
        Tally {
            traffic,
            apis: vec![ApiTally::default(); apis],
            waits: Histogram::default(),
            batches: vec![(0, 0); BATCHES],
            unit_us: 0,
        }
    }

    /// Arrival `index` was admitted after so many microseconds, or refused.
    pub(crate) fn decide(&mut self, index: usize, waited_us: Option<u64>) {
        let arrival = &self.traffic.arrivals[index];
        if let Some(waited_us) = waited_us {
            let held_us = self.traffic.inside_us(arrival.at_us + waited_us, arrival.hold_us);
            self.unit_us += u128::from(arrival.weight) * u128::from(held_us);
        }
        let Some(counted) = index.checked_sub(self.traffic.warm) else { return };
        let of_all = self.traffic.arrivals.len() - self.traffic.warm;
        let batch = &mut self.batches[counted * BATCHES / of_all];
        let api = &mut self.apis[arrival.api];
        api.offered += 1;
        batch.0 += 1;
        match waited_us {
            None => {
                api.refused += 1;
                batch.1 += 1;
            }
            Some(waited_us) => {
                api.waits.add(waited_us);
                self.waits.add(waited_us);
            }
        }
    }

    pub(crate) fn row(&self, policy: &Policy, waits: bool) -> Row {
        let (first, last) = self.traffic.window_us();
        let span_us = (last - first).max(1) as f64;
        let offered = self.apis.iter().map(|api| api.offered).sum();
        let refused = self.apis.iter().map(|api| api.refused).sum();
        let apis = policy.apis.iter().zip(&self.apis).filter(|(_, api)| api.offered > 0);
        let api = |(rule, api): (&sluicegate_core::policy::ApiPolicy, &ApiTally)| ApiRow {
            name: rule.name.clone(),
            weight: rule.weight,
            offered: api.offered,
            refused: api.refused,
            refused_share: share(api.refused, api.offered),
            wait: waits.then(|| Waits::of(&api.waits)),
        };
        Row {
            key: String::new(),
            title: String::new(),
            configured: false,
            exact: false,
            runs: 1,
            offered,
            refused,
            refused_share: share(refused, offered),
            refused_share_error: self.error(),
            utilisation: self.unit_us as f64 / (f64::from(capacity(policy).max(1)) * span_us),
            wait: waits.then(|| Waits::of(&self.waits)),
            apis: apis.map(api).collect(),
            ledger: None,
        }
    }

    fn error(&self) -> Option<f64> {
        if self.batches.iter().any(|(offered, _)| *offered < 50) {
            return None;
        }
        let shares: Vec<f64> =
            self.batches.iter().map(|(offered, refused)| share(*refused, *offered)).collect();
        let count = shares.len() as f64;
        let mean = shares.iter().sum::<f64>() / count;
        let variance = shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / (count - 1.0);
        // Student's t of 19 degrees of freedom.
        Some(2.09 * (variance / count).sqrt())
    }
}

pub(crate) fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
