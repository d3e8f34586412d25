//! The decision service as a role of the program.

use serde_json::{Value, json};
use sluicegate_testkit::client::{Raw, get, send};
use sluicegate_testkit::process::Process;

use crate::running::listens;
use crate::{Folder, SOON};

use std::net::SocketAddr;

pub(crate) struct Deciding {
    pub(crate) process: Process,
    pub(crate) decisions: SocketAddr,
    pub(crate) admin: SocketAddr,
    _folder: Folder,
}

impl Deciding {
    pub(crate) fn start(rules: &str) -> Deciding {
        Deciding::at(rules, "http: \"127.0.0.1:0\"")
    }

    /// With these keys of `decisions`.
    pub(crate) fn at(rules: &str, decisions: &str) -> Deciding {
        let listeners = format!("decisions: {{{decisions}}}\nadmin: {{listen: \"127.0.0.1:0\"}}\n");
        let folder = Folder::new(&format!("{rules}\n{listeners}"));
        let mut process =
            Process::start(env!("CARGO_BIN_EXE_sluicegate"), &["run", "-c", folder.config().as_str()]);
        let decisions = process.line(SOON, |line| listens(line, "decisions listening"));
        let admin = process.line(SOON, |line| listens(line, "admin listening"));
        Deciding { process, decisions, admin, _folder: folder }
    }

    pub(crate) async fn lease(&self, ask: Value) -> Value {
        let answer = send(self.decisions, "POST", "/v1/leases", &ask.to_string()).await.unwrap();
        assert_eq!(answer.head.status, 201, "{}", answer.text());
        answer.json().unwrap()
    }

    pub(crate) async fn give_back(&self, lease: &Value) -> u16 {
        let mut client = Raw::connect(self.decisions).await.unwrap();
        let target = format!("/v1/leases/{}", lease["id"].as_str().unwrap());
        client.request("DELETE", &target, &[]).await.unwrap();
        client.answer().await.unwrap().head.status
    }
}

const RULES: &str = "pool: shop\npods:\n\
    \x20 - {name: a, url: \"http://127.0.0.1:9001\", capacity: 4}\n\
    apis:\n\
    \x20 - {name: light, match: \"GET /light\", weight: 1}\n";

#[tokio::test]
async fn leases_are_counted_and_a_drain_waits_for_them() {
    let mut running = Deciding::start(RULES);
    let lease = running.lease(json!({"method": "GET", "path": "/light"})).await;
    let metrics = get(running.admin, "/metrics").await.unwrap().text();
    for line in [
        "sluicegate_requests_total{api=\"light\",outcome=\"admitted\"} 1",
        "sluicegate_units_in_use{pod=\"a\"} 1",
        "sluicegate_leases_total 1",
    ] {
        assert!(metrics.contains(line), "`{line}` is missing:\n{metrics}");
    }
    running.process.terminate();
    running.process.line(SOON, |line| line.contains("draining").then_some(()));
    // A new one is refused, the old one renewed and given back.
    let refused = loop {
        let answer = send(running.decisions, "POST", "/v1/leases", "{\"api\": \"light\"}").await.unwrap();
        if answer.head.status != 201 {
            break answer;
        }
        running.give_back(&answer.json().unwrap()).await;
    };
    assert_eq!((refused.head.status, refused.head.header("x-sluicegate-reason")), (503, "draining"));
    let target = format!("/v1/leases/{}", lease["id"].as_str().unwrap());
    assert_eq!(send(running.decisions, "PUT", &target, "{}").await.unwrap().head.status, 200);
    assert_eq!(running.give_back(&lease).await, 204);
    assert_eq!(running.process.exit(SOON).code(), Some(0));
}

#[tokio::test]
async fn pods_register_at_the_decision_service_as_well() {
    let running = Deciding::start("pool: shop\npods: {registered: true}");
    let body = json!({"url": "http://127.0.0.1:9001", "capacity": 4, "ttl_ms": 60_000}).to_string();
    for status in [201, 200] {
        let answer = send(running.decisions, "PUT", "/v1/pods/a", &body).await.unwrap();
        assert_eq!(answer.head.status, status, "{}", answer.text());
    }
    assert_eq!(running.lease(json!({"method": "GET", "path": "/"})).await["pod"], "a");
    assert_eq!(send(running.decisions, "PUT", "/v1/pods/a", "{}").await.unwrap().head.status, 400);
    assert_eq!(send(running.decisions, "DELETE", "/v1/pods/a", "").await.unwrap().head.status, 204);
    let gone = send(running.decisions, "POST", "/v1/leases", "{\"api\": \"default\", \"wait_ms\": 0}")
        .await
        .unwrap();
    assert_eq!((gone.head.status, gone.head.header("x-sluicegate-reason")), (503, "no_ready_pod"));
}
