//! A gate with a decision service before it, and callers.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde_json::{Value, json};
use sluicegate::{Gate, Snapshot};
use sluicegate_config::{Config, DoorAddress};
use sluicegate_decisions::{Bound, Decisions, Directory, DrainReport, GateName, Settings};
use sluicegate_testkit::client::{Answer, Raw, send};
use sluicegate_testkit::wait::until;

/// Long enough for a busy machine; nothing waits this long when all is well.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Everything of one test.
pub(crate) struct World {
    pub(crate) gate: Gate,
    pub(crate) directory: Arc<Directory>,
    pub(crate) service: Decisions,
    pub(crate) addr: SocketAddr,
}

/// Where connections to pods can be opened, and nothing more.
static PODS: LazyLock<[SocketAddr; 2]> = LazyLock::new(|| {
    [(), ()].map(|()| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || listener.incoming().for_each(drop));
        addr
    })
});

/// One pod `a` of 4 units and one `b` of 2; apis `light` (1, `GET /light/**`), `heavy` (3), `probe` (exempt).
pub(crate) fn rules() -> Value {
    json!({
        "pool": "trial",
        "pods": [
            {"name": "a", "url": format!("http://{}", PODS[0]), "capacity": 4},
            {"name": "b", "url": format!("http://{}", PODS[1]), "capacity": 2},
        ],
        "apis": [
            {"name": "light", "match": "GET /light/**", "weight": 1},
            {"name": "heavy", "match": "POST /heavy", "weight": 3, "wait": "60s"},
            {"name": "probe", "match": "GET /probe", "exempt": true},
        ],
        "admission": {"wait": "0"},
    })
}

pub(crate) fn config(rules: &Value) -> Config {
    // JSON is YAML.
    match sluicegate_config::parse("test.yaml", &rules.to_string(), &|_| None) {
        Ok(loaded) => loaded.config,
        Err(problems) => panic!("{problems}"),
    }
}

impl World {
    pub(crate) fn start() -> World {
        World::of(&rules())
    }

    pub(crate) fn of(rules: &Value) -> World {
        World::with(rules, &settings())
    }

    pub(crate) fn with(rules: &Value, settings: &Settings) -> World {
        let bound = Bound::listen(&DoorAddress::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let addr = bound.address().unwrap();
        let config = config(rules);
        let gate = Gate::new(config.policy.clone()).unwrap();
        let directory = Arc::new(Directory::new(&gate, &config));
        let service = Decisions::start(gate.clone(), directory.clone(), bound, settings).unwrap();
        World { gate, directory, service, addr }
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

    /// Nothing is held, nobody waits, and the books agree: each lease ended, and once.
    pub(crate) async fn assert_quiet(&self) {
        self.until_in_use(0).await;
        self.until_waiting(0).await;
        self.gate.audit().unwrap();
    }

    pub(crate) async fn call(&self, method: &str, target: &str, body: &Value) -> Answer {
        send(self.addr, method, target, &body.to_string()).await.unwrap()
    }

    pub(crate) async fn ask(&self, body: Value) -> Answer {
        self.call("POST", "/v1/leases", &body).await
    }

    /// The document of a lease that must be given.
    pub(crate) async fn lease(&self, body: Value) -> Value {
        let answer = self.ask(body).await;
        assert_eq!(answer.head.status, 201, "{}", answer.text());
        answer.json().unwrap()
    }

    pub(crate) async fn renew(&self, id: &str, body: Value) -> Answer {
        self.call("PUT", &format!("/v1/leases/{id}"), &body).await
    }

    /// `DELETE` of an id, with its query.
    pub(crate) async fn give_back(&self, id: &str) -> u16 {
        let mut client = Raw::connect(self.addr).await.unwrap();
        client.request("DELETE", &format!("/v1/leases/{id}"), &[]).await.unwrap();
        client.answer().await.unwrap().head.status
    }

    pub(crate) async fn drain(self, deadline: Duration) -> DrainReport {
        tokio::task::spawn_blocking(move || self.service.drain(deadline)).await.unwrap()
    }
}

/// One thread, and the name `g1`.
pub(crate) fn settings() -> Settings {
    Settings { workers: 1, gate: GateName::new("g1").unwrap(), ..Settings::new() }
}

/// Begins a `POST /v1/leases` and does not wait for its answer.
pub(crate) async fn begin(addr: SocketAddr, headers: &[&str], body: Value) -> Raw {
    let mut client = Raw::connect(addr).await.unwrap();
    let body = body.to_string();
    let length = format!("content-length: {}", body.len());
    let mut all = vec![length.as_str(), "content-type: application/json"];
    all.extend(headers);
    client.request("POST", "/v1/leases", &all).await.unwrap();
    client.send(body).await.unwrap();
    client
}

pub(crate) fn id(lease: &Value) -> &str {
    lease["id"].as_str().unwrap()
}
