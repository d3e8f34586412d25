//! Asks that wait: joined, cancelled, left.

use serde_json::json;
use sluicegate_testkit::wait::until;

use crate::world::{SOON, World, begin, id};

/// 32 hexadecimal digits, as callers are told to choose them.
const CHOSEN: &str = "00112233445566778899aabbccddeeff";

#[tokio::test]
async fn a_waiting_ask_gets_what_comes_free() {
    let world = World::start();
    let first = world.lease(json!({"api": "light", "weight": 4})).await;
    let mut waits = begin(world.addr, &[], json!({"api": "heavy"})).await;
    world.until_waiting(1).await;
    world.give_back(id(&first)).await;
    let answer = waits.answer().await.unwrap();
    assert_eq!(answer.head.status, 201, "{}", answer.text());
    assert!(!answer.head.header("server-timing").is_empty());
    world.give_back(id(&answer.json().unwrap())).await;
    world.assert_quiet().await;
}

#[tokio::test]
async fn a_caller_that_leaves_is_dropped_at_once() {
    let world = World::start();
    let first = world.lease(json!({"api": "light", "weight": 4})).await;
    for chosen in [json!({"api": "heavy"}), json!({"api": "heavy", "id": CHOSEN})] {
        for reset in [false, true] {
            let waits = begin(world.addr, &[], chosen.clone()).await;
            world.until_waiting(1).await;
            if reset {
                waits.abort().unwrap();
            } else {
                drop(waits);
            }
            world.until_waiting(0).await;
        }
    }
    world.give_back(id(&first)).await;
    world.assert_quiet().await;
}

#[tokio::test]
async fn a_waiting_ask_is_cancelled_by_its_id() {
    let world = World::start();
    let first = world.lease(json!({"api": "light", "weight": 4})).await;
    let mut waits = begin(world.addr, &[], json!({"api": "heavy", "id": CHOSEN})).await;
    world.until_waiting(1).await;
    assert_eq!(world.give_back(CHOSEN).await, 204);
    let answer = waits.answer().await.unwrap();
    assert_eq!((answer.head.status, answer.head.header("x-sluicegate-reason")), (409, "cancelled"));
    world.until_waiting(0).await;
    world.give_back(id(&first)).await;
    world.assert_quiet().await;
}

#[tokio::test]
async fn a_cancellation_may_come_before_its_ask() {
    let world = World::start();
    assert_eq!(world.give_back(CHOSEN).await, 204);
    let answer = world.ask(json!({"api": "light", "id": CHOSEN})).await;
    assert_eq!((answer.head.status, answer.head.header("x-sluicegate-reason")), (409, "id_taken"));
    world.assert_quiet().await;
}

#[tokio::test]
async fn the_same_id_gets_the_same_lease() {
    let world = World::start();
    for (body, header) in [
        (json!({"api": "light", "id": CHOSEN}), None),
        (json!({"api": "light"}), Some("idempotency-key: \"k 1\"")),
    ] {
        let headers: Vec<&str> = header.into_iter().collect();
        let mut ids = Vec::new();
        for replayed in ["", "true", "true"] {
            let answer = begin(world.addr, &headers, body.clone()).await.answer().await.unwrap();
            assert_eq!(answer.head.status, 201, "{}", answer.text());
            assert_eq!(answer.head.header("idempotent-replayed"), replayed);
            ids.push(id(&answer.json().unwrap()).to_owned());
        }
        assert!(ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
        assert_eq!(world.now().in_use, 1, "one lease");
        // The id of another ask is nobody's.
        let other = begin(world.addr, &headers, json!({"api": "heavy", "id": body["id"].as_str()}));
        if header.is_none() {
            assert_eq!(other.await.answer().await.unwrap().head.status, 409);
        }
        assert_eq!(world.give_back(&ids[0]).await, 204);
        // What has ended does not begin again.
        let answer = begin(world.addr, &headers, body).await.answer().await.unwrap();
        assert_eq!(answer.head.status, 409, "{}", answer.text());
    }
    world.assert_quiet().await;
}

#[tokio::test]
async fn a_second_call_waits_for_the_firsts_answer() {
    let world = World::start();
    let first = world.lease(json!({"api": "light", "weight": 4})).await;
    let body = json!({"api": "heavy", "id": CHOSEN});
    let one = begin(world.addr, &[], body.clone()).await;
    world.until_waiting(1).await;
    let mut two = begin(world.addr, &[], body.clone()).await;
    until("the second has joined", SOON, || world.service.counts()().replayed == 1).await;
    assert_eq!(world.now().waiting, 1, "one ask for both");
    // The first may go: the second still wants it.
    one.abort().unwrap();
    world.give_back(id(&first)).await;
    let answer = two.answer().await.unwrap();
    assert_eq!(answer.head.status, 201, "{}", answer.text());
    assert_eq!(world.now().in_use, 3);
    world.give_back(CHOSEN).await;
    world.assert_quiet().await;
}

#[tokio::test]
async fn a_refused_id_may_ask_again() {
    let world = World::start();
    let first = world.lease(json!({"api": "light", "weight": 4})).await;
    let body = json!({"api": "heavy", "wait_ms": 0, "id": CHOSEN});
    assert_eq!(world.ask(body.clone()).await.head.status, 429);
    world.give_back(id(&first)).await;
    let lease = world.lease(body).await;
    assert_eq!(id(&lease), format!("g1.{CHOSEN}"));
    world.give_back(id(&lease)).await;
    world.assert_quiet().await;
}
