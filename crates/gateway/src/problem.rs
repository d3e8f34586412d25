//! Answers of the gateway's own: problem documents, and the same for gRPC clients.

use std::error::Error;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::json;
use sluicegate::{ApiId, Refusal};

use crate::answer::AnswerBody;
use crate::server::Worker;

/// gRPC status codes (their specification's numbers).
const GRPC_DEADLINE_EXCEEDED: u8 = 4;
const GRPC_RESOURCE_EXHAUSTED: u8 = 8;
const GRPC_UNAVAILABLE: u8 = 14;
const GRPC_INVALID_ARGUMENT: u8 = 3;

/// What went wrong with an admitted request, or with one that never could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The pod, or all that were tried, failed.
    PodFailed,
    /// `max_hold` passed before the pod's headers.
    PodTooSlow,
    /// The client's body ended early or was malformed.
    BadBody,
    /// A method that a reverse proxy does not serve.
    MethodNotAllowed,
}

impl Problem {
    fn parts(self) -> (StatusCode, &'static str, &'static str, u8) {
        match self {
            Problem::PodFailed => (StatusCode::BAD_GATEWAY, "pod_failed", "The pod failed", GRPC_UNAVAILABLE),
            Problem::PodTooSlow => (
                StatusCode::GATEWAY_TIMEOUT,
                "max_hold",
                "The pod did not answer in time",
                GRPC_DEADLINE_EXCEEDED,
            ),
            Problem::BadBody => (
                StatusCode::BAD_REQUEST,
                "bad_body",
                "The request's body did not arrive whole",
                GRPC_INVALID_ARGUMENT,
            ),
            Problem::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "This method is not served",
                GRPC_INVALID_ARGUMENT,
            ),
        }
    }
}

/// The answer for a problem of ours.
pub(crate) fn answer(
    worker: &Worker,
    problem: Problem,
    api: ApiId,
    grpc: bool,
    detail: &str,
) -> Response<AnswerBody> {
    let (status, reason, title, grpc_status) = problem.parts();
    if grpc {
        return grpc_answer(grpc_status, detail, None);
    }
    let rules = worker.live.rules();
    let document = json!({
        "type": format!("urn:sluicegate:problem:{reason}"),
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
        "reason": reason,
        "api": rules.api_name(api),
        "pool": rules.pool,
    });
    let mut response = Response::new(AnswerBody::own(Bytes::from(document.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response.headers_mut().insert("x-sluicegate-reason", HeaderValue::from_static(reason));
    response
}

/// The answer for an ask that was not admitted.
pub(crate) fn refusal(worker: &Worker, refusal: &Refusal, grpc: bool) -> Response<AnswerBody> {
    let answer = worker.gate.refusal_answer(&worker.live.rules().pool, refusal);
    if !grpc {
        return answer.map(AnswerBody::own);
    }
    let code = match answer.status() {
        StatusCode::SERVICE_UNAVAILABLE => GRPC_UNAVAILABLE,
        _ => GRPC_RESOURCE_EXHAUSTED,
    };
    grpc_answer(code, refusal.reason().as_str(), Some(answer.headers()))
}

/// Trailers only: status and message stand in the one block of headers. Takes the headers of a
/// refusal that a client may act on.
fn grpc_answer(code: u8, message: &str, refusal: Option<&HeaderMap>) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(u16::from(code)));
    headers.insert("grpc-message", percent_encoded(message));
    for name in ["retry-after", "x-sluicegate-reason"] {
        if let Some(value) = refusal.and_then(|headers| headers.get(name)) {
            headers.insert(name, value.clone());
        }
    }
    response
}

/// As gRPC wants its messages: everything but visible ASCII, and `%`, as `%XX`.
fn percent_encoded(message: &str) -> HeaderValue {
    use std::fmt::Write;
    let mut text = String::with_capacity(message.len());
    for byte in message.bytes() {
        if matches!(byte, 0x20..=0x7e) && byte != b'%' {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("a String takes everything");
        }
    }
    HeaderValue::try_from(text).expect("visible ASCII")
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_messages_are_percent_encoded() {
        assert_eq!(percent_encoded("50 % of »all«\n"), "50 %25 of %C2%BBall%C2%AB%0A");
    }
}
