//! The admin listener.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;

use serde_json::{Value, json};
use sluicegate_config::{Problem, Problems};
use sluicegate_gateway::{Admin, Control, ControlError, PatchAnswer, Registration};
use sluicegate_testkit::client::{Answer, Raw, get, get_json, send};

use crate::world::{Plan, World};

/// Keeps what it is told; refuses what has no `apis`, and pods of another scheme than `http`.
#[derive(Default)]
pub(crate) struct Recorder {
    pods: Mutex<BTreeMap<String, Registration>>,
    patches: Mutex<Vec<Value>>,
    unready: Mutex<Option<String>>,
}

impl Control for Recorder {
    fn patch(&self, patch: Value) -> Result<PatchAnswer, ControlError> {
        if patch.get("admission").is_some() {
            return Err(ControlError::Unavailable("the ledger is away".to_owned()));
        }
        if patch.get("apis").is_none() {
            return Err(problems("no apis", "add some").into());
        }
        self.patches.lock().unwrap().push(patch);
        Ok(PatchAnswer { version: 7, acknowledged: 1, gates: 1 })
    }

    fn register(&self, name: &str, pod: Registration) -> Result<bool, ControlError> {
        if !pod.url.starts_with("http:") {
            return Err(problems("a bad url", "write http").into());
        }
        Ok(self.pods.lock().unwrap().insert(name.to_owned(), pod).is_none())
    }

    fn deregister(&self, name: &str) -> Result<(), ControlError> {
        if name == "listed" {
            return Err(ControlError::Conflict("the file lists it".to_owned()));
        }
        self.pods.lock().unwrap().remove(name);
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        self.unready.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

fn problems(what: &str, mend: &str) -> Problems {
    let (file, what, mend) = ("f".to_owned(), what.to_owned(), mend.to_owned());
    Problems(vec![Problem { file, line: 1, column: 1, what, mend }])
}

pub(crate) async fn start(token: Option<&str>) -> (World, Admin, Arc<Recorder>) {
    let apis = json!([{"name": "order", "match": "POST /orders", "weight": 2}]);
    let world = Plan::one_pod(4).with("apis", apis).start().await;
    let control = Arc::new(Recorder::default());
    let settings = sluicegate_config::AdminSettings {
        listen: "127.0.0.1:0".parse().unwrap(),
        token: token.map(str::to_owned),
    };
    let admin = Admin::start(world.gate.clone(), world.live.clone(), control.clone(), &settings).unwrap();
    (world, admin, control)
}

pub(crate) fn is_problem(answer: &Answer, status: u16) {
    assert_eq!(answer.head.status, status);
    assert_eq!(answer.head.header("content-type"), "application/problem+json");
    assert_eq!(answer.json().unwrap()["status"], status);
}

#[tokio::test]
async fn the_state_is_as_the_contract_says() {
    let (world, admin, _) = start(None).await;
    let order = world.gate.try_acquire(sluicegate::Ask::new(world.gate.api_id("order").unwrap())).unwrap();
    let mut state = get_json(admin.local_addr(), "/v1/state").await.unwrap();
    let id = state["gates"][0]["id"].take();
    assert_eq!(id.as_str().unwrap().len(), 32);
    assert!(state["gates"][0]["label"].take().is_string());
    assert!(state["at_ms"].is_u64());
    let refused = json!({"no_room": 0, "queue_full": 0, "wait_exceeded": 0, "api_max": 0, "pod_full": 0,
        "too_heavy": 0, "no_ready_pod": 0});
    let expected = json!({
        "pool": "trial", "version": state["version"], "capacity": 4, "in_use": 2, "credit": 0, "waiting": 0,
        "mode": "enforce", "at_ms": state["at_ms"], "waiting_units": 0, "reserve": 0, "share": 0, "trickled": 0,
        "claim": null, "abandoned_units": 0,
        "pods": [{"name": "a", "url": world.pods[0].url(), "capacity": 4, "in_use": 2, "ready": true,
            "draining": false, "outside": 0, "refusals": 0}],
        "apis": [
            {"name": "order", "weight": 2, "in_use": 2, "waiting": 0, "min": 0, "max": null, "admitted": 1,
                "refused": refused, "cancelled": 0, "failed": 0, "exempt": 0, "waited_us": 0},
            {"name": "default", "weight": 1, "in_use": 0, "waiting": 0, "min": 0, "max": null, "admitted": 0,
                "refused": refused, "cancelled": 0, "failed": 0, "exempt": 0, "waited_us": 0},
        ],
        "gates": [{"id": null, "label": null, "in_use": 2, "credit": 0, "waiting": 0, "last_seen_ms": 0}],
        "gates_differing": [], "document_error": null,
        "ledger": {"kind": "memory", "up": true, "exchanges": 0, "pace_ms": 0, "recovering": false, "epoch": 0,
            "valid": true, "emergency": false, "gates_known": 1, "recall": null, "claimed": null, "pushes_heard": 0,
            "pushes_made": 0, "touched": 0, "rtt_us": 0, "lapses": 0, "resyncs": 0, "last_error": null},
    });
    assert_eq!(state, expected);
    drop(order);
}

#[tokio::test]
async fn the_metrics_have_the_contracts_names() {
    let (world, admin, _) = start(None).await;
    assert_eq!(send(world.addr(), "POST", "/orders", "").await.unwrap().head.status, 200);
    let answer = get(admin.local_addr(), "/metrics").await.unwrap();
    let text = answer.text();
    for line in [
        "sluicegate_requests_total{api=\"order\",outcome=\"admitted\"} 1",
        "sluicegate_requests_total{api=\"order\",outcome=\"refused\"} 0",
        "sluicegate_requests_total{api=\"default\",outcome=\"enqueued\"} 0",
        "sluicegate_wait_seconds_bucket{le=\"0.001\",api=\"order\"} 1",
        "sluicegate_wait_seconds_bucket{le=\"+Inf\",api=\"order\"} 1",
        "sluicegate_wait_seconds_count{api=\"order\"} 1",
        "sluicegate_units_in_use{pod=\"a\"} 0",
        "sluicegate_units_capacity{pod=\"a\"} 4",
        "sluicegate_waiting{api=\"order\"} 0",
        "sluicegate_refusals_total{api=\"order\",reason=\"no_room\"} 0",
        "sluicegate_pod_refusals_total{pod=\"a\"} 0",
        "sluicegate_units_abandoned_total 0",
        "sluicegate_ledger_exchanges_total 0",
        "sluicegate_ledger_up 1",
        "sluicegate_ledger_valid 1",
        "sluicegate_ledger_pushes_total 0",
        "sluicegate_ledger_accounts_touched_total 0",
        "sluicegate_ledger_exchange_seconds_count 0",
        "sluicegate_gates 1",
        "sluicegate_gates_differing 0",
        "sluicegate_units_wanted 0",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} is missing in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    assert!(answer.head.header("content-type").starts_with("application/openmetrics-text"));
}

#[tokio::test]
async fn health_and_readiness() {
    let (_world, admin, control) = start(Some("s3cret")).await;
    assert_eq!(get(admin.local_addr(), "/healthz").await.unwrap().head.status, 200);
    assert_eq!(get(admin.local_addr(), "/readyz").await.unwrap().head.status, 200);
    *control.unready.lock().unwrap() = Some("draining".to_owned());
    let answer = get(admin.local_addr(), "/readyz").await.unwrap();
    is_problem(&answer, 503);
    assert_eq!(answer.json().unwrap()["detail"], "draining");
}

#[tokio::test]
async fn a_patch_reaches_the_control_and_its_problems_the_caller() {
    let (_world, admin, control) = start(None).await;
    let patch = json!({"apis": {"order": {"weight": 3}}});
    let answer = send(admin.local_addr(), "PATCH", "/v1/config", &patch.to_string()).await.unwrap();
    assert_eq!(answer.json().unwrap(), json!({"version": 7, "acknowledged": 1, "gates": 1}));
    assert_eq!(*control.patches.lock().unwrap(), [patch]);
    let answer = send(admin.local_addr(), "PATCH", "/v1/config", "{}").await.unwrap();
    is_problem(&answer, 422);
    assert_eq!(answer.json().unwrap()["problems"], json!([{"what": "no apis", "mend": "add some"}]));
    is_problem(&send(admin.local_addr(), "PATCH", "/v1/config", "{").await.unwrap(), 400);
    let mut client = Raw::connect(admin.local_addr()).await.unwrap();
    client.request("PATCH", "/v1/config", &["content-type: text/plain", "content-length: 0"]).await.unwrap();
    is_problem(&client.answer().await.unwrap(), 415);
    is_problem(&get(admin.local_addr(), "/nothing").await.unwrap(), 404);
    is_problem(&get(admin.local_addr(), "/v1/config").await.unwrap(), 405);
}

#[tokio::test]
async fn a_change_that_the_others_cannot_be_told_is_for_later() {
    let (_world, admin, _) = start(None).await;
    let answer = send(admin.local_addr(), "PATCH", "/v1/config", "{\"admission\": {}}").await.unwrap();
    is_problem(&answer, 503);
    assert_eq!(answer.head.header("retry-after"), "1");
    assert_eq!(answer.json().unwrap()["detail"], "the ledger is away");
}

#[tokio::test]
async fn pods_come_and_go_by_name() {
    let (_world, admin, control) = start(None).await;
    let pod = json!({"url": "http://127.0.0.1:9", "capacity": 5, "ttl_ms": 1000}).to_string();
    let put = async |name: &str, body: &str| {
        send(admin.local_addr(), "PUT", &format!("/v1/pods/{name}"), body).await.unwrap()
    };
    assert_eq!(put("a", &pod).await.head.status, 201);
    assert_eq!(put("a", &pod).await.head.status, 200);
    assert_eq!(control.pods.lock().unwrap()["a"].capacity, 5);
    let bad = put("b", &pod.replace("http:", "ftp:")).await;
    is_problem(&bad, 422);
    assert_eq!(bad.json().unwrap()["problems"][0]["what"], "a bad url");
    is_problem(&put("b", "{\"url\": \"http://127.0.0.1:9\"}").await, 400);
    is_problem(&put("b", &pod.replace("capacity", "units")).await, 400);
    let delete =
        async |name: &str| send(admin.local_addr(), "DELETE", &format!("/v1/pods/{name}"), "").await.unwrap();
    assert_eq!(delete("a").await.head.status, 204);
    assert_eq!(delete("a").await.head.status, 204);
    assert!(control.pods.lock().unwrap().is_empty());
    is_problem(&delete("listed").await, 409);
    is_problem(&get(admin.local_addr(), "/v1/pods/a").await.unwrap(), 405);
}

#[tokio::test]
async fn a_token_is_wanted_where_it_is_set_and_needed_off_loopback() {
    let (world, admin, control) = start(Some("s3cret")).await;
    is_problem(&get(admin.local_addr(), "/v1/state").await.unwrap(), 401);
    for (header, status) in [
        ("authorization: Bearer s3cret", 200),
        ("authorization: bearer s3cret", 200),
        ("authorization: Bearer s3cre", 401),
        ("authorization: Bearer s3creT", 401),
        ("authorization: Basic s3cret", 401),
    ] {
        let mut client = Raw::connect(admin.local_addr()).await.unwrap();
        client.request("GET", "/metrics", &[header]).await.unwrap();
        assert_eq!(client.head().await.unwrap().status, status, "{header}");
    }
    let settings = sluicegate_config::AdminSettings { listen: "0.0.0.0:0".parse().unwrap(), token: None };
    let Err(error) = Admin::start(world.gate.clone(), world.live.clone(), control, &settings) else {
        panic!("anybody could change the limits");
    };
    assert!(error.to_string().contains("admin.token"), "{error}");
}

#[tokio::test]
async fn it_stops_when_dropped() {
    let (_world, admin, _) = start(None).await;
    let addr = admin.local_addr();
    drop(admin);
    assert!(get(addr, "/healthz").await.is_err());
}
