//! Sizing of a pool before it stands: the user's own rules and traffic, simulated with the real core.
//!
//! ```
//! use sluicegate_plan::{Options, Silent, Traffic, Wanted, plan};
//!
//! let text = r#"
//! pool: shop
//! pods: [{name: a, url: "http://127.0.0.1:1", capacity: 20}, {name: b, url: "http://127.0.0.1:2", capacity: 20}]
//! apis: [{name: quote, match: "GET /q"}, {name: report, match: "GET /r", weight: 3}]
//! "#;
//! let config = sluicegate_config::parse("shop.yaml", text, &|_| None).unwrap().config;
//! let wanted = Wanted { load: Some(0.7), arrivals: Some(2_000), seed: 1, ..Wanted::default() };
//! let traffic = Traffic::made(&config.policy, &wanted).unwrap();
//! let plan = plan(&config, &traffic, None, &Options::default(), &Silent).unwrap();
//! let share = |key: &str| plan.row(key).unwrap().refused_share;
//! assert!(share("pooled") < share("alone_random"));
//! println!("{plan}");
//! ```
//!
//! - [`Traffic`]: made of rates and service times, or from a [`Trace`].
//! - [`plan`]: every scenario under the same arrivals, and what to change ([`Plan`]). Each claim comes from a run made for it.
//! - [`html::page`] and `Display` of [`Plan`]: the same for people; `Serialize` for programs.
//!
//! **Invariant:** the same seed and options give the same plan on any machine and any number of threads. **Absent:** any
//! file, clock or network access; the command line reads and writes.

mod advice;
mod gates;
pub mod html;
mod judge;
mod pods;
mod row;
mod scenario;
mod sweep;
mod table;
mod trace;
mod traffic;
mod weights;
mod words;
mod workers;

use std::sync::Arc;

use serde::Serialize;
use sluicegate_config::{Config, Fault, LedgerSettings};
use sluicegate_core::policy::{Amount, Mode, Policy, Trickle};
use sluicegate_sim::Balance;

pub use advice::{About, Finding};
use gates::Shared;
pub use row::{ApiRow, LedgerLoad, Row, Waits};
use scenario::{Job, Kind};
pub use sweep::{SweepPoint, Sweeping};
pub use trace::{CostKind, Row as TraceRow, Trace};
pub use traffic::{LOAD_DEFAULT, SERVICE_DEFAULT, Stream, Traffic, Wanted};
pub use weights::{SuggestedWeight, Suggestion, suggest};
pub use words::{Over, ServiceOf, ShareOf, Sweep, duration};
pub use workers::{Progress, Silent};

/// How to plan.
#[derive(Clone, Debug)]
pub struct Options {
    /// Gates of the scenario with a shared ledger, at least 1.
    pub gates: usize,
    /// Round trip between a gate and its ledger, microseconds.
    pub rtt_us: u64,
    /// Share of requests that may be answered 429, 0 to 1; what is advised keeps it.
    pub target: f64,
    /// Runs at a time, at least 1.
    pub threads: usize,
    /// Also the pool cut into so many cells.
    pub cells: Option<usize>,
    /// What is varied.
    pub sweep: Option<Sweep>,
    /// Keys of the only scenarios to run, such as `pooled_no_wait`; then nothing is advised. Empty: all.
    pub only: Vec<String>,
    /// Drives what the arrivals do not.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            gates: 4,
            rtt_us: 500,
            target: 0.001,
            threads: 1,
            cells: None,
            sweep: None,
            only: Vec::new(),
            seed: 1,
        }
    }
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Name of the pool.
    pub pool: String,
    /// Pods of the configuration.
    pub pods: usize,
    /// Units of the pool.
    pub capacity: u32,
    /// Requests per second.
    pub requests_per_s: f64,
    /// Offered units over the pool's units.
    pub load: f64,
    /// Requests of each run, warm-up included.
    pub arrivals: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Share of requests that may be answered 429.
    pub target: f64,
    /// What was assumed.
    pub notes: Vec<String>,
    /// The scenarios.
    pub scenarios: Vec<Row>,
    /// What to change, in one sentence; `None` with [`Options::only`].
    pub change: Option<String>,
    /// What else the runs show, each from a run made for it.
    pub findings: Vec<Finding>,
    /// The sweep, if one was asked for.
    pub sweep: Option<Sweeping>,
    /// Weights by measured cost, from a trace.
    pub weights: Option<Suggestion>,
}

impl Plan {
    /// The scenario of this key.
    #[must_use]
    pub fn row(&self, key: &str) -> Option<&Row> {
        self.scenarios.iter().find(|row| row.key == key)
    }

    /// The scenario that the configuration describes.
    #[must_use]
    pub fn configured(&self) -> Option<&Row> {
        self.scenarios.iter().find(|row| row.configured)
    }
}

/// Simulates `traffic` under `config` in every scenario, and looks for what to change. `trace`, where there is one, is
/// asked for weights.
///
/// # Errors
/// The configuration's pods are not known, an option is out of range, or a rule cannot be obeyed.
pub fn plan(
    config: &Config,
    traffic: &Traffic,
    trace: Option<&Trace>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Plan, Fault> {
    let policy = planned(config, options)?;
    let mut notes = traffic.notes.clone();
    if config.policy.admission.mode != Mode::Enforce {
        notes.push("the configuration does not enforce; planned as if it did".to_owned());
    }
    let load = traffic.load(&policy);
    if load > 5.0 {
        notes.push(format!("the load is {load:.0}: check the unit of the durations"));
    }
    let all = scenarios(config, &policy, traffic, options);
    let configured = configured_key(config, &policy);
    let jobs = chosen(all, &options.only)?;
    // Of the configured scenario all sentences speak, so it stays under their arrivals.
    let run = |job: &Job| {
        let first = job.run()?;
        let more = if job.key == configured { first.clone() } else { job.run_more(first.clone())? };
        Ok((first, more))
    };
    let answers = workers::all(&jobs, options.threads, progress, run);
    let answers = answers.into_iter().collect::<Result<Vec<(Row, Row)>, Fault>>()?;
    let (first, mut rows): (Vec<Row>, Vec<Row>) = answers.into_iter().unzip();
    rows.iter_mut().for_each(|row| row.configured = row.key == configured);
    let base = jobs.iter().find(|job| job.key == configured && options.only.is_empty());
    let paired = first.iter().find(|row| row.key == "pooled_no_wait");
    let advice =
        base.zip(paired).map(|(base, paired)| advice::advise(base, &rows, paired, options, progress));
    let advice = advice.transpose()?;
    let sweep = options.sweep.as_ref().map(|sweep| sweep::run(sweep, &jobs, configured, options, progress));
    let weights = trace.map(|trace| suggest(&policy, trace));
    let weights = match weights {
        Some(Err(why)) => {
            notes.push(why);
            None
        }
        other => other.and_then(Result::ok),
    };
    Ok(Plan {
        pool: config.pool.clone(),
        pods: policy.pods.len(),
        capacity: traffic::capacity(&policy),
        requests_per_s: traffic.per_s(),
        load,
        arrivals: traffic.arrivals.len(),
        seed: options.seed,
        target: options.target,
        notes,
        scenarios: rows,
        change: advice.as_ref().map(|advice| advice.change.clone()),
        findings: advice.map_or_else(Vec::new, |advice| advice.findings),
        sweep: sweep.transpose()?,
        weights,
    })
}

/// The rules to plan with: enforced, with pods.
fn planned(config: &Config, options: &Options) -> Result<Policy, Fault> {
    let mut policy = config.policy.clone();
    policy.admission.mode = Mode::Enforce;
    if policy.pods.iter().all(|pod| pod.draining || pod.capacity == 0) {
        let mend = "list pods in a copy of the file, as many as you expect";
        return Err(words::fault("the configuration knows no pod that takes requests", mend));
    }
    if options.gates == 0 || options.threads == 0 {
        return Err(words::fault("0 gates or 0 threads", "give at least 1"));
    }
    if options.cells.is_some_and(|cells| cells == 0 || cells > policy.pods.len()) {
        let what = format!("{} cells of {} pods", options.cells.unwrap_or(0), policy.pods.len());
        return Err(words::fault(what, "a cell has at least one pod"));
    }
    if !(0.0..1.0).contains(&options.target) {
        return Err(words::fault("a target that is no share", "give a share such as 0.1%"));
    }
    Ok(policy)
}

/// Nobody waits; the other rules stay.
pub(crate) fn without_wait(policy: &Policy) -> Policy {
    let mut policy = policy.clone();
    policy.apis.iter_mut().for_each(|api| api.wait_us = 0);
    policy
}

fn without_trickle(policy: &Policy) -> Policy {
    let mut policy = policy.clone();
    policy.admission.trickle = None;
    policy
}

/// The configured trickle, or a tenth of the pool that is entered as fast as a tenth of the offered units ends.
fn with_trickle(policy: &Policy, traffic: &Traffic) -> Policy {
    let mut policy = policy.clone();
    let units_per_s: f64 =
        traffic.streams.iter().map(|stream| f64::from(policy.apis[stream.api].weight) * stream.per_s).sum();
    policy.admission.trickle.get_or_insert(Trickle {
        share: Amount::Share(10_000),
        rate_milli: (units_per_s * 100.0).ceil() as u64,
        ceiling: sluicegate_core::policy::WHOLE,
    });
    policy
}

/// The scenarios of every plan, in the order of the table.
fn scenarios(config: &Config, policy: &Policy, traffic: &Traffic, options: &Options) -> Vec<Job> {
    let shared = Shared::of(config, options.gates, options.rtt_us);
    let traffic = Arc::new(traffic.clone());
    let job = |key: &str, title: String, kind: Kind, policy: Policy| Job {
        key: key.to_owned(),
        title,
        kind,
        policy,
        traffic: Arc::clone(&traffic),
        seed: options.seed,
    };
    let alone = |key, words: &str, balance| {
        job(key, format!("each pod alone, {words}"), Kind::Alone(balance), policy.clone())
    };
    let plain = without_trickle(policy);
    let hybrid = with_trickle(policy, &traffic);
    let trickle = hybrid.admission.trickle.map_or_else(String::new, |trickle| {
        format!("{} by {}/s", words_of(trickle.share), (trickle.rate_milli as f64 / 1e3).round())
    });
    let wait = plain.apis.iter().filter(|api| !api.exempt).map(|api| api.wait_us).max().unwrap_or(0);
    let rtt_ms = options.rtt_us as f64 / 1e3;
    let gates = format!("{} gates over Redis, round trip {rtt_ms} ms", options.gates);
    let mut jobs = vec![
        alone("alone_random", "random", Balance::Random),
        alone("alone_round_robin", "round robin", Balance::RoundRobin),
        alone("alone_least_connections", "least connections", Balance::LeastConnections),
    ];
    if traffic.is_poisson {
        let title = "one big pod, no waiting (Kaufman-Roberts)".to_owned();
        jobs.push(job("one_big_pod", title, Kind::Exact, plain.clone()));
    }
    jobs.push(job("pooled_no_wait", "pooled, no waiting".to_owned(), Kind::Core, without_wait(&plain)));
    jobs.push(job("pooled", format!("pooled, wait {}", table::span(wait)), Kind::Core, plain));
    jobs.push(job("hybrid", format!("hybrid, trickle {trickle}"), Kind::Core, hybrid));
    jobs.push(job("gates", gates, Kind::Gates(shared), policy.clone()));
    if let Some(cells) = options.cells {
        jobs.push(job("cells", format!("cut into {cells} cells"), Kind::Cells(cells), policy.clone()));
    }
    jobs
}

/// Those of `all` that are wanted.
fn chosen(all: Vec<Job>, only: &[String]) -> Result<Vec<Job>, Fault> {
    if let Some(stranger) = only.iter().find(|key| all.iter().all(|job| job.key != **key)) {
        let keys: Vec<&str> = all.iter().map(|job| job.key.as_str()).collect();
        let mend = format!("name some of: {}", keys.join(", "));
        return Err(words::fault(format!("there is no scenario `{stranger}` here"), mend));
    }
    Ok(all.into_iter().filter(|job| only.is_empty() || only.contains(&job.key)).collect())
}

/// Which scenario the configuration describes.
fn configured_key(config: &Config, policy: &Policy) -> &'static str {
    match (&config.ledger, policy.admission.trickle) {
        (LedgerSettings::Redis(_), _) => "gates",
        (LedgerSettings::Memory, Some(_)) => "hybrid",
        (LedgerSettings::Memory, None) => "pooled",
    }
}

/// `12` or `5 %`.
pub(crate) fn words_of(amount: Amount) -> String {
    match amount {
        Amount::Units(units) => units.to_string(),
        Amount::Share(share) => format!("{} %", f64::from(share) / 1e3),
    }
}
