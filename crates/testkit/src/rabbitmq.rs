//! A RabbitMQ of the test's own: a real broker in a temporary folder, gone with the test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::ports::{free_port, loopback};
use crate::wait::until_blocking;

const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// A broker on a busy machine takes half a minute to start.
const START_MAX: Duration = Duration::from_secs(120);

/// Longest for the name server to go.
const NAMES_MAX: Duration = Duration::from_secs(5);

/// Certificates of a broker that speaks TLS too, as PEM files.
#[derive(Clone, Debug)]
pub struct RabbitTls {
    /// Its own.
    pub cert: PathBuf,
    /// The private key of that.
    pub key: PathBuf,
    /// It takes only clients that this authority certified.
    pub client_ca: PathBuf,
}

/// A broker.
#[derive(Debug)]
pub struct RabbitMq {
    folder: TempDir,
    port: u16,
    tls_port: Option<u16>,
    ports: [u16; 2],
    child: Option<Child>,
}

impl RabbitMq {
    /// Starts one and waits until it speaks AMQP.
    ///
    /// # Panics
    /// If it is not installed (`scripts/install-parts`) or does not start; with its log.
    #[must_use]
    pub fn start() -> RabbitMq {
        RabbitMq::with(None)
    }

    /// The same with a second listener for TLS.
    ///
    /// # Panics
    /// As [`RabbitMq::start`].
    #[must_use]
    pub fn start_tls(tls: &RabbitTls) -> RabbitMq {
        RabbitMq::with(Some(tls))
    }

    fn with(tls: Option<&RabbitTls>) -> RabbitMq {
        assert!(Path::new(SERVER).exists(), "no {SERVER}: run scripts/install-parts");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
        write("enabled_plugins", "[].\n");
        let mut conf = format!("listeners.tcp.1 = 127.0.0.1:{port}\nloopback_users = none\n");
        let tls_port = tls.map(|_| free_port());
        if let (Some(RabbitTls { cert, key, client_ca }), Some(port)) = (tls, tls_port) {
            conf += &format!(
                "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
                 ssl_options.keyfile = {}\nssl_options.verify = verify_peer\n\
                 ssl_options.fail_if_no_peer_cert = true\n",
                client_ca.display(),
                cert.display(),
                key.display()
            );
        }
        write("rabbitmq.conf", &conf);
        let mut broker = RabbitMq { folder, port, tls_port, ports: [free_port(), free_port()], child: None };
        broker.run();
        broker
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        loopback(self.port)
    }

    /// For clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// For clients that speak TLS.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn tls_url(&self) -> String {
        let port = self.tls_port.expect("started by `start_tls`");
        format!("amqps://guest:guest@127.0.0.1:{port}/%2f")
    }

    /// Kills it (SIGKILL) and starts it again with what it had written.
    ///
    /// # Panics
    /// As [`RabbitMq::start`].
    pub fn restart(&mut self) {
        self.kill();
        self.run();
    }

    fn command(&self, program: &str) -> Command {
        let folder = self.folder.path().display();
        let mut command = Command::new(program);
        command
            .env("HOME", self.folder.path())
            .env("RABBITMQ_NODENAME", format!("sg{}@localhost", self.port))
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.ports[0].to_string())
            .env("ERL_EPMD_PORT", self.ports[1].to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_MNESIA_BASE", format!("{folder}/mnesia"))
            .env("RABBITMQ_LOG_BASE", format!("{folder}/log"))
            .env("RABBITMQ_PID_FILE", format!("{folder}/pid"))
            .env("RABBITMQ_CONFIG_FILE", format!("{folder}/rabbitmq"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", format!("{folder}/enabled_plugins"))
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn run(&mut self) {
        // A group of its own: the script is not the broker, and both are to go.
        let child = self.command(SERVER).process_group(0).spawn().expect("the broker's script starts");
        self.child = Some(child);
        until_blocking("a RabbitMQ that speaks", START_MAX, || speaks(self.addr()));
    }

    fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // By the tool, because a call of kill(2) would need unsafe code.
        let group = format!("-{}", child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = child.wait();
        // Its name server is a daemon of its own, on its own port. It refuses to go while it has not seen the broker die.
        let begin = Instant::now();
        while begin.elapsed() < NAMES_MAX {
            let gone = self.command("epmd").args(["-port", &self.ports[1].to_string(), "-kill"]).status();
            if gone.is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.kill();
    }
}

/// It answers the protocol's header with its first method.
fn speaks(addr: SocketAddr) -> bool {
    let talk = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut first = [0; 1];
        stream.read_exact(&mut first)?;
        Ok(first == [1])
    };
    talk().unwrap_or(false)
}
