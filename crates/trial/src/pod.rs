//! A sample pod: an HTTP server with a capacity in units, its own lock, and behaviour on request.
//!
//! # Behaviour
//!
//! A request says what it wants by its query or by the header `x-trial`, both written `key=value&key&...`. Where
//! both name a key the header wins. Unknown keys are ignored in the query (they may be the caller's own) and
//! answered 400 in the header.
//!
//! | key | meaning |
//! |---|---|
//! | `ms=100` | work before the response headers, milliseconds, fractions allowed; default 0 |
//! | `bytes=N` | size of the response body; default 2, or 16 for each chunk |
//! | `chunks=N` | the body in N parts, without `content-length` |
//! | `every=MS` | pause between two chunks |
//! | `status=NNN` | the status of the answer; default 200 |
//! | `reset=head` | the connection (HTTP/2: the stream) is cut before the headers |
//! | `reset=body` | the same after half of the body |
//! | `hang` | never answers |
//! | `refuse` | 429 as if the pod's lock said so; neither units nor `refused` move |
//! | `in_use=N` | adds the header `x-sluicegate-in-use: N` |
//! | `echo` | the request body comes back as it arrives |
//! | `trailers` | the body ends with the trailer `x-trial-end: yes` |
//!
//! Work is timed by [`tokio::time::sleep`], which rounds up to a whole millisecond: on average a request holds its
//! units about 1 ms longer than asked.
//!
//! `GET /ws` with `Upgrade: echo` is answered 101; then bytes come back until the client closes, and the units are
//! held as long. `GET /gauge` gives [`GaugeReading`] as JSON, `POST /gauge/reset` sets `peak` to what is in use and
//! `served` and `refused` to 0; neither takes units.
//!
//! # When units are taken and freed
//!
//! Taken when the request's headers arrive. Freed just before the last byte of the response leaves, as a servlet filter
//! frees before its container flushes: whoever has seen the end may send the next request. With
//! [`PodOptions::late`] they are freed that long after the last byte was handed to the kernel. Over HTTP/2 "handed to the kernel" is approximate: freed when the last frame was
//! handed to the HTTP/2 connection, which may hold back as much as the client's window does not admit.

mod answer;
mod asked;
mod gauge;
mod serve;
mod wire;
mod work;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use gauge::{Gauge, GaugeReading};

/// Tells a request's weight, in units, from its method and path (no query). 0 takes no units.
pub type Weigh = Arc<dyn Fn(&Method, &str) -> u32 + Send + Sync>;

/// Weighs `/w/N` as N and everything else as 1; the paths of [`crate::load::equal_erlangs`].
#[must_use]
pub fn weigh_by_path() -> Weigh {
    Arc::new(|_, path| {
        let rest = path.strip_prefix("/w/").unwrap_or("1");
        rest.split('/').next().and_then(|units| units.parse().ok()).unwrap_or(1)
    })
}

/// What a pod does with a request whose client has gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDisconnect {
    /// The work runs to its planned end and holds its units so long, as a servlet does.
    #[default]
    Continues,
    /// The units are free at once, without [`PodOptions::late`].
    Stops,
}

/// How a sample pod is made.
#[derive(Clone)]
pub struct PodOptions {
    /// Sent back as `x-trial-pod` with every answer.
    pub name: String,
    /// Units the pod bears at one time.
    pub capacity: u32,
    /// Never refuses, and keeps the peak. A pod that refuses can never show an overshoot.
    pub count_only: bool,
    /// Time between the last byte of a response and the freeing of its units; rounded up to 1 ms. Zero: they are
    /// free before the last byte leaves.
    pub late: Duration,
    /// What happens to the work when its client has gone.
    pub on_disconnect: OnDisconnect,
    /// The weight of each request.
    pub weigh: Weigh,
}

impl PodOptions {
    /// A refusing pod that frees in time, works on after a disconnect and weighs by [`weigh_by_path`].
    #[must_use]
    pub fn new(name: impl Into<String>, capacity: u32) -> Self {
        Self {
            name: name.into(),
            capacity,
            count_only: false,
            late: Duration::ZERO,
            on_disconnect: OnDisconnect::Continues,
            weigh: weigh_by_path(),
        }
    }
}

impl fmt::Debug for PodOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodOptions")
            .field("name", &self.name)
            .field("capacity", &self.capacity)
            .field("count_only", &self.count_only)
            .field("late", &self.late)
            .field("on_disconnect", &self.on_disconnect)
            .finish_non_exhaustive()
    }
}

/// The maker of sample pods.
#[derive(Debug)]
pub struct Pod;

impl Pod {
    /// Serves HTTP/1.1 (with upgrades) and cleartext HTTP/2 on `listener`, on the current tokio runtime, until the
    /// handle is dropped.
    ///
    /// # Errors
    /// When the listener's address cannot be read, or the name cannot be a header's value (`InvalidInput`).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(options: PodOptions, listener: TcpListener) -> io::Result<PodHandle> {
        let addr = listener.local_addr()?;
        let name = options.name.parse().map_err(|_| {
            let what =
                format!("pod name {:?} cannot be sent as a header: use visible ASCII letters", options.name);
            io::Error::new(io::ErrorKind::InvalidInput, what)
        })?;
        let gauge = Arc::new(Gauge::new(options.capacity, options.count_only));
        let (phase, seen) = watch::channel(Phase::Serving);
        let shared = Arc::new(Shared { options, name, gauge, runtime: Handle::current(), phase: seen });
        let accepting = tokio::spawn(serve::accept(shared.clone(), listener));
        Ok(PodHandle { shared, addr, phase, accepting: Some(accepting) })
    }
}

/// A running pod. Dropping it is [`PodHandle::kill`].
#[derive(Debug)]
pub struct PodHandle {
    shared: Arc<Shared>,
    addr: SocketAddr,
    phase: watch::Sender<Phase>,
    /// None once it was waited for.
    accepting: Option<JoinHandle<()>>,
}

impl PodHandle {
    /// Where the pod listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://HOST:PORT`, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The name given in the options.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.options.name
    }

    /// The pod's own count of its units; live, and readable after the pod's end.
    #[must_use]
    pub fn gauge(&self) -> Arc<Gauge> {
        self.shared.gauge.clone()
    }

    /// Stops accepting, lets what is in flight end, and returns when every connection has closed. A request that
    /// hangs keeps it waiting: put a timeout around it, or [`kill`](Self::kill).
    pub async fn shutdown(mut self) {
        self.phase.send_replace(Phase::Draining);
        if let Some(accepting) = self.accepting.take() {
            // The task ends when its connections have; it can only fail by a panic, which it has already printed.
            let _ = accepting.await;
        }
    }

    /// The pod dies: listener and connections are closed, and no units are in use any more.
    pub fn kill(&self) {
        self.phase.send_replace(Phase::Dead);
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
        self.shared.gauge.forget_all();
    }
}

impl Drop for PodHandle {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The pod's life, in this order only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    Draining,
    Dead,
}

/// What the tasks of one pod share.
struct Shared {
    options: PodOptions,
    /// The options' name, checked once as a header value.
    name: http::HeaderValue,
    gauge: Arc<Gauge>,
    /// Work that outlives its request is spawned from `drop`, where no runtime need be entered.
    runtime: Handle,
    phase: watch::Receiver<Phase>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("options", &self.options)
            .field("gauge", &self.gauge)
            .finish_non_exhaustive()
    }
}
