//! Decision services of several gates over one Redis: calls are passed on, leases adopted.

use serde_json::{Value, json};
use sluicegate_testkit::client::{Answer, Raw, send};
use sluicegate_testkit::ports::{free_port, loopback};
use sluicegate_testkit::proxy::TcpProxy;
use sluicegate_testkit::redis::{Redis, RedisOptions};

use crate::SOON;
use crate::decisions::Deciding;
use crate::registered::until;

/// One pod of 4 units. Short holds, so that what a dead gate held comes back within seconds: ttl + twice `max_hold`.
fn gate(redis: &Redis) -> Deciding {
    Deciding::start(&rules(redis))
}

fn rules(redis: &Redis) -> String {
    format!(
        "pool: shop\npods:\n  - {{name: a, url: \"http://127.0.0.1:9001\", capacity: 4}}\n\
         apis:\n  - {{name: light, match: \"GET /light\", weight: 1, wait: 0}}\n  \
         - {{name: heavy, weight: 3, wait: 60s}}\n\
         admission: {{max_hold: 1s}}\nledger: {{redis: \"redis://{}\", ttl: 1s}}\n",
        redis.addr()
    )
}

async fn both(redis: &Redis) -> (Deciding, Deciding) {
    let (one, two) = (gate(redis), gate(redis));
    for gate in [&one, &two] {
        until(gate.admin, "both gates", |state| state["gates"].as_array().unwrap().len() == 2).await;
    }
    (one, two)
}

async fn renew(at: &Deciding, lease: &Value) -> Answer {
    let target = format!("/v1/leases/{}", lease["id"].as_str().unwrap());
    send(at.decisions, "PUT", &target, "{\"hold_ms\": 60000}").await.unwrap()
}

/// Units that a gate's own leases hold.
async fn until_in_use(at: &Deciding, units: u64) {
    until(at.admin, "units in use", |state| own(state)["in_use"] == units).await;
}

fn own(state: &Value) -> &Value {
    // The first is the gate that answers.
    &state["gates"][0]
}

async fn begin(at: &Deciding, body: Value) -> Raw {
    let mut client = Raw::connect(at.decisions).await.unwrap();
    let body = body.to_string();
    let length = format!("content-length: {}", body.len());
    client.request("POST", "/v1/leases", &[&length, "content-type: application/json"]).await.unwrap();
    client.send(body).await.unwrap();
    client
}

#[tokio::test]
async fn a_call_that_reaches_another_gate_is_passed_on() {
    let redis = Redis::with(RedisOptions::tcp());
    let (one, two) = both(&redis).await;
    let lease = one.lease(json!({"api": "heavy", "hold_ms": 60_000})).await;
    until_in_use(&one, 3).await;
    let renewed = renew(&two, &lease).await;
    assert_eq!(renewed.head.status, 200, "{}", renewed.text());
    assert_eq!(renewed.json().unwrap()["id"], lease["id"]);
    // An ask that waits at one is cancelled by its bare name at the other.
    let mut waits = begin(&one, json!({"api": "heavy", "id": "mine"})).await;
    until(one.admin, "a waiting ask", |state| own(state)["waiting"] == 1).await;
    assert_eq!(two.give_back(&json!({"id": "mine"})).await, 204);
    assert_eq!(waits.answer().await.unwrap().head.header("x-sluicegate-reason"), "cancelled");
    // Single or in a batch.
    assert_eq!(two.give_back(&lease).await, 204);
    until_in_use(&one, 0).await;
    assert_eq!(two.give_back(&lease).await, 204);
    let lease = one.lease(json!({"api": "heavy", "hold_ms": 60_000})).await;
    let ids = json!({"ids": [lease["id"], "bad id"]}).to_string();
    let said = send(two.decisions, "POST", "/v1/leases/release", &ids).await.unwrap().json().unwrap();
    assert_eq!((&said["passed_on"], said["bad"].as_array().unwrap().len()), (&1.into(), 1), "{said}");
    until_in_use(&one, 0).await;
    assert_eq!(renew(&two, &lease).await.head.status, 404);
}

/// Where a gate says that it is, the others look for it, and nowhere else.
#[tokio::test]
async fn calls_go_where_a_gate_advertises() {
    let redis = Redis::with(RedisOptions::tcp());
    let listen = loopback(free_port());
    let road = TcpProxy::start(listen);
    let place = format!("http: \"{listen}\", advertise: \"{}\"", road.addr());
    let (one, two) = (Deciding::at(&rules(&redis), &place), gate(&redis));
    until(two.admin, "both gates", |state| state["gates"].as_array().unwrap().len() == 2).await;
    let lease = one.lease(json!({"api": "heavy", "hold_ms": 60_000})).await;
    assert_eq!(road.connections(), 0);
    let renewed = renew(&two, &lease).await;
    assert_eq!(renewed.head.status, 200, "{}", renewed.text());
    assert_eq!(road.connections(), 1, "kept for the next call");
    road.blackhole();
    let refused = renew(&two, &lease).await;
    assert_eq!((refused.head.status, refused.head.header("x-sluicegate-reason")), (503, "gate_silent"));
    road.heal();
    assert_eq!(two.give_back(&lease).await, 204);
    until_in_use(&one, 0).await;
}

#[tokio::test]
async fn a_key_has_one_lease_in_the_whole_pool() {
    let redis = Redis::with(RedisOptions::tcp());
    let (one, two) = both(&redis).await;
    for key in ["k1", "k2", "k3", "k4"] {
        let header = format!("idempotency-key: {key}");
        let mut ids = Vec::new();
        for at in [&one, &two] {
            let mut client = Raw::connect(at.decisions).await.unwrap();
            let body = "{\"api\": \"light\", \"wait_ms\": 20000}";
            let length = format!("content-length: {}", body.len());
            let headers = [length.as_str(), "content-type: application/json", &header];
            client.request("POST", "/v1/leases", &headers).await.unwrap();
            client.send(body).await.unwrap();
            let answer = client.answer().await.unwrap();
            assert_eq!(answer.head.status, 201, "{}", answer.text());
            ids.push(answer.json().unwrap()["id"].clone());
        }
        assert_eq!(ids[0], ids[1]);
        assert_eq!(one.give_back(&json!({"id": ids[0]})).await, 204);
    }
    until_in_use(&one, 0).await;
    until_in_use(&two, 0).await;
}

/// Kills a gate whose lease of 3 units the others know of.
async fn lost(mut one: Deciding, two: &Deciding) {
    until(two.admin, "the other's units", |state| {
        state["gates"].as_array().unwrap().iter().any(|gate| gate["in_use"] == 3)
    })
    .await;
    one.process.signal("KILL");
    one.process.exit(SOON);
}

/// Renews a lease of a dead gate until it is adopted.
async fn adopted(two: &Deciding, lease: &Value) -> Value {
    let begin = std::time::Instant::now();
    loop {
        let answer = renew(two, lease).await;
        match answer.head.status {
            // The ledger may still count its gate as alive.
            503 => assert_eq!(answer.head.header("x-sluicegate-reason"), "gate_silent"),
            200 => return answer.json().unwrap(),
            _ => panic!("{}", answer.text()),
        }
        assert!(begin.elapsed() < SOON, "never adopted");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_lease_outlives_its_gate() {
    let redis = Redis::with(RedisOptions::tcp());
    let (one, two) = both(&redis).await;
    let lease = one.lease(json!({"api": "heavy", "hold_ms": 60_000})).await;
    lost(one, &two).await;
    let adopted = adopted(&two, &lease).await;
    for key in ["id", "pod", "url", "weight"] {
        assert_eq!(adopted[key], lease[key], "{key}");
    }
    assert_eq!((&adopted["adopted"], &adopted["expires_in_ms"]), (&true.into(), &60_000.into()));
    // Still counted where they were.
    let refused =
        send(two.decisions, "POST", "/v1/leases", "{\"api\": \"light\", \"weight\": 2}").await.unwrap();
    assert_eq!(refused.head.status, 429, "{}", refused.text());
    // Before the ledger gives them back they count here.
    until_in_use(&two, 3).await;
    let refused =
        send(two.decisions, "POST", "/v1/leases", "{\"api\": \"light\", \"weight\": 2}").await.unwrap();
    assert_eq!(refused.head.status, 429, "{}", refused.text());
    assert_eq!(renew(&two, &lease).await.head.status, 200);
    for _ in 0..2 {
        assert_eq!(two.give_back(&lease).await, 204);
        until_in_use(&two, 0).await;
    }
    assert_eq!(renew(&two, &lease).await.head.status, 404, "what was given back is not adopted again");
    let all = two.lease(json!({"api": "light", "weight": 4, "wait_ms": 20_000})).await;
    assert_eq!(two.give_back(&all).await, 204);
}

#[tokio::test]
async fn a_return_to_a_dead_gate_frees_nothing_early_and_nothing_twice() {
    let redis = Redis::with(RedisOptions::tcp());
    let (one, two) = both(&redis).await;
    let lease = one.lease(json!({"api": "heavy", "hold_ms": 60_000})).await;
    lost(one, &two).await;
    for _ in 0..2 {
        assert_eq!(two.give_back(&lease).await, 204);
    }
    until(two.admin, "the end of the other", |state| state["gates"].as_array().unwrap().len() == 1).await;
    assert_eq!(two.give_back(&lease).await, 204);
    assert_eq!(renew(&two, &lease).await.head.status, 404);
    // Whoever wants more than is left waits until the ledger gives the dead gate's units back.
    let all = two.lease(json!({"api": "light", "weight": 4, "wait_ms": 60_000})).await;
    until_in_use(&two, 4).await;
    assert_eq!(two.give_back(&all).await, 204);
}

/// The units of an adopted lease go from the dead gate to its heir, and nobody who waits elsewhere gets hold of them.
#[tokio::test]
async fn adopted_units_count_at_every_moment() {
    let redis = Redis::with(RedisOptions::tcp());
    let (one, two) = both(&redis).await;
    let three = gate(&redis);
    until(three.admin, "all gates", |state| state["gates"].as_array().unwrap().len() == 3).await;
    let lease = one.lease(json!({"api": "heavy", "hold_ms": 60_000})).await;
    lost(one, &two).await;
    adopted(&two, &lease).await;
    // The pod has 4 units, of which 3 run.
    let ask = |weight: u32| json!({"api": "light", "weight": weight, "wait_ms": 60_000, "hold_ms": 60_000});
    let mut too_much = begin(&three, ask(2)).await;
    until(three.admin, "a waiting ask", |state| own(state)["waiting"] == 1).await;
    // While they count twice there is no room for anything; then for this one.
    let fits = begin(&three, ask(1)).await.answer().await.unwrap();
    assert_eq!(fits.head.status, 201, "{}", fits.text());
    // Whoever is the heir.
    let units = |state: &Value| {
        state["gates"].as_array().unwrap().iter().map(|gate| gate["in_use"].as_u64().unwrap()).sum::<u64>()
    };
    until(two.admin, "all units", |state| units(state) == 4).await;
    until(three.admin, "still waits", |state| own(state)["waiting"] == 1).await;
    assert_eq!(two.give_back(&lease).await, 204);
    let late = too_much.answer().await.unwrap();
    assert_eq!(late.head.status, 201, "{}", late.text());
    for lease in [fits, late] {
        assert_eq!(three.give_back(&lease.json().unwrap()).await, 204);
    }
    until(two.admin, "nothing in use", |state| units(state) == 0).await;
}
