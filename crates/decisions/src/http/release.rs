//! Many leases given back by one call.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, header};

use super::input::{BadId, ReleaseAnswer, ReleaseRequest, read};
use super::problem::Fault;
use super::reply::Reply;
use super::{Call, elsewhere};
use crate::book::Ended;
use crate::names::Id;
use crate::peers::Ask;
use crate::server::Shared;

/// Ids in one call.
const IDS_MAX: usize = 2000;

/// `POST /v1/leases/release`. What is no id is named in the answer and does not keep the others; an id whose lease has
/// ended is no error.
pub(super) async fn batch(shared: &Arc<Shared>, call: &Call) -> Result<Response<Reply>, Fault> {
    let request: ReleaseRequest = read(&call.body)?;
    if request.ids.len() > IDS_MAX {
        return Err(Fault::new(
            "ids",
            format!("has {} ids; {IDS_MAX} at most in one call", request.ids.len()),
        ));
    }
    let mut answer = ReleaseAnswer::default();
    for (index, text) in request.ids.iter().enumerate() {
        match Id::parse(text) {
            Ok(id) if shared.is_ours(&id) => {
                answer.released += u64::from(shared.book.end(id.name, Ended::Done));
            }
            Ok(id) => {
                let asked = Ask::of(&call.parts.headers);
                let passing = elsewhere::return_of(call, id.text);
                elsewhere::give_back(shared, passing, asked, id.text, Ended::Done).await;
                answer.passed_on += 1;
            }
            Err(fault) => answer.bad.push(BadId { index, what: fault.what }),
        }
    }
    let body = Bytes::from(serde_json::to_vec(&answer).expect("texts and numbers are JSON"));
    let mut response = Response::new(Reply::full(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
