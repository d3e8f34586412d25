//! Sends a plan.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Empty};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::plan::{Arrival, Plan};
use super::pool::{Pool, Taken};
use super::record::{Record, Sample};

/// A run that sent any request later than this after its planned time is void: the load was not the planned one.
pub const LAG_MAX: Duration = Duration::from_millis(50);

/// Called with each sample as it ends, on the run's tasks: it must be quick.
pub type OnSample = Arc<dyn Fn(&Sample) + Send + Sync>;

/// Where the load goes. The last two are balancers that know nothing, for "each pod alone".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One address, the gateway's.
    One(SocketAddr),
    /// In turn.
    RoundRobin(Vec<SocketAddr>),
    /// Drawn for each request from the plan's seed.
    Random(Vec<SocketAddr>),
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Self {
        Self::One(addr)
    }
}

/// How a run is made.
#[derive(Clone)]
pub struct RunOptions {
    /// Most connections to each address. A request that finds none free fails (an open loop cannot wait).
    pub connections_max: usize,
    /// Connections opened to each address before the start, so that the start is not a storm of handshakes.
    pub connections_ahead: usize,
    /// Requests planned before this are sent, but not counted in the summary.
    pub warmup: Duration,
    /// A request that has not ended by then is given up and counted as failed.
    pub timeout: Duration,
    /// For those who watch the run.
    pub on_sample: Option<OnSample>,
}

impl Default for RunOptions {
    /// 4096 connections, 16 ahead, no warm-up, a timeout of 120 s.
    fn default() -> Self {
        Self {
            connections_max: 4096,
            connections_ahead: 16,
            warmup: Duration::ZERO,
            timeout: Duration::from_secs(120),
            on_sample: None,
        }
    }
}

impl fmt::Debug for RunOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunOptions")
            .field("connections_max", &self.connections_max)
            .field("connections_ahead", &self.connections_ahead)
            .field("warmup", &self.warmup)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Sends the plan's requests at their times and waits for the last answer.
///
/// Dropping the future breaks off all requests.
///
/// # Errors
/// `InvalidInput` for a method or path that HTTP does not know, or a target without an address; what connecting
/// gave if a target cannot be reached before the start. Failures after the start are samples, not errors.
pub async fn run(plan: &Plan, target: impl Into<Target>, options: RunOptions) -> io::Result<Record> {
    let target = target.into();
    let run = Arc::new(Run::prepare(plan, &target, options).await?);
    let mut choose = Choose::new(&target, plan.seed);
    let arrivals = plan.arrivals();
    let mut tasks = JoinSet::new();
    for (index, arrival) in arrivals.into_iter().enumerate() {
        sleep_until(run.start + Duration::from_micros(arrival.at_us)).await;
        let (run, pool) = (run.clone(), choose.next());
        tasks.spawn(async move { (index, run.one(arrival, pool).await) });
    }
    let mut samples: Vec<(usize, Sample)> = tasks.join_all().await;
    samples.sort_by_key(|(index, _)| *index);
    Ok(Record {
        plan: plan.clone(),
        warmup_us: micros(run.options.warmup),
        samples: samples.into_iter().map(|(_, sample)| sample).collect(),
    })
}

/// Picks the pool for each request.
struct Choose {
    pools: usize,
    /// None: in turn.
    random: Option<fastrand::Rng>,
    turn: usize,
}

impl Choose {
    fn new(target: &Target, seed: u64) -> Self {
        // Not the plan's own seed: the choice must not follow the draws of the arrivals.
        let random = matches!(target, Target::Random(_)).then(|| fastrand::Rng::with_seed(!seed));
        Self { pools: target.addrs().len(), random, turn: 0 }
    }

    fn next(&mut self) -> usize {
        if let Some(random) = &mut self.random {
            return random.usize(..self.pools);
        }
        self.turn = (self.turn + 1) % self.pools;
        self.turn
    }
}

impl Target {
    fn addrs(&self) -> &[SocketAddr] {
        match self {
            Self::One(addr) => std::slice::from_ref(addr),
            Self::RoundRobin(addrs) | Self::Random(addrs) => addrs,
        }
    }
}

/// What the tasks of a run share.
struct Run {
    shapes: Vec<(Method, Uri)>,
    pools: Vec<Pool>,
    hosts: Vec<HeaderValue>,
    options: RunOptions,
    start: Instant,
}

impl Run {
    async fn prepare(plan: &Plan, target: &Target, options: RunOptions) -> io::Result<Self> {
        let mut shapes = Vec::new();
        for shape in &plan.apis {
            let (Ok(method), Ok(uri)) = (shape.method.parse::<Method>(), shape.path.parse::<Uri>()) else {
                return Err(invalid(format!("`{} {}` is not a method and a path", shape.method, shape.path)));
            };
            shapes.push((method, uri));
        }
        let addrs = target.addrs();
        if addrs.is_empty() {
            return Err(invalid("the target has no address".to_owned()));
        }
        let pools: Vec<Pool> = addrs.iter().map(|addr| Pool::new(*addr, options.connections_max)).collect();
        for pool in &pools {
            open_ahead(pool, options.connections_ahead.min(options.connections_max)).await?;
        }
        let host = |addr: &SocketAddr| addr.to_string().parse().expect("an address is visible ASCII");
        let hosts = addrs.iter().map(host).collect();
        Ok(Self { shapes, pools, hosts, options, start: Instant::now() })
    }

    fn now_us(&self) -> u64 {
        micros(self.start.elapsed())
    }

    async fn one(&self, arrival: Arrival, pool: usize) -> Sample {
        let mut sample = Sample {
            api: arrival.api,
            planned_us: arrival.at_us,
            sent_us: self.now_us(),
            done_us: 0,
            status: 0,
            pod: None,
            hold_us: arrival.hold_us,
            waited_us: None,
            error: None,
        };
        let exchange = self.exchange(&mut sample, pool);
        let ended = timeout(self.options.timeout, exchange).await.is_ok();
        // An answer that is whole stays one, also when its connection was not ready again in time.
        if !ended && sample.done_us == 0 {
            sample.done_us = self.now_us();
            sample.error = Some("timed out".to_owned());
        }
        if let Some(on_sample) = &self.options.on_sample {
            on_sample(&sample);
        }
        sample
    }

    /// Sends, reads the whole answer, puts the connection back.
    async fn exchange(&self, sample: &mut Sample, pool: usize) {
        let sent = self.send(sample, pool).await;
        let connection = match sent {
            Ok(connection) => Some(connection),
            Err(what) => {
                sample.error = Some(what);
                None
            }
        };
        sample.done_us = self.now_us();
        if let Some(connection) = connection {
            connection.put_back().await;
        }
    }

    async fn send<'a>(&'a self, sample: &mut Sample, pool: usize) -> Result<Taken<'a>, String> {
        let mut request = self.request(sample, pool);
        let pool = &self.pools[pool];
        // An idle connection may close under the request, which then surely was not sent.
        for _ in 0..UNSENT_MAX {
            let mut connection =
                pool.take().await.map_err(|error| format!("connect to {}: {error}", pool.addr()))?;
            match connection.send(request).await {
                Ok(answer) => {
                    let (head, mut body) = answer.into_parts();
                    sample.status = head.status.as_u16();
                    sample.pod = text(&head.headers, &POD).map(str::to_owned);
                    sample.waited_us = text(&head.headers, &SERVER_TIMING).and_then(waited_us);
                    while let Some(frame) = body.frame().await {
                        frame.map_err(|error| format!("the answer broke off: {error}"))?;
                    }
                    return Ok(connection);
                }
                Err(Some(unsent)) => request = unsent,
                Err(None) => return Err("the connection was closed without an answer".to_owned()),
            }
        }
        Err(format!("{UNSENT_MAX} connections were closed before the request was sent"))
    }

    fn request(&self, sample: &Sample, pool: usize) -> Request<Empty<Bytes>> {
        let (method, uri) = self.shapes[sample.api].clone();
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        request.headers_mut().insert(HOST, self.hosts[pool].clone());
        let ms = format!("ms={}.{:03}", sample.hold_us / 1000, sample.hold_us % 1000);
        request.headers_mut().insert(TRIAL, ms.parse().expect("digits and a point"));
        request
    }
}

/// Tries on further connections of one request; each only after the one before took nothing.
const UNSENT_MAX: u32 = 8;
const POD: HeaderName = HeaderName::from_static("x-trial-pod");
const TRIAL: HeaderName = HeaderName::from_static("x-trial");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

async fn open_ahead(pool: &Pool, connections: usize) -> io::Result<()> {
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(pool.connect().await?);
    }
    for connection in opened {
        connection.put_back().await;
    }
    Ok(())
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The `dur` (milliseconds) of the metric `admission`.
fn waited_us(server_timing: &str) -> Option<u64> {
    let mut metrics = server_timing.split(',').map(|metric| metric.split(';').map(str::trim));
    let mut admission = metrics.find_map(|mut parts| (parts.next() == Some("admission")).then_some(parts))?;
    let ms: f64 = admission.find_map(|part| part.strip_prefix("dur="))?.parse().ok()?;
    Duration::try_from_secs_f64(ms / 1000.0).ok().map(micros)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests {
    use super::waited_us;

    #[test]
    fn server_timing_is_read_among_others() {
        assert_eq!(waited_us("db;dur=3, admission;desc=x;dur=12.5"), Some(12_500));
        assert_eq!(waited_us("admission;dur=0"), Some(0));
        assert_eq!(waited_us("cache;dur=5"), None);
        assert_eq!(waited_us("admission;dur=-1"), None);
    }
}
