//! Requests that found no room and are kept for later; and the jobs that they became.

use std::fmt::Write;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use hyper::body::Incoming;
use serde_json::{Value, json};
use sluicegate::Ask;
use sluicegate::jobs::{Desk, JobId, JobState, NewJob, Outcome, Put, Seen};

use crate::answer::AnswerBody;
use crate::upload::UploadError;

/// Longest long poll.
const POLL_MAX: Duration = Duration::from_secs(60);
/// Longest `Idempotency-Key`, bytes.
const KEY_MAX: usize = 255;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const REASON: HeaderName = HeaderName::from_static("x-sluicegate-reason");

/// What a gateway needs to keep requests for later.
#[derive(Clone)]
pub struct OverflowDoor {
    /// Who keeps them.
    pub desk: Arc<dyn Desk>,
    /// Path under which jobs are found, without their id; begins with `/` and does not end with it.
    pub location: String,
    /// Most bytes of a request's body.
    pub body_max: usize,
}

impl OverflowDoor {
    /// What follows the location in a path below it.
    pub(crate) fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.strip_prefix(self.location.as_str())?.strip_prefix('/')
    }
}

/// What a request that may be kept says about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// It wants no answer but that it is kept.
    pub(crate) at_once: bool,
    /// It says `respond-async`, at once or after a time.
    pub(crate) asked: bool,
    /// Longest time that it would wait for the answer itself.
    pub(crate) wait: Option<Duration>,
    key: Option<String>,
}

impl Wish {
    /// `api`: a key is good for one api and one sender, so that nobody finds another's job by guessing its key.
    pub(crate) fn of(headers: &HeaderMap, api: &str) -> Wish {
        let (asked, wait) = preferences(headers);
        let key = headers.get(IDEMPOTENCY_KEY).map(HeaderValue::as_bytes);
        let key = key.filter(|key| !key.is_empty() && key.len() <= KEY_MAX).map(|key| {
            let sender = headers.get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
            let (sender, key) = (String::from_utf8_lossy(sender), String::from_utf8_lossy(key));
            format!("{api}\n{sender}\n{key}")
        });
        Wish { at_once: asked && wait.is_none(), asked, wait, key }
    }

    /// The ask of a request with this wish, whose api waits so long.
    pub(crate) fn shape(&self, ask: Ask, longest: Duration) -> Ask {
        let ask = ask.overflows();
        match self.wait {
            Some(wait) if self.asked && wait < longest => ask.wait(wait),
            _ => ask,
        }
    }

    /// Whether there is a job of this request already. A store that does not answer knows none.
    pub(crate) async fn is_known(&self, door: &OverflowDoor) -> bool {
        let Some(key) = &self.key else { return false };
        matches!(door.desk.find(key.clone()).await, Ok(Some(_)))
    }
}

/// `respond-async`, and `wait=SECONDS`.
fn preferences(headers: &HeaderMap) -> (bool, Option<Duration>) {
    let (mut asked, mut wait) = (false, None);
    let texts = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    for preference in texts.flat_map(|text| text.split([',', ';'])).map(str::trim) {
        if preference.eq_ignore_ascii_case("respond-async") {
            asked = true;
        } else if let Some(("wait", seconds)) = preference.split_once('=').map(|(k, v)| (k.trim(), v.trim()))
        {
            wait = seconds.trim_matches('"').parse().ok().map(Duration::from_secs);
        }
    }
    (asked, wait)
}

/// A request as it would have gone to a pod.
pub(crate) struct Kept<B> {
    pub(crate) api: String,
    pub(crate) method: Method,
    pub(crate) path: http::uri::PathAndQuery,
    pub(crate) headers: HeaderMap,
    pub(crate) body: B,
}

/// Why a request was not kept.
#[derive(Debug)]
pub(crate) enum NotKept {
    /// Its body is longer than so many bytes.
    TooLarge(usize),
    /// Its body did not arrive whole.
    BadBody,
    /// Its key belongs to another request.
    KeyReused,
    /// There is no more place.
    Full,
    /// The store failed.
    Store(String),
}

/// Keeps a request, and answers where its job is found.
pub(crate) async fn keep<B>(
    door: &OverflowDoor,
    wish: Wish,
    kept: Kept<B>,
    retry_after_s: Option<u32>,
) -> Result<Response<AnswerBody>, NotKept>
where
    B: Body<Data = Bytes, Error = UploadError>,
{
    let Kept { api, method, path, mut headers, body } = kept;
    headers.remove(PREFER);
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length: u64| length > door.body_max as u64) {
        return Err(NotKept::TooLarge(door.body_max));
    }
    let body = whole(body, door.body_max).await?;
    let work = sluicegate::jobs::Work { api, method, path, headers, body };
    let put = door.desk.put(NewJob { work, key: wish.key }).await;
    let seen = match put.map_err(|error| NotKept::Store(error.0))? {
        Put::Stored(seen) | Put::Same(seen) => seen,
        Put::Differs => return Err(NotKept::KeyReused),
        Put::Full => return Err(NotKept::Full),
    };
    let mut response = document(door, &seen, StatusCode::ACCEPTED);
    let headers = response.headers_mut();
    let location = format!("{}/{}", door.location, seen.id);
    headers.insert(header::LOCATION, HeaderValue::try_from(location).expect("a checked path and digits"));
    let after = door.desk.look_after_s().max(retry_after_s.unwrap_or(1));
    headers.insert(header::RETRY_AFTER, HeaderValue::from(after));
    if wish.asked {
        headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static("respond-async"));
    }
    Ok(response)
}

async fn whole<B>(body: B, most: usize) -> Result<Bytes, NotKept>
where
    B: Body<Data = Bytes, Error = UploadError>,
{
    let mut body = pin!(body);
    let mut all = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).as_mut().poll_frame(cx)).await {
        let Ok(data) = frame.map_err(|_| NotKept::BadBody)?.into_data() else { continue };
        if all.len() + data.len() > most {
            return Err(NotKept::TooLarge(most));
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

/// Answers a request below the location. `rest` is what follows it: an id, or `ID/result`.
pub(crate) async fn answer(
    door: &OverflowDoor,
    request: &Request<Incoming>,
    rest: &str,
) -> Response<AnswerBody> {
    let (id, result) = rest.strip_suffix("/result").map_or((rest, false), |id| (id, true));
    let Ok(id) = id.parse::<JobId>() else { return no_such_job() };
    if request.method() == Method::DELETE && !result {
        return match door.desk.cancel(id).await {
            Ok(true) => {
                let mut response = Response::new(AnswerBody::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            Ok(false) => no_such_job(),
            Err(error) => store_failed(&error.0),
        };
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response =
            problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "This method is not served", "");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, DELETE"));
        return response;
    }
    let (_, wait) = preferences(request.headers());
    match door.desk.look(id, wait.unwrap_or_default().min(POLL_MAX)).await {
        Ok(None) => no_such_job(),
        Err(error) => store_failed(&error.0),
        Ok(Some(seen)) if result => answer_of(door, seen),
        Ok(Some(seen)) => document(door, &seen, StatusCode::OK),
    }
}

/// The pod's answer, as it was.
fn answer_of(door: &OverflowDoor, seen: Seen) -> Response<AnswerBody> {
    let Some(outcome) = seen.outcome else {
        return match seen.state {
            JobState::Failed => {
                let why = seen.error.unwrap_or_default();
                problem(StatusCode::BAD_GATEWAY, "pod_failed", "No pod answered", &why)
            }
            _ => document(door, &seen, StatusCode::ACCEPTED),
        };
    };
    let Outcome { status, mut headers, body, truncated } = outcome;
    // Its length is that of what is here.
    headers.remove(header::CONTENT_LENGTH);
    if truncated {
        headers.insert("x-sluicegate-truncated", HeaderValue::from_static("true"));
    }
    let mut response = Response::new(AnswerBody::own(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A job in JSON.
fn document(door: &OverflowDoor, seen: &Seen, status: StatusCode) -> Response<AnswerBody> {
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    let mut document = json!({
        "id": seen.id.to_string(),
        "api": seen.api,
        "state": seen.state.as_str(),
        "tries": seen.tries,
        "queued_ms": seen.queued_ms,
        "location": format!("{}/{}", door.location, seen.id),
    });
    if let Some(ends_ms) = seen.ends_ms {
        document["expires_in_s"] = Value::from(ends_ms.saturating_sub(now_ms) / 1000);
        document["result"] = Value::from(format!("{}/{}/result", door.location, seen.id));
    }
    if let Some(error) = &seen.error {
        document["error"] = Value::from(error.as_str());
    }
    if let Some(outcome) = &seen.outcome {
        document["response"] = response_of(outcome);
    }
    let mut response = Response::new(AnswerBody::own(Bytes::from(document.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !seen.state.is_final() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(door.desk.look_after_s()));
    }
    response
}

fn response_of(outcome: &Outcome) -> Value {
    let mut headers = serde_json::Map::new();
    for name in outcome.headers.keys() {
        let all = outcome.headers.get_all(name).iter();
        let all: Vec<_> = all.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        headers.insert(name.as_str().to_owned(), Value::from(all.join(", ")));
    }
    let mut response = json!({
        "status": outcome.status.as_u16(),
        "headers": headers,
        "truncated": outcome.truncated,
    });
    match std::str::from_utf8(&outcome.body) {
        Ok(text) => response["body"] = Value::from(text),
        Err(_) => response["body_base64"] = Value::from(base64(&outcome.body)),
    }
    response
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let group = three.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte));
        let group = group << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = LETTERS[(group >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= three.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

fn no_such_job() -> Response<AnswerBody> {
    let detail = "It was never there, was cancelled, or its time is over.";
    problem(StatusCode::NOT_FOUND, "no_such_job", "There is no such job", detail)
}

fn store_failed(why: &str) -> Response<AnswerBody> {
    tracing::error!(why, "the store of the jobs failed");
    let mut response = problem(
        StatusCode::SERVICE_UNAVAILABLE,
        "store_failed",
        "The store of the jobs failed",
        "Ask again in 1 s.",
    );
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

impl NotKept {
    /// The answer, where there is no better one.
    pub(crate) fn answer(&self) -> Response<AnswerBody> {
        match self {
            NotKept::TooLarge(most) => problem(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "The request is too large to be kept for later",
                &format!("There is no room for it now, and no more than {most} bytes of a body are kept."),
            ),
            NotKept::BadBody => {
                problem(StatusCode::BAD_REQUEST, "bad_body", "The request's body did not arrive whole", "")
            }
            NotKept::KeyReused => problem(
                StatusCode::UNPROCESSABLE_ENTITY,
                "key_reused",
                "The Idempotency-Key belongs to another request",
                "Send each request with a key of its own.",
            ),
            NotKept::Full => {
                let detail = "As many jobs wait as are kept.";
                let mut response =
                    problem(StatusCode::TOO_MANY_REQUESTS, "queue_full", "No more jobs are kept", detail);
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
                response
            }
            NotKept::Store(why) => store_failed(why),
        }
    }
}

fn problem(status: StatusCode, reason: &'static str, title: &str, detail: &str) -> Response<AnswerBody> {
    let mut kind = String::from("urn:sluicegate:problem:");
    kind.write_str(reason).expect("a String takes every text");
    let document = json!({
        "type": kind, "title": title, "status": status.as_u16(), "detail": detail, "reason": reason,
    });
    let mut response = Response::new(AnswerBody::own(Bytes::from(document.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response.headers_mut().insert(REASON, HeaderValue::from_static(reason));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn preferences_are_read_as_rfc_7240_writes_them() {
        let wish = |text: &'static str| Wish::of(&headers(&[("prefer", text)]), "a");
        assert!(wish("respond-async").at_once);
        assert!(wish("return=minimal, Respond-Async").at_once);
        let later = wish("respond-async, wait=3");
        assert_eq!((later.asked, later.at_once, later.wait), (true, false, Some(Duration::from_secs(3))));
        assert_eq!(wish("wait=x").wait, None);
        assert_eq!(wish("respond-asynchronously"), Wish::default());
    }

    #[test]
    fn a_key_is_good_for_one_sender_and_one_api() {
        let key = |api: &str, who: &'static str| {
            Wish::of(&headers(&[("idempotency-key", "k"), ("authorization", who)]), api).key
        };
        assert_eq!(key("a", "x"), key("a", "x"));
        assert_ne!(key("a", "x"), key("b", "x"));
        assert_ne!(key("a", "x"), key("a", "y"));
        assert_eq!(Wish::of(&headers(&[("idempotency-key", "")]), "a").key, None);
    }

    #[test]
    fn base64_as_the_rfc_has_it() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xff, 0xff]), "////");
    }
}
