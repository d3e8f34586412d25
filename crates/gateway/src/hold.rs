//! What one admitted request holds: its lease and its connection to the pod.
//!
//! Life: 1. [`Hold::new`] when the connection is there. 2. [`Working`] until the pod's headers.
//! 3. the answer's body (`answer.rs`) or a tunnel. 4. One of the endings: [`Hold::finished`] at the
//! pod's last byte, [`Hold::cut`], or [`Hold::failed`]. Whoever is dropped before that, because the
//! client left, hands over to [`read_on_head`] or [`read_on_body`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use sluicegate::Lease;
use tokio::time::{Instant, timeout_at};

use crate::headers;
use crate::live::{ApiRule, PodTarget};
use crate::server::{Busy, Worker};
use crate::upload::{Upload, UploadBody};
use crate::upstream::{Exchange, Line};

/// The lease and the connection of one request.
///
/// **Invariant:** dropping it ends the lease, whatever else happens. The endings say in what state
/// the connection is left.
pub(crate) struct Hold {
    /// `None` for an exempt request.
    lease: Option<Lease>,
    line: Line,
    upload: Option<Upload>,
    rule: ApiRule,
    /// When the pod got the request.
    since: Instant,
    busy: Busy,
}

/// A request whose answer has not begun.
pub(crate) struct Working {
    /// `None` when it has ended. Both at once.
    parts: Option<(Exchange, Hold)>,
}

/// What became of the wait for the pod's headers.
pub(crate) type Head = Result<Response<Incoming>, TrySendError<http::Request<UploadBody>>>;

impl Hold {
    pub(crate) fn new(
        worker: &Arc<Worker>,
        rule: ApiRule,
        lease: Option<Lease>,
        line: Line,
        upload: Option<Upload>,
    ) -> Hold {
        Hold { lease, line, upload, rule, since: Instant::now(), busy: Busy::new(worker) }
    }

    pub(crate) fn line(&mut self) -> &mut Line {
        &mut self.line
    }

    pub(crate) fn target(&self) -> &Arc<PodTarget> {
        &self.line.target
    }

    pub(crate) fn worker(&self) -> &Arc<Worker> {
        self.busy.worker()
    }

    /// When the request's time until the headers is over.
    pub(crate) fn head_deadline(&self) -> Instant {
        self.since + self.rule.max_hold
    }

    pub(crate) fn waited(&self) -> Duration {
        self.lease.as_ref().map_or(Duration::ZERO, Lease::waited)
    }

    /// Takes the lease out, for a request that goes back to the queue.
    pub(crate) fn take_lease(&mut self) -> Option<Lease> {
        self.lease.take()
    }

    /// The pod has sent its last byte: the units are free, the connection can be used again.
    pub(crate) fn finished(self) {
        drop(self.lease);
        if self.upload.as_ref().is_none_or(Upload::finished) {
            self.busy.worker().pools.park(self.line);
        } else {
            // It answered without reading everything; what is left must not reach the next request.
            give_up(self.upload.as_ref());
            self.line.cut();
        }
    }

    /// Ends the request at the pod. The units are free at once.
    pub(crate) fn cut(self) {
        give_up(self.upload.as_ref());
        self.line.cut();
    }

    /// The pod broke off: like [`Hold::cut`], and counted as failed.
    pub(crate) fn failed(self) {
        self.worker().gate.count_failed(self.rule.id);
        self.cut();
    }

    /// The pod has had all its time. The units are given back although it may still work, and
    /// counted as abandoned.
    fn written_off(mut self) {
        tracing::warn!(
            pod = self.target().name(),
            "pod did not end in the time it has without a client; its units are written off"
        );
        if let Some(lease) = self.lease.take() {
            lease.write_off();
        }
        self.cut();
    }

    /// True if the end of the client is the end of the request: the pod stops with its connection,
    /// or it can never complete because it waits for the rest of the body.
    fn ends_with_client(&self) -> bool {
        self.target().stops() || self.upload.as_ref().is_some_and(|upload| !upload.finished())
    }
}

fn give_up(upload: Option<&Upload>) {
    if let Some(upload) = upload {
        upload.give_up();
    }
}

impl Working {
    pub(crate) fn new(exchange: Exchange, hold: Hold) -> Working {
        Working { parts: Some((exchange, hold)) }
    }

    /// The pod's headers, or its failure. Poll it again only after `Pending`.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<(Head, Hold)> {
        let (exchange, _) = self.parts.as_mut().expect("polled once to its end");
        let head = std::task::ready!(Pin::new(exchange).poll(cx));
        let (_, hold) = self.parts.take().expect("was there a moment ago");
        Poll::Ready((head, hold))
    }
}

impl Drop for Working {
    /// The client has left, or its time is over: the pod still works.
    fn drop(&mut self) {
        let Some((exchange, hold)) = self.parts.take() else { return };
        if hold.ends_with_client() {
            hold.cut();
            return;
        }
        let worker = hold.worker().clone();
        worker.handle.spawn(read_on_head(exchange, hold));
    }
}

/// Waits for an answer that nobody reads. At most one more `max_hold`, then the units are written
/// off.
async fn read_on_head(exchange: Exchange, hold: Hold) {
    let deadline = hold.head_deadline() + hold.rule.max_hold;
    match timeout_at(deadline, exchange).await {
        Ok(Ok(response)) => {
            headers::report_in_use(&hold.worker().gate, hold.target().id, response.headers());
            read_on_body(response.into_body(), hold).await;
        }
        Ok(Err(_)) => hold.failed(),
        Err(_) => hold.written_off(),
    }
}

/// Reads an answer to its end and throws it away. A stream without an end is cut after
/// `max_stream`, or after one more `max_hold` without a client: then the pod notices at its next
/// write.
async fn read_on_body(mut body: Incoming, hold: Hold) {
    let limit = hold.rule.max_stream.map_or(hold.rule.max_hold, |max| max.min(hold.rule.max_hold));
    let deadline = Instant::now() + limit;
    let end = async {
        while !body.is_end_stream() {
            match std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(_)) => return false,
                None => break,
            }
        }
        true
    };
    match timeout_at(deadline, end).await {
        Ok(true) => hold.finished(),
        // A refusal that is thrown away holds no lease; its failure is no request's failure.
        Ok(false) if hold.lease.is_none() => hold.cut(),
        Ok(false) => hold.failed(),
        Err(_) => hold.written_off(),
    }
}

/// The client left while the answer came.
pub(crate) fn client_left_answer(body: Incoming, hold: Hold) {
    if hold.ends_with_client() {
        hold.cut();
        return;
    }
    let worker = hold.worker().clone();
    worker.handle.spawn(read_on_body(body, hold));
}

/// Throws a refusing pod's answer away and keeps the connection, if the answer is as short as it
/// should be.
pub(crate) fn discard_refusal(body: Incoming, hold: Hold) {
    if body.is_end_stream() {
        hold.finished();
    } else {
        let worker = hold.worker().clone();
        worker.handle.spawn(read_on_body(body, hold));
    }
}
