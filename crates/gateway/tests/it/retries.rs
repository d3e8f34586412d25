//! What is tried again, and what is not.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use serde_json::json;
use sluicegate_testkit::client::{H2, Raw, get, send};
use sluicegate_testkit::wait::{SOON, until};
use sluicegate_trial::pod::PodOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{Plan, World};

/// An address at which nobody listens.
async fn nobody() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_pod_that_cannot_be_reached_is_left_out_until_it_can() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let good = sluicegate_trial::pod::Pod::start(PodOptions::new("good", 10), listener).unwrap();
    let down = nobody().await;
    let listed = vec![
        json!({"name": "down", "url": format!("http://{down}"), "capacity": 10}),
        json!({"name": "good", "url": good.url(), "capacity": 10}),
    ];
    let world = World::of(vec![good], listed, json!({}));
    for _ in 0..10 {
        // With a body: it must reach the second pod whole.
        let answer = send(world.addr(), "POST", "/x?echo", "payload").await.unwrap();
        assert_eq!((answer.head.status, answer.text().as_str()), (200, "payload"));
        assert_eq!(answer.head.header("x-trial-pod"), "good");
    }
    assert!(!world.now().pods[0].ready);
    assert_eq!(world.now().apis[0].counts.failed, 0);
    let listener = TcpListener::bind(down).await.unwrap();
    let _back = sluicegate_trial::pod::Pod::start(PodOptions::new("down", 10), listener).unwrap();
    until("the pod is ready again", SOON, || world.now().pods[0].ready).await;
    world.assert_quiet().await;
}

#[tokio::test]
async fn without_a_pod_that_can_be_reached_the_answer_says_so() {
    let down = nobody().await;
    let listed = vec![json!({"name": "down", "url": format!("http://{down}"), "capacity": 10})];
    let keys = json!({"admission": {"wait": "0ms"}, "gateway": {
        "listen": "127.0.0.1:0", "workers": 1, "retry": {"attempts": 0}}});
    let world = World::of(Vec::new(), listed, keys);
    let answer = get(world.addr(), "/").await.unwrap();
    assert_eq!(answer.head.status, 502);
    let detail = answer.json().unwrap()["detail"].to_string();
    assert!(detail.contains("pod `down` cannot be reached") && detail.contains("refused"), "{detail}");
    let answer = get(world.addr(), "/").await.unwrap();
    assert_eq!((answer.head.status, answer.head.header("x-sluicegate-reason")), (503, "no_ready_pod"));
    assert!(!answer.head.header("retry-after").is_empty());
    world.assert_quiet().await;
}

#[tokio::test]
async fn a_pods_own_429_goes_back_to_the_queue_with_its_body() {
    // The pod frees its unit 100 ms after the last byte: the second request meets its lock.
    for h2c in [false, true] {
        // The pod's usable units drop for up to 1 s, so the wait must be longer.
        let mut plan = Plan::one_pod(1).with("admission", json!({"wait": "5s"}));
        plan.h2c = h2c;
        plan.pods[0].late = Duration::from_millis(100);
        let world = plan.start().await;
        for _ in 0..2 {
            let answer = send(world.addr(), "POST", "/x?echo", "payload").await.unwrap();
            assert_eq!((answer.head.status, answer.text().as_str()), (200, "payload"), "h2c: {h2c}");
        }
        assert!(world.now().pods[0].refusals >= 1, "the second request was refused by the pod first");
        assert_eq!(world.now().apis[0].counts.admitted, 2, "counted once each");
        world.assert_quiet().await;
    }
}

/// A pod that reads a head and so many bytes after it, answers and closes.
async fn pod_that_reads(bytes: usize, answer: &'static [u8]) -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            stream.read_exact(&mut vec![0; bytes]).await.unwrap();
            stream.write_all(answer).await.unwrap();
        }
    });
    World::of(Vec::new(), vec![json!({"name": "a", "url": url, "capacity": 1})], json!({}))
}

async fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
}

#[tokio::test]
async fn a_body_too_large_to_keep_passes_the_pods_429_on() {
    let world = pod_that_reads(200_000, b"HTTP/1.1 429 Too Many\r\ncontent-length: 4\r\n\r\nlock").await;
    let answer = send(world.addr(), "POST", "/", &"z".repeat(200_000)).await.unwrap();
    assert_eq!((answer.head.status, answer.text().as_str()), (429, "lock"), "the pod's own");
    world.assert_quiet().await;
}

#[tokio::test]
async fn an_answer_before_the_body_was_read_reaches_the_client() {
    // The pod closes with unread bytes: its connection is reset while the gateway still writes.
    let world = pod_that_reads(0, b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig").await;
    for _ in 0..5 {
        let answer = send(world.addr(), "POST", "/", &"z".repeat(5_000_000)).await.unwrap();
        assert_eq!((answer.head.status, answer.text().as_str()), (413, "big"));
        world.assert_quiet().await;
    }
}

#[tokio::test]
async fn when_the_pods_refuse_to_the_end_the_client_gets_our_refusal() {
    let world = Plan::one_pod(1).with("admission", json!({"wait": "50ms"})).start().await;
    let answer = get(world.addr(), "/x?refuse").await.unwrap();
    assert_eq!(answer.head.status, 429);
    assert_ne!(answer.head.header("x-sluicegate-reason"), "", "not the pod's");
    world.assert_quiet().await;
}

#[tokio::test]
async fn an_idle_connection_that_the_pod_has_closed_costs_no_request() {
    // A pod that answers once per connection and closes it without a word.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
    });
    let listed = vec![json!({"name": "a", "url": url, "capacity": 1})];
    let world = World::of(Vec::new(), listed, json!({}));
    let mut client = Raw::connect(world.addr()).await.unwrap();
    for _ in 0..20 {
        assert_eq!(client.get("/").await.unwrap().text(), "ok");
        world.assert_quiet().await;
    }
}

#[tokio::test]
async fn a_stream_that_an_http2_pod_refuses_is_tried_again() {
    // The first stream is refused by REFUSED_STREAM (7), the second answered.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("h2c://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut first = true;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            if std::mem::take(&mut first) {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            } else {
                respond.send_response(http::Response::new(()), true).unwrap();
            }
        }
    });
    let listed = vec![json!({"name": "a", "url": url, "capacity": 1})];
    let world = World::of(Vec::new(), listed, json!({}));
    let h2 = H2::connect(world.addr()).await.unwrap();
    let request = h2.get("/").map(|_| Full::new(Bytes::from_static(b"body")));
    assert_eq!(h2.send(request).await.unwrap().status(), 200);
    assert_eq!(world.now().apis[0].counts.failed, 0);
    world.assert_quiet().await;
}
