//! A Redis of the test's own: real servers in temporary folders, gone with the test.
//!
//! [`Redis`] is one server, [`RedisSentinel`] a master with replicas under three sentinels, [`RedisCluster`] three masters
//! with a replica each. The test itself always talks by the Unix socket, whatever the server's port demands.

mod cluster;
mod info;
mod sentinel;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::ports::{free_port, loopback};
use crate::process::Process;

/// The client that this kit uses, for tests that need no other.
pub use ::redis as client;
pub use cluster::RedisCluster;
pub use info::CommandUse;
pub use sentinel::{RedisSentinel, SentinelOptions};

/// Ports tried for one server before the test fails.
const PORTS_MAX: u32 = 20;

/// How a server is made. The default is one without a port, without a password, that writes nothing down.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// Listens on a free TCP port of loopback as well as on its socket.
    pub tcp: bool,
    /// The TCP port speaks TLS with these files. Needs `tcp`.
    pub tls: Option<RedisTls>,
    /// Password of the user `default`.
    pub password: Option<String>,
    /// Further users, as lines of an access list without the word `user`: `alice on >secret ~* +@all`.
    pub users: Vec<String>,
    /// Every write is on disk before it is answered, so that a restart finds it. Otherwise a restart finds nothing.
    pub durable: bool,
    /// A node of a Cluster. Needs `tcp`.
    pub cluster: bool,
    /// Further directives, as in `redis.conf`.
    pub config: Vec<(String, String)>,
    /// A sentinel instead of a server, with these lines of configuration, without the word `sentinel`. Needs `tcp`.
    pub sentinel: Option<Vec<String>>,
}

impl RedisOptions {
    /// A server with a TCP port.
    #[must_use]
    pub fn tcp() -> Self {
        Self { tcp: true, ..Self::default() }
    }

    /// The same with one more directive of `redis.conf`.
    #[must_use]
    pub fn config(mut self, name: &str, value: impl ToString) -> Self {
        self.config.push((name.to_owned(), value.to_string()));
        self
    }
}

/// Files in PEM form for a server that speaks TLS.
#[derive(Clone, Debug)]
pub struct RedisTls {
    /// The server's certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who signs the certificates of clients; each client must show one if this is set.
    pub client_ca: Option<PathBuf>,
}

/// A `redis-server`. Dropping it kills the server and removes its folder.
#[derive(Debug)]
pub struct Redis {
    /// None while it is killed. Before `dir`: the server ends before its folder goes.
    server: Option<Process>,
    options: RedisOptions,
    /// The same over all restarts.
    port: Option<u16>,
    dir: TempDir,
}

impl Redis {
    /// Starts a server without a port and waits until it answers.
    ///
    /// # Panics
    /// As [`Redis::with`].
    #[must_use]
    pub fn start() -> Self {
        Self::with(RedisOptions::default())
    }

    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// If `redis-server` is missing (a test that needs it fails without it), does not obey the options, or does not
    /// answer within 10 s.
    #[must_use]
    pub fn with(options: RedisOptions) -> Self {
        let dir = tempfile::Builder::new().prefix("sluicegate-redis-").tempdir().expect("a temporary folder");
        let mut redis = Self { server: None, options, port: None, dir };
        let tries = if redis.options.tcp { PORTS_MAX } else { 1 };
        for _ in 0..tries {
            redis.port = redis.options.tcp.then(free_port);
            redis.write_config();
            match redis.spawn() {
                Ok(()) => return redis,
                // Somebody was quicker: another port.
                Err(printed) if printed.contains("Address already in use") => {}
                Err(printed) => panic!("redis-server ended; it printed:\n{printed}"),
            }
        }
        panic!("{PORTS_MAX} ports were taken by others, each after it was seen free");
    }

    /// The path of its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// Where it listens on TCP.
    ///
    /// # Panics
    /// If its options gave it no port.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        loopback(self.port.expect("a server with `tcp` has a port"))
    }

    /// The server's own folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `redis+unix:///...`, as the client takes it, with the password.
    #[must_use]
    pub fn url(&self) -> String {
        let password = self.options.password.as_ref().map_or(String::new(), |pass| format!("?pass={pass}"));
        format!("redis+unix://{}{password}", self.socket().display())
    }

    /// A new connection by the socket, as user `default`.
    ///
    /// # Errors
    /// The client's, above all while the server is killed.
    pub fn connect(&self) -> redis::RedisResult<redis::Connection> {
        redis::Client::open(self.url())?.get_connection()
    }

    /// Runs one command on a connection of its own.
    ///
    /// # Errors
    /// The client's or the server's.
    pub fn call<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let (name, rest) = words.split_first().expect("a command has a name");
        let mut command = redis::cmd(name);
        for word in rest {
            command.arg(word);
        }
        command.query(&mut self.connect()?)
    }

    /// The server's identity: another one after each start.
    ///
    /// # Panics
    /// While it does not answer.
    #[must_use]
    pub fn run_id(&self) -> String {
        self.info("server").remove("run_id").expect("every server has a run_id")
    }

    /// Kills the server (SIGKILL). Its data are lost unless it is durable.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Kills the server that runs and starts it again, on the same port: with its data if it is durable, else empty.
    ///
    /// # Panics
    /// If it does not come up within 10 s.
    pub fn restart(&mut self) {
        self.kill();
        if let Err(printed) = self.spawn() {
            panic!("redis-server ended; it printed:\n{printed}");
        }
    }

    /// As [`restart`](Self::restart), without any data.
    ///
    /// # Panics
    /// As [`restart`](Self::restart), or if its files cannot be removed.
    pub fn restart_empty(&mut self) {
        self.kill();
        let written = self.dir.path().join("appendonlydir");
        if written.exists() {
            std::fs::remove_dir_all(written).expect("the folder is ours");
        }
        self.restart();
    }

    /// Freezes the server (SIGSTOP): its port accepts, and nothing is answered.
    ///
    /// # Panics
    /// While it is killed.
    pub fn stop(&self) {
        self.process().signal("STOP");
    }

    /// Lets a frozen server go on.
    ///
    /// # Panics
    /// While it is killed.
    pub fn go_on(&self) {
        self.process().signal("CONT");
    }

    /// The server's process, for other signals.
    ///
    /// # Panics
    /// While it is killed.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.server.as_ref().expect("the server runs, unless the test killed it")
    }

    /// Whether it was started and not killed.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.server.is_some()
    }

    /// Starts it and waits until it answers; what it printed, if it ends instead.
    fn spawn(&mut self) -> Result<(), String> {
        let mut command = Command::new("redis-server");
        command.arg("redis.conf").current_dir(self.dir.path());
        if self.options.sentinel.is_some() {
            command.arg("--sentinel");
        }
        let found = Command::new("redis-server").arg("--version").output();
        assert!(
            found.is_ok(),
            "redis-server is not installed; this test needs it: run scripts/install-parts"
        );
        let mut server = Process::spawn(command);
        let start = Instant::now();
        while !self.answers() {
            if server.has_ended() {
                return Err(server.output());
            }
            let late = start.elapsed() > Duration::from_secs(10);
            assert!(!late, "redis-server does not answer; it printed:\n{}", server.output());
            std::thread::sleep(Duration::from_millis(2));
        }
        self.server = Some(server);
        Ok(())
    }

    fn answers(&self) -> bool {
        // A server that reads its data answers LOADING, which is an error.
        self.call::<String>(&["PING"]).is_ok()
    }

    /// A file of our own, so that no file of the machine changes what the tests see.
    fn write_config(&self) {
        let options = &self.options;
        let mut text = format!("dir {}\nunixsocket redis.sock\n", self.dir.path().display());
        let mut line = |name: &str, value: &str| {
            writeln!(text, "{name} {value}").expect("a text takes all that is written");
        };
        let port = self.port.unwrap_or(0).to_string();
        line("bind", "127.0.0.1");
        if let Some(tls) = &options.tls {
            line("port", "0");
            line("tls-port", &port);
            line("tls-cert-file", &tls.cert.display().to_string());
            line("tls-key-file", &tls.key.display().to_string());
            let ca = tls.client_ca.as_ref().map(|ca| ca.display().to_string());
            // The server wants some CA also where it asks no client for a certificate.
            line("tls-ca-cert-file", ca.as_deref().unwrap_or(&tls.cert.display().to_string()));
            line("tls-auth-clients", if ca.is_some() { "yes" } else { "no" });
        } else {
            line("port", &port);
        }
        if let Some(sentinel) = &options.sentinel {
            for more in sentinel {
                line("sentinel", more);
            }
        } else {
            line("save", "\"\"");
            line("appendonly", if options.durable { "yes" } else { "no" });
            line("appendfsync", "always");
            if options.cluster {
                line("cluster-enabled", "yes");
                line("cluster-port", &free_port().to_string());
            }
        }
        if let Some(password) = &options.password {
            line("requirepass", password);
        }
        for user in &options.users {
            line("user", user);
        }
        for (name, value) in &options.config {
            line(name, value);
        }
        std::fs::write(self.dir.path().join("redis.conf"), text).expect("the folder is ours");
    }
}
