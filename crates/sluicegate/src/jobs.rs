//! Work that no client's connection waits for: what the doors, the stores and the senders of such work say to each
//! other.
//!
//! A door that may not refuse a request hands it to a [`Desk`] and answers the job's id. The desk keeps it in a
//! [`Store`] and has it worked off by a [`Forward`], in the background of the same gate. Consumers of brokers use
//! [`Forward`] alone: their store is the broker. Nobody here knows a disk, a broker or a socket.

pub mod record;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use sluicegate_core::refusal::Refusal;

/// A future of a trait object.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Names a job. Random, so that whoever was not told it cannot guess it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u128);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A text that is no job's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoJobId;

impl FromStr for JobId {
    type Err = NoJobId;

    fn from_str(text: &str) -> Result<JobId, NoJobId> {
        // Only as it is written: `+1` and `1` are numbers too.
        let is_written = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = u128::from_str_radix(text, 16).map_err(|_| NoJobId)?;
        if is_written { Ok(JobId(id)) } else { Err(NoJobId) }
    }
}

/// One request to be sent to whichever pod has room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// The name of its api.
    pub api: String,
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub path: PathAndQuery,
    /// Headers as the pod is to see them.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// What a pod answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its status, whatever it was: an answer of 500 is an answer.
    pub status: StatusCode,
    /// Its headers, without those of the connection.
    pub headers: HeaderMap,
    /// Its body, up to a limit.
    pub body: Bytes,
    /// The body was longer than the limit.
    pub truncated: bool,
}

/// How work is to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Background {
    /// By how much it ranks behind its arrival: see [`Ask::background`](crate::Ask::background).
    pub behind: Duration,
    /// Longest wait for room before the asker is told so.
    pub wait: Duration,
    /// Most bytes of the answer's body that are kept.
    pub result_max: usize,
}

/// Sends work to pods through the gate.
pub trait Forward: Send + Sync {
    /// Takes units for `api` in the background.
    fn admit<'a>(
        &'a self,
        api: &'a str,
        how: Background,
    ) -> Later<'a, Result<Box<dyn Admitted>, NotAdmitted>>;

    /// Units of the pool that are free for background work now, as far as this gate knows; and its capacity.
    fn room(&self) -> (u64, u64);

    /// Units that `api` takes. `None`: there is no such api.
    fn weight(&self, api: &str) -> Option<u32>;
}

/// Units on one pod, to be used for one request. Dropping it gives them back.
pub trait Admitted: Send {
    /// Units held.
    fn weight(&self) -> u32;

    /// Sends the work to the pod; to another one if it surely did not start there.
    fn send(self: Box<Self>, work: Work) -> Later<'static, Result<Outcome, Broke>>;
}

/// Why no units were taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// There is no api of this name.
    NoSuchApi,
    /// The gate refused it; `NotNow` may be asked for again, after its time.
    Refused(Refusal),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broke {
    /// It surely did not start anywhere: nothing happened.
    NotStarted(String),
    /// The pod failed before or within its answer: it may have worked.
    Failed(String),
}

impl fmt::Display for Broke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broke::NotStarted(why) => write!(f, "not started: {why}"),
            Broke::Failed(why) => f.write_str(why),
        }
    }
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It waits for room.
    Queued,
    /// A pod works at it.
    Running,
    /// A pod answered.
    Done,
    /// No pod answered in as many tries as it has.
    Failed,
}

impl JobState {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Done => "done",
            JobState::Failed => "failed",
        }
    }

    /// Nothing more will happen to it.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, JobState::Done | JobState::Failed)
    }
}

/// A job as whoever asks for it sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its id.
    pub id: JobId,
    /// The name of its api.
    pub api: String,
    /// Where it stands.
    pub state: JobState,
    /// Tries so far that got no answer.
    pub tries: u32,
    /// When it came, Unix time in milliseconds.
    pub queued_ms: u64,
    /// When it will be forgotten; `None` before it is final.
    pub ends_ms: Option<u64>,
    /// The pod's answer, once it is there.
    pub outcome: Option<Outcome>,
    /// Why it failed, or why the last try did.
    pub error: Option<String>,
}

/// A job to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// What to do.
    pub work: Work,
    /// By whatever its sender tells repetitions apart, with whose it is. The same key is the same job.
    pub key: Option<String>,
}

/// What became of a [`NewJob`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is kept durably.
    Stored(Seen),
    /// There is a job with this key: that one.
    Same(Seen),
    /// There is a job with this key, and it is about something else.
    Differs,
    /// No more can be kept.
    Full,
}

/// The store failed. What was asked for may or may not have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError(pub String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoreError {}

/// What a door needs of jobs.
pub trait Desk: Send + Sync {
    /// Keeps a job. The answer comes when it is safe.
    fn put(&self, job: NewJob) -> Later<'_, Result<Put, StoreError>>;

    /// The job of a key.
    fn find(&self, key: String) -> Later<'_, Result<Option<Seen>, StoreError>>;

    /// A job, as soon as it is final, or as it is after `wait`. `None`: unknown, cancelled or forgotten.
    fn look(&self, id: JobId, wait: Duration) -> Later<'_, Result<Option<Seen>, StoreError>>;

    /// Forgets a job: one that waits never runs, the result of one that runs is thrown away. False: unknown.
    fn cancel(&self, id: JobId) -> Later<'_, Result<bool, StoreError>>;

    /// Whole seconds after which it is worth looking again for a job put now.
    fn look_after_s(&self) -> u32;
}

/// One change or question to a [`Store`].
#[derive(Clone, Debug)]
pub enum Op {
    /// Keep this job under this id, unless so many wait already. `print` tells works with one key apart.
    Put {
        /// Its id.
        id: JobId,
        /// What to keep.
        job: Box<NewJob>,
        /// A digest of the work.
        print: u64,
        /// Most jobs that may wait.
        most: u64,
    },
    /// The job of a key.
    Find(String),
    /// One job.
    Look(JobId),
    /// Up to so many jobs to work at, in the order in which they came. They are the taker's until `until_ms`.
    Take {
        /// Most jobs.
        most: usize,
        /// Until when they are the taker's, Unix time in milliseconds, unless renewed.
        until_ms: u64,
    },
    /// These are still worked at, until then.
    Renew(Vec<JobId>, u64),
    /// A taken job runs. Answers false if it was cancelled.
    Begin(JobId),
    /// A taken job is over: its answer, or why there is none. Forget it at `ends_ms`. An answer that is there already
    /// stays.
    Finish {
        /// Which job.
        id: JobId,
        /// How it ended.
        result: Result<Outcome, String>,
        /// When to forget it, Unix time in milliseconds.
        ends_ms: u64,
    },
    /// A taken job goes back, to be taken again from `from_ms` on. `failed`: a try got no answer, and why.
    Back {
        /// Which job.
        id: JobId,
        /// Not before, Unix time in milliseconds.
        from_ms: u64,
        /// Counts as a try.
        failed: Option<String>,
    },
    /// Forget it.
    Cancel(JobId),
    /// How many jobs wait.
    Count,
}

/// A job that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its id.
    pub id: JobId,
    /// Tries that got no answer.
    pub tries: u32,
    /// What to do.
    pub work: Work,
}

/// The answer to one [`Op`], in its order.
#[derive(Clone, Debug)]
pub enum Said {
    /// To `Put`.
    Put(Box<Put>),
    /// To `Find` and `Look`.
    Job(Option<Box<Seen>>),
    /// To `Take`.
    Taken(Vec<Taken>),
    /// To `Begin`, `Finish`, `Back`, `Cancel`: whether the job was there. To `Renew`: true.
    Known(bool),
    /// To `Count`.
    Count(u64),
}

/// Where jobs are kept. Blocking: it is called from a thread of its own, with all that came up meanwhile.
pub trait Store: Send {
    /// Does all of `ops`, in order, and answers each. When it answers, all is durable, as durable as this store is.
    ///
    /// # Errors
    /// The store failed; any of `ops` may have been done.
    fn apply(&mut self, now_ms: u64, ops: &[Op]) -> Result<Vec<Said>, StoreError>;

    /// Others may change it: jobs of a dead taker come back after its time, and whoever waits must look.
    fn is_shared(&self) -> bool;
}

/// Headers as bytes: `name: value` lines.
#[must_use]
pub fn headers_to_bytes(headers: &HeaderMap) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(b'\n');
    }
    bytes
}

/// Headers of [`headers_to_bytes`]. A line that is none is left out.
#[must_use]
pub fn headers_of_bytes(bytes: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some(at) = line.windows(2).position(|two| two == b": ") else { continue };
        let name = HeaderName::from_bytes(&line[..at]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&line[at + 2..])) {
            headers.append(name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_in_no_other_way() {
        let id = JobId(0x1f);
        assert_eq!(id.to_string().parse(), Ok(id));
        for other in ["1f", "", "+000000000000000000000000000001f", &"0".repeat(33)] {
            assert_eq!(other.parse::<JobId>(), Err(NoJobId), "{other}");
        }
    }

    #[test]
    fn headers_come_back_as_they_were() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("1: 2"));
        headers.append("x-a", HeaderValue::from_bytes(b"\xff").unwrap());
        headers.append("x-b", HeaderValue::from_static(""));
        assert_eq!(headers_of_bytes(&headers_to_bytes(&headers)), headers);
    }
}
