//! The two sockets of a request. The client's is shared between hyper and us, so that a hang-up can
//! be seen while hyper does not read; the pod's lets an early answer be read.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Longest time that a lingering close reads on.
const LINGER: Duration = Duration::from_secs(2);
/// Most bytes that a lingering close throws away: 16 MiB.
const LINGER_BYTES_MAX: usize = 16 << 20;

/// Up to so many bytes are copied together and sent as one: a head and a small body cost the kernel less
/// that way than as two parts (7 % of the gateway's CPU per tiny request).
const TOGETHER_MAX: usize = 2048;

/// One write for all the parts, copied together if they are small.
fn write_together(
    stream: Pin<&mut TcpStream>,
    cx: &mut Context<'_>,
    bufs: &[io::IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [only] = bufs {
        return stream.poll_write(cx, only);
    }
    let all: usize = bufs.iter().map(|buf| buf.len()).sum();
    if all > TOGETHER_MAX {
        return stream.poll_write_vectored(cx, bufs);
    }
    let mut together = [0; TOGETHER_MAX];
    let mut end = 0;
    for buf in bufs {
        together[end..end + buf.len()].copy_from_slice(buf);
        end += buf.len();
    }
    stream.poll_write(cx, &together[..all])
}

/// A client's TCP connection.
///
/// The mutex is never contended (a worker has one thread); it is there because hyper must own the
/// stream and [`ClientStream::hung_up`] must reach it.
#[derive(Clone)]
pub(crate) struct ClientStream(Arc<Mutex<TcpStream>>);

impl ClientStream {
    pub(crate) fn new(stream: TcpStream) -> ClientStream {
        ClientStream(Arc::new(Mutex::new(stream)))
    }

    /// Completes when the client has closed its half of the connection or reset it, even with
    /// unread bytes before the end. This is for an HTTP/1 upload that waits: hyper does not read
    /// on while nobody polls the body, so it cannot see the end either.
    ///
    /// Costs one more file descriptor while it runs. Never completes if none is left.
    pub(crate) async fn hung_up(&self) {
        let watch = self
            .lock()
            .as_fd()
            .try_clone_to_owned()
            .and_then(|descriptor| TcpStream::from_std(std::net::TcpStream::from(descriptor)));
        match watch {
            Ok(watch) => {
                if let Ok(ready) = watch.ready(Interest::PRIORITY).await
                    && !ready.is_read_closed()
                {
                    std::future::pending::<()>().await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot watch a waiting upload for its client's leaving");
                std::future::pending::<()>().await;
            }
        }
    }

    /// Closes for writing and reads on for a moment. A close with unread bytes would reset the
    /// connection, and the client would lose an answer that was sent before it had sent everything
    /// (a 429 to an upload, a 431 to a giant header).
    pub(crate) async fn linger(self) {
        // Still shared only if hyper gave the stream to a tunnel; then it is not ours to close.
        let Some(stream) = Arc::into_inner(self.0) else { return };
        let mut stream = stream.into_inner().unwrap_or_else(PoisonError::into_inner);
        let drain = async {
            // On the heap: the future of every connection would carry it for its whole life.
            let mut scrap = vec![0; 8192];
            let mut bytes = 0;
            // An error is an end as well: nothing is owed to a client that has gone.
            let _ = stream.shutdown().await;
            while bytes < LINGER_BYTES_MAX {
                match stream.read(&mut scrap).await {
                    Ok(0) | Err(_) => break,
                    Ok(read) => bytes += read,
                }
            }
        };
        let _ = tokio::time::timeout(LINGER, drain).await;
    }

    fn lock(&self) -> MutexGuard<'_, TcpStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        write_together(Pin::new(&mut *self.lock()), cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().is_write_vectored()
    }
}

/// A pod's TCP connection.
///
/// A pod that answers before it has read the whole body and closes makes our next write fail, with
/// its answer waiting to be read; hyper would give up at the failed write. So a write to a closed
/// connection succeeds here and goes nowhere, and the reading side tells what happened.
pub(crate) struct PodStream(TcpStream);

impl PodStream {
    pub(crate) fn new(stream: TcpStream) -> PodStream {
        PodStream(stream)
    }
}

/// `done` instead of the error of a connection that the pod has closed.
fn closed_is<T>(result: io::Result<T>, done: T) -> io::Result<T> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Ok(done)
        }
        result => result,
    }
}

impl AsyncRead for PodStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for PodStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf).map(|result| closed_is(result, buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx).map(|result| closed_is(result, ()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = bufs.iter().map(|buf| buf.len()).sum();
        write_together(Pin::new(&mut self.get_mut().0), cx, bufs).map(|result| closed_is(result, all))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
