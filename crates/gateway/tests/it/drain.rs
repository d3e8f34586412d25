//! The end of a gateway.

use std::time::Duration;

use sluicegate::Ask;
use sluicegate_testkit::client::{H2, Raw};

use crate::world::{Plan, drain};

#[tokio::test]
async fn a_drain_waits_for_what_runs_and_for_what_waits() {
    let world = Plan::one_pod(1).start().await;
    let addr = world.addr();
    let mut running = Raw::connect(addr).await.unwrap();
    running.request("GET", "/x?ms=200", &[]).await.unwrap();
    world.until_in_use(1).await;
    let h2 = H2::connect(addr).await.unwrap();
    let waiting = tokio::spawn(h2.send(h2.get("/x")));
    world.until_waiting(1).await;
    let mut idle = Raw::connect(addr).await.unwrap();

    let draining = tokio::spawn(drain(world.gateway, Duration::from_secs(10)));
    assert_eq!(idle.rest().await.unwrap(), b"", "an idle client is told to go");
    let answer = running.answer().await.unwrap();
    assert_eq!((answer.head.status, answer.head.header("connection")), (200, "close"));
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
    drop(h2);
    let report = draining.await.unwrap();
    assert_eq!(report.cut, 0);
    assert!(report.took < Duration::from_secs(10));
    assert!(Raw::connect(addr).await.is_err(), "nobody listens any more");
    assert_eq!(world.gate.snapshot().in_use, 0);
    world.gate.audit().unwrap();
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut_and_its_units_come_back() {
    let world = Plan::one_pod(4).start().await;
    let mut hanging = Raw::connect(world.addr()).await.unwrap();
    hanging.request("GET", "/x?hang", &[]).await.unwrap();
    let mut streaming = Raw::connect(world.addr()).await.unwrap();
    streaming.request("GET", "/x?chunks=2&every=60000", &[]).await.unwrap();
    world.until_in_use(2).await;
    let report = drain(world.gateway, Duration::from_millis(50)).await;
    assert_eq!(report.cut, 2);
    assert_eq!(world.gate.snapshot().in_use, 0);
    world.gate.audit().unwrap();
}

#[tokio::test]
async fn dropping_a_gateway_gives_every_lease_back_wherever_its_request_is() {
    let world = Plan::one_pod(3).start().await;
    let mut clients = Vec::new();
    for target in ["/x?hang", "/x?chunks=2&every=60000", "/ws"] {
        let mut client = Raw::connect(world.addr()).await.unwrap();
        client.request("GET", target, &["connection: upgrade", "upgrade: echo"]).await.unwrap();
        clients.push(client);
    }
    world.until_in_use(3).await;
    let mut waiting = Raw::connect(world.addr()).await.unwrap();
    waiting.request("GET", "/x", &[]).await.unwrap();
    world.until_waiting(1).await;
    drop(world.gateway);
    let after = world.gate.snapshot();
    assert_eq!((after.in_use, after.waiting), (0, 0));
    world.gate.audit().unwrap();
    assert!(world.gate.try_acquire(Ask::new(world.gate.api_id("default").unwrap())).is_ok());
}
