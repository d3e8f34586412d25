//! Files as people write them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sluicegate_config::{
    LedgerSettings, OnDisconnect, OnLedgerLoss, Overflow, PodScheme, PodSource, RedisAddress, RedisKind,
    Upgrade, dns_pod, explain, load, schema,
};
use sluicegate_core::policy::{Amount, Mode, Order, Placement};

use crate::{agree, config, marked, read, warnings};

/// Section 9 of the design, word for word.
pub(crate) const SECTION_9: &str = r#"pool: shop
pods:
  - {name: a, url: "http://127.0.0.1:9001", capacity: 20}
  - {name: b, url: "http://127.0.0.1:9002", capacity: 20}
apis:                                   # the first match wins; an unmatched request is api `default`
  - {name: health, match: "GET /actuator/**", exempt: true}
  - {name: quote,  match: "GET /quotes/*",  weight: 1}
  - {name: order,  match: "POST /orders",   weight: 2, min: 4, protected: true}
  - {name: report, match: "GET /reports/**", weight: 3, max: 12, max_hold: 30s, overflow: enqueue}
admission: {wait: 1s, reserve: 5%, trickle: {share: 10%, rate: 20/s}}
ledger: memory                          # or {redis: "redis://127.0.0.1:6379"}
gateway:   {listen: "127.0.0.1:8080"}
decisions: {http: "127.0.0.1:8090", ext_proc: "127.0.0.1:8091"}
admin:     {listen: "127.0.0.1:8081"}
"#;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

#[test]
fn the_contracts_example_is_read_whole() {
    let loaded = read(SECTION_9).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let config = loaded.config;
    let names: Vec<&str> = config.policy.apis.iter().map(|api| api.name.as_str()).collect();
    assert_eq!(names, ["health", "quote", "order", "report", "default"]);
    assert!(config.policy.apis[0].exempt && config.policy.apis[2].protected);
    assert_eq!(config.policy.apis[2].min, Amount::Units(4));
    assert_eq!((config.policy.apis[3].weight, config.policy.apis[3].max), (3, Some(Amount::Units(12))));
    assert_eq!(config.apis[3].max_hold, Duration::from_secs(30));
    assert_eq!((config.apis[3].overflow, config.apis[2].overflow), (Overflow::Enqueue, Overflow::Reject));
    assert_eq!(config.apis[1].max_hold, Duration::from_secs(60));
    assert_eq!(config.policy.admission.reserve, Amount::Share(5_000));
    let trickle = config.policy.admission.trickle.expect("a trickle");
    assert_eq!(
        (trickle.share, trickle.rate_milli, trickle.ceiling),
        (Amount::Share(10_000), 20_000, 100_000)
    );
    assert_eq!((config.ledger.clone(), config.source.clone()), (LedgerSettings::Memory, PodSource::Listed));
    let gateway = config.gateway.clone().expect("a gateway");
    assert_eq!((gateway.retry_attempts, gateway.retry_buffer, gateway.workers), (2, 65_536, None));
    assert_eq!(config.decisions.clone().expect("decisions").ext_proc, "127.0.0.1:8091".parse().ok());
    assert_eq!(config.admin.clone().expect("admin").listen.port(), 8081);
    for (method, path, api) in [
        ("GET", "/actuator/health", 0),
        ("GET", "/quotes/7", 1),
        ("POST", "/orders", 2),
        ("GET", "/reports/2026/11", 3),
        ("DELETE", "/orders", 4),
    ] {
        assert_eq!(config.routes.find(method, path), api, "{method} {path}");
    }
    config.policy.check().expect("the core agrees");
}

#[test]
fn the_example_files_are_read_without_a_warning() {
    for name in ["sluicegate.yaml", "minimal.yaml"] {
        let loaded = load(&examples().join(name), &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(loaded.warnings.is_empty(), "{name}: {:?}", loaded.warnings);
        assert!(loaded.config.gateway.is_some());
    }
    let decisions =
        load(&examples().join("decisions.yaml"), &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(
        decisions.warnings.is_empty() && decisions.config.decisions.is_some(),
        "{:?}",
        decisions.warnings
    );
}

#[test]
fn every_key_is_read() {
    let config = config(
        r#"
pool: shop
default_weight: 2
pods:
  - {name: a, url: "h2c://[::1]:9001", capacity: 20, burst: 4, settle: 2ms, on_disconnect: stops}
apis:
  - {name: ws, match: "/ws", wait: 0, max_hold: 5s, max_stream: 1h, upgrade: handshake, max: 50%}
admission:
  mode: shadow
  wait: 250ms
  queue: 7
  order: {fair: {header: X-Caller}}
  placement: pack
  capacity: 90%
  reserve: 1
  trickle: {share: 2, rate: 0.5/s, ceiling: 110%}
  max_hold: 20s
  max_stream: 2m
ledger: {redis: {url: "rediss://bob@s1:26379", more: ["rediss://s2:26379"], sentinel: mymaster, password: "${TOKEN}",
  tls: {ca: ca.pem, cert: c.pem, key: k.pem}}, ttl: 2s, pace: 1ms, on_ledger_loss: pod-limit}
gateway: {listen: "0.0.0.0:8080", prefer: a, retry: {attempts: 1, buffer: 1MiB}, workers: 2}
decisions: {http: "unix:/run/s", token: "${TOKEN}", advertise: "gate-1:8090", tls: {cert: c, key: k, client_ca: a}}
admin: {listen: "0.0.0.0:8081", token: "${TOKEN}"}
"#,
    );
    let decisions = config.decisions.as_ref().expect("decisions");
    assert_eq!(decisions.http.as_ref().map(ToString::to_string).as_deref(), Some("unix:/run/s"));
    assert_eq!(decisions.advertise.as_deref(), Some("gate-1:8090"));
    assert_eq!(decisions.tls.as_ref().map(|tls| tls.client_ca.clone()), Some("a".into()));
    let pod = &config.policy.pods[0];
    assert_eq!((pod.burst, pod.settle_us), (4, 2_000));
    assert_eq!(
        (config.pods[0].url.scheme, config.pods[0].on_disconnect),
        (PodScheme::H2c, OnDisconnect::Stops)
    );
    let (ws, default) = (&config.policy.apis[0], &config.policy.apis[1]);
    assert_eq!((ws.wait_us, default.wait_us, default.weight), (0, 250_000, 2));
    assert_eq!(ws.max, Some(Amount::Share(50_000)));
    assert_eq!(config.apis[0].max_stream, Some(Duration::from_secs(3600)));
    assert_eq!(config.apis[1].max_stream, Some(Duration::from_secs(120)));
    assert_eq!((config.apis[0].upgrade, config.apis[1].upgrade), (Upgrade::Handshake, Upgrade::Hold));
    assert_eq!(config.apis[1].max_hold, Duration::from_secs(20));
    let admission = &config.policy.admission;
    assert_eq!(
        (admission.mode, admission.order, admission.placement),
        (Mode::Shadow, Order::Fair, Placement::Pack)
    );
    assert_eq!((admission.queue, admission.capacity), (7, Some(Amount::Share(90_000))));
    assert_eq!(config.fair_header.as_deref(), Some("x-caller"));
    let LedgerSettings::Redis(redis) = &config.ledger else { panic!("redis") };
    assert_eq!(redis.kind, RedisKind::Sentinel("mymaster".into()));
    assert_eq!(redis.addresses[1], RedisAddress::Tcp("s2".into(), 26379));
    assert_eq!((redis.user.as_deref(), redis.password.as_deref()), (Some("bob"), Some("long-enough-token")));
    assert_eq!((redis.ttl, redis.pace), (Duration::from_secs(2), Duration::from_millis(1)));
    assert_eq!(
        (redis.heartbeat(), redis.on_ledger_loss),
        (Duration::from_millis(400), OnLedgerLoss::PodLimit)
    );
    assert!(redis.tls.as_ref().is_some_and(|tls| tls.identity.is_some()));
    let gateway = config.gateway.as_ref().expect("a gateway");
    assert_eq!((gateway.prefer.as_deref(), gateway.workers), (Some("a"), Some(2)));
    assert_eq!((gateway.retry_attempts, gateway.retry_buffer), (1, 1 << 20));
    assert!(!format!("{config:?}").contains("long-enough-token"), "a token in Debug");
}

#[test]
fn an_api_named_default_takes_the_unmatched() {
    let config = config(
        "pool: p\npods: [{name: a, url: 'http://a:1', capacity: 9}]\n\
         apis: [{name: default, weight: 3}, {name: x, match: /x}]\ngateway: {listen: '127.0.0.1:0'}\n",
    );
    assert_eq!(config.policy.apis.len(), 2);
    assert_eq!((config.routes.find("GET", "/x"), config.routes.find("GET", "/y")), (1, 0));
}

#[test]
fn pods_found_elsewhere_are_judged_when_they_come() {
    let text = "pool: p\npods: {dns: 'shop.svc:9000', capacity: 20, every: 1s}\napis: [{name: x, weight: 9, min: 50%}]\n";
    let config = config(text);
    assert!(config.pods.is_empty() && config.policy.pods.is_empty());
    let PodSource::Dns { host, port, capacity, every, .. } = config.source.clone() else { panic!("dns") };
    assert_eq!((host.as_str(), port, capacity, every), ("shop.svc", 9000, 20, Duration::from_secs(1)));
    let found = |capacity| vec![dns_pod(PodScheme::Http, "10.0.0.1".into(), 9000, capacity)];
    let known = config.with_pods(found(20)).expect("fits").config;
    assert_eq!((known.pods[0].name.as_str(), known.policy.pods[0].capacity), ("10.0.0.1:9000", 20));
    let refused = config.with_pods(found(8)).expect_err("the weight is above the pod");
    assert!(
        refused.to_string().contains("t.yaml:3:26: apis.x.weight: weight 9 is above every pod"),
        "{refused}"
    );

    let file = crate::config("pool: p\npods: {file: pods.yaml}\n");
    let list = "- {name: a, url: 'http://a:1', capacity: 5}\n- {name: a, url: 'http://b:1', capacity: x}\n";
    let faults = file.with_pod_file("pods.yaml", list, &|_| None).expect_err("bad list").to_string();
    assert!(faults.contains("pods.yaml:2:42: a.capacity: `x` is no whole number"), "{faults}");
    let list = "- {name: a, url: 'http://a:1', capacity: 5}\n- {name: a, url: 'http://b:1', capacity: 5}\n";
    let faults = file.with_pod_file("pods.yaml", list, &|_| None).expect_err("twins").to_string();
    assert!(
        faults.starts_with("pods.yaml:2:10: a.name: a second pod named `a`; the first is in line 1"),
        "{faults}"
    );
}

#[test]
fn a_pod_file_is_read_beside_its_configuration() {
    let folder = std::env::temp_dir().join(format!("sluicegate-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("c.yaml"), "pool: p\npods: {file: pods.yaml}\n").expect("written");
    let missing = load(&folder.join("c.yaml"), &|_| None).expect_err("no pod file yet");
    std::fs::write(folder.join("pods.yaml"), "- {name: a, url: 'http://a:1', capacity: 5}\n")
        .expect("written");
    let loaded = load(&folder.join("c.yaml"), &|_| None);
    std::fs::remove_dir_all(&folder).expect("removed");
    assert!(missing.to_string().contains("pods.yaml: cannot be read"), "{missing}");
    let config = loaded.unwrap_or_else(|problems| panic!("{problems}")).config;
    assert_eq!(config.pods[0].name, "a");
    assert_eq!(config.source, PodSource::File { path: folder.join("pods.yaml") });
    assert_eq!(config.patch(&serde_json::json!({})).expect("nothing to do").source, config.source);
}

#[test]
fn anchors_variables_and_comments() {
    let config = config(
        "pool: ${POOL:-shop}\npods:\n  - &a {name: a, url: 'http://a:1', capacity: '${CAP:-12}'}\n\
         admission: {wait: &w 3s, max_hold: *w}\n",
    );
    assert_eq!((config.pool.as_str(), config.policy.pods[0].capacity), ("shop", 12));
    assert_eq!(config.apis[0].max_hold, Duration::from_secs(3));
}

#[test]
fn explain_gives_the_figures() {
    let text = explain(&config(SECTION_9));
    for part in [
        "Pool shop: 2 pods, 40 units (the largest pod has 20).",
        // 40 - share 4 - reserve 2 - guarantees 4
        "An ordinary api without `min` uses at most 30: 40 - trickle share 4 - reserve 2 - unfilled guarantees 4.",
        "A protected api may use the reserve as well: at most 32.",
        "may enter the last 4 units of the pool by tokens: 20 units per second",
        "It does not move a pool that is wedged by slow requests",
        "Api health: exempt.",
        // protected and guaranteed: 40 - 4 = 36 units
        "Api order: weight 2, at most 18 at once, 4 units guaranteed, may use the reserve, waits up to 1 s",
        "Api report: weight 3, at most 4 at once, 12 units at most, waits up to 1 s, response headers within 30 s.",
    ] {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
    let wedge = SECTION_9
        .replace("rate: 20/s", "rate: 20/s, ceiling: 110%")
        .replace("{wait: 1s", "{wait: 1s, max_hold: 9s");
    let text = explain(&config(&wedge));
    assert!(text.contains("up to 4 units above capacity"), "{text}");
    assert!(text.contains("WARNING"), "{text}");
    let dns = explain(&config("pool: p\npods: {dns: 'a.b:1', capacity: 20}\n"));
    assert!(dns.contains("every address of a.b:1 is a pod of 20 units"), "{dns}");
}

#[test]
fn the_schema_knows_every_key_and_refuses_others() {
    let schema = schema();
    let keys: Vec<&str> =
        schema["properties"].as_object().expect("an object").keys().map(String::as_str).collect();
    let sections = ["admin", "admission", "apis", "decisions", "gateway", "ledger", "overflow", "workers"];
    assert!(sections.iter().chain(&["default_weight", "pods", "pool"]).all(|key| keys.contains(key)));
    assert_eq!(keys.len(), sections.len() + 3, "{keys:?}");
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["required"], serde_json::json!(["pool", "pods"]));
    let api = &schema["$defs"]["Api"];
    assert_eq!(api["properties"]["weight"]["default"], 1);
    let match_words = api["properties"]["match"]["description"].as_str().expect("described");
    assert!(match_words.contains("Which requests"), "{match_words}");
}

#[test]
fn warnings_have_their_place() {
    let base = "pool: p\npods: [{name: a, url: 'http://a:1', capacity: 9}]\n";
    assert_eq!(warnings(base), ["1:1 no role: `run` would have nothing to do"]);
    let (text, places) = marked(
        "pool: p
pods: [{name: a, url: 'http://a:1', capacity: 9}]
gateway: {listen: '127.0.0.1:0'}
apis:
  - {name: x, match: '/x/**'}
  - {name: y, match: ¶'GET /x/y'}
  - ¶{name: z}
  - {name: e, match: /e, exempt: true, weight: ¶2}
  - {name: g, match: /g, weight: 2, min: ¶1}
  - {name: h, match: /h, max: ¶10}
admission: {capacity: ¶9}
",
    );
    let expected = [
        "apis.y.match: no request gets here: api `x` above matches them all",
        "apis.z: no request gets here: there is no `match`, and a gateway does not ask by name",
        "apis.e.weight: without effect: an exempt api holds nothing and never waits",
        "apis.g.min: a guarantee of 1 units holds no request of weight 2",
        "apis.h.max: no limit: the pool has 9 units",
        "admission.capacity: no cap: the pods together have 9 units",
    ];
    agree(&warnings(&text), &places, &expected);
}
