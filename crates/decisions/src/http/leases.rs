//! Leases one by one: asked for, renewed, given back.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use sluicegate::tower::server_timing;
use sluicegate::{Lease, Reason, Refusal};
use tokio::sync::{oneshot, watch};

use super::elsewhere::{self, Renewal, no_such_lease};
use super::input::{Asked, LeaseAnswer, LeaseRequest, RenewRequest, connection_lifetime, read};
use super::problem::{Fault, come_again, problem};
use super::reply::{Delivery, Reply};
use super::{Call, status_only};
use crate::book::{Asking, Begun, Ended, Guard, Held, Outcome, Parked, View};
use crate::directory::Pod;
use crate::names::{self, Id, Name};
use crate::peers::Ask;
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
    let name = chosen_name(&request, call)?;
    let asked = request.check(&shared.directory.rules(), headers, bound)?;
    if let Some(answer) = elsewhere::ask(shared, call, &request).await {
        return Ok(answer);
    }
    if shared.is_draining() {
        return Ok(come_again(
            "draining",
            "The service goes",
            "This gate gives out no more leases; ask another one.",
        ));
    }
    let parked = match &request.after {
        Some(former) => former_ask(shared, former, &asked)?,
        None => None,
    };
    Ok(match name {
        None => unnamed(shared, asked, parked, bound, &call.delivery).await,
        Some(name) => named(shared, name, &request, (asked, parked), bound, &call.delivery).await,
    })
}

/// The name that the caller chose, by the body or by its key.
fn chosen_name(request: &LeaseRequest, call: &Call) -> Result<Option<Name>, Fault> {
    let key = call.parts.headers.get("idempotency-key");
    let key = key.map(|key| names::of_key(key.as_bytes())).transpose()?;
    match &request.id {
        Some(id) => Ok(Some(Id::chosen(id)?.name.into())),
        None => Ok(key),
    }
}

/// The place in the line of a request that its pod did not run. `None`: it was not come for in time, or the former
/// lease ended in another way; then the ask begins anew.
fn former_ask(shared: &Shared, former: &str, asked: &Asked) -> Result<Option<Parked>, Fault> {
    let former = Id::parse(former).map_err(|fault| Fault { field: "after".to_owned(), ..fault })?;
    let parked = shared.book.unpark(former.name);
    if parked.as_ref().is_some_and(|parked| parked.api != asked.api.id) {
        return Err(Fault::new("after", "names a lease of another api"));
    }
    Ok(parked)
}

/// Nobody can ask for it again: the wait is this call's own, and ends with it.
async fn unnamed(
    shared: &Arc<Shared>,
    asked: Asked,
    parked: Option<Parked>,
    bound: bool,
    delivery: &Delivery,
) -> Response<Reply> {
    let (lease, pod) = match ask(shared, &asked, parked).await {
        Ok(granted) => granted,
        Err(refused) => return refusal(shared, &refused),
    };
    // No await from here to the guard.
    let (line, ended) = line(bound);
    let held = held(&asked, lease, pod, line);
    let (key, view) = shared.book.hold_drawn(held);
    match ended {
        Some(ended) => on_line(shared, &view, Guard::of_line(&shared.book, key), ended),
        None => {
            let guard = Guard::of_answer(&shared.book, key);
            created(Reply::told(document(shared, &view), guard, delivery), shared, &view)
        }
    }
}

/// A name that the caller chose: a task asks, so that a second call of the same name can join, and so that a third
/// can cancel both.
async fn named(
    shared: &Arc<Shared>,
    name: Name,
    request: &LeaseRequest,
    (asked, parked): (Asked, Option<Parked>),
    bound: bool,
    delivery: &Delivery,
) -> Response<Reply> {
    // The guard ends what was begun whenever this call is dropped, unless others wait for it too.
    let (guard, mut outcome, ended, first) = match shared.book.begin(&name, request, bound) {
        Begun::Again(guard, view) => return told(shared, guard, &view, false, delivery),
        Begun::Clash(why) => {
            return problem(StatusCode::CONFLICT, "id_taken", "The id cannot be used for this", why);
        }
        Begun::Joined(guard, outcome) => (guard, outcome, None, false),
        Begun::Fresh(guard, asking, outcome) => {
            let (line, ended) = line(bound);
            tokio::spawn(settle(shared.clone(), asking, (asked, parked), line));
            (guard, outcome, ended, true)
        }
    };
    match settled(&mut outcome).await {
        Outcome::Given(view) => match ended {
            Some(ended) => on_line(shared, &view, guard, ended),
            None => told(shared, guard, &view, first, delivery),
        },
        Outcome::Refused(refused) => refusal(shared, &Refused::ByGate(refused)),
        Outcome::PodGone => refusal(shared, &Refused::PodGone),
        Outcome::Cancelled => cancelled(),
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
    (asked, parked): (Asked, Option<Parked>),
    line: Option<oneshot::Sender<()>>,
) {
    let outcome = asking.outcome.clone();
    let granted = tokio::select! {
        biased;
        // Its sender is dropped with the entry: by a DELETE, or when all have left who wanted it.
        _ = &mut asking.cancelled => return,
        granted = ask(&shared, &asked, parked) => granted,
    };
    let settled = match granted {
        Ok((lease, pod)) => {
            let held = held(&asked, lease, pod, line);
            shared.book.hold_named(&asking.key, held).map_or(Outcome::Cancelled, Outcome::Given)
        }
        Err(refused) => {
            shared.book.refused(&asking.key);
            match refused {
                Refused::ByGate(refusal) => Outcome::Refused(refusal),
                Refused::PodGone => Outcome::PodGone,
            }
        }
    };
    outcome.send_replace(Some(settled));
}

fn held(asked: &Asked, lease: Option<Lease>, pod: Arc<Pod>, line: Option<oneshot::Sender<()>>) -> Held {
    let (api, api_short) = (asked.api.id, asked.api.short);
    Held { api, api_short, lease, adopted: None, pod, hold: asked.hold, line }
}

/// Asks the gate. Cancel safe.
async fn ask(
    shared: &Shared,
    asked: &Asked,
    parked: Option<Parked>,
) -> Result<(Option<Lease>, Arc<Pod>), Refused> {
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
        let acquire = parked.map_or_else(|| shared.gate.acquire(asked.ask), |parked| parked.acquire);
        let lease = acquire.await.map_err(Refused::ByGate)?;
        let pod = lease.pod();
        (Some(lease), pod)
    };
    // The rules as they are after the wait: pods may have come meanwhile.
    let pod = shared.directory.rules().pod(pod).cloned().ok_or(Refused::PodGone)?;
    Ok((lease, pod))
}

/// `PUT /v1/leases/{id}`.
pub(super) async fn renew(shared: &Arc<Shared>, call: &Call, id: &Id<'_>) -> Result<Response<Reply>, Fault> {
    let request: RenewRequest =
        if call.body.is_empty() { RenewRequest::default() } else { read(&call.body)? };
    let hold = request.hold()?;
    let mut name = id.name;
    if !shared.is_ours(id) {
        match elsewhere::renew(shared, call, id).await {
            Renewal::Answered(answer) => return Ok(answer),
            Renewal::Here => name = id.text,
        }
    }
    Ok(match shared.book.renew(name, hold) {
        Some(view) => json(StatusCode::OK, Reply::full(document(shared, &view))),
        None => no_such_lease(),
    })
}

/// `DELETE /v1/leases/{id}`.
pub(super) async fn give_back(
    shared: &Arc<Shared>,
    call: &Call,
    id: &Id<'_>,
) -> Result<Response<Reply>, Fault> {
    let (ended, is_reached) = outcome(call.parts.uri.query().unwrap_or_default())?;
    if !shared.is_ours(id) {
        let asked = Ask::of(&call.parts.headers);
        if asked == Some(Ask::Own) {
            return Ok(elsewhere::misdirected());
        }
        elsewhere::give_back(shared, elsewhere::passing(call), asked, id.text, ended).await;
        return Ok(status_only(StatusCode::NO_CONTENT));
    }
    // Before the lease ends, so that nobody is sent there by its end.
    if let Some(pod) = shared.book.pod_of(id.name).filter(|_| !is_reached) {
        shared.probes.try_pod(&pod).await;
    }
    if !shared.book.end(id.name, ended) && id.gate.is_none() {
        elsewhere::cancel_elsewhere(shared, call).await;
    }
    Ok(status_only(StatusCode::NO_CONTENT))
}

/// How the request ended, by the query, and whether its pod could be reached.
fn outcome(query: &str) -> Result<(Ended, bool), Fault> {
    let mut ended = (Ended::Done, true);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        ended = match pair.split_once('=') {
            Some(("outcome", "done")) => (Ended::Done, true),
            Some(("outcome", "failed")) => (Ended::Failed, true),
            Some(("outcome", "unreachable")) => (Ended::Failed, false),
            Some(("outcome", "pod_full")) => (Ended::PodFull, true),
            Some(("outcome", "not_started")) => (Ended::NotStarted, false),
            Some(("outcome", _)) => {
                let known = "can be `done`, `failed`, `unreachable`, `pod_full` or `not_started`";
                return Err(Fault::new("outcome", known));
            }
            _ => return Err(Fault::new("query", "can only have `outcome`")),
        };
    }
    Ok(ended)
}

type BoundLine = (Option<oneshot::Sender<()>>, Option<oneshot::Receiver<()>>);

/// The two ends of a lease's life on its connection, if it has one.
fn line(bound: bool) -> BoundLine {
    if !bound {
        return (None, None);
    }
    let (sender, receiver) = oneshot::channel();
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

fn cancelled() -> Response<Reply> {
    let detail = "The lease was given back by its id before this call was answered.";
    problem(StatusCode::CONFLICT, "cancelled", "Cancelled by its id", detail)
}

fn document(shared: &Shared, view: &View) -> Bytes {
    let answer = LeaseAnswer {
        id: shared.book.id(view),
        pod: &view.pod.name,
        url: &view.pod.url,
        weight: view.weight,
        expires_in_ms: view.expires_in.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        adopted: view.adopted,
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
    let place = format!("/v1/leases/{}", shared.book.id(view));
    let headers = answer.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::try_from(place).expect("ids are ASCII"));
    headers.insert("server-timing", server_timing(view.waited));
    answer
}

/// The answer to one of those who posted a name; `first`: to the one whose ask it was.
fn told(shared: &Shared, guard: Guard, view: &View, first: bool, delivery: &Delivery) -> Response<Reply> {
    let mut answer = created(Reply::told(document(shared, view), guard, delivery), shared, view);
    if !first {
        answer.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    answer
}

fn on_line(shared: &Shared, view: &View, guard: Guard, ended: oneshot::Receiver<()>) -> Response<Reply> {
    let mut line = document(shared, view).to_vec();
    line.push(b'\n');
    let mut answer = created(Reply::line(line.into(), guard, ended), shared, view);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    answer.headers_mut().insert("connection-lifetime", HeaderValue::from_static("held"));
    answer
}
