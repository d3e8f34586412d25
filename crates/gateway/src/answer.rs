//! The body of an answer to the client. The pod's carries the lease and gives it back at the pod's
//! last byte, not when the client has read it.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::task::AbortHandle;

use crate::hold::{Hold, client_left_answer};

/// What the client reads.
pub(crate) enum AnswerBody {
    /// An answer of our own; `None` when sent, or empty.
    Own(Option<Bytes>),
    /// The pod's.
    Pod(PodBody),
}

/// The pod's answer on its way to the client.
pub(crate) struct PodBody {
    incoming: Option<Incoming>,
    held: Held,
}

/// Who ends the lease of an answer.
enum Held {
    /// The body alone; `None` when the pod has ended.
    Body(Option<Hold>),
    /// The body, or the clock after `max_stream`: a client that does not read must not keep the
    /// body from being polled, and the units with it, for ever.
    Timed(Arc<Mutex<Timed>>, AbortHandle),
}

struct Timed {
    /// `None` when the pod has ended or the time is over.
    hold: Option<Hold>,
    /// Wakes the body, to tell the client.
    waker: Option<Waker>,
}

/// Why an answer ended early.
#[derive(Debug)]
pub(crate) enum AnswerError {
    /// The pod broke off.
    Pod(hyper::Error),
    /// `max_stream` has passed.
    TooLong,
}

impl PodBody {
    pub(crate) fn new(incoming: Incoming, hold: Hold, max_stream: Option<Duration>) -> PodBody {
        if incoming.is_end_stream() {
            hold.finished();
            return PodBody { incoming: None, held: Held::Body(None) };
        }
        let held = match max_stream {
            None => Held::Body(Some(hold)),
            Some(limit) => Held::timed(hold, limit),
        };
        PodBody { incoming: Some(incoming), held }
    }

    /// The end of a body with a known length is seen here, with its last byte: hyper's server does
    /// not poll again after it.
    fn finish_if_ended(&mut self) {
        if self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
            && let Some(hold) = self.held.take()
        {
            hold.finished();
        }
    }
}

impl Held {
    fn timed(hold: Hold, limit: Duration) -> Held {
        let worker = hold.worker().clone();
        let timed = Arc::new(Mutex::new(Timed { hold: Some(hold), waker: None }));
        let clock = timed.clone();
        let task = worker.handle.spawn(async move {
            tokio::time::sleep(limit).await;
            let (hold, waker) = {
                let mut timed = lock(&clock);
                (timed.hold.take(), timed.waker.take())
            };
            if let Some(hold) = hold {
                hold.cut();
            }
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        Held::Timed(timed, task.abort_handle())
    }

    fn take(&mut self) -> Option<Hold> {
        match self {
            Held::Body(hold) => hold.take(),
            Held::Timed(timed, clock) => {
                clock.abort();
                lock(timed).hold.take()
            }
        }
    }

    /// True if the clock has ended the answer; else it will wake this task when it does.
    fn over(&self, cx: &Context<'_>) -> bool {
        let Held::Timed(timed, _) = self else { return false };
        let mut timed = lock(timed);
        if timed.hold.is_some() {
            timed.waker = Some(cx.waker().clone());
        }
        timed.hold.is_none()
    }
}

fn lock(timed: &Mutex<Timed>) -> MutexGuard<'_, Timed> {
    timed.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Body for PodBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let this = self.get_mut();
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        if this.held.over(cx) {
            this.incoming = None;
            return Poll::Ready(Some(Err(AnswerError::TooLong)));
        }
        match std::task::ready!(Pin::new(incoming).poll_frame(cx)) {
            Some(Ok(frame)) => {
                this.finish_if_ended();
                if this.is_end_stream() {
                    this.incoming = None;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.incoming = None;
                if let Some(hold) = this.held.take() {
                    hold.failed();
                }
                Poll::Ready(Some(Err(AnswerError::Pod(error))))
            }
            None => {
                this.incoming = None;
                this.finish_if_ended();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(SizeHint::default, Incoming::size_hint)
    }
}

impl Drop for PodBody {
    fn drop(&mut self) {
        if let (Some(incoming), Some(hold)) = (self.incoming.take(), self.held.take()) {
            client_left_answer(incoming, hold);
        }
    }
}

impl AnswerBody {
    pub(crate) fn own(bytes: Bytes) -> AnswerBody {
        AnswerBody::Own(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    pub(crate) fn empty() -> AnswerBody {
        AnswerBody::Own(None)
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        match self.get_mut() {
            AnswerBody::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            AnswerBody::Pod(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AnswerBody::Own(bytes) => bytes.is_none(),
            AnswerBody::Pod(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            AnswerBody::Pod(body) => body.size_hint(),
        }
    }
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnswerError::Pod(_) => f.write_str("the pod broke its answer off"),
            AnswerError::TooLong => f.write_str("the answer was cut after max_stream"),
        }
    }
}

impl std::error::Error for AnswerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AnswerError::Pod(error) => Some(error),
            AnswerError::TooLong => None,
        }
    }
}
