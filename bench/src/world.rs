//! The processes of a measurement: a gateway, pods, a load; each its own, all ended with their values.

use std::ffi::OsStr;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluicegate_testkit::client::{self, Raw};
use sluicegate_testkit::process::Process;
use sluicegate_trial::pod::GaugeReading;
use tempfile::TempDir;

use crate::{Outcome, Settings, page};

/// The proxy under test has this core to itself.
pub(crate) const PROXY_CORE: &str = "0";
/// All others have this one.
pub(crate) const OTHER_CORE: &str = "1";

const SOON: Duration = Duration::from_secs(60);

/// Ten pods of twenty units.
pub(crate) const PODS: usize = 10;
/// Units of each.
pub(crate) const POD_UNITS: u32 = 20;

/// The `sluicegate` of this source, built in the profile of this program, unless another one was named.
///
/// # Errors
/// It does not build.
pub(crate) fn sluicegate(settings: &Settings) -> Outcome<PathBuf> {
    if let Some(bin) = &settings.bin {
        return Ok(bin.clone());
    }
    let profile = page::profile();
    let cargo_profile = if profile == "debug" { "dev" } else { profile.as_str() };
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--package", "sluicegate-cli", "--profile", cargo_profile])
        .status();
    if !built.is_ok_and(|status| status.success()) {
        return Err("sluicegate does not build; name a built one with --bin FILE".to_owned());
    }
    let program = std::env::current_exe().map_err(|error| format!("this program's own path: {error}"))?;
    Ok(program.with_file_name("sluicegate"))
}

/// Runs a future to its end.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime needs only an epoll descriptor").block_on(future)
}

/// A new folder for a measurement's files.
///
/// # Errors
/// The system's.
pub(crate) fn folder() -> Outcome<TempDir> {
    tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))
}

/// A program confined to a core.
pub(crate) fn pinned(core: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program);
    command
}

/// Confines a running process, with all its threads, to a core.
///
/// # Errors
/// `taskset` is not there or fails.
pub(crate) fn confine(pid: u32, core: &str) -> Outcome<()> {
    let output = Command::new("taskset").args(["-apc", core, &pid.to_string()]).output();
    let output = output.map_err(|error| format!("taskset: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("taskset: {said}"))
}

/// A port that was free a moment ago, for programs that cannot choose one themselves.
///
/// # Errors
/// The system's.
pub(crate) fn free_ports(count: usize) -> Outcome<Vec<u16>> {
    let ports = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>();
    let ports =
        ports.and_then(|all| all.iter().map(|one| one.local_addr().map(|addr| addr.port())).collect());
    ports.map_err(|error| format!("no free port: {error}"))
}

/// The configuration's example in the design: guarantees, a reserve, a trickle, a maximum; over these pods.
pub(crate) fn example(pods: &[SocketAddr]) -> String {
    format!(
        "{}apis:\n\
         \x20 - {{name: health, match: \"GET /actuator/**\", exempt: true}}\n\
         \x20 - {{name: quote,  match: \"GET /quotes/*\",  weight: 1}}\n\
         \x20 - {{name: order,  match: \"POST /orders\",   weight: 2, min: 4, protected: true}}\n\
         \x20 - {{name: report, match: \"GET /reports/**\", weight: 3, max: 12, max_hold: 30s}}\n\
         admission: {{wait: 1s, reserve: 5%, trickle: {{share: 10%, rate: 20/s}}}}\n",
        pool(pods)
    )
}

/// The weights 1, 2 and 3 by the paths of the trial load, over these pods.
pub(crate) fn weights(pods: &[SocketAddr], admission: &str) -> String {
    let api =
        |weight: u32| format!("  - {{name: w{weight}, match: \"GET /w/{weight}\", weight: {weight}}}\n");
    let apis: String = [1, 2, 3].map(api).concat();
    format!("{}apis:\n{apis}admission: {admission}\n", pool(pods))
}

/// The pods' part of a configuration.
pub(crate) fn pool(pods: &[SocketAddr]) -> String {
    let pod = |(number, addr): (usize, &SocketAddr)| {
        format!("  - {{name: p{number}, url: \"http://{addr}\", capacity: {POD_UNITS}}}\n")
    };
    format!("pool: shop\npods:\n{}", pods.iter().enumerate().map(pod).collect::<String>())
}

/// A `sluicegate run` and where it listens.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    _folder: TempDir,
}

impl Gateway {
    /// `rules` is everything but the listeners; `before` goes before the program (`taskset -c 0`, `valgrind`).
    ///
    /// # Errors
    /// No folder for the configuration.
    ///
    /// # Panics
    /// With its output, if it does not start.
    pub(crate) fn start(bin: &Path, rules: &str, workers: Option<u32>, before: &[&str]) -> Outcome<Gateway> {
        let ports = free_ports(2)?;
        let (listen, admin) = (loopback(ports[0]), loopback(ports[1]));
        let workers = workers.map_or_else(String::new, |workers| format!(", workers: {workers}"));
        let yaml =
            format!("{rules}gateway: {{listen: \"{listen}\"{workers}}}\nadmin: {{listen: \"{admin}\"}}\n");
        let folder = folder()?;
        let config = folder.path().join("sluicegate.yaml");
        std::fs::write(&config, yaml).map_err(|error| format!("{}: {error}", config.display()))?;
        let mut command = match before {
            [] => Command::new(bin),
            [program, args @ ..] => {
                let mut command = Command::new(program);
                command.args(args).arg(bin);
                command
            }
        };
        command.arg("run").arg("-c").arg(config);
        let mut process = Process::spawn(command);
        block_on(process.http(admin, "/readyz", SOON));
        Ok(Gateway { process, listen, admin, _folder: folder })
    }

    /// The process whose CPU and memory are meant (`taskset` and `valgrind` become the program).
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// `GET /v1/state`.
    ///
    /// # Errors
    /// What the client said.
    pub(crate) fn state(&self) -> Outcome<Value> {
        block_on(client::get_json(self.admin, "/v1/state")).map_err(|error| format!("/v1/state: {error}"))
    }

    /// `PATCH /v1/config`.
    ///
    /// # Errors
    /// The answer, unless it was 200.
    pub(crate) fn patch(&self, patch: &str) -> Outcome<()> {
        let answer = block_on(client::send(self.admin, "PATCH", "/v1/config", patch));
        let answer = answer.map_err(|error| format!("/v1/config: {error}"))?;
        if answer.head.status == 200 { Ok(()) } else { Err(format!("/v1/config: {}", answer.text())) }
    }

    /// Waits until `GET /v1/state` says that so many wait, and gives the time it took.
    ///
    /// # Errors
    /// They do not within the deadline; how many do.
    pub(crate) fn until_waiting(&self, count: u64, deadline: Duration) -> Outcome<Duration> {
        let start = Instant::now();
        loop {
            let state = self.state()?;
            if state["waiting"] == count {
                return Ok(start.elapsed());
            }
            if start.elapsed() > deadline {
                return Err(format!("{} wait after {deadline:?}, not {count}", state["waiting"]));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Requests that hold the whole pool as long as this lives.
pub(crate) struct Held {
    _clients: Vec<Raw>,
    /// A runtime that is dropped would end their connections.
    _runtime: tokio::runtime::Runtime,
}

impl Gateway {
    /// Takes all units of the pool, by requests for `/w/20` that hang.
    ///
    /// # Errors
    /// A request cannot be sent, or the pool is not full after a minute.
    pub(crate) fn hold_pool(&self) -> Outcome<Held> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
        let clients = runtime.block_on(async {
            let mut clients = Vec::new();
            for _ in 0..PODS {
                let mut client = Raw::connect(self.listen).await?;
                client.request("GET", &format!("/w/{POD_UNITS}?hang"), &[]).await?;
                clients.push(client);
            }
            Ok::<_, std::io::Error>(clients)
        });
        let clients = clients.map_err(|error| format!("hold the pool: {error}"))?;
        let start = Instant::now();
        while self.state()?["in_use"] != PODS as u32 * POD_UNITS {
            if start.elapsed() > SOON {
                return Err("the pool is not full after a minute".to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Held { _clients: clients, _runtime: runtime })
    }
}

/// This port on loopback.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// How the pods of a measurement behave.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PodKind {
    /// Never refuse.
    pub(crate) count_only: bool,
    /// So many of them free their units 2 ms after the last byte.
    pub(crate) late: usize,
    /// Units of each; 0 for [`POD_UNITS`].
    pub(crate) units: u32,
}

/// Ten sample pods in a process of their own.
pub(crate) struct Pods {
    process: Process,
    pub(crate) addrs: Vec<SocketAddr>,
}

impl Pods {
    /// # Errors
    /// This program's path is unknown.
    ///
    /// # Panics
    /// With their output, if they do not start.
    pub(crate) fn start(kind: PodKind) -> Outcome<Pods> {
        let program = std::env::current_exe().map_err(|error| format!("this program's own path: {error}"))?;
        let mut command = Command::new(program);
        let units = if kind.units == 0 { POD_UNITS } else { kind.units };
        command.arg("pods").args(["--late", &kind.late.to_string(), "--units", &units.to_string()]);
        if kind.count_only {
            command.arg("--count-only");
        }
        let mut process = Process::spawn(command);
        let addrs = process.line(SOON, |line| {
            line.strip_prefix("pods ")?.split(',').map(|addr| addr.parse().ok()).collect::<Option<Vec<_>>>()
        });
        Ok(Pods { process, addrs })
    }

    /// Leaves them this core only.
    ///
    /// # Errors
    /// As [`confine`].
    pub(crate) fn confine(&self, core: &str) -> Outcome<()> {
        confine(self.process.id(), core)
    }

    /// Sets all peaks to what is in use, and the counts to 0.
    ///
    /// # Errors
    /// A pod does not answer.
    pub(crate) fn reset(&self) -> Outcome<()> {
        for addr in &self.addrs {
            let answer = block_on(client::send(*addr, "POST", "/gauge/reset", ""));
            answer.map_err(|error| format!("pod {addr}: {error}"))?;
        }
        Ok(())
    }

    /// The pods' own counts.
    ///
    /// # Errors
    /// A pod does not answer.
    pub(crate) fn gauges(&self) -> Outcome<Vec<GaugeReading>> {
        let read = |addr: &SocketAddr| {
            let value = block_on(client::get_json(*addr, "/gauge")).map_err(|error| error.to_string());
            let reading =
                value.and_then(|value| serde_json::from_value(value).map_err(|error| error.to_string()));
            reading.map_err(|error| format!("pod {addr}: {error}"))
        };
        self.addrs.iter().map(read).collect()
    }

    /// Waits until no pod works any more.
    ///
    /// # Errors
    /// A pod does not answer, or works on for a minute.
    pub(crate) fn until_idle(&self) -> Outcome<()> {
        let start = Instant::now();
        while self.gauges()?.iter().any(|gauge| gauge.in_use > 0) {
            if start.elapsed() > SOON {
                return Err("the pods are not idle after a minute".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}
