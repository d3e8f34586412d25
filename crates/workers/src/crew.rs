//! One message's way to a pod: units, the request, the verdict.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use sluicegate::Refusal;
use sluicegate::jobs::{Background, Forward, NotAdmitted, Outcome, Work};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::tally::Tally;

/// Longest pause before a refused message asks again.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(5);
/// The longest pause before another try is so many times the first.
const BACKOFF_MOST: u32 = 64;

/// Who sends the messages of one source.
pub struct Crew {
    /// Takes units and sends.
    pub forward: Arc<dyn Forward>,
    /// How each message asks.
    pub how: Background,
    /// Units that messages of this process may hold, one purse for all its sources; `None`: as many as the gate gives.
    pub purse: Option<Purse>,
    /// Turns true when nothing new is to be begun.
    pub stop: watch::Receiver<bool>,
    /// What came of them.
    pub tally: Arc<Tally>,
}

/// Units for messages.
#[derive(Clone)]
pub struct Purse {
    units: Arc<Semaphore>,
    all: u32,
}

/// What is to become of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done; the pod answered this.
    Done(Outcome),
    /// It may be tried again; why.
    Again(String),
    /// Trying again is no use; why.
    Dead(String),
    /// The process stops, and it was not begun.
    NotBegun,
}

impl Purse {
    /// Of so many units.
    #[must_use]
    pub fn new(units: u32) -> Purse {
        let all = units.max(1);
        Purse { units: Arc::new(Semaphore::new(all as usize)), all }
    }

    async fn take(&self, weight: u32) -> Option<OwnedSemaphorePermit> {
        // One that is heavier than the purse takes it whole.
        Arc::clone(&self.units).acquire_many_owned(weight.clamp(1, self.all)).await.ok()
    }
}

impl Crew {
    /// Takes units for one message, sends it, and judges the answer. `behind`: how much further than others it ranks
    /// behind, times [`Background::behind`].
    pub async fn attempt(&self, work: Work, behind: u32) -> Verdict {
        let weight = self.forward.weight(&work.api).unwrap_or(1);
        let purse = tokio::select! {
            purse = async { match &self.purse {
                Some(purse) => purse.take(weight).await,
                None => None,
            } } => purse,
            () = self.stopped() => return Verdict::NotBegun,
        };
        let how = Background { behind: self.how.behind * (behind + 1), ..self.how };
        let admitted = loop {
            let refusal = tokio::select! {
                admitted = self.forward.admit(&work.api, how) => match admitted {
                    Ok(admitted) => break admitted,
                    Err(refusal) => refusal,
                },
                () = self.stopped() => return Verdict::NotBegun,
            };
            match refusal {
                NotAdmitted::Refused(Refusal::NotNow { retry_after_s, .. }) => {
                    let pause = Duration::from_secs(u64::from(retry_after_s)).min(ASK_AGAIN_MAX);
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.stopped() => return Verdict::NotBegun,
                    }
                }
                NotAdmitted::NoSuchApi => return Verdict::Dead(format!("there is no api `{}`", work.api)),
                NotAdmitted::Refused(Refusal::Never { weight, most, .. }) => {
                    let why = format!("it holds {weight} units, and no more than {most} can ever be had");
                    return Verdict::Dead(why);
                }
            }
        };
        let running = self.tally.run();
        let verdict = match admitted.send(work).await {
            Ok(outcome) => judge(outcome),
            Err(broke) => Verdict::Again(broke.to_string()),
        };
        drop((running, purse));
        verdict
    }

    /// Until nothing new is to be begun.
    pub async fn stopped(&self) {
        let mut stop = self.stop.clone();
        // An error: whoever could tell is gone, which is a stop too.
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

/// Answers below 400 are done. What a pod says of the message itself (4xx) will not change; what it says of its own
/// state (5xx, and the 4xx that ask to come again) may.
fn judge(outcome: Outcome) -> Verdict {
    let status = outcome.status;
    let of_now = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    if status.is_server_error() || of_now.contains(&status) {
        Verdict::Again(format!("the pod answered {status}"))
    } else if status.is_client_error() {
        Verdict::Dead(format!("the pod answered {status}"))
    } else {
        Verdict::Done(outcome)
    }
}

/// The pause before the try after `tries` that failed: the first, doubled each time, 64 times as long at most.
pub(crate) fn pause(first: Duration, tries: u32) -> Duration {
    first * (1u32 << tries.saturating_sub(1).min(6)).min(BACKOFF_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::HeaderMap;

    #[test]
    fn an_answer_is_judged_by_whom_it_is_about() {
        let of = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            judge(Outcome { status, headers: HeaderMap::new(), body: Bytes::new(), truncated: false })
        };
        assert!(matches!(of(200), Verdict::Done(_)) && matches!(of(304), Verdict::Done(_)));
        assert!(matches!(of(400), Verdict::Dead(_)) && matches!(of(422), Verdict::Dead(_)));
        for again in [408, 425, 429, 500, 503] {
            assert!(matches!(of(again), Verdict::Again(_)), "{again}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let second = Duration::from_secs(1);
        let pauses: Vec<u64> = (1..10).map(|tries| pause(second, tries).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
    }
}
