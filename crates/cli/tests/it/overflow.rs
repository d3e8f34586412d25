//! Overflow by the program itself: nothing that was answered 202 is lost, whatever dies.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluicegate_testkit::client::{Raw, get};
use sluicegate_testkit::redis::{Redis, RedisOptions};
use sluicegate_trial::pod::{PodHandle, PodOptions};

use crate::{Folder, Running, pods, say};

/// As long as a busy machine may take.
const LONG: Duration = Duration::from_secs(120);

fn full() -> bool {
    std::env::var_os("SLUICEGATE_FULL").is_some()
}

/// What became of one request.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Served,
    Kept(String),
    /// The gateway died under it: it was promised nothing.
    Broken,
    Refused(u16),
}

async fn one(addr: SocketAddr, number: u64) -> Told {
    let target = format!("/reports/{number}?ms=40&echo=1");
    let body = number.to_string();
    let length = format!("content-length: {}", body.len());
    let ask = async {
        let mut client = Raw::connect(addr).await?;
        client.request("POST", &target, &[&length]).await?;
        client.send(&body).await?;
        client.answer().await
    };
    match ask.await {
        Err(_) => Told::Broken,
        Ok(answer) => match answer.head.status {
            200 => Told::Served,
            202 => Told::Kept(answer.head.header("location").to_owned()),
            status => Told::Refused(status),
        },
    }
}

/// Sends at `rate` a second for `time`, open loop.
async fn load(addr: SocketAddr, first: u64, rate: u64, time: Duration) -> Vec<(u64, Told)> {
    let (begin, mut sent) = (Instant::now(), Vec::new());
    for number in 0..(rate as f64 * time.as_secs_f64()) as u64 {
        let due = Duration::from_secs_f64(number as f64 / rate as f64);
        tokio::time::sleep(due.saturating_sub(begin.elapsed())).await;
        sent.push((first + number, tokio::spawn(one(addr, first + number))));
    }
    let mut told = Vec::new();
    for (number, one) in sent {
        told.push((number, one.await.unwrap()));
    }
    told
}

/// Every job that was promised is done, with its own answer.
async fn all_fetched(addr: SocketAddr, told: &[(u64, Told)]) -> usize {
    let begin = Instant::now();
    let mut kept = 0;
    for (number, told) in told {
        let Told::Kept(location) = told else { continue };
        kept += 1;
        loop {
            let mut client = Raw::connect(addr).await.unwrap();
            client.request("GET", location, &["prefer: wait=10"]).await.unwrap();
            let answer = client.answer().await.unwrap();
            assert_eq!(answer.head.status, 200, "job {location} of request {number}: {}", answer.text());
            let job: Value = answer.json().unwrap();
            if job["state"] == "done" {
                assert_eq!(job["response"]["status"], 200, "{job}");
                assert_eq!(job["response"]["body"], number.to_string(), "{job}");
                break;
            }
            assert!(begin.elapsed() < LONG, "not done: {job}");
        }
    }
    kept
}

fn assert_none_refused(told: &[(u64, Told)]) {
    let refused: Vec<_> = told.iter().filter(|(_, told)| matches!(told, Told::Refused(_))).collect();
    assert!(
        refused.is_empty(),
        "{} of {}: {:?}",
        refused.len(),
        told.len(),
        &refused[..refused.len().min(5)]
    );
}

fn peaks(pods: &[PodHandle]) -> Vec<u32> {
    pods.iter().map(|pod| pod.gauge().read().peak).collect()
}

/// Two pods of 20 units that never refuse, so that an overshoot shows; api `report` overflows.
async fn world() -> (Vec<PodHandle>, String) {
    let (handles, yaml) = pods(2, |name| PodOptions { count_only: true, ..PodOptions::new(name, 20) }).await;
    let rules =
        "apis:\n  - {name: report, match: \"POST /reports/**\", weight: 1, wait: 20ms, overflow: enqueue}\n";
    (handles, format!("{yaml}{rules}"))
}

const LISTEN: &str = "gateway: {listen: \"127.0.0.1:0\"}\nadmin: {listen: \"127.0.0.1:0\"}\n";

/// 300 requests a second of 40 ms on two pods of 4 units: 1.5 times what they can do.
#[tokio::test]
async fn at_one_and_a_half_times_the_capacity_nobody_is_refused_and_a_kill_loses_nothing() {
    let seconds = if full() { 60 } else { 4 };
    let (handles, yaml) = world().await;
    let yaml = yaml.replace("capacity: 20", "capacity: 4");
    let folder = Folder::new(&yaml);
    let store = folder.dir.path().join("jobs.redb");
    folder.write(
        "sluicegate.yaml",
        &format!("{yaml}overflow: {{store: {{path: \"{}\"}}}}\n{LISTEN}", store.display()),
    );
    let mut running = Running::in_folder(folder);
    let time = Duration::from_secs(seconds) / 2;
    let addr = running.gateway;
    let second_half = async {
        tokio::time::sleep(time).await;
        running.process.signal("KILL");
        let _ = running.process.exit(LONG);
        running
    };
    let (mut told, running) = tokio::join!(load(addr, 0, 300, 2 * time), second_half);
    assert_none_refused(&told);
    let again = running.again();
    told.extend(load(again.gateway, 1_000_000, 300, time).await);
    assert_none_refused(&told);
    let kept = all_fetched(again.gateway, &told).await;
    let served = told.iter().filter(|(_, told)| *told == Told::Served).count();
    let broken = told.iter().filter(|(_, told)| *told == Told::Broken).count();
    println!("{} requests: {served} served, {kept} kept and fetched, {broken} cut by the kill", told.len());
    assert!(kept > told.len() / 20, "the overflow was used: {kept} of {}", told.len());
    let metrics = get(again.admin, "/metrics").await.unwrap().text();
    assert!(metrics.contains("outcome=\"enqueued\""), "{metrics}");
    assert!(metrics.contains("sluicegate_requests_total{api=\"report\",outcome=\"refused\"} 0"), "{metrics}");
    // Requests of the killed gateway ran on at the pods beside those of its successor; up to there it is exact.
    assert!(peaks(&handles).iter().all(|peak| *peak <= 8), "{:?}", peaks(&handles));
}

#[tokio::test]
async fn over_redis_another_gate_answers_for_a_job_and_works_off_those_of_a_dead_one() {
    let (handles, yaml) = world().await;
    let redis = Redis::with(RedisOptions::tcp());
    // What the dead gate held comes back after `ttl` and twice its `max_hold`, because until then it may still run on
    // the pods; with the usual 60 s the survivor would have nothing to work with for two minutes.
    let yaml = format!(
        "{yaml}admission: {{max_hold: 2s}}\nledger: {{redis: \"redis://{}\", ttl: 1s}}\n",
        redis.addr()
    );
    let mut dying = Running::start(&yaml);
    let alive = Running::start(&yaml);
    let mut kept = Vec::new();
    for number in 0..60 {
        let target = format!("/reports/{number}?ms=150&echo=1");
        let mut client = Raw::connect(dying.gateway).await.unwrap();
        let headers = ["prefer: respond-async", "content-length: 0"];
        client.request("POST", &target, &headers).await.unwrap();
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.head.status, 202, "{}", answer.text());
        kept.push(answer.head.header("location").to_owned());
    }
    dying.process.signal("KILL");
    let _ = dying.process.exit(LONG);
    let begin = Instant::now();
    for location in &kept {
        loop {
            let mut client = Raw::connect(alive.gateway).await.unwrap();
            client.request("GET", location, &["prefer: wait=10"]).await.unwrap();
            let job: Value = client.answer().await.unwrap().json().unwrap();
            if job["state"] == "done" {
                assert_eq!(job["response"]["status"], 200, "{job}");
                break;
            }
            assert!(begin.elapsed() < LONG, "not done: {job}");
        }
    }
    let served: u64 = handles.iter().map(|pod| pod.gauge().read().served).sum();
    assert!(served >= 60, "each at least once: {served}");
    assert!(peaks(&handles).iter().all(|peak| *peak <= 20), "{:?}", peaks(&handles));
}

#[test]
fn what_overflows_without_a_store_is_said_to_be_kept_in_a_file() {
    let folder = Folder::new(
        "pool: shop\npods:\n  - {name: a, url: \"http://127.0.0.1:9\", capacity: 4}\napis:\n  - {name: x, match: \"/x\", overflow: enqueue}\ngateway: {listen: \"127.0.0.1:0\"}\n",
    );
    let said = say(&["check", "-c", &folder.config()]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("shop-jobs.redb"), "{}", said.out);
}
