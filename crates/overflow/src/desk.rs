//! The desk: one thread with the store, and those who wait for jobs.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime};

use sluicegate::jobs::{Desk, JobId, Later, NewJob, Op, Put, Said, Seen, Store, StoreError};
use tokio::sync::{Notify, oneshot};

/// Calls worked off in one batch at most.
const BATCH_MAX: usize = 512;
/// How often whoever waits for a job in a shared store looks: another gate may have finished it.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Pause before a store that failed is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);
/// Finished jobs that the rate is measured over, and how old they may be.
const RATE_OVER: (usize, Duration) = (256, Duration::from_secs(30));

/// Makes or reaches the store; called again after it failed.
pub type Open = Box<dyn FnMut() -> Result<Box<dyn Store>, StoreError> + Send>;

/// Keeps jobs. Cheap to clone; all clones are one desk. The store is closed with the last of them.
#[derive(Clone)]
pub struct Overflow {
    inner: Arc<Inner>,
}

struct Inner {
    calls: mpsc::Sender<Call>,
    is_shared: bool,
    /// Most jobs that wait.
    jobs_max: u64,
    /// Whoever waits for a job to be final.
    watched: Mutex<HashMap<JobId, Arc<Notify>>>,
    /// There may be something to take.
    arrived: Notify,
    /// Jobs not final, as last heard.
    open: AtomicU64,
    finished: Mutex<VecDeque<Instant>>,
}

struct Call {
    ops: Vec<Op>,
    reply: oneshot::Sender<Result<Vec<Said>, StoreError>>,
}

/// The time of day in milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Overflow {
    /// A desk over the store that `open` makes; at most `jobs_max` jobs wait in it.
    ///
    /// # Errors
    /// The store cannot be opened, or no thread be started.
    pub fn open(mut open: Open, jobs_max: u64) -> Result<Overflow, StoreError> {
        let store = open()?;
        let is_shared = store.is_shared();
        let (calls, called) = mpsc::channel();
        std::thread::Builder::new()
            .name("sluicegate-jobs".to_owned())
            .spawn(move || keep(store, &mut open, &called))
            .map_err(|error| StoreError(format!("no thread for the jobs: {error}")))?;
        let inner = Inner {
            calls,
            is_shared,
            jobs_max,
            watched: Mutex::default(),
            arrived: Notify::new(),
            open: AtomicU64::new(0),
            finished: Mutex::default(),
        };
        Ok(Overflow { inner: Arc::new(inner) })
    }

    /// Whether other processes change the store too.
    pub(crate) fn is_shared(&self) -> bool {
        self.inner.is_shared
    }

    pub(crate) async fn ask(&self, ops: Vec<Op>) -> Result<Vec<Said>, StoreError> {
        let (reply, answer) = oneshot::channel();
        let gone = || StoreError("the thread of the jobs has ended".to_owned());
        self.inner.calls.send(Call { ops, reply }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    pub(crate) async fn one(&self, op: Op) -> Result<Said, StoreError> {
        let mut said = self.ask(vec![op]).await?;
        said.pop().ok_or_else(|| StoreError("the store did not answer".to_owned()))
    }

    /// Waits until there may be a job to take.
    pub(crate) async fn arrival(&self) {
        self.inner.arrived.notified().await;
    }

    /// A job is final, or gone.
    pub(crate) fn over(&self, id: JobId) {
        let watched = self.watched().remove(&id);
        if let Some(watched) = watched {
            watched.notify_waiters();
        }
        let mut finished = self.inner.finished.lock().unwrap_or_else(PoisonError::into_inner);
        finished.push_back(Instant::now());
        if finished.len() > RATE_OVER.0 {
            finished.pop_front();
        }
    }

    pub(crate) fn note_open(&self, open: u64) {
        self.inner.open.store(open, Ordering::Relaxed);
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<JobId, Arc<Notify>>> {
        self.inner.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn seen(&self, id: JobId) -> Result<Option<Seen>, StoreError> {
        match self.one(Op::Look(id)).await? {
            Said::Job(seen) => Ok(seen.map(|seen| *seen)),
            other => Err(unexpected(&other)),
        }
    }

    async fn seen_final(&self, id: JobId, wait: Duration) -> Result<Option<Seen>, StoreError> {
        let until = tokio::time::Instant::now() + wait;
        loop {
            let told = self.watched().entry(id).or_default().clone();
            let mut told = std::pin::pin!(told.notified());
            // Before the look: what is told after it is not missed.
            told.as_mut().enable();
            let seen = self.seen(id).await?;
            let now = tokio::time::Instant::now();
            if seen.as_ref().is_none_or(|seen| seen.state.is_final()) || now >= until {
                let mut watched = self.watched();
                // Only ours is left: nobody else waits for it.
                if watched.get(&id).is_some_and(|one| Arc::strong_count(one) <= 2) {
                    watched.remove(&id);
                }
                return Ok(seen);
            }
            let look = if self.inner.is_shared { until.min(now + LOOK_EVERY) } else { until };
            let _ = tokio::time::timeout_at(look, told).await;
        }
    }

    async fn store(&self, job: NewJob) -> Result<Put, StoreError> {
        let (id, print) = (new_id()?, print_of(&job));
        let put = Op::Put { id, job: Box::new(job), print, most: self.inner.jobs_max };
        match self.one(put).await? {
            Said::Put(put) => {
                if let Put::Stored(_) = *put {
                    self.inner.open.fetch_add(1, Ordering::Relaxed);
                    self.inner.arrived.notify_one();
                }
                Ok(*put)
            }
            other => Err(unexpected(&other)),
        }
    }
}

impl Desk for Overflow {
    fn put(&self, job: NewJob) -> Later<'_, Result<Put, StoreError>> {
        Box::pin(self.store(job))
    }

    fn find(&self, key: String) -> Later<'_, Result<Option<Seen>, StoreError>> {
        Box::pin(async move {
            match self.one(Op::Find(key)).await? {
                Said::Job(seen) => Ok(seen.map(|seen| *seen)),
                other => Err(unexpected(&other)),
            }
        })
    }

    fn look(&self, id: JobId, wait: Duration) -> Later<'_, Result<Option<Seen>, StoreError>> {
        if wait.is_zero() {
            return Box::pin(self.seen(id));
        }
        Box::pin(self.seen_final(id, wait))
    }

    fn cancel(&self, id: JobId) -> Later<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let Said::Known(known) = self.one(Op::Cancel(id)).await? else { return Ok(false) };
            self.over(id);
            Ok(known)
        })
    }

    fn look_after_s(&self) -> u32 {
        let finished = self.inner.finished.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = finished.iter().filter(|at| at.elapsed() < RATE_OVER.1);
        let (count, since) = (recent.clone().count() as u64, recent.map(Instant::elapsed).max());
        let open = self.inner.open.load(Ordering::Relaxed);
        let Some(since) = since.filter(|_| count > 1) else { return 1 };
        let seconds = since.as_secs_f64() * open as f64 / count as f64;
        // A job put last is done when those before it are; nobody should ask more than once a second or less than
        // once a minute.
        seconds.ceil().clamp(1.0, 60.0) as u32
    }
}

/// The store's thread: all that came up while the last batch was written is the next one.
fn keep(store: Box<dyn Store>, open: &mut Open, called: &mpsc::Receiver<Call>) {
    let mut store = Some(store);
    while let Ok(first) = called.recv() {
        let mut calls = vec![first];
        while calls.len() < BATCH_MAX
            && let Ok(call) = called.try_recv()
        {
            calls.push(call);
        }
        if store.is_none() {
            match open() {
                Ok(opened) => store = Some(opened),
                Err(error) => {
                    fail(calls, &error);
                    std::thread::sleep(REOPEN_PAUSE);
                    continue;
                }
            }
        }
        let lengths: Vec<usize> = calls.iter().map(|call| call.ops.len()).collect();
        let all: Vec<Op> = calls.iter_mut().flat_map(|call| std::mem::take(&mut call.ops)).collect();
        let said = store.as_mut().expect("opened above").apply(now_ms(), &all);
        match said {
            Ok(said) => hand_out(calls, said, &lengths),
            Err(error) => {
                tracing::error!(%error, "the store of the jobs failed; it is opened again");
                store = None;
                fail(calls, &error);
            }
        }
    }
}

fn hand_out(calls: Vec<Call>, said: Vec<Said>, lengths: &[usize]) {
    let mut said = said.into_iter();
    for (call, length) in calls.into_iter().zip(lengths) {
        // Whoever asked may be gone.
        let _ = call.reply.send(Ok(said.by_ref().take(*length).collect()));
    }
}

fn fail(calls: Vec<Call>, error: &StoreError) {
    for call in calls {
        let _ = call.reply.send(Err(error.clone()));
    }
}

fn unexpected(said: &Said) -> StoreError {
    StoreError(format!("the store answered something else: {said:?}"))
}

/// Not to be guessed: from the system's own source of randomness.
fn new_id() -> Result<JobId, StoreError> {
    let mut bytes = [0u8; 16];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match filled {
        Ok(16) => Ok(JobId(u128::from_be_bytes(bytes))),
        _ => Err(StoreError("the system gives no random numbers".to_owned())),
    }
}

/// Tells works apart that come with one key. Not a seal: whoever has the key may do as it likes.
fn print_of(job: &NewJob) -> u64 {
    let mut hasher = DefaultHasher::new();
    (job.work.api.as_str(), job.work.method.as_str(), job.work.path.as_str()).hash(&mut hasher);
    job.work.body.hash(&mut hasher);
    hasher.finish()
}
