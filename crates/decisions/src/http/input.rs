//! What callers send, and what is made of it.

use std::time::Duration;

use http::{HeaderMap, header};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sluicegate::Ask;

use super::problem::Fault;
use crate::directory::{ApiRule, Rules, fair_key};

/// Longest wait that a caller may ask for: longer than any proxy keeps a request.
const WAIT_MAX_MS: u64 = 600_000;
/// Longest hold: who works longer renews.
const HOLD_MAX_MS: u64 = 86_400_000;
/// Greatest weight; a policy's own limits are lower.
const WEIGHT_MAX: u32 = 1_000_000_000;
/// Longest path that is looked at, bytes.
const PATH_MAX: usize = 8192;

/// Asks for the units of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("oneOf" = [
    {"required": ["api"], "properties": {"method": false, "path": false}},
    {"required": ["method", "path"], "properties": {"api": false}}
]))]
#[schemars(extend("not" = {"required": ["pod", "prefer"]}))]
pub(crate) struct LeaseRequest {
    /// Name of the api; or `method` and `path`, and the configuration's `match` finds it.
    #[serde(deserialize_with = "present")]
    #[schemars(with = "String")]
    pub(crate) api: Option<String>,
    /// The request's method.
    #[serde(deserialize_with = "present")]
    #[schemars(with = "String", regex(pattern = "^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}$"))]
    pub(crate) method: Option<String>,
    /// The request's path, as it came, with or without its query.
    #[serde(deserialize_with = "present")]
    #[schemars(with = "String", regex(pattern = "^/"), length(max = 2048))]
    pub(crate) path: Option<String>,
    /// Units, in place of the api's weight.
    #[serde(deserialize_with = "whole")]
    #[schemars(with = "u32", range(min = 1, max = WEIGHT_MAX))]
    pub(crate) weight: Option<u64>,
    /// Name of the pod it must be on: for a backend that asks for itself. A refusal then names a pod with room, if
    /// there is one (`elsewhere`).
    #[serde(deserialize_with = "present")]
    #[schemars(with = "String")]
    pub(crate) pod: Option<String>,
    /// Name of the pod that takes it if it fits there now: for a sidecar.
    #[serde(deserialize_with = "present")]
    #[schemars(with = "String")]
    pub(crate) prefer: Option<String>,
    /// Longest wait for room, milliseconds, in place of the api's. 0 is answered at once.
    #[serde(deserialize_with = "whole")]
    #[schemars(with = "u64", range(max = WAIT_MAX_MS))]
    pub(crate) wait_ms: Option<u64>,
    /// How long the lease lives without a renewal, milliseconds. Default: the api's `max_hold`.
    #[serde(deserialize_with = "whole")]
    #[schemars(with = "u64", range(min = 1, max = HOLD_MAX_MS))]
    pub(crate) hold_ms: Option<u64>,
    /// The lease's id, chosen by the caller: an ask that waits can be cancelled by it, and one that is sent again gets
    /// the same lease.
    #[serde(deserialize_with = "present")]
    #[schemars(with = "String", regex(pattern = crate::names::ID_PATTERN))]
    pub(crate) id: Option<String>,
    /// The id of a former lease of the same request, which its pod did not run (given back with `?outcome=pod_full` or
    /// `not_started`): within a second the ask keeps that one's place in the line, and what is left of its wait.
    #[serde(deserialize_with = "present")]
    #[schemars(with = "String", regex(pattern = crate::names::ANY_ID_PATTERN))]
    pub(crate) after: Option<String>,
}

/// Renews a lease.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RenewRequest {
    /// From now on, milliseconds. Default: as long as before.
    #[serde(deserialize_with = "whole")]
    #[schemars(with = "u64", range(min = 1, max = HOLD_MAX_MS))]
    pub(crate) hold_ms: Option<u64>,
}

/// Gives leases back.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReleaseRequest {
    /// Their ids; those of other gates too.
    #[schemars(length(max = 2000))]
    pub(crate) ids: Vec<String>,
}

/// A lease.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct LeaseAnswer<'a> {
    /// To renew it and to give it back by.
    pub(crate) id: String,
    /// Name of the pod where the request may run.
    pub(crate) pod: &'a str,
    /// Where that pod is.
    pub(crate) url: &'a str,
    /// Units held; 0 for an exempt api.
    pub(crate) weight: u32,
    /// Milliseconds until it must have been renewed. Absent: it lives as long as this connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64")]
    pub(crate) expires_in_ms: Option<u64>,
    /// True when another gate gave it, which is gone, and this one sees to it now.
    #[serde(skip_serializing_if = "is_false")]
    #[schemars(with = "bool")]
    pub(crate) adopted: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What a batch of releases came to.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub(crate) struct ReleaseAnswer {
    /// Leases of this gate that ended by this call. The others had ended before, or never were.
    pub(crate) released: u64,
    /// Ids of other gates, which were told, or will be when they answer.
    pub(crate) passed_on: u64,
    /// What is no id, by its place in the list.
    pub(crate) bad: Vec<BadId>,
}

/// What is no id.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct BadId {
    /// Its place in the list, from 0.
    pub(crate) index: usize,
    /// What is wrong with it.
    pub(crate) what: String,
}

/// A checked ask.
pub(crate) struct Asked {
    pub(crate) api: ApiRule,
    pub(crate) ask: Ask,
    /// `None`: as long as the connection.
    pub(crate) hold: Option<Duration>,
}

/// A field that is there is not null.
fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// A whole number that is there; JSON does not tell `3.0` from `3`.
fn whole<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    struct Whole;
    impl serde::de::Visitor<'_> for Whole {
        type Value = u64;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a whole number from 0 up")
        }

        fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<u64, E> {
            Ok(value)
        }

        fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<u64, E> {
            // Above 2^53 not every whole number is one of these; no bound here is near that.
            if value >= 0.0 && value.fract() == 0.0 && value < 9e15 {
                return Ok(value as u64);
            }
            Err(E::invalid_value(serde::de::Unexpected::Float(value), &self))
        }
    }
    from.deserialize_u64(Whole).map(Some)
}

/// Reads a body of JSON. An error names the field where it can.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    // Serde would take a list for an object's values.
    if body.trim_ascii_start().first().is_some_and(|first| *first == b'[') {
        return Err(Fault::new("body", "must be a JSON object, not a list"));
    }
    // What is well is read the quick way, which does not keep track of where it is.
    serde_json::from_slice(body).or_else(|_| read_again(body))
}

fn read_again<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        let what = if inner.is_data() { "is not as it should be" } else { "is no JSON" };
        // An unknown field is not at its own path.
        let named = unknown_field(&inner.to_string());
        let field = named.unwrap_or(if path == "." { "body".to_owned() } else { path });
        Fault::new(&field, format!("{what}: {inner}"))
    })?;
    reader.end().map_err(|error| Fault::new("body", format!("goes on after its end: {error}")))?;
    Ok(read)
}

/// The name in serde's "unknown field `x`" and its like.
fn unknown_field(message: &str) -> Option<String> {
    let known = ["unknown field `", "duplicate field `", "missing field `"];
    let rest = known.iter().find_map(|words| message.strip_prefix(words))?;
    Some(rest.split('`').next()?.to_owned())
}

impl LeaseRequest {
    /// The ask of this request, by these rules. `bound`: the lease lives as long as the connection.
    pub(crate) fn check(&self, rules: &Rules, headers: &HeaderMap, bound: bool) -> Result<Asked, Fault> {
        let api = self.api_rule(rules)?.clone();
        let mut ask = Ask::new(api.id);
        if let Some(weight) = self.weight {
            within("weight", weight, 1, u64::from(WEIGHT_MAX))?;
            ask = ask.weight(u32::try_from(weight).expect("at most WEIGHT_MAX"));
        }
        if let Some(wait) = self.wait_ms {
            within("wait_ms", wait, 0, WAIT_MAX_MS)?;
            ask = ask.wait(Duration::from_millis(wait));
        }
        let pod = |field: &str, name: &str| {
            let pod = rules.pod_named(name).map(|pod| pod.id);
            pod.ok_or_else(|| Fault::new(field, format!("names no pod of this pool: `{}`", shortened(name))))
        };
        match (&self.pod, &self.prefer) {
            (Some(_), Some(_)) => {
                return Err(Fault::new("prefer", "and `pod` cannot both be: a pinned ask has no choice"));
            }
            (Some(name), None) => ask = ask.pin(pod("pod", name)?),
            (None, Some(name)) => ask = ask.prefer(pod("prefer", name)?),
            (None, None) => {}
        }
        if let Some(hold) = self.hold_ms {
            within("hold_ms", hold, 1, HOLD_MAX_MS)?;
        }
        let hold = match self.hold_ms {
            Some(hold) => Some(Duration::from_millis(hold)),
            None if bound => None,
            None => Some(api.max_hold),
        };
        let key = rules.fair_header.as_ref().and_then(|name| headers.get(name.as_str()));
        if let Some(value) = key {
            ask = ask.key(fair_key(value.as_bytes()));
        }
        Ok(Asked { api, ask, hold })
    }

    fn api_rule<'a>(&self, rules: &'a Rules) -> Result<&'a ApiRule, Fault> {
        match (&self.api, &self.method, &self.path) {
            (Some(name), None, None) => rules.api(name).ok_or_else(|| {
                Fault::new("api", format!("names no api of this pool: `{}`", shortened(name)))
            }),
            (None, Some(method), Some(path)) => {
                if http::Method::from_bytes(method.as_bytes()).is_err() || method.len() > 32 {
                    return Err(Fault::new("method", "is no method of HTTP"));
                }
                if !path.starts_with('/') || path.len() > PATH_MAX {
                    return Err(Fault::new(
                        "path",
                        format!("must begin with `/` and have at most {PATH_MAX} bytes"),
                    ));
                }
                Ok(rules.route(method, path))
            }
            (Some(_), Some(_), _) => Err(Fault::new("method", "and `api` cannot both be: write one of them")),
            (Some(_), None, Some(_)) => {
                Err(Fault::new("path", "and `api` cannot both be: write one of them"))
            }
            (None, Some(_), None) => Err(Fault::new("path", "is missing: `method` needs it")),
            (None, None, Some(_)) => Err(Fault::new("method", "is missing: `path` needs it")),
            (None, None, None) => Err(Fault::new("api", "is missing: write it, or `method` and `path`")),
        }
    }
}

impl RenewRequest {
    pub(crate) fn hold(&self) -> Result<Option<Duration>, Fault> {
        let Some(hold) = self.hold_ms else { return Ok(None) };
        within("hold_ms", hold, 1, HOLD_MAX_MS)?;
        Ok(Some(Duration::from_millis(hold)))
    }
}

/// Whether the lease shall live as long as the connection.
pub(crate) fn connection_lifetime(headers: &HeaderMap) -> Result<bool, Fault> {
    match headers.get("connection-lifetime") {
        None => Ok(false),
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"held") => Ok(true),
        Some(_) => Err(Fault::new("Connection-lifetime", "can only be `held`")),
    }
}

/// Whether a body is said to be JSON.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

fn within(field: &str, value: u64, least: u64, most: u64) -> Result<(), Fault> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Fault::new(field, format!("must be {least} to {most}, not {value}")))
}

/// Enough of a caller's text to know it again.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}
