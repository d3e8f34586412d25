//! The gateway's listeners and worker threads.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use sluicegate::Gate;
use sluicegate_config::GatewaySettings;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::connection::serve;
use crate::live::Live;
use crate::overflow::OverflowDoor;
use crate::upstream::{Pools, Probes};

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
    /// Where requests go that found no room, if their api has it so.
    pub(crate) overflow: Option<Arc<OverflowDoor>>,
    /// Requests that wait or hold a pod. A drain waits for 0.
    busy: AtomicUsize,
    /// Told when `busy` comes to 0.
    idle: Notify,
}

/// Counts one request that waits or holds a pod, while it lives.
pub(crate) struct Busy(Arc<Worker>);

impl Worker {
    /// One that keeps no bodies for a second try and has no overflow.
    pub(crate) fn new(gate: Gate, live: Arc<Live>, handle: tokio::runtime::Handle, attempts: u32) -> Worker {
        Worker {
            pools: Pools::new(),
            probes: Arc::new(Probes::new(gate.clone(), live.clone())),
            gate,
            live,
            handle,
            retry_attempts: attempts,
            retry_buffer: 0,
            overflow: None,
            busy: AtomicUsize::new(0),
            idle: Notify::new(),
        }
    }
}

impl Gateway {
    /// Listens on `settings.listen` (port 0 takes a free one) and serves from its own threads:
    /// `settings.workers`, or one per core.
    ///
    /// # Errors
    /// The address cannot be listened on (in use, not this machine's, no permission), or a thread
    /// cannot be started. Nothing runs then.
    pub fn start(gate: Gate, live: Arc<Live>, settings: &GatewaySettings) -> io::Result<Gateway> {
        Gateway::start_with(gate, live, settings, None)
    }

    /// As [`Gateway::start`]; requests of apis with `overflow: enqueue` that find no room are handed to `overflow`,
    /// and jobs are answered for under its location.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub fn start_with(
        gate: Gate,
        live: Arc<Live>,
        settings: &GatewaySettings,
        overflow: Option<OverflowDoor>,
    ) -> io::Result<Gateway> {
        let overflow = overflow.map(Arc::new);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = settings.workers.unwrap_or(cores).max(1);
        let listeners = listen(settings.listen, count)?;
        let local_addr = listeners[0].local_addr()?;
        let probes = Arc::new(Probes::new(gate.clone(), live.clone()));
        let (stop, _) = watch::channel(None);
        let mut gateway = Gateway { local_addr, workers: Vec::with_capacity(count), stop };
        for (number, listener) in listeners.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let mut worker =
                Worker::new(gate.clone(), live.clone(), runtime.handle().clone(), settings.retry_attempts);
            worker.probes = probes.clone();
            worker.retry_buffer = settings.retry_buffer;
            worker.overflow.clone_from(&overflow);
            let worker = Arc::new(worker);
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
    let (closing, _) = watch::channel(false);
    let mut every_second = tokio::time::interval(Duration::from_secs(1));
    let mut deadline = None;
    let mut last_accept = Instant::now();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    tokio::spawn(serve(worker.clone(), stream, peer, closing.subscribe()));
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
    end(&worker, closing, deadline).await
}

async fn end(worker: &Worker, closing: watch::Sender<bool>, deadline: Instant) -> usize {
    closing.send_replace(true);
    let quiet = async {
        // Every connection has gone: then nobody waits for an answer any more.
        closing.closed().await;
        loop {
            let told = worker.idle.notified();
            if worker.busy.load(Ordering::Relaxed) == 0 {
                return;
            }
            told.await;
        }
    };
    // What is left at the deadline is counted and cut.
    let _ = tokio::time::timeout_at(deadline, quiet).await;
    worker.pools.clear();
    worker.busy.load(Ordering::Relaxed)
}
