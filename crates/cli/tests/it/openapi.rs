//! The decision service against its own OpenAPI document: schemathesis calls it with what the document allows, and with
//! what it does not.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::decisions::Deciding;

/// Where `scripts/install-parts` puts it.
fn schemathesis() -> PathBuf {
    let cache = std::env::var_os("SLUICEGATE_PARTS").map(PathBuf::from).or_else(|| {
        let of_user = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = of_user.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")))?;
        Some(cache.join("sluicegate-parts"))
    });
    let path = cache.expect("HOME is set").join("schemathesis-4.32.5/bin/schemathesis");
    assert!(path.exists(), "there is no schemathesis at {}: run scripts/install-parts", path.display());
    path
}

/// Pods that register, so that every route is there; two apis, so that both kinds of leases are given.
const RULES: &str = "pool: shop\npods: {registered: true}\n\
    apis:\n  - {name: quote, match: \"GET /quotes/*\", weight: 1}\n  - {name: health, match: \"GET /health\", exempt: true}\n\
    admission: {wait: 0, max_hold: 5s}\n";

#[tokio::test]
async fn schemathesis_finds_nothing() {
    let running = Deciding::start(RULES);
    let pod = "{\"url\": \"http://127.0.0.1:9\", \"capacity\": 1000000, \"ttl_ms\": 86400000}";
    let put = sluicegate_testkit::client::send(running.decisions, "PUT", "/v1/pods/a", pod).await.unwrap();
    assert_eq!(put.head.status, 201);
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(schemathesis())
        .arg("--no-color")
        .arg("run")
        .arg(format!("http://{}/v1/openapi.json", running.decisions))
        // Bounded in cases and in time; the seed makes a run the same again.
        .args(["--max-examples", "20", "--max-time", "60", "--seed", "1", "--request-timeout", "60"])
        .args(["--phases", "coverage,fuzzing,stateful", "--suppress-health-check", "all"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("Tested: 6"), "not every route was called:\n{said}");
}
