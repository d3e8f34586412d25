//! Works jobs off: takes them in order, asks for units in the background, has them sent, keeps the answers.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sluicegate::Refusal;
use sluicegate::jobs::{Background, Broke, Forward, JobId, NotAdmitted, Op, Outcome, Said, Taken};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::desk::{Overflow, now_ms};

/// Jobs that wait for room at once. The gate orders them; more would only make its line longer.
const WAITING_MAX: usize = 32;
/// How often a shared store is looked at for jobs of others, and any store for those that come back.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Longest pause before a refused job asks again.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(5);
/// First and longest pause before a job is tried again.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Pause before the store is told again what it could not take.
const STORE_AGAIN: Duration = Duration::from_millis(500);

/// How jobs are worked off.
#[derive(Clone, Copy, Debug)]
pub struct Runner {
    /// How each asks for room.
    pub how: Background,
    /// Tries without an answer before a job has failed.
    pub tries: u32,
    /// How long results are kept.
    pub ttl: Duration,
    /// In a shared store: after so long without a word of its taker another takes a job. It is renewed every third
    /// of it.
    pub lease: Duration,
}

struct Work {
    desk: Overflow,
    forward: Arc<dyn Forward>,
    runner: Runner,
    /// Jobs that are ours to renew.
    held: Mutex<HashSet<JobId>>,
    stop: watch::Receiver<bool>,
}

/// Works jobs off until `stop` turns true; then waits for those that run, and puts the others back.
pub async fn work_off(
    desk: Overflow,
    forward: Arc<dyn Forward>,
    runner: Runner,
    mut stop: watch::Receiver<bool>,
) {
    let seats = Arc::new(Semaphore::new(WAITING_MAX));
    let work = Arc::new(Work { desk, forward, runner, held: Mutex::default(), stop: stop.clone() });
    let renewal = tokio::spawn(renew(Arc::clone(&work)));
    let mut jobs = JoinSet::new();
    while !*stop.borrow() {
        let Ok(first) = Arc::clone(&seats).acquire_owned().await else { break };
        let mut free = vec![first];
        while let Ok(more) = Arc::clone(&seats).try_acquire_owned() {
            free.push(more);
        }
        let taken = work.take(free.len()).await;
        let nothing = taken.is_empty();
        for (job, seat) in taken.into_iter().zip(free) {
            jobs.spawn(Arc::clone(&work).job(job, seat));
        }
        while jobs.try_join_next().is_some() {}
        if nothing {
            tokio::select! {
                () = work.desk.arrival() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = stop.changed() => {}
            }
        }
    }
    while jobs.join_next().await.is_some() {}
    renewal.abort();
}

/// Tells a shared store that its jobs are still worked at.
async fn renew(work: Arc<Work>) {
    if !work.desk.is_shared() {
        return;
    }
    loop {
        tokio::time::sleep(work.runner.lease / 3).await;
        let held: Vec<JobId> = work.held().iter().copied().collect();
        if !held.is_empty()
            && let Err(error) = work.desk.one(Op::Renew(held, work.until_ms())).await
        {
            tracing::warn!(%error, "jobs were not renewed; others may work at them too");
        }
    }
}

impl Work {
    fn held(&self) -> MutexGuard<'_, HashSet<JobId>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn until_ms(&self) -> u64 {
        now_ms() + millis(self.runner.lease)
    }

    async fn take(&self, most: usize) -> Vec<Taken> {
        match self.desk.ask(vec![Op::Take { most, until_ms: self.until_ms() }, Op::Count]).await {
            Ok(said) => {
                let mut said = said.into_iter();
                let (taken, count) = (said.next(), said.next());
                if let Some(Said::Count(open)) = count {
                    self.desk.note_open(open);
                }
                let Some(Said::Taken(taken)) = taken else { return Vec::new() };
                self.held().extend(taken.iter().map(|job| job.id));
                taken
            }
            Err(error) => {
                tracing::warn!(%error, "no jobs can be taken");
                Vec::new()
            }
        }
    }

    /// One job, from its taking to its end. `seat` is given up when it has room.
    async fn job(self: Arc<Self>, job: Taken, seat: OwnedSemaphorePermit) {
        let id = job.id;
        let op = self.run(job, seat).await;
        if let Some(op) = op {
            let is_final = matches!(op, Op::Finish { .. });
            self.tell(op).await;
            if is_final {
                self.desk.over(id);
            }
        }
        self.held().remove(&id);
    }

    /// What is to be told to the store; `None` if the job is no longer wanted.
    async fn run(&self, job: Taken, seat: OwnedSemaphorePermit) -> Option<Op> {
        let Taken { id, tries, work } = job;
        let admitted = loop {
            let refusal = tokio::select! {
                admitted = self.forward.admit(&work.api, self.runner.how) => match admitted {
                    Ok(admitted) => break admitted,
                    Err(refusal) => refusal,
                },
                () = self.stopped() => return Some(Op::Back { id, from_ms: 0, failed: None }),
            };
            match refusal {
                NotAdmitted::Refused(Refusal::NotNow { retry_after_s, .. }) => {
                    let pause = Duration::from_secs(u64::from(retry_after_s)).min(ASK_AGAIN_MAX);
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.stopped() => return Some(Op::Back { id, from_ms: 0, failed: None }),
                    }
                }
                NotAdmitted::NoSuchApi => {
                    return Some(self.finish(id, Err(format!("there is no api `{}` any more", work.api))));
                }
                NotAdmitted::Refused(Refusal::Never { weight, most, .. }) => {
                    let why = format!("it holds {weight} units, and no more than {most} can ever be had");
                    return Some(self.finish(id, Err(why)));
                }
            }
        };
        drop(seat);
        // A store that does not answer does not keep a job from running that is ours.
        if let Ok(Said::Known(false)) = self.desk.one(Op::Begin(id)).await {
            return None;
        }
        Some(match admitted.send(work).await {
            Ok(outcome) => self.finish(id, Ok(outcome)),
            Err(broke) => self.broke(id, tries, &broke),
        })
    }

    fn broke(&self, id: JobId, tries: u32, broke: &Broke) -> Op {
        let pause = TRY_AGAIN.0.saturating_mul(1 << tries.min(8)).min(TRY_AGAIN.1);
        let from_ms = now_ms() + millis(pause);
        match broke {
            Broke::NotStarted(_) => Op::Back { id, from_ms, failed: None },
            Broke::Failed(why) if tries + 1 >= self.runner.tries => self.finish(id, Err(why.clone())),
            Broke::Failed(why) => Op::Back { id, from_ms, failed: Some(why.clone()) },
        }
    }

    fn finish(&self, id: JobId, result: Result<Outcome, String>) -> Op {
        Op::Finish { id, result, ends_ms: now_ms() + millis(self.runner.ttl) }
    }

    /// Until the store has it: what ran and is not written would run again.
    async fn tell(&self, op: Op) {
        while let Err(error) = self.desk.one(op.clone()).await {
            tracing::warn!(%error, "a job's end is not written yet");
            tokio::time::sleep(STORE_AGAIN).await;
        }
    }

    fn stopped(&self) -> impl Future<Output = ()> + use<> {
        let mut stop = self.stop.clone();
        async move {
            // An error: whoever could tell is gone, which is a stop too.
            let _ = stop.wait_for(|stop| *stop).await;
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
