//! What goes through, both ways.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use serde_json::json;
use sluicegate_testkit::client::{H2, Raw, get};

use crate::world::{Plan, World};

#[tokio::test]
async fn a_request_gets_the_pods_answer_and_the_time_it_waited() {
    let world = Plan::one_pod(4).start().await;
    let answer = get(world.addr(), "/x?bytes=5&in_use=3").await.unwrap();
    assert_eq!((answer.head.status, answer.text().as_str()), (200, "xxxxx"));
    assert_eq!(answer.head.header("x-trial-pod"), "a");
    assert_eq!(answer.head.header("server-timing"), "admission;dur=0");
    assert_eq!(answer.head.header("x-sluicegate-in-use"), "", "the pod's word is for the gate");
    assert_eq!(world.now().apis.last().unwrap().counts.admitted, 1);
    world.assert_quiet().await;
}

#[tokio::test]
async fn one_connection_carries_many_requests_to_a_pod() {
    let world = Plan::one_pod(4).start().await;
    let mut client = Raw::connect(world.addr()).await.unwrap();
    for _ in 0..50 {
        assert_eq!(client.get("/").await.unwrap().head.status, 200);
    }
    assert_eq!(world.pods[0].gauge().read().served, 50);
    world.assert_quiet().await;
}

#[tokio::test]
async fn bodies_stream_both_ways_over_each_protocol() {
    for h2c in [false, true] {
        let mut plan = Plan::one_pod(4);
        plan.h2c = h2c;
        let world = plan.start().await;
        let mut client = Raw::connect(world.addr()).await.unwrap();
        client
            .request("POST", "/up?echo", &["transfer-encoding: chunked", "expect: 100-continue"])
            .await
            .unwrap();
        assert_eq!(client.head().await.unwrap().status, 100, "asked to go on once admitted");
        client.send("5\r\nhello\r\n").await.unwrap();
        assert_eq!(client.head().await.unwrap().status, 200, "the answer begins before the request ends");
        assert_eq!(client.chunk().await.unwrap().unwrap(), b"hello");
        client.send("6\r\n world\r\n0\r\n\r\n").await.unwrap();
        assert_eq!(client.chunk().await.unwrap().unwrap(), b" world");
        assert_eq!(client.chunk().await.unwrap(), None);

        let big = vec![b'y'; 300_000];
        let h2 = H2::connect(world.addr()).await.unwrap();
        let request = h2.get("/up?echo").map(|_| Full::new(Bytes::from(big.clone())));
        let answer = h2.send(request).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), big);
        world.assert_quiet().await;
    }
}

#[tokio::test]
async fn trailers_pass() {
    for h2c in [false, true] {
        let mut plan = Plan::one_pod(4);
        plan.h2c = h2c;
        let world = plan.start().await;
        let h2 = H2::connect(world.addr()).await.unwrap();
        let mut request = h2.get("/x?trailers&bytes=3");
        request.headers_mut().insert("te", "trailers".parse().unwrap());
        let body = h2.send(request).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["x-trial-end"], "yes", "h2c: {h2c}");
        world.assert_quiet().await;
    }
}

#[tokio::test]
async fn the_head_of_an_answer_without_a_body_passes() {
    let world = Plan::one_pod(4).start().await;
    let mut client = Raw::connect(world.addr()).await.unwrap();
    client.request("HEAD", "/x?bytes=1234", &[]).await.unwrap();
    assert_eq!(client.head().await.unwrap().header("content-length"), "1234");
    assert_eq!(client.get("/x?status=204").await.unwrap().head.status, 204);
    client.send("GET http://named/x?bytes=1 HTTP/1.1\r\nhost: other\r\n\r\n").await.unwrap();
    assert_eq!(client.answer().await.unwrap().text(), "x", "the absolute form is served");
    world.assert_quiet().await;
}

#[tokio::test]
async fn an_exempt_request_holds_nothing() {
    let plan = Plan::one_pod(1)
        .with("apis", json!([{"name": "health", "match": "GET /w/0/**", "exempt": true}]))
        .with("admission", json!({"wait": "0ms"}));
    let world = plan.start().await;
    let all = world.gate.try_acquire(sluicegate::Ask::new(world.gate.api_id("default").unwrap())).unwrap();
    assert_eq!(get(world.addr(), "/w/0/health").await.unwrap().head.status, 200);
    assert_eq!(get(world.addr(), "/other").await.unwrap().head.status, 429);
    assert_eq!(world.now().apis[0].counts.exempt, 1);
    drop(all);
    world.assert_quiet().await;
}

#[tokio::test]
async fn a_refusal_comes_before_the_body_is_read() {
    let world = Plan::one_pod(1).with("admission", json!({"wait": "0ms"})).start().await;
    let all = world.gate.try_acquire(sluicegate::Ask::new(world.gate.api_id("default").unwrap())).unwrap();
    let mut client = Raw::connect(world.addr()).await.unwrap();
    client.request("POST", "/up", &["content-length: 1000000000", "expect: 100-continue"]).await.unwrap();
    let refused = client.answer().await.unwrap();
    assert_eq!(refused.head.status, 429, "and no 100 before it");
    assert_eq!(refused.head.header("x-sluicegate-reason"), "no_room");
    assert!(refused.head.header("retry-after").parse::<u32>().unwrap() >= 1);
    let problem = refused.json().unwrap();
    assert_eq!((&problem["reason"], &problem["pool"]), (&json!("no_room"), &json!("trial")));

    // A client that sends it all the same reads its answer nevertheless, and is not reset.
    let mut client = Raw::connect(world.addr()).await.unwrap();
    client.request("POST", "/up", &["content-length: 4000000"]).await.unwrap();
    client.send(vec![0; 4_000_000]).await.unwrap();
    assert_eq!(client.answer().await.unwrap().head.status, 429);
    assert_eq!(world.pods[0].gauge().read().served, 0);
    drop(all);
    world.assert_quiet().await;
}

#[tokio::test]
async fn a_grpc_client_gets_its_own_kind_of_refusal() {
    let world = Plan::one_pod(1).with("admission", json!({"wait": "0ms"})).start().await;
    let all = world.gate.try_acquire(sluicegate::Ask::new(world.gate.api_id("default").unwrap())).unwrap();
    let h2 = H2::connect(world.addr()).await.unwrap();
    let ask = async |h2: &H2| {
        let mut request = h2.get("/shop.Orders/Place");
        request.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
        h2.send(request).await.unwrap()
    };
    let refused = ask(&h2).await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["grpc-status"]), (200, &"8".parse().unwrap()));
    assert_eq!(refused.headers()["grpc-message"], "no_room");
    assert!(http_body::Body::is_end_stream(refused.body()), "trailers only");
    drop(all);
    world.gate.set_ready(sluicegate::PodId(0), false);
    assert_eq!(ask(&h2).await.headers()["grpc-status"], "14");
    world.assert_quiet().await;
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel_that_holds_its_lease() {
    let apis = json!([{"name": "handshake", "match": "GET /ws/short", "upgrade": "handshake"}]);
    let world = Plan::one_pod(4).with("apis", apis).start().await;
    let mut client = Raw::connect(world.addr()).await.unwrap();
    client.request("GET", "/ws", &["connection: upgrade", "upgrade: echo"]).await.unwrap();
    let head = client.head().await.unwrap();
    assert_eq!((head.status, head.header("upgrade")), (101, "echo"));
    client.send("ping").await.unwrap();
    assert_eq!(client.exactly(4).await.unwrap(), b"ping");
    assert_eq!((world.now().in_use, world.pod_in_use()), (1, 1), "both count it while it is open");
    drop(client);
    world.assert_quiet().await;
}

#[tokio::test]
async fn an_answer_over_the_longest_stream_is_cut() {
    for h2c in [false, true] {
        let mut plan = Plan::one_pod(4).with("admission", json!({"max_stream": "50ms"}));
        plan.h2c = h2c;
        let world = plan.start().await;
        let mut client = Raw::connect(world.addr()).await.unwrap();
        client.request("GET", "/x?chunks=2&every=60000", &[]).await.unwrap();
        assert_eq!(client.head().await.unwrap().status, 200);
        client.chunk().await.unwrap();
        client.chunk().await.expect_err("the stream ends without its last chunk");
        world.assert_quiet().await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_cannot_hold_units_over_the_longest_stream() {
    let world = Plan::one_pod(4).with("admission", json!({"max_stream": "50ms"})).start().await;
    let mut client = Raw::connect(world.addr()).await.unwrap();
    client.request("GET", "/x?bytes=100000000", &[]).await.unwrap();
    world.until_in_use(1).await;
    world.assert_quiet().await;
    drop(client);
}

#[tokio::test]
async fn several_workers_share_one_address_and_one_gate() {
    let plan = Plan::one_pod(4).with("gateway", json!({"listen": "127.0.0.1:0", "workers": 3}));
    let world: World = plan.start().await;
    for _ in 0..20 {
        assert_eq!(get(world.addr(), "/").await.unwrap().head.status, 200);
    }
    assert_eq!(world.now().apis[0].counts.admitted, 20);
    world.assert_quiet().await;
}

#[tokio::test]
async fn forwarded_headers_reach_the_pod_and_forged_ones_do_not() {
    // A pod of one request that shows what it was sent.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        String::from_utf8(head).unwrap()
    });
    let listed = vec![json!({"name": "a", "url": url, "capacity": 1})];
    let world = World::of(Vec::new(), listed, json!({}));
    let mut client = Raw::connect(world.addr()).await.unwrap();
    let forged = ["x-sluicegate-in-use: 9", "connection: x-private", "x-private: 1"];
    client.request("GET", "/shown?q=1", &forged).await.unwrap();
    assert_eq!(client.answer().await.unwrap().head.status, 200);
    let seen = seen.await.unwrap();
    assert!(seen.starts_with("GET /shown?q=1 HTTP/1.1\r\n"), "{seen}");
    for line in
        ["host: test", "x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http", "x-forwarded-host: test"]
    {
        assert!(seen.contains(&format!("{line}\r\n")), "{line} in {seen}");
    }
    assert!(!seen.contains("x-sluicegate") && !seen.contains("x-private"), "{seen}");
    world.assert_quiet().await;
}

#[tokio::test]
async fn a_change_of_the_configuration_reaches_the_next_request() {
    let mut plan = Plan::one_pod(4);
    plan.pods.push(sluicegate_trial::pod::PodOptions::new("b", 4));
    let world = plan.start().await;
    let mut client = Raw::connect(world.addr()).await.unwrap();
    client.get("/w/1").await.unwrap();
    // Pod `a` moves to where `b` was, and the path becomes an api of its own that is heavier.
    let moved = crate::world::config(
        vec![json!({"name": "a", "url": world.pods[1].url(), "capacity": 4})],
        json!({"apis": [{"name": "heavy", "match": "/w/**", "weight": 3}]}),
    );
    world.gate.configure(moved.policy.clone()).unwrap();
    world.live.update(&world.gate, &moved);
    for _ in 0..5 {
        let answer = client.get("/w/3").await.unwrap();
        assert_eq!((answer.head.status, answer.head.header("x-trial-pod")), (200, "b"));
    }
    let now = world.now();
    let heavy = now.apis.iter().find(|api| api.name == "heavy").unwrap();
    assert_eq!((heavy.weight, heavy.counts.admitted), (3, 5));
    world.assert_quiet().await;
}

#[tokio::test]
async fn with_a_fairness_header_each_caller_has_its_turn() {
    // One caller has many requests in the queue before another's first one: the other is served
    // second, not last.
    let world = Plan::one_pod(1)
        .with("admission", json!({"wait": "20s", "order": {"fair": {"header": "x-caller"}}}))
        .start()
        .await;
    let only_unit = world.gate.try_acquire(sluicegate::Ask::new(sluicegate::ApiId(0))).unwrap();
    let done = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut running = Vec::new();
    for (number, caller) in ["many", "many", "many", "many", "one"].into_iter().enumerate() {
        let (addr, done) = (world.addr(), done.clone());
        running.push(tokio::spawn(async move {
            let mut client = Raw::connect(addr).await.unwrap();
            client.request("GET", "/x?ms=20", &[&format!("x-caller: {caller}")]).await.unwrap();
            assert_eq!(client.answer().await.unwrap().head.status, 200);
            done.lock().unwrap().push(caller);
        }));
        world.until_waiting(number as u64 + 1).await;
    }
    drop(only_unit);
    for one in running {
        one.await.unwrap();
    }
    let order = done.lock().unwrap().clone();
    assert!(order.iter().position(|caller| *caller == "one").unwrap() <= 1, "{order:?}");
    world.assert_quiet().await;
}
