//! The HTTP door: which call is which, and who may call.

pub(crate) mod elsewhere;
pub(crate) mod input;
mod leases;
pub(crate) mod openapi;
pub(crate) mod pods;
pub(crate) mod problem;
mod release;
pub(crate) mod reply;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

use self::problem::{Fault, problem};
use self::reply::{Delivery, Reply};
use crate::names::Id;
use crate::server::Shared;

/// A call, read whole.
pub(crate) struct Call {
    pub(crate) parts: Parts,
    pub(crate) body: Bytes,
    /// The connection it came by.
    pub(crate) delivery: Delivery,
}

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place<'a> {
    Leases,
    Release,
    Lease(&'a str),
    Pod(&'a str),
    OpenApi,
}

impl<'a> Place<'a> {
    fn of(path: &'a str, registers: bool) -> Option<Place<'a>> {
        match path {
            "/v1/leases" => Some(Place::Leases),
            "/v1/leases/release" => Some(Place::Release),
            "/v1/openapi.json" => Some(Place::OpenApi),
            _ => {
                let part = |name: &'a str| (!name.is_empty() && !name.contains('/')).then_some(name);
                if let Some(id) = path.strip_prefix("/v1/leases/") {
                    return part(id).map(Place::Lease);
                }
                let name = path.strip_prefix("/v1/pods/").filter(|_| registers)?;
                part(name).map(Place::Pod)
            }
        }
    }

    fn methods(self) -> &'static [Method] {
        match self {
            Place::Leases | Place::Release => &[Method::POST],
            Place::Lease(_) | Place::Pod(_) => &[Method::PUT, Method::DELETE],
            Place::OpenApi => &[Method::GET],
        }
    }
}

/// Answers a call. Dropped at any await point when its caller leaves.
pub(crate) async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    guarded: bool,
    delivery: Delivery,
) -> Result<Response<Reply>, Infallible> {
    Ok(checked(&shared, request, guarded, delivery).await.unwrap_or_else(|answer| *answer))
}

async fn checked(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    guarded: bool,
    delivery: Delivery,
) -> Result<Response<Reply>, Box<Response<Reply>>> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let Some(place) = Place::of(&path, shared.pods.is_some()) else {
        let detail = format!("there is no {path}");
        return Err(Box::new(problem(StatusCode::NOT_FOUND, "not_found", "There is no such place", &detail)));
    };
    if !place.methods().contains(&parts.method) {
        return Err(Box::new(wrong_method(place, &parts.method, &path)));
    }
    if guarded && place != Place::OpenApi && !shared.token.allows(&parts.headers) {
        return Err(Box::new(unauthorized()));
    }
    let body = whole(shared, &parts.headers, body).await?;
    let call = Call { parts, body, delivery };
    let answer = match place {
        Place::OpenApi => Ok(openapi::answer(shared)),
        Place::Leases => leases::acquire(shared, &call).await,
        Place::Release => release::batch(shared, &call).await,
        Place::Lease(id) => match Id::parse(id) {
            Ok(id) if call.parts.method == Method::PUT => leases::renew(shared, &call, &id).await,
            Ok(id) => leases::give_back(shared, &call, &id).await,
            Err(fault) => Err(fault),
        },
        Place::Pod(name) => pods::answer(shared, &call, name).await,
    };
    answer.map_err(|fault| Box::new(fault.answer()))
}

fn wrong_method(place: Place<'_>, method: &Method, path: &str) -> Response<Reply> {
    let allowed: Vec<&str> = place.methods().iter().map(Method::as_str).collect();
    let detail = format!("{path} takes {}, not {method}", allowed.join(" and "));
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let mut answer = problem(status, "method_not_allowed", "This method is not served here", &detail);
    let allowed = HeaderValue::try_from(allowed.join(", ")).expect("methods are ASCII");
    answer.headers_mut().insert(header::ALLOW, allowed);
    answer
}

fn unauthorized() -> Response<Reply> {
    let detail = "send `Authorization: Bearer` with `decisions.token` of the configuration";
    let mut answer =
        problem(StatusCode::UNAUTHORIZED, "unauthorized", "The token is missing or wrong", detail);
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    answer
}

/// The whole body, within its bounds.
async fn whole(shared: &Shared, headers: &HeaderMap, body: Incoming) -> Result<Bytes, Box<Response<Reply>>> {
    if http_body::Body::is_end_stream(&body) {
        return Ok(Bytes::new());
    }
    if !input::is_json(headers) {
        let detail = "send `Content-Type: application/json`";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Box::new(problem(status, "not_json", "The body is of another kind", detail)));
    }
    let most = shared.limits.body;
    let collected = tokio::time::timeout(shared.limits.read, Limited::new(body, most).collect()).await;
    let answer = match collected {
        Ok(Ok(body)) => return Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("a body has at most {most} bytes here");
            problem(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The body is too large", &detail)
        }
        Ok(Err(error)) => Fault::new("body", format!("did not arrive whole: {error}")).answer(),
        Err(_) => {
            let detail = format!("the body did not arrive within {:?}", shared.limits.read);
            problem(StatusCode::REQUEST_TIMEOUT, "too_slow", "The body came too slowly", &detail)
        }
    };
    Err(Box::new(answer))
}

pub(crate) fn status_only(status: StatusCode) -> Response<Reply> {
    let mut answer = Response::new(Reply::empty());
    *answer.status_mut() = status;
    answer
}
