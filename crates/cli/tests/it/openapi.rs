//! The decision service against its own OpenAPI document: schemathesis calls it with what the document allows, and with
//! what it does not.

use std::process::Command;

use sluicegate_testkit::parts::part;

use crate::decisions::Deciding;

/// Nothing waits for room: what is made up may want to for minutes. Pods that register, so that every route is there;
/// two apis, so that both kinds of leases are given.
const RULES: &str = "pool: shop\npods: {registered: true}\n\
    apis:\n  - {name: quote, match: \"GET /quotes/*\", weight: 1}\n  - {name: health, match: \"GET /health\", exempt: true}\n\
    admission: {mode: shadow, max_hold: 5s}\n";

/// Runs it, bounded in cases and in time; the seed makes a run the same again. Answers what it said.
fn check(running: &Deciding, args: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(part("schemathesis-4.32.5/bin/schemathesis"))
        .args(["--no-color", "run"])
        .arg(format!("http://{}/v1/openapi.json", running.decisions))
        .args(["--max-examples", "10", "--seed", "1", "--request-timeout", "60"])
        .args(["--phases", "coverage,fuzzing,stateful", "--suppress-health-check", "all"])
        .args(args)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[tokio::test]
async fn schemathesis_finds_nothing() {
    let running = Deciding::start(RULES);
    let pod = "{\"url\": \"http://pod-a:9\", \"capacity\": 1000000, \"ttl_ms\": 86400000}";
    let put = sluicegate_testkit::client::send(running.decisions, "PUT", "/v1/pods/a", pod).await.unwrap();
    assert_eq!(put.head.status, 201);
    // 503 is the contract's word for what is too heavy; any other of its kind is not in the document, which is checked.
    // A lease may end before it is renewed: that is what `hold_ms` says.
    let not = "not_a_server_error,ensure_resource_availability";
    let said =
        check(&running, &["--max-time", "40", "--exclude-path", "/v1/pods/{name}", "--exclude-checks", not]);
    assert!(said.contains("Tested: 4"), "not every route was called:\n{said}");
    // Two pods of one URL are well-formed and refused, with 422.
    let not = "positive_data_acceptance,ensure_resource_availability";
    let said =
        check(&running, &["--max-time", "10", "--include-path", "/v1/pods/{name}", "--exclude-checks", not]);
    assert!(said.contains("Tested: 2"), "not every route was called:\n{said}");
}
