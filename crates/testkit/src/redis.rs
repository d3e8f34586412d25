//! A Redis of the test's own: a real server on a Unix socket in a temporary folder, gone with the test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::Process;

/// A running `redis-server` without a port. Dropping it kills the server and removes its folder.
#[derive(Debug)]
pub struct Redis {
    /// None while it is killed. Before `dir`: the server ends before its folder goes.
    server: Option<Process>,
    dir: TempDir,
}

impl Redis {
    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// If `redis-server` is missing (a test that needs it fails without it), or does not answer within 10 s.
    #[must_use]
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("sluicegate-redis-").tempdir().expect("a temporary folder");
        let mut redis = Self { server: None, dir };
        redis.restart();
        redis
    }

    /// The path of its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// `redis+unix:///...`, as clients take it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// A new connection.
    ///
    /// # Errors
    /// The client's, above all while the server is killed.
    pub fn connect(&self) -> redis::RedisResult<redis::Connection> {
        redis::Client::open(self.url())?.get_connection()
    }

    /// Kills the server (SIGKILL): all its data are lost, for it writes nothing down.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Starts the server again, empty, after killing the one that runs.
    ///
    /// # Panics
    /// As [`Redis::start`].
    pub fn restart(&mut self) {
        self.kill();
        let mut server = spawn(self.dir.path());
        let start = Instant::now();
        while !self.answers() {
            let late = start.elapsed() > Duration::from_secs(10);
            assert!(!late, "redis-server does not answer; it printed:\n{}", server.output());
            std::thread::sleep(Duration::from_millis(2));
            server.still_runs();
        }
        self.server = Some(server);
    }

    /// The server's process, for signals (`STOP`, `CONT`).
    ///
    /// # Panics
    /// While it is killed.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.server.as_ref().expect("the server runs, unless the test killed it")
    }

    fn answers(&self) -> bool {
        self.connect().is_ok_and(|mut connection| redis::cmd("PING").exec(&mut connection).is_ok())
    }
}

fn spawn(dir: &Path) -> Process {
    let mut command = Command::new("redis-server");
    // Told by arguments alone, so that no file of the machine changes what the tests see.
    command.args(["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--appendonly", "no"]);
    command.arg("--dir").arg(dir).current_dir(dir);
    let found = Command::new("redis-server").arg("--version").output();
    assert!(found.is_ok(), "redis-server is not installed; this test needs it: run scripts/install-parts");
    Process::spawn(command)
}
