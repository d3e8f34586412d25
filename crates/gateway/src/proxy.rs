//! One request: its api, its units, its pod, its answer.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use sluicegate::{Acquire, Lease, PodId, Reason, Refusal};

use crate::answer::{AnswerBody, PodBody};
use crate::connection::Client;
use crate::headers;
use crate::hold::{Hold, Working, discard_refusal};
use crate::live::{ApiRule, PodTarget};
use crate::overflow::{self, Kept, NotKept, OverflowDoor, Wish};
use crate::problem::{self, Problem};
use crate::server::{Busy, Worker};
use crate::tunnel::Tunnel;
use crate::upload::{Upload, UploadBody};

/// Whole seconds after which to come again when no pod is ready and the gate was not asked.
const NO_POD_RETRY_S: u32 = 1;

/// Answers one request. Never fails: what goes wrong is an answer too.
pub(crate) async fn answer(
    client: Arc<Client>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    Ok(admit(&client, request).await)
}

async fn admit(client: &Client, mut request: Request<Incoming>) -> Response<AnswerBody> {
    let worker = &client.worker;
    if let Some(door) = &worker.overflow
        && let Some(rest) = door.below(request.uri().path())
    {
        return Box::pin(overflow::answer(door, &request, rest)).await;
    }
    let (rule, mut ask) = {
        let rules = worker.live.rules();
        let api = rules.routes.find(request.method().as_str(), request.uri().path());
        let rule = rules.apis[api];
        (rule, rules.ask(rule.id, request.headers()))
    };
    let has_body = !http_body::Body::is_end_stream(request.body());
    let asking = Asking {
        client,
        rule,
        grpc: headers::is_grpc(request.headers()),
        upload_at_client: has_body && request.version() < Version::HTTP_2,
    };
    if request.method() == Method::CONNECT {
        return asking.problem(Problem::MethodNotAllowed, "CONNECT is for forward proxies");
    }
    let wish = match asking.may_keep(&request) {
        None => None,
        Some(door) => {
            let wish = Box::new(asking.wish(request.headers()));
            if wish.at_once || wish.is_known(door).await {
                worker.gate.count_enqueued(rule.id);
                return Box::pin(Job::new(asking, request, worker.retry_buffer).keep(*wish, None)).await;
            }
            ask = wish.shape(ask, rule.wait);
            Some(wish)
        }
    };
    let granted = if rule.exempt {
        asking.exempt()
    } else {
        let mut acquire = worker.gate.acquire(ask);
        match poll_once(&mut acquire).await {
            Poll::Ready(outcome) => asking.outcome(Some(outcome)),
            Poll::Pending => {
                compact(&mut request);
                asking.wait(acquire).await
            }
        }
    };
    let mut grant = match granted {
        Ok(grant) => grant,
        Err(stop) if stop.may_come_again() && wish.is_some() => {
            return Box::pin(Job::new(asking, request, worker.retry_buffer).stopped(wish, stop)).await;
        }
        Err(stop) => return asking.stopped(&stop),
    };
    // The future of what follows is large and the wait above may be long: 16 KiB is what a waiting
    // request may cost, so it is not built before.
    let mut job = Job::new(asking, request, worker.retry_buffer);
    loop {
        match job.turn(grant).await {
            Ok(response) => return response,
            Err(Again::Granted(next)) => grant = next,
            Err(Again::Queued(acquire)) => match job.wait(acquire).await {
                Ok(next) => grant = next,
                Err(stop) => return Box::pin(job.stopped(wish, stop)).await,
            },
        }
    }
}

/// Leave to use a pod: with a lease, or exempt.
struct Grant {
    lease: Option<Lease>,
    pod: PodId,
}

/// Why a request got no leave.
enum Stop {
    Refused(Refusal),
    /// The client left with its body partly sent.
    Left,
}

impl Stop {
    /// There was only no room now.
    fn may_come_again(&self) -> bool {
        matches!(self, Stop::Refused(Refusal::NotNow { .. }))
    }
}

/// Why a turn gave no answer.
enum Again {
    /// Another pod (or the same, over another connection) may be tried at once.
    Granted(Grant),
    /// Back to the queue, with the old rank.
    Queued(Acquire),
}

/// What is known of a request before its headers are touched.
#[derive(Clone, Copy)]
struct Asking<'a> {
    client: &'a Client,
    rule: ApiRule,
    grpc: bool,
    /// An HTTP/1 body that is not wholly here: while it waits, hyper cannot see its client leave.
    upload_at_client: bool,
}

impl Asking<'_> {
    fn worker(&self) -> &Worker {
        &self.client.worker
    }

    /// The overflow, for a request that it can keep: neither a gRPC call nor an upgrade, whose clients wait for a
    /// protocol that a job does not speak.
    fn may_keep(&self, request: &Request<Incoming>) -> Option<&OverflowDoor> {
        let door = self.worker().overflow.as_ref().filter(|_| self.rule.enqueues)?;
        let plain = !self.grpc && !headers::wants_upgrade(request.headers());
        plain.then_some(door)
    }

    fn wish(&self, headers: &HeaderMap) -> Wish {
        Wish::of(headers, self.worker().live.rules().api_name(self.rule.id))
    }

    /// Waits for room.
    async fn wait(&self, mut acquire: Acquire) -> Result<Grant, Stop> {
        let _busy = Busy::new(&self.client.worker);
        if !self.upload_at_client {
            return self.outcome(Some(acquire.await));
        }
        // At once, if there is an answer at once: the watch costs a descriptor.
        if let Poll::Ready(outcome) = poll_once(&mut acquire).await {
            return self.outcome(Some(outcome));
        }
        let mut hung_up = pin!(self.client.stream.hung_up());
        let outcome = std::future::poll_fn(|cx| match Pin::new(&mut acquire).poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => hung_up.as_mut().poll(cx).map(|()| None),
        });
        self.outcome(outcome.await)
    }

    /// `None`: the client has left.
    fn outcome(&self, outcome: Option<Result<Lease, Refusal>>) -> Result<Grant, Stop> {
        match outcome {
            Some(Ok(lease)) => Ok(Grant { pod: lease.pod(), lease: Some(lease) }),
            Some(Err(refusal)) => Err(Stop::Refused(refusal)),
            None => Err(Stop::Left),
        }
    }

    /// The least used pod, without a lease.
    fn exempt(&self) -> Result<Grant, Stop> {
        match self.worker().gate.exempt(self.rule.id) {
            Some(pod) => Ok(Grant { lease: None, pod }),
            None => Err(Stop::Refused(Refusal::NotNow {
                reason: Reason::NoReadyPod,
                api: self.rule.id,
                weight: 0,
                retry_after_s: NO_POD_RETRY_S,
                elsewhere: None,
            })),
        }
    }

    fn stopped(&self, stop: &Stop) -> Response<AnswerBody> {
        match stop {
            Stop::Refused(refusal) => {
                self.mark_unread();
                problem::refusal(self.worker(), refusal, self.grpc)
            }
            Stop::Left => self.problem(Problem::BadBody, "the client left with its body partly sent"),
        }
    }

    fn problem(&self, problem: Problem, detail: &str) -> Response<AnswerBody> {
        self.mark_unread();
        problem::answer(self.worker(), problem, self.rule.id, self.grpc, detail)
    }

    /// The answer goes out before the body was read.
    fn mark_unread(&self) {
        if self.upload_at_client {
            self.client.unread.store(true, Ordering::Relaxed);
        }
    }
}

/// A request with leave to go, ready to be sent as often as needed.
struct Job<'a> {
    asking: Asking<'a>,
    method: Method,
    /// Path and query only.
    path: PathAndQuery,
    headers: HeaderMap,
    upload: Option<Upload>,
    /// Tries of other pods left, for a request that surely did not start.
    tries_left: u32,
    /// The next connection must be a new one: an idle one turned out to be closed.
    fresh: bool,
    /// The client's side of an upgrade that it asked for.
    upgrade: Option<hyper::upgrade::OnUpgrade>,
}

impl<'a> Job<'a> {
    fn new(asking: Asking<'a>, mut request: Request<Incoming>, kept_bytes_max: usize) -> Job<'a> {
        let upgrade = (request.version() == Version::HTTP_11 && headers::wants_upgrade(request.headers()))
            .then(|| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        let host = host_of(&parts);
        let Parts { method, uri, mut headers, .. } = parts;
        headers::to_pod(&mut headers, &asking.client.peer, host, upgrade.is_some());
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Job {
            method,
            path,
            headers,
            upload: Upload::new(body, kept_bytes_max),
            tries_left: asking.worker().retry_attempts,
            fresh: false,
            upgrade,
            asking,
        }
    }

    /// Whether all of the body is here or still to come: none was given to a pod and not kept.
    fn is_whole(&self) -> bool {
        self.upload.as_ref().is_none_or(Upload::repeatable)
    }

    /// It was not admitted: it is kept for later if it may be, and else its client is told.
    async fn stopped(self, wish: Option<Box<Wish>>, stop: Stop) -> Response<AnswerBody> {
        match (wish, stop) {
            (Some(wish), Stop::Refused(refusal @ Refusal::NotNow { .. })) if self.is_whole() => {
                self.keep(*wish, Some(refusal)).await
            }
            (_, stop) => self.asking.stopped(&stop),
        }
    }

    /// The request becomes a job. `refusal`: what its client would be told else.
    async fn keep(mut self, wish: Wish, refusal: Option<Refusal>) -> Response<AnswerBody> {
        let worker = Arc::clone(&self.asking.client.worker);
        let Some(door) = &worker.overflow else { unreachable!("only a worker with an overflow comes here") };
        let _busy = Busy::new(&worker);
        let kept = Kept {
            api: worker.live.rules().api_name(self.asking.rule.id).to_owned(),
            method: self.method.clone(),
            path: self.path.clone(),
            headers: std::mem::take(&mut self.headers),
            body: self.upload.as_ref().map_or_else(UploadBody::empty, Upload::next_try),
        };
        let retry_after_s = match &refusal {
            Some(Refusal::NotNow { retry_after_s, .. }) => Some(*retry_after_s),
            _ => None,
        };
        let outcome = overflow::keep(door, wish, kept, retry_after_s).await;
        self.note_upload();
        match (outcome, refusal) {
            (Ok(response), _) => response,
            // As without an overflow.
            (Err(NotKept::Full | NotKept::Store(_)), Some(refusal)) => {
                self.asking.stopped(&Stop::Refused(refusal))
            }
            (Err(why), _) => why.answer(),
        }
    }

    async fn wait(&mut self, acquire: Acquire) -> Result<Grant, Stop> {
        self.note_upload();
        self.asking.wait(acquire).await
    }

    /// One try at one pod.
    async fn turn(&mut self, grant: Grant) -> Result<Response<AnswerBody>, Again> {
        let worker = &self.asking.client.worker;
        let Some(target) = worker.live.pod(grant.pod) else {
            return self.elsewhere(grant, || "the pod has left the configuration".to_owned());
        };
        let line = match worker.pools.take(&target, self.fresh).await {
            Ok(line) => line,
            Err(error) => {
                worker.probes.pod_is_down(&target, &error);
                return self
                    .elsewhere(grant, || format!("pod `{}` cannot be reached: {error}", target.name()));
            }
        };
        let reused = line.reused;
        let request = self.request(&target);
        let mut hold = Hold::new(worker, self.asking.rule, grant.lease, line, self.upload.clone());
        let exchange = hold.line().send(request);
        let deadline = hold.head_deadline();
        let mut working = Working::new(exchange, hold);
        let mut late = pin!(tokio::time::sleep_until(deadline));
        let head = std::future::poll_fn(|cx| match working.poll_head(cx) {
            Poll::Ready(head) => Poll::Ready(Some(head)),
            Poll::Pending => late.as_mut().poll(cx).map(|()| None),
        })
        .await;
        match head {
            Some((Ok(response), hold)) => self.answered(response, hold),
            Some((Err(error), hold)) => self.broke(error, hold, reused),
            None => Ok(self.too_slow(working, &target)),
        }
    }

    /// The pod's headers are here.
    fn answered(
        &mut self,
        response: Response<Incoming>,
        mut hold: Hold,
    ) -> Result<Response<AnswerBody>, Again> {
        headers::report_in_use(&hold.worker().gate, hold.target().id, response.headers());
        if response.status() == StatusCode::TOO_MANY_REQUESTS
            && self.upload.as_ref().is_none_or(Upload::repeatable)
            && let Some(lease) = hold.take_lease()
        {
            // Its own lock had no room: the request did not start there.
            discard_refusal(response.into_body(), hold);
            return Err(Again::Queued(lease.refused_by_pod()));
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(self.tunnel(response, hold));
        }
        self.note_upload();
        let waited = hold.waited();
        let (mut parts, body) = response.into_parts();
        // Which version the pod speaks is between it and us.
        parts.version = Version::HTTP_11;
        headers::to_client(&mut parts.headers, waited, false);
        let body = AnswerBody::Pod(PodBody::new(body, hold, self.asking.rule.max_stream));
        Ok(Response::from_parts(parts, body))
    }

    fn tunnel(&mut self, response: Response<Incoming>, hold: Hold) -> Response<AnswerBody> {
        let Some(client) = self.upgrade.take() else {
            let name = hold.target().name().to_owned();
            hold.failed();
            return self.asking.problem(
                Problem::PodFailed,
                &format!("pod `{name}` changed the protocol without being asked"),
            );
        };
        let rule = self.asking.rule;
        let tunnel = Tunnel { client, handshake_only: rule.handshake_only, max_stream: rule.max_stream };
        tunnel.open(response, hold)
    }

    /// The exchange failed before the pod's headers.
    fn broke(
        &mut self,
        mut error: TrySendError<Request<UploadBody>>,
        mut hold: Hold,
        reused: bool,
    ) -> Result<Response<AnswerBody>, Again> {
        let target = hold.target().clone();
        let unsent = error.take_message().is_some();
        let error = error.into_error();
        if unsent && reused {
            // The idle connection was closed under us. The pod knows nothing of the request.
            self.fresh = true;
            let lease = hold.take_lease();
            hold.cut();
            return Err(Again::Granted(Grant { lease, pod: target.id }));
        }
        let repeatable = self.upload.as_ref().is_none_or(Upload::repeatable);
        if unsent || (repeatable && surely_not_started(&error)) {
            let lease = hold.take_lease();
            hold.cut();
            let grant = Grant { lease, pod: target.id };
            return self.elsewhere(grant, || {
                format!("pod `{}` took no request: {}", target.name(), problem::chain(&error))
            });
        }
        self.note_upload();
        if self.upload.as_ref().is_some_and(Upload::client_failed) {
            hold.cut();
            return Ok(self.asking.problem(Problem::BadBody, "the body ended early or was malformed"));
        }
        hold.failed();
        tracing::warn!(pod = target.name(), error = problem::chain(&error), "pod failed");
        Ok(self.asking.problem(Problem::PodFailed, &fault(&target, &error)))
    }

    /// `max_hold` is over. The pod goes on, and the units stay with it.
    fn too_slow(&mut self, working: Working, target: &PodTarget) -> Response<AnswerBody> {
        self.note_upload();
        let rule = self.asking.rule;
        self.asking.worker().gate.count_failed(rule.id);
        drop(working);
        let detail = format!(
            "pod `{}` sent no answer within {} ms (max_hold)",
            target.name(),
            rule.max_hold.as_millis()
        );
        self.asking.problem(Problem::PodTooSlow, &detail)
    }

    /// The request surely did not start: another pod, if tries are left.
    fn elsewhere(
        &mut self,
        grant: Grant,
        detail: impl FnOnce() -> String,
    ) -> Result<Response<AnswerBody>, Again> {
        if self.tries_left == 0 {
            drop(grant);
            self.note_upload();
            self.asking.worker().gate.count_failed(self.asking.rule.id);
            return Ok(self.asking.problem(Problem::PodFailed, &detail()));
        }
        self.tries_left -= 1;
        self.fresh = false;
        match grant.lease {
            Some(lease) => Err(Again::Queued(lease.never_started())),
            None => match self.asking.exempt() {
                Ok(grant) => Err(Again::Granted(grant)),
                Err(stop) => Ok(self.asking.stopped(&stop)),
            },
        }
    }

    /// Whether the client's body is still partly with the client.
    fn note_upload(&mut self) {
        self.asking.upload_at_client &= self.upload.as_ref().is_some_and(|upload| !upload.finished());
        self.asking.mark_unread();
    }

    /// The request as this pod is sent it.
    fn request(&self, target: &PodTarget) -> Request<UploadBody> {
        to_pod(target, &self.method, &self.path, &self.headers, self.upload.as_ref())
    }
}

/// A request as `target` is sent it.
pub(crate) fn to_pod(
    target: &PodTarget,
    method: &Method,
    path: &PathAndQuery,
    headers: &HeaderMap,
    upload: Option<&Upload>,
) -> Request<UploadBody> {
    let mut request = Request::new(upload.map_or_else(UploadBody::empty, Upload::next_try));
    *request.method_mut() = method.clone();
    *request.headers_mut() = headers.clone();
    if target.speaks_h2() {
        let host = request.headers_mut().remove(header::HOST);
        let authority = host.and_then(|host| http::uri::Authority::try_from(host.as_bytes()).ok());
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(http::uri::Scheme::HTTP);
        parts.authority = Some(authority.unwrap_or_else(|| target.authority.clone()));
        parts.path_and_query = Some(path.clone());
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from_parts(parts).expect("scheme, authority and path are there");
    } else {
        if !request.headers().contains_key(header::HOST) {
            request.headers_mut().insert(header::HOST, target.host.clone());
        }
        *request.uri_mut() = Uri::from(path.clone());
    }
    request
}

async fn poll_once(acquire: &mut Acquire) -> Poll<Result<Lease, Refusal>> {
    std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *acquire).poll(cx))).await
}

/// Copies what a request that must wait borrows from the buffer it was read into: 8 KiB per
/// HTTP/1.1 connection, half of what a waiting request may cost. (An HTTP/2 head owns its bytes.)
fn compact(request: &mut Request<Incoming>) {
    if request.version() >= Version::HTTP_2 {
        return;
    }
    let own = |name: &HeaderName| HeaderName::from_bytes(name.as_str().as_bytes());
    let headers = std::mem::take(request.headers_mut());
    let mut copy = HeaderMap::with_capacity(headers.keys_len());
    for (name, value) in &headers {
        // Both were valid a moment ago.
        if let (Ok(name), Ok(value)) = (own(name), HeaderValue::from_bytes(value.as_bytes())) {
            copy.append(name, value);
        }
    }
    *request.headers_mut() = copy;
    if let Ok(uri) = request.uri().to_string().parse() {
        *request.uri_mut() = uri;
    }
}

/// The host that the client named: in the request line or `:authority`, else in its header.
fn host_of(parts: &Parts) -> Option<HeaderValue> {
    match parts.uri.authority() {
        Some(authority) => HeaderValue::try_from(authority.as_str()).ok(),
        None => parts.headers.get(header::HOST).cloned(),
    }
}

/// True if an HTTP/2 pod says that it did not look at the request: REFUSED_STREAM, or a GOAWAY
/// without an error that leaves the stream out.
pub(crate) fn surely_not_started(error: &hyper::Error) -> bool {
    let Some(cause) = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>())
    else {
        return false;
    };
    cause.is_remote()
        && (cause.reason() == Some(h2::Reason::REFUSED_STREAM)
            || (cause.is_go_away() && cause.reason() == Some(h2::Reason::NO_ERROR)))
}

/// What the client is told of a pod's failure.
fn fault(target: &PodTarget, error: &hyper::Error) -> String {
    let name = target.name();
    if error.is_parse() || error.is_parse_too_large() {
        format!("pod `{name}` did not answer in HTTP: {}", problem::chain(error))
    } else if error.is_incomplete_message() {
        format!("pod `{name}` closed the connection before its answer")
    } else {
        format!("pod `{name}` failed before its answer: {}", problem::chain(error))
    }
}
