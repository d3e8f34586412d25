//! Proxies that cannot ask: the gateway stands behind them, with the configurations that are shipped.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sluicegate_testkit::client::{Raw, get};
use sluicegate_testkit::parts::part;
use sluicegate_testkit::ports::{free_port, loopback};
use sluicegate_testkit::process::Process;
use sluicegate_trial::pod::{OnDisconnect, PodHandle, PodOptions};
use tokio::time::{Instant, sleep};

use crate::ground::SOON;
use crate::matrix::full;
use crate::nginx::{change, for_a_test, nginx, plugins};
use crate::running::{Running, pods};

/// Units of each of two pods.
const CAPACITY: u32 = 20;

/// A proxy before the gateway.
struct Behind {
    proxy: Process,
    door: SocketAddr,
    gateway: Running,
    pods: Vec<PodHandle>,
    _dir: tempfile::TempDir,
}

/// Starts the proxy in a folder, with the gateway's and the admin's address; answers where it listens.
type Start = fn(&Path, SocketAddr, SocketAddr) -> (Process, SocketAddr);

impl Behind {
    async fn start(start: Start, on_disconnect: OnDisconnect) -> Behind {
        let options =
            |name| PodOptions { count_only: true, on_disconnect, ..PodOptions::new(name, CAPACITY) };
        let (pods, mut yaml) = pods(2, options).await;
        if on_disconnect == OnDisconnect::Stops {
            yaml = yaml.replace("capacity: 20", "capacity: 20, on_disconnect: stops");
        }
        let apis = "apis:\n  - {name: all, match: \"GET /w/20\", weight: 20}\n";
        let gateway = Running::start(&format!("{yaml}{apis}admission: {{wait: 30s}}\n"));
        let dir = tempfile::tempdir().unwrap();
        let (mut proxy, door) = start(dir.path(), gateway.gateway, gateway.admin);
        proxy.port(door, SOON).await;
        let begin = Instant::now();
        while !get(door, "/w/1").await.is_ok_and(|answer| answer.head.status == 200) {
            assert!(begin.elapsed() < SOON, "{}", proxy.output());
        }
        Behind { proxy, door, gateway, pods, _dir: dir }
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        let begin = Instant::now();
        loop {
            let state = self.gateway.state().await;
            if is_so(&state) {
                return;
            }
            assert!(begin.elapsed() < SOON, "not so: {what}: {state}\n{}", self.proxy.output());
            sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    async fn sent(&self, target: &str) -> Raw {
        let mut client = Raw::connect(self.door).await.unwrap();
        client.request("GET", target, &[]).await.unwrap();
        client
    }

    async fn over(&self) {
        self.until("all is over", |state| state["in_use"] == 0 && state["waiting"] == 0).await;
        for pod in &self.pods {
            let gauge = pod.gauge();
            sluicegate_testkit::wait::until("the pods' work ends", SOON, || gauge.read().in_use == 0).await;
            assert!(pod.gauge().read().peak <= CAPACITY, "{:?}", pod.gauge().read());
        }
    }
}

fn haproxy(dir: &Path, gateway: SocketAddr, admin: SocketAddr) -> (Process, SocketAddr) {
    let listen = loopback(free_port());
    let text = std::fs::read_to_string(plugins().join("haproxy/haproxy.cfg")).unwrap();
    let text = change(&text, "127.0.0.1:80\n", &format!("{listen}\n"));
    let text = change(&text, "127.0.0.1:8080", &gateway.to_string());
    let text = change(&text, "port 8081", &format!("port {}", admin.port()));
    let text = change(&text, "maxconn 20000", "maxconn 1000");
    let config = dir.join("haproxy.cfg");
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(config);
    (Process::spawn(command), listen)
}

fn nginx_without_lua(dir: &Path, gateway: SocketAddr, _: SocketAddr) -> (Process, SocketAddr) {
    let listen = loopback(free_port());
    let text = std::fs::read_to_string(plugins().join("nginx/without-lua.conf")).unwrap();
    let text = change(&text, "127.0.0.1:8080", &gateway.to_string());
    let text = change(&text, "listen 127.0.0.1:80;", &format!("listen {listen};"));
    std::fs::write(dir.join("nginx.conf"), for_a_test(&text, 1)).unwrap();
    (Process::spawn_group(nginx(dir)), listen)
}

fn traefik(dir: &Path, gateway: SocketAddr, admin: SocketAddr) -> (Process, SocketAddr) {
    traefik_with(dir, gateway, admin, "130s")
}

/// `head`: its `responseHeaderTimeout`.
fn traefik_with(dir: &Path, gateway: SocketAddr, admin: SocketAddr, head: &str) -> (Process, SocketAddr) {
    let listen = loopback(free_port());
    let shipped = |name| std::fs::read_to_string(plugins().join("traefik").join(name)).unwrap();
    let text = change(&shipped("traefik.yaml"), "127.0.0.1:80\"", &format!("{listen}\""));
    let dynamic = dir.join("dynamic.yaml");
    let text = change(&text, "filename: dynamic.yaml", &format!("filename: {}", dynamic.display()));
    let config = dir.join("traefik.yaml");
    std::fs::write(&config, text).unwrap();
    let text = change(&shipped("dynamic.yaml"), "127.0.0.1:8080", &gateway.to_string());
    let text = change(&text, "Timeout: 130s", &format!("Timeout: {head}"));
    std::fs::write(dynamic, change(&text, "port: 8081", &format!("port: {}", admin.port()))).unwrap();
    let mut command = Command::new(part("traefik-3.6.12/traefik"));
    command.arg(format!("--configFile={}", config.display()));
    (Process::spawn(command), listen)
}

/// Traefik must be built first, which takes minutes: with `SLUICEGATE_FULL=1`.
fn proxies() -> Vec<(&'static str, Start)> {
    let mut proxies: Vec<(&str, Start)> =
        vec![("HAProxy", haproxy), ("nginx without Lua", nginx_without_lua)];
    if full() {
        proxies.push(("Traefik", traefik));
    }
    proxies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_and_refusals_come_through_whole() {
    for (name, start) in proxies() {
        let behind = Behind::start(start, OnDisconnect::Stops).await;
        let full = [behind.sent("/w/20?hang").await, behind.sent("/w/20?hang").await];
        behind.until("the pool is full", |state| state["in_use"] == 40).await;
        let patch = r#"{"admission": {"wait": "0s"}}"#;
        sluicegate_testkit::client::send(behind.gateway.admin, "PATCH", "/v1/config", patch).await.unwrap();
        let answer = get(behind.door, "/w/1").await.unwrap();
        assert_eq!(
            (answer.head.status, answer.head.header("x-sluicegate-reason")),
            (429, "no_room"),
            "{name}"
        );
        assert_eq!(answer.head.header("content-type"), "application/problem+json", "{name}");
        assert!(!answer.head.header("retry-after").is_empty(), "{name}: {answer:?}");
        drop(full);
        behind.over().await;
        let answer = get(behind.door, "/w/1").await.unwrap();
        assert!(answer.head.header("server-timing").starts_with("admission;dur="), "{name}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_while_waiting_leaves_the_gateways_queue() {
    for (name, start) in proxies() {
        let behind = Behind::start(start, OnDisconnect::Stops).await;
        let full = [behind.sent("/w/20?hang").await, behind.sent("/w/20?hang").await];
        behind.until("the pool is full", |state| state["in_use"] == 40).await;
        let waits = behind.sent("/w/1").await;
        behind.until("one waits", |state| state["waiting"] == 1).await;
        waits.abort().unwrap();
        let begin = Instant::now();
        behind.until("it has left", |state| state["waiting"] == 0).await;
        assert!(
            begin.elapsed().as_secs() < 25,
            "{name}: dropped because it left, not because its wait was over"
        );
        drop(full);
        behind.over().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_pod_works_on_is_held_to_its_end() {
    for (name, start) in proxies() {
        for on_disconnect in [OnDisconnect::Continues, OnDisconnect::Stops] {
            let behind = Behind::start(start, on_disconnect).await;
            // Its pod would go on for long; those that stop are free at once.
            let target = if on_disconnect == OnDisconnect::Stops {
                "/w/1?chunks=2&every=600000"
            } else {
                "/w/1?chunks=2&every=1000"
            };
            let mut client = behind.sent(target).await;
            assert_eq!(client.head().await.unwrap().status, 200, "{name}");
            client.chunk().await.unwrap();
            client.abort().unwrap();
            behind.over().await;
        }
        let behind = Behind::start(start, OnDisconnect::Continues).await;
        let answer = behind.sent("/w/1?reset=head").await.answer().await.unwrap();
        assert_eq!(answer.head.status, 502, "{name}");
        assert!(behind.sent("/w/1?reset=body&bytes=1000").await.answer().await.is_err(), "{name}");
        behind.over().await;
    }
}

/// Why the shipped `responseHeaderTimeout` is above the longest wait and hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traefik_gives_up_on_who_waits_longer_than_its_response_header_timeout() {
    if !full() {
        return;
    }
    let start: Start = |dir, gateway, admin| traefik_with(dir, gateway, admin, "300ms");
    let behind = Behind::start(start, OnDisconnect::Stops).await;
    let answer = behind.sent("/w/1?hang").await.answer().await.unwrap();
    assert_eq!(answer.head.status, 504);
    behind.over().await;
}
