//! An ask, and the lease to come.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sluicegate_core::exchange::{Ending, Place};
use sluicegate_core::gate::{Answer, Ask as CoreAsk, Granted};
use sluicegate_core::ids::{ApiId, LeaseId, PodId, Ticket};
use sluicegate_core::refusal::Refusal;

use crate::gate::{Handle, Seat};
use crate::lease::Lease;

/// A request for a lease, to be given to [`Gate::acquire`](crate::Gate::acquire).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask(pub(crate) CoreAsk);

impl Ask {
    /// An ask of `api` with everything as its rules say.
    #[must_use]
    pub fn new(api: ApiId) -> Ask {
        Ask(CoreAsk::new(api))
    }

    /// Units, in place of the api's weight. 0 counts as 1.
    #[must_use]
    pub fn weight(mut self, units: u32) -> Ask {
        self.0.weight = Some(units);
        self
    }

    /// Longest wait, in place of the api's. Zero refuses at once.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Ask {
        self.0.wait_us = Some(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX));
        self
    }

    /// On this pod only: for a backend that asks for itself.
    #[must_use]
    pub fn pin(mut self, pod: PodId) -> Ask {
        self.0.place = Place::Pin(pod);
        self
    }

    /// On this pod if it fits there now, else on any: for a sidecar.
    #[must_use]
    pub fn prefer(mut self, pod: PodId) -> Ask {
        self.0.place = Place::Prefer(pod);
        self
    }

    /// Background work: it ranks behind what arrives up to `behind` after it, and so never waits for more than that
    /// long behind the foreground. Give it a long [`wait`](Ask::wait) too. Under `order: fair` it has the share of its
    /// key instead.
    #[must_use]
    pub fn background(mut self, behind: Duration) -> Ask {
        self.0.behind_us = u64::try_from(behind.as_micros()).unwrap_or(u64::MAX).max(1);
        self
    }

    /// What is refused is kept for later: counted as outcome `enqueued`, not as `refused`.
    #[must_use]
    pub fn overflows(mut self) -> Ask {
        self.0.overflows = true;
        self
    }

    /// Whom `order: fair` shares between, in place of the api: a hash of the caller, say.
    #[must_use]
    pub fn key(mut self, key: u64) -> Ask {
        self.0.key = Some(key);
        self
    }
}

/// A lease to come: see [`Gate::acquire`](crate::Gate::acquire). Cancel safe: dropping it leaves nothing behind.
#[must_use = "nothing is asked for until it is polled"]
pub struct Acquire {
    handle: Arc<Handle>,
    stage: Stage,
    api: ApiId,
}

enum Stage {
    Fresh(CoreAsk),
    Waiting(Ticket),
    Answered(Result<Granted, Refusal>),
    Done,
}

impl Stage {
    fn of(answer: Answer) -> Stage {
        match answer {
            Answer::Granted(granted) => Stage::Answered(Ok(granted)),
            Answer::Refused(refusal) => Stage::Answered(Err(refusal)),
            Answer::Waits(ticket) => Stage::Waiting(ticket),
        }
    }
}

impl Future for Acquire {
    type Output = Result<Lease, Refusal>;

    /// # Panics
    /// If polled after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Stage::Fresh(ask) = self.stage {
            let answer = self.handle.begin(Some(cx.waker()), |core, now, out| core.ask(now, ask, out));
            return self.settle(Stage::of(answer));
        }
        if let Stage::Waiting(ticket) = self.stage {
            let mut state = self.handle.shared.lock();
            match state.waiters.get_mut(&ticket) {
                Some(Seat::Waits(waker)) => {
                    if waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
                        *waker = Some(cx.waker().clone());
                    }
                }
                Some(Seat::Answered(answer)) => {
                    let answer = *answer;
                    state.waiters.remove(&ticket);
                    drop(state);
                    self.stage = Stage::Answered(answer);
                }
                None => unreachable!("a waiting ask keeps its seat until it has seen its answer"),
            }
        }
        // What was granted a while ago is asked for again if the credit that it came of has ended since.
        if let Stage::Answered(Ok(granted)) = self.stage
            && let Some(answer) = self.handle.renew(granted.lease, cx.waker())
        {
            return self.settle(Stage::of(answer));
        }
        let stage = std::mem::replace(&mut self.stage, Stage::Done);
        self.settle(stage)
    }
}

impl Acquire {
    pub(crate) fn new(handle: Arc<Handle>, ask: Ask) -> Acquire {
        Acquire { handle, stage: Stage::Fresh(ask.0), api: ask.0.api }
    }

    #[inline]
    fn settle(&mut self, stage: Stage) -> Poll<Result<Lease, Refusal>> {
        match stage {
            Stage::Answered(Ok(granted)) => {
                self.stage = Stage::Done;
                Poll::Ready(Ok(Lease::new(Arc::clone(&self.handle), self.api, granted)))
            }
            Stage::Answered(Err(refusal)) => {
                self.stage = Stage::Done;
                Poll::Ready(Err(refusal))
            }
            Stage::Waiting(ticket) => {
                self.stage = Stage::Waiting(ticket);
                Poll::Pending
            }
            Stage::Fresh(_) | Stage::Done => panic!("`Acquire` was polled after it was ready"),
        }
    }
}

impl Handle {
    /// The request of `lease` did not run; it goes through admission again.
    pub(crate) fn retry(self: Arc<Handle>, lease: LeaseId, api: ApiId, ending: Ending) -> Acquire {
        let answer = self.begin(None, |core, now, out| {
            core.retry(now, lease, ending, out).expect("a live lease was alive")
        });
        Acquire { stage: Stage::of(answer), handle: self, api }
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let granted = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Fresh(_) | Stage::Done | Stage::Answered(Err(_)) => return,
            Stage::Answered(Ok(granted)) => granted,
            Stage::Waiting(ticket) => {
                let seat = self.handle.shared.lock().waiters.remove(&ticket);
                match seat {
                    Some(Seat::Answered(Ok(granted))) => granted,
                    Some(Seat::Waits(_)) => {
                        self.handle.step(|core, now, out| core.cancel(now, ticket, out));
                        // Granted or refused between the two locks: its seat was made anew.
                        match self.handle.shared.lock().waiters.remove(&ticket) {
                            Some(Seat::Answered(Ok(granted))) => granted,
                            _ => return,
                        }
                    }
                    _ => return,
                }
            }
        };
        self.handle.step(|core, now, out| core.unused(now, granted.lease, out));
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").field("api", &self.api).finish_non_exhaustive()
    }
}
