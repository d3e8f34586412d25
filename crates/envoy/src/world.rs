//! What all streams of one server share.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sluicegate::{Gate, Lease, PodId};
use sluicegate_config::EarlyEnd;

use crate::counts::{Counts, up};
use crate::linger::Ages;
use crate::live::Live;
use crate::loud::Loud;
use crate::strays::{Advice, Strays};

/// Ages of waiters whose stream ended that are looked at together.
const AGES: usize = 8;
/// They end by a time-out if all of them lie within this, and within a tenth.
const ALIKE: Duration = Duration::from_millis(20);

/// How the server listens.
#[derive(Clone)]
pub struct Settings {
    /// Where; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What Envoys must show as `authorization: Bearer`; needed on any address but loopback.
    pub token: Option<String>,
    /// What to do with an Envoy that seems to end its streams at once.
    pub early_end: EarlyEnd,
    /// Threads; `None`: one per core.
    pub workers: Option<usize>,
}

/// A counter, for those who show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Without `_total`.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Since the start.
    pub value: u64,
}

pub(crate) struct World {
    pub(crate) gate: Gate,
    pub(crate) live: Arc<Live>,
    pub(crate) early_end: EarlyEnd,
    pub(crate) counts: Counts,
    pub(crate) ages: Ages,
    /// The server's time is over: streams end cleanly at their next look.
    pub(crate) ending: AtomicBool,
    /// Leases whose stream was ended by us while their request went on.
    pub(crate) orphans: Mutex<Vec<Lease>>,
    strays: Strays,
    impatience: Mutex<Vec<Duration>>,
    pub(crate) loud: Words,
}

/// What is said at most once a minute each.
pub(crate) struct Words {
    pub(crate) early_end: Loud,
    pub(crate) bad_mode: Loud,
    unknown_pod: Loud,
    disobeyed: Loud,
    impatient: Loud,
}

impl World {
    pub(crate) fn new(gate: Gate, live: Arc<Live>, early_end: EarlyEnd) -> World {
        World {
            gate,
            live,
            early_end,
            counts: Counts::default(),
            ages: Ages::default(),
            ending: AtomicBool::new(false),
            orphans: Mutex::new(Vec::new()),
            strays: Strays::default(),
            impatience: Mutex::new(Vec::new()),
            loud: Words {
                early_end: Loud::new(),
                bad_mode: Loud::new(),
                unknown_pod: Loud::new(),
                disobeyed: Loud::new(),
                impatient: Loud::new(),
            },
        }
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    pub(crate) fn orphan(&self, lease: Lease) {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner).push(lease);
    }

    /// An answer came from `upstream`. The lease follows it there.
    pub(crate) fn came_from(self: &Arc<World>, lease: &mut Lease, upstream: &str) {
        if upstream.is_empty() {
            return;
        }
        let (chosen, rules) = (lease.pod(), self.live.rules());
        if rules.pod(chosen).is_some_and(|pod| pod.header == upstream) {
            return self.strays.hit(chosen);
        }
        // Written in another way, perhaps.
        match rules.pod_at(upstream) {
            Some(pod) if pod == chosen => self.strays.hit(pod),
            Some(pod) => {
                lease.move_to(pod);
                up(&self.counts.moved);
                self.missed(chosen);
            }
            None => {
                up(&self.counts.unknown_pod);
                if self.loud.unknown_pod.is_time() {
                    tracing::warn!(
                        upstream,
                        "Envoy sends requests to an address that no pod of the pool has; they are counted on the chosen pod"
                    );
                }
                self.missed(chosen);
            }
        }
    }

    /// The chosen pod did not get its request.
    pub(crate) fn missed(self: &Arc<World>, pod: PodId) {
        let of = self.live.rules().pod_count();
        match self.strays.miss(pod, of) {
            Advice::Wait => {}
            Advice::Shun(time) => {
                up(&self.counts.shunned);
                tracing::warn!(
                    pod = self.gate.pod_name(pod),
                    for_ms = time.as_millis() as u64,
                    "Envoy does not use this pod (unknown to it, or down): it is passed over"
                );
                self.gate.set_ready(pod, false);
                let world = Arc::clone(self);
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    world.strays.try_again(pod);
                    world.gate.set_ready(pod, true);
                });
            }
            Advice::Disobeyed if self.loud.disobeyed.is_time() => {
                tracing::error!(
                    "Envoy sends most requests to other pods than the chosen ones: is `override_host` with header x-sg-pod in force, and are the pods its endpoints? See docs/envoy.md"
                );
            }
            Advice::Disobeyed => {}
        }
    }

    /// A waiter's stream ended after it had waited so long. Clients leave at different times; a time-out of Envoy's does not.
    pub(crate) fn left_waiting(&self, age: Duration) {
        up(&self.counts.left_waiting);
        let mut ages = self.impatience.lock().unwrap_or_else(PoisonError::into_inner);
        ages.push(age);
        if ages.len() < AGES {
            return;
        }
        let (least, most) = (ages.iter().min().copied(), ages.iter().max().copied());
        ages.clear();
        if let (Some(least), Some(most)) = (least, most)
            && most - least <= ALIKE.min(most / 10)
            && self.loud.impatient.is_time()
        {
            tracing::error!(
                after_ms = most.as_millis() as u64,
                "requests that wait for room are given up at the same age, one after the other: Envoy's `message_timeout` is shorter than the wait. Set it, or `max_message_timeout`, above the longest `wait`. See docs/envoy.md"
            );
        }
    }

    /// Streams of an Envoy end at once.
    pub(crate) fn ends_at_once(&self) {
        if self.loud.early_end.is_time() {
            tracing::error!(
                "Envoy ends its streams as soon as a request is admitted, so that leases hold nothing (or every pod answers within milliseconds, which looks the same): set `allow_mode_override: true` and `response_trailer_mode: SEND` in its ext_proc filter. See docs/envoy.md"
            );
        }
    }

    /// How long a pod may still work on a request of this age whose client left.
    pub(crate) fn may_work_on(&self, api: crate::live::ApiRule, age: Duration, now: Instant) -> Duration {
        let longest = self.ages.longest(api.id, now).unwrap_or(api.max_hold).min(api.max_hold);
        longest.saturating_sub(age)
    }
}
