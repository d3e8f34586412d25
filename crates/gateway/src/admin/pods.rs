//! `PUT` and `DELETE /v1/pods/{name}`: pods that come and go by themselves.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::{Registration, Shared, beside, json_of, refused};

/// `201` when the pod was not there, `200` when it was renewed.
pub(super) async fn put(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let pod: Registration = match json_of(&headers, &body, &["application/json"]) {
        Ok(pod) => pod,
        Err(response) => return *response,
    };
    match beside(&shared, move |control| control.register(&name, pod)).await {
        Ok(true) => StatusCode::CREATED.into_response(),
        Ok(false) => StatusCode::OK.into_response(),
        Err(error) => refused(&error, "the pod cannot be taken in; nothing was changed"),
    }
}

/// `204`, a second time too.
pub(super) async fn delete(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    match beside(&shared, move |control| control.deregister(&name)).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refused(&error, "the pod cannot be let go; nothing was changed"),
    }
}
