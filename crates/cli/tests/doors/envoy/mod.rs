//! The real Envoy, set up as `examples/envoy/envoy.yaml` says.

mod answers;
mod ends;
mod modes;
mod placement;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use sluicegate_testkit::client::Raw;
use sluicegate_testkit::parts::part;
use sluicegate_testkit::ports::{free_port, loopback};
use sluicegate_testkit::process::Process;

use crate::ground::{Asks, Door, Ground, SOON, Terms};
use crate::matrix;

/// Its path.
pub(crate) fn binary() -> PathBuf {
    part("envoy-1.40.0/envoy")
}

/// The example's text. Each change is a piece of it and what stands in its place.
pub(crate) fn example(changes: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/envoy/envoy.yaml");
    let mut text = std::fs::read_to_string(path).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "the example has no `{from}`");
        text = text.replace(from, to);
    }
    text
}

/// The example's setting of the modes, and the plain one with which Envoy ends a stream at once.
const MODES: &str = "response_header_mode: SEND";
const TRAILERS: &str = "response_trailer_mode: SEND";
const PLAIN: [(&str, &str); 2] =
    [(MODES, "response_header_mode: SKIP"), (TRAILERS, "response_trailer_mode: SKIP")];
/// Mode overrides are not obeyed.
const DEAF: (&str, &str) = ("allow_mode_override: true", "allow_mode_override: false");
/// What runs goes on without Sluicegate, and so does what comes.
const OPEN: (&str, &str) = ("failure_mode_allow: false", "failure_mode_allow: true");

/// Ground and Envoy, which serves.
async fn set_up(terms: Terms, changes: &[(&str, &str)]) -> (Ground, Door) {
    let ground = Ground::start(terms).await;
    let door = start(&ground, &example(changes)).await;
    ground.until_serves(door.listen).await;
    (ground, door)
}

fn terms() -> Terms {
    Terms::new(Asks::ExtProc)
}

/// A request whose answer's head has come and whose body comes slowly, for so many tenths of a second at most.
async fn running(door: SocketAddr, weight: u32, tenths: u32) -> Raw {
    let mut client = Raw::connect(door).await.unwrap();
    client.request("GET", &format!("/w/{weight}?chunks={tenths}&every=100"), &[]).await.unwrap();
    let head = client.head().await.unwrap();
    assert_eq!(head.status, 200);
    client
}

/// Reads the rest of its body: how many chunks, or that it broke off.
async fn rest(client: &mut Raw) -> std::io::Result<u32> {
    let mut chunks = 0;
    while client.chunk().await?.is_some() {
        chunks += 1;
    }
    Ok(chunks)
}

/// Starts Envoy on a configuration with the example's ports.
pub(crate) async fn start(ground: &Ground, text: &str) -> Door {
    let (listen, admin) = (loopback(free_port()), loopback(free_port()));
    let mut text = text.to_owned();
    let ports = [
        (8080, listen.port()),
        (9901, admin.port()),
        (8091, ground.decisions.port()),
        (9001, ground.pods[0].addr().port()),
        (9002, ground.pods[1].addr().port()),
    ];
    for (from, to) in ports {
        text = text.replace(&format!("port_value: {from}}}"), &format!("port_value: {to}}}"));
    }
    let config = ground.dir().join(format!("envoy-{}.yaml", listen.port()));
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let args = ["-c", config, "--concurrency", "2", "-l", "warning", "--use-dynamic-base-id"];
    let mut process = Process::start(binary(), &args);
    process.http(admin, "/ready", SOON).await;
    Door { listen, admin: Some(admin), processes: vec![process] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_takes_and_gives_back_exactly_once() {
    // What the matrix needs beside the example: a time-out for requests that a pod never answers.
    let late = "routes:\n              - match: {safe_regex: {regex: \"/w/[0-9]+/late\"}}\n                route: {cluster: pods, timeout: 1s}";
    let text = example(&[("routes:", late)]);
    matrix::run("Envoy", Asks::ExtProc, async |ground| start(ground, &text).await).await;
}
