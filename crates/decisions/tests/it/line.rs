//! Leases that live as long as their connection.

use serde_json::{Value, json};
use sluicegate_testkit::client::Raw;

use crate::world::{World, begin, id};

const HELD: &str = "connection-lifetime: held";

async fn held(world: &World, body: Value) -> (Raw, Value) {
    let mut client = begin(world.addr, &[HELD], body).await;
    let head = client.head().await.unwrap();
    assert_eq!((head.status, head.header("connection-lifetime")), (201, "held"));
    let line = client.chunk().await.unwrap().unwrap();
    assert_eq!(line.last(), Some(&b'\n'));
    (client, serde_json::from_slice(&line).unwrap())
}

#[tokio::test]
async fn the_lease_ends_with_its_connection() {
    let world = World::start();
    for body in [json!({"api": "heavy"}), json!({"api": "heavy", "id": "mine"})] {
        for reset in [false, true] {
            let (client, lease) = held(&world, body.clone()).await;
            assert_eq!((lease["weight"].as_u64(), lease.get("expires_in_ms")), (Some(3), None));
            assert_eq!(world.now().in_use, 3);
            if reset {
                client.abort().unwrap();
            } else {
                drop(client);
            }
            world.assert_quiet().await;
            if body.get("id").is_some() {
                return;
            }
        }
    }
}

#[tokio::test]
async fn the_connection_ends_with_its_lease() {
    let world = World::start();
    let (mut client, lease) = held(&world, json!({"api": "heavy"})).await;
    assert_eq!(world.give_back(id(&lease)).await, 204);
    while let Some(beat) = client.chunk().await.unwrap() {
        assert_eq!(beat, b"\n");
    }
    // The connection itself is as good as before.
    world.until_in_use(0).await;
    drop(client);
    world.assert_quiet().await;
}

#[tokio::test]
async fn a_hold_ends_it_too() {
    let world = World::start();
    let (mut client, lease) = held(&world, json!({"api": "heavy", "hold_ms": 50})).await;
    assert_eq!(lease["expires_in_ms"], 50);
    while client.chunk().await.unwrap().is_some() {}
    world.assert_quiet().await;
    assert_eq!(world.now().abandoned_units, 3);
}

#[tokio::test]
async fn one_that_waits_and_leaves_takes_nothing() {
    let world = World::start();
    let first = world.lease(json!({"api": "light", "weight": 4})).await;
    let waits = begin(world.addr, &[HELD], json!({"api": "heavy", "id": "w"})).await;
    world.until_waiting(1).await;
    drop(waits);
    world.until_waiting(0).await;
    world.give_back(id(&first)).await;
    world.assert_quiet().await;
}

#[tokio::test]
async fn other_words_are_refused() {
    let world = World::start();
    let mut client = begin(world.addr, &["connection-lifetime: long"], json!({"api": "light"})).await;
    let answer = client.answer().await.unwrap();
    assert_eq!(
        (answer.head.status, answer.json().unwrap()["field"].as_str()),
        (400, Some("Connection-lifetime"))
    );
    world.assert_quiet().await;
}
