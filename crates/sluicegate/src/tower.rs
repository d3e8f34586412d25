//! Admission as a tower middleware.
//!
//! Units are taken in `call`, when the request and so its weight is known, and never in `poll_ready`: an
//! idle keep-alive connection holds nothing. They come back when the response body ends or is dropped, not
//! when the response future does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::acquire::{Acquire, Ask};
use crate::gate::Gate;
use crate::lease::Lease;

/// Wraps a service so that each request holds its units while it runs.
///
/// `classify` says what a request asks for. A refused one is answered `429` (or `503`) as a problem
/// document and never reaches the service. An admitted one finds the pod chosen for it as a
/// [`PodId`](crate::PodId) in its extensions, and its response says in `Server-Timing` how long it waited.
///
/// ```
/// use http::{Request, Response};
/// use sluicegate::{Ask, Gate, policy::Policy, tower::AdmissionLayer};
///
/// let gate = Gate::new(Policy::simple(&[("me", 4)], &[("light", 1), ("heavy", 3)])).unwrap();
/// let (light, heavy) = (gate.api_id("light").unwrap(), gate.api_id("heavy").unwrap());
/// let layer = AdmissionLayer::new(gate, "shop", move |request: &Request<()>| {
///     Ask::new(if request.uri().path() == "/report" { heavy } else { light })
/// });
/// # let _ = layer;
/// ```
#[derive(Clone)]
pub struct AdmissionLayer<C> {
    gate: Gate,
    pool: Arc<str>,
    classify: C,
}

impl<C> AdmissionLayer<C> {
    /// A layer over `gate`; `pool` is the name that refusals carry.
    pub fn new(gate: Gate, pool: &str, classify: C) -> AdmissionLayer<C> {
        AdmissionLayer { gate, pool: Arc::from(pool), classify }
    }
}

impl<S, C: Clone> Layer<S> for AdmissionLayer<C> {
    type Service = Admission<S, C>;

    fn layer(&self, inner: S) -> Admission<S, C> {
        Admission {
            inner,
            gate: self.gate.clone(),
            pool: Arc::clone(&self.pool),
            classify: self.classify.clone(),
        }
    }
}

/// See [`AdmissionLayer`].
#[derive(Clone)]
pub struct Admission<S, C> {
    inner: S,
    gate: Gate,
    pool: Arc<str>,
    classify: C,
}

impl<S, C, B, R> Service<Request<B>> for Admission<S, C>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    C: Fn(&Request<B>) -> Ask,
{
    type Response = Response<AdmittedBody<R>>;
    type Error = S::Error;
    type Future = AdmissionFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let acquire = self.gate.acquire((self.classify)(&request));
        // The service that was polled ready is the one to call; a fresh clone takes its place.
        let fresh = self.inner.clone();
        let service = std::mem::replace(&mut self.inner, fresh);
        AdmissionFuture {
            stage: Stage::Asking { acquire, call: Some((service, request)) },
            gate: self.gate.clone(),
            pool: Arc::clone(&self.pool),
        }
    }
}

pin_project! {
    /// The response to come. Dropping it withdraws the ask, or gives the units back.
    pub struct AdmissionFuture<S: Service<Request<B>>, B> {
        #[pin]
        stage: Stage<S::Future, S, B>,
        gate: Gate,
        pool: Arc<str>,
    }
}

pin_project! {
    #[project = StageProjection]
    enum Stage<F, S, B> {
        Asking { acquire: Acquire, call: Option<(S, Request<B>)> },
        Running { #[pin] future: F, lease: Option<Lease> },
    }
}

impl<S, B, R> Future for AdmissionFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Output = Result<Response<AdmittedBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.stage.as_mut().project() {
                StageProjection::Asking { acquire, call } => {
                    let lease = match ready!(Pin::new(acquire).poll(cx)) {
                        Ok(lease) => lease,
                        Err(refusal) => {
                            let answer = this.gate.refusal_answer(this.pool, &refusal);
                            return Poll::Ready(Ok(answer.map(AdmittedBody::refused)));
                        }
                    };
                    let (mut service, mut request) = call.take().expect("a lease is granted once");
                    request.extensions_mut().insert(lease.pod());
                    let future = service.call(request);
                    this.stage.set(Stage::Running { future, lease: Some(lease) });
                }
                StageProjection::Running { future, lease } => {
                    let answer = ready!(future.poll(cx));
                    let lease = lease.take().expect("a response comes once");
                    return Poll::Ready(answer.map(|response| admitted(response, lease)));
                }
            }
        }
    }
}

fn admitted<R>(mut response: Response<R>, lease: Lease) -> Response<AdmittedBody<R>> {
    response.headers_mut().append("server-timing", server_timing(lease.waited()));
    response.map(|body| AdmittedBody::admitted(body, lease))
}

/// The value of a `Server-Timing` header for a request that waited so long for its lease:
/// `admission;dur=<milliseconds>`. For every surface that speaks HTTP.
#[must_use]
pub fn server_timing(waited: Duration) -> HeaderValue {
    if waited.is_zero() {
        return HeaderValue::from_static("admission;dur=0");
    }
    let micros = waited.as_micros();
    let text = format!("admission;dur={}.{:03}", micros / 1000, micros % 1000);
    HeaderValue::try_from(text).expect("digits and a dot are a header value")
}

pin_project! {
    /// The service's body with the lease that ends with it, or a refusal's document.
    pub struct AdmittedBody<R> {
        // The service's body; `None` for a refusal.
        #[pin]
        body: Option<R>,
        // `None` once the body has ended.
        lease: Option<Lease>,
        // A refusal's document until it is sent.
        document: Option<Bytes>,
    }
}

impl<R> AdmittedBody<R> {
    fn admitted(body: R, lease: Lease) -> AdmittedBody<R> {
        AdmittedBody { body: Some(body), lease: Some(lease), document: None }
    }

    fn refused(document: Bytes) -> AdmittedBody<R> {
        AdmittedBody { body: None, lease: None, document: Some(document) }
    }
}

impl<R: Body<Data = Bytes>> Body for AdmittedBody<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        let this = self.project();
        let Some(mut body) = this.body.as_pin_mut() else {
            return Poll::Ready(this.document.take().map(|bytes| Ok(Frame::data(bytes))));
        };
        let frame = ready!(body.as_mut().poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || body.is_end_stream() {
            *this.lease = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Some(body) => body.is_end_stream(),
            None => self.document.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.body, &self.document) {
            (Some(body), _) => body.size_hint(),
            (None, document) => SizeHint::with_exact(document.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        }
    }
}
