//! Bodies of answers, and what ends with them.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::book::Guard;

/// The body of an answer.
pub(crate) enum Reply {
    /// All of it.
    Full(Option<Bytes>),
    /// All of it; dropped before it was written, what it tells of never was.
    Answer(Option<Bytes>, Guard),
    /// One line, and then nothing for as long as the lease lives.
    Line {
        first: Option<Bytes>,
        /// Ends the lease with the connection.
        _guard: Guard,
        /// Ends the connection with the lease.
        ended: oneshot::Receiver<()>,
    },
    /// Another gate's answer.
    Passed(Incoming, Link),
}

/// The connection to another gate. Closed when dropped.
pub(crate) struct Link(pub(crate) AbortHandle);

impl Drop for Link {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Reply {
    pub(crate) fn full(bytes: Bytes) -> Reply {
        Reply::Full(Some(bytes))
    }

    pub(crate) fn empty() -> Reply {
        Reply::Full(None)
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match &mut *self {
            Reply::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Reply::Answer(bytes, guard) => {
                guard.delivered();
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))))
            }
            Reply::Line { first, ended, .. } => match first.take() {
                Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
                // Its sender is dropped with the lease and never sends.
                None => Pin::new(ended).poll(cx).map(|_| None),
            },
            Reply::Passed(body, _) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Reply::Full(bytes) | Reply::Answer(bytes, _) => bytes.is_none(),
            Reply::Line { .. } => false,
            Reply::Passed(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Reply::Full(bytes) | Reply::Answer(bytes, _) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Reply::Line { .. } => SizeHint::default(),
            Reply::Passed(body, _) => body.size_hint(),
        }
    }
}
