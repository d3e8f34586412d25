//! Calls for a lease of another gate.
//!
//! A balancer may send a renewal or a return to another gate than the one that gave the lease. The id names its gate,
//! and the call is passed on, once: a call that was passed on already is not passed on again.
//!
//! **The seam for adoption**: when the lease's gate is known to be gone, [`pass_on`] is the one place where this gate
//! could take the lease over. The units of a gate that died come back from the shared ledger by its ttl, so nothing is
//! lost without it; what adoption would add is that the request's units stay counted until its end. It needs the
//! ledger to say which leases the dead gate had, and [`Peers`] to say "gone" apart from "unknown".

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::problem::problem;
use super::reply::{Link, Reply};

/// Says that a call was passed on, and by whom.
pub(crate) const PASSED_BY: &str = "x-sluicegate-passed-by";
/// Longest time to connect to another gate.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Headers of a caller that the other gate needs.
const NEEDED: [&str; 4] = ["authorization", "content-type", "idempotency-key", "connection-lifetime"];

/// Where the other gates of the pool are.
pub trait Peers: Send + Sync + 'static {
    /// The base URL of a gate's decision service by the gate's name, as `http://host:port`; `None` if there is no such
    /// gate. Called for each call that is passed on, so it must not block.
    fn base_url(&self, gate: &str) -> Option<String>;
}

/// Nobody: this gate is alone.
impl Peers for () {
    fn base_url(&self, _: &str) -> Option<String> {
        None
    }
}

/// [`Peers`] from a closure over whatever map there is.
pub struct PeersFn<F>(pub F);

impl<F: Fn(&str) -> Option<String> + Send + Sync + 'static> Peers for PeersFn<F> {
    fn base_url(&self, gate: &str) -> Option<String> {
        (self.0)(gate)
    }
}

/// A call as it came.
pub(crate) struct Call<'a> {
    pub(crate) method: &'a Method,
    /// Path and query.
    pub(crate) target: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: Bytes,
    /// Headers of the fairness key, if there is one.
    pub(crate) fair_header: Option<&'a str>,
}

/// The answer of the gate that holds the lease.
pub(crate) async fn pass_on(
    peers: &Arc<dyn Peers>,
    own: &str,
    gate: &str,
    call: Call<'_>,
) -> Response<Reply> {
    if call.headers.contains_key(PASSED_BY) {
        return no_gate(gate, "the call was passed on to a gate of another name");
    }
    let Some(base) = peers.base_url(gate) else {
        return no_gate(gate, "no gate of this name is known: it has gone, and its leases with it, or it never was");
    };
    match send(&base, own, call).await {
        Ok(answer) => answer,
        Err(why) => {
            tracing::warn!(gate, base, why, "a call cannot be passed on to the gate that holds the lease");
            no_gate(gate, &format!("the gate is known and does not answer ({why}); its leases end by themselves"))
        }
    }
}

fn no_gate(gate: &str, why: &str) -> Response<Reply> {
    let detail = format!("The lease belongs to gate `{gate}`: {why}.");
    problem(StatusCode::NOT_FOUND, "unknown_gate", "The lease's gate is not to be found", &detail)
}

async fn send(base: &str, own: &str, call: Call<'_>) -> Result<Response<Reply>, String> {
    let base: Uri = base.parse().map_err(|error| format!("`{base}` is no URL: {error}"))?;
    let authority = base.authority().filter(|_| base.scheme_str() == Some("http"));
    let authority = authority.ok_or_else(|| format!("`{base}` is not `http://host:port`"))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let connect = TcpStream::connect((host, authority.port_u16().unwrap_or(80)));
    let stream = tokio::time::timeout(CONNECT_MAX, connect).await.map_err(|_| "connecting took too long")?;
    let stream = stream.map_err(|error| error.to_string())?;
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    // Whoever asked may leave: with the link the connection goes, and with it what the other gate holds for us.
    let link = Link(tokio::spawn(connection).abort_handle());
    let mut request = Request::new(Full::new(call.body));
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = call.target.parse().map_err(|error| format!("{error}"))?;
    let host = HeaderValue::try_from(authority.as_str()).map_err(|error| error.to_string())?;
    request.headers_mut().insert(header::HOST, host);
    let own = HeaderValue::try_from(own).map_err(|error| error.to_string())?;
    request.headers_mut().insert(PASSED_BY, own);
    for name in NEEDED.into_iter().chain(call.fair_header) {
        let Ok(name) = header::HeaderName::try_from(name) else { continue };
        if let Some(value) = call.headers.get(&name) {
            request.headers_mut().insert(name, value.clone());
        }
    }
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let (mut parts, body) = answer.into_parts();
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH, header::DATE] {
        parts.headers.remove(name);
    }
    Ok(Response::from_parts(parts, Reply::Passed(body, link)))
}
