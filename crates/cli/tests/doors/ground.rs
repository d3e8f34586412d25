//! What a door stands on: pods that only count, and the program as a real process that can be killed and come back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use sluicegate_testkit::client::{get, get_json};
use sluicegate_testkit::ports::{free_port, loopback};
use sluicegate_testkit::process::Process;
use sluicegate_trial::pod::{GaugeReading, OnDisconnect, Pod, PodHandle, PodOptions};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

/// Units of each pod.
pub(crate) const CAPACITY: u32 = 20;
/// Pods of the pool.
pub(crate) const PODS: usize = 2;
/// Long enough for a busy machine; nothing waits this long when all is well.
pub(crate) const SOON: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// At which of the program's listeners the proxy asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    #[allow(dead_code, reason = "for doors that ask over HTTP")]
    Http,
    ExtProc,
}

/// A started proxy. Dropping it ends it.
pub(crate) struct Door {
    /// Where it takes requests.
    pub(crate) listen: SocketAddr,
    /// Its own admin listener, if it has one.
    #[allow(dead_code, reason = "for tests of one door")]
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) processes: Vec<Process>,
}

impl Door {
    /// All that its processes printed, for a failed test.
    pub(crate) fn words(&self) -> String {
        self.processes.iter().map(Process::output).collect::<Vec<_>>().join("\n")
    }
}

/// Pods and the program.
pub(crate) struct Ground {
    program: Option<Process>,
    pub(crate) pods: Vec<PodHandle>,
    /// Where the program is asked for leases: HTTP or gRPC, as the door chose. Stays the same over its death.
    pub(crate) decisions: SocketAddr,
    admin: SocketAddr,
    dir: TempDir,
}

impl Ground {
    /// Starts pods and program.
    pub(crate) async fn start(asks: Asks) -> Ground {
        let mut pods = Vec::new();
        for number in 0..PODS {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let options = PodOptions {
                count_only: true,
                on_disconnect: OnDisconnect::Stops,
                ..PodOptions::new(format!("p{number}"), CAPACITY)
            };
            pods.push(Pod::start(options, listener).unwrap());
        }
        let (decisions, admin) = (loopback(free_port()), loopback(free_port()));
        let dir = tempfile::tempdir().unwrap();
        let mut ground = Ground { program: None, pods, decisions, admin, dir };
        std::fs::write(ground.dir().join("sluicegate.yaml"), ground.yaml(asks)).unwrap();
        ground.revive().await;
        ground
    }

    fn yaml(&self, asks: Asks) -> String {
        let mut yaml = String::from("pool: doors\npods:\n");
        for pod in &self.pods {
            // They notice a cut connection a moment after the proxy has cut it.
            yaml += &format!(
                "  - {{name: {}, url: \"{}\", capacity: {CAPACITY}, on_disconnect: stops, settle: 20ms}}\n",
                pod.name(),
                pod.url()
            );
        }
        yaml += "apis:\n";
        for weight in [1, 2, 3, CAPACITY] {
            yaml += &format!("  - {{name: w{weight}, match: \"GET /w/{weight}/**\", weight: {weight}}}\n");
        }
        let listener = match asks {
            Asks::Http => "http",
            Asks::ExtProc => "ext_proc",
        };
        yaml + &format!(
            "admission: {{wait: 1s}}\ndecisions: {{{listener}: \"{}\"}}\nadmin: {{listen: \"{}\"}}\n",
            self.decisions, self.admin
        )
    }

    /// For the proxy's configuration and its files; gone with the ground.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the program and waits until it is ready.
    pub(crate) async fn revive(&mut self) {
        let config = self.dir().join("sluicegate.yaml");
        let program = env!("CARGO_BIN_EXE_sluicegate");
        let mut process = Process::start(program, &["run", "-c", config.to_str().unwrap()]);
        process.http(self.admin, "/readyz", SOON).await;
        self.program = Some(process);
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.program.take().expect("it runs").kill();
    }

    /// Waits until a request goes through the door to a pod.
    pub(crate) async fn until_serves(&self, door: SocketAddr) {
        let start = Instant::now();
        loop {
            let answer = get(door, "/w/1").await;
            if answer.as_ref().is_ok_and(|answer| answer.head.status == 200) {
                return;
            }
            assert!(
                start.elapsed() < SOON,
                "the door at {door} does not serve: {answer:?}\n{}",
                self.words()
            );
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until nothing is in use and nobody waits, by the program's word and by the pods'. Answers what is not so.
    pub(crate) async fn until_idle(&self) -> Vec<String> {
        let start = Instant::now();
        loop {
            let state = get_json(self.admin, "/v1/state").await.unwrap();
            let busy: Vec<String> = self
                .pods
                .iter()
                .filter(|pod| pod.gauge().read().in_use > 0)
                .map(|pod| pod.name().to_owned())
                .collect();
            if state["in_use"] == 0 && state["waiting"] == 0 && busy.is_empty() {
                return Vec::new();
            }
            if start.elapsed() > SOON {
                let (in_use, waiting) = (&state["in_use"], &state["waiting"]);
                return vec![format!(
                    "at the end {in_use} units are in use, {waiting} wait, pods busy: {busy:?}"
                )];
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until no pod works, whatever the program thinks.
    pub(crate) async fn until_pods_idle(&self) {
        let start = Instant::now();
        while self.pods.iter().any(|pod| pod.gauge().read().in_use > 0) {
            assert!(start.elapsed() < SOON, "pods work on: {:?}", self.gauges());
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until at least `count` asks wait, or nothing more can be gained by it.
    pub(crate) async fn until_waiting(&self, count: u64, longest: Duration) {
        let start = Instant::now();
        while start.elapsed() < longest {
            let state: Value = get_json(self.admin, "/v1/state").await.unwrap();
            if state["waiting"].as_u64().unwrap() >= count {
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    pub(crate) fn gauges(&self) -> Vec<GaugeReading> {
        self.pods.iter().map(|pod| pod.gauge().read()).collect()
    }

    pub(crate) fn reset_gauges(&self) {
        self.pods.iter().for_each(|pod| pod.gauge().reset());
    }

    /// Requests so far by outcome, of all apis, by the program's own count.
    pub(crate) async fn outcomes(&self) -> BTreeMap<String, u64> {
        let text = get(self.admin, "/metrics").await.unwrap().text();
        let mut outcomes = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with("sluicegate_requests_total{")) {
            let (labels, count) = line.rsplit_once(' ').unwrap();
            let (_, outcome) = labels.split_once("outcome=\"").unwrap();
            let outcome = outcome.split('"').next().unwrap().to_owned();
            *outcomes.entry(outcome).or_default() += count.parse::<u64>().unwrap();
        }
        outcomes
    }

    /// What the program printed.
    pub(crate) fn words(&self) -> String {
        self.program.as_ref().map(Process::output).unwrap_or_default()
    }
}
