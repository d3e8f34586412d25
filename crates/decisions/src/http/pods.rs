//! Pods that register themselves: this listener offers it, the process does it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Response};

use super::Call;
use super::problem::{Fault, come_again};
use super::reply::Reply;
use crate::server::Shared;

/// Longest name of a pod, bytes.
const NAME_MAX: usize = 128;

/// `PUT` or `DELETE /v1/pods/{name}`, read whole.
#[derive(Debug)]
pub struct PodCall {
    /// One of the two.
    pub method: Method,
    /// The pod's name: 1 to 128 of letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// All that came.
    pub headers: HeaderMap,
    /// Empty where there was none.
    pub body: Bytes,
}

/// Answers calls of pods. Each call may block for a moment, and is made where that holds nobody up.
pub type PodsDoor = dyn Fn(PodCall) -> Response<Bytes> + Send + Sync;

pub(super) async fn answer(shared: &Shared, call: &Call, name: &str) -> Result<Response<Reply>, Fault> {
    let fits = (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if !fits {
        return Err(Fault::new("name", "must be 1 to 128 of letters, digits, `.`, `_` and `-`"));
    }
    let door = Arc::clone(shared.pods.as_ref().expect("without the door there is no such place"));
    let call = PodCall {
        method: call.parts.method.clone(),
        name: name.to_owned(),
        headers: call.parts.headers.clone(),
        body: call.body.clone(),
    };
    let done = tokio::task::spawn_blocking(move || door(call)).await;
    Ok(match done {
        Ok(answer) => answer.map(|body| if body.is_empty() { Reply::empty() } else { Reply::full(body) }),
        Err(error) => come_again("unavailable", "The pod's call failed", &error.to_string()),
    })
}
