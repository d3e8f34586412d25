//! Work that no client's connection waits for, sent to pods over the same leases and connections.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use sluicegate::jobs::{Admitted, Background, Broke, Forward, Later, NotAdmitted, Outcome, Work};
use sluicegate::{Ask, Gate, Lease};

use crate::answer::PodBody;
use crate::headers;
use crate::hold::{Hold, Working, discard_refusal};
use crate::live::{ApiRule, Live};
use crate::problem;
use crate::proxy::{surely_not_started, to_pod};
use crate::server::Worker;
use crate::upload::Upload;

/// Key of all background work under `order: fair`: together it has one caller's share.
const FAIR_KEY: u64 = u64::from_be_bytes(*b"overflow");
/// How old the view of the pool may be that [`Forward::room`] answers from.
const VIEW_MAX: Duration = Duration::from_millis(20);

/// Sends work to pods. Lives in the runtime in which it was made.
pub struct Forwarder {
    worker: Arc<Worker>,
    view: Mutex<View>,
}

#[derive(Default)]
struct View {
    at: Option<Instant>,
    room: (u64, u64),
    weights: BTreeMap<String, u32>,
}

impl Forwarder {
    /// For the pods of `live`; work that surely did not start is tried at up to `attempts` other pods. Must be called
    /// in the runtime that will send.
    #[must_use]
    pub fn new(gate: Gate, live: Arc<Live>, attempts: u32) -> Forwarder {
        let worker = Arc::new(Worker::new(gate, live, tokio::runtime::Handle::current(), attempts));
        let weak = Arc::downgrade(&worker);
        tokio::spawn(async move {
            let mut every_second = tokio::time::interval(Duration::from_secs(1));
            loop {
                every_second.tick().await;
                let Some(worker) = weak.upgrade() else { return };
                worker.pools.tick();
            }
        });
        Forwarder { worker, view: Mutex::default() }
    }

    fn viewed<T>(&self, read: impl FnOnce(&View) -> T) -> T {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        if view.at.is_none_or(|at| at.elapsed() > VIEW_MAX) {
            let now = self.worker.gate.snapshot();
            let capacity = u64::from(now.capacity);
            let taken = now.in_use + now.waiting_units;
            view.room = (capacity.saturating_sub(taken), capacity);
            view.weights = now.apis.into_iter().map(|api| (api.name, api.weight)).collect();
            view.at = Some(Instant::now());
        }
        read(&view)
    }

    async fn take(&self, api: &str, how: Background) -> Result<Box<dyn Admitted>, NotAdmitted> {
        let worker = &self.worker;
        let rule = worker.live.rules().api_named(api).ok_or(NotAdmitted::NoSuchApi)?;
        let ask = Ask::new(rule.id).background(how.behind).wait(how.wait).key(FAIR_KEY);
        let lease = worker.gate.acquire(ask).await.map_err(NotAdmitted::Refused)?;
        Ok(Box::new(Leave { worker: Arc::clone(worker), rule, lease, result_max: how.result_max }))
    }
}

impl Forward for Forwarder {
    fn admit<'a>(
        &'a self,
        api: &'a str,
        how: Background,
    ) -> Later<'a, Result<Box<dyn Admitted>, NotAdmitted>> {
        Box::pin(self.take(api, how))
    }

    fn room(&self) -> (u64, u64) {
        self.viewed(|view| view.room)
    }

    fn weight(&self, api: &str) -> Option<u32> {
        self.viewed(|view| view.weights.get(api).copied())
    }
}

/// Units, and what is needed to use them.
struct Leave {
    worker: Arc<Worker>,
    rule: ApiRule,
    lease: Lease,
    result_max: usize,
}

impl Admitted for Leave {
    fn weight(&self) -> u32 {
        self.lease.weight()
    }

    fn send(self: Box<Self>, work: Work) -> Later<'static, Result<Outcome, Broke>> {
        let Leave { worker, rule, lease, result_max } = *self;
        let upload = Upload::whole(work.body.clone());
        let tries_left = worker.retry_attempts;
        let errand = Errand { worker, rule, work, upload, tries_left, result_max };
        Box::pin(errand.run(lease))
    }
}

/// One work on its way, sent as often as needed.
struct Errand {
    worker: Arc<Worker>,
    rule: ApiRule,
    work: Work,
    upload: Option<Upload>,
    tries_left: u32,
    result_max: usize,
}

/// How one try at one pod ended.
enum Turn {
    Answered(Outcome),
    /// It surely did not start: again, when units are there again.
    Again(sluicegate::Acquire, String),
    /// An idle connection was closed under it: at once, over a new one.
    Fresh(Lease),
    Broke(Broke),
}

impl Errand {
    async fn run(mut self, mut lease: Lease) -> Result<Outcome, Broke> {
        let mut fresh = false;
        loop {
            match self.turn(lease, fresh).await {
                Turn::Answered(outcome) => return Ok(outcome),
                Turn::Broke(broke) => return Err(broke),
                Turn::Fresh(kept) => {
                    lease = kept;
                    fresh = true;
                }
                Turn::Again(acquire, why) => {
                    fresh = false;
                    lease = acquire.await.map_err(|refusal| {
                        Broke::NotStarted(format!("{why}; then {}", refusal.reason().as_str()))
                    })?;
                }
            }
        }
    }

    async fn turn(&mut self, lease: Lease, fresh: bool) -> Turn {
        let worker = Arc::clone(&self.worker);
        let Some(target) = worker.live.pod(lease.pod()) else {
            return self.elsewhere(lease, "the pod has left the configuration".to_owned());
        };
        let line = match worker.pools.take(&target, fresh).await {
            Ok(line) => line,
            Err(error) => {
                worker.probes.pod_is_down(&target, &error);
                return self.elsewhere(lease, format!("pod `{}` cannot be reached: {error}", target.name()));
            }
        };
        let reused = line.reused;
        let Work { method, path, headers, .. } = &self.work;
        let request = to_pod(&target, method, path, headers, self.upload.as_ref());
        let mut hold = Hold::new(&worker, self.rule, Some(lease), line, self.upload.clone());
        let exchange = hold.line().send(request);
        let deadline = hold.head_deadline();
        let mut working = Working::new(exchange, hold);
        let mut late = pin!(tokio::time::sleep_until(deadline));
        let head = std::future::poll_fn(|cx| match working.poll_head(cx) {
            Poll::Ready(head) => Poll::Ready(Some(head)),
            Poll::Pending => late.as_mut().poll(cx).map(|()| None),
        })
        .await;
        let name = target.name();
        match head {
            None => {
                // The pod goes on, and the units stay with it.
                worker.gate.count_failed(self.rule.id);
                let most = self.rule.max_hold.as_millis();
                Turn::Broke(Broke::Failed(format!("pod `{name}` sent no answer within {most} ms (max_hold)")))
            }
            Some((Ok(response), hold)) => self.answered(response, hold).await,
            Some((Err(mut error), mut hold)) => {
                let unsent = error.take_message().is_some();
                let error = error.into_error();
                let not_started = unsent || surely_not_started(&error);
                let lease = if not_started { hold.take_lease() } else { None };
                match lease {
                    Some(lease) => {
                        hold.cut();
                        if unsent && reused {
                            return Turn::Fresh(lease);
                        }
                        self.elsewhere(
                            lease,
                            format!("pod `{name}` took no request: {}", problem::chain(&error)),
                        )
                    }
                    None => {
                        hold.failed();
                        let why = problem::chain(&error);
                        Turn::Broke(Broke::Failed(format!("pod `{name}` failed before its answer: {why}")))
                    }
                }
            }
        }
    }

    async fn answered(&mut self, response: Response<Incoming>, mut hold: Hold) -> Turn {
        headers::report_in_use(&hold.worker().gate, hold.target().id, response.headers());
        if response.status() == StatusCode::TOO_MANY_REQUESTS
            && let Some(lease) = hold.take_lease()
        {
            // Its own lock had no room: the request did not start there.
            let why = format!("pod `{}` had no room", hold.target().name());
            discard_refusal(response.into_body(), hold);
            return Turn::Again(lease.refused_by_pod(), why);
        }
        let name = hold.target().name().to_owned();
        let waited = hold.waited();
        let (mut parts, body) = response.into_parts();
        headers::to_client(&mut parts.headers, waited, false);
        let body = PodBody::new(body, hold, self.rule.max_stream);
        match collect(body, self.result_max).await {
            Ok((body, truncated)) => {
                Turn::Answered(Outcome { status: parts.status, headers: parts.headers, body, truncated })
            }
            Err(error) => Turn::Broke(Broke::Failed(format!(
                "pod `{name}` broke its answer off: {}",
                problem::chain(&error)
            ))),
        }
    }

    fn elsewhere(&mut self, lease: Lease, why: String) -> Turn {
        if self.tries_left == 0 {
            drop(lease);
            self.worker.gate.count_failed(self.rule.id);
            return Turn::Broke(Broke::NotStarted(why));
        }
        self.tries_left -= 1;
        Turn::Again(lease.never_started(), why)
    }
}

/// Reads a body to its end and keeps its first `most` bytes. True if there were more.
async fn collect<B>(body: B, most: usize) -> Result<(Bytes, bool), B::Error>
where
    B: Body<Data = Bytes>,
{
    let mut body = pin!(body);
    let (mut kept, mut cut) = (BytesMut::new(), false);
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).as_mut().poll_frame(cx)).await {
        let Ok(data) = frame?.into_data() else { continue };
        let room = most - kept.len();
        cut |= data.len() > room;
        kept.extend_from_slice(&data[..data.len().min(room)]);
    }
    Ok((kept.freeze(), cut))
}
