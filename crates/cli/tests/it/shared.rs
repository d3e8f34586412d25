//! Two gates over one Redis: live configuration, registered pods, farewell.

use std::time::Duration;

use serde_json::Value;
use sluicegate_testkit::client::{get, get_json, send};
use sluicegate_testkit::redis::{Redis, RedisOptions};
use sluicegate_trial::pod::PodOptions;

use crate::registered::{REGISTERED, named, put, until};
use crate::{Running, SOON, pods, say};

fn over(redis: &Redis, rules: &str) -> Running {
    // One second: what silence brings about is waited for.
    Running::start(&format!("{rules}\nledger: {{redis: \"redis://{}\", ttl: 1s}}\n", redis.addr()))
}

async fn patch(running: &Running, patch: &str) -> Value {
    let answer = send(running.admin, "PATCH", "/v1/config", patch).await.unwrap();
    assert_eq!(answer.head.status, 200, "{}", answer.text());
    answer.json().unwrap()
}

const APIS: &str = "apis:\n  - {name: light, match: \"GET /w/1\", weight: 1}\n";

#[tokio::test]
async fn a_patch_at_one_gate_is_obeyed_by_all_and_null_clears_it_at_any() {
    let (_pods, yaml) = pods(2, |name| PodOptions::new(name, 20)).await;
    let redis = Redis::with(RedisOptions::tcp());
    let rules = format!("{yaml}{APIS}");
    let (one, two) = (over(&redis, &rules), over(&redis, &rules));
    assert_eq!(get(one.gateway, "/w/1").await.unwrap().head.status, 200);
    assert_eq!(get(two.gateway, "/w/1").await.unwrap().head.status, 200);
    until(one.admin, "both gates", |state| state["gates"].as_array().unwrap().len() == 2).await;
    let answer = patch(&one, r#"{"apis": {"light": {"weight": 5}}, "pods": {"p1": {"capacity": 10}}}"#).await;
    assert_eq!((&answer["acknowledged"], &answer["gates"]), (&2.into(), &2.into()));
    for gate in [&one, &two] {
        let state = gate.state().await;
        assert_eq!(state["version"], answer["version"]);
        assert_eq!((&state["capacity"], &state["apis"][0]["weight"]), (&30.into(), &5.into()));
        assert_eq!(
            (&state["gates_differing"], &state["document_error"]),
            (&serde_json::json!([]), &Value::Null)
        );
    }
    // A bad one changes nothing anywhere.
    let bad = send(two.admin, "PATCH", "/v1/config", r#"{"apis": {"light": {"weight": 0}}}"#).await.unwrap();
    assert_eq!(bad.head.status, 422);
    let cleared = patch(&two, r#"{"apis": {"light": {"weight": null}}}"#).await;
    assert!(cleared["version"].as_u64() > answer["version"].as_u64());
    let state = one.state().await;
    assert_eq!((&state["capacity"], &state["apis"][0]["weight"]), (&30.into(), &1.into()));
    // Who comes later obeys it from its first exchange on; a ledger that lost it is told again.
    let three = over(&redis, &rules);
    until(three.admin, "the changes", |state| state["capacity"] == 30).await;
    let _: () = redis.call(&["DEL", "sluicegate:{shop}:document"]).unwrap();
    let begin = std::time::Instant::now();
    while redis.call::<u64>(&["EXISTS", "sluicegate:{shop}:document"]).unwrap() == 0 {
        assert!(begin.elapsed() < SOON, "nobody put the document back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(three.state().await["version"], cleared["version"]);
}

#[tokio::test]
async fn a_gate_whose_file_differs_is_named_and_one_that_cannot_obey_says_so() {
    let (_pods, yaml) = pods(1, |name| PodOptions::new(name, 20)).await;
    let redis = Redis::with(RedisOptions::tcp());
    let one = over(&redis, &format!("{yaml}{APIS}"));
    let two = over(&redis, &yaml.replace("capacity: 20", "capacity: 10"));
    until(one.admin, "the other's name", |state| state["gates_differing"].as_array().unwrap().len() == 1)
        .await;
    let metrics = get(one.admin, "/metrics").await.unwrap().text();
    assert!(metrics.contains("sluicegate_gates_differing 1"), "{metrics}");
    // The second one has no api of this name.
    let answer = patch(&one, r#"{"apis": {"light": {"weight": 2}}}"#).await;
    assert_eq!((&answer["acknowledged"], &answer["gates"]), (&1.into(), &2.into()));
    let state = two.state().await;
    assert!(state["document_error"].as_str().unwrap().contains("light"), "{state}");
    let metrics = get(two.admin, "/metrics").await.unwrap().text();
    assert!(metrics.contains("sluicegate_document_unfit 1"), "{metrics}");
    let top = say(&["top", "--once", "--admin", &format!("http://{}", one.admin)]);
    assert!(top.out.contains("gate") && top.out.contains(" of 2"), "{}", top.out);
}

#[tokio::test]
async fn a_pod_that_registers_at_one_gate_serves_at_all_and_goes_at_all() {
    let (handles, _) = pods(2, |name| PodOptions::new(name, 20)).await;
    let redis = Redis::with(RedisOptions::tcp());
    let (one, two) = (over(&redis, REGISTERED), over(&redis, REGISTERED));
    assert_eq!(put(one.admin, &handles[0], 60_000).await.head.status, 201);
    assert_eq!(put(two.admin, &handles[1], 1_500).await.head.status, 201);
    for gate in [&one, &two] {
        until(gate.admin, "both pods", |state| named(state).len() == 2).await;
        assert_eq!(get(gate.gateway, "/").await.unwrap().head.status, 200);
    }
    // Renewed at the other gate than where it came: the first knows by asking, when its own knowledge runs out.
    let version = one.state().await["version"].clone();
    for _ in 0..8 {
        assert_eq!(put(one.admin, &handles[1], 1_500).await.head.status, 200);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(named(&two.state().await).len(), 2);
    }
    assert_eq!(two.state().await["version"], version, "renewals change no version");
    for gate in [&one, &two] {
        until(gate.admin, "the end of the silent pod", |state| named(state) == ["p0"]).await;
    }
    assert_eq!(send(two.admin, "DELETE", "/v1/pods/p0", "").await.unwrap().head.status, 204);
    until(one.admin, "the end of the other", |state| named(state).is_empty()).await;
}

#[tokio::test]
async fn who_is_told_to_stop_leaves_its_units_to_the_others_at_once() {
    let (_pods, yaml) = pods(1, |name| PodOptions::new(name, 20)).await;
    let redis = Redis::with(RedisOptions::tcp());
    // Nothing comes back by silence within this test: that takes the ttl and twice the usual `max_hold`.
    let rules = format!("{yaml}{APIS}ledger: {{redis: \"redis://{}\", ttl: 10s}}\n", redis.addr());
    let (mut one, two) = (Running::start(&rules), Running::start(&rules));
    for gate in [&one, &two] {
        until(gate.admin, "a ledger that lends", |state| state["ledger"]["recovering"] == false).await;
    }
    assert_eq!(get(one.gateway, "/w/1").await.unwrap().head.status, 200);
    until(two.admin, "both gates", |state| state["gates"].as_array().unwrap().len() == 2).await;
    one.process.terminate();
    assert_eq!(one.process.exit(SOON).code(), Some(0));
    until(two.admin, "the farewell", |state| state["gates"].as_array().unwrap().len() == 1).await;
    let mut running = Vec::new();
    for _ in 0..20 {
        let gateway = two.gateway;
        running.push(tokio::spawn(async move { get(gateway, "/w/1?ms=400").await.unwrap().head.status }));
    }
    for one in running {
        assert_eq!(one.await.unwrap(), 200);
    }
    let state = get_json(two.admin, "/v1/state").await.unwrap();
    assert_eq!((&state["ledger"]["kind"], &state["ledger"]["up"]), (&"redis".into(), &true.into()));
}
