//! Pods that register themselves.

use std::net::SocketAddr;

use serde_json::{Value, json};
use sluicegate_testkit::client::{Answer, get, get_json, send};
use sluicegate_trial::pod::{PodHandle, PodOptions};

use crate::{Running, SOON, pods};

pub(crate) const REGISTERED: &str = "pool: shop\npods: {registered: true}\n";

pub(crate) async fn put(admin: SocketAddr, pod: &PodHandle, ttl_ms: u64) -> Answer {
    let body = json!({"url": pod.url(), "capacity": 20, "ttl_ms": ttl_ms}).to_string();
    send(admin, "PUT", &format!("/v1/pods/{}", pod.name()), &body).await.unwrap()
}

/// Waits until the gate's state is as wanted.
pub(crate) async fn until(admin: SocketAddr, what: &str, is_so: impl Fn(&Value) -> bool) {
    let begin = std::time::Instant::now();
    loop {
        let state = get_json(admin, "/v1/state").await.unwrap();
        if is_so(&state) {
            return;
        }
        assert!(begin.elapsed() < SOON, "never came: {what}; last {state}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

pub(crate) fn named(state: &Value) -> Vec<&str> {
    state["pods"].as_array().unwrap().iter().map(|pod| pod["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_pod_comes_is_renewed_and_goes() {
    let (handles, _) = pods(2, |name| PodOptions::new(name, 20)).await;
    let mut running = Running::start(REGISTERED);
    let admin = running.admin;
    assert_eq!(get(running.gateway, "/").await.unwrap().head.status, 503, "nobody is there yet");
    assert_eq!(put(admin, &handles[0], 60_000).await.head.status, 201);
    assert_eq!(get(running.gateway, "/").await.unwrap().head.status, 200);
    let version = running.state().await["version"].clone();
    assert_eq!(put(admin, &handles[0], 60_000).await.head.status, 200);
    assert_eq!(running.state().await["version"], version, "a renewal changes no rule");
    assert_eq!(put(admin, &handles[1], 500).await.head.status, 201);
    assert_eq!(running.state().await["capacity"], 40);
    // The second one falls silent; the first has long to live.
    until(admin, "its end", |state| named(state) == ["p0"]).await;
    running.process.line(SOON, |line| line.contains("p1").then_some(()));
    assert_eq!(running.state().await["capacity"], 20);
    for _ in 0..2 {
        let gone = send(admin, "DELETE", "/v1/pods/p0", "").await.unwrap();
        assert_eq!(gone.head.status, 204);
    }
    assert_eq!(running.state().await["capacity"], 0);
    assert_eq!(get(running.gateway, "/").await.unwrap().head.status, 503);
}

#[tokio::test]
async fn a_pod_that_goes_ends_what_runs_on_it() {
    let (handles, _) = pods(1, |name| PodOptions::new(name, 20)).await;
    let running = Running::start(REGISTERED);
    let (admin, gateway) = (running.admin, running.gateway);
    put(admin, &handles[0], 60_000).await;
    let slow = tokio::spawn(async move { get(gateway, "/w/1?ms=500").await.unwrap() });
    let gauge = handles[0].gauge();
    sluicegate_testkit::wait::until("the request runs", SOON, || gauge.read().in_use == 1).await;
    assert_eq!(send(admin, "DELETE", "/v1/pods/p0", "").await.unwrap().head.status, 204);
    let state = running.state().await;
    assert_eq!((&state["pods"][0]["draining"], &state["capacity"]), (&true.into(), &0.into()));
    assert_eq!(slow.await.unwrap().head.status, 200);
    until(admin, "the end of the pod", |state| named(state).is_empty()).await;
}

#[tokio::test]
async fn what_is_no_pod_is_refused_with_the_mend() {
    let (handles, listed) = pods(1, |name| PodOptions::new(name, 20)).await;
    let running = Running::start(REGISTERED);
    let put_text = async |name: &str, body: Value| {
        let answer =
            send(running.admin, "PUT", &format!("/v1/pods/{name}"), &body.to_string()).await.unwrap();
        (answer.head.status, answer.text())
    };
    for (name, body, word) in [
        ("a", json!({"url": "https://h:1", "capacity": 1, "ttl_ms": 1000}), "TLS"),
        ("a", json!({"url": "http://h:1", "capacity": 0, "ttl_ms": 1000}), "capacity"),
        ("a", json!({"url": "http://h:1", "capacity": 1, "ttl_ms": 1}), "ttl_ms"),
        ("-a", json!({"url": "http://h:1", "capacity": 1, "ttl_ms": 1000}), "name"),
    ] {
        let (status, text) = put_text(name, body).await;
        assert!(status == 422 && text.contains(word), "{status} {text}");
    }
    put(running.admin, &handles[0], 60_000).await;
    let twin = json!({"url": handles[0].url(), "capacity": 1, "ttl_ms": 1000});
    let (status, text) = put_text("twin", twin).await;
    assert!(status == 422 && text.contains("twice"), "{status} {text}");
    // A pool whose file lists its pods takes none.
    let running = Running::start(&listed);
    let answer = put(running.admin, &handles[0], 1000).await;
    assert!(answer.head.status == 409 && answer.text().contains("registered: true"), "{}", answer.text());
}

#[tokio::test]
async fn rules_that_todays_pods_cannot_hold_wait_for_others() {
    let (handles, _) = pods(1, |name| PodOptions::new(name, 20)).await;
    let rules = "apis:\n  - {name: huge, match: \"GET /huge\", weight: 30}\n";
    let running = Running::start(&format!("{REGISTERED}{rules}"));
    assert_eq!(put(running.admin, &handles[0], 60_000).await.head.status, 201);
    let huge = get(running.gateway, "/huge").await.unwrap();
    assert!(huge.head.status == 503 && huge.text().contains("too_heavy"), "{}", huge.text());
    assert_eq!(get(running.gateway, "/").await.unwrap().head.status, 200);
    let patch = r#"{"apis": {"huge": {"weight": 20}}}"#;
    assert_eq!(send(running.admin, "PATCH", "/v1/config", patch).await.unwrap().head.status, 200);
    assert_eq!(get(running.gateway, "/huge").await.unwrap().head.status, 200);
}

#[test]
fn a_gate_without_pods_starts_and_ends() {
    let mut running = Running::start(REGISTERED);
    running.process.terminate();
    assert_eq!(running.process.exit(SOON).code(), Some(0));
}
