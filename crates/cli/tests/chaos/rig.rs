//! What a case stands on: pods that judge, gateways as real processes, a real Redis in one of its three forms.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluicegate_testkit::client::{get, get_json, send};
use sluicegate_testkit::process::Process;
use sluicegate_testkit::proxy::TcpProxy;
use sluicegate_testkit::redis::{Redis, RedisCluster, RedisOptions, RedisSentinel, SentinelOptions};
use sluicegate_trial::pod::{Pod, PodHandle, PodOptions};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::load::Work;

/// Pods of the pool.
pub(crate) const PODS: usize = 10;
/// Units of each.
pub(crate) const CAPACITY: u32 = 20;
/// Gateways in front of them.
pub(crate) const GATES: usize = 4;
/// The gateway that things happen to.
pub(crate) const VICTIM: usize = 0;
/// Long enough for a busy machine to start processes and for gates to recover; nothing waits this long when all is well.
const SOON: Duration = Duration::from_secs(30);

/// What gates do when the ledger is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    Refuse,
    Share,
}

impl Loss {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Loss::Refuse => "refuse",
            Loss::Share => "share",
        }
    }
}

/// How the pods judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pods {
    /// They never refuse and keep the peak: a pod that refuses can never show an overshoot.
    Count,
    /// Their own lock refuses.
    Refuse,
}

/// The form that Redis has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// None: each gate counts for itself. The control that shows that the judge sees.
    Apart,
    Single,
    Sentinel,
    Cluster,
}

/// Everything that a case may choose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) loss: Loss,
    pub(crate) pods: Pods,
    pub(crate) form: Form,
    pub(crate) work: Work,
    /// `admission.max_hold`: the ledger waits so long for what a lost gate had running.
    pub(crate) max_hold: Duration,
}

impl Setting {
    /// The ledger's `ttl`. With replicas it is longer: `min-replicas-max-lag` counts in seconds and has to be at most
    /// two fifths of it, and a Cluster's time-out half.
    pub(crate) fn ttl(&self) -> Duration {
        ttl(self.form)
    }
}

/// As [`Setting::ttl`].
pub(crate) fn ttl(form: Form) -> Duration {
    match form {
        Form::Apart | Form::Single => Duration::from_secs(1),
        Form::Sentinel | Form::Cluster => Duration::from_secs(3),
    }
}

/// The Redis of a case.
pub(crate) enum Store {
    Apart,
    Single(Box<Redis>),
    Sentinel(RedisSentinel),
    Cluster(RedisCluster),
}

impl Store {
    fn start(form: Form) -> Store {
        match form {
            Form::Apart => Store::Apart,
            Form::Single => Store::Single(Box::new(Redis::with(RedisOptions::tcp()))),
            Form::Sentinel => Store::Sentinel(RedisSentinel::start(&SentinelOptions::default())),
            Form::Cluster => Store::Cluster(RedisCluster::start(Duration::from_millis(1000))),
        }
    }

    /// The configuration's `redis`, for gates that reach a single server at `single`.
    fn yaml(&self, single: Option<SocketAddr>) -> String {
        let url = |addr: &SocketAddr| format!("\"redis://{addr}\"");
        let several = |addrs: Vec<SocketAddr>, kind: &str| {
            let (first, more) = addrs.split_first().expect("several servers");
            let more: Vec<String> = more.iter().map(url).collect();
            format!("{{url: {}, more: [{}], {kind}}}", url(first), more.join(", "))
        };
        match self {
            Store::Apart => String::new(),
            Store::Single(redis) => url(&single.unwrap_or_else(|| redis.addr())),
            Store::Sentinel(redis) => several(redis.addrs(), &format!("sentinel: {}", RedisSentinel::MASTER)),
            Store::Cluster(redis) => several(redis.addrs(), "cluster: true"),
        }
    }
}

/// One gateway: `sluicegate run`.
pub(crate) struct Gate {
    pub(crate) process: Process,
    pub(crate) gateway: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// Pods, gateways and Redis.
pub(crate) struct World {
    // Processes first, so that they end before what they talk to.
    pub(crate) gates: Vec<Gate>,
    pub(crate) pods: Vec<PodHandle>,
    pub(crate) store: Store,
    /// Between the victim and a single Redis.
    pub(crate) proxy: Option<TcpProxy>,
    setting: Setting,
    /// Holds the configurations.
    dir: TempDir,
}

impl World {
    /// Starts everything and waits until every gate serves from the ledger.
    pub(crate) async fn start(setting: Setting) -> World {
        let mut pods = Vec::new();
        for number in 0..PODS {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let count_only = setting.pods == Pods::Count;
            let options = PodOptions { count_only, ..PodOptions::new(format!("p{number}"), CAPACITY) };
            pods.push(Pod::start(options, listener).unwrap());
        }
        let store = tokio::task::block_in_place(|| Store::start(setting.form));
        let proxy = match &store {
            Store::Single(redis) => Some(TcpProxy::start(redis.addr())),
            _ => None,
        };
        let dir = tempfile::tempdir().unwrap();
        let mut world = World { gates: Vec::new(), pods, store, proxy, setting, dir };
        for gate in 0..GATES {
            let gate = world.start_gate(gate);
            world.gates.push(gate);
        }
        world.until_all_serve().await;
        world
    }

    /// A gateway in the place of this number. Its port is its own, as everything that is started anew.
    pub(crate) fn start_gate(&self, number: usize) -> Gate {
        let config = self.dir.path().join(format!("gate-{number}.yaml"));
        std::fs::write(&config, self.yaml(number)).unwrap();
        let config = config.to_str().unwrap();
        tokio::task::block_in_place(|| {
            let mut process = Process::start(env!("CARGO_BIN_EXE_sluicegate"), &["run", "-c", config]);
            let gateway = process.line(SOON, |line| listens(line, "gateway listening"));
            let admin = process.line(SOON, |line| listens(line, "admin listening"));
            Gate { process, gateway, admin }
        })
    }

    fn yaml(&self, gate: usize) -> String {
        let mut yaml = String::from("pool: chaos\npods:\n");
        for pod in &self.pods {
            yaml += &format!("  - {{name: {}, url: \"{}\", capacity: {CAPACITY}}}\n", pod.name(), pod.url());
        }
        yaml += "apis:\n";
        for (name, weight) in [("one", 1), ("two", 2), ("three", 3)] {
            yaml += &format!("  - {{name: {name}, match: \"GET /w/{weight}\", weight: {weight}}}\n");
        }
        let hold_ms = self.setting.max_hold.as_millis();
        yaml += &format!("admission: {{wait: 50ms, max_hold: {hold_ms}ms}}\n");
        let single = self.proxy.as_ref().filter(|_| gate == VICTIM).map(TcpProxy::addr);
        if self.setting.form != Form::Apart {
            let (redis, ttl) = (self.store.yaml(single), self.setting.ttl().as_millis());
            let loss = self.setting.loss.name();
            yaml += &format!("ledger: {{redis: {redis}, ttl: {ttl}ms, on_ledger_loss: {loss}}}\n");
        }
        yaml + "gateway: {listen: \"127.0.0.1:0\"}\nadmin: {listen: \"127.0.0.1:0\"}\n"
    }

    /// Number and address of all gateways, or of all but the victim.
    pub(crate) fn gateways(&self, victim_too: bool) -> Vec<(usize, SocketAddr)> {
        let all = self.gates.iter().map(|gate| gate.gateway).enumerate();
        all.filter(|(number, _)| victim_too || *number != VICTIM).collect()
    }

    /// Waits until every gate is in touch with a ledger that is not recovering.
    pub(crate) async fn until_all_serve(&self) {
        for gate in &self.gates {
            until_serves(gate, self.setting.form == Form::Apart).await;
        }
    }

    /// Gives the pool a patch, so that the ledger has a document.
    pub(crate) async fn patch(&self) {
        let answer = send(self.gates[1].admin, "PATCH", "/v1/config", r#"{"admission": {"queue": 9999}}"#);
        let answer = answer.await.unwrap();
        assert_eq!(answer.head.status, 200, "{}", answer.text());
    }

    /// The largest overshoot of any pod, in units.
    pub(crate) fn over_capacity(&self) -> u32 {
        let over = |pod: &PodHandle| pod.gauge().read().peak.saturating_sub(CAPACITY);
        self.pods.iter().map(over).max().unwrap_or(0)
    }

    /// Requests that pods have refused.
    pub(crate) fn pod_refused(&self) -> u64 {
        self.pods.iter().map(|pod| pod.gauge().read().refused).sum()
    }

    /// Units of the quiet pool that its gates cannot hand out: each unit of the pool is asked for at the same time, by
    /// requests of one unit, again and again until all are served or the time is over.
    pub(crate) async fn leaked(&self, patience: Duration) -> usize {
        let units = PODS * CAPACITY as usize;
        let start = Instant::now();
        let mut best = 0;
        while best < units && start.elapsed() < patience {
            let mut asks = JoinSet::new();
            for unit in 0..units {
                let gateway = self.gates[unit % self.gates.len()].gateway;
                asks.spawn(async move {
                    get(gateway, "/w/1?ms=1000").await.is_ok_and(|answer| answer.head.status == 200)
                });
            }
            best = best.max(asks.join_all().await.into_iter().filter(|served| *served).count());
        }
        units - best
    }

    /// What the gates printed, for a case that went wrong.
    pub(crate) fn printed(&self) -> String {
        let of = |(number, gate): (usize, &Gate)| format!("gate {number}:\n{}\n", gate.process.output());
        self.gates.iter().enumerate().map(of).collect()
    }
}

async fn until_serves(gate: &Gate, apart: bool) {
    let start = Instant::now();
    loop {
        let state = get_json(gate.admin, "/v1/state").await;
        let ledger = state.as_ref().map(|state| state["ledger"].clone()).unwrap_or_default();
        if apart || (ledger["up"] == Value::Bool(true) && ledger["recovering"] == Value::Bool(false)) {
            return;
        }
        assert!(start.elapsed() < SOON, "not in touch with its ledger: {ledger}\n{}", gate.process.output());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn listens(line: &str, what: &str) -> Option<SocketAddr> {
    let (_, fields) = line.split_once(what)?;
    let (_, address) = fields.split_once("listen=")?;
    address.split_whitespace().next()?.parse().ok()
}
