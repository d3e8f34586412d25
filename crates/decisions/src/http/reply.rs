//! Bodies of answers, and what ends with them.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior};

use crate::book::Guard;
use crate::peers::Driver;

/// A line that stays open says so often that it is there: proxies close what is silent for a minute.
const BEAT: Duration = Duration::from_secs(15);

/// The body of an answer.
pub(crate) enum Reply {
    /// All of it.
    Full(Option<Bytes>),
    /// All of it, and the guard of the lease that it tells of.
    Answer(Option<(Bytes, Guard)>, Delivery),
    /// One line, and then an empty one now and then for as long as the lease lives.
    Line(Box<Line>),
    /// Another gate's answer that stays open.
    Passed(Incoming, #[expect(dead_code, reason = "for its drop")] Driver),
}

pub(crate) struct Line {
    first: Option<Bytes>,
    beat: Interval,
    /// Ends the connection with the lease.
    ended: oneshot::Receiver<()>,
    /// Ends the lease with the connection.
    _guard: Guard,
}

/// The leases that one connection was told of by an answer that is not written yet. With the connection they end.
#[derive(Clone, Default)]
pub(crate) struct Delivery(Arc<Mutex<Option<Guard>>>);

impl Delivery {
    fn begins(&self, guard: Guard) {
        // One answer at a time: an earlier one was written before this one was begun, or is told of with it.
        let earlier = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(guard);
        if let Some(earlier) = earlier {
            earlier.delivered();
        }
    }

    /// All that was answered is in the kernel's hands.
    pub(crate) fn written(&self) {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(guard) = guard {
            guard.delivered();
        }
    }
}

impl Reply {
    pub(crate) fn full(bytes: Bytes) -> Reply {
        Reply::Full(Some(bytes))
    }

    pub(crate) fn empty() -> Reply {
        Reply::Full(None)
    }

    pub(crate) fn told(bytes: Bytes, guard: Guard, delivery: &Delivery) -> Reply {
        Reply::Answer(Some((bytes, guard)), delivery.clone())
    }

    /// Within a runtime.
    pub(crate) fn line(first: Bytes, guard: Guard, ended: oneshot::Receiver<()>) -> Reply {
        let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + BEAT, BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Reply::Line(Box::new(Line { first: Some(first), beat, ended, _guard: guard }))
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let all = match &mut *self {
            Reply::Full(bytes) => bytes.take(),
            Reply::Answer(answer, delivery) => answer.take().map(|(bytes, guard)| {
                delivery.begins(guard);
                bytes
            }),
            Reply::Passed(body, _) => return Pin::new(body).poll_frame(cx),
            Reply::Line(line) => {
                return line.poll_next(cx).map(|next| next.map(|bytes| Ok(Frame::data(bytes))));
            }
        };
        Poll::Ready(all.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Reply::Full(bytes) => bytes.is_none(),
            Reply::Answer(answer, _) => answer.is_none(),
            Reply::Passed(body, _) => body.is_end_stream(),
            Reply::Line(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Reply::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Reply::Answer(answer, _) => {
                SizeHint::with_exact(answer.as_ref().map_or(0, |(bytes, _)| bytes.len() as u64))
            }
            Reply::Line(_) | Reply::Passed(..) => SizeHint::default(),
        }
    }
}

impl Line {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        // Its sender is dropped with the lease and never sends.
        if Pin::new(&mut self.ended).poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        self.beat.poll_tick(cx).map(|_| Some(Bytes::from_static(b"\n")))
    }
}
