//! The program started, and sample pods for it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use sluicegate_testkit::process::Process;
use sluicegate_trial::pod::{Pod, PodHandle, PodOptions};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// Long enough for a busy machine to start a process; nothing waits this long when all is well.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What a command printed, and its exit code.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs a command that ends by itself.
pub(crate) fn say(args: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_sluicegate")).args(args).output().unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A folder with one configuration in it.
pub(crate) struct Folder {
    pub(crate) dir: TempDir,
}

impl Folder {
    pub(crate) fn new(yaml: &str) -> Folder {
        let folder = Folder { dir: tempfile::tempdir().unwrap() };
        folder.write("sluicegate.yaml", yaml);
        folder
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    pub(crate) fn config(&self) -> String {
        let path: PathBuf = self.dir.path().join("sluicegate.yaml");
        path.to_str().unwrap().to_owned()
    }
}

/// A running `sluicegate run` and where it listens.
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) gateway: SocketAddr,
    pub(crate) admin: SocketAddr,
    folder: Folder,
}

impl Running {
    /// Starts with `rules` (everything but the listeners, which take free ports).
    pub(crate) fn start(rules: &str) -> Running {
        Running::in_folder(Folder::new(&format!(
            "{rules}\ngateway: {{listen: \"127.0.0.1:0\"}}\nadmin: {{listen: \"127.0.0.1:0\"}}\n"
        )))
    }

    pub(crate) fn in_folder(folder: Folder) -> Running {
        let mut process =
            Process::start(env!("CARGO_BIN_EXE_sluicegate"), &["run", "-c", folder.config().as_str()]);
        let gateway = process.line(SOON, |line| listens(line, "gateway listening"));
        let admin = process.line(SOON, |line| listens(line, "admin listening"));
        Running { process, gateway, admin, folder }
    }

    /// Another process with the same file, after this one.
    pub(crate) fn again(mut self) -> Running {
        self.process.kill();
        Running::in_folder(self.folder)
    }

    pub(crate) async fn state(&self) -> serde_json::Value {
        sluicegate_testkit::client::get_json(self.admin, "/v1/state").await.unwrap()
    }
}

pub(crate) fn listens(line: &str, what: &str) -> Option<SocketAddr> {
    let (_, fields) = line.split_once(what)?;
    let (_, address) = fields.split_once("listen=")?;
    address.split_whitespace().next()?.parse().ok()
}

/// Sample pods of 20 units in this process, and the configuration's lines for them.
pub(crate) async fn pods(count: usize, options: impl Fn(String) -> PodOptions) -> (Vec<PodHandle>, String) {
    let mut handles = Vec::new();
    let mut yaml = String::from("pool: shop\npods:\n");
    for number in 0..count {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pod = Pod::start(options(format!("p{number}")), listener).unwrap();
        yaml += &format!("  - {{name: p{number}, url: \"{}\", capacity: 20}}\n", pod.url());
        handles.push(pod);
    }
    (handles, yaml)
}
