//! Leases one by one: asked for, renewed, given back.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use sluicegate::{Lease, Reason, Refusal};
use tokio::sync::watch;

use super::elsewhere::{self, pass_on};
use super::input::{Asked, LeaseAnswer, LeaseRequest, RenewRequest, connection_lifetime, read};
use super::problem::{Fault, come_again, problem};
use super::reply::Reply;
use super::{Call, status_only};
use crate::book::{Asking, Begun, Guard, Held, Outcome, View};
use crate::directory::Pod;
use crate::names::{self, Id, Name};
use crate::server::Shared;

/// Why an ask got no lease.
enum Refused {
    ByGate(Refusal),
    /// The pod chosen is no longer in the configuration.
    PodGone,
}

/// `POST /v1/leases`.
pub(super) async fn acquire(shared: &Arc<Shared>, call: &Call) -> Result<Response<Reply>, Fault> {
    let headers = &call.parts.headers;
    let request: LeaseRequest = read(&call.body)?;
    let bound = connection_lifetime(headers)?;
    let rules = shared.directory.rules();
    let name = match chosen_name(&request, call)? {
        Some(Id { gate: Some(gate), .. }) if gate != shared.book.gate.as_str() => {
            return Ok(to_peer(shared, &gate, call).await);
        }
        other => other.map(|id| id.name),
    };
    let asked = request.check(&rules, headers, bound)?;
    if shared.is_draining() {
        return Ok(come_again("draining", "The service goes", "This gate gives out no more leases; ask another one."));
    }
    Ok(match name {
        None => unnamed(shared, asked, bound).await,
        Some(name) => named(shared, name, &request, asked, bound).await,
    })
}

/// The name that the caller chose, by the body or by its key.
fn chosen_name(request: &LeaseRequest, call: &Call) -> Result<Option<Id>, Fault> {
    if let Some(id) = &request.id {
        return Id::chosen(id).map(Some);
    }
    let key = call.parts.headers.get("idempotency-key");
    key.map(|key| Ok(Id { gate: None, name: names::of_key(key.as_bytes())? })).transpose()
}

/// Nobody can ask for it again: the wait is this call's own, and ends with it.
async fn unnamed(shared: &Arc<Shared>, asked: Asked, bound: bool) -> Response<Reply> {
    let (lease, pod) = match ask(shared, &asked).await {
        Ok(granted) => granted,
        Err(refused) => return refusal(shared, &refused),
    };
    // No await from here to the guard.
    let (line, ended) = if bound { line() } else { (None, None) };
    let (key, view) = shared.book.hold_drawn(Held { lease, pod, hold: asked.hold, line });
    match ended {
        Some(ended) => on_line(shared, &view, Guard::of_line(&shared.book, key), ended),
        None => {
            let bytes = document(shared, &view);
            created(Reply::Answer(Some(bytes), Guard::of_answer(&shared.book, key)), shared, &view)
        }
    }
}

/// A name that the caller chose: a task asks, so that a second call of the same name can join, and so that a third
/// can cancel both.
async fn named(
    shared: &Arc<Shared>,
    name: Name,
    request: &LeaseRequest,
    asked: Asked,
    bound: bool,
) -> Response<Reply> {
    let (mut outcome, mut on_its_line, first) = match shared.book.begin(&name, request, bound) {
        Begun::Again(view) => return replayed(shared, &view),
        Begun::Clash(why) => {
            return problem(StatusCode::CONFLICT, "id_taken", "The id cannot be used for this", why);
        }
        Begun::Joined(outcome) => (outcome, None, false),
        Begun::Fresh(asking, outcome) => {
            let (line, ended) = if bound { line() } else { (None, None) };
            // Ends the lease whenever this call does, before its answer too.
            let on_its_line = ended.map(|ended| (Guard::of_line(&shared.book, asking.guard.clone()), ended));
            tokio::spawn(settle(shared.clone(), asking, asked, line));
            (outcome, on_its_line, true)
        }
    };
    let settled = settled(&mut outcome).await;
    match settled {
        Outcome::Given(view) => match on_its_line.take() {
            Some((guard, ended)) => on_line(shared, &view, guard, ended),
            None if first => created(Reply::full(document(shared, &view)), shared, &view),
            None => replayed(shared, &view),
        },
        Outcome::Refused(refused) => refusal(shared, &Refused::ByGate(refused)),
        Outcome::PodGone => refusal(shared, &Refused::PodGone),
        Outcome::Cancelled => {
            let detail = "The lease was given back by its id before this call was answered.";
            problem(StatusCode::CONFLICT, "cancelled", "Cancelled by its id", detail)
        }
    }
}

/// Waits for what the asking task finds.
async fn settled(outcome: &mut watch::Receiver<Option<Outcome>>) -> Outcome {
    match outcome.wait_for(Option::is_some).await {
        Ok(seen) => seen.clone().unwrap_or(Outcome::Cancelled),
        // The task is gone without a word: the service stops.
        Err(_) => Outcome::Cancelled,
    }
}

/// The task that asks for a named lease.
async fn settle(
    shared: Arc<Shared>,
    mut asking: Asking,
    asked: Asked,
    line: Option<tokio::sync::oneshot::Sender<()>>,
) {
    let outcome = asking.outcome.clone();
    let granted = {
        let mut granted = Box::pin(ask(&shared, &asked));
        loop {
            tokio::select! {
                biased;
                // Its sender is dropped with the entry: by a DELETE, or by a caller that went with its line.
                _ = &mut asking.cancelled => return,
                () = outcome.closed() => if shared.book.forsake(&asking) {
                    return;
                },
                granted = &mut granted => break granted,
            }
        }
    };
    let settled = match granted {
        Ok((lease, pod)) => {
            let held = Held { lease, pod, hold: asked.hold, line };
            shared.book.hold_named(&asking.guard, held).map_or(Outcome::Cancelled, Outcome::Given)
        }
        Err(refused) => {
            shared.book.refused(&asking.guard);
            match refused {
                Refused::ByGate(refusal) => Outcome::Refused(refusal),
                Refused::PodGone => Outcome::PodGone,
            }
        }
    };
    outcome.send_replace(Some(settled));
}

/// Asks the gate. Cancel safe.
async fn ask(shared: &Shared, asked: &Asked) -> Result<(Option<Lease>, Arc<Pod>), Refused> {
    let (lease, pod) = if asked.api.exempt {
        let none = Refusal::NotNow {
            reason: Reason::NoReadyPod,
            api: asked.api.id,
            weight: 0,
            retry_after_s: 1,
            elsewhere: None,
        };
        (None, shared.gate.exempt(asked.api.id).ok_or(Refused::ByGate(none))?)
    } else {
        let lease = shared.gate.acquire(asked.ask).await.map_err(Refused::ByGate)?;
        let pod = lease.pod();
        (Some(lease), pod)
    };
    // The rules as they are after the wait: pods may have come meanwhile.
    let pod = shared.directory.rules().pod(pod).cloned().ok_or(Refused::PodGone)?;
    Ok((lease, pod))
}

/// `PUT /v1/leases/{id}`.
pub(super) async fn renew(shared: &Arc<Shared>, call: &Call, id: Id) -> Result<Response<Reply>, Fault> {
    if let Some(gate) = other_gate(shared, &id) {
        return Ok(to_peer(shared, gate, call).await);
    }
    let request: RenewRequest =
        if call.body.is_empty() { RenewRequest::default() } else { read(&call.body)? };
    let hold = request.hold()?;
    Ok(match shared.book.renew(&id.name, hold) {
        Some(view) => json(StatusCode::OK, Reply::full(document(shared, &view))),
        None => {
            let detail = "It was given back, or was not renewed in time and written off, or is still waited for, or never was.";
            problem(StatusCode::NOT_FOUND, "no_such_lease", "There is no such lease", detail)
        }
    })
}

/// `DELETE /v1/leases/{id}`.
pub(super) async fn give_back(shared: &Arc<Shared>, call: &Call, id: Id) -> Result<Response<Reply>, Fault> {
    if let Some(gate) = other_gate(shared, &id) {
        return Ok(to_peer(shared, gate, call).await);
    }
    shared.book.end(&id.name);
    Ok(status_only(StatusCode::NO_CONTENT))
}

fn other_gate<'a>(shared: &Shared, id: &'a Id) -> Option<&'a str> {
    id.gate.as_deref().filter(|gate| *gate != shared.book.gate.as_str())
}

pub(super) async fn to_peer(shared: &Arc<Shared>, gate: &str, call: &Call) -> Response<Reply> {
    shared.counters.passed_on.one();
    let rules = shared.directory.rules();
    let target = call.parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let call = elsewhere::Call {
        method: &call.parts.method,
        target,
        headers: &call.parts.headers,
        body: call.body.clone(),
        fair_header: rules.fair_header.as_deref(),
    };
    pass_on(&shared.peers, shared.book.gate.as_str(), gate, call).await
}

type Line = (Option<tokio::sync::oneshot::Sender<()>>, Option<tokio::sync::oneshot::Receiver<()>>);

/// The two ends of a lease's life on its connection.
fn line() -> Line {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    (Some(sender), Some(receiver))
}

fn refusal(shared: &Shared, refused: &Refused) -> Response<Reply> {
    match refused {
        Refused::ByGate(refusal) => {
            shared.gate.refusal_answer(&shared.directory.rules().pool, refusal).map(Reply::full)
        }
        Refused::PodGone => {
            let detail = "The pod chosen left the configuration at this moment.";
            come_again("pod_gone", "The pod is gone", detail)
        }
    }
}

fn document(shared: &Shared, view: &View) -> Bytes {
    let answer = LeaseAnswer {
        id: shared.book.id(&view.name),
        pod: view.pod.name.clone(),
        url: view.pod.url.clone(),
        weight: view.weight,
        expires_in_ms: view.expires_in.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
    };
    serde_json::to_vec(&answer).expect("texts and numbers are JSON").into()
}

fn json(status: StatusCode, body: Reply) -> Response<Reply> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn created(body: Reply, shared: &Shared, view: &View) -> Response<Reply> {
    let mut answer = json(StatusCode::CREATED, body);
    let place = format!("/v1/leases/{}", shared.book.id(&view.name));
    let place = HeaderValue::try_from(place).expect("ids are ASCII");
    answer.headers_mut().insert(header::LOCATION, place);
    answer
}

fn replayed(shared: &Shared, view: &View) -> Response<Reply> {
    let mut answer = created(Reply::full(document(shared, view)), shared, view);
    answer.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    answer
}

fn on_line(
    shared: &Shared,
    view: &View,
    guard: Guard,
    ended: tokio::sync::oneshot::Receiver<()>,
) -> Response<Reply> {
    let mut line = document(shared, view).to_vec();
    line.push(b'\n');
    let mut answer = created(Reply::Line { first: Some(line.into()), _guard: guard, ended }, shared, view);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    answer.headers_mut().insert("connection-lifetime", HeaderValue::from_static("lease"));
    answer
}
