//! A Kafka of the test's own: the real broker in a temporary folder, gone with the test.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::parts::part;
use crate::ports::{free_port, loopback};
use crate::process::{Process, port_blocking};

/// A broker on a busy machine takes half a minute to start.
const START_MAX: Duration = Duration::from_secs(120);

/// A broker that is its own controller.
#[derive(Debug)]
pub struct Kafka {
    folder: TempDir,
    port: u16,
    broker: Option<Process>,
}

impl Kafka {
    /// Starts one whose topics have so many partitions and come by being named; waits until it listens.
    ///
    /// # Panics
    /// If its jars or Java are not there (`scripts/install-parts`), or it does not start; with its output.
    #[must_use]
    pub fn start(partitions: u32) -> Kafka {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (port, controller) = (free_port(), free_port());
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
             inter.broker.listener.name=PLAINTEXT\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\nauto.create.topics.enable=true\nnum.partitions={partitions}\n\
             log.dirs={}\n",
            folder.path().join("data").display()
        );
        std::fs::write(folder.path().join("server.properties"), properties).expect("a file");
        let mut kafka = Kafka { folder, port, broker: None };
        let id = "4L6g3nShT-eMCtK--X86sw";
        let formatted =
            kafka.java(&["kafka.tools.StorageTool", "format", "-t", id, "-c", &kafka.properties()]).output();
        let formatted = formatted.expect("java: run scripts/install-parts");
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
        kafka.run();
        kafka
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        loopback(self.port)
    }

    /// Kills it (SIGKILL) and starts it again with what it had written.
    ///
    /// # Panics
    /// As [`Kafka::start`].
    pub fn restart(&mut self) {
        if let Some(mut broker) = self.broker.take() {
            broker.kill();
        }
        self.run();
    }

    fn run(&mut self) {
        let properties = self.properties();
        self.broker = Some(Process::spawn(self.java(&["kafka.Kafka", &properties])));
        port_blocking(self.addr(), START_MAX);
    }

    fn properties(&self) -> String {
        self.folder.path().join("server.properties").display().to_string()
    }

    fn java(&self, args: &[&str]) -> Command {
        let jars = jars();
        let mut command = Command::new("java");
        command.args(["-Xmx384m", "-cp"]).arg(format!("{}/*", jars.display())).args(args);
        command.current_dir(self.folder.path());
        command
    }
}

/// `done` is written when all jars are there.
fn jars() -> PathBuf {
    let done = part("kafka-4.1.0/done");
    done.parent().expect("it lies in a folder").to_owned()
}
