//! Problem documents (RFC 9457) of the service's own.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::reply::Reply;

/// One bad field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The field, parameter or header.
    pub(crate) field: String,
    /// What is wrong with it, to be read after its name.
    pub(crate) what: String,
}

impl Fault {
    pub(crate) fn new(field: &str, what: impl Into<String>) -> Fault {
        Fault { field: field.to_owned(), what: what.into() }
    }

    /// 400, with the field named.
    pub(crate) fn answer(&self) -> Response<Reply> {
        let detail = format!("`{}` {}", self.field, self.what);
        let mut document =
            document(StatusCode::BAD_REQUEST, "bad_request", "The request is not as it should be", &detail);
        document["field"] = self.field.as_str().into();
        with(StatusCode::BAD_REQUEST, "bad_request", &document)
    }
}

/// The answer for a problem.
pub(crate) fn problem(
    status: StatusCode,
    reason: &'static str,
    title: &str,
    detail: &str,
) -> Response<Reply> {
    with(status, reason, &document(status, reason, title, detail))
}

/// A problem that may be over in a second.
pub(crate) fn come_again(reason: &'static str, title: &str, detail: &str) -> Response<Reply> {
    let mut answer = problem(StatusCode::SERVICE_UNAVAILABLE, reason, title, detail);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

pub(crate) fn document(status: StatusCode, reason: &str, title: &str, detail: &str) -> Value {
    json!({
        "type": format!("urn:sluicegate:problem:{reason}"),
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
        "reason": reason,
    })
}

pub(crate) fn with(status: StatusCode, reason: &'static str, document: &Value) -> Response<Reply> {
    let mut answer = Response::new(Reply::full(Bytes::from(document.to_string())));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert("x-sluicegate-reason", HeaderValue::from_static(reason));
    answer
}
