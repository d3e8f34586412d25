//! `GET /v1/state`, and what `top` reads of it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{self, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

use crate::cmd::Failure;

/// Longest time for one answer. A gate that needs longer is shown as not answering.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Longest document, bytes: thousands of pods fit.
const DOCUMENT_MAX: usize = 16 << 20;

/// Where to ask, and with what token.
pub(super) struct Admin {
    authority: Authority,
    authorization: Option<HeaderValue>,
}

/// One moment of the pool. Fields of later versions are passed over.
#[derive(Debug, Default, Deserialize)]
pub(super) struct State {
    pub(super) pool: String,
    pub(super) version: u64,
    pub(super) capacity: u32,
    pub(super) in_use: u64,
    pub(super) waiting: u64,
    pub(super) mode: String,
    pub(super) at_ms: u64,
    pub(super) waiting_units: u64,
    pub(super) reserve: u32,
    pub(super) share: u32,
    pub(super) trickled: u64,
    pub(super) claim: Option<Claim>,
    pub(super) pods: Vec<Pod>,
    pub(super) apis: Vec<Api>,
    pub(super) gates: Vec<Gate>,
    #[serde(default)]
    pub(super) ledger: Ledger,
}

#[derive(Debug, Deserialize)]
pub(super) struct Claim {
    pub(super) api: String,
    pub(super) pod: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) capacity: u32,
    pub(super) in_use: u32,
    pub(super) ready: bool,
    pub(super) draining: bool,
    pub(super) outside: u32,
    pub(super) refusals: u64,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Api {
    pub(super) name: String,
    pub(super) weight: u32,
    pub(super) in_use: u64,
    pub(super) waiting: u64,
    pub(super) min: u32,
    pub(super) max: Option<u32>,
    pub(super) admitted: u64,
    pub(super) refused: BTreeMap<String, u64>,
    pub(super) waited_us: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Gate {
    pub(super) id: String,
    pub(super) label: String,
    #[serde(default)]
    pub(super) in_use: u64,
    #[serde(default)]
    pub(super) credit: u64,
    #[serde(default)]
    pub(super) waiting: u64,
    #[serde(default)]
    pub(super) last_seen_ms: u64,
}

/// What stands between the gates of a pool.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ledger {
    pub(super) kind: String,
    pub(super) up: bool,
    pub(super) recovering: bool,
    pub(super) emergency: bool,
    pub(super) rtt_us: u64,
}

impl Admin {
    /// # Errors
    /// No header can hold the token.
    pub(super) fn new(authority: Authority, token: Option<String>) -> Result<Admin, Failure> {
        let authorization = token.map(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|error| Failure::of("the token cannot be sent", &error))?;
            value.set_sensitive(true);
            Ok(value)
        });
        Ok(Admin { authority, authorization: authorization.transpose()? })
    }

    /// # Errors
    /// What stood between, in words with the mend.
    pub(super) async fn state(&self) -> Result<State, Failure> {
        match tokio::time::timeout(ANSWER_MAX, self.ask()).await {
            Ok(state) => state,
            Err(_) => {
                Err(Failure(format!("http://{} does not answer within {ANSWER_MAX:?}", self.authority)))
            }
        }
    }

    async fn ask(&self) -> Result<State, Failure> {
        let stream = TcpStream::connect(self.authority.as_str()).await.map_err(|error| {
            Failure(format!(
                "no gate answers at http://{}: {error}\n  mend: start it, or name its admin listener by --admin",
                self.authority
            ))
        })?;
        let broke = |error: hyper::Error| Failure::of(format!("http://{}", self.authority), &error);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
        // It ends with the sender, at the end of this call.
        tokio::spawn(connection);
        let mut request = Request::get("/v1/state").header(header::HOST, self.authority.as_str());
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::<Bytes>::new()).expect("all its parts are valid");
        let answer = sender.send_request(request).await.map_err(broke)?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => {
                return Err(Failure(format!(
                    "http://{} wants another token\n  mend: give `admin.token` of its configuration by --token or {}",
                    self.authority,
                    super::TOKEN
                )));
            }
            other => return Err(self.not_ours(&format!("it answers {other}"))),
        }
        let body = Limited::new(answer.into_body(), DOCUMENT_MAX).collect().await;
        let body =
            body.map_err(|error| Failure::of(format!("http://{}", self.authority), &*error))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| self.not_ours(&error.to_string()))
    }

    fn not_ours(&self, why: &str) -> Failure {
        Failure(format!(
            "http://{}/v1/state is not the state of a gate of this version: {why}\n  mend: name the admin listener (not the gateway) by --admin",
            self.authority
        ))
    }
}
