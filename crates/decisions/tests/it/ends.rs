//! Drains, and new rules while leases live.

use std::time::Duration;

use serde_json::json;
use sluicegate_testkit::client::{Raw, send};
use sluicegate_testkit::wait::until;

use crate::world::{SOON, World, config, id, rules};

#[tokio::test]
async fn a_drain_waits_for_leases_and_refuses_new_ones() {
    let world = World::start();
    let (gate, addr) = (world.gate.clone(), world.addr);
    let lease = world.lease(json!({"api": "light"})).await;
    let draining = tokio::spawn(world.drain(SOON));
    let refused = loop {
        let answer = send(addr, "POST", "/v1/leases", "{\"api\": \"light\", \"hold_ms\": 1}").await.unwrap();
        if answer.head.status != 201 {
            break answer;
        }
    };
    assert_eq!((refused.head.status, refused.head.header("retry-after")), (503, "1"));
    assert_eq!(refused.head.header("x-sluicegate-reason"), "draining");
    let target = format!("/v1/leases/{}", id(&lease));
    assert_eq!(send(addr, "PUT", &target, "{}").await.unwrap().head.status, 200);
    let mut client = Raw::connect(addr).await.unwrap();
    client.request("DELETE", &target, &[]).await.unwrap();
    assert_eq!(client.answer().await.unwrap().head.status, 204);
    assert_eq!(draining.await.unwrap().cut, 0);
    assert_eq!(gate.snapshot().in_use, 0);
    gate.audit().unwrap();
}

#[tokio::test]
async fn a_drain_ends_in_time_and_says_what_it_cut() {
    let world = World::start();
    let gate = world.gate.clone();
    let _never_given_back = world.lease(json!({"api": "heavy"})).await;
    assert_eq!(world.drain(Duration::from_millis(50)).await.cut, 1);
    // The service's end is its leases' end.
    until("nothing is held", SOON, || gate.snapshot().in_use == 0).await;
    gate.audit().unwrap();
}

#[tokio::test]
async fn new_rules_are_obeyed_by_the_next_call() {
    let world = World::start();
    let lease = world.lease(json!({"api": "light", "pod": "b"})).await;
    let mut rules = rules();
    rules["pods"][1] = json!({"name": "c", "url": "http://127.0.0.1:9003", "capacity": 9});
    let config = config(&rules);
    world.gate.configure(config.policy.clone()).unwrap();
    world.directory.update(&world.gate, &config);
    let new = world.lease(json!({"api": "light", "weight": 9})).await;
    assert_eq!((new["pod"].as_str(), new["url"].as_str()), (Some("c"), Some("http://127.0.0.1:9003")));
    assert_eq!(world.ask(json!({"api": "light", "pod": "b"})).await.head.status, 400, "b is gone");
    // What runs there runs to its end.
    let renewed = world.renew(id(&lease), json!({})).await;
    assert_eq!((renewed.head.status, renewed.json().unwrap()["pod"].as_str()), (200, Some("b")));
    world.give_back(id(&lease)).await;
    world.give_back(id(&new)).await;
    world.assert_quiet().await;
}
