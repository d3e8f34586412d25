//! One client's connection: which version it speaks, and its end.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use http::HeaderValue;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::proxy;
use crate::server::Worker;
use crate::stream::ClientStream;

/// Longest time for a client to send a request's headers; an idle connection is closed after it.
const HEADER_READ_MAX: Duration = Duration::from_secs(10);
/// Streams at once on one HTTP/2 connection. Waiting requests are cheap, so more than hyper's 200.
const STREAMS_MAX: u32 = 1000;
/// What an HTTP/2 connection begins with, as far as no method of HTTP/1 does.
const HTTP2_BEGINS: &[u8] = b"PRI ";
/// Pause between looks at a first segment that is shorter than that. Real clients send more.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// One client's connection.
pub(crate) struct Client {
    pub(crate) worker: Arc<Worker>,
    pub(crate) stream: ClientStream,
    /// The client's address, as `X-Forwarded-For` says it.
    pub(crate) peer: HeaderValue,
    /// An answer was given before the request's body was read: close with patience.
    pub(crate) unread: AtomicBool,
}

/// A connection that can be told to end after what is in flight.
struct Speaking<C> {
    connection: C,
    finish: fn(Pin<&mut C>),
}

/// Serves a client from accept to close. `stop` turns true when a drain begins, and a drain lasts
/// until every receiver is gone.
pub(crate) async fn serve(
    worker: Arc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    mut stop: watch::Receiver<bool>,
) {
    // Fails only if the client has gone already; then the first read says so.
    let _ = SockRef::from(&stream).set_tcp_nodelay(true);
    let http2 = tokio::select! {
        first = begins_as_http2(&stream) => first,
        _ = stop.changed() => return,
    };
    let Some(http2) = http2 else { return };
    let stream = ClientStream::new(stream);
    let peer = peer.ip().to_canonical().to_string();
    let peer = HeaderValue::try_from(peer).expect("an address is visible ASCII");
    let client = Arc::new(Client { worker, stream, peer, unread: AtomicBool::new(false) });
    let malformed = if http2 {
        Box::pin(until_end(speak_http2(client.clone()), stop)).await
    } else {
        until_end(speak_http1(client.clone()), stop).await
    };
    let unread = client.unread.load(Ordering::Relaxed);
    if let Some(client) = Arc::into_inner(client)
        && (malformed || unread)
    {
        client.stream.linger().await;
    }
}

/// Looks at the first bytes and leaves them where they are. `None` if there are none in time.
///
/// hyper-util's own detection reads the first 24 bytes apart: hyper then grows its read buffer to
/// 16 KiB for every connection, which is all that a waiting request may cost.
async fn begins_as_http2(stream: &TcpStream) -> Option<bool> {
    let look = async {
        let mut first = [0; HTTP2_BEGINS.len()];
        loop {
            match stream.peek(&mut first).await {
                Ok(0) | Err(_) => return None,
                Ok(seen) if first[..seen] != HTTP2_BEGINS[..seen] => return Some(false),
                Ok(seen) if seen == first.len() => return Some(true),
                Ok(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    };
    tokio::time::timeout(HEADER_READ_MAX, look).await.unwrap_or_default()
}

/// Not an `async fn`, nor the other: those keep every intermediate value for as long as the
/// connection lives.
fn speak_http1(client: Arc<Client>) -> Speaking<impl Future<Output = hyper::Result<()>>> {
    let io = TokioIo::new(client.stream.clone());
    let service = service_fn(move |request| proxy::answer(client.clone(), request));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_MAX);
    let connection = builder.serve_connection(io, service).with_upgrades();
    Speaking { connection, finish: http1::UpgradeableConnection::graceful_shutdown }
}

fn speak_http2(client: Arc<Client>) -> Speaking<impl Future<Output = hyper::Result<()>>> {
    let io = TokioIo::new(client.stream.clone());
    let service = service_fn(move |request| proxy::answer(client.clone(), request));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
    Speaking {
        connection: builder.serve_connection(io, service),
        finish: http2::Connection::graceful_shutdown,
    }
}

/// Drives a connection to its end, and tells it when a drain begins. True if what the client sent
/// was malformed.
async fn until_end<C: Future<Output = hyper::Result<()>>>(
    speaking: Speaking<C>,
    mut stop: watch::Receiver<bool>,
) -> bool {
    let mut connection = pin!(speaking.connection);
    let ended = {
        let mut stopped = pin!(stop.changed());
        std::future::poll_fn(|cx| match connection.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => stopped.as_mut().poll(cx).map(|_| None),
        })
        .await
    };
    let result = match ended {
        Some(result) => result,
        None => {
            (speaking.finish)(connection.as_mut());
            connection.await
        }
    };
    result.is_err_and(|error| error.is_parse() || error.is_parse_too_large())
}
