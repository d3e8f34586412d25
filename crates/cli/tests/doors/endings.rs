//! Endings that the matrix does not have: what befalls nginx itself, and pods that work on without their client.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use sluicegate_testkit::client::{Answer, Raw, get};
use sluicegate_trial::pod::OnDisconnect;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::ground::{Asks, CAPACITY, Ground, PODS, SOON, Terms};
use crate::nginx::{Kind, Nginx, Setup, plugins};

/// Leases live so long unrenewed, where a test waits for that; twice what its pods work.
const HOLD_MS: u32 = 3000;

async fn ground(on_disconnect: OnDisconnect) -> Ground {
    Ground::start(Terms { on_disconnect, ..Terms::new(Asks::Http) }).await
}

/// Waits until a request is at a pod.
async fn until_at_pods(ground: &Ground, units: u32) {
    let at_pods = || ground.gauges().iter().map(|gauge| gauge.in_use).sum::<u32>() == units;
    sluicegate_testkit::wait::until("units at the pods", SOON, at_pods).await;
}

/// Nothing is held anywhere, and so many were admitted.
async fn over(ground: &Ground, nginx: &Nginx, admitted: u64) {
    let problems = ground.until_idle().await;
    assert!(problems.is_empty(), "{problems:?}\n{}", nginx.process.output());
    let outcomes = ground.outcomes().await;
    assert_eq!(outcomes.get("admitted"), Some(&admitted), "{outcomes:?}\n{}", nginx.process.output());
    for gauge in ground.gauges() {
        assert!(gauge.peak <= CAPACITY, "{gauge:?}");
    }
}

/// Units in use, by the program's word.
async fn in_use(ground: &Ground) -> u64 {
    ground.in_use().await.iter().sum()
}

async fn sent(door: SocketAddr, target: &str) -> Raw {
    let mut client = Raw::connect(door).await.unwrap();
    client.request("GET", target, &[]).await.unwrap();
    client
}

fn reason(answer: &Answer) -> &str {
    answer.head.header("x-sluicegate-reason")
}

/// A door of each kind before pods of this kind.
async fn each(on_disconnect: OnDisconnect, test: impl AsyncFn(Ground, Setup)) {
    for kind in [Kind::Nginx, Kind::Kong, Kind::Apisix] {
        let ground = ground(on_disconnect).await;
        let mut setup = Setup::new(kind, ground.decisions);
        setup.stops = on_disconnect == OnDisconnect::Stops;
        test(ground, setup).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_and_a_refusal_are_passed_on_whole() {
    each(OnDisconnect::Stops, async |ground, setup| {
        let nginx = setup.start(ground.dir()).await;
        let answer = get(nginx.listen, "/w/1").await.unwrap();
        assert_eq!(answer.head.status, 200, "{}", nginx.process.output());
        assert!(answer.head.header("server-timing").starts_with("admission;dur="), "{answer:?}");
        let mut full = Vec::new();
        for _ in 0..PODS {
            full.push(sent(nginx.listen, &format!("/w/{CAPACITY}?hang")).await);
        }
        until_at_pods(&ground, CAPACITY * PODS as u32).await;
        let answer = get(nginx.listen, "/w/1").await.unwrap();
        assert_eq!((answer.head.status, reason(&answer)), (429, "wait_exceeded"), "{answer:?}");
        assert_eq!(answer.head.header("content-type"), "application/problem+json");
        assert!(
            answer.head.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0),
            "{answer:?}"
        );
        assert_eq!(answer.json().unwrap()["reason"], "wait_exceeded");
        drop(full);
        over(&ground, &nginx, 1 + PODS as u64).await;
    })
    .await;
}

/// The ways that docs/kong.md and docs/apisix.md name: a rock, and a folder of copies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plugins_run_as_they_are_installed() {
    for kind in [Kind::Kong, Kind::Apisix] {
        let ground = ground(OnDisconnect::Stops).await;
        let mut setup = Setup::new(kind, ground.decisions);
        let tree = ground.dir().join("installed");
        setup.installed = Some(if kind == Kind::Kong {
            let rockspec = "kong/kong-plugin-sluicegate-0.1.0-1.rockspec";
            let options = ["--lua-version", "5.1", "make", "--deps-mode", "none", "--tree"];
            let mut luarocks = Command::new("luarocks");
            luarocks.current_dir(plugins()).args(options).arg(&tree).arg(rockspec);
            let made = luarocks.output().unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            tree.join("share/lua/5.1")
        } else {
            let copied = Command::new("cp").arg("-r").arg(plugins().join("apisix")).arg(&tree).status();
            assert!(copied.unwrap().success());
            std::fs::copy(plugins().join("nginx/sluicegate.lua"), tree.join("sluicegate.lua")).unwrap();
            tree
        });
        let nginx = setup.start(ground.dir()).await;
        let answer = get(nginx.listen, "/w/1").await.unwrap();
        assert_eq!(answer.head.status, 200, "{}", nginx.process.output());
        over(&ground, &nginx, 1).await;
    }
}

/// apisix#11868: what another plugin answers after ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_plugin_may_answer_after_ours() {
    each(OnDisconnect::Stops, async |ground, setup| {
        if setup.kind == Kind::Nginx {
            return;
        }
        let nginx = setup.start(ground.dir()).await;
        let answer = get(nginx.listen, "/w/1?exit=later").await.unwrap();
        assert_eq!(
            (answer.head.status, answer.text().as_str()),
            (418, "teapot"),
            "{}",
            nginx.process.output()
        );
        over(&ground, &nginx, 1).await;
    })
    .await;
}

/// The client has gone, the pod works on: its units are its until it ends; or to the end of their hold if it was
/// streaming, because nginx hangs up on it then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_works_on_keeps_its_units() {
    each(OnDisconnect::Continues, async |ground, mut setup| {
        setup.hold_ms = Some(HOLD_MS);
        let nginx = setup.start(ground.dir()).await;
        for target in ["/w/2?ms=1000", "/w/2?chunks=3&every=500"] {
            let client = sent(nginx.listen, target).await;
            until_at_pods(&ground, 2).await;
            client.abort().unwrap();
            while in_use(&ground).await == 2 {
                sleep(Duration::from_millis(5)).await;
            }
            let at_pods: u32 = ground.gauges().iter().map(|gauge| gauge.in_use).sum();
            assert_eq!(at_pods, 0, "{target}: given back while the pod worked\n{}", nginx.process.output());
        }
        over(&ground, &nginx, 2).await;
        assert_eq!(ground.metric("sluicegate_units_abandoned_total").await, 2, "the stream's");
    })
    .await;
}

/// nginx gives up on a pod (504), and nobody sees the pod's end: the units stay until the hold is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_given_up_keeps_its_units_for_a_hold() {
    each(OnDisconnect::Continues, async |ground, mut setup| {
        setup.hold_ms = Some(HOLD_MS);
        let nginx = setup.start(ground.dir()).await;
        let answer = get(nginx.listen, "/w/2/late?ms=2000").await.unwrap();
        assert_eq!(answer.head.status, 504, "{answer:?}");
        assert_eq!(in_use(&ground).await, 2, "the pod works on\n{}", nginx.process.output());
        until_at_pods(&ground, 0).await;
        over(&ground, &nginx, 1).await;
        assert_eq!(ground.metric("sluicegate_units_abandoned_total").await, 2, "written off by the hold");
    })
    .await;
}

/// lua-resty-limit-traffic#73: redirects within nginx empty `ngx.ctx`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn error_pages_lose_and_double_nothing() {
    let ground = ground(OnDisconnect::Stops).await;
    let mut setup = Setup::new(Kind::Nginx, ground.decisions);
    setup.server = "
        error_page 502 504 /sorry;
        location = /sorry { return 200 sorry; }
        location /again {
            access_by_lua_block { sluicegate.access() }
            proxy_pass http://pods/w/1?reset=head;
            error_page 502 = @again;
        }
        location @again {
            access_by_lua_block { sluicegate.access() }
            rewrite ^ /w/1 break;
            proxy_pass http://pods;
        }
        location /outside {
            access_by_lua_block { sluicegate.access() return ngx.exec('/w/1') }
        }"
    .to_owned();
    setup.error_pages = Some("error_page 502 504 /sorry;");
    let nginx = setup.start(ground.dir()).await;
    let cases = [
        ("/w/1?reset=head", 502, "sorry"),
        ("/w/1/late?hang", 504, "sorry"),
        ("/again", 200, "xx"),
        ("/outside", 200, "xx"),
        ("/w/1", 200, "xx"),
    ];
    for (number, (target, status, says)) in cases.into_iter().enumerate() {
        let answer = get(nginx.listen, target).await.unwrap();
        let saw = (answer.head.status, answer.text());
        assert_eq!(saw, (status, says.to_owned()), "{target}\n{}", nginx.process.output());
        over(&ground, &nginx, number as u64 + 1).await;
    }
}

/// What a pod did not take up runs on another, or again, within its wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pods_own_refusal_is_tried_again() {
    let ground = ground(OnDisconnect::Stops).await;
    let nginx = Setup::new(Kind::Nginx, ground.decisions).start(ground.dir()).await;
    let answer = get(nginx.listen, "/w/1?refuse").await.unwrap();
    assert_eq!(
        (answer.head.status, reason(&answer)),
        (429, "pod_full"),
        "{answer:?}\n{}",
        nginx.process.output()
    );
    let problems = ground.until_idle().await;
    assert!(problems.is_empty(), "{problems:?}");
    let outcomes = ground.outcomes().await;
    assert_eq!(outcomes.get("admitted"), Some(&1), "one request, three runs: {outcomes:?}");
    ground.pods[0].kill();
    let mut client = Raw::connect(nginx.listen).await.unwrap();
    client.request("POST", "/w/1?echo", &["content-length: 5"]).await.unwrap();
    client.send("hello").await.unwrap();
    let answer = client.answer().await.unwrap();
    assert_eq!(
        (answer.head.status, answer.text().as_str()),
        (200, "hello"),
        "{answer:?}\n{}",
        nginx.process.output()
    );
    let problems = ground.until_idle().await;
    assert!(problems.is_empty(), "{problems:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_leaves_its_units_to_their_hold() {
    each(OnDisconnect::Continues, async |ground, mut setup| {
        (setup.hold_ms, setup.workers) = (Some(HOLD_MS), 1);
        let nginx = setup.start(ground.dir()).await;
        let client = sent(nginx.listen, "/w/3?ms=1500").await;
        until_at_pods(&ground, 3).await;
        let before = nginx.workers();
        assert_eq!(before.len(), 1);
        let killed = Command::new("kill").args(["-KILL", &before[0].to_string()]).status();
        assert!(killed.unwrap().success());
        ground.until_serves(nginx.listen).await;
        assert_ne!(nginx.workers(), before, "the master has started another");
        until_at_pods(&ground, 0).await;
        drop(client);
        let problems = ground.until_idle().await;
        assert!(problems.is_empty(), "{problems:?}\n{}", nginx.process.output());
        assert_eq!(ground.metric("sluicegate_units_abandoned_total").await, 3, "written off by the hold");
    })
    .await;
}

/// A worker that goes ends its requests first, renews their leases meanwhile, and gives them back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_in_flight_loses_nothing() {
    each(OnDisconnect::Continues, async |ground, mut setup| {
        setup.hold_ms = Some(1000);
        let nginx = setup.start(ground.dir()).await;
        let mut clients = JoinSet::new();
        for target in ["/w/1?ms=500", "/w/2?chunks=4&every=1000", "/w/3?ms=3000"] {
            let mut client = sent(nginx.listen, target).await;
            clients.spawn(async move { client.answer().await.map(|answer| answer.head.status) });
        }
        until_at_pods(&ground, 6).await;
        let before = nginx.workers();
        nginx.signal("reload");
        sluicegate_testkit::wait::until("new workers", SOON, || {
            let now = nginx.workers();
            now.len() > before.len() || now.iter().any(|pid| !before.contains(pid))
        })
        .await;
        assert_eq!(get(nginx.listen, "/w/1").await.unwrap().head.status, 200);
        let statuses: Vec<u16> = clients.join_all().await.into_iter().map(Result::unwrap).collect();
        assert_eq!(statuses, [200, 200, 200]);
        over(&ground, &nginx, 4).await;
        assert_eq!(
            ground.metric("sluicegate_units_abandoned_total").await,
            0,
            "renewed to their end\n{}",
            nginx.process.output()
        );
        sluicegate_testkit::wait::until("the old workers end", SOON, || {
            nginx.workers().iter().all(|pid| !before.contains(pid))
        })
        .await;
    })
    .await;
}

/// The service dies under load: what happens then is what the operator chose.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_service_requests_pass_or_are_refused_as_configured() {
    for fail_open in [true, false] {
        let mut ground = ground(OnDisconnect::Stops).await;
        let mut setup = Setup::new(Kind::Nginx, ground.decisions);
        setup.fail_open = fail_open;
        setup.pods = ground.pods.iter().map(sluicegate_trial::pod::PodHandle::addr).collect();
        let nginx = setup.start(ground.dir()).await;
        let running = sent(nginx.listen, "/w/1?ms=1000").await;
        until_at_pods(&ground, 1).await;
        ground.kill();
        for _ in 0..20 {
            let answer = get(nginx.listen, "/w/1").await.unwrap();
            if fail_open {
                assert_eq!(answer.head.status, 200, "{}", nginx.process.output());
            } else {
                assert_eq!((answer.head.status, reason(&answer)), (503, "no_decision"));
                assert_eq!(answer.head.header("retry-after"), "1");
            }
        }
        ground.revive().await;
        let start = Instant::now();
        while ground.outcomes().await.get("admitted").is_none_or(|admitted| *admitted == 0) {
            get(nginx.listen, "/w/1").await.unwrap();
            assert!(start.elapsed() < SOON, "never asked again\n{}", nginx.process.output());
        }
        let mut running = running;
        assert_eq!(running.answer().await.unwrap().head.status, 200, "what ran runs to its end");
        let problems = ground.until_idle().await;
        assert!(problems.is_empty(), "{problems:?}");
    }
}

/// The service hangs: asks are given up, and when it goes on it has nothing left of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_hangs_holds_nobody_up_for_long() {
    let mut ground = ground(OnDisconnect::Stops).await;
    let mut setup = Setup::new(Kind::Nginx, ground.decisions);
    (setup.fail_open, setup.answer_ms, setup.workers) = (true, 300, 1);
    setup.pods = ground.pods.iter().map(sluicegate_trial::pod::PodHandle::addr).collect();
    let nginx = setup.start(ground.dir()).await;
    ground.until_serves(nginx.listen).await;
    ground.program().signal("STOP");
    for _ in 0..20 {
        assert_eq!(get(nginx.listen, "/w/1").await.unwrap().head.status, 200, "{}", nginx.process.output());
    }
    let given_up = nginx.process.output().matches("no decision").count();
    ground.program().signal("CONT");
    assert!((3..20).contains(&given_up), "{given_up} of 20 waited for it\n{}", nginx.process.output());
    let before = ground.outcomes().await;
    let start = Instant::now();
    while ground.outcomes().await.get("admitted") <= before.get("admitted") {
        get(nginx.listen, "/w/1").await.unwrap();
        assert!(start.elapsed() < SOON, "never asked again\n{}", nginx.process.output());
    }
    let problems = ground.until_idle().await;
    assert!(problems.is_empty(), "{problems:?}\n{}", nginx.process.output());
    assert_eq!(ground.metric("sluicegate_units_abandoned_total").await, 0);
}

/// A timer for each release would fail when there are many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_need_no_timer_each() {
    let ground = ground(OnDisconnect::Stops).await;
    let mut setup = Setup::new(Kind::Nginx, ground.decisions);
    setup.http = "lua_max_pending_timers 2; lua_max_running_timers 3;";
    let nginx = setup.start(ground.dir()).await;
    // Many requests that end at one moment, with their pods.
    let mut clients = JoinSet::new();
    for _ in 0..CAPACITY * PODS as u32 {
        let door = nginx.listen;
        clients.spawn(async move { get(door, "/w/1?hang").await });
    }
    until_at_pods(&ground, CAPACITY * PODS as u32).await;
    ground.pods.iter().for_each(sluicegate_trial::pod::PodHandle::kill);
    clients.join_all().await;
    over(&ground, &nginx, u64::from(CAPACITY) * PODS as u64).await;
    let printed = nginx.process.output();
    assert!(!printed.contains("timers are not enough") && !printed.contains("no timer"), "{printed}");
}

/// The queue is left at once by a client that leaves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_while_waiting_is_dropped_at_once() {
    each(OnDisconnect::Stops, async |ground, mut setup| {
        setup.wait_ms = Some(60_000);
        let nginx = setup.start(ground.dir()).await;
        let mut full = Vec::new();
        for _ in 0..PODS {
            full.push(sent(nginx.listen, &format!("/w/{CAPACITY}?hang")).await);
        }
        until_at_pods(&ground, CAPACITY * PODS as u32).await;
        for number in 0..3u64 {
            let waits = sent(nginx.listen, "/w/1").await;
            let start = Instant::now();
            ground.until_waiting(1, SOON).await;
            waits.abort().unwrap();
            while ground.outcomes().await.get("cancelled").copied().unwrap_or(0) <= number {
                assert!(start.elapsed() < SOON, "still waits\n{}", nginx.process.output());
            }
        }
        drop(full);
        over(&ground, &nginx, PODS as u64).await;
    })
    .await;
}
