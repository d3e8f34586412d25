//! Requests that are kept for later: what clients and pods see.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sluicegate::Gate;
use sluicegate::jobs::Background;
use sluicegate_gateway::{Forwarder, Gateway, Live, OverflowDoor};
use sluicegate_overflow::{FileStore, Overflow, Runner, work_off};
use sluicegate_testkit::client::{Answer, Raw};
use sluicegate_testkit::wait::{SOON, until};
use sluicegate_trial::pod::{Pod, PodHandle, PodOptions};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::world::config;

const LOCATION: &str = "/.sluicegate/jobs/";

struct World {
    gate: Gate,
    gateway: Gateway,
    pod: PodHandle,
    stop: watch::Sender<bool>,
    _folder: TempDir,
}

impl World {
    /// One pod of two units. Api `report` overflows and does not wait.
    async fn start() -> World {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pod = Pod::start(PodOptions::new("a", 2), listener).unwrap();
        let listed = json!({"name": "a", "url": format!("http://{}", pod.addr()), "capacity": 2});
        let apis = json!([
            {"name": "report", "match": "/reports/**", "weight": 2, "wait": "0ms", "overflow": "enqueue"},
            {"name": "hold", "match": "/hold", "weight": 2},
        ]);
        let config = config(vec![listed], json!({"apis": apis}));
        let gate = Gate::new(config.policy.clone()).unwrap();
        let live = Arc::new(Live::new(&gate, &config));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.redb");
        let desk = Overflow::open(Box::new(move || Ok(Box::new(FileStore::open(&path)?) as _)), 3).unwrap();
        let settings = config.overflow.as_ref().unwrap();
        let door = OverflowDoor {
            desk: Arc::new(desk.clone()),
            location: settings.location.clone(),
            body_max: 1000,
        };
        let listen = config.gateway.as_ref().unwrap();
        let gateway = Gateway::start_with(gate.clone(), Arc::clone(&live), listen, Some(door)).unwrap();
        let how = Background { behind: settings.behind, wait: SOON, result_max: 100 };
        let runner = Runner { how, tries: 2, ttl: settings.ttl, lease: SOON };
        let (stop, stopped) = watch::channel(false);
        let forward = Arc::new(Forwarder::new(gate.clone(), live, 2));
        tokio::spawn(work_off(desk, forward, runner, stopped));
        World { gate, gateway, pod, stop, _folder: folder }
    }

    fn addr(&self) -> SocketAddr {
        self.gateway.local_addr()
    }

    async fn ask(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let mut client = Raw::connect(self.addr()).await.unwrap();
        let length = format!("content-length: {}", body.len());
        let headers: Vec<&str> = headers.iter().copied().chain([length.as_str()]).collect();
        client.request(method, path, &headers).await.unwrap();
        client.send(body).await.unwrap();
        client.answer().await.unwrap()
    }

    /// Takes both units until the answer is dropped.
    async fn fill(&self) -> Raw {
        let mut client = Raw::connect(self.addr()).await.unwrap();
        client.request("GET", "/hold?ms=60000&x=1", &[]).await.unwrap();
        until("a full pool", SOON, || self.gate.snapshot().in_use == 2).await;
        client
    }

    async fn done(&self, location: &str) -> Value {
        loop {
            let answer = self.ask("GET", location, &["prefer: wait=10"], "").await;
            let job = answer.json().unwrap();
            if job["state"] == "done" || job["state"] == "failed" {
                return job;
            }
        }
    }

    fn free(&self) {
        self.pod.kill();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

#[tokio::test]
async fn a_request_without_room_is_done_later_and_its_answer_fetched() {
    let world = World::start().await;
    let held = world.ask("POST", "/reports/1?echo=1&ms=1", &[], "now").await;
    assert_eq!((held.head.status, held.text().as_str()), (200, "now"), "with room it is as ever");
    let busy = tokio::spawn({
        let addr = world.addr();
        async move { sluicegate_testkit::client::get(addr, "/hold?ms=300").await.unwrap().head.status }
    });
    until("a full pool", SOON, || world.gate.snapshot().in_use == 2).await;
    let kept = world.ask("POST", "/reports/7?echo=1&status=201", &["x-mine: 1"], "paper").await;
    assert_eq!(kept.head.status, 202, "{}", kept.text());
    let location = kept.head.header("location").to_owned();
    assert!(location.starts_with(LOCATION) && location.len() == LOCATION.len() + 32, "{location}");
    assert!(kept.head.header("retry-after").parse::<u32>().unwrap() >= 1);
    assert_eq!(kept.json().unwrap()["state"], "queued");
    let job = world.done(&location).await;
    assert_eq!((&job["state"], &job["response"]["status"]), (&json!("done"), &json!(201)));
    assert_eq!((&job["response"]["body"], &job["api"]), (&json!("paper"), &json!("report")));
    assert!(job["expires_in_s"].as_u64().unwrap() > 3000);
    let result = world.ask("GET", &format!("{location}/result"), &[], "").await;
    assert_eq!((result.head.status, result.text().as_str()), (201, "paper"));
    assert_eq!(busy.await.unwrap(), 200);
    let counts = world.gate.snapshot().apis[0].counts;
    assert_eq!((counts.enqueued, counts.turned_away(), counts.refused_all()), (1, 0, 1));
    // The answer's own time is over when it is thrown away.
    assert_eq!(world.ask("DELETE", &location, &[], "").await.head.status, 204);
    assert_eq!(world.ask("GET", &location, &[], "").await.head.status, 404);
    assert_eq!(world.pod.gauge().read().refused, 0);
}

#[tokio::test]
async fn who_asks_for_it_is_answered_at_once_also_with_room() {
    let world = World::start().await;
    let kept = world.ask("GET", "/reports/1?bytes=150", &["prefer: respond-async"], "").await;
    assert_eq!((kept.head.status, kept.head.header("preference-applied")), (202, "respond-async"));
    let job = world.done(kept.head.header("location")).await;
    assert_eq!((&job["response"]["status"], &job["response"]["truncated"]), (&json!(200), &json!(true)));
    let result = world.ask("GET", job["result"].as_str().unwrap(), &[], "").await;
    assert_eq!((result.body.len(), result.head.header("x-sluicegate-truncated")), (100, "true"));
    let counts = world.gate.snapshot().apis[0].counts;
    assert_eq!((counts.enqueued, counts.refused_all(), counts.admitted), (1, 0, 1));
}

#[tokio::test]
async fn the_same_key_is_the_same_job_and_for_another_request_it_is_refused() {
    let world = World::start().await;
    let with = |who| ["prefer: respond-async", "idempotency-key: k1", who];
    let first = world.ask("POST", "/reports/1", &with("authorization: a"), "x").await;
    let again = world.ask("POST", "/reports/1", &with("authorization: a"), "x").await;
    assert_eq!(first.head.header("location"), again.head.header("location"));
    // Also where there is room now, and nothing asks for 202: it has its job.
    let plain = world.ask("POST", "/reports/1", &["idempotency-key: k1", "authorization: a"], "x").await;
    assert_eq!((plain.head.status, plain.head.header("location")), (202, first.head.header("location")));
    let other = world.ask("POST", "/reports/1", &with("authorization: a"), "y").await;
    assert_eq!((other.head.status, other.head.header("x-sluicegate-reason")), (422, "key_reused"));
    let stranger = world.ask("POST", "/reports/1", &with("authorization: b"), "x").await;
    assert_ne!(stranger.head.header("location"), first.head.header("location"));
    world.done(first.head.header("location")).await;
    world.done(stranger.head.header("location")).await;
    assert_eq!(world.pod.gauge().read().served, 2);
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_as_ever_or_in_words() {
    let world = World::start().await;
    let _held = world.fill().await;
    let large = world.ask("POST", "/reports/1", &[], &"x".repeat(1001)).await;
    assert_eq!((large.head.status, large.head.header("x-sluicegate-reason")), (413, "body_too_large"));
    for _ in 0..3 {
        assert_eq!(world.ask("GET", "/reports/1", &[], "").await.head.status, 202);
    }
    let full = world.ask("GET", "/reports/1", &[], "").await;
    assert_eq!((full.head.status, full.head.header("x-sluicegate-reason")), (429, "no_room"));
    for path in ["nonsense", &"0".repeat(32), &format!("{}/result", "0".repeat(32))] {
        let missing = world.ask("GET", &format!("{LOCATION}{path}"), &[], "").await;
        assert_eq!(missing.head.header("x-sluicegate-reason"), "no_such_job", "{path}");
    }
    let wrong = world.ask("PUT", &format!("{LOCATION}{}", "0".repeat(32)), &[], "").await;
    assert_eq!((wrong.head.status, wrong.head.header("allow")), (405, "GET, HEAD, DELETE"));
}

#[tokio::test]
async fn a_job_that_is_cancelled_while_it_waits_never_reaches_a_pod() {
    let world = World::start().await;
    let held = world.fill().await;
    let first = world.ask("GET", "/reports/1?ms=1", &[], "").await;
    let location = first.head.header("location").to_owned();
    assert_eq!(world.ask("GET", &format!("{location}/result"), &[], "").await.head.status, 202);
    until("its ask", SOON, || world.gate.snapshot().waiting == 1).await;
    assert_eq!(world.ask("DELETE", &location, &[], "").await.head.status, 204);
    assert_eq!(world.ask("GET", &location, &["prefer: wait=5"], "").await.head.status, 404);
    let served = world.pod.gauge().read().served;
    // The pod dies and frees its units: what waited finds that it is not wanted.
    world.free();
    drop(held);
    until("an empty pool", Duration::from_secs(60), || {
        let now = world.gate.snapshot();
        now.in_use == 0 && now.waiting == 0
    })
    .await;
    assert_eq!(world.pod.gauge().read().served, served);
}
