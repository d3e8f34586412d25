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
    Http,
    ExtProc,
}

/// What a test may choose of the ground.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) asks: Asks,
    pub(crate) on_disconnect: OnDisconnect,
    /// Rules of `admission`.
    pub(crate) admission: String,
    /// More keys of `decisions`, each with a comma before it.
    pub(crate) decisions: String,
    /// Further lines of the configuration.
    pub(crate) rules: String,
    /// Further arguments of `run`.
    pub(crate) args: Vec<String>,
}

impl Terms {
    /// Those of the matrix.
    pub(crate) fn new(asks: Asks) -> Terms {
        Terms {
            asks,
            on_disconnect: OnDisconnect::Stops,
            admission: "wait: 1s".to_owned(),
            decisions: String::new(),
            rules: String::new(),
            args: Vec::new(),
        }
    }
}

/// A started proxy. Dropping it ends it.
pub(crate) struct Door {
    /// Where it takes requests.
    pub(crate) listen: SocketAddr,
    /// Its own admin listener, if it has one.
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
    pub(crate) admin: SocketAddr,
    terms: Terms,
    dir: TempDir,
}

impl Ground {
    /// Starts pods and program.
    pub(crate) async fn start(terms: Terms) -> Ground {
        let mut pods = Vec::new();
        for number in 0..PODS {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let options = PodOptions {
                count_only: true,
                on_disconnect: terms.on_disconnect,
                ..PodOptions::new(format!("p{number}"), CAPACITY)
            };
            pods.push(Pod::start(options, listener).unwrap());
        }
        let (decisions, admin) = (loopback(free_port()), loopback(free_port()));
        let dir = tempfile::tempdir().unwrap();
        let mut ground = Ground { program: None, pods, decisions, admin, terms, dir };
        std::fs::write(ground.dir().join("sluicegate.yaml"), ground.yaml(decisions, admin)).unwrap();
        ground.revive().await;
        ground
    }

    /// The configuration of a program that listens there.
    pub(crate) fn yaml(&self, asked_at: SocketAddr, admin: SocketAddr) -> String {
        let Terms { asks, on_disconnect, admission, decisions, rules, .. } = &self.terms;
        // Pods that stop notice a cut connection a moment after the proxy has cut it.
        let manners = match on_disconnect {
            OnDisconnect::Stops => "on_disconnect: stops, settle: 20ms",
            OnDisconnect::Continues => "on_disconnect: continues",
        };
        let mut yaml = String::from("pool: doors\npods:\n");
        for pod in &self.pods {
            yaml += &format!(
                "  - {{name: {}, url: \"{}\", capacity: {CAPACITY}, {manners}}}\n",
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
            "admission: {{{admission}}}\ndecisions: {{{listener}: \"{asked_at}\"{decisions}}}\nadmin: {{listen: \"{admin}\"}}\n{rules}\n"
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
        let mut args = vec!["run", "-c", config.to_str().unwrap()];
        args.extend(self.terms.args.iter().map(String::as_str));
        let mut process = Process::start(program, &args);
        process.http(self.admin, "/readyz", SOON).await;
        self.program = Some(process);
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.program.take().expect("it runs").kill();
    }

    pub(crate) fn program(&mut self) -> &mut Process {
        self.program.as_mut().expect("it runs")
    }

    /// One of the program's counters or gauges, with its labels; 0 if it is not there.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let text = get(self.admin, "/metrics").await.unwrap().text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0)
    }

    /// Waits for a value of a metric.
    pub(crate) async fn until_metric(&self, name: &str, is_so: impl Fn(u64) -> bool) {
        let start = Instant::now();
        loop {
            let value = self.metric(name).await;
            if is_so(value) {
                return;
            }
            assert!(start.elapsed() < SOON, "{name} is {value}\n{}", self.words());
            sleep(LOOK_EVERY).await;
        }
    }

    /// Units in use on each pod, by the program's word.
    pub(crate) async fn in_use(&self) -> Vec<u64> {
        let state = get_json(self.admin, "/v1/state").await.unwrap();
        let pods = state["pods"].as_array().unwrap();
        pods.iter().map(|pod| pod["in_use"].as_u64().unwrap()).collect()
    }

    /// Waits for them.
    pub(crate) async fn until_in_use(&self, wanted: &[u64]) {
        let start = Instant::now();
        loop {
            let in_use = self.in_use().await;
            if in_use == wanted {
                return;
            }
            assert!(start.elapsed() < SOON, "in use {in_use:?}, wanted {wanted:?}\n{}", self.words());
            sleep(LOOK_EVERY).await;
        }
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

    /// Waits until this life of the program has admitted so many.
    pub(crate) async fn until_admitted(&self, count: u64) {
        let start = Instant::now();
        while self.outcomes().await.get("admitted").is_none_or(|admitted| *admitted < count) {
            assert!(start.elapsed() < SOON, "never asked again\n{}", self.words());
            sleep(LOOK_EVERY).await;
        }
    }

    /// What the program printed.
    pub(crate) fn words(&self) -> String {
        self.program.as_ref().map(Process::output).unwrap_or_default()
    }
}
