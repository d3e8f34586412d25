//! Clients and pods that do not speak as they should: a clear answer each, and life goes on.

use serde_json::json;
use sluicegate_gateway::Gateway;
use sluicegate_testkit::client::{Raw, get};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::world::{Plan, World, config};

#[tokio::test]
async fn a_header_of_a_mebibyte_is_answered_431() {
    let world = Plan::one_pod(1).start().await;
    let mut client = Raw::connect(world.addr()).await.unwrap();
    let giant = format!("x-giant: {}", "g".repeat(1 << 20));
    // The gateway may close while this is being written.
    let _ = client.request("GET", "/", &[&giant]).await;
    assert_eq!(client.head().await.unwrap().status, 431);
    assert_eq!(get(world.addr(), "/").await.unwrap().head.status, 200);
    world.assert_quiet().await;
}

#[tokio::test]
async fn garbage_is_answered_400() {
    let world = Plan::one_pod(1).start().await;
    for garbage in ["\u{1}\u{2}garbage\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n", "GET\r\n\r\n"] {
        let mut client = Raw::connect(world.addr()).await.unwrap();
        client.send(garbage).await.unwrap();
        assert_eq!(client.head().await.unwrap().status, 400, "{garbage:?}");
    }
    let mut client = Raw::connect(world.addr()).await.unwrap();
    let smuggled = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello";
    client.send(smuggled).await.unwrap();
    assert_eq!(client.head().await.unwrap().status, 400, "two lengths");
    assert_eq!(get(world.addr(), "/").await.unwrap().head.status, 200);
    world.assert_quiet().await;
}

#[tokio::test]
async fn a_malformed_chunk_ends_the_request_at_the_pod_too() {
    let world = Plan::one_pod(1).start().await;
    let mut client = Raw::connect(world.addr()).await.unwrap();
    client.request("POST", "/x?hang", &["transfer-encoding: chunked"]).await.unwrap();
    world.until_in_use(1).await;
    client.send("zz\r\n").await.unwrap();
    world.assert_quiet().await;
    assert_eq!(get(world.addr(), "/w/0").await.unwrap().head.status, 200);
}

#[tokio::test]
async fn connect_is_not_served() {
    let world = Plan::one_pod(1).start().await;
    let mut client = Raw::connect(world.addr()).await.unwrap();
    client.send("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n").await.unwrap();
    assert_eq!(client.head().await.unwrap().status, 405);
    world.assert_quiet().await;
}

/// A pod that reads a little, says `words` and closes.
async fn pod_that_says(words: &'static [u8]) -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut some = [0; 64];
            let _ = stream.read(&mut some).await;
            let _ = stream.write_all(words).await;
        }
    });
    World::of(Vec::new(), vec![json!({"name": "odd", "url": url, "capacity": 1})], json!({}))
}

#[tokio::test]
async fn a_pod_that_is_not_http_is_answered_502() {
    for (words, why) in [
        (&b"220 mail.example ESMTP ready\r\n"[..], "did not answer in HTTP"),
        (&b"\x00\x00\x00\x00garbage\r\n\r\n"[..], "did not answer in HTTP"),
        (&b""[..], "pod `odd`"),
        (&b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"[..], "pod `odd`"),
        (&b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"[..], "did not answer in HTTP"),
    ] {
        let world = pod_that_says(words).await;
        for _ in 0..2 {
            let answer = get(world.addr(), "/").await.unwrap();
            assert_eq!(answer.head.status, 502, "{words:?}");
            let detail = answer.json().unwrap()["detail"].to_string();
            assert!(detail.contains(why), "{detail}");
        }
        assert_eq!(world.now().apis[0].counts.failed, 2);
        world.assert_quiet().await;
    }
}

#[tokio::test]
async fn a_port_in_use_is_an_error_for_one_worker_and_for_several() {
    for workers in [1, 2] {
        let world = Plan::one_pod(1)
            .with("gateway", json!({"listen": "127.0.0.1:0", "workers": workers}))
            .start()
            .await;
        for others in [1, 2] {
            let listed = vec![json!({"name": "a", "url": "http://127.0.0.1:9", "capacity": 1})];
            let keys = json!({"gateway": {"listen": world.addr().to_string(), "workers": others}});
            let config = config(listed, keys);
            let mut settings = config.gateway.clone().unwrap();
            settings.listen = world.addr();
            let Err(error) = Gateway::start(world.gate.clone(), world.live.clone(), &settings) else {
                panic!("{workers} and {others} workers share a port");
            };
            let text = error.to_string();
            assert!(text.contains(&world.addr().to_string()) && text.contains("mend: "), "{text}");
        }
        assert_eq!(get(world.addr(), "/").await.unwrap().head.status, 200);
    }
}
