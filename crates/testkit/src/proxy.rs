//! A bad network between two processes: a TCP proxy that a test can stop, slow down and cut.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Pieces on the way in one direction; what a sender sends beyond them waits in its own kernel.
const PIECES_MAX: usize = 256;

/// A proxy on loopback, driven by a thread of its own. Dropping it resets every connection.
#[derive(Debug)]
pub struct TcpProxy {
    addr: SocketAddr,
    road: watch::Sender<Road>,
    connections: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// What the network does now.
#[derive(Clone, Copy, Debug, Default)]
struct Road {
    /// Nothing arrives.
    closed: bool,
    delay: Duration,
    /// Moves when all connections are to be reset.
    cuts: u64,
    ended: bool,
}

impl TcpProxy {
    /// Listens on a free port of loopback and forwards each connection to `target`, which need not listen yet.
    ///
    /// # Panics
    /// If no port or no thread can be had.
    #[must_use]
    pub fn start(target: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket of ours");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let (road, seen) = watch::channel(Road::default());
        let connections = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&connections);
        // A runtime of its own, and on that thread: the test may be within one, or have none.
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime of one thread");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("it does not block");
                accept(listener, target, seen, count).await;
            });
        };
        let thread = std::thread::Builder::new().name("tcp-proxy".to_owned()).spawn(serve);
        Self { addr, road, connections, thread: Some(thread.expect("a thread")) }
    }

    /// Where clients connect.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections accepted and not closed yet.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// From now on nothing passes, either way, and nothing is closed: not even the end of a peer is heard. New connections
    /// are accepted (the kernel does that) and lead nowhere.
    ///
    /// As with packets that a network loses and TCP repeats, what was sent meanwhile arrives after [`heal`](Self::heal), late.
    pub fn blackhole(&self) {
        self.road.send_modify(|road| road.closed = true);
    }

    /// Resets all connections; new ones are forwarded.
    pub fn cut(&self) {
        self.road.send_modify(|road| road.cuts += 1);
    }

    /// Everything that enters from now on arrives this much later, each way.
    pub fn delay(&self, delay: Duration) {
        self.road.send_modify(|road| road.delay = delay);
    }

    /// Ends [`blackhole`](Self::blackhole) and [`delay`](Self::delay).
    pub fn heal(&self) {
        self.road.send_modify(|road| {
            road.closed = false;
            road.delay = Duration::ZERO;
        });
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.road.send_modify(|road| road.ended = true);
        if let Some(thread) = self.thread.take() {
            // It can only fail by a panic, which has been printed.
            let _ = thread.join();
        }
    }
}

/// Accepts until the proxy ends. The runtime's end then drops what is left, after each relay has reset its sockets.
async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    road: watch::Receiver<Road>,
    connections: Arc<AtomicUsize>,
) {
    let mut seen = road.clone();
    let mut relays = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = seen.wait_for(|road| road.ended) => break,
            Some(_) = relays.join_next() => {}
            accepted = listener.accept() => {
                // A client that is gone before it was accepted is no fault of the proxy.
                let Ok((client, _)) = accepted else { continue };
                connections.fetch_add(1, Ordering::Relaxed);
                let (road, connections) = (road.clone(), Arc::clone(&connections));
                relays.spawn(async move {
                    relay(client, target, road).await;
                    connections.fetch_sub(1, Ordering::Relaxed);
                });
            }
        }
    }
    while relays.join_next().await.is_some() {}
}

async fn relay(mut client: TcpStream, target: SocketAddr, road: watch::Receiver<Road>) {
    let mut server = None;
    let mut seen = road.clone();
    let cuts = seen.borrow().cuts;
    let reset = tokio::select! {
        biased;
        _ = seen.wait_for(|road| road.cuts != cuts || road.ended) => true,
        passed = forward(&mut client, &mut server, target, road) => passed.is_err(),
    };
    if reset {
        for socket in std::iter::once(&client).chain(&server) {
            // A socket that is already gone needs no reset.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }
}

/// One of the two peers reset the connection, or there is no second one.
struct Reset;

async fn forward(
    client: &mut TcpStream,
    server: &mut Option<TcpStream>,
    target: SocketAddr,
    mut road: watch::Receiver<Road>,
) -> Result<(), Reset> {
    open(&mut road).await;
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(|_| Reset)?;
    // So that a cut resets it also while it connects.
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).map_err(|_| Reset)?;
    let server = server.insert(socket.connect(target).await.map_err(|_| Reset)?);
    SockRef::from(&*server).set_linger(None).map_err(|_| Reset)?;
    for socket in [&*client, &*server] {
        socket.set_nodelay(true).map_err(|_| Reset)?;
    }
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let there = pump(from_client, to_server, road.clone());
    let back = pump(from_server, to_client, road);
    tokio::try_join!(there, back).map(|_| ())
}

/// What enters on one side.
enum Piece {
    Bytes(Vec<u8>),
    End,
    Reset,
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut road: watch::Receiver<Road>,
) -> Result<(), Reset> {
    let (entered, mut leaving) = mpsc::channel(PIECES_MAX);
    let delays = road.clone();
    let read = async move {
        loop {
            let mut bytes = vec![0; 16 * 1024];
            let piece = match from.read(&mut bytes).await {
                Ok(0) => Piece::End,
                Ok(length) => {
                    bytes.truncate(length);
                    Piece::Bytes(bytes)
                }
                Err(_) => Piece::Reset,
            };
            let last = !matches!(piece, Piece::Bytes(_));
            let due = Instant::now() + delays.borrow().delay;
            if entered.send((due, piece)).await.is_err() || last {
                // The writer ends the pump: at this last piece, or it has ended already.
                return std::future::pending::<Infallible>().await;
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = leaving.recv().await {
            sleep_until(due).await;
            open(&mut road).await;
            match piece {
                Piece::Bytes(bytes) => to.write_all(&bytes).await.map_err(|_| Reset)?,
                Piece::End => return to.shutdown().await.map_err(|_| Reset),
                Piece::Reset => return Err(Reset),
            }
        }
        Ok(())
    };
    tokio::select! {
        written = write => written,
        never = read => match never {},
    }
}

/// Waits until the road is open; for ever when the proxy ends first, as its relay then ends by itself.
async fn open(road: &mut watch::Receiver<Road>) {
    if road.wait_for(|road| !road.closed).await.is_err() {
        std::future::pending::<()>().await;
    }
}
