//! Asked for, refused, renewed, given back.

use serde_json::json;
use sluicegate_testkit::client::Raw;
use sluicegate_testkit::wait::until;

use crate::world::{SOON, World, id, rules};

#[tokio::test]
async fn a_lease_says_where_and_how_long() {
    let world = World::start();
    let answer = world.ask(json!({"api": "heavy"})).await;
    assert_eq!(answer.head.status, 201, "{}", answer.text());
    let lease = answer.json().unwrap();
    assert_eq!(
        (lease["pod"].as_str(), lease["url"].as_str(), lease["weight"].as_u64()),
        (Some("a"), crate::world::rules()["pods"][0]["url"].as_str(), Some(3))
    );
    assert_eq!(lease["expires_in_ms"], 60_000, "the api's max_hold");
    assert!(id(&lease).starts_with("g1."), "{lease}");
    assert_eq!(answer.head.header("location"), format!("/v1/leases/{}", id(&lease)));
    assert_eq!(answer.head.header("server-timing"), "admission;dur=0");
    assert_eq!(world.now().in_use, 3);
    // Twice is as once.
    for _ in 0..2 {
        assert_eq!(world.give_back(id(&lease)).await, 204);
        assert_eq!(world.now().in_use, 0);
    }
    world.assert_quiet().await;
}

#[tokio::test]
async fn an_api_is_found_by_method_and_path_and_its_weight_may_be_another() {
    let world = World::start();
    let lease =
        world.lease(json!({"method": "GET", "path": "/light/7?x=1", "weight": 2, "hold_ms": 5000})).await;
    assert_eq!((lease["weight"].as_u64(), lease["expires_in_ms"].as_u64()), (Some(2), Some(5000)));
    let light = world.gate.api_id("light").unwrap();
    assert_eq!(world.now().apis[light.index()].in_use, 2);
    world.give_back(id(&lease)).await;
    let other = world.lease(json!({"method": "PATCH", "path": "/nothing"})).await;
    assert_eq!(other["weight"], 1, "api `default`");
    world.give_back(id(&other)).await;
    world.assert_quiet().await;
}

#[tokio::test]
async fn a_refusal_is_the_contracts() {
    let world = World::start();
    let first = world.lease(json!({"api": "light", "weight": 4})).await;
    let refused = world.ask(json!({"api": "light", "weight": 3})).await;
    assert_eq!(refused.head.status, 429, "{}", refused.text());
    assert_eq!(refused.head.header("content-type"), "application/problem+json");
    assert_eq!(refused.head.header("x-sluicegate-reason"), "no_room");
    assert!((1..=60).contains(&refused.head.header("retry-after").parse::<u32>().unwrap()));
    let problem = refused.json().unwrap();
    assert_eq!(
        (
            problem["reason"].as_str(),
            problem["api"].as_str(),
            problem["weight"].as_u64(),
            problem["pool"].as_str()
        ),
        (Some("no_room"), Some("light"), Some(3), Some("trial"))
    );
    let never = world.ask(json!({"api": "light", "weight": 9})).await;
    assert_eq!((never.head.status, never.head.header("retry-after")), (503, ""));
    assert_eq!(never.head.header("x-sluicegate-reason"), "too_heavy");
    world.give_back(id(&first)).await;
    world.assert_quiet().await;
}

#[tokio::test]
async fn a_pinned_refusal_names_another_pod() {
    let world = World::start();
    let first = world.lease(json!({"api": "light", "weight": 2, "pod": "b"})).await;
    assert_eq!(first["pod"], "b");
    let refused = world.ask(json!({"api": "light", "pod": "b"})).await;
    assert_eq!((refused.head.status, refused.head.header("x-sluicegate-reason")), (429, "pod_full"));
    assert_eq!(refused.json().unwrap()["elsewhere"], "a");
    // One that only prefers goes there.
    let second = world.lease(json!({"api": "light", "prefer": "b"})).await;
    assert_eq!(second["pod"], "a");
    world.give_back(id(&first)).await;
    world.give_back(id(&second)).await;
    world.assert_quiet().await;
}

#[tokio::test]
async fn exempt_apis_hold_nothing() {
    let world = World::start();
    let full = world.lease(json!({"api": "light", "weight": 4})).await;
    let probe = world.lease(json!({"method": "GET", "path": "/probe"})).await;
    assert_eq!((probe["weight"].as_u64(), world.now().in_use), (Some(0), 4));
    assert_eq!(world.renew(id(&probe), json!({})).await.head.status, 200);
    assert_eq!(world.give_back(id(&probe)).await, 204);
    world.give_back(id(&full)).await;
    let api = world.gate.api_id("probe").unwrap();
    assert_eq!(world.now().apis[api.index()].counts.exempt, 1);
    world.assert_quiet().await;
}

#[tokio::test]
async fn shadow_and_off_refuse_nothing() {
    for mode in ["shadow", "off"] {
        let mut rules = rules();
        rules["admission"]["mode"] = json!(mode);
        let world = World::of(&rules);
        let mut leases = Vec::new();
        for _ in 0..4 {
            leases.push(world.lease(json!({"api": "heavy"})).await);
        }
        assert_eq!(world.now().in_use, 12, "{mode}: twice the pool, and counted");
        let api = world.gate.api_id("heavy").unwrap();
        let refused = world.now().apis[api.index()].counts.refused_all();
        assert_eq!(refused > 0, mode == "shadow", "{mode}: what would have been refused is counted");
        for lease in &leases {
            world.give_back(id(lease)).await;
        }
        world.assert_quiet().await;
    }
}

#[tokio::test]
async fn a_lease_not_renewed_is_written_off_and_one_renewed_lives() {
    let world = World::start();
    let lost = world.lease(json!({"api": "light", "hold_ms": 100})).await;
    let kept = world.lease(json!({"api": "light", "weight": 2, "hold_ms": 100})).await;
    let renewed = world.renew(id(&kept), json!({"hold_ms": 600_000})).await;
    assert_eq!(
        (renewed.head.status, renewed.json().unwrap()["expires_in_ms"].as_u64()),
        (200, Some(600_000))
    );
    until("written off", SOON, || world.now().abandoned_units == 1).await;
    assert_eq!(world.now().in_use, 2);
    assert_eq!(world.service.counts()().written_off, 1);
    // Too late is too late, and giving back is still no error.
    let late = world.renew(id(&lost), json!({})).await;
    assert_eq!((late.head.status, late.head.header("x-sluicegate-reason")), (404, "no_such_lease"));
    assert_eq!(world.give_back(id(&lost)).await, 204);
    assert_eq!(world.give_back(id(&kept)).await, 204);
    assert_eq!(world.now().abandoned_units, 1);
    world.assert_quiet().await;
}

#[tokio::test]
async fn one_bad_id_does_not_keep_the_others() {
    let world = World::start();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(id(&world.lease(json!({"api": "light"})).await).to_owned());
    }
    let all = json!({"ids": [ids[0], "no id!", ids[1], "other.gone", ids[0], ids[2]]});
    let answer = world.call("POST", "/v1/leases/release", &all).await;
    assert_eq!(answer.head.status, 200, "{}", answer.text());
    let said = answer.json().unwrap();
    assert_eq!(said["released"], 3, "{said}");
    assert_eq!(
        (said["bad"][0]["index"].as_u64(), said["bad"].as_array().unwrap().len()),
        (Some(1), 1),
        "{said}"
    );
    world.assert_quiet().await;
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let world = World::start();
    for (body, field) in [
        (json!({}), "api"),
        (json!({"api": "none"}), "api"),
        (json!({"api": "light", "path": "/"}), "path"),
        (json!({"method": "GET"}), "path"),
        (json!({"api": "light", "weight": 0}), "weight"),
        (json!({"api": "light", "weight": "1"}), "weight"),
        (json!({"api": "light", "wait_ms": 600_001}), "wait_ms"),
        (json!({"api": "light", "hold_ms": 0}), "hold_ms"),
        (json!({"api": "light", "pod": "z"}), "pod"),
        (json!({"api": "light", "pod": "a", "prefer": "a"}), "prefer"),
        (json!({"api": "light", "id": "_g1"}), "id"),
        (json!({"api": "light", "after": "?"}), "after"),
        (json!({"api": "light", "units": 1}), "units"),
        (json!([]), "body"),
    ] {
        let answer = world.ask(body.clone()).await;
        assert_eq!(answer.head.status, 400, "{body}: {}", answer.text());
        assert_eq!(answer.json().unwrap()["field"], field, "{body}: {}", answer.text());
    }
    for (method, target, status) in [
        ("GET", "/v1/leases", 405),
        ("POST", "/v1/leases/x", 405),
        ("GET", "/v1/nothing", 404),
        ("PUT", "/v1/pods/a", 404),
        ("PUT", "/v1/leases/g1.never", 404),
        ("PUT", "/v1/leases/a.b.c.d", 400),
        ("DELETE", "/v1/leases/g1.never?outcome=maybe", 400),
        ("DELETE", "/v1/leases/g1.never?outcome=failed", 204),
        ("DELETE", "/v1/leases/othergate.never", 204),
    ] {
        let answer = world.call(method, target, &json!({})).await;
        assert_eq!(answer.head.status, status, "{method} {target}: {}", answer.text());
    }
    let mut plain = Raw::connect(world.addr).await.unwrap();
    plain.request("POST", "/v1/leases", &["content-length: 2", "content-type: text/plain"]).await.unwrap();
    plain.send("{}").await.unwrap();
    assert_eq!(plain.answer().await.unwrap().head.status, 415);
    let large = json!({"api": "light", "id": "x".repeat(300_000)});
    assert_eq!(world.ask(large).await.head.status, 413);
    world.assert_quiet().await;
}

#[tokio::test]
async fn the_pods_own_lock_is_heard_and_the_place_in_the_line_kept() {
    let world = World::start();
    let refused = world.lease(json!({"api": "heavy"})).await;
    assert_eq!(refused["pod"], "a");
    let pods = |name: &str| {
        let id = world.gate.pod_id(name).unwrap();
        world.now().pods[id.index()].clone()
    };
    assert_eq!(world.give_back(&format!("{}?outcome=pod_full", id(&refused))).await, 204);
    assert_eq!(pods("a").refusals, 1);
    // The pod's usable units are fewer now: nothing of 2 fits there for a while, but the request's own ask waits for it.
    let again = world.lease(json!({"api": "heavy", "after": id(&refused)})).await;
    assert_eq!((again["pod"].as_str(), again["weight"].as_u64()), (Some("a"), Some(3)));
    // What never reached the pod takes nothing from it.
    assert_eq!(world.give_back(&format!("{}?outcome=not_started", id(&again))).await, 204);
    let third = world.lease(json!({"api": "heavy", "after": id(&again)})).await;
    assert_eq!(pods("a").refusals, 1);
    let heavy = world.gate.api_id("heavy").unwrap();
    assert_eq!(world.give_back(&format!("{}?outcome=failed", id(&third))).await, 204);
    assert_eq!(world.now().apis[heavy.index()].counts.failed, 1);
    world.assert_quiet().await;
}

#[tokio::test]
async fn a_place_that_nobody_comes_for_is_given_up() {
    let world = World::start();
    let first = world.lease(json!({"api": "light", "weight": 4})).await;
    assert_eq!(world.give_back(&format!("{}?outcome=not_started", id(&first))).await, 204);
    world.assert_quiet().await;
    // Then the ask begins anew.
    let second = world.lease(json!({"api": "light", "after": id(&first)})).await;
    assert_eq!(second["weight"], 1);
    world.give_back(id(&second)).await;
    world.assert_quiet().await;
}

/// A dead pod ends all its requests at once, so it is the emptiest: it must not get the next one too.
#[tokio::test]
async fn a_pod_that_cannot_be_reached_gets_nothing_until_it_can() {
    let port = sluicegate_testkit::ports::free_port();
    let mut rules = crate::world::rules();
    rules["pods"][0]["url"] = json!(format!("http://127.0.0.1:{port}"));
    let world = World::of(&rules);
    let first = world.lease(json!({"api": "heavy"})).await;
    assert_eq!(first["pod"], "a", "only `a` has 3 units");
    assert_eq!(world.give_back(&format!("{}?outcome=unreachable", id(&first))).await, 204);
    let light = world.lease(json!({"api": "light"})).await;
    assert_eq!(light["pod"], "b");
    world.give_back(id(&light)).await;
    let _pod = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    // Its wait is long: it is served when the pod is back.
    let second = world.lease(json!({"api": "heavy"})).await;
    assert_eq!(second["pod"], "a");
    world.give_back(id(&second)).await;
    // Who is wrong about a pod changes nothing.
    let third = world.lease(json!({"api": "heavy"})).await;
    assert_eq!(world.give_back(&format!("{}?outcome=unreachable", id(&third))).await, 204);
    let a = world.gate.pod_id("a").unwrap();
    assert!(world.now().pods[a.index()].ready);
    world.assert_quiet().await;
}
