//! What clients get.

use sluicegate_testkit::client::{H2, Raw, get};
use sluicegate_testkit::wait;

use super::{OPEN, set_up, terms};
use crate::ground::{CAPACITY, Ground, SOON, Terms};

/// Fills the pool with requests that never end, and gives their clients.
async fn fill(ground: &Ground, door: std::net::SocketAddr) -> Vec<Raw> {
    let mut clients = Vec::new();
    for _ in &ground.pods {
        let mut client = Raw::connect(door).await.unwrap();
        client.request("GET", &format!("/w/{CAPACITY}?hang"), &[]).await.unwrap();
        clients.push(client);
    }
    wait::until("the pool is full", SOON, || ground.gauges().iter().all(|gauge| gauge.in_use == CAPACITY))
        .await;
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_refused_and_the_admitted_get_the_contracts_answers() {
    let (ground, door) = set_up(Terms { admission: "wait: 300ms".to_owned(), ..terms() }, &[]).await;
    let admitted = get(door.listen, "/w/1?in_use=1").await.unwrap();
    assert_eq!(admitted.head.status, 200);
    assert_eq!(admitted.head.header("server-timing"), "admission;dur=0");
    assert_eq!(admitted.head.header("x-sluicegate-in-use"), "", "none of the client's business");

    let clients = fill(&ground, door.listen).await;
    let refused = get(door.listen, "/w/2").await.unwrap();
    assert_eq!(refused.head.status, 429);
    assert_eq!(refused.head.header("content-type"), "application/problem+json");
    assert_eq!(refused.head.header("x-sluicegate-reason"), "wait_exceeded");
    assert!(refused.head.header("retry-after").parse::<u32>().unwrap() >= 1);
    let problem = refused.json().unwrap();
    for (key, value) in [("reason", "wait_exceeded"), ("api", "w2"), ("pool", "doors")] {
        assert_eq!(problem[key], value);
    }
    assert_eq!((&problem["status"], &problem["weight"]), (&429.into(), &2.into()));

    let h2 = H2::connect(door.listen).await.unwrap();
    let mut request = h2.get("/w/1");
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let answer = h2.send(request).await.unwrap();
    assert_eq!(answer.status(), 200, "gRPC says it in its own status");
    assert_eq!(
        (&answer.headers()["grpc-status"], &answer.headers()["grpc-message"]),
        (&"8".parse().unwrap(), &"wait_exceeded".parse().unwrap())
    );
    assert_eq!(answer.headers()["x-sluicegate-reason"], "wait_exceeded");
    assert!(answer.headers().contains_key("retry-after"));
    drop(clients);
    assert_eq!(ground.until_idle().await, Vec::<String>::new());
}

/// What a pod's own lock refuses reaches the client, and the pod is spared for a moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pods_own_429_is_passed_on_and_counted() {
    let (ground, door) = set_up(terms(), &[]).await;
    let refused = get(door.listen, "/w/1?refuse").await.unwrap();
    assert_eq!(refused.head.status, 429);
    assert_eq!(refused.head.header("x-sluicegate-reason"), "", "it is the pod's answer");
    ground.until_metric("sluicegate_pod_refusals_total{pod=\"p0\"}", |count| count == 1).await;
    assert_eq!(ground.until_idle().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_names_no_pod_whether_sluicegate_is_there_or_not() {
    let (mut ground, door) = set_up(terms(), &[OPEN]).await;
    let visit = async |to: String| {
        let mut client = Raw::connect(door.listen).await.unwrap();
        client
            .request("GET", "/w/1", &[&format!("x-sg-pod: {to}"), "x-sluicegate-reason: forged"])
            .await
            .unwrap();
        client.answer().await.unwrap()
    };
    let admin = door.admin.unwrap().to_string();
    let second = ground.pods[1].addr().to_string();
    for to in [&admin, &second] {
        assert!(visit(to.clone()).await.head.header("x-trial-pod").starts_with('p'), "{to}");
    }
    ground.kill();
    let mut pods = Vec::new();
    for to in [&admin, &second, &second, &second, &second] {
        let answer = visit(to.clone()).await;
        assert_eq!(answer.head.status, 200, "it lets through: {}", answer.text());
        pods.push(answer.head.header("x-trial-pod").to_owned());
    }
    assert!(pods.iter().any(|pod| pod == "p0"), "the forged header was not obeyed: {pods:?}");
}
