//! The admin listener: health, metrics, state, dashboard and live changes, apart from the traffic.

mod dashboard;
mod events;
mod ledger_metrics;
pub(crate) mod metrics;
pub(crate) mod pods;
mod state;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sluicegate::Gate;
use sluicegate_config::{AdminSettings, Problems};
use tokio::sync::{Semaphore, oneshot};

use crate::live::Live;
use crate::server;
use metrics::Family;
use state::Identity;

/// What the admin listener asks of the process it runs in. Each call may block for a moment, and is made where that
/// holds nobody up.
pub trait Control: Send + Sync + 'static {
    /// Applies a JSON merge patch (RFC 7396) of the configuration's `apis`, `pods[].capacity` and
    /// `admission`, at every gate of the pool.
    ///
    /// # Errors
    /// Every problem that the patched configuration would have, or why it cannot be told to the others; nothing was
    /// changed.
    fn patch(&self, patch: Value) -> Result<PatchAnswer, ControlError>;

    /// A pod registers itself, or says that it is still there. True if it was not there before.
    ///
    /// # Errors
    /// What is wrong with it; or the pods of this pool do not register, or the others cannot be told.
    fn register(&self, name: &str, pod: Registration) -> Result<bool, ControlError>;

    /// A pod goes: nothing new is sent to it. No error if it is not there.
    ///
    /// # Errors
    /// The pods of this pool do not register, or the others cannot be told.
    fn deregister(&self, name: &str) -> Result<(), ControlError>;

    /// What other parts of the process count, for `/metrics`.
    fn families(&self) -> Vec<Family> {
        Vec::new()
    }

    /// Whether this process should get traffic: configuration loaded, listeners up, not draining.
    /// Never the ledger's state.
    ///
    /// # Errors
    /// Why not, in a few words.
    fn ready(&self) -> Result<(), String>;
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlError {
    /// What was asked for cannot be obeyed.
    Invalid(Problems),
    /// The pool is not made for it.
    Conflict(String),
    /// The pool's ledger cannot be told now.
    Unavailable(String),
}

impl From<Problems> for ControlError {
    fn from(problems: Problems) -> ControlError {
        ControlError::Invalid(problems)
    }
}

/// What a pod says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// Where it is, as in the configuration.
    pub url: String,
    /// Units it can hold at once.
    pub capacity: u32,
    /// It is gone when it was silent for so many milliseconds.
    pub ttl_ms: u64,
}

/// What a change of the configuration came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PatchAnswer {
    /// The version now in force.
    pub version: u64,
    /// Gates that said they obey it.
    pub acknowledged: usize,
    /// Gates there are.
    pub gates: usize,
}

/// A running admin listener, on a thread of its own so that a busy gateway stays observable.
/// Dropping it stops it.
pub struct Admin {
    local_addr: SocketAddr,
    /// Dropped to stop.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What every handler needs.
struct Shared {
    gate: Gate,
    live: Arc<Live>,
    control: Arc<dyn Control>,
    token: Option<String>,
    identity: Identity,
    /// Places for listeners of `/v1/events`: each costs a copy of the state per event.
    listeners: Arc<Semaphore>,
}

impl Shared {
    /// The one document that `/v1/state` and `/v1/events` both give.
    fn state(&self) -> state::State {
        state::now(&self.gate, &self.live, &self.identity)
    }
}

impl Admin {
    /// Listens on `settings.listen` (port 0 takes a free one).
    ///
    /// # Errors
    /// The address cannot be listened on; or it is not loopback and no token is set
    /// (`InvalidInput`): whoever reaches it could change the limits.
    pub fn start(
        gate: Gate,
        live: Arc<Live>,
        control: Arc<dyn Control>,
        settings: &AdminSettings,
    ) -> io::Result<Admin> {
        if !settings.listen.ip().is_loopback() && settings.token.is_none() {
            let what = format!(
                "admin.listen {} can be reached by others and has no token\n  mend: set admin.token, or listen on 127.0.0.1",
                settings.listen
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let listener = server::listen_alone(settings.listen, "admin.listen")?;
        let local_addr = listener.local_addr()?;
        let token = settings.token.clone();
        let shared = Arc::new(Shared {
            gate,
            live,
            control,
            token,
            identity: Identity::new(),
            listeners: Arc::new(Semaphore::new(events::LISTENERS_MAX)),
        });
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, shared) => {}
                    // Told, or the handle is gone: both mean stop.
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(Admin { local_addr, stop: Some(stop), thread: Some(thread) })
    }

    /// The address it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of its thread was printed when it happened.
            let _ = thread.join();
        }
    }
}

async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let result = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => axum::serve(listener, router(shared)).await,
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        tracing::error!(%error, "the admin listener has ended");
    }
}

fn router(shared: Arc<Shared>) -> axum::Router {
    axum::Router::new()
        .route("/", get(dashboard::page))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(show_metrics))
        .route("/v1/state", get(show_state))
        .route("/v1/events", get(events::listen))
        .route("/v1/config", axum::routing::patch(change_config))
        .route("/v1/pods/{name}", axum::routing::put(pods::call).delete(pods::call))
        .fallback(async |uri: Uri| problem(StatusCode::NOT_FOUND, &format!("there is no {}", uri.path())))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            let detail = format!("{} does not take {method}", uri.path());
            problem(StatusCode::METHOD_NOT_ALLOWED, &detail)
        })
        .layer(middleware::from_fn_with_state(shared.clone(), authorize))
        .with_state(shared)
}

/// Wants the token where one is set; not from probes, which learn nothing but yes or no, nor for the
/// dashboard's page, which holds nothing and asks its user for the token.
async fn authorize(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let free = matches!(request.uri().path(), "/" | "/healthz" | "/readyz");
    let allowed = free
        || shared.token.as_deref().is_none_or(|token| {
            let given =
                request.headers().get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
            given.split_at_checked(7).is_some_and(|(scheme, rest)| {
                scheme.eq_ignore_ascii_case(b"bearer ") && same(rest, token.as_bytes())
            })
        });
    if allowed {
        return next.run(request).await;
    }
    let mut response = problem(
        StatusCode::UNAUTHORIZED,
        "send `Authorization: Bearer` with the admin token of the configuration",
    );
    response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    response
}

/// Compares in a time that does not tell how much of the guess was right.
fn same(given: &[u8], token: &[u8]) -> bool {
    given.len() == token.len()
        && given.iter().zip(token).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    match shared.control.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => problem(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

async fn show_metrics(State(shared): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::text(&shared.gate, shared.control.families()))
        .into_response()
}

async fn show_state(State(shared): State<Arc<Shared>>) -> Response {
    Json(shared.state()).into_response()
}

async fn change_config(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let patch: Value = match json_of(&headers, &body, &["application/merge-patch+json", "application/json"]) {
        Ok(patch) => patch,
        Err(response) => return response.map(Body::from),
    };
    match beside(&shared, move |control| control.patch(patch)).await {
        Ok(Ok(answer)) => Json(answer).into_response(),
        Ok(Err(error)) => {
            refused(&error, "the patched configuration would not be valid; nothing was changed")
                .map(Body::from)
        }
        Err(response) => response,
    }
}

/// A body of one of these kinds, read; else the answer that says what is wrong with it.
fn json_of<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: &Bytes,
    kinds: &[&str],
) -> Result<T, Box<http::Response<Bytes>>> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !kinds.contains(&kind.as_str()) {
        let detail = format!("`{kind}` is not understood; send {}", kinds.join(" or "));
        return Err(Box::new(plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, &detail)));
    }
    serde_json::from_slice(body).map_err(|error| {
        let what = if error.is_data() { "the body is not as it should be" } else { "the body is no JSON" };
        Box::new(plain(StatusCode::BAD_REQUEST, &format!("{what}: {error}")))
    })
}

/// Runs what may block where it holds up nobody.
async fn beside<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&dyn Control) -> T + Send + 'static,
) -> Result<T, Response> {
    let control = Arc::clone(&shared.control);
    let done = tokio::task::spawn_blocking(move || work(control.as_ref())).await;
    done.map_err(|error| problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()))
}

fn refused(error: &ControlError, invalid: &str) -> http::Response<Bytes> {
    match error {
        ControlError::Invalid(problems) => {
            let mut document = document(StatusCode::UNPROCESSABLE_ENTITY, invalid);
            document["problems"] =
                problems.0.iter().map(|one| json!({"what": one.what, "mend": one.mend})).collect();
            answer(StatusCode::UNPROCESSABLE_ENTITY, &document)
        }
        ControlError::Conflict(why) => plain(StatusCode::CONFLICT, why),
        ControlError::Unavailable(why) => {
            let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, why);
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
            response
        }
    }
}

fn problem(status: StatusCode, detail: &str) -> Response {
    plain(status, detail).map(Body::from)
}

/// As [`problem`], for answers that other listeners give as well.
fn plain(status: StatusCode, detail: &str) -> http::Response<Bytes> {
    answer(status, &document(status, detail))
}

fn document(status: StatusCode, detail: &str) -> Value {
    json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "detail": detail,
    })
}

fn answer(status: StatusCode, document: &Value) -> http::Response<Bytes> {
    let mut response = http::Response::new(Bytes::from(document.to_string()));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
