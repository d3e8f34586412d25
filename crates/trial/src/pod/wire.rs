//! The connection's socket, watched for the moment at which all that was written has gone to the kernel.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::work::Work;

/// Work whose response is written but not yet flushed.
///
/// hyper drops a body when it has copied its last frame, before it writes it: units freed then would be free while
/// a slow reader still keeps the response in the pod's memory. HTTP/1.1 only: there one task writes and flushes, so
/// a flush always follows; over HTTP/2 it may have gone before.
#[derive(Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    written: Vec<Work>,
    closed: bool,
}

impl Outbox {
    /// Ends `work` at the next flush, or now if the connection has closed.
    pub(super) fn push(&self, work: Work) {
        let mut state = self.state.lock().expect("no code panics while it holds the outbox");
        if state.closed {
            drop(state);
            work.end();
        } else {
            state.written.push(work);
        }
    }

    fn flushed(&self, closed: bool) {
        let mut state = self.state.lock().expect("no code panics while it holds the outbox");
        state.closed |= closed;
        state.written.drain(..).for_each(Work::end);
    }
}

/// A socket that ends the work in its outbox whenever it has been flushed, or is dropped.
pub(super) struct Wire {
    io: TokioIo<TcpStream>,
    outbox: Arc<Outbox>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, outbox: Arc<Outbox>) -> Self {
        Self { io: TokioIo::new(stream), outbox }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.outbox.flushed(true);
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        if flushed.is_ready() {
            self.outbox.flushed(false);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
