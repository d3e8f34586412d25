//! One of two services over Redis dies under load and comes back, and what then happens is what the operator chose.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use sluicegate_testkit::client::{get, send};
use sluicegate_testkit::ports::{free_port, loopback};
use sluicegate_testkit::process::Process;
use sluicegate_testkit::redis::{Redis, RedisOptions};
use sluicegate_testkit::wait::until;
use tokio::task::JoinSet;

use crate::ground::{Asks, CAPACITY, Ground, PODS, SOON, Terms};
use crate::nginx::{Kind, Nginx, Setup};

/// Requests at once at each door: together they ask for more than the pool has.
const LOOPS: usize = 16;
/// Seen so often, a thing is no accident.
const SOME: u64 = 50;

/// What the loops at one door saw: answers by status and reason.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<String, u64>>>);

impl Seen {
    fn count(&self, what: &str) -> u64 {
        self.0.lock().unwrap().get(what).copied().unwrap_or(0)
    }

    /// Waits for so many more of something.
    async fn more(&self, what: &str, count: u64) {
        let wanted = self.count(what) + count;
        until(what, SOON, || self.count(what) >= wanted).await;
    }

    fn all(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap().clone()
    }
}

/// Requests at a door, one after the other, until told.
fn load(door: SocketAddr, seen: &Seen, over: &Arc<AtomicBool>, loops: &mut JoinSet<()>) {
    for number in 0..LOOPS {
        let (seen, over, target) = (seen.clone(), over.clone(), format!("/w/{}?ms=30", number % 3 + 1));
        loops.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let what = match get(door, &target).await {
                    Ok(answer) => {
                        format!("{} {}", answer.head.status, answer.head.header("x-sluicegate-reason"))
                    }
                    Err(error) => format!("broken: {error}"),
                };
                *seen.0.lock().unwrap().entry(what.trim_end().to_owned()).or_default() += 1;
            }
        });
    }
}

/// A second program over the same pods and ledger, and where it is asked.
async fn second(ground: &Ground) -> (Process, SocketAddr) {
    let (decisions, admin) = (loopback(free_port()), loopback(free_port()));
    let config = ground.dir().join("second.yaml");
    std::fs::write(&config, ground.yaml(decisions, admin)).unwrap();
    let program = env!("CARGO_BIN_EXE_sluicegate");
    let mut process = Process::start(program, &["run", "-c", config.to_str().unwrap()]);
    process.http(admin, "/readyz", SOON).await;
    for admin in [ground.admin, admin] {
        let start = std::time::Instant::now();
        loop {
            let state = sluicegate_testkit::client::get_json(admin, "/v1/state").await.unwrap();
            // A new ledger grants nothing at first: it cannot know who ran before.
            let both = state["gates"].as_array().is_some_and(|gates| gates.len() == 2);
            if both && state["ledger"]["recovering"] == false {
                break;
            }
            assert!(start.elapsed() < SOON, "the two do not begin: {state}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
    (process, decisions)
}

/// Takes all units of the pool, so that nobody else holds any, and gives them back.
async fn all_units(decisions: SocketAddr) {
    let mut leases = Vec::new();
    for _ in 0..CAPACITY * PODS as u32 {
        let body = json!({"api": "w1", "wait_ms": 15_000, "hold_ms": 60_000}).to_string();
        let answer = send(decisions, "POST", "/v1/leases", &body).await.unwrap();
        assert_eq!(answer.head.status, 201, "after {}: {}", leases.len(), answer.text());
        leases.push(answer.json().unwrap()["id"].clone());
    }
    let ids = json!({ "ids": leases }).to_string();
    let said = send(decisions, "POST", "/v1/leases/release", &ids).await.unwrap().json().unwrap();
    assert_eq!(said["released"], leases.len(), "{said}");
}

async fn door(ground: &Ground, decisions: SocketAddr, fail_open: bool) -> (Nginx, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = Setup::new(Kind::Nginx, decisions);
    setup.fail_open = fail_open;
    setup.pods = ground.pods.iter().map(sluicegate_trial::pod::PodHandle::addr).collect();
    (setup.start(dir.path()).await, dir)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_services_restarts_under_load() {
    for fail_open in [false, true] {
        let redis = Redis::with(RedisOptions::tcp());
        let mut ground = Ground::start(Terms {
            admission: "wait: 1s, max_hold: 1s".to_owned(),
            rules: format!(
                "ledger: {{redis: \"redis://{}\", ttl: 1s, on_ledger_loss: refuse}}",
                redis.addr()
            ),
            ..Terms::new(Asks::Http)
        })
        .await;
        let (other, other_at) = second(&ground).await;
        let (near, _near_dir) = door(&ground, ground.decisions, fail_open).await;
        let (far, _far_dir) = door(&ground, other_at, fail_open).await;
        let (seen, seen_far, over) = (Seen::default(), Seen::default(), Arc::new(AtomicBool::new(false)));
        let mut loops = JoinSet::new();
        load(near.listen, &seen, &over, &mut loops);
        load(far.listen, &seen_far, &over, &mut loops);
        seen.more("200", SOME).await;
        ground.kill();
        // What was asked before it died is over when others are answered without it.
        if fail_open {
            seen.more("200", LOOPS as u64 + SOME).await;
            assert_eq!(seen.count("503 no_decision"), 0, "{:?}", seen.all());
        } else {
            seen.more("503 no_decision", SOME).await;
        }
        // The pool goes on, also when the ledger has given the dead one's units back.
        seen_far.more("200", SOME).await;
        ground.revive().await;
        ground.until_admitted(SOME).await;
        seen_far.more("200", SOME).await;
        over.store(true, Ordering::Relaxed);
        loops.join_all().await;
        let words = || {
            format!(
                "{}\n{}\n{}\n{}",
                ground.words(),
                other.output(),
                near.process.output(),
                far.process.output()
            )
        };
        for (seen, dies) in [(&seen, true), (&seen_far, false)] {
            let all = seen.all();
            let expected = |what: &str| {
                what.starts_with("200") || what.starts_with("429") || (dies && what == "503 no_decision")
            };
            assert!(all.keys().all(|what| expected(what)), "{all:?}\n{}", words());
        }
        all_units(other_at).await;
        let problems = ground.until_idle().await;
        assert!(problems.is_empty(), "{problems:?}\n{}", words());
        if !fail_open {
            for gauge in ground.gauges() {
                assert!(gauge.peak <= CAPACITY, "{gauge:?}\n{}", words());
            }
        }
    }
}
