//! The service's listener and threads, and its end.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sluicegate::Gate;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::book::Book;
use crate::counters::{Counters, Counts};
use crate::directory::Directory;
use crate::http;
use crate::http::elsewhere::AGAIN_MAX;
use crate::http::pods::PodsDoor;
use crate::http::reply::Delivery;
use crate::names::Id;
use crate::peers::Peering;
use crate::probes::Probes;
use crate::settings::{Limits, Settings};
use crate::socket::{self, Bound, Listener, Stream, Watched};
use crate::tls::{self, Token};

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A running decision service. Dropping it stops it at once: leases that are still out end.
pub struct Decisions {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    /// Kept for the file of a Unix socket, which goes when nobody listens any more.
    bound: Bound,
}

/// What a drain left. The units of leases that were cut are held until this is dropped: their requests may still run.
#[derive(Clone)]
pub struct DrainReport {
    /// Leases and waiting asks that were cut because the time was over. 0 is a clean end.
    pub cut: usize,
    /// How long it took.
    pub took: Duration,
    /// With the leases that are left.
    _book: Arc<Book>,
}

impl fmt::Debug for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainReport")
            .field("cut", &self.cut)
            .field("took", &self.took)
            .finish_non_exhaustive()
    }
}

/// What every call needs.
pub(crate) struct Shared {
    pub(crate) gate: Gate,
    pub(crate) directory: Arc<Directory>,
    pub(crate) book: Arc<Book>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) pods: Option<Arc<PodsDoor>>,
    pub(crate) probes: Arc<Probes>,
    pub(crate) token: Token,
    pub(crate) limits: Limits,
    pub(crate) peering: Peering,
    /// Places for returns that another gate could not be told yet.
    pub(crate) later: Arc<Semaphore>,
    tally: Arc<Tally>,
    draining: AtomicBool,
}

/// Leases and waiting asks that there are.
#[derive(Default)]
pub(crate) struct Tally {
    count: AtomicUsize,
    /// Held only to tell that the count came to 0.
    gate: Mutex<()>,
    idle: Condvar,
}

/// Counts one, while it lives.
pub(crate) struct Busy(Arc<Tally>);

/// What each worker gets.
#[derive(Clone)]
struct Door {
    shared: Arc<Shared>,
    tls: Option<TlsAcceptor>,
    /// Places for connections, shared by the workers.
    places: Arc<Semaphore>,
    /// Callers must show the token.
    guarded: bool,
    stop: watch::Receiver<bool>,
}

impl Shared {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// True if an id names this gate, or none.
    pub(crate) fn is_ours(&self, id: &Id<'_>) -> bool {
        id.gate.is_none_or(|gate| gate == self.book.name.as_str())
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

impl Decisions {
    /// Serves the calls that come to `bound`, from threads of its own. `directory` must be kept up to date with `gate`
    /// by whoever changes the configuration.
    ///
    /// # Errors
    /// A certificate cannot be read; others can reach the listener and there is neither a token nor mutual TLS
    /// (`InvalidInput`); or a thread cannot be started. Nothing runs then.
    pub fn start(
        gate: Gate,
        directory: Arc<Directory>,
        bound: Bound,
        settings: &Settings,
    ) -> io::Result<Decisions> {
        let (tls, guarded) = guards(&bound, settings)?;
        let connector = settings.tls.as_ref().map(tls::connector).transpose()?;
        let (stop, stopped) = watch::channel(false);
        let (counters, tally) = (Arc::new(Counters::default()), Arc::new(Tally::default()));
        let book = Book::new(settings, gate.clone(), counters.clone(), tally.clone());
        let probes = Arc::new(Probes::new(gate.clone(), directory.clone()));
        let shared = Arc::new(Shared {
            gate,
            directory,
            book: Arc::new(book),
            counters,
            pods: settings.pods.clone(),
            probes,
            token: Token::new(settings.token.clone()),
            limits: settings.limits,
            peering: Peering::new(settings.peers.clone(), settings.gate.as_str(), connector),
            later: Arc::new(Semaphore::new(AGAIN_MAX)),
            tally,
            draining: AtomicBool::new(false),
        });
        let places = Arc::new(Semaphore::new(settings.limits.connections.max(1)));
        let door = Door { shared: shared.clone(), tls, places, guarded, stop: stopped };
        let mut service = Decisions { shared, stop, threads: Vec::new(), bound };
        for number in 0..settings.workers.max(1) {
            let (listener, door) = (service.bound.share()?, door.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread =
                std::thread::Builder::new().name(format!("decisions-{number}")).spawn(move || {
                    runtime.block_on(work(door, listener, number == 0));
                    runtime.shutdown_background();
                })?;
            service.threads.push(thread);
        }
        Ok(service)
    }

    /// Where it listens; `None` for a Unix socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.bound.address()
    }

    /// Reads what it has counted since it started, for as long as anybody wants to, also while it drains.
    pub fn counts(&self) -> impl Fn() -> Counts + Send + Sync + 'static {
        let counters = self.shared.counters.clone();
        move || counters.read()
    }

    /// Gives out no more leases (503) and waits until all are given back, at most until `deadline` from now: renewals
    /// and returns are answered until then. Leases that are left end with the report. Blocks the caller: not for use
    /// inside a runtime.
    #[must_use]
    pub fn drain(mut self, deadline: Duration) -> DrainReport {
        let begin = Instant::now();
        self.shared.draining.store(true, Ordering::Relaxed);
        let cut = self.shared.tally.wait(begin + deadline);
        self.join();
        DrainReport { cut, took: begin.elapsed(), _book: self.shared.book.clone() }
    }

    fn join(&mut self) {
        self.stop.send_replace(true);
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

/// How callers of a listener show who they are: by TLS, by the token.
fn guards(bound: &Bound, settings: &Settings) -> io::Result<(Option<TlsAcceptor>, bool)> {
    // Who may open a Unix socket's file may call.
    let Some(address) = bound.address() else { return Ok((None, false)) };
    let tls = settings.tls.as_ref().map(tls::acceptor).transpose()?;
    if !address.ip().is_loopback() && settings.token.is_none() && tls.is_none() {
        let what = format!(
            "decisions.http {address} can be reached by others, and there is neither a token nor mutual TLS\n  mend: set decisions.token or decisions.tls, or listen on 127.0.0.1"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok((tls, settings.token.is_some()))
}

/// A worker's life.
async fn work(door: Door, listener: socket::Shared, keeps_time: bool) {
    let mut stop = door.stop.clone();
    if keeps_time {
        let book = door.shared.book.clone();
        tokio::spawn(async move { book.keep_time().await });
    }
    match listener.enter() {
        Ok(listener) => drop(tokio::spawn(accept(door, listener))),
        Err(error) => tracing::error!(%error, "a worker cannot use its listener; it serves nothing"),
    }
    // Told, or the handle is gone: both mean stop.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn accept(door: Door, listener: Listener) {
    loop {
        let place = door.places.clone().acquire_owned().await.expect("the places are never closed");
        match listener.accept().await {
            Ok(stream) => drop(tokio::spawn(serve(door.clone(), stream, place))),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves a connection from accept to close.
async fn serve(door: Door, stream: Stream, _place: OwnedSemaphorePermit) {
    let limits = door.shared.limits;
    let stream = match (stream, door.tls) {
        (Stream::Tcp(stream), Some(tls)) => match tokio::time::timeout(limits.read, tls.accept(stream)).await
        {
            Ok(Ok(stream)) => Stream::Tls(Box::new(stream)),
            Ok(Err(error)) => return tracing::debug!(%error, "a caller without a certificate of ours"),
            Err(_) => return,
        },
        (stream, _) => stream,
    };
    let delivery = Delivery::default();
    let io = TokioIo::new(Watched { stream, delivery: delivery.clone() });
    let (shared, guarded) = (door.shared, door.guarded);
    let service = service_fn(move |request| http::answer(shared.clone(), request, guarded, delivery.clone()));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.read);
    // What breaks a connection is its caller's affair.
    let _ = builder.serve_connection(io, service).await;
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write};

    use sluicegate_config::DoorAddress;
    use sluicegate_testkit::wait::until;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    /// A service of one pod of 4 units.
    fn service() -> Decisions {
        let rules = "pool: trial\npods:\n  - {name: a, url: \"http://127.0.0.1:9001\", capacity: 4}\n";
        let config = sluicegate_config::parse("test.yaml", rules, &|_| None).expect("good rules").config;
        let gate = Gate::new(config.policy.clone()).expect("a good policy");
        let directory = Arc::new(Directory::new(&gate, &config));
        let bound = Bound::listen(&DoorAddress::Tcp(([127, 0, 0, 1], 0).into())).expect("a free port");
        Decisions::start(gate, directory, bound, &Settings { workers: 1, ..Settings::new() })
            .expect("threads")
    }

    /// A connection to it whose caller reads nothing, and which is so full that nothing more can be written to it. And how
    /// much is in it.
    fn full(service: &Decisions) -> (UnixStream, usize) {
        let (mut served, caller) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
        served.set_nonblocking(true).expect("a socket of ours");
        caller.set_nonblocking(true).expect("a socket of ours");
        let mut inside = 0;
        loop {
            match served.write(&[b'x'; 4096]) {
                Ok(written) => inside += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        let places = Arc::new(Semaphore::new(1));
        let place = places.clone().try_acquire_owned().expect("the only one");
        let door = Door {
            shared: service.shared.clone(),
            tls: None,
            places,
            guarded: false,
            stop: service.stop.subscribe(),
        };
        let served = UnixStream::from_std(served).expect("within a runtime");
        tokio::spawn(serve(door, Stream::Unix(served), place));
        (UnixStream::from_std(caller).expect("within a runtime"), inside)
    }

    async fn ask(caller: &mut UnixStream, body: &str) {
        let head = "POST /v1/leases HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
        let text = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        caller.write_all(text.as_bytes()).await.expect("that way is open");
    }

    #[tokio::test]
    async fn a_lease_whose_answer_cannot_be_written_is_given_back() {
        let service = service();
        let shared = service.shared.clone();
        let in_use = || shared.gate.snapshot().in_use;
        for (round, body) in [
            "{\"api\": \"default\", \"weight\": 3}",
            "{\"api\": \"default\", \"weight\": 3, \"id\": \"mine\"}",
        ]
        .into_iter()
        .enumerate()
        {
            let (mut caller, _) = full(&service);
            ask(&mut caller, body).await;
            until("the lease is given", SOON, || in_use() == 3).await;
            drop(caller);
            until("and given back", SOON, || in_use() == 0).await;
            assert_eq!(service.counts()().undelivered, round as u64 + 1, "{body}");
        }
        // One that is read at last is the caller's, and stays.
        let (mut caller, inside) = full(&service);
        ask(&mut caller, "{\"api\": \"default\", \"weight\": 3, \"id\": \"read\"}").await;
        until("the lease is given", SOON, || in_use() == 3).await;
        let mut junk = vec![0; inside];
        caller.read_exact(&mut junk).await.expect("what was in it");
        let mut said = vec![0; 12];
        caller.read_exact(&mut said).await.expect("the answer's begin");
        assert_eq!(said, b"HTTP/1.1 201");
        drop(caller);
        let told = || shared.book.renew("read", None).is_some();
        assert!(told() && in_use() == 3);
        assert!(shared.book.end("read", crate::book::Ended::Done));
        assert_eq!((in_use(), service.counts()().undelivered), (0, 2));
        shared.gate.audit().expect("the books agree");
    }
}
