//! `PUT` and `DELETE /v1/pods/{name}`: pods that come and go by themselves.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;

use super::{Control, Registration, Shared, beside, json_of, refused};

/// Answers a call of a pod, for any listener: `PUT` registers it (`201`, or `200` when it was there) and `DELETE` lets
/// it go (`204`, a second time too). May block for a moment.
pub fn pod_call(
    control: &dyn Control,
    method: &Method,
    name: &str,
    headers: &HeaderMap,
    body: &Bytes,
) -> http::Response<Bytes> {
    if method == Method::DELETE {
        return match control.deregister(name) {
            Ok(()) => status(StatusCode::NO_CONTENT),
            Err(error) => refused(&error, "the pod cannot be let go; nothing was changed"),
        };
    }
    let pod: Registration = match json_of(headers, body, &["application/json"]) {
        Ok(pod) => pod,
        Err(response) => return *response,
    };
    match control.register(name, pod) {
        Ok(true) => status(StatusCode::CREATED),
        Ok(false) => status(StatusCode::OK),
        Err(error) => refused(&error, "the pod cannot be taken in; nothing was changed"),
    }
}

pub(super) async fn call(
    State(shared): State<Arc<Shared>>,
    method: Method,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let done = beside(&shared, move |control| pod_call(control, &method, &name, &headers, &body)).await;
    done.map_or_else(|response| response, |response| response.map(Body::from))
}

fn status(status: StatusCode) -> http::Response<Bytes> {
    let mut response = http::Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}
