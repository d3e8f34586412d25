//! One scenario: the same arrivals, put through pods alone, the core, many gates, or a formula.

use std::sync::Arc;

use fastrand::Rng;
use sluicegate_config::Fault;
use sluicegate_core::policy::{Amount, PodPolicy, Policy, PolicyError, Units};
use sluicegate_core::refusal::Refusal;
use sluicegate_sim::{Arrival, Balance, Watch, World, each_pod_alone, kaufman_roberts};

use crate::gates::{self, Shared};
use crate::row::{ApiRow, Row, Tally};
use crate::traffic::{Traffic, capacity};
use crate::words::fault;

/// A run, wholly described.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) key: String,
    pub(crate) title: String,
    pub(crate) kind: Kind,
    pub(crate) policy: Policy,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) seed: u64,
}

/// How requests are admitted.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Each pod by its own count.
    Alone(Balance),
    /// One gate over the whole pool.
    Core,
    /// Several gates over one ledger.
    Gates(Shared),
    /// The pool cut into so many that know nothing of each other.
    Cells(usize),
    /// One big pod, nobody waits: the Kaufman-Roberts recursion.
    Exact,
}

impl Job {
    /// The same under other rules.
    pub(crate) fn under(&self, policy: Policy) -> Job {
        Job { policy, ..self.clone() }
    }

    /// Runs it.
    pub(crate) fn run(&self) -> Result<Row, Fault> {
        let Job { policy, traffic, seed, .. } = self;
        let row = match &self.kind {
            Kind::Alone(balance) => alone(policy, traffic, *balance, *seed),
            Kind::Core => core(policy, traffic, *seed),
            Kind::Gates(shared) => gates::run(policy, traffic, shared, *seed),
            Kind::Cells(count) => cells(policy, traffic, *count, *seed),
            Kind::Exact => Ok(exact(policy, traffic)),
        };
        let row = row.map_err(|error| fault(error.to_string(), "correct the configuration"))?;
        Ok(Row { key: self.key.clone(), title: self.title.clone(), ..row })
    }
}

/// A share that is known to this part of itself is good enough: near saturation a load that is 0.2 % off moves it as much.
const SURE: f64 = 0.03;
/// Most runs of one scenario, and most arrivals of all its runs.
const RUNS_MAX: u32 = 8;
const ARRIVALS_MAX: usize = 8_000_000;

impl Job {
    /// `row` with as many more runs, under other arrivals of the same kind, as its scatter needs. Refusals without waiting
    /// come in bursts: one run of 10^6 arrivals at load 0.8 scatters by 3.4 % of its share.
    pub(crate) fn run_more(&self, mut row: Row) -> Result<Row, Fault> {
        let is_quick = matches!(self.kind, Kind::Core | Kind::Alone(_)) && row.wait.is_none();
        let vague = |row: &Row| row.refused_share_error.is_some_and(|error| error > SURE * row.refused_share);
        while is_quick
            && vague(&row)
            && row.runs < RUNS_MAX
            && (row.runs as usize + 1) * self.traffic.arrivals.len() <= ARRIVALS_MAX
        {
            let Some(traffic) = self.traffic.other(u64::from(row.runs)) else { break };
            let other = Job { traffic: Arc::new(traffic), ..self.clone() }.run()?;
            row = row.and(&other);
        }
        Ok(row)
    }
}

fn waits(policy: &Policy) -> bool {
    policy.apis.iter().any(|api| !api.exempt && api.wait_us > 0)
}

fn alone(policy: &Policy, traffic: &Traffic, balance: Balance, seed: u64) -> Result<Row, PolicyError> {
    let pods: Vec<Units> = policy.pods.iter().filter(|pod| !pod.draining).map(|pod| pod.capacity).collect();
    let outcome = each_pod_alone(&traffic.arrivals, &pods, balance, seed);
    let mut tally = Tally::new(traffic, policy.apis.len());
    for (index, served) in outcome.served.iter().enumerate() {
        tally.decide(index, served.then_some(0));
    }
    // The pods know no cap of the pool.
    let mut policy = policy.clone();
    policy.admission.capacity = None;
    Ok(tally.row(&policy, false))
}

/// Tells a tally of what a world decides.
struct Teller<'a, 'b> {
    tally: &'a mut Tally<'b>,
    /// Which arrival of the traffic each arrival of this world is; `None`: the same.
    indices: Option<&'a [usize]>,
}

impl Watch for Teller<'_, '_> {
    fn after(&mut self, _: &World) {}

    fn decided(&mut self, index: usize, _: bool, outcome: Result<u64, Refusal>) {
        let index = self.indices.map_or(index, |indices| indices[index]);
        self.tally.decide(index, outcome.ok());
    }
}

fn core(policy: &Policy, traffic: &Traffic, seed: u64) -> Result<Row, PolicyError> {
    let mut tally = Tally::new(traffic, policy.apis.len());
    let arrivals = traffic.arrivals.iter().copied();
    World::new(policy, seed)?.run_watched(arrivals, &mut Teller { tally: &mut tally, indices: None });
    Ok(tally.row(policy, waits(policy)))
}

/// Pods are dealt to cells in turn, requests at random.
fn cells(policy: &Policy, traffic: &Traffic, count: usize, seed: u64) -> Result<Row, PolicyError> {
    let mut random = Rng::with_seed(seed);
    let mut parts: Vec<(Vec<usize>, Vec<Arrival>)> = vec![Default::default(); count];
    for (index, arrival) in traffic.arrivals.iter().enumerate() {
        let (indices, arrivals) = &mut parts[random.usize(..count)];
        indices.push(index);
        arrivals.push(*arrival);
    }
    let mut tally = Tally::new(traffic, policy.apis.len());
    for (cell, (indices, arrivals)) in parts.into_iter().enumerate() {
        let part = part_of(policy, cell, count);
        let mut teller = Teller { tally: &mut tally, indices: Some(&indices) };
        World::new(&part, seed.wrapping_add(cell as u64))?.run_watched(arrivals, &mut teller);
    }
    Ok(tally.row(policy, waits(policy)))
}

/// The rules of one cell: its pods, and its part of every figure in units.
fn part_of(policy: &Policy, cell: usize, count: usize) -> Policy {
    let divided = |amount: Amount| match amount {
        Amount::Units(units) => Amount::Units(units.div_ceil(count as Units)),
        share => share,
    };
    let mut part = policy.clone();
    part.pods = policy.pods.iter().skip(cell).step_by(count).cloned().collect();
    for api in &mut part.apis {
        api.min = divided(api.min);
        api.max = api.max.map(divided);
    }
    let admission = &mut part.admission;
    admission.capacity = admission.capacity.map(divided);
    admission.reserve = divided(admission.reserve);
    if let Some(trickle) = &mut admission.trickle {
        trickle.share = divided(trickle.share);
        trickle.rate_milli /= count as u64;
    }
    part
}

fn exact(policy: &Policy, traffic: &Traffic) -> Row {
    let classes = traffic.classes(policy);
    let capacity = capacity(policy);
    let shares = kaufman_roberts::blocking(capacity, &classes);
    let streams = || traffic.streams.iter().zip(&classes).zip(&shares);
    let api = |((stream, class), share): ((&crate::Stream, &kaufman_roberts::Class), &f64)| ApiRow {
        name: policy.apis[stream.api].name.clone(),
        weight: class.weight,
        offered: 0,
        refused: 0,
        refused_share: *share,
        wait: None,
    };
    let refused_per_s: f64 = streams().map(|((stream, _), share)| stream.per_s * share).sum();
    let units: f64 =
        streams().map(|((_, class), share)| f64::from(class.weight) * class.erlangs * (1.0 - share)).sum();
    Row {
        key: String::new(),
        title: String::new(),
        configured: false,
        exact: true,
        runs: 1,
        offered: 0,
        refused: 0,
        refused_share: refused_per_s / traffic.per_s().max(f64::MIN_POSITIVE),
        refused_share_error: Some(0.0),
        utilisation: units / f64::from(capacity.max(1)),
        wait: None,
        apis: streams().map(api).collect(),
        ledger: None,
    }
}

/// The same rules with `count` pods: the last of the list are left out, or the last is there more often.
pub(crate) fn with_pods(policy: &Policy, count: usize) -> Policy {
    let mut other = policy.clone();
    other.pods.truncate(count);
    for number in other.pods.len()..count {
        if let Some(last) = policy.pods.last() {
            other.pods.push(PodPolicy { name: format!("{}+{number}", last.name), ..last.clone() });
        }
    }
    other
}
