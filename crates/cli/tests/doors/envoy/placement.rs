//! Envoy has the last word on the pod, and leases follow it.

use std::time::Duration;

use sluicegate_testkit::client::get_json;
use tokio::time::timeout;

use super::{running, set_up, terms};
use crate::ground::{Ground, SOON, Terms};

/// The example's second endpoint.
const SECOND: (&str, &str) =
    ("        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9002}}}\n", "");
/// A second try, on whatever pod Envoy's policy gives then.
const RETRIES: (&str, &str) = (
    "timeout: 70s}",
    "timeout: 70s, retry_policy: {retry_on: \"connect-failure,refused-stream\", num_retries: 2}}",
);

/// The emptier pod is chosen, so that equal requests take turns.
fn spread() -> Terms {
    Terms { admission: "wait: 1s, placement: spread".to_owned(), ..terms() }
}

async fn is_ready(ground: &Ground, pod: usize) -> bool {
    get_json(ground.admin, "/v1/state").await.unwrap()["pods"][pod]["ready"] == true
}

async fn until_shunned(ground: &Ground, pod: usize) {
    let looks = async {
        while is_ready(ground, pod).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, looks).await.expect("the pod that Envoy does not use is passed over");
}

/// Requests run slowly; all of them on the first pod, whatever was chosen.
async fn leases_follow(ground: &Ground, door: std::net::SocketAddr) {
    let mut clients = Vec::new();
    for number in 1..=4 {
        clients.push(running(door, 1, 300).await);
        ground.until_in_use(&[number, 0]).await;
    }
    assert_eq!(ground.gauges()[0].in_use, 4, "the pods say the same");
    let moved = ground.metric("sluicegate_ext_proc_moved_total").await;
    assert!((3..=4).contains(&moved), "after the first request the second pod is chosen each time: {moved}");
    until_shunned(ground, 1).await;
    drop(clients);
    assert_eq!(ground.until_idle().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_follows_its_request_from_a_pod_that_envoy_does_not_know() {
    let (ground, door) = set_up(spread(), &[SECOND]).await;
    leases_follow(&ground, door.listen).await;
    // It is tried again after a while, whatever became of it.
    let looks = async {
        while !is_ready(&ground, 1).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, looks).await.expect("the pod may be chosen again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_follows_its_request_when_envoy_tries_another_pod() {
    let (mut ground, door) = set_up(spread(), &[RETRIES]).await;
    let dead = ground.pods.pop().unwrap();
    dead.kill();
    drop(dead);
    leases_follow(&ground, door.listen).await;
}
