//! Several gates over one ledger. The only place that knows the simulator's shared pool.

use sluicegate_config::{Config, LedgerSettings};
use sluicegate_core::member::OnLoss;
use sluicegate_core::policy::{Policy, PolicyError};
use sluicegate_core::shared::{Rules, Timing};
use sluicegate_sim::Load;
use sluicegate_sim::network::Network;
use sluicegate_sim::pool_world::{self, Outcome, Setup};

use crate::row::{ApiRow, LedgerLoad, Row, Waits, share};
use crate::traffic::{Traffic, capacity};

/// Gates and the way to their ledger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared {
    pub(crate) gates: usize,
    /// Round trip, microseconds.
    pub(crate) rtt_us: u64,
    pub(crate) timing: Timing,
}

impl Shared {
    /// As the configuration says, or with the default times where it has no shared ledger.
    pub(crate) fn of(config: &Config, gates: usize, rtt_us: u64) -> Shared {
        let apis = config.policy.apis.iter().filter(|api| !api.exempt);
        let mut timing = Timing::of_wait(apis.map(|api| api.wait_us).min().unwrap_or(0));
        if let LedgerSettings::Redis(redis) = &config.ledger {
            timing.ttl_us = redis.ttl.as_micros() as u64;
            timing.pace_us = timing.pace_us.min(redis.pace.as_micros() as u64);
        }
        let holds = config.apis.iter().map(|api| api.max_hold.as_micros() as u64);
        timing.hold_max_us = holds.max().unwrap_or(timing.hold_max_us);
        Shared { gates, rtt_us, timing }
    }
}

pub(crate) fn run(
    policy: &Policy,
    traffic: &Traffic,
    shared: &Shared,
    seed: u64,
) -> Result<Row, PolicyError> {
    let mut timing = shared.timing;
    // Holds of the traffic are not cut: what is longer than max_hold is the pod's to bear.
    let longest = traffic.arrivals.iter().map(|arrival| arrival.hold_us).max().unwrap_or(0);
    timing.hold_max_us = timing.hold_max_us.max(longest);
    let network = Network { delay_us: shared.rtt_us / 2, ..Network::quiet() };
    let setup = Setup {
        policy: policy.clone(),
        gates: shared.gates,
        timing,
        rules: Rules::default(),
        on_loss: OnLoss::Refuse,
        founded: true,
        network,
        load: Load::of_recorded(traffic.arrivals.clone()),
        arrivals: traffic.arrivals.len(),
        faults: Vec::new(),
        seed,
    };
    Ok(row(policy, traffic, &pool_world::run(&setup)?))
}

/// The shared pool counts from its first arrival on. Use is that of mean holds.
fn row(policy: &Policy, traffic: &Traffic, outcome: &Outcome) -> Row {
    let mut means = vec![0.0; policy.apis.len()];
    traffic.streams.iter().for_each(|stream| means[stream.api] = stream.mean_us);
    let by_api = || policy.apis.iter().zip(&outcome.by_api).zip(&means);
    let units_us: f64 = by_api()
        .map(|((rule, (offered, refused)), mean)| (offered - refused) as f64 * f64::from(rule.weight) * mean)
        .sum();
    let span_us = outcome.span_us.max(1) as f64;
    let per_s = |count: u64| count as f64 * 1e6 / span_us;
    let apis = by_api().zip(&outcome.waits_by_api).filter(|(((_, (offered, _)), _), _)| *offered > 0);
    let apis = apis.map(|(((rule, (offered, refused)), _), waited)| ApiRow {
        name: rule.name.clone(),
        weight: rule.weight,
        offered: *offered,
        refused: *refused,
        refused_share: share(*refused, *offered),
        // Also where nobody may wait: it is how long the ledger takes to answer.
        wait: Some(Waits::of(waited)),
    });
    Row {
        key: String::new(),
        title: String::new(),
        configured: false,
        exact: false,
        runs: 1,
        offered: outcome.offered,
        refused: outcome.refused,
        refused_share: outcome.share_refused(),
        refused_share_error: None,
        utilisation: (units_us * inside(traffic) / (f64::from(capacity(policy).max(1)) * span_us)).min(1.0),
        wait: Some(Waits::of(&outcome.waits)),
        apis: apis.collect(),
        ledger: Some(LedgerLoad {
            commands_per_s: per_s(outcome.ledger.exchanges),
            pushes_per_s: per_s(outcome.ledger.pushes),
            balances_per_s: per_s(outcome.ledger.touched),
            commands_per_1000: outcome.exchanges_per_1000(),
        }),
    }
}

/// The part of all holds that ends before the last arrival, if each began at once.
fn inside(traffic: &Traffic) -> f64 {
    let last = traffic.window_us().1;
    let sums = traffic.arrivals.iter().map(|one| {
        let hold = u128::from(one.weight) * u128::from(one.hold_us);
        let inside = one.hold_us.min(last.saturating_sub(one.at_us));
        (u128::from(one.weight) * u128::from(inside), hold)
    });
    let (inside, all) = sums.fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    inside as f64 / (all as f64).max(1.0)
}
