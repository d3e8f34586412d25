//! One worker's connections to the pods, and the probe of a pod that cannot be reached.

use std::collections::HashSet;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use sluicegate::{Gate, PodId};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::live::{Live, PodTarget};
use crate::stream::PodStream;
use crate::upload::UploadBody;

/// Longest time to open a connection to a pod.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Idle connections that one worker keeps per pod. More than this many at once are opened anew.
const IDLE_MAX: usize = 256;
/// Ticks (seconds) that an idle connection is kept: below the 5 s after which common servers close
/// theirs, so that a request is rarely written to a connection that is just being closed.
const IDLE_TICKS: u32 = 4;
/// First and longest pause between two probes of a pod that refused a connection.
const PROBE_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A request on its way: the answer, or the error and the request if it was never written.
pub(crate) type Exchange =
    Pin<Box<dyn Future<Output = Result<Response<Incoming>, TrySendError<Request<UploadBody>>>> + Send>>;

/// The connections of one worker.
pub(crate) struct Pools {
    /// By [`PodId`]. Never contended: a worker has one thread.
    pods: Mutex<Vec<PodPool>>,
    /// Seconds since the start, so that parking a connection needs no clock.
    tick: AtomicU32,
}

/// One connection to a pod, taken for one request.
pub(crate) struct Line {
    pub(crate) target: Arc<PodTarget>,
    /// It had carried a request before.
    pub(crate) reused: bool,
    kind: LineKind,
}

enum LineKind {
    Http1 {
        sender: http1::SendRequest<UploadBody>,
        connection: AbortHandle,
    },
    /// Shared with every other request of this worker to the pod.
    Http2(http2::SendRequest<UploadBody>),
}

#[derive(Default)]
struct PodPool {
    /// Whose connections these are. Another target under the same number drops them.
    target: Option<Arc<PodTarget>>,
    /// A stack: the warm ones are used, the surplus at the bottom grows old and goes.
    idle: Vec<Idle>,
    multiplexed: Arc<tokio::sync::Mutex<Option<http2::SendRequest<UploadBody>>>>,
}

struct Idle {
    sender: http1::SendRequest<UploadBody>,
    connection: AbortHandle,
    since_tick: u32,
}

impl Pools {
    pub(crate) fn new() -> Pools {
        Pools { pods: Mutex::new(Vec::new()), tick: AtomicU32::new(0) }
    }

    /// A connection that can take a request now: an idle one, unless `fresh`, or a new one.
    ///
    /// # Errors
    /// The pod could not be reached; nothing was sent to it.
    pub(crate) async fn take(&self, target: &Arc<PodTarget>, fresh: bool) -> io::Result<Line> {
        if target.speaks_h2() {
            return self.multiplexed(target, fresh).await;
        }
        if !fresh && let Some(line) = self.idle(target).await {
            return Ok(line);
        }
        let stream = connect(target).await?;
        let (sender, connection) =
            http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // The task ends with the connection; its error reaches the request that is on it.
        let connection = tokio::spawn(connection.with_upgrades()).abort_handle();
        Ok(Line { target: target.clone(), reused: false, kind: LineKind::Http1 { sender, connection } })
    }

    /// Keeps a connection whose last answer has ended for the next request. Closes it if there
    /// are enough or it speaks HTTP/2 (that one is kept elsewhere).
    pub(crate) fn park(&self, line: Line) {
        let LineKind::Http1 { sender, connection } = line.kind else { return };
        if sender.is_closed() {
            return;
        }
        let since_tick = self.tick.load(Ordering::Relaxed);
        let mut pods = self.lock();
        let pool = pool_of(&mut pods, &line.target);
        if pool.idle.len() < IDLE_MAX {
            pool.idle.push(Idle { sender, connection, since_tick });
        }
    }

    /// Counts one second and drops what has been idle too long. Called once a second.
    pub(crate) fn tick(&self) {
        let now = self.tick.fetch_add(1, Ordering::Relaxed) + 1;
        for pool in self.lock().iter_mut() {
            pool.idle.retain(|idle| !idle.sender.is_closed() && now - idle.since_tick < IDLE_TICKS);
        }
    }

    /// Drops every idle connection.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    async fn idle(&self, target: &Arc<PodTarget>) -> Option<Line> {
        loop {
            let Idle { sender, connection, .. } = self.pop(target)?;
            if !sender.is_ready() {
                // Its last answer has just ended and its task has not run since; let it.
                tokio::task::yield_now().await;
            }
            if sender.is_ready() {
                let kind = LineKind::Http1 { sender, connection };
                return Some(Line { target: target.clone(), reused: true, kind });
            }
            connection.abort();
        }
    }

    fn pop(&self, target: &Arc<PodTarget>) -> Option<Idle> {
        let mut pods = self.lock();
        let pool = pool_of(&mut pods, target);
        while let Some(idle) = pool.idle.pop() {
            if !idle.sender.is_closed() {
                return Some(idle);
            }
        }
        None
    }

    async fn multiplexed(&self, target: &Arc<PodTarget>, fresh: bool) -> io::Result<Line> {
        let slot = pool_of(&mut self.lock(), target).multiplexed.clone();
        // Held across the connect, so that requests that come together open one connection.
        let mut slot = slot.lock().await;
        if let Some(sender) = slot.as_ref().filter(|sender| !fresh && !sender.is_closed()) {
            let kind = LineKind::Http2(sender.clone());
            return Ok(Line { target: target.clone(), reused: true, kind });
        }
        let stream = connect(target).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(connection);
        *slot = Some(sender.clone());
        Ok(Line { target: target.clone(), reused: false, kind: LineKind::Http2(sender) })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PodPool>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Hands the request to the connection. It is on its way even if the future is not polled.
    pub(crate) fn send(&mut self, request: Request<UploadBody>) -> Exchange {
        match &mut self.kind {
            LineKind::Http1 { sender, .. } => Box::pin(sender.try_send_request(request)),
            LineKind::Http2(sender) => Box::pin(sender.try_send_request(request)),
        }
    }

    /// Ends the request at once: closes an HTTP/1.1 connection. An HTTP/2 stream is reset by
    /// dropping its answer.
    pub(crate) fn cut(self) {
        if let LineKind::Http1 { connection, .. } = self.kind {
            connection.abort();
        }
    }
}

/// Watches pods that refused a connection, for all workers of a gateway.
pub(crate) struct Probes {
    gate: Gate,
    live: Arc<Live>,
    /// Pods with a probe under way: one each, however many requests were refused.
    running: Mutex<HashSet<PodId>>,
}

impl Probes {
    pub(crate) fn new(gate: Gate, live: Arc<Live>) -> Probes {
        Probes { gate, live, running: Mutex::new(HashSet::new()) }
    }

    /// Takes the pod out of placement until a connection to it can be opened again.
    pub(crate) fn pod_is_down(self: &Arc<Self>, target: &PodTarget, error: &io::Error) {
        self.gate.set_ready(target.id, false);
        if !self.lock().insert(target.id) {
            return;
        }
        tracing::warn!(pod = target.name(), url = %target.settings.url, %error, "pod cannot be reached; it gets nothing until it can");
        let probes = self.clone();
        let id = target.id;
        tokio::spawn(async move {
            let back = probes.wait_until_back(id).await;
            // Out of the list first: a refusal from now on starts a probe of its own.
            probes.lock().remove(&id);
            if back {
                probes.gate.set_ready(id, true);
            }
        });
    }

    /// False if the configuration no longer lists the pod.
    async fn wait_until_back(&self, id: PodId) -> bool {
        let mut pause = PROBE_PAUSE.0;
        loop {
            // Up to half shorter, so that many gates do not knock at the same moment.
            tokio::time::sleep(pause.mul_f64(1.0 - fastrand::f64() / 2.0)).await;
            let Some(target) = self.live.pod(id) else { return false };
            if connect(&target).await.is_ok() {
                tracing::info!(pod = target.name(), "pod can be reached again");
                return true;
            }
            pause = (pause * 2).min(PROBE_PAUSE.1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<PodId>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pool_of<'a>(pods: &'a mut Vec<PodPool>, target: &Arc<PodTarget>) -> &'a mut PodPool {
    let index = target.id.index();
    if pods.len() <= index {
        pods.resize_with(index + 1, PodPool::default);
    }
    let pool = &mut pods[index];
    if !pool.target.as_ref().is_some_and(|of| Arc::ptr_eq(of, target)) {
        *pool = PodPool { target: Some(target.clone()), ..PodPool::default() };
    }
    pool
}

async fn connect(target: &PodTarget) -> io::Result<PodStream> {
    let open = async {
        match target.address {
            Some(address) => TcpStream::connect(address).await,
            None => TcpStream::connect((target.settings.url.host.as_str(), target.settings.url.port)).await,
        }
    };
    let stream = tokio::time::timeout(CONNECT_MAX, open)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no connection within 1 s"))??;
    stream.set_nodelay(true)?;
    Ok(PodStream::new(stream))
}
