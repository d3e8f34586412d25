//! The library's way: gates over one Redis, each as a process of its own would have it.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use sluicegate::policy::{ApiPolicy, Policy};
use sluicegate::{Acquire, ApiId, Ask, Gate, Lease, LedgerView, OnLoss, Rules, SharedSettings, Timing};
use sluicegate_redis::{Address, RedisLedger, Settings};
use sluicegate_sim::Arrival;
use sluicegate_testkit::redis::Redis;

use super::drive::{Answer, Bell, Caller, Way};
use crate::Outcome;

/// A ledger without a past lends nothing until ttl + margin is over, 6 s; the rest is for a slow machine.
const READY_MAX: Duration = Duration::from_secs(30);
/// Everything is given back when a run ends; the ledger hears of it within a heartbeat.
const QUIET_MAX: Duration = Duration::from_secs(5);

/// Pods, weights and times of a case.
#[derive(Clone, Copy, Debug)]
pub(super) struct World {
    pub(super) gates: usize,
    pub(super) pods: usize,
    pub(super) units: u32,
    pub(super) service_us: u64,
    pub(super) wait_us: u64,
    pub(super) ttl_us: u64,
}

impl World {
    /// Weights 1, 2 and 3.
    pub(super) fn policy(&self) -> Policy {
        let pods: Vec<String> = (0..self.pods).map(|pod| format!("p{pod}")).collect();
        let pods: Vec<(&str, u32)> = pods.iter().map(|name| (name.as_str(), self.units)).collect();
        let mut policy = Policy::simple(&pods, &[]);
        policy.apis = (1..=WEIGHT_MAX)
            .map(|weight| ApiPolicy {
                wait_us: self.wait_us,
                ..ApiPolicy::new(&format!("w{weight}"), weight)
            })
            .collect();
        policy
    }

    pub(super) fn timing(&self) -> Timing {
        Timing { ttl_us: self.ttl_us, ..Timing::of_wait(self.wait_us) }
    }

    pub(super) fn capacities(&self) -> Vec<u32> {
        vec![self.units; self.pods]
    }
}

/// The heaviest request's units.
pub(super) const WEIGHT_MAX: u32 = 3;

/// Gates of one pool, alive.
pub(super) struct Gates {
    gates: Vec<Gate>,
}

/// What the gates together have said and heard since they began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Talk {
    pub(super) exchanges: u64,
    pub(super) pushes: u64,
    pub(super) touched: u64,
    pub(super) rtt_us: u64,
}

impl Talk {
    pub(super) fn since(&self, before: &Talk) -> Talk {
        Talk {
            exchanges: self.exchanges - before.exchanges,
            pushes: self.pushes - before.pushes,
            touched: self.touched - before.touched,
            rtt_us: self.rtt_us - before.rtt_us,
        }
    }

    /// Mean round trip of an exchange, microseconds.
    pub(super) fn rtt_mean_us(&self) -> f64 {
        self.rtt_us as f64 / self.exchanges.max(1) as f64
    }
}

impl Gates {
    /// Starts them and waits until each may lend.
    ///
    /// # Errors
    /// They do not come up.
    pub(super) fn start(redis: &Redis, pool: &str, world: &World) -> Outcome<Gates> {
        let gate = |number: usize| {
            let (timing, label) = (world.timing(), format!("g{number}"));
            let addr = redis.addr();
            let address = Address::Tcp(addr.ip().to_string(), addr.port());
            let ledger = RedisLedger::new(Settings::single(address), pool, &label, timing);
            let on_loss = OnLoss::Refuse;
            let settings = SharedSettings { timing, rules: Rules::default(), label, on_loss };
            Gate::shared(world.policy(), settings, Box::new(ledger)).map_err(|error| error.to_string())
        };
        let gates = Gates { gates: (0..world.gates).map(gate).collect::<Outcome<Vec<_>>>()? };
        let count = world.gates as u32;
        let ready = |view: &LedgerView| view.valid && !view.recovering && view.gates_known == count;
        gates.until("lends", READY_MAX, |gate| {
            Some(gate.ledger()).filter(|view| !(ready(view) && view.credit > 0))
        })?;
        Ok(gates)
    }

    pub(super) fn len(&self) -> usize {
        self.gates.len()
    }

    /// The way through one of them, for the calling thread.
    pub(super) fn way(&self, number: usize) -> Outcome<Through> {
        let gate = self.gates[number].clone();
        let api = |weight| gate.api_id(&format!("w{weight}")).ok_or("the policy has this api".to_owned());
        let apis = (1..=WEIGHT_MAX).map(api).collect::<Outcome<_>>()?;
        let (waiting, leases) = (HashMap::new(), HashMap::new());
        Ok(Through { gate, apis, bell: Bell::new(), waiting, leases, called: Vec::new() })
    }

    pub(super) fn talk(&self) -> Talk {
        self.gates.iter().map(Gate::ledger).fold(Talk::default(), |all, view| Talk {
            exchanges: all.exchanges + view.exchanges,
            pushes: all.pushes + view.pushes_made,
            touched: all.touched + view.touched,
            rtt_us: all.rtt_us + view.rtt_sum_us,
        })
    }

    /// Least time between two exchanges of one gate, as the ledger last said and the settings have it.
    pub(super) fn pace_us(&self, world: &World) -> u64 {
        let said = self.gates.iter().map(|gate| gate.ledger().pace_us).max().unwrap_or(0);
        said.max(world.timing().pace_us)
    }

    /// After a run: nothing is held, nobody waits, all books balance.
    ///
    /// # Errors
    /// Which is not so, and at which gate.
    pub(super) fn quiet(&self) -> Outcome<()> {
        let busy = |gate: &Gate| {
            let now = gate.snapshot();
            Some((now.in_use, now.waiting)).filter(|held| held.0 > 0 || held.1 > 0)
        };
        self.until("is quiet", QUIET_MAX, busy)?;
        self.gates.iter().try_for_each(Gate::audit)
    }

    /// Waits until `not_yet` says nothing of any gate.
    fn until<T: std::fmt::Debug>(
        &self,
        what: &str,
        longest: Duration,
        not_yet: impl Fn(&Gate) -> Option<T>,
    ) -> Outcome<()> {
        let begun = Instant::now();
        for (number, gate) in self.gates.iter().enumerate() {
            while let Some(why) = not_yet(gate) {
                if begun.elapsed() > longest {
                    return Err(format!("after {} s gate {number} never {what}: {why:?}", longest.as_secs()));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }
}

impl Drop for Gates {
    fn drop(&mut self) {
        // Else the next pool's first seconds would be measured beside their last words.
        for gate in &self.gates {
            gate.leave(Duration::from_millis(500));
        }
    }
}

/// One gate as its thread uses it.
pub(super) struct Through {
    gate: Gate,
    /// By the index of an arrival's api.
    apis: Vec<ApiId>,
    bell: Arc<Bell<usize>>,
    waiting: HashMap<usize, Acquire>,
    leases: HashMap<usize, Lease>,
    /// Kept for its allocation.
    called: Vec<usize>,
}

impl Through {
    fn poll(&mut self, id: usize, mut acquire: Acquire) -> Option<Answer> {
        let waker = Waker::from(Arc::new(Caller { bell: Arc::clone(&self.bell), id }));
        match Pin::new(&mut acquire).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(Ok(lease)) => {
                let pod = lease.pod().index();
                self.leases.insert(id, lease);
                Some(Answer::Runs(pod))
            }
            Poll::Ready(Err(_)) => Some(Answer::Refused),
            Poll::Pending => {
                self.waiting.insert(id, acquire);
                None
            }
        }
    }
}

impl Way for Through {
    fn ask(&mut self, id: usize, arrival: &Arrival) -> Outcome<Option<Answer>> {
        let acquire = self.gate.acquire(Ask::new(self.apis[arrival.api]));
        Ok(self.poll(id, acquire))
    }

    fn hear(&mut self, answers: &mut Vec<(usize, Answer)>) -> Outcome<()> {
        let mut called = std::mem::take(&mut self.called);
        self.bell.take(&mut called);
        for id in called.drain(..) {
            // Called twice, it may have been answered by the first call.
            let Some(acquire) = self.waiting.remove(&id) else { continue };
            answers.extend(self.poll(id, acquire).map(|answer| (id, answer)));
        }
        self.called = called;
        Ok(())
    }

    fn give(&mut self, id: usize, _: &Arrival, _: usize) -> Outcome<()> {
        drop(self.leases.remove(&id).ok_or_else(|| format!("request {id} has no lease to give back"))?);
        Ok(())
    }

    fn flush(&mut self) -> Outcome<()> {
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        self.waiting.is_empty()
    }
}
