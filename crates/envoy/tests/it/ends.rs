//! However a stream ends, its lease ends once.

use std::time::Duration;

use crate::world::{SOON, Stream, World};

/// Resets and lost connections are the real Envoy's ends: its tests have them, and no client library sends them on demand.
#[tokio::test]
async fn a_half_closed_stream_ends_cleanly_and_its_lease_once() {
    let world = World::start();
    let mut first = world.ask("/light/1").await;
    first.admitted().await;
    let mut second = world.ask("/light/2").await;
    second.admitted().await;
    assert_eq!(world.in_use(), 2);
    let Stream { out, mut answers } = first;
    drop(out);
    assert!(answers.message().await.unwrap().is_none(), "it ends cleanly");
    world.until_in_use(1).await;
    // The other half of a stream that has ended.
    drop(answers);
    drop(second);
    world.until_in_use(0).await;
}

#[tokio::test]
async fn a_waiter_is_given_time_and_leaves_nothing_behind() {
    let world = World::start();
    let mut first = world.ask("/all").await;
    first.admitted().await;
    let mut second = world.ask("/all").await;
    let time = second.answer().await.override_message_timeout.expect("the first word is about time");
    assert!(time.seconds > 60, "more than the wait: {time:?}");
    let third = world.ask("/all").await;
    world.until_waiting(2).await;
    drop(second);
    world.until_waiting(1).await;
    assert_eq!(world.in_use(), 4, "who left was given nothing");
    drop(first);
    let mut third = third;
    assert!(third.answer().await.override_message_timeout.is_some());
    third.admitted().await;
    drop(third);
    world.until_in_use(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_waits_then_ends_streams_cleanly_and_keeps_their_leases() {
    let world = World::start();
    let mut ends_soon = world.ask("/light/1").await;
    let mut runs_on = world.ask("/light/2").await;
    ends_soon.admitted().await;
    runs_on.admitted().await;
    let World { gate, server, .. } = world;
    let drain = tokio::task::spawn_blocking(move || server.drain(Duration::from_millis(500)));
    drop(ends_soon);
    runs_on.ends().await;
    let drained = tokio::time::timeout(SOON, drain).await.unwrap().unwrap();
    assert_eq!(drained.cut, 1);
    assert_eq!(gate.snapshot().in_use, 1, "its request still runs");
    drop(drained);
    assert_eq!(gate.snapshot().in_use, 0);
}
