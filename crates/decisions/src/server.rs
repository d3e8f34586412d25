//! The service's listeners and threads, and its end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use sluicegate::Gate;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::book::Book;
use crate::counters::{Counters, Counts};
use crate::directory::Directory;
use crate::ext_proc::{self, Watch};
use crate::http;
use crate::http::elsewhere::Peers;
use crate::http::pods::Registry;
use crate::settings::{Limits, Listen, Settings};
use crate::socket::{self, Bound, Listener, Stream};
use crate::tls::{self, Token};

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A half-dead Envoy is found out after the two together.
const PING_EVERY: Duration = Duration::from_secs(10);
const PONG_MAX: Duration = Duration::from_secs(10);
/// Streams that Envoy may reset before they were looked at: a burst of clients that leave is no attack.
const RESETS_MAX: usize = 1 << 20;
/// Headers of one gRPC call, bytes. The request's own headers are in its message.
const GRPC_HEADERS_MAX: u32 = 16 << 10;
/// What the first messages of many streams may take before they are read.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// How long streams have to say farewell at the end of a drain.
const FAREWELL: Duration = Duration::from_millis(500);

/// A running decision service. Dropping it stops it at once: leases that are still out end.
pub struct Decisions {
    http: Option<SocketAddr>,
    ext_proc: Option<SocketAddr>,
    shared: Arc<Shared>,
    stop: watch::Sender<Stop>,
    threads: Vec<JoinHandle<()>>,
    /// Kept for the files of Unix sockets, which go when nobody listens any more.
    doors: Vec<Bound>,
}

/// What a drain left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainReport {
    /// Leases, waiting asks and streams that were cut because the time was over. 0 is a clean end.
    pub cut: usize,
    /// How long it took.
    pub took: Duration,
}

/// How far the service is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    Serves,
    /// No new leases; Envoy is told to go elsewhere.
    Drains,
    /// Streams end in order, now.
    SaysFarewell,
    Stops,
}

/// What every call needs.
pub(crate) struct Shared {
    pub(crate) gate: Gate,
    pub(crate) directory: Arc<Directory>,
    pub(crate) book: Arc<Book>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) registry: Option<Arc<dyn Registry>>,
    pub(crate) token: Token,
    pub(crate) limits: Limits,
    pub(crate) watch: Watch,
    pub(crate) stop: watch::Receiver<Stop>,
    draining: AtomicBool,
}

/// Leases, waiting asks and streams that there are.
#[derive(Default)]
pub(crate) struct Tally {
    count: AtomicUsize,
    /// Held only to tell that the count came to 0.
    gate: Mutex<()>,
    idle: Condvar,
}

/// Counts one, while it lives.
pub(crate) struct Busy(Arc<Tally>);

impl Shared {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

impl Busy {
    pub(crate) fn new(tally: &Arc<Tally>) -> Busy {
        tally.count.fetch_add(1, Ordering::Relaxed);
        Busy(tally.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            let _gate = self.0.gate.lock().unwrap_or_else(PoisonError::into_inner);
            self.0.idle.notify_all();
        }
    }
}

impl Tally {
    /// Waits until there is nothing left, or the deadline. Answers what is left.
    fn wait(&self, deadline: Instant) -> usize {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let count = self.count.load(Ordering::Relaxed);
            let left = deadline.saturating_duration_since(Instant::now());
            if count == 0 || left.is_zero() {
                return count;
            }
            gate = match self.idle.wait_timeout(gate, left) {
                Ok((gate, _)) => gate,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

/// One door of one worker.
struct Door {
    listener: Listener,
    tls: Option<TlsAcceptor>,
    /// Places for connections, shared by the workers.
    places: Arc<Semaphore>,
    /// Callers must show the token.
    guarded: bool,
    envoy: bool,
}

/// A door as it is handed to each worker.
struct Plan {
    bound: Bound,
    tls: Option<TlsAcceptor>,
    places: Arc<Semaphore>,
    guarded: bool,
    envoy: bool,
}

impl Decisions {
    /// Listens on the doors of `settings` (port 0 takes a free one) and serves from its own threads. `directory` must
    /// be kept up to date with `gate` by whoever changes the configuration.
    ///
    /// # Errors
    /// An address cannot be listened on; a certificate cannot be read; a door that others can reach has neither a
    /// token nor mutual TLS (`InvalidInput`); or a thread cannot be started. Nothing runs then.
    pub fn start(gate: Gate, directory: Arc<Directory>, settings: &Settings) -> io::Result<Decisions> {
        let plans = plans(settings)?;
        let address = |envoy: bool| plans.iter().find(|plan| plan.envoy == envoy)?.bound.address();
        let (http, ext_proc) = (address(false), address(true));
        let (stop, stopped) = watch::channel(Stop::Serves);
        let (counters, tally) = (Arc::new(Counters::default()), Arc::new(Tally::default()));
        let book = Book::new(settings.gate.clone(), counters.clone(), tally.clone());
        let shared = Arc::new(Shared {
            gate,
            directory,
            book: Arc::new(book),
            watch: Watch::new(),
            counters,
            tally,
            peers: settings.peers.clone(),
            registry: settings.registry.clone(),
            token: Token::new(settings.token.clone()),
            limits: settings.limits,
            stop: stopped,
            draining: AtomicBool::new(false),
        });
        let mut service = Decisions { http, ext_proc, shared, stop, threads: Vec::new(), doors: Vec::new() };
        for number in 0..settings.workers.max(1) {
            let doors: io::Result<Vec<_>> = plans.iter().map(|plan| Ok((plan.bound.share()?, plan))).collect();
            let doors: Vec<_> = doors?.into_iter().map(|(shared, plan)| Waiting::new(shared, plan)).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let shared = service.shared.clone();
            let thread = std::thread::Builder::new().name(format!("decisions-{number}")).spawn(move || {
                runtime.block_on(work(shared, doors, number == 0));
                runtime.shutdown_background();
            })?;
            service.threads.push(thread);
        }
        service.doors = plans.into_iter().map(|plan| plan.bound).collect();
        Ok(service)
    }

    /// The address of the HTTP door; `None` without one, and for a Unix socket.
    #[must_use]
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http
    }

    /// The address of Envoy's door; `None` without one, and for a Unix socket.
    #[must_use]
    pub fn ext_proc_addr(&self) -> Option<SocketAddr> {
        self.ext_proc
    }

    /// What it has counted since it started.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.counters.read()
    }

    /// Reads [`Decisions::counts`] for as long as anybody wants to, also while the service drains.
    pub fn counts_reader(&self) -> impl Fn() -> Counts + Send + Sync + 'static {
        let counters = self.shared.counters.clone();
        move || counters.read()
    }

    /// Gives out no more leases (503), tells Envoy to go elsewhere (GOAWAY), and waits until all leases are given back
    /// and all streams have ended, at most until `deadline` from now. Streams that are left then are ended in order,
    /// which their requests survive; leases that are left end. Blocks the caller: not for use inside a runtime.
    #[must_use]
    pub fn drain(mut self, deadline: Duration) -> DrainReport {
        let begin = Instant::now();
        self.shared.draining.store(true, Ordering::Relaxed);
        self.stop.send_replace(Stop::Drains);
        let cut = self.shared.tally.wait(begin + deadline);
        self.stop.send_replace(Stop::SaysFarewell);
        if cut > 0 {
            self.shared.tally.wait(Instant::now() + FAREWELL);
        }
        self.join();
        DrainReport { cut, took: begin.elapsed() }
    }

    fn join(&mut self) {
        self.stop.send_replace(Stop::Stops);
        for thread in self.threads.drain(..) {
            // A panic of its thread was printed when it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Decisions {
    fn drop(&mut self) {
        self.join();
    }
}

fn plans(settings: &Settings) -> io::Result<Vec<Plan>> {
    let mut plans = Vec::new();
    let doors = [
        (&settings.http, "decisions.http", false, &b"http/1.1"[..]),
        (&settings.ext_proc, "decisions.ext_proc", true, &b"h2"[..]),
    ];
    for (listen, setting, envoy, protocol) in doors {
        let Some(listen) = listen else { continue };
        let mut guarded = settings.token.is_some();
        let mut tls = None;
        match listen {
            Listen::Tcp(address) => {
                if let Some(settings) = &settings.tls {
                    tls = Some(tls::acceptor(settings, protocol)?);
                }
                if !address.ip().is_loopback() && settings.token.is_none() && tls.is_none() {
                    let what = format!(
                        "{setting} {address} can be reached by others, and there is neither a token nor mutual TLS\n  mend: set decisions.token, or listen on 127.0.0.1"
                    );
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
                }
            }
            // Who may open the file may call.
            Listen::Unix(_) => guarded = false,
        }
        let places = Arc::new(Semaphore::new(settings.limits.connections.max(1)));
        plans.push(Plan { bound: Bound::listen(listen, setting)?, tls, places, guarded, envoy });
    }
    Ok(plans)
}

/// A door on its way to a worker.
struct Waiting {
    listener: socket::Shared,
    tls: Option<TlsAcceptor>,
    places: Arc<Semaphore>,
    guarded: bool,
    envoy: bool,
}

impl Waiting {
    fn new(listener: socket::Shared, plan: &Plan) -> Waiting {
        let (tls, places) = (plan.tls.clone(), plan.places.clone());
        Waiting { listener, tls, places, guarded: plan.guarded, envoy: plan.envoy }
    }

    fn open(self) -> io::Result<Door> {
        let Waiting { listener, tls, places, guarded, envoy } = self;
        Ok(Door { listener: listener.enter()?, tls, places, guarded, envoy })
    }
}

/// A worker's life.
async fn work(shared: Arc<Shared>, doors: Vec<Waiting>, keeps_time: bool) {
    let mut stop = shared.stop.clone();
    for door in doors {
        match door.open() {
            Ok(door) => drop(tokio::spawn(accept(shared.clone(), door))),
            Err(error) => tracing::error!(%error, "a worker cannot use its listener; it serves nothing there"),
        }
    }
    if keeps_time {
        let book = shared.book.clone();
        tokio::spawn(async move { book.keep_time().await });
    }
    // Told, or the handle is gone: both mean stop.
    let _ = stop.wait_for(|stop| *stop == Stop::Stops).await;
}

async fn accept(shared: Arc<Shared>, door: Door) {
    let mut stop = shared.stop.clone();
    loop {
        // Callers with leases may still give them back while the service drains; Envoy shall go elsewhere.
        let ends = if door.envoy { Stop::Drains } else { Stop::Stops };
        let next = async {
            let place = door.places.clone().acquire_owned().await.expect("the places are never closed");
            (place, door.listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            _ = stop.wait_for(|stop| *stop >= ends) => return,
        };
        match accepted {
            Ok(stream) => {
                let (shared, tls) = (shared.clone(), door.tls.clone());
                tokio::spawn(serve(shared, stream, tls, door.guarded, door.envoy, place));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves a connection from accept to close.
async fn serve(
    shared: Arc<Shared>,
    stream: Stream,
    tls: Option<TlsAcceptor>,
    guarded: bool,
    envoy: bool,
    _place: OwnedSemaphorePermit,
) {
    let stream = match (stream, tls) {
        (Stream::Tcp(stream), Some(tls)) => {
            match tokio::time::timeout(shared.limits.read, tls.accept(stream)).await {
                Ok(Ok(stream)) => Stream::Tls(Box::new(stream)),
                Ok(Err(error)) => return tracing::debug!(%error, "a caller without a certificate of ours"),
                Err(_) => return,
            }
        }
        (stream, _) => stream,
    };
    let io = TokioIo::new(stream);
    if envoy {
        Box::pin(serve_envoy(shared, io, guarded)).await;
    } else {
        let limits = shared.limits;
        let service = service_fn(move |request| http::answer(shared.clone(), request, guarded));
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(limits.read);
        // What breaks a connection is its caller's affair.
        let _ = builder.serve_connection(io, service).await;
    }
}

async fn serve_envoy(shared: Arc<Shared>, io: TokioIo<Stream>, guarded: bool) {
    let mut stop = shared.stop.clone();
    let service = service_fn(move |request| ext_proc::answer(shared.clone(), request, guarded));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        // One stream per request, waiting ones too: the gate's own queue is the bound.
        .max_concurrent_streams(u32::MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .max_header_list_size(GRPC_HEADERS_MAX)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_MAX);
    let mut connection = pin!(builder.serve_connection(io, service));
    let told = tokio::select! {
        _ = connection.as_mut() => false,
        _ = stop.wait_for(|stop| *stop >= Stop::Drains) => true,
    };
    if told {
        connection.as_mut().graceful_shutdown();
        finish(connection).await;
    }
}

/// What breaks a connection is Envoy's affair.
async fn finish<F: Future>(connection: F) {
    connection.await;
}
