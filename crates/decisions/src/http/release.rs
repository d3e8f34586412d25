//! Many leases given back by one call.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};

use super::Call;
use super::elsewhere::{self, pass_on};
use super::input::{ReleaseAnswer, ReleaseRequest, read};
use super::problem::Fault;
use super::reply::Reply;
use crate::names::Id;
use crate::server::Shared;

/// Ids in one call. Far more than fit into a body of the default size.
const IDS_MAX: usize = 2000;

/// `POST /v1/leases/release`. A bad id in the list spoils the call before anything is given back; an id whose lease
/// has ended spoils nothing.
pub(super) async fn batch(shared: &Arc<Shared>, call: &Call) -> Result<Response<Reply>, Fault> {
    let request: ReleaseRequest = read(&call.body)?;
    if request.ids.len() > IDS_MAX {
        return Err(Fault::new("ids", format!("has {} ids; {IDS_MAX} at most in one call", request.ids.len())));
    }
    let mut own = Vec::new();
    let mut others: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (index, text) in request.ids.iter().enumerate() {
        let id = Id::parse(text).map_err(|fault| Fault { field: format!("ids[{index}]"), ..fault })?;
        match id.gate {
            Some(gate) if gate != shared.book.gate.as_str() => others.entry(gate).or_default().push(text.clone()),
            _ => own.push(id.name),
        }
    }
    let mut answer = ReleaseAnswer::default();
    answer.released += own.iter().filter(|name| shared.book.end(name)).count() as u64;
    for (gate, ids) in others {
        match at_peer(shared, call, &gate, &ids).await {
            Some(there) => {
                answer.released += there.released;
                answer.unreachable.extend(there.unreachable);
            }
            None => answer.unreachable.extend(ids),
        }
    }
    let body = Bytes::from(serde_json::to_vec(&answer).expect("texts and numbers are JSON"));
    let mut response = Response::new(Reply::full(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

async fn at_peer(shared: &Arc<Shared>, call: &Call, gate: &str, ids: &[String]) -> Option<ReleaseAnswer> {
    shared.counters.passed_on.one();
    let body = serde_json::json!({ "ids": ids }).to_string().into();
    let call = elsewhere::Call {
        method: &Method::POST,
        target: "/v1/leases/release",
        headers: &call.parts.headers,
        body,
        fair_header: None,
    };
    let answer = pass_on(&shared.peers, shared.book.gate.as_str(), gate, call).await;
    if answer.status() != StatusCode::OK {
        return None;
    }
    let body = Limited::new(answer.into_body(), shared.limits.body).collect();
    let body = tokio::time::timeout(shared.limits.read, body).await.ok()?.ok()?;
    serde_json::from_slice(&body.to_bytes()).ok()
}
