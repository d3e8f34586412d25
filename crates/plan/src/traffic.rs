//! The traffic of a plan: made from rates and service times, or taken from a trace.

use std::sync::Arc;

use fastrand::Rng;
use sluicegate_config::Fault;
use sluicegate_core::policy::{Policy, Units};
use sluicegate_sim::kaufman_roberts::Class;
use sluicegate_sim::{ApiLoad, Arrival, Load, Service};

use crate::trace::Trace;
use crate::words::{ServiceOf, ShareOf, fault};

/// Load of a plan that is told neither a rate nor a load.
pub const LOAD_DEFAULT: f64 = 0.9;
/// Service time of an api that none is given for.
pub const SERVICE_DEFAULT: Service = Service::Exponential(100_000);
/// Fewest arrivals of a run, unless told otherwise: a share of 1 % is then good to some per cent.
const ARRIVALS_MIN: usize = 200_000;
/// Most arrivals of a run; each takes 32 bytes.
const ARRIVALS_MAX: usize = 50_000_000;
/// A run is at least so many times as long as a mean hold, and counts nothing in the first tenth of that: a pool
/// that begins empty refuses too little.
const HOLDS: f64 = 100.0;
/// And so many times as long as the longest wait, up to [`ARRIVALS_FOR_WAITS`]: a queue that only grows refuses nobody
/// before the first wait is over.
pub(crate) const WAITS: f64 = 5.0;
const ARRIVALS_FOR_WAITS: f64 = 2e6;

/// Traffic as it is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Requests per second of all apis together.
    pub rps: Option<f64>,
    /// Offered units over the pool's units; scales rates, or the time of a trace.
    pub load: Option<f64>,
    /// Parts of the requests; apis that are not named get none. Empty: equal units in use of all.
    pub shares: Vec<ShareOf>,
    /// Service times.
    pub services: Vec<ServiceOf>,
    /// Arrivals of each run.
    pub arrivals: Option<usize>,
    /// Drives everything.
    pub seed: u64,
}

/// What one api asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stream {
    /// Index into the policy's apis.
    pub api: usize,
    /// Requests per second.
    pub per_s: f64,
    /// Mean hold, microseconds.
    pub mean_us: f64,
}

/// Arrivals that every scenario is put through.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// In order of time.
    pub arrivals: Arc<[Arrival]>,
    /// The first so many are not counted: the pool fills.
    pub warm: usize,
    /// What each api asks for.
    pub streams: Vec<Stream>,
    /// Whether arrivals are Poisson, so that exact formulas hold.
    pub is_poisson: bool,
    /// What was assumed, in sentences for the reader.
    pub notes: Vec<String>,
    /// How it was made, to make it again at another load.
    origin: Origin,
}

#[derive(Clone, Debug)]
enum Origin {
    Made { load: Load, arrivals: usize, seed: u64 },
    Recorded,
}

impl Traffic {
    /// Poisson arrivals of the apis of `policy` that are not exempt.
    ///
    /// # Errors
    /// A share or a service names no such api, a rate or load is not above 0, or the run would be too long.
    pub fn made(policy: &Policy, wanted: &Wanted) -> Result<Traffic, Fault> {
        let shares = shares(policy, wanted)?;
        let mut notes = Vec::new();
        let mut apis = Vec::new();
        for (api, share) in shares {
            let service = service_of(policy, wanted, api)?;
            let weight = policy.apis[api].weight;
            // Equal Erlangs without shares, as in the tables of the documents.
            let per_s = share.unwrap_or(1e6 / service.mean_us() as f64);
            apis.push(ApiLoad { api, weight, per_s, service });
        }
        if wanted.shares.is_empty() {
            notes.push("no --share: every api has as many requests in progress as any other".to_owned());
        }
        if wanted.services.is_empty() {
            notes.push("no --service: service times are exponential with a mean of 100 ms".to_owned());
        }
        let sum: f64 = apis.iter().map(|api| api.per_s).sum();
        let units: f64 = apis.iter().map(units_of).sum();
        let capacity = capacity(policy) as f64;
        let factor = match (wanted.load, wanted.rps) {
            (Some(load), _) => above_0("load", load)? * capacity / units,
            (None, Some(rps)) => above_0("rps", rps)? / sum,
            (None, None) => {
                notes.push(format!("neither --rps nor --load: the load is {LOAD_DEFAULT}"));
                LOAD_DEFAULT * capacity / units
            }
        };
        apis.iter_mut().for_each(|api| api.per_s *= factor);
        let load = Load { apis, recorded: None };
        let arrivals = match wanted.arrivals {
            Some(arrivals) => arrivals,
            None => {
                let for_waits = (WAITS * longest_wait_s(policy) * per_s(&load)).min(ARRIVALS_FOR_WAITS);
                (HOLDS * running(&load)).max(for_waits).ceil().max(ARRIVALS_MIN as f64) as usize
            }
        };
        let span_s = arrivals as f64 / per_s(&load);
        if span_s < WAITS * longest_wait_s(policy) {
            notes.push(format!(
                "each run is {span_s:.1} s long, under {WAITS} times the longest wait: an overload is shown too mild; \
                 more by --arrivals"
            ));
        }
        if arrivals == 0 || arrivals > ARRIVALS_MAX {
            let what = format!("{arrivals} arrivals in each run; possible are 1 to {ARRIVALS_MAX}");
            return Err(fault(what, "say how many by --arrivals"));
        }
        Ok(Traffic::of_load(load, arrivals, wanted.seed, notes))
    }

    fn of_load(load: Load, arrivals: usize, seed: u64, notes: Vec<String>) -> Traffic {
        let warm = (HOLDS / 10.0 * running(&load)).ceil() as usize;
        let stream =
            |api: &ApiLoad| Stream { api: api.api, per_s: api.per_s, mean_us: api.service.mean_us() as f64 };
        Traffic {
            arrivals: calibrated(&load, load.arrivals(seed).take(arrivals).collect()).into(),
            warm: warm.min(arrivals / 10),
            streams: load.apis.iter().map(stream).collect(),
            is_poisson: true,
            notes,
            origin: Origin::Made { load, arrivals, seed },
        }
    }

    /// The requests of a trace. Holds that the trace does not know (refused requests, or none recorded) are drawn:
    /// from the api's own requests, else from `wanted.services`. A load scales the trace's time.
    ///
    /// # Errors
    /// Nothing in the trace holds units, an api has no hold to draw from, or an option names no api.
    pub fn traced(policy: &Policy, trace: &Trace, wanted: &Wanted) -> Result<Traffic, Fault> {
        if !wanted.shares.is_empty() || wanted.rps.is_some() {
            let mend = "leave out --share and --rps; --load scales the trace";
            return Err(fault("a trace has rates and shares of its own", mend));
        }
        let (arrivals, notes) = recorded(policy, trace, wanted)?;
        let first = arrivals.first().map_or(0, |one| one.at_us);
        if arrivals.last().is_none_or(|last| last.at_us == first) {
            let mend = "give a trace of at least two requests at different times";
            return Err(fault("the trace shows no rate", mend));
        }
        let traffic = Traffic::of_arrivals(policy, arrivals, notes);
        match wanted.load {
            Some(load) => Ok(traffic.at_load(policy, above_0("load", load)?)),
            None => Ok(traffic),
        }
    }

    fn of_arrivals(policy: &Policy, mut arrivals: Vec<Arrival>, notes: Vec<String>) -> Traffic {
        arrivals.sort_by_key(|arrival| arrival.at_us);
        let first = arrivals.first().map_or(0, |one| one.at_us);
        arrivals.iter_mut().for_each(|arrival| arrival.at_us -= first);
        let span_s = arrivals.last().map_or(1.0, |last| last.at_us.max(1) as f64 / 1e6);
        let mut sums = vec![(0u64, 0.0); policy.apis.len()];
        for arrival in &arrivals {
            sums[arrival.api].0 += 1;
            sums[arrival.api].1 += arrival.hold_us as f64;
        }
        let stream = |(api, (count, sum)): (usize, (u64, f64))| Stream {
            api,
            per_s: count as f64 / span_s,
            mean_us: sum / count as f64,
        };
        let there = sums.into_iter().enumerate().filter(|(_, (count, _))| *count > 0);
        Traffic {
            arrivals: arrivals.into(),
            warm: 0,
            streams: there.map(stream).collect(),
            is_poisson: false,
            notes,
            origin: Origin::Recorded,
        }
    }

    /// Offered units over the units of the pool.
    #[must_use]
    pub fn load(&self, policy: &Policy) -> f64 {
        let units =
            |stream: &Stream| f64::from(policy.apis[stream.api].weight) * stream.per_s * stream.mean_us / 1e6;
        self.streams.iter().map(units).sum::<f64>() / capacity(policy).max(1) as f64
    }

    /// When the first and the last arrival that count come, microseconds.
    pub(crate) fn window_us(&self) -> (u64, u64) {
        let first = self.arrivals.get(self.warm).map_or(0, |one| one.at_us);
        (first, self.arrivals.last().map_or(first, |one| one.at_us))
    }

    /// How much of a hold that begins at `start_us` lies between them.
    pub(crate) fn inside_us(&self, start_us: u64, hold_us: u64) -> u64 {
        let (first, last) = self.window_us();
        (start_us + hold_us).min(last).saturating_sub(start_us.max(first))
    }

    /// Requests per second.
    #[must_use]
    pub fn per_s(&self) -> f64 {
        self.streams.iter().map(|stream| stream.per_s).sum()
    }

    /// The same mix of requests at another load: rates are scaled, or a trace's time.
    #[must_use]
    pub fn at_load(&self, policy: &Policy, load: f64) -> Traffic {
        let factor = load / self.load(policy);
        match &self.origin {
            Origin::Made { load, arrivals, seed } => {
                let mut load = load.clone();
                load.apis.iter_mut().for_each(|api| api.per_s *= factor);
                Traffic::of_load(load, *arrivals, *seed, self.notes.clone())
            }
            Origin::Recorded => {
                let faster = |one: &Arrival| Arrival { at_us: (one.at_us as f64 / factor) as u64, ..*one };
                let arrivals = self.arrivals.iter().map(faster).collect();
                Traffic::of_arrivals(policy, arrivals, self.notes.clone())
            }
        }
    }

    /// Other arrivals of the same kind; `None` for a trace, which has no others.
    pub(crate) fn other(&self, number: u64) -> Option<Traffic> {
        let Origin::Made { load, arrivals, seed } = &self.origin else { return None };
        // Far from the seeds that people count up.
        let seed = seed.wrapping_add(number << 40);
        Some(Traffic::of_load(load.clone(), *arrivals, seed, self.notes.clone()))
    }

    /// The same requests with another weight of one api.
    #[must_use]
    pub fn with_weight(&self, api: usize, weight: Units) -> Traffic {
        let other = |one: &Arrival| if one.api == api { Arrival { weight, ..*one } } else { *one };
        Traffic { arrivals: self.arrivals.iter().map(other).collect(), ..self.clone() }
    }

    /// The streams as classes of the Kaufman-Roberts recursion, in their order.
    #[must_use]
    pub fn classes(&self, policy: &Policy) -> Vec<Class> {
        let class = |stream: &Stream| Class {
            weight: policy.apis[stream.api].weight,
            erlangs: stream.per_s * stream.mean_us / 1e6,
        };
        self.streams.iter().map(class).collect()
    }
}

/// Holds and times scaled so that the run has the mean holds and the rate that were asked for. Near saturation a load
/// that is 0.2 % off moves the share of 429s by some 3 %; drawn 10^6 times it is off by that much.
fn calibrated(load: &Load, mut arrivals: Vec<Arrival>) -> Vec<Arrival> {
    /// More than this is no scatter, and scaling would make other traffic of it.
    const MOST: f64 = 0.1;
    let believed = |factor: f64| if (factor - 1.0).abs() <= MOST { factor } else { 1.0 };
    let mut sums = vec![(0.0, 0.0); load.apis.iter().map(|api| api.api + 1).max().unwrap_or(0)];
    for arrival in &arrivals {
        sums[arrival.api].0 += 1.0;
        sums[arrival.api].1 += arrival.hold_us as f64;
    }
    let mut factors = vec![1.0; sums.len()];
    for api in &load.apis {
        let (count, sum) = sums[api.api];
        factors[api.api] = believed(count * api.service.mean_us() as f64 / f64::max(sum, 1.0));
    }
    let span_us = arrivals.last().map_or(0, |last| last.at_us).max(1) as f64;
    let slower = believed(arrivals.len() as f64 * 1e6 / per_s(load) / span_us);
    for arrival in &mut arrivals {
        arrival.at_us = (arrival.at_us as f64 * slower) as u64;
        arrival.hold_us = ((arrival.hold_us as f64 * factors[arrival.api]).round() as u64).max(1);
    }
    arrivals
}

/// Declared units of the pods that are not draining, capped by `admission.capacity`.
pub(crate) fn capacity(policy: &Policy) -> Units {
    let sum = policy.pods.iter().filter(|pod| !pod.draining).map(|pod| pod.capacity).sum();
    policy.admission.capacity.map_or(sum, |cap| cap.floor_of(sum)).min(sum)
}

fn units_of(api: &ApiLoad) -> f64 {
    f64::from(api.weight) * api.per_s * api.service.mean_us() as f64 / 1e6
}

/// Mean number of requests in progress if none were refused.
fn running(load: &Load) -> f64 {
    load.apis.iter().map(|api| api.per_s * api.service.mean_us() as f64 / 1e6).sum()
}

fn per_s(load: &Load) -> f64 {
    load.apis.iter().map(|api| api.per_s).sum()
}

/// Longest wait of the apis that hold units, seconds.
pub(crate) fn longest_wait_s(policy: &Policy) -> f64 {
    let waits = policy.apis.iter().filter(|api| !api.exempt).map(|api| api.wait_us);
    waits.max().unwrap_or(0) as f64 / 1e6
}

fn above_0(name: &str, value: f64) -> Result<f64, Fault> {
    if value.is_finite() && value > 0.0 {
        Ok(value)
    } else {
        Err(fault(format!("--{name} {value}"), "give a number above 0"))
    }
}

/// Index of a named api that holds units.
pub(crate) fn api_named(policy: &Policy, name: &str) -> Result<usize, Fault> {
    let found = policy.apis.iter().position(|api| api.name == name);
    let names: Vec<&str> =
        policy.apis.iter().filter(|api| !api.exempt).map(|api| api.name.as_str()).collect();
    let mend = format!("name one of: {}", names.join(", "));
    match found {
        None => Err(fault(format!("the configuration has no api `{name}`"), mend)),
        Some(api) if policy.apis[api].exempt => {
            Err(fault(format!("api `{name}` is exempt: it holds no units"), mend))
        }
        Some(api) => Ok(api),
    }
}

/// Who sends, and its part if parts are given. Without shares api `default` sends nothing where there are others:
/// the file seldom means it.
fn shares(policy: &Policy, wanted: &Wanted) -> Result<Vec<(usize, Option<f64>)>, Fault> {
    if wanted.shares.is_empty() {
        let holds: Vec<usize> = (0..policy.apis.len()).filter(|api| !policy.apis[*api].exempt).collect();
        let named: Vec<usize> =
            holds.iter().copied().filter(|api| policy.apis[*api].name != "default").collect();
        let senders = if named.is_empty() { holds } else { named };
        if senders.is_empty() {
            return Err(fault("every api is exempt: nothing holds units", "plan for a pool with weights"));
        }
        return Ok(senders.into_iter().map(|api| (api, None)).collect());
    }
    let mut shares: Vec<(usize, Option<f64>)> = Vec::new();
    for ShareOf { api, share } in &wanted.shares {
        let index = api_named(policy, api)?;
        if shares.iter().any(|(other, _)| *other == index) {
            return Err(fault(format!("api `{api}` has two shares"), "give each api one"));
        }
        shares.push((index, Some(*share)));
    }
    Ok(shares)
}

fn service_of(policy: &Policy, wanted: &Wanted, api: usize) -> Result<Service, Fault> {
    given_service(policy, wanted, api).map(|given| given.unwrap_or(SERVICE_DEFAULT))
}

fn given_service(policy: &Policy, wanted: &Wanted, api: usize) -> Result<Option<Service>, Fault> {
    let mut general = None;
    let mut own = None;
    for ServiceOf { api: of, service } in &wanted.services {
        match of {
            None => general = Some(*service),
            Some(name) if api_named(policy, name)? == api => own = Some(*service),
            Some(_) => {}
        }
    }
    Ok(own.or(general))
}

/// The trace as arrivals, in any order.
fn recorded(policy: &Policy, trace: &Trace, wanted: &Wanted) -> Result<(Vec<Arrival>, Vec<String>), Fault> {
    let mut notes = trace.notes.clone();
    let mut known: Vec<Vec<u64>> = vec![Vec::new(); policy.apis.len()];
    for row in &trace.rows {
        known[row.api].extend(row.hold_us);
    }
    let mut random = Rng::with_seed(wanted.seed);
    let mut drawn = 0usize;
    let mut exempt = 0usize;
    let mut arrivals = Vec::with_capacity(trace.rows.len());
    for row in &trace.rows {
        let rule = &policy.apis[row.api];
        if rule.exempt {
            exempt += 1;
            continue;
        }
        let hold_us = match row.hold_us {
            Some(hold_us) => hold_us,
            None => {
                drawn += 1;
                let own = &known[row.api];
                match given_service(policy, wanted, row.api)? {
                    Some(service) => service.draw(&mut random),
                    None if own.is_empty() => {
                        let what = format!("no request of api `{}` has a duration", rule.name);
                        return Err(fault(
                            what,
                            format!("log durations, or give --service {}=exp:100ms", rule.name),
                        ));
                    }
                    None => own[random.usize(..own.len())],
                }
            }
        };
        let hold_us = hold_us.max(1);
        arrivals.push(Arrival { at_us: row.at_us, api: row.api, weight: rule.weight, hold_us });
    }
    if exempt > 0 {
        notes.push(format!("{exempt} requests of exempt apis were left out: they hold no units"));
    }
    if drawn > 0 {
        notes.push(format!(
            "{drawn} requests that were refused or have no duration hold a drawn one of the same api"
        ));
    }
    if arrivals.is_empty() {
        return Err(fault("the trace has no request that holds units", "give another trace"));
    }
    Ok((arrivals, notes))
}
