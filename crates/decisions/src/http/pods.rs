//! Pods that register themselves.

use http::{Response, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::problem::{Fault, come_again, document, problem, with};
use super::reply::Reply;

/// Longest time that a pod may be silent: a day.
const TTL_MAX_MS: u64 = 86_400_000;
/// Longest name of a pod, bytes.
const NAME_MAX: usize = 128;

/// Where pods register. Each call may block for a moment, and is made where that holds nobody up.
pub trait Registry: Send + Sync + 'static {
    /// A pod registers itself, or says that it is still there. True if it was not there before.
    ///
    /// # Errors
    /// What is wrong with it; or the pods of this pool do not register, or the others cannot be told.
    fn register(&self, name: &str, pod: PodRegistration) -> Result<bool, RegistryError>;

    /// A pod goes: nothing new is sent to it. No error if it is not there.
    ///
    /// # Errors
    /// The pods of this pool do not register, or the others cannot be told.
    fn deregister(&self, name: &str) -> Result<(), RegistryError>;
}

/// What a pod says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PodRegistration {
    /// Where it is, as in the configuration.
    #[schemars(regex(pattern = "^(http|h2c)://[^/?#]+$"))]
    pub url: String,
    /// Units it can hold at once.
    #[schemars(range(min = 1))]
    pub capacity: u32,
    /// It is gone when it was silent for so many milliseconds.
    #[schemars(range(min = 1, max = TTL_MAX_MS))]
    pub ttl_ms: u64,
}

/// Why a registration was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryError {
    /// What was asked for cannot be obeyed.
    Invalid(Vec<RegistryProblem>),
    /// The pods of this pool do not register.
    Conflict(String),
    /// The pool's ledger cannot be told now.
    Unavailable(String),
}

/// One thing that is wrong with a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryProblem {
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub mend: String,
}

impl PodRegistration {
    pub(crate) fn check(&self) -> Result<(), Fault> {
        if self.capacity == 0 {
            return Err(Fault::new("capacity", "must be at least 1 unit"));
        }
        if !(1..=TTL_MAX_MS).contains(&self.ttl_ms) {
            return Err(Fault::new("ttl_ms", format!("must be 1 to {TTL_MAX_MS}")));
        }
        Ok(())
    }
}

/// The name in a path.
pub(crate) fn name(text: &str) -> Result<&str, Fault> {
    let fits = (1..=NAME_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if fits { Ok(text) } else { Err(Fault::new("name", "must be 1 to 128 of letters, digits, `.`, `_` and `-`")) }
}

/// The answer for what the registry would not do.
pub(crate) fn refused(error: &RegistryError) -> Response<Reply> {
    match error {
        RegistryError::Invalid(problems) => {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            let detail = "the pool with this pod would not be valid; nothing was changed";
            let mut document = document(status, "invalid_pod", "The pod cannot be taken in", detail);
            document["problems"] =
                problems.iter().map(|one| json!({"what": one.what, "mend": one.mend})).collect();
            with(status, "invalid_pod", &document)
        }
        RegistryError::Conflict(why) => {
            problem(StatusCode::CONFLICT, "not_registered", "The pods of this pool do not register", why)
        }
        RegistryError::Unavailable(why) => come_again("ledger_unavailable", "The ledger cannot be told", why),
    }
}
