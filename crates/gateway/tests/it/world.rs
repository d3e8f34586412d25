//! A pool of trial pods with a gateway in front.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sluicegate::{Gate, Snapshot};
use sluicegate_config::Config;
use sluicegate_gateway::{Gateway, Live};
use sluicegate_testkit::wait::{SOON, until};
use sluicegate_trial::pod::{OnDisconnect, Pod, PodHandle, PodOptions};
use tokio::net::TcpListener;

/// Everything of one test.
pub(crate) struct World {
    pub(crate) gate: Gate,
    pub(crate) live: Arc<Live>,
    pub(crate) pods: Vec<PodHandle>,
    pub(crate) gateway: Gateway,
}

/// How a world is made.
pub(crate) struct Plan {
    /// The pods, in order.
    pub(crate) pods: Vec<PodOptions>,
    /// The pods are spoken to in HTTP/2.
    pub(crate) h2c: bool,
    /// Keys of the configuration beside `pods`.
    pub(crate) keys: Value,
}

impl Plan {
    /// One pod of so many units.
    pub(crate) fn one_pod(capacity: u32) -> Plan {
        Plan { pods: vec![PodOptions::new("a", capacity)], h2c: false, keys: json!({}) }
    }

    pub(crate) fn with(mut self, key: &str, value: Value) -> Plan {
        self.keys[key] = value;
        self
    }

    pub(crate) fn on_disconnect(mut self, what: OnDisconnect) -> Plan {
        for pod in &mut self.pods {
            pod.on_disconnect = what;
        }
        self
    }

    pub(crate) async fn start(self) -> World {
        let mut pods = Vec::new();
        let mut listed = Vec::new();
        for options in self.pods {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (capacity, on_disconnect) = (options.capacity, options.on_disconnect);
            let pod = Pod::start(options, listener).unwrap();
            let scheme = if self.h2c { "h2c" } else { "http" };
            listed.push(json!({
                "name": pod.name(),
                "url": format!("{scheme}://{}", pod.addr()),
                "capacity": capacity,
                "on_disconnect": if on_disconnect == OnDisconnect::Stops { "stops" } else { "continues" },
            }));
            pods.push(pod);
        }
        World::of(pods, listed, self.keys)
    }
}

impl World {
    /// A gateway in front of the pods of `listed`, which need not be of `pods`.
    pub(crate) fn of(pods: Vec<PodHandle>, listed: Vec<Value>, keys: Value) -> World {
        let config = config(listed, keys);
        let gate = Gate::new(config.policy.clone()).unwrap();
        let live = Arc::new(Live::new(&gate, &config));
        let settings = config.gateway.as_ref().unwrap();
        let gateway = Gateway::start(gate.clone(), live.clone(), settings).unwrap();
        World { gate, live, pods, gateway }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.gateway.local_addr()
    }

    pub(crate) fn now(&self) -> Snapshot {
        self.gate.snapshot()
    }

    /// Waits until the gate holds so many units.
    pub(crate) async fn until_in_use(&self, units: u64) {
        until("units in use", SOON, || self.now().in_use == units).await;
    }

    /// Waits until so many asks wait.
    pub(crate) async fn until_waiting(&self, asks: u64) {
        until("asks that wait", SOON, || self.now().waiting == asks).await;
    }

    /// Units that the first pod says it has in use.
    pub(crate) fn pod_in_use(&self) -> u32 {
        self.pods[0].gauge().read().in_use
    }

    /// Nothing is held, nobody waits, and the books agree: each lease ended, and once.
    pub(crate) async fn assert_quiet(&self) {
        self.until_in_use(0).await;
        self.until_waiting(0).await;
        self.gate.audit().unwrap();
    }
}

/// The configuration of a test: `listed` pods, and `keys` over the defaults.
pub(crate) fn config(listed: Vec<Value>, keys: Value) -> Config {
    let mut document = json!({
        "pool": "trial",
        "pods": listed,
        "gateway": {"listen": "127.0.0.1:0", "workers": 1},
        "admin": {"listen": "127.0.0.1:0"},
    });
    for (key, value) in keys.as_object().unwrap() {
        document[key] = value.clone();
    }
    // JSON is YAML.
    match sluicegate_config::parse("test.yaml", &document.to_string(), &|_| None) {
        Ok(loaded) => loaded.config,
        Err(problems) => panic!("{problems}"),
    }
}

/// Drains the gateway without blocking the pods of this thread.
pub(crate) async fn drain(gateway: Gateway, deadline: Duration) -> sluicegate_gateway::DrainReport {
    tokio::task::spawn_blocking(move || gateway.drain(deadline)).await.unwrap()
}
