//! How requests, Envoy and the program itself end.

use std::time::Duration;

use sluicegate_testkit::client::{Raw, get};
use sluicegate_testkit::wait;
use sluicegate_trial::pod::OnDisconnect;

use super::{OPEN, rest, running, set_up, terms};
use crate::ground::{CAPACITY, SOON, Terms};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_what_runs() {
    let (mut ground, door) = set_up(terms(), &[]).await;
    let mut client = running(door.listen, 2, 20).await;
    ground.program().terminate();
    assert_eq!(rest(&mut client).await.unwrap(), 20, "it runs to its end");
    let code = tokio::task::block_in_place(|| ground.program().exit(SOON)).code();
    assert_eq!(code, Some(0), "{}", ground.words());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_may_not_wait_leaves_what_runs_alone() {
    let args = vec!["--drain".to_owned(), "1".to_owned()];
    let (mut ground, door) = set_up(Terms { args, ..terms() }, &[]).await;
    let mut client = running(door.listen, 2, 60).await;
    ground.program().terminate();
    let code = tokio::task::block_in_place(|| ground.program().exit(SOON)).code();
    assert_eq!(code, Some(1), "not all had ended: {}", ground.words());
    assert_eq!(rest(&mut client).await.unwrap(), 60, "the stream ended cleanly, and the request went on");
    assert_eq!(get(door.listen, "/w/1").await.unwrap().head.status, 500, "nothing is let through meanwhile");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_cuts_what_runs_or_lets_it_through_as_it_is_set() {
    for (changes, runs_on, status) in [(&[][..], false, 500), (&[OPEN][..], true, 200)] {
        let (mut ground, door) = set_up(terms(), changes).await;
        let mut client = running(door.listen, 2, 10).await;
        ground.kill();
        assert_eq!(rest(&mut client).await.is_ok(), runs_on, "{changes:?}");
        assert_eq!(get(door.listen, "/w/1").await.unwrap().head.status, status, "{changes:?}");
        ground.until_pods_idle().await;
        ground.revive().await;
        let counted = async {
            while ground.metric("sluicegate_requests_total{api=\"w1\",outcome=\"admitted\"}").await == 0 {
                ground.until_serves(door.listen).await;
            }
        };
        tokio::time::timeout(SOON, counted).await.expect("requests are admitted again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_envoy_ends_its_leases_and_its_waiters() {
    let (ground, mut door) = set_up(Terms { admission: "wait: 60s".to_owned(), ..terms() }, &[]).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = Raw::connect(door.listen).await.unwrap();
        client.request("GET", &format!("/w/{CAPACITY}?hang"), &[]).await.unwrap();
        clients.push(client);
    }
    ground.until_waiting(3, SOON).await;
    ground.until_in_use(&[20, 20]).await;
    door.processes[0].kill();
    assert_eq!(ground.until_idle().await, Vec::<String>::new());
}

/// A pod that never answers, and a route without a time-out of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_outlives_max_hold_twice_is_written_off() {
    let (ground, door) =
        set_up(Terms { admission: "wait: 1s, max_hold: 600ms".to_owned(), ..terms() }, &[]).await;
    let mut client = Raw::connect(door.listen).await.unwrap();
    client.request("GET", "/w/3?hang", &[]).await.unwrap();
    wait::until("it runs", SOON, || ground.gauges().iter().any(|gauge| gauge.in_use == 3)).await;
    ground.until_metric("sluicegate_ext_proc_over_max_hold_total", |count| count == 1).await;
    ground.until_metric("sluicegate_units_abandoned_total", |units| units == 3).await;
    ground.until_in_use(&[0, 0]).await;
    assert!(ground.gauges().iter().any(|gauge| gauge.in_use == 3), "the request was left alone");
}

/// A client leaves, Envoy cuts the connection, and the pod works on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_works_on_is_given_nothing_before_it_has_ended() {
    let (ground, door) = set_up(Terms { on_disconnect: OnDisconnect::Continues, ..terms() }, &[]).await;
    // Two on each of Envoy's connections, so that the response heads are known to come; slower than what follows.
    for _ in 0..8 {
        assert_eq!(get(door.listen, "/w/1?ms=700").await.unwrap().head.status, 200);
    }
    let mut client = Raw::connect(door.listen).await.unwrap();
    client.request("GET", "/w/1?ms=500", &[]).await.unwrap();
    wait::until("it runs", SOON, || ground.gauges().iter().any(|gauge| gauge.in_use == 1)).await;
    drop(client);
    loop {
        let held: u64 = ground.in_use().await.iter().sum();
        // Read after the lease: a pod that works now was at work then.
        let works = ground.gauges().iter().any(|gauge| gauge.in_use == 1);
        if held == 0 {
            assert!(!works, "the units were free while the pod worked");
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ground.metric("sluicegate_ext_proc_lingering_total").await, 1);
}
