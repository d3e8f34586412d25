//! An open-loop load over several gateways, led as a balancer leads it: away from a gateway that is gone.

use std::net::SocketAddr;
use std::time::Duration;

use sluicegate_testkit::buckets::Buckets;
use sluicegate_trial::load::{Plan, RunOptions, Sample, Service, Shape, run};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::rig::{CAPACITY, PODS};

/// Units offered over the units of the pool.
pub(crate) const LOAD: f64 = 0.9;
/// Mean work of a short request. The requests of 100 ms at this load are some 900 a second.
const SHORT_MS: f64 = 100.0;
/// One request of so many is long, where some are.
const LONG_ONE_IN: f64 = 10.0;
/// Units of the kinds of requests; all come equally often.
const WEIGHTS: [u32; 3] = [1, 2, 3];
/// Width of the slices in which refusals are counted.
const SLICE: Duration = Duration::from_millis(250);
/// Connections are made anew so often. The gateway closes one that was idle for 10 s, and a request that is sent at that
/// moment gets no answer, which would be nobody's fault.
const CONNECTED_MAX: Duration = Duration::from_secs(8);
/// A client gives up after so long; more than any work or pause here.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the requests work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Exponential, mean 100 ms.
    Short,
    /// The same, and a tenth of the requests work for this time.
    SomeLong(Duration),
}

impl Work {
    /// No request works longer (a short one with a chance of 2 in 10^9).
    pub(crate) fn longest(self) -> Duration {
        match self {
            Work::Short => Duration::from_secs(2),
            Work::SomeLong(long) => long + Duration::from_secs(1),
        }
    }

    /// Kinds of requests that together offer this part of the whole load.
    fn shapes(self, part: f64) -> Vec<Shape> {
        let short = Service::Exponential { mean_ms: SHORT_MS };
        let (kinds, mean_ms) = match self {
            Work::Short => (vec![(1.0, short)], SHORT_MS),
            Work::SomeLong(long) => {
                let (ms, share) = (long.as_secs_f64() * 1000.0, 1.0 / LONG_ONE_IN);
                let kinds = vec![(1.0 - share, short), (share, Service::Fixed { ms })];
                (kinds, SHORT_MS * (1.0 - share) + ms * share)
            }
        };
        let units: u32 = WEIGHTS.iter().sum();
        let offered = LOAD * part * f64::from(CAPACITY) * PODS as f64;
        let rate_per_s = offered / f64::from(units) / (mean_ms / 1000.0);
        let shape = |weight: u32, (share, service): (f64, Service)| Shape {
            method: "GET".to_owned(),
            path: format!("/w/{weight}"),
            weight,
            rate_per_s: rate_per_s * share,
            service,
        };
        let of_kind = |kind| WEIGHTS.iter().map(move |weight| shape(*weight, kind));
        kinds.into_iter().flat_map(of_kind).collect()
    }
}

/// One request: through which gateway, when sent after the start, and what became of it.
pub(crate) struct Seen {
    pub(crate) gate: usize,
    pub(crate) sent_us: u64,
    pub(crate) sample: Sample,
}

/// The load of one case. Dropping it breaks off what runs.
pub(crate) struct Load {
    work: Work,
    start: Instant,
    seed: u64,
    runs: JoinSet<Vec<Seen>>,
}

impl Load {
    pub(crate) fn start(work: Work, seed: u64) -> Load {
        Load { work, start: Instant::now(), seed, runs: JoinSet::new() }
    }

    /// Sends the whole load from one time after the start to another, equally to these gateways.
    pub(crate) fn send(&mut self, gates: &[(usize, SocketAddr)], from: Duration, to: Duration) {
        let mut begin = from;
        while begin < to {
            let end = to.min(begin + CONNECTED_MAX);
            for (gate, addr) in gates.iter().copied() {
                self.send_one(gate, addr, 1.0 / gates.len() as f64, (begin, end));
            }
            begin = end;
        }
    }

    /// Sends this part of the load to one gateway, on connections of its own.
    fn send_one(&mut self, gate: usize, addr: SocketAddr, part: f64, (from, to): (Duration, Duration)) {
        self.seed += 1;
        let plan = Plan { apis: self.work.shapes(part), seconds: (to - from).as_secs_f64(), seed: self.seed };
        let begin = self.start + from;
        self.runs.spawn(async move {
            sleep_until(begin).await;
            let options = RunOptions { connections_ahead: 4, timeout: PATIENCE, ..RunOptions::default() };
            let record = run(&plan, addr, options).await;
            let record = record.unwrap_or_else(|error| panic!("gateway {gate} at {addr}: {error}"));
            let shift = u64::try_from(from.as_micros()).expect("a case lasts for seconds");
            let seen = |sample: Sample| Seen { gate, sent_us: shift + sample.sent_us, sample };
            record.samples.into_iter().map(seen).collect()
        });
    }

    /// Waits until so long after the start.
    pub(crate) async fn at(&self, time: Duration) {
        sleep_until(self.start + time).await;
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Waits for the last answer.
    pub(crate) async fn all(self) -> Vec<Seen> {
        self.runs.join_all().await.into_iter().flatten().collect()
    }
}

/// Refusals in slices of time.
pub(crate) fn buckets(seen: &[Seen]) -> Buckets {
    let mut buckets = Buckets::new(SLICE);
    for one in seen {
        buckets.count(one.sent_us, one.sample.is_refused());
    }
    buckets
}
