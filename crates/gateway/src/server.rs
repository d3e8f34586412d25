//! The gateway's listeners and worker threads.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt;
use http::HeaderValue;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use sluicegate::Gate;
use sluicegate_config::GatewaySettings;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::live::Live;
use crate::proxy;
use crate::stream::ClientStream;
use crate::upstream::{Pools, Probes};

/// Longest time for a client to send a request's headers; an idle connection is closed after it.
const HEADER_READ_MAX: Duration = Duration::from_secs(10);
/// Streams at once on one HTTP/2 connection. Waiting requests are cheap, so more than hyper's 200.
const STREAMS_MAX: u32 = 1000;
/// Connections the kernel keeps for a worker that is busy.
const BACKLOG: i32 = 4096;
/// How long a drain still accepts: clients that the kernel has connected already would be reset.
const LAST_ACCEPTS: Duration = Duration::from_millis(50);
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A running gateway. Dropping it stops it at once: what is in flight is cut.
pub struct Gateway {
    local_addr: SocketAddr,
    workers: Vec<(Arc<Worker>, JoinHandle<usize>)>,
    /// `None` while it serves; then the moment at which a drain ends.
    stop: watch::Sender<Option<Instant>>,
}

/// What a drain left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainReport {
    /// Requests (and tunnels) that were cut because the time was over. 0 is a clean end.
    pub cut: usize,
    /// How long it took.
    pub took: Duration,
}

/// One worker thread's world. Nothing here is touched by another worker's requests, except `gate`,
/// `live` and `probes`.
pub(crate) struct Worker {
    pub(crate) gate: Gate,
    pub(crate) live: Arc<Live>,
    pub(crate) pools: Pools,
    pub(crate) probes: Arc<Probes>,
    /// For tasks started by a drop, which may happen outside the runtime.
    pub(crate) handle: tokio::runtime::Handle,
    /// Other pods tried for a request that surely did not start.
    pub(crate) retry_attempts: u32,
    /// Bytes of a request's body kept for a second try.
    pub(crate) retry_buffer: usize,
    /// Requests that hold a pod. A drain waits for 0.
    busy: AtomicUsize,
    /// Told when `busy` comes to 0.
    idle: Notify,
}

/// Counts one request that holds a pod, while it lives.
pub(crate) struct Busy(Arc<Worker>);

/// One client's connection.
pub(crate) struct Client {
    pub(crate) worker: Arc<Worker>,
    pub(crate) stream: ClientStream,
    /// The client's address, as `X-Forwarded-For` says it.
    pub(crate) peer: HeaderValue,
    /// An answer was given before the request's body was read: close with patience.
    pub(crate) unread: AtomicBool,
}

impl Gateway {
    /// Listens on `settings.listen` (port 0 takes a free one) and serves from its own threads:
    /// `settings.workers`, or one per core.
    ///
    /// # Errors
    /// The address cannot be listened on (in use, not this machine's, no permission), or a thread
    /// cannot be started. Nothing runs then.
    pub fn start(gate: Gate, live: Arc<Live>, settings: &GatewaySettings) -> io::Result<Gateway> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = settings.workers.unwrap_or(cores).max(1);
        let listeners = listen(settings.listen, count)?;
        let local_addr = listeners[0].local_addr()?;
        let probes = Arc::new(Probes::new(gate.clone(), live.clone()));
        let (stop, _) = watch::channel(None);
        let mut gateway = Gateway { local_addr, workers: Vec::with_capacity(count), stop };
        for (number, listener) in listeners.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let worker = Arc::new(Worker {
                gate: gate.clone(),
                live: live.clone(),
                pools: Pools::new(),
                probes: probes.clone(),
                handle: runtime.handle().clone(),
                retry_attempts: settings.retry_attempts,
                retry_buffer: settings.retry_buffer,
                busy: AtomicUsize::new(0),
                idle: Notify::new(),
            });
            let (of_thread, stopped) = (worker.clone(), gateway.stop.subscribe());
            let thread = std::thread::Builder::new().name(format!("gateway-{number}")).spawn(move || {
                let cut = runtime.block_on(run(of_thread, listener, stopped));
                runtime.shutdown_background();
                cut
            })?;
            gateway.workers.push((worker, thread));
        }
        Ok(gateway)
    }

    /// The address it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops accepting, tells every client to go (`Connection: close`, GOAWAY), and waits for the
    /// requests in flight, those that wait for room among them, at most until `deadline` from now.
    /// What is left then is cut. Blocks the caller: not for use inside a runtime.
    #[must_use]
    pub fn drain(mut self, deadline: Duration) -> DrainReport {
        let begin = std::time::Instant::now();
        self.stop.send_replace(Some(Instant::now() + deadline));
        let cut = self.join();
        DrainReport { cut, took: begin.elapsed() }
    }

    fn join(&mut self) -> usize {
        // A worker that panicked has no requests left.
        self.workers.drain(..).map(|(_, thread)| thread.join().unwrap_or(0)).sum()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.send_replace(Some(Instant::now()));
        self.join();
    }
}

impl Busy {
    pub(crate) fn new(worker: &Arc<Worker>) -> Busy {
        worker.busy.fetch_add(1, Ordering::Relaxed);
        Busy(worker.clone())
    }

    pub(crate) fn worker(&self) -> &Arc<Worker> {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.busy.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

/// A listener that shares its address with nobody. `setting` names it in errors.
pub(crate) fn listen_alone(address: SocketAddr, setting: &str) -> io::Result<std::net::TcpListener> {
    let socket = bind(address, false, setting)?;
    socket.listen(BACKLOG).map_err(|error| explain(&error, address, setting))?;
    Ok(socket.into())
}

/// One listener per worker on the same address; the kernel spreads the connections.
fn listen(address: SocketAddr, count: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let setting = "gateway.listen";
    // Without SO_REUSEPORT, to see whether somebody else listens here: with it, two gateways would
    // share the port and neither would say so.
    let first = listen_alone(address, setting)?;
    if count == 1 {
        return Ok(vec![first]);
    }
    let address = first.local_addr()?;
    drop(first);
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = bind(address, true, setting)?;
        socket.listen(BACKLOG).map_err(|error| explain(&error, address, setting))?;
        listeners.push(socket.into());
    }
    Ok(listeners)
}

fn bind(address: SocketAddr, shared: bool, setting: &str) -> io::Result<Socket> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if shared {
            socket.set_reuse_port(true)?;
        }
        if address.ip() == Ipv6Addr::UNSPECIFIED {
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket)
    };
    open().map_err(|error| explain(&error, address, setting))
}

fn explain(error: &io::Error, address: SocketAddr, setting: &str) -> io::Error {
    let mend = match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there; stop it or choose another port",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address; use one of its own",
        io::ErrorKind::PermissionDenied => "ports below 1024 need a permission; use a higher one",
        _ => "choose another address",
    };
    io::Error::new(error.kind(), format!("{setting}: cannot listen on {address}: {error}\n  mend: {mend}"))
}

/// A worker's life. Answers how many requests were cut at its end.
async fn run(
    worker: Arc<Worker>,
    listener: std::net::TcpListener,
    mut stop: watch::Receiver<Option<Instant>>,
) -> usize {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a worker cannot use its listener; it serves nothing");
            return 0;
        }
    };
    let graceful = GracefulShutdown::new();
    let mut every_second = tokio::time::interval(Duration::from_secs(1));
    let mut deadline = None;
    let mut last_accept = Instant::now();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    tokio::spawn(serve(worker.clone(), stream, peer, graceful.watcher()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            _ = every_second.tick() => worker.pools.tick(),
            changed = stop.changed(), if deadline.is_none() => {
                let now = Instant::now();
                let until = if changed.is_ok() { stop.borrow().unwrap_or(now) } else { now };
                deadline = Some(until);
                last_accept = until.min(now + LAST_ACCEPTS);
            }
            () = tokio::time::sleep_until(last_accept), if deadline.is_some() => break,
        }
    }
    let deadline = deadline.expect("the loop ends only with one");
    drop(listener);
    end(&worker, graceful, deadline).await
}

async fn end(worker: &Worker, graceful: GracefulShutdown, deadline: Instant) -> usize {
    let waiting = graceful.count();
    let closed = tokio::time::timeout_at(deadline, graceful.shutdown()).await.is_ok();
    let quiet = async {
        loop {
            let told = worker.idle.notified();
            if worker.busy.load(Ordering::Relaxed) == 0 {
                return;
            }
            told.await;
        }
    };
    let _ = tokio::time::timeout_at(deadline, quiet).await;
    worker.pools.clear();
    let busy = worker.busy.load(Ordering::Relaxed);
    if !closed && busy == 0 {
        tracing::debug!(waiting, "clients were still connected at the end of the drain");
    }
    busy
}

/// One client's connection, from accept to close.
async fn serve(worker: Arc<Worker>, stream: TcpStream, peer: SocketAddr, watcher: Watcher) {
    // Fails only if the client has gone already; then the first read says so.
    let _ = SockRef::from(&stream).set_tcp_nodelay(true);
    let stream = ClientStream::new(stream);
    let peer =
        HeaderValue::try_from(peer.ip().to_canonical().to_string()).expect("an address is visible ASCII");
    let client = Arc::new(Client { worker, stream, peer, unread: AtomicBool::new(false) });
    let malformed = speak(client.clone(), watcher).await;
    let unread = client.unread.load(Ordering::Relaxed);
    if let Some(client) = Arc::into_inner(client)
        && (malformed || unread)
    {
        client.stream.linger().await;
    }
}

/// Speaks HTTP with a client to the end of its connection. True if what it sent was malformed.
///
/// Not an `async fn`: those keep every intermediate value of building the connection for as long as
/// it lives, four times its size.
fn speak(client: Arc<Client>, watcher: Watcher) -> impl Future<Output = bool> {
    let io = TokioIo::new(client.stream.clone());
    let service = service_fn(move |request| {
        let answer = proxy::answer(client.clone(), request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ_MAX);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
    let connection = builder.serve_connection_with_upgrades(io, service).into_owned();
    watcher.watch(connection).map(|result| {
        result.is_err_and(|error| {
            error
                .downcast_ref::<hyper::Error>()
                .is_some_and(|error| error.is_parse() || error.is_parse_too_large())
        })
    })
}
