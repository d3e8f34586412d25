//! Many callers that do everything in every order, and pods that only count: they are the judges.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sluicegate_testkit::client::{Answer, Raw, send};
use sluicegate_trial::pod::{Pod, PodHandle, PodOptions};
use tokio::net::TcpListener;

use crate::world::{World, begin, id};

const CALLERS: u64 = 24;
const TURNS: usize = 60;

/// Three pods of 6 units; api `any` waits up to 50 ms.
async fn pool() -> (Vec<PodHandle>, Value) {
    let mut pods = Vec::new();
    let mut listed = Vec::new();
    for name in ["a", "b", "c"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = PodOptions { count_only: true, ..PodOptions::new(name, 6) };
        let pod = Pod::start(options, listener).unwrap();
        listed.push(json!({"name": name, "url": pod.url(), "capacity": 6}));
        pods.push(pod);
    }
    let rules = json!({
        "pool": "trial",
        "pods": listed,
        "apis": [{"name": "any", "match": "GET /w/**", "weight": 1}],
        "admission": {"wait": "50ms"},
    });
    (pods, rules)
}

struct Caller {
    addr: SocketAddr,
    random: fastrand::Rng,
    turn: u64,
    /// Leases that ran.
    ran: u32,
}

impl Caller {
    fn name(&mut self) -> String {
        self.turn += 1;
        format!("{:032x}", self.random.u128(..))
    }

    async fn delete(&self, target: &str) {
        let mut client = Raw::connect(self.addr).await.unwrap();
        client.request("DELETE", &format!("/v1/leases/{target}"), &[]).await.unwrap();
        assert_eq!(client.answer().await.unwrap().head.status, 204, "{target}");
    }

    /// The request itself, at the pod named, as long as the lease lives.
    async fn run(&mut self, lease: &Value) {
        let url = lease["url"].as_str().unwrap();
        let pod: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
        let target = format!("/w/{}?ms={}", lease["weight"], self.random.u8(0..4));
        let answer = Raw::connect(pod).await.unwrap().get(&target).await.unwrap();
        assert_eq!(answer.head.status, 200);
        self.ran += 1;
    }

    fn ask(&mut self) -> Value {
        let wait_ms = if self.random.bool() { 0 } else { 40 };
        json!({"api": "any", "weight": self.random.u32(1..=3), "wait_ms": wait_ms})
    }

    async fn turn(&mut self) {
        let mut ask = self.ask();
        match self.random.u8(0..6) {
            // Gone at once, or soon: the answer may be on its way already, so the lease must end by itself.
            0 => {
                ask["hold_ms"] = json!(200);
                let client = begin(self.addr, &[], ask).await;
                self.leave(client).await;
            }
            // Cancelled by its name, before, while or after it waits.
            1 => {
                ask["id"] = json!(self.name());
                let first = self.random.bool();
                if first {
                    self.delete(ask["id"].as_str().unwrap()).await;
                }
                let mut client = begin(self.addr, &[], ask.clone()).await;
                self.delete(ask["id"].as_str().unwrap()).await;
                let answer = client.answer().await.unwrap();
                assert!(matches!(answer.head.status, 201 | 409 | 429), "{}", answer.text());
                assert!(!(first && answer.head.status == 201), "{}", answer.text());
            }
            // Bound to its connection.
            2 => {
                let mut client = begin(self.addr, &["connection-lifetime: held"], ask).await;
                let head = client.head().await.unwrap();
                if head.status == 201 {
                    let lease = serde_json::from_slice(&client.chunk().await.unwrap().unwrap()).unwrap();
                    self.run(&lease).await;
                }
                self.leave(client).await;
            }
            // The pod refuses it first.
            3 => {
                let answer = self.post(&ask).await;
                let Some(lease) = given(&answer) else { return };
                let outcome = if self.random.bool() { "pod_full" } else { "not_started" };
                self.delete(&format!("{}?outcome={outcome}", id(&lease))).await;
                ask["after"] = lease["id"].clone();
                self.through(&ask).await;
            }
            // Sent twice.
            4 => {
                ask["id"] = json!(self.name());
                let first = begin(self.addr, &[], ask.clone()).await;
                if self.random.bool() {
                    self.leave(first).await;
                }
                self.through(&ask).await;
                self.delete(ask["id"].as_str().unwrap()).await;
            }
            _ => self.through(&ask).await,
        }
    }

    async fn leave(&mut self, client: Raw) {
        for _ in 0..self.random.u8(0..20) {
            tokio::task::yield_now().await;
        }
        if self.random.bool() { client.abort().unwrap() } else { drop(client) }
    }

    async fn post(&self, ask: &Value) -> Answer {
        send(self.addr, "POST", "/v1/leases", &ask.to_string()).await.unwrap()
    }

    /// The usual way.
    async fn through(&mut self, ask: &Value) {
        let answer = self.post(ask).await;
        let Some(lease) = given(&answer) else { return };
        let target = format!("/v1/leases/{}", id(&lease));
        if self.random.bool() {
            let renewed = send(self.addr, "PUT", &target, "{}").await.unwrap();
            assert_eq!(renewed.head.status, 200, "{}", renewed.text());
        }
        self.run(&lease).await;
        if self.random.bool() {
            let ids = json!({"ids": [id(&lease), "bad id", id(&lease)]}).to_string();
            let said = send(self.addr, "POST", "/v1/leases/release", &ids).await.unwrap().json().unwrap();
            assert_eq!(said["released"], 1, "{said}");
        }
        self.delete(id(&lease)).await;
    }
}

fn given(answer: &Answer) -> Option<Value> {
    match answer.head.status {
        201 => Some(answer.json().unwrap()),
        429 => None,
        _ => panic!("{}", answer.text()),
    }
}

#[tokio::test]
async fn nothing_drifts_and_no_pod_is_handed_more_than_it_holds() {
    let (pods, rules) = pool().await;
    let world = Arc::new(World::of(&rules));
    let seed = fastrand::u64(..);
    let mut callers = Vec::new();
    for number in 0..CALLERS {
        let (addr, random) = (world.addr, fastrand::Rng::with_seed(seed.wrapping_add(number)));
        callers.push(tokio::spawn(async move {
            let mut caller = Caller { addr, random, turn: 0, ran: 0 };
            for _ in 0..TURNS {
                caller.turn().await;
            }
            caller.ran
        }));
    }
    let mut ran = 0;
    for caller in callers {
        ran += caller.await.unwrap();
    }
    world.assert_quiet().await;
    assert!(ran > 100, "seed {seed}: hardly anything ran: {ran}");
    for pod in &pods {
        let gauge = pod.gauge().read();
        assert!(gauge.peak <= gauge.capacity, "seed {seed}: {gauge:?}");
        assert_eq!(gauge.in_use, 0, "seed {seed}");
    }
    // What is left of the books is dropped with them; nothing is counted twice.
    let counts = world.service.counts()();
    assert!(counts.leases >= u64::from(ran), "seed {seed}: {counts:?}");
    tokio::time::timeout(Duration::from_secs(60), async { drop(pods) }).await.unwrap();
}
