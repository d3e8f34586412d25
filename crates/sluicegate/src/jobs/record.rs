//! A job as stores write it: what is said of it as JSON, requests and answers as bytes.

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::jobs::{
    JobId, JobState, NewJob, Outcome, Seen, StoreError, Work, headers_of_bytes, headers_to_bytes,
};

/// What is said of a job; all but its bodies.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Meta {
    /// Its api.
    pub api: String,
    method: String,
    path: String,
    /// Its key, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Tells works with one key apart.
    pub print: u64,
    /// In which order it came, where the store counts.
    pub number: u64,
    /// When it came, Unix time in milliseconds.
    pub queued_ms: u64,
    /// Not to be taken before, Unix time in milliseconds.
    #[serde(default)]
    pub from_ms: u64,
    /// Tries without an answer.
    #[serde(default)]
    pub tries: u32,
    /// When it is to be forgotten; only if it is final.
    #[serde(default)]
    pub ends_ms: Option<u64>,
    /// The answer's status; there if there is an answer.
    #[serde(default)]
    pub status: Option<u16>,
    /// The answer's body was cut.
    #[serde(default)]
    pub truncated: bool,
    /// Why the last try failed.
    #[serde(default)]
    pub error: Option<String>,
}

impl Meta {
    /// Of a job that comes at `now_ms`.
    #[must_use]
    pub fn new(job: &NewJob, print: u64, number: u64, now_ms: u64) -> Meta {
        Meta {
            api: job.work.api.clone(),
            method: job.work.method.to_string(),
            path: job.work.path.to_string(),
            key: job.key.clone(),
            print,
            number,
            queued_ms: now_ms,
            from_ms: 0,
            tries: 0,
            ends_ms: None,
            status: None,
            truncated: false,
            error: None,
        }
    }

    /// # Errors
    /// The bytes are not of [`Meta::write`].
    pub fn read(bytes: &[u8]) -> Result<Meta, StoreError> {
        serde_json::from_slice(bytes)
            .map_err(|error| StoreError(format!("a job in the store cannot be read: {error}")))
    }

    /// As bytes.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are JSON")
    }

    /// Notes how it ended, and gives the bytes of its answer.
    pub fn end(&mut self, result: &Result<Outcome, String>, ends_ms: u64) -> Option<Vec<u8>> {
        self.ends_ms = Some(ends_ms);
        match result {
            Ok(outcome) => {
                self.status = Some(outcome.status.as_u16());
                self.truncated = outcome.truncated;
                self.error = None;
                Some(answer_to_bytes(outcome))
            }
            Err(why) => {
                self.tries += 1;
                self.error = Some(why.clone());
                None
            }
        }
    }

    /// As whoever asks sees it; `open` is where it stands if it is not final, `answer` the bytes of its answer.
    #[must_use]
    pub fn seen(&self, id: JobId, open: JobState, answer: Option<Vec<u8>>) -> Seen {
        let state = match (self.ends_ms, self.status) {
            (None, _) => open,
            (Some(_), Some(_)) => JobState::Done,
            (Some(_), None) => JobState::Failed,
        };
        let status = self.status.and_then(|status| StatusCode::from_u16(status).ok());
        let outcome = status.zip(answer).and_then(|(status, answer)| {
            let (headers, body) = split(&Bytes::from(answer))?;
            Some(Outcome { status, headers: headers_of_bytes(&headers), body, truncated: self.truncated })
        });
        Seen {
            id,
            api: self.api.clone(),
            state,
            tries: self.tries,
            queued_ms: self.queued_ms,
            ends_ms: self.ends_ms,
            outcome,
            error: self.error.clone(),
        }
    }
}

/// An answer's headers and body as bytes.
#[must_use]
pub fn answer_to_bytes(outcome: &Outcome) -> Vec<u8> {
    joined(&headers_to_bytes(&outcome.headers), &outcome.body)
}

/// A request's headers and body as bytes.
#[must_use]
pub fn work_to_bytes(work: &Work) -> Vec<u8> {
    joined(&headers_to_bytes(&work.headers), &work.body)
}

/// The work of a job from its two parts.
///
/// # Errors
/// They are not of [`Meta::new`] and [`work_to_bytes`].
pub fn work_of(meta: &Meta, bytes: &Bytes) -> Result<Work, StoreError> {
    let broken = || StoreError("a job's request in the store cannot be read".to_owned());
    let (headers, body) = split(bytes).ok_or_else(broken)?;
    Ok(Work {
        api: meta.api.clone(),
        method: Method::from_bytes(meta.method.as_bytes()).map_err(|_| broken())?,
        path: PathAndQuery::try_from(meta.path.as_str()).map_err(|_| broken())?,
        headers: headers_of_bytes(&headers),
        body,
    })
}

/// Length of the headers, headers, body.
fn joined(headers: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + headers.len() + body.len());
    let length =
        u32::try_from(headers.len()).expect("headers were read from a connection, kilobytes at most");
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(headers);
    bytes.extend_from_slice(body);
    bytes
}

fn split(bytes: &Bytes) -> Option<(Bytes, Bytes)> {
    let length = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let end = 4usize.checked_add(length).filter(|end| *end <= bytes.len())?;
    Some((bytes.slice(4..end), bytes.slice(end..)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue};

    #[test]
    fn a_job_and_its_answer_come_back_as_they_were() {
        let mut headers = HeaderMap::new();
        headers.insert("x-a", HeaderValue::from_static("1"));
        let work = Work {
            api: "report".into(),
            method: Method::POST,
            path: PathAndQuery::from_static("/reports?x=1"),
            headers: headers.clone(),
            body: Bytes::from_static(b"\x00\xff"),
        };
        let job = NewJob { work: work.clone(), key: Some("k".into()) };
        let mut meta = Meta::read(&Meta::new(&job, 7, 3, 99).write()).unwrap();
        assert_eq!(work_of(&meta, &Bytes::from(work_to_bytes(&work))).unwrap(), work);
        assert_eq!(meta.seen(JobId(1), JobState::Running, None).state, JobState::Running);
        let outcome = Outcome {
            status: StatusCode::CREATED,
            headers,
            body: Bytes::from_static(b"done"),
            truncated: true,
        };
        let answer = meta.end(&Ok(outcome.clone()), 1000);
        let seen = Meta::read(&meta.write()).unwrap().seen(JobId(1), JobState::Queued, answer);
        assert_eq!((seen.state, seen.outcome, seen.ends_ms), (JobState::Done, Some(outcome), Some(1000)));
        assert!(work_of(&meta, &Bytes::from_static(b"\xff\xff\xff\xffx")).is_err());
    }
}
