//! The listener, its threads, and their end.
//!
//! Each connection (an Envoy's worker thread has one) lives on one thread with all its streams: nothing of a request crosses
//! threads but the gate. Connections are dealt out in turn, because there are few of them.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use sluicegate::{Gate, Lease};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::conduct::Conduct;
use crate::grpc::{self, Inbound, Reply, Status};
use crate::live::Live;
use crate::session::Session;
use crate::world::{Count, Settings, World};

/// Connections the kernel keeps for a busy process.
const BACKLOG: i32 = 1024;
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Streams of one connection: each is a request that runs or waits, and the gate bounds those.
const STREAMS_MAX: u32 = 1 << 20;
/// Streams reset before they were looked at, as when many clients leave at once. Above it the connection would be
/// cut, and every lease on it with it.
const RESETS_MAX: usize = 1 << 20;
/// A peer that is silent is asked so often whether it is there, and lost if it does not answer as long again: its
/// leases must not outlive a machine that is gone.
const PING_EVERY: Duration = Duration::from_secs(10);
/// After the deadline of a drain streams end cleanly within this.
const CLEAN_END: Duration = Duration::from_millis(1500);

/// A running ext_proc server. Dropping it cuts its streams, and ends their leases.
pub struct ExtProc {
    local_addr: SocketAddr,
    world: Arc<World>,
    /// `None` while it serves; then the moment at which a drain ends.
    stop: watch::Sender<Option<Instant>>,
    threads: Vec<JoinHandle<()>>,
}

/// What a drain left. Its leases end when it is dropped: do that when the process has nothing more to say to the ledger, which
/// then keeps their units until the requests have surely ended.
#[must_use = "dropping it gives the units of requests back that still run"]
pub struct Drained {
    /// Requests that went on when the time was over. 0 is a clean end.
    pub cut: usize,
    /// How long it took.
    pub took: Duration,
    leases: Vec<Lease>,
}

impl ExtProc {
    /// Listens and serves from its own threads.
    ///
    /// # Errors
    /// The address cannot be listened on, or is not loopback and no token is set (`InvalidInput`): whoever reaches it
    /// could take the pool's units. Or a thread cannot be started. Nothing runs then.
    pub fn start(gate: Gate, live: Arc<Live>, settings: &Settings) -> io::Result<ExtProc> {
        if !settings.listen.ip().is_loopback() && settings.token.is_none() {
            let what = format!(
                "decisions.ext_proc {} can be reached by others and has no token\n  mend: set decisions.token, or listen on 127.0.0.1",
                settings.listen
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let listener = listen(settings.listen)?;
        let local_addr = listener.local_addr()?;
        let world = Arc::new(World::new(gate, live, settings.early_end));
        let token: Option<Arc<str>> = settings.token.as_deref().map(|token| format!("Bearer {token}").into());
        let (stop, _) = watch::channel(None);
        let mut server = ExtProc { local_addr, world, stop, threads: Vec::new() };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut workers = Vec::new();
        for number in 0..settings.workers.unwrap_or(cores).max(1) {
            let (send, connections) = mpsc::unbounded_channel();
            workers.push(send);
            let (world, stopped, token) = (server.world.clone(), server.stop.subscribe(), token.clone());
            server.thread(format!("ext-proc-{number}"), work(world, token, connections, stopped))?;
        }
        let stopped = server.stop.subscribe();
        server.thread("ext-proc-accept".to_owned(), accept(listener, workers, stopped))?;
        Ok(server)
    }

    fn thread(&mut self, name: String, work: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            runtime.block_on(work);
            runtime.shutdown_background();
        })?;
        self.threads.push(thread);
        Ok(())
    }

    /// The address it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Reads what it counts, also while another drains it.
    pub fn counter(&self) -> impl Fn() -> Vec<Count> + Send + Sync + 'static {
        let world = Arc::clone(&self.world);
        move || world.counts.all()
    }

    /// Stops accepting, tells every Envoy to go elsewhere (GOAWAY), and waits for the streams in flight, at most until
    /// `deadline` from now. Streams that are left then are ended cleanly, so that their requests go on; their leases are
    /// kept in the answer. Blocks the caller: not for use inside a runtime.
    pub fn drain(mut self, deadline: Duration) -> Drained {
        let begin = std::time::Instant::now();
        self.stop.send_replace(Some(Instant::now() + deadline));
        self.join();
        let mut orphans = self.world.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        let leases = std::mem::take(&mut *orphans);
        Drained { cut: leases.len(), took: begin.elapsed(), leases }
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            // A panic of its thread was printed when it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for ExtProc {
    fn drop(&mut self) {
        // Orphans of a drain are the caller's by now.
        self.world.ending.store(true, Ordering::Relaxed);
        self.stop.send_if_modified(|stop| stop.replace(Instant::now()).is_none());
        self.join();
    }
}

impl std::fmt::Debug for Drained {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let held: u32 = self.leases.iter().map(Lease::weight).sum();
        f.debug_struct("Drained")
            .field("cut", &self.cut)
            .field("took", &self.took)
            .field("units", &held)
            .finish()
    }
}

/// A listener that shares its address with nobody.
fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket)
    };
    let socket = open().map_err(|error| {
        let what = format!("decisions.ext_proc: cannot listen on {address}: {error}");
        io::Error::new(error.kind(), what)
    })?;
    Ok(socket.into())
}

async fn accept(
    listener: std::net::TcpListener,
    workers: Vec<mpsc::UnboundedSender<std::net::TcpStream>>,
    mut stop: watch::Receiver<Option<Instant>>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "ext_proc cannot use its listener; it serves nothing");
            return;
        }
    };
    let mut turn = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Told, or the handle is gone: both mean stop.
            _ = stop.changed() => return,
        };
        // Out of this thread's runtime: it belongs to its worker's from here on.
        match accepted.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => {
                turn = (turn + 1) % workers.len();
                // A worker that has ended has been told to stop; so will this loop be.
                let _ = workers[turn].send(stream);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A worker's life.
async fn work(
    world: Arc<World>,
    token: Option<Arc<str>>,
    mut connections: mpsc::UnboundedReceiver<std::net::TcpStream>,
    mut stop: watch::Receiver<Option<Instant>>,
) {
    let (closing, _) = watch::channel(false);
    let until = loop {
        tokio::select! {
            Some(stream) = connections.recv() => match tokio::net::TcpStream::from_std(stream) {
                Ok(stream) => {
                    tokio::spawn(serve(Arc::clone(&world), token.clone(), stream, closing.subscribe()));
                }
                Err(error) => tracing::warn!(%error, "cannot use a connection"),
            },
            changed = stop.changed() => {
                let now = Instant::now();
                break if changed.is_ok() { stop.borrow().unwrap_or(now) } else { now };
            }
        }
    };
    closing.send_replace(true);
    if tokio::time::timeout_at(until, closing.closed()).await.is_ok() {
        return;
    }
    world.ending.store(true, Ordering::Relaxed);
    // Streams look once a second. Whoever is left after that is cut with the runtime.
    let _ = tokio::time::timeout(CLEAN_END, closing.closed()).await;
}

/// One connection.
async fn serve(
    world: Arc<World>,
    token: Option<Arc<str>>,
    stream: tokio::net::TcpStream,
    mut closing: watch::Receiver<bool>,
) {
    // Only speed is lost without it.
    let _ = stream.set_nodelay(true);
    let door = Door { world, conduct: Arc::default(), token };
    let service = hyper::service::service_fn(move |request| {
        std::future::ready(Ok::<_, Infallible>(door.answer(request)))
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        // Nobody reads the date of a stream.
        .auto_date_header(false)
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(None)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let told = tokio::select! {
        result = connection.as_mut() => Some(result),
        // It changes once; an error means that its owner is gone.
        _ = closing.changed() => None,
    };
    let result = match told {
        Some(result) => result,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection of Envoy's ended");
    }
}

/// The service on one connection.
struct Door {
    world: Arc<World>,
    conduct: Arc<Conduct>,
    /// The whole value of `authorization`.
    token: Option<Arc<str>>,
}

impl Door {
    fn answer(&self, request: http::Request<Incoming>) -> http::Response<Reply> {
        let value = |name| request.headers().get(name).map_or(&b""[..], http::HeaderValue::as_bytes);
        if !value(CONTENT_TYPE).starts_with(b"application/grpc") {
            return Reply::not_grpc();
        }
        if self.token.as_ref().is_some_and(|token| !same(value(AUTHORIZATION), token.as_bytes())) {
            return Reply::refused(Status::UNAUTHENTICATED);
        }
        if let Some(status) = grpc::fault(&request) {
            return Reply::refused(status);
        }
        let (world, conduct) = (Arc::clone(&self.world), Arc::clone(&self.conduct));
        Reply::stream(Session::new(world, conduct, Inbound::new(request.into_body())))
    }
}

/// Compares in a time that does not tell how much of the guess was right.
fn same(given: &[u8], token: &[u8]) -> bool {
    given.len() == token.len()
        && given.iter().zip(token).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}
