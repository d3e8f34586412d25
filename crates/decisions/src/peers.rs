//! The other gates of the pool: where they are, and calls to them.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

/// What a call that one gate passes on to another asks for: see [`Ask`].
pub(crate) const PASSED: HeaderName = HeaderName::from_static("x-sluicegate-passed");
/// Longest time to connect to another gate.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Longest time for an answer to a call that does not wait for room.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Where a gate is may be so old; that it is gone is never remembered.
const FRESH: Duration = Duration::from_secs(1);
/// Longest that a caller waits for the ledger to hear of what was adopted for it.
const HEARD_MAX: Duration = Duration::from_secs(2);
/// And how often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Connections kept per gate.
const IDLE_MAX: usize = 8;
/// Longest answer of another gate that is read whole.
const BODY_MAX: usize = 1 << 20;
/// Headers of a connection, which are not passed on with its call.
const OF_CONNECTION: [HeaderName; 7] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::EXPECT,
    header::TE,
    header::UPGRADE,
];

/// Where the other gates of the pool are. Each call may block for a moment, and is made where that holds nobody up.
pub trait Peers: Send + Sync + 'static {
    /// The gate of this name.
    fn find(&self, gate: &str) -> Peer;

    /// All other gates that live and can be called: name and base URL. May be a second old.
    fn others(&self) -> Vec<(String, String)>;

    /// So long before the units of a gate that is gone come back, whoever adopted its leases counts them: longer than the
    /// ledger needs to hear of it.
    fn lead(&self) -> Duration;

    /// Words of this gate's that the ledger has answered. One was under way at most when another was said.
    fn answered(&self) -> u64;
}

/// What is known of a gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It lives; its decision service is at this base URL (`http://host:port` or `https://host:port`).
    At(String),
    /// It lives, and nobody knows where its decision service is.
    Hidden,
    /// It is gone, and its units count for so long yet.
    Gone(Duration),
    /// It is gone with all its units, or never was.
    Unknown,
    /// The ledger, which knows, does not answer.
    Unsure(String),
}

/// What is asked of another gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Its own lease.
    Own,
    /// A lease that it may have adopted; nothing if it has not.
    Adopted,
    /// To adopt a lease whose gate is gone, unless another has.
    Adopt,
}

/// A call to be passed on.
#[derive(Clone, Debug)]
pub(crate) struct Passing {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// The other gates, for all workers.
pub(crate) struct Peering {
    peers: Option<Arc<dyn Peers>>,
    pub(crate) own: String,
    known: Mutex<HashMap<String, (String, Instant)>>,
    idle: Mutex<HashMap<String, Vec<Line>>>,
    tls: Option<TlsConnector>,
}

/// A connection to another gate. Closed when dropped.
struct Line {
    sender: SendRequest<Full<Bytes>>,
    driver: Driver,
}

/// Ends the task that drives a connection, when dropped.
pub(crate) struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Another gate's answer.
pub(crate) enum Answer {
    Whole(Response<Bytes>),
    /// One that stays open; its connection ends with the driver.
    Open(Response<Incoming>, Driver),
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        match self {
            Answer::Whole(answer) => answer.status().as_u16(),
            Answer::Open(answer, _) => answer.status().as_u16(),
        }
    }
}

impl Ask {
    pub(crate) fn of(headers: &HeaderMap) -> Option<Ask> {
        match headers.get(PASSED)?.as_bytes() {
            b"adopted" => Some(Ask::Adopted),
            b"adopt" => Some(Ask::Adopt),
            _ => Some(Ask::Own),
        }
    }

    fn word(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Ask::Own => "own",
            Ask::Adopted => "adopted",
            Ask::Adopt => "adopt",
        })
    }
}

impl Peering {
    pub(crate) fn new(peers: Option<Arc<dyn Peers>>, own: &str, tls: Option<TlsConnector>) -> Peering {
        Peering { peers, own: own.to_owned(), known: Mutex::default(), idle: Mutex::default(), tls }
    }

    /// True where other gates may be.
    pub(crate) fn shares(&self) -> bool {
        self.peers.is_some()
    }

    /// The gate of this name; where it is may be a second old unless `now`.
    pub(crate) async fn find(&self, gate: &str, now: bool) -> Peer {
        let Some(peers) = self.peers.clone() else { return Peer::Unknown };
        if !now
            && let Some((url, at)) = lock(&self.known).get(gate)
            && at.elapsed() < FRESH
        {
            return Peer::At(url.clone());
        }
        let name = gate.to_owned();
        let found = tokio::task::spawn_blocking(move || peers.find(&name)).await;
        let found = found.unwrap_or_else(|error| Peer::Unsure(error.to_string()));
        let mut known = lock(&self.known);
        match &found {
            Peer::At(url) => drop(known.insert(gate.to_owned(), (url.clone(), Instant::now()))),
            _ => drop(known.remove(gate)),
        }
        found
    }

    pub(crate) async fn others(&self) -> Vec<(String, String)> {
        let Some(peers) = self.peers.clone() else { return Vec::new() };
        tokio::task::spawn_blocking(move || peers.others()).await.unwrap_or_default()
    }

    /// See [`Peers::lead`].
    pub(crate) fn lead(&self) -> Duration {
        self.peers.as_ref().map_or(Duration::ZERO, |peers| peers.lead())
    }

    /// Waits until the ledger has heard what counts here now; in vain while it does not answer.
    pub(crate) async fn heard(&self) {
        let Some(peers) = &self.peers else { return };
        let (before, start) = (peers.answered(), Instant::now());
        // One that is under way says what counted before.
        while peers.answered() < before + 2 && start.elapsed() < HEARD_MAX {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The gate that sees to `key`, by what all gates know alike; `None`: this one.
    pub(crate) fn home<'a>(&self, key: &str, others: &'a [(String, String)]) -> Option<&'a str> {
        let own = weigh(&self.own, key);
        let best = others.iter().max_by_key(|(gate, _)| weigh(gate, key))?;
        (weigh(&best.0, key) > own).then_some(best.1.as_str())
    }

    /// Passes a call on. `waits`: it may wait for room there, as long as it takes.
    ///
    /// # Errors
    /// In words: the other gate does not answer.
    pub(crate) async fn send(
        &self,
        base: &str,
        call: &Passing,
        ask: Ask,
        waits: bool,
    ) -> Result<Answer, String> {
        let mut kept = lock(&self.idle).get_mut(base).and_then(Vec::pop);
        loop {
            let was_kept = kept.is_some();
            let line = match kept.take() {
                Some(line) => line,
                None => self.connect(base).await?,
            };
            let sent = self.send_on(base, line, call, ask);
            let sent = if waits {
                sent.await
            } else {
                tokio::time::timeout(ANSWER_MAX, sent)
                    .await
                    .unwrap_or_else(|_| Err("no answer in time".to_owned()))
            };
            // A kept connection may have been closed meanwhile. All that is passed on can be sent twice.
            if !was_kept || sent.is_ok() {
                return sent;
            }
        }
    }

    async fn send_on(&self, base: &str, mut line: Line, call: &Passing, ask: Ask) -> Result<Answer, String> {
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = call.target.parse().map_err(|error| format!("{error}"))?;
        let headers = request.headers_mut();
        let host = base.split_once("://").map_or(base, |(_, host)| host);
        headers.insert(header::HOST, HeaderValue::try_from(host).map_err(|error| error.to_string())?);
        headers.insert(PASSED, ask.word());
        for (name, value) in &call.headers {
            if !OF_CONNECTION.contains(name) && *name != PASSED {
                headers.append(name, value.clone());
            }
        }
        line.sender.ready().await.map_err(|error| error.to_string())?;
        let answer = line.sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (mut parts, body) = answer.into_parts();
        for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH, header::DATE] {
            parts.headers.remove(name);
        }
        if parts.headers.contains_key("connection-lifetime") {
            return Ok(Answer::Open(Response::from_parts(parts, body), line.driver));
        }
        let body =
            Limited::new(body, BODY_MAX).collect().await.map_err(|error| error.to_string())?.to_bytes();
        if !line.sender.is_closed() {
            let mut idle = lock(&self.idle);
            let idle = idle.entry(base.to_owned()).or_default();
            if idle.len() < IDLE_MAX {
                idle.push(line);
            }
        }
        Ok(Answer::Whole(Response::from_parts(parts, body)))
    }

    async fn connect(&self, base: &str) -> Result<Line, String> {
        let uri: Uri = base.parse().map_err(|error| format!("`{base}` is no URL: {error}"))?;
        let authority = uri.authority().ok_or_else(|| format!("`{base}` is not `http://host:port`"))?;
        let secure = uri.scheme_str() == Some("https");
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let connected = tokio::time::timeout(CONNECT_MAX, self.dial(host, port, secure)).await;
        let stream = connected.map_err(|_| "connecting took too long")?.map_err(|error| error.to_string())?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        Ok(Line { sender, driver: Driver(tokio::spawn(connection).abort_handle()) })
    }

    async fn dial(&self, host: String, port: u16, secure: bool) -> io::Result<Box<dyn Stream>> {
        let tcp = TcpStream::connect((host.as_str(), port)).await?;
        tcp.set_nodelay(true)?;
        if !secure {
            return Ok(Box::new(tcp));
        }
        let tls =
            self.tls.as_ref().ok_or_else(|| io::Error::other("it speaks TLS, and this gate does not"))?;
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, tcp).await?))
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Rendezvous hashing: with the fixed keys of the standard hasher all gates come to the same.
fn weigh(gate: &str, key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (gate, key).hash(&mut hasher);
    hasher.finish()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept is only known or spared; a panic elsewhere must not end it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
