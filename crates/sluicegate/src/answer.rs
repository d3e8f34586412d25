//! A refusal as an HTTP answer: one place, for every surface that speaks HTTP.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde::Serialize;
use sluicegate_core::refusal::{Reason, Refusal};

use crate::gate::Gate;

/// The header that says why.
const REASON_HEADER: &str = "x-sluicegate-reason";

/// A problem document (RFC 9457). A type of its own, not a JSON tree: refusals must be cheap when they are many.
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    reason: &'static str,
    api: &'a str,
    weight: u32,
    pool: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    elsewhere: Option<&'a str>,
}

impl Gate {
    /// The answer for a refused request: `429` (or `503` for `too_heavy` and `no_ready_pod`) with
    /// `Retry-After` where coming again can help, `x-sluicegate-reason`, and a problem document (RFC 9457)
    /// with `type`, `title`, `status`, `detail`, `reason`, `api`, `weight`, `pool` and, for pinned asks,
    /// `elsewhere`.
    #[must_use]
    pub fn refusal_answer(&self, pool: &str, refusal: &Refusal) -> Response<Bytes> {
        let reason = refusal.reason();
        let api = self.api_name(refusal.api());
        let status = status_of(reason);
        let mut answer = Response::new(Bytes::new());
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(REASON_HEADER, HeaderValue::from_static(reason.as_str()));
        let mut other = None;
        if let Refusal::NotNow { retry_after_s, elsewhere, .. } = refusal {
            headers.insert(RETRY_AFTER, HeaderValue::from(*retry_after_s));
            other = elsewhere.map(|pod| self.pod_name(pod));
        }
        let problem = Problem {
            kind: kind_of(reason),
            title: title_of(reason),
            status: status.as_u16(),
            detail: detail_of(refusal, &api),
            reason: reason.as_str(),
            api: &api,
            weight: refusal.weight(),
            pool,
            elsewhere: other.as_deref(),
        };
        let document = serde_json::to_vec(&problem).expect("texts and numbers are JSON");
        *answer.body_mut() = Bytes::from(document);
        answer
    }
}

/// 429 says "too many just now"; 503 says that no number of free units would help.
fn status_of(reason: Reason) -> StatusCode {
    match reason {
        Reason::TooHeavy | Reason::NoReadyPod => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::TOO_MANY_REQUESTS,
    }
}

fn kind_of(reason: Reason) -> &'static str {
    match reason {
        Reason::NoRoom => "urn:sluicegate:problem:no_room",
        Reason::QueueFull => "urn:sluicegate:problem:queue_full",
        Reason::WaitExceeded => "urn:sluicegate:problem:wait_exceeded",
        Reason::ApiMax => "urn:sluicegate:problem:api_max",
        Reason::PodFull => "urn:sluicegate:problem:pod_full",
        Reason::TooHeavy => "urn:sluicegate:problem:too_heavy",
        Reason::NoReadyPod => "urn:sluicegate:problem:no_ready_pod",
    }
}

fn title_of(reason: Reason) -> &'static str {
    match reason {
        Reason::NoRoom => "No room in the pool",
        Reason::QueueFull => "Too many requests wait already",
        Reason::WaitExceeded => "No room within the longest wait",
        Reason::ApiMax => "The api holds its maximum",
        Reason::PodFull => "The pod has no room",
        Reason::TooHeavy => "Heavier than any pod may hold",
        Reason::NoReadyPod => "No pod is ready",
    }
}

fn detail_of(refusal: &Refusal, api: &str) -> String {
    let weight = refusal.weight();
    let ask = format!("A request of api `{api}` holds {weight} unit{}", if weight == 1 { "" } else { "s" });
    match refusal {
        Refusal::Never { most, .. } => {
            format!("{ask}; the rules and the largest pod leave it {most} at most, so it can never run.")
        }
        Refusal::NotNow { reason, retry_after_s, .. } => {
            let why = match reason {
                Reason::NoRoom => "they were not free",
                Reason::QueueFull => "the queue is full",
                Reason::WaitExceeded => "they do not come free within its longest wait",
                Reason::ApiMax => "its api holds its `max`",
                Reason::PodFull => "the pod it is pinned to does not have them free",
                Reason::TooHeavy | Reason::NoReadyPod => "no pod is ready to take them",
            };
            format!("{ask}, and {why}. Ask again in {retry_after_s} s.")
        }
    }
}
