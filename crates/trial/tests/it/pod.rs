//! The sample pod: what it counts, when it frees, how it misbehaves on request.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use sluicegate_testkit::client::{H2, Raw, get, get_json, send};
use sluicegate_testkit::wait::{SOON, until};
use sluicegate_trial::pod::{GaugeReading, OnDisconnect, PodHandle, PodOptions};

use super::start;

fn stopping(capacity: u32) -> PodOptions {
    PodOptions { on_disconnect: OnDisconnect::Stops, ..PodOptions::new("a", capacity) }
}

/// Sends a GET and leaves the answer unread.
async fn asked(pod: &PodHandle, target: &str) -> Raw {
    let mut client = Raw::connect(pod.addr()).await.unwrap();
    client.request("GET", target, &[]).await.unwrap();
    client
}

async fn in_use(pod: &PodHandle, units: u32) {
    let gauge = pod.gauge();
    until(&format!("{units} units in use"), SOON, || gauge.read().in_use == units).await;
}

#[tokio::test]
async fn the_gauge_counts_what_is_in_the_pod() {
    let pod = start(stopping(20)).await;
    let mut hanging = Vec::new();
    for _ in 0..3 {
        hanging.push(asked(&pod, "/w/2?hang").await);
    }
    in_use(&pod, 6).await;
    drop(hanging);
    in_use(&pod, 0).await;
    let answer = get(pod.addr(), "/w/3").await.unwrap();
    assert_eq!(
        (answer.head.status, answer.text().as_str(), answer.head.header("x-trial-pod")),
        (200, "xx", "a")
    );
    in_use(&pod, 0).await;

    let gauge = get_json(pod.addr(), "/gauge").await.unwrap();
    let want =
        serde_json::json!({"in_use": 0, "peak": 6, "capacity": 20, "served": 4, "units": 9, "refused": 0});
    assert_eq!(gauge, want);
    let reset = send(pod.addr(), "POST", "/gauge/reset", "").await.unwrap().json().unwrap();
    assert_eq!(
        reset,
        serde_json::json!({"in_use": 0, "peak": 0, "capacity": 20, "served": 0, "units": 0, "refused": 0})
    );
}

#[tokio::test]
async fn a_full_pod_refuses_and_one_that_only_counts_does_not() {
    for (count_only, status, want) in [
        (false, 429, GaugeReading { in_use: 2, peak: 2, capacity: 3, served: 0, units: 0, refused: 1 }),
        (true, 200, GaugeReading { in_use: 2, peak: 4, capacity: 3, served: 1, units: 2, refused: 0 }),
    ] {
        let pod = start(PodOptions { count_only, ..stopping(3) }).await;
        let _hanging = asked(&pod, "/w/2?hang").await;
        in_use(&pod, 2).await;
        assert_eq!(get(pod.addr(), "/w/2").await.unwrap().head.status, status);
        in_use(&pod, 2).await;
        assert_eq!(pod.gauge().read(), want);
        let own_lock = get(pod.addr(), "/w/1?refuse").await.unwrap();
        assert_eq!((own_lock.head.status, pod.gauge().read()), (429, want), "refuse is not counted");
    }
}

#[tokio::test]
async fn a_late_pod_frees_so_long_after_its_last_byte() {
    let late = Duration::from_millis(400);
    for version in ["h1", "h2"] {
        let pod = start(PodOptions { late, ..stopping(3) }).await;
        if version == "h1" {
            assert_eq!(get(pod.addr(), "/w/2").await.unwrap().head.status, 200);
        } else {
            let client = H2::connect(pod.addr()).await.unwrap();
            let answer = client.send(client.get("/w/2")).await.unwrap();
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "xx");
        }
        let answered = Instant::now();
        assert_eq!(pod.gauge().read().in_use, 2, "{version}");
        in_use(&pod, 0).await;
        // The client sees the last byte a little after the kernel took it.
        assert!(answered.elapsed() > late / 2, "{version}: {:?}", answered.elapsed());
    }
}

#[tokio::test]
async fn work_continues_to_its_planned_end_when_the_client_goes() {
    let pod = start(PodOptions::new("a", 20)).await;
    for target in ["/w/2?ms=300", "/w/2?chunks=4&every=100"] {
        let sent = Instant::now();
        let client = asked(&pod, target).await;
        in_use(&pod, 2).await;
        client.abort().unwrap();
        in_use(&pod, 0).await;
        assert!(sent.elapsed() >= Duration::from_millis(300), "{target}: {:?}", sent.elapsed());
    }
    assert_eq!(pod.gauge().read().served, 2);
}

#[tokio::test]
async fn work_stops_with_its_client_where_the_pod_is_so_made() {
    // Late too, which a broken-off request does not wait for: in_use() would give up long before.
    let pod = start(PodOptions { late: Duration::from_secs(600), ..stopping(20) }).await;
    for target in ["/w/2?hang", "/w/2?ms=600000", "/w/2?chunks=2&every=600000"] {
        let client = asked(&pod, target).await;
        in_use(&pod, 2).await;
        drop(client);
        in_use(&pod, 0).await;
    }
    let client = H2::connect(pod.addr()).await.unwrap();
    let stream = tokio::spawn(client.send(client.get("/w/3?hang")));
    in_use(&pod, 3).await;
    stream.abort();
    in_use(&pod, 0).await;
}

#[tokio::test]
async fn a_slow_reader_keeps_the_units_until_the_kernel_has_the_last_byte() {
    const BYTES: usize = 64 << 20;
    let pod = start(stopping(20)).await;
    let mut client = asked(&pod, &format!("/w/2?bytes={BYTES}")).await;
    let head = client.head().await.unwrap();
    assert_eq!(head.header("content-length"), BYTES.to_string());
    client.exactly(BYTES / 4).await.unwrap();
    assert_eq!(pod.gauge().read().in_use, 2, "most of it is not even in the kernel's buffers");
    assert!(client.exactly(BYTES - BYTES / 4).await.unwrap().iter().all(|byte| *byte == b'x'));
    in_use(&pod, 0).await;
}

#[tokio::test]
async fn cut_connections_free_the_units_and_the_pod_goes_on() {
    let pod = start(PodOptions::new("a", 20)).await;
    let mut client = asked(&pod, "/?reset=head").await;
    assert!(client.answer().await.is_err());

    let mut client = asked(&pod, "/?reset=body&bytes=1000").await;
    assert_eq!(client.head().await.unwrap().status, 200);
    assert_eq!(client.rest().await.unwrap().len(), 500);

    let client = H2::connect(pod.addr()).await.unwrap();
    assert!(client.send(client.get("/?reset=head")).await.is_err());
    let answer = client.send(client.get("/?reset=body&bytes=1000")).await.unwrap();
    assert!(answer.into_body().collect().await.is_err());
    let answer = client.send(client.get("/?status=503&in_use=7")).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-sluicegate-in-use"]),
        (503, &"7".parse().unwrap())
    );
    drop(answer);
    in_use(&pod, 0).await;
    assert_eq!(pod.gauge().read().served, 5);
}

#[tokio::test]
async fn streams_echoes_and_trailers() {
    let pod = start(PodOptions::new("a", 20)).await;
    let mut client = Raw::connect(pod.addr()).await.unwrap();
    client.request("GET", "/?chunks=3&bytes=10&trailers", &["te: trailers"]).await.unwrap();
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.body.len(), answer.trailers["x-trial-end"].as_str()), (10, "yes"));

    client.request("POST", "/?echo", &["transfer-encoding: chunked"]).await.unwrap();
    client.send("3\r\nabc\r\n").await.unwrap();
    assert_eq!(client.head().await.unwrap().status, 200);
    assert_eq!(client.chunk().await.unwrap().unwrap(), b"abc", "it comes back before the request has ended");
    assert_eq!(pod.gauge().read().in_use, 1);
    client.send("2\r\nde\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(client.chunk().await.unwrap().unwrap(), b"de");
    assert_eq!(client.chunk().await.unwrap(), None);
    in_use(&pod, 0).await;

    let h2 = H2::connect(pod.addr()).await.unwrap();
    let body = h2.send(h2.get("/?trailers")).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-trial-end"], "yes");
}

#[tokio::test]
async fn a_tunnel_holds_its_units_until_it_closes() {
    let pod = start(PodOptions::new("a", 20)).await;
    let mut client = Raw::connect(pod.addr()).await.unwrap();
    client.request("GET", "/ws", &["connection: upgrade", "upgrade: echo"]).await.unwrap();
    assert_eq!(client.head().await.unwrap().status, 101);
    client.send("ping").await.unwrap();
    assert_eq!(client.exactly(4).await.unwrap(), b"ping");
    assert_eq!(pod.gauge().read().in_use, 1);
    client.half_close().await.unwrap();
    assert_eq!(client.rest().await.unwrap(), b"");
    in_use(&pod, 0).await;
}

#[tokio::test]
async fn a_request_that_leaves_in_its_body_gives_its_units_back() {
    let pod = start(PodOptions::new("a", 20)).await;
    let mut client = Raw::connect(pod.addr()).await.unwrap();
    client.request("POST", "/w/3?ms=600000", &["content-length: 100"]).await.unwrap();
    client.send("half").await.unwrap();
    in_use(&pod, 3).await;
    drop(client);
    in_use(&pod, 0).await;
}

#[tokio::test]
async fn a_wrong_wish_is_told() {
    let pod = start(PodOptions::new("a", 20)).await;
    let mut client = Raw::connect(pod.addr()).await.unwrap();
    client.request("GET", "/", &["x-trial: millis=1"]).await.unwrap();
    let answer = client.answer().await.unwrap();
    assert_eq!(answer.head.status, 400);
    assert!(answer.text().contains("`millis`"), "{}", answer.text());
    assert_eq!(pod.gauge().read().peak, 0);
}

#[tokio::test]
async fn shutdown_waits_for_what_is_in_flight_and_kill_does_not() {
    let pod = start(PodOptions::new("a", 20)).await;
    let (addr, gauge) = (pod.addr(), pod.gauge());
    let mut client = asked(&pod, "/?ms=200").await;
    in_use(&pod, 1).await;
    pod.shutdown().await;
    assert_eq!(client.answer().await.unwrap().head.status, 200);
    assert_eq!(gauge.read().served, 1);
    assert!(Raw::connect(addr).await.is_err(), "nobody listens any more");

    let pod = start(PodOptions::new("b", 20)).await;
    let mut client = asked(&pod, "/w/3?hang").await;
    in_use(&pod, 3).await;
    pod.kill();
    assert_eq!(pod.gauge().read().in_use, 0);
    assert!(client.answer().await.is_err());
    assert_eq!(pod.gauge().read().in_use, 0, "the dead pod's units are not given back twice");
}
