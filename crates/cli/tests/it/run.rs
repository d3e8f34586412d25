//! `run` in front of real pods: the contract's answers, live changes, bad input, a clean end.

use std::net::TcpListener as StdListener;
use std::sync::Arc;

use sluicegate_testkit::client::{Raw, get, get_json, send};
use sluicegate_testkit::wait;
use sluicegate_trial::pod::PodOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Folder, Running, SOON, pods, say};

const APIS: &str = "apis:\n\
    \x20 - {name: health, match: \"GET /actuator/**\", exempt: true}\n\
    \x20 - {name: light, match: \"GET /w/1\", weight: 1}\n\
    \x20 - {name: heavy, match: \"GET /w/20\", weight: 20, wait: 0}\n";

#[tokio::test]
async fn requests_pass_and_the_refused_get_the_contracts_answer() {
    let by_path = sluicegate_trial::pod::weigh_by_path();
    let weigh: sluicegate_trial::pod::Weigh =
        Arc::new(move |method, path| if path.starts_with("/actuator") { 0 } else { by_path(method, path) });
    let options = |name| PodOptions { weigh: Arc::clone(&weigh), ..PodOptions::new(name, 20) };
    let (pods, yaml) = pods(1, options).await;
    let running = Running::start(&format!("{yaml}{APIS}"));
    let served = get(running.gateway, "/w/20").await.unwrap();
    assert_eq!(served.head.status, 200);
    assert!(served.head.header("server-timing").starts_with("admission;dur="));
    assert_eq!(served.head.header("x-trial-pod"), "p0");

    let mut holds = Raw::connect(running.gateway).await.unwrap();
    holds.request("GET", "/w/20?hang", &[]).await.unwrap();
    let gauge = pods[0].gauge();
    wait::until("the pod holds 20 units", SOON, || gauge.read().in_use == 20).await;

    let refused = get(running.gateway, "/w/20").await.unwrap();
    assert_eq!(refused.head.status, 429);
    assert_eq!(refused.head.header("content-type"), "application/problem+json");
    assert_eq!(refused.head.header("x-sluicegate-reason"), "no_room");
    assert!(refused.head.header("retry-after").parse::<u32>().unwrap() >= 1);
    let problem = refused.json().unwrap();
    for (key, value) in [("reason", "no_room"), ("api", "heavy"), ("pool", "shop")] {
        assert_eq!(problem[key], value);
    }
    assert_eq!((&problem["status"], &problem["weight"]), (&429.into(), &20.into()));
    for key in ["type", "title", "detail"] {
        assert!(problem[key].is_string(), "{key}");
    }
    let exempt = get(running.gateway, "/actuator/health").await.unwrap();
    assert_eq!(exempt.head.status, 200, "an exempt api is never refused");
}

#[tokio::test]
async fn state_metrics_health_and_patch_answer_as_the_contract_says() {
    let (_pods, yaml) = pods(2, |name| PodOptions::new(name, 20)).await;
    let running = Running::start(&format!("{yaml}{APIS}admission: {{reserve: 5%}}\n"));
    get(running.gateway, "/w/1").await.unwrap();
    let state = running.state().await;
    assert_eq!(
        (&state["pool"], &state["capacity"], &state["mode"]),
        (&"shop".into(), &40.into(), &"enforce".into())
    );
    assert_eq!(state["pods"][0]["name"], "p0");
    assert_eq!(state["ledger"]["kind"], "memory");
    assert_eq!(get(running.admin, "/healthz").await.unwrap().head.status, 200);
    assert_eq!(get(running.admin, "/readyz").await.unwrap().head.status, 200);
    let metrics = get(running.admin, "/metrics").await.unwrap().text();
    for line in [
        "sluicegate_requests_total{api=\"light\",outcome=\"admitted\"} 1",
        "sluicegate_units_capacity{pod=\"p0\"} 20",
        "sluicegate_units_in_use{pod=\"p1\"} 0",
        "sluicegate_ledger_up 1",
        "sluicegate_units_wanted 0",
    ] {
        assert!(metrics.contains(line), "`{line}` is missing:\n{metrics}");
    }
    let patch = r#"{"apis": {"light": {"weight": 5}}, "pods": {"p1": {"capacity": 10}}, "admission": {"reserve": "10%"}}"#;
    let answer = send(running.admin, "PATCH", "/v1/config", patch).await.unwrap();
    assert_eq!(answer.head.status, 200, "{}", answer.text());
    let answer = answer.json().unwrap();
    assert_eq!((&answer["acknowledged"], &answer["gates"]), (&1.into(), &1.into()));
    let state = running.state().await;
    assert_eq!(state["version"], answer["version"]);
    assert_eq!(state["capacity"], 30);
    let light = state["apis"].as_array().unwrap().iter().find(|api| api["name"] == "light").unwrap();
    assert_eq!(light["weight"], 5);
    let refused =
        send(running.admin, "PATCH", "/v1/config", r#"{"apis": {"light": {"weight": 0}}}"#).await.unwrap();
    assert!((400..500).contains(&refused.head.status), "{}", refused.text());
    assert_eq!(running.state().await["version"], answer["version"], "a bad patch changes nothing");
}

#[tokio::test]
async fn sigterm_waits_for_what_is_in_flight() {
    let (pods, yaml) = pods(1, |name| PodOptions::new(name, 20)).await;
    let mut running = Running::start(&format!("{yaml}{APIS}"));
    let mut client = Raw::connect(running.gateway).await.unwrap();
    client.request("GET", "/w/1?ms=600", &[]).await.unwrap();
    let gauge = pods[0].gauge();
    wait::until("the request runs", SOON, || gauge.read().in_use == 1).await;
    running.process.terminate();
    assert_eq!(client.answer().await.unwrap().head.status, 200);
    assert_eq!(running.process.exit(SOON).code(), Some(0));
}

#[test]
fn a_port_in_use_is_named() {
    let taken = StdListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = Folder::new(&format!(
        "pool: shop\npods:\n  - {{name: a, url: \"http://127.0.0.1:9001\", capacity: 4}}\ngateway: {{listen: \"{address}\"}}\n"
    ));
    let said = say(&["run", "-c", &folder.config()]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains(&address.to_string()) && said.err.contains("in use"), "{}", said.err);
}

#[tokio::test]
async fn garbage_from_clients_and_pods_harms_nobody() {
    let (_pods, yaml) = pods(1, |name| PodOptions::new(name, 20)).await;
    let mut running = Running::start(&format!("{yaml}{APIS}"));
    let mut garbage = Raw::connect(running.gateway).await.unwrap();
    garbage.send("\x16\x03\x01 what is this\r\n\r\n").await.unwrap();
    let answer = String::from_utf8_lossy(&garbage.rest().await.unwrap_or_default()).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    let mut fat = Raw::connect(running.gateway).await.unwrap();
    let head = format!("GET /w/1 HTTP/1.1\r\nhost: x\r\nx-fat: {}\r\n\r\n", "f".repeat(1 << 20));
    let _ = fat.send(head).await; // the gateway may close before all is written
    let answer = String::from_utf8_lossy(&fat.rest().await.unwrap_or_default()).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    running.process.still_runs();
    assert_eq!(get(running.gateway, "/w/1").await.unwrap().head.status, 200);
    assert_eq!(running.state().await["in_use"], 0);
}

#[tokio::test]
async fn a_pod_that_is_not_http_gives_502_and_its_units_come_back() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 1024];
                if socket.read(&mut buffer).await.is_ok() {
                    let _ = socket.write_all(b"220 this is not HTTP\r\n").await;
                }
            });
        }
    });
    let running = Running::start(&format!(
        "pool: shop\npods:\n  - {{name: smtp, url: \"http://{address}\", capacity: 4}}"
    ));
    let answer = get(running.gateway, "/").await.unwrap();
    assert_eq!(answer.head.status, 502, "{}", answer.text());
    assert_eq!(answer.head.header("content-type"), "application/problem+json");
    let state = get_json(running.admin, "/v1/state").await.unwrap();
    assert_eq!(state["in_use"], 0);
}
