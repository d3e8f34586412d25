//! One stream: one request, from its head to its end.
//!
//! Life: 1. the request's head comes and asks for a lease. 2. It waits, if it must; the end of the stream withdraws it.
//! 3. Admitted, with the pod named, or answered in the pod's place. 4. The response's head tells where it came from.
//! 5. The stream ends, and the lease with it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluicegate::{Acquire, Lease, Reason, Refusal};
use sluicegate_config::EarlyEnd;
use tokio::time::Sleep;

use crate::conduct::{Conduct, Life, Verdict, Wish};
use crate::counts::up;
use crate::grpc::{Inbound, Status};
use crate::live::{ApiRule, Rules};
use crate::message::{self, About, Answered, Bodies};
use crate::wire::Malformed;
use crate::world::World;

/// Long streams look so often whether their time is over, or the server's.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Envoy is asked for so much more than the longest wait.
const TIME_MORE: Duration = Duration::from_secs(1);
/// Whole seconds after which to come again when no pod is ready and the gate was not asked.
const NO_POD_RETRY_S: u32 = 1;
/// What nearly every admission asks of Envoy: its answer is written once for each pod.
pub(crate) const AS_USUAL: (Wish, Bodies) = (Wish::Headers, Bodies::NONE);

/// The answers of one stream.
pub(crate) struct Session {
    world: Arc<World>,
    conduct: Arc<Conduct>,
    inbound: Inbound,
    stage: Stage,
    /// To be sent, in order.
    out: VecDeque<Bytes>,
}

enum Stage {
    /// Nothing came yet.
    Fresh,
    Waiting(Box<Waiting>),
    /// Boxed, because a stream is moved until it is polled.
    Held(Box<Held>),
    /// Nothing is held, and the stream goes on.
    Free,
    /// What is still to be sent is sent, and that is all.
    Over,
}

struct Waiting {
    acquire: Acquire,
    api: ApiRule,
    grpc: bool,
    forged: Vec<String>,
    bodies: Bodies,
    since: Instant,
    /// Answers to what came meanwhile; they follow the answer to the head.
    kept: VecDeque<Bytes>,
}

struct Held {
    lease: Lease,
    api: ApiRule,
    wish: Wish,
    since: Instant,
    /// When our last word went out.
    spoke: Instant,
    /// The pod has answered, and when.
    answered: Option<Instant>,
    /// Envoy gave up on the pod, which may work on.
    pod_works_on: bool,
    over_hold: bool,
    look: Pin<Box<Sleep>>,
}

impl Session {
    pub(crate) fn new(world: Arc<World>, conduct: Arc<Conduct>, inbound: Inbound) -> Session {
        up(&world.counts.streams);
        Session { world, conduct, inbound, stage: Stage::Fresh, out: VecDeque::new() }
    }

    /// A message came.
    fn take(&mut self, cx: &mut Context<'_>, message: &Bytes) -> Result<(), Malformed> {
        let message = message::read(message)?;
        if message.observability {
            self.bad_mode(
                "observability_mode is on: Envoy does not wait for answers, so nothing can be admitted",
            );
            self.stage = Stage::Over;
            return Ok(());
        }
        let Some(about) = message.about else { return Ok(()) };
        match (&mut self.stage, about) {
            (Stage::Fresh, About::RequestHead(head)) => return self.begin(cx, head, message.bodies),
            (Stage::Held(held), About::ResponseHead(head)) => {
                let answered = message::answered(&message, head)?;
                held.headers_came(&self.world, &self.conduct, &answered);
                self.out.push_back(message::passed_on(held.lease.waited(), &answered));
                self.pod_refused(answered.status);
            }
            (Stage::Waiting(waiting), about) => waiting.kept.push_back(message::go_on(about)),
            (Stage::Fresh, about) => {
                self.bad_mode(
                    "the first message is not about request headers: set request_header_mode to SEND",
                );
                self.stage = Stage::Free;
                self.out.push_back(message::go_on(about));
            }
            (stage, about) => {
                if let Stage::Held(held) = stage {
                    held.spoke = Instant::now();
                }
                self.out.push_back(message::go_on(about));
            }
        }
        Ok(())
    }

    fn bad_mode(&self, what: &str) {
        up(&self.world.counts.bad_mode);
        if self.world.loud.bad_mode.is_time() {
            tracing::error!(
                "Envoy's ext_proc filter is set so that it cannot be answered: {what}. See docs/envoy.md"
            );
        }
    }

    /// The request's head: which api, which units.
    fn begin(&mut self, cx: &mut Context<'_>, head: &[u8], bodies: Bodies) -> Result<(), Malformed> {
        let world = Arc::clone(&self.world);
        let rules = world.live.rules();
        let head = message::head(head, rules.fair_header.as_deref())?;
        let api = rules.apis[rules.routes.find(head.method, head.path)];
        let now = Instant::now();
        if api.exempt {
            self.exempt(api, head.grpc, head.forged);
            return Ok(());
        }
        if world.early_end == EarlyEnd::Refuse && self.conduct.verdict(now) == Verdict::EndsAtOnce {
            up(&world.counts.unproven);
            self.instead(&early_end_answer(&rules.pool), head.grpc, "early_end");
            return Ok(());
        }
        let mut acquire = world.gate.acquire(api.ask(head.key));
        match Pin::new(&mut acquire).poll(cx) {
            Poll::Ready(Ok(lease)) => self.admit(&rules, lease, api, bodies, head.forged, now),
            Poll::Ready(Err(refusal)) => self.refuse(&refusal, head.grpc),
            Poll::Pending => {
                self.out.push_back(message::more_time(api.wait + TIME_MORE));
                let (grpc, forged, kept) = (head.grpc, head.forged, VecDeque::new());
                self.stage = Stage::Waiting(Box::new(Waiting {
                    acquire,
                    api,
                    grpc,
                    forged,
                    bodies,
                    since: now,
                    kept,
                }));
            }
        }
        Ok(())
    }

    /// Holds nothing: the least used pod, and Envoy may end the stream.
    fn exempt(&mut self, api: ApiRule, grpc: bool, forged: Vec<String>) {
        let Some(pod) = self.world.gate.exempt(api.id) else {
            let refusal = Refusal::NotNow {
                reason: Reason::NoReadyPod,
                api: api.id,
                weight: 0,
                retry_after_s: NO_POD_RETRY_S,
                elsewhere: None,
            };
            return self.refuse(&refusal, grpc);
        };
        let rules = self.world.live.rules();
        let pod = rules.pod(pod).map_or("", |pod| &pod.header);
        self.out.push_back(message::admitted(pod, forged, None));
        self.stage = Stage::Free;
    }

    fn refuse(&mut self, refusal: &Refusal, grpc: bool) {
        let answer = self.world.gate.refusal_answer(&self.world.live.rules().pool, refusal);
        self.instead(&answer, grpc, refusal.reason().as_str());
    }

    fn instead(&mut self, answer: &http::Response<bytes::Bytes>, grpc: bool, reason: &str) {
        self.out.push_back(message::instead(answer, grpc, reason));
        self.stage = Stage::Over;
    }

    /// Looks whether there is room. Ready when the stage is another.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Stage::Waiting(waiting) = &mut self.stage else { return Poll::Ready(()) };
        let outcome = ready!(Pin::new(&mut waiting.acquire).poll(cx));
        let Stage::Waiting(waiting) = std::mem::replace(&mut self.stage, Stage::Over) else {
            unreachable!("it waited a moment ago")
        };
        let Waiting { api, grpc, forged, bodies, kept, .. } = *waiting;
        match outcome {
            Ok(lease) => {
                let world = Arc::clone(&self.world);
                self.admit(&world.live.rules(), lease, api, bodies, forged, Instant::now());
                self.out.extend(kept);
            }
            Err(refusal) => self.refuse(&refusal, grpc),
        }
        Poll::Ready(())
    }

    fn admit(
        &mut self,
        rules: &Rules,
        lease: Lease,
        api: ApiRule,
        bodies: Bodies,
        forged: Vec<String>,
        now: Instant,
    ) {
        let wish = self.conduct.begin();
        let pod = rules.pod(lease.pod());
        let answer = match pod {
            Some(pod) if forged.is_empty() && (wish, bodies) == AS_USUAL => pod.admitted.clone(),
            pod => message::admitted(pod.map_or("", |pod| &pod.header), forged, Some((wish, bodies))),
        };
        self.out.push_back(answer);
        self.stage = Stage::Held(Box::new(Held {
            lease,
            api,
            wish,
            since: now,
            spoke: now,
            answered: None,
            pod_works_on: false,
            over_hold: false,
            look: Box::pin(tokio::time::sleep(LOOK_EVERY.min(api.max_hold))),
        }));
    }

    /// The pod's own lock had no room. The client has the answer; the pod is spared for a moment.
    fn pod_refused(&mut self, status: u16) {
        if status != 429 {
            return;
        }
        if let Stage::Held(held) = std::mem::replace(&mut self.stage, Stage::Free) {
            held.lease.turned_away();
        }
    }

    /// Looks whether a long stream's time is over.
    fn poll_time(&mut self, cx: &mut Context<'_>) {
        let Stage::Held(held) = &mut self.stage else { return };
        while held.look.as_mut().poll(cx).is_ready() {
            let next = tokio::time::Instant::now() + LOOK_EVERY;
            held.look.as_mut().reset(next);
            let is_over = held.is_over(&self.world);
            if !is_over && !self.world.is_ending() {
                continue;
            }
            // A clean end after our first word harms nobody: the request goes on without us.
            let Stage::Held(held) = std::mem::replace(&mut self.stage, Stage::Over) else { return };
            if is_over {
                held.lease.write_off();
            } else {
                self.world.orphan(held.lease);
            }
            return;
        }
    }
}

impl Held {
    /// The response's head came, from the pod or in its place.
    fn headers_came(&mut self, world: &Arc<World>, conduct: &Conduct, answered: &Answered<'_>) {
        let now = Instant::now();
        conduct.headers_came(self.wish);
        (self.spoke, self.answered) = (now, Some(now));
        world.came_from(&mut self.lease, answered.upstream);
        if let Some(units) = answered.in_use {
            world.gate.report_in_use(self.lease.pod(), units);
        }
        if answered.failed() {
            world.gate.count_failed(self.api.id);
        }
        if answered.unreached() {
            world.missed(self.lease.pod());
        }
        self.pod_works_on = answered.timed_out();
    }

    /// `max_hold` twice without an answer, or `max_stream` after it: the units are written off.
    fn is_over(&mut self, world: &World) -> bool {
        let now = Instant::now();
        let age = now.duration_since(self.since);
        if let Some(answered) = self.answered {
            return self.api.max_stream.is_some_and(|most| now.duration_since(answered) >= most);
        }
        if age >= self.api.max_hold && !std::mem::replace(&mut self.over_hold, true) {
            up(&world.counts.over_hold);
            world.gate.count_failed(self.api.id);
        }
        age >= self.api.max_hold * 2
    }

    /// The stream has ended, and the lease ends; now, or when the pod may have ended.
    fn end(self, world: &Arc<World>, conduct: &Conduct) {
        let now = Instant::now();
        let age = now.duration_since(self.since);
        let life =
            Life { wish: self.wish, headers: self.answered.is_some(), after: now.duration_since(self.spoke) };
        if conduct.ended(life, now) {
            world.ends_at_once();
        }
        if conduct.verdict(now) == Verdict::EndsAtOnce {
            up(&world.counts.early_ends);
            world.ends_at_once();
        }
        let left = self.answered.is_none() && self.wish == Wish::Headers && conduct.sends_headers();
        if !left && !self.pod_works_on {
            world.ages.note(self.api.id, age, now);
            return;
        }
        let continues = world.live.rules().pod(self.lease.pod()).is_some_and(|pod| pod.continues);
        let rest = world.may_work_on(self.api, age, now);
        if !continues || rest.is_zero() {
            return;
        }
        // Without a runtime the process ends anyway.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            up(&world.counts.lingering);
            let lease = self.lease;
            runtime.spawn(async move {
                tokio::time::sleep(rest).await;
                drop(lease);
            });
        }
    }
}

impl Session {
    /// The next answer, or how the stream ends.
    pub(crate) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        loop {
            let waits = self.poll_room(cx).is_pending();
            self.poll_time(cx);
            if let Some(answer) = self.out.pop_front() {
                return Poll::Ready(Ok(answer));
            }
            if matches!(self.stage, Stage::Over) {
                return Poll::Ready(Err(Status::OK));
            }
            let status = match ready!(self.inbound.poll_message(cx)) {
                Some(Ok(message)) => match self.take(cx, &message) {
                    Ok(()) => continue,
                    Err(Malformed) => Status::MALFORMED,
                },
                Some(Err(status)) => status,
                None => Status::OK,
            };
            // Half-closed, reset, or the connection is lost: the request is over, and so is a wait for room.
            self.finish(waits);
            return Poll::Ready(Err(status));
        }
    }

    /// The stream has ended.
    fn finish(&mut self, waits: bool) {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Waiting(waiting) if waits => self.world.left_waiting(waiting.since.elapsed()),
            Stage::Held(held) => held.end(&self.world, &self.conduct),
            Stage::Waiting(_) | Stage::Fresh | Stage::Free | Stage::Over => {}
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.finish(true);
    }
}

/// 503 for a request whose lease would hold nothing.
fn early_end_answer(pool: &str) -> http::Response<bytes::Bytes> {
    let document = serde_json::json!({
        "type": "urn:sluicegate:problem:early_end",
        "title": "Envoy is not set up for admission",
        "status": 503,
        "detail": "Envoy ends its ext_proc streams at once, so that no unit would be held: set `allow_mode_override: true` and `response_trailer_mode: SEND` in its filter.",
        "reason": "early_end",
        "pool": pool,
    });
    let mut answer = http::Response::new(bytes::Bytes::from(document.to_string()));
    *answer.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    let headers = answer.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/problem+json"));
    headers.insert("x-sluicegate-reason", http::HeaderValue::from_static("early_end"));
    answer
}
