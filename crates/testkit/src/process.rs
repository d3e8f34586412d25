//! Child processes that are ready when a test goes on, say what they printed when it fails, and end with it.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client;
use crate::wait::until_blocking;

/// A child process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// Every line of stdout and stderr so far, in the order in which they were read.
    lines: Arc<Mutex<Vec<String>>>,
    /// The threads that read them; each ends when the last process that writes there has.
    readers: Vec<JoinHandle<()>>,
    /// It leads a process group of its own, which is killed as a whole.
    leads: bool,
}

impl Process {
    /// Starts a program, with its output kept.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(program: impl AsRef<OsStr>, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(args);
        Self::spawn(command)
    }

    /// Starts a prepared command; its stdin, stdout and stderr are set here.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn spawn(mut command: Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("start {name}: {error}"));
        let lines = Arc::default();
        let readers = vec![
            keep(child.stdout.take().expect("stdout is piped"), Arc::clone(&lines)),
            keep(child.stderr.take().expect("stderr is piped"), Arc::clone(&lines)),
        ];
        Self { name, child, lines, readers, leads: false }
    }

    /// As [`Process::spawn`], for a program whose children would outlive it (a master with workers): [`Process::kill`] and
    /// the drop kill all of them.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn spawn_group(mut command: Command) -> Self {
        command.process_group(0);
        let mut process = Self::spawn(command);
        process.leads = true;
        process
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that was printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Waits for a line that `pick` knows, and gives what it made of it: for a port that the process chose.
    ///
    /// # Panics
    /// With the output, if the process ends or the deadline passes first.
    pub fn line<T>(&mut self, deadline: Duration, pick: impl Fn(&str) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            let ended = self.ended().is_some();
            let found = self.output().lines().find_map(&pick);
            if let Some(found) = found {
                return found;
            }
            let late = start.elapsed() >= deadline;
            assert!(!ended && !late, "{}: no such line; it printed:\n{}", self.name, self.output());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until something accepts connections at `addr`.
    ///
    /// # Panics
    /// With the output, if the process ends or the deadline passes first.
    pub async fn port(&mut self, addr: SocketAddr, deadline: Duration) {
        let start = Instant::now();
        while tokio::net::TcpStream::connect(addr).await.is_err() {
            self.still_waiting(start, deadline, &format!("nothing listens at {addr}"));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until `GET target` is answered 200.
    ///
    /// # Panics
    /// With the output, if the process ends or the deadline passes first.
    pub async fn http(&mut self, addr: SocketAddr, target: &str, deadline: Duration) {
        let start = Instant::now();
        while !client::get(addr, target).await.is_ok_and(|answer| answer.head.status == 200) {
            self.still_waiting(start, deadline, &format!("no 200 from http://{addr}{target}"));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks it to end (SIGTERM) and does not wait.
    ///
    /// # Panics
    /// If the signal cannot be sent.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by its name without `SIG`: `KILL`, `STOP`, `CONT`, `HUP`.
    ///
    /// # Panics
    /// If it cannot be sent.
    pub fn signal(&self, name: &str) {
        // By the tool, because a call of kill(2) would need unsafe code.
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.id().to_string()).status();
        assert!(sent.is_ok_and(|status| status.success()), "send SIG{name} to {} {}", self.name, self.id());
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// With the output, if it has not ended within the deadline.
    pub fn exit(&mut self, deadline: Duration) -> ExitStatus {
        let mut status = None;
        let start = Instant::now();
        while status.is_none() {
            status = self.child.try_wait().expect("the child is ours");
            let late = start.elapsed() >= deadline;
            assert!(status.is_some() || !late, "{} goes on; it printed:\n{}", self.name, self.output());
            std::thread::sleep(Duration::from_millis(2));
        }
        status.expect("the loop ends with a status")
    }

    /// Kills it (SIGKILL) and waits for its end; nothing happens if it has ended.
    pub fn kill(&mut self) {
        if self.leads {
            // Fails only when none of the group is left.
            let group = format!("-{}", self.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        }
        // Both fail only when the child has been waited for: then it is gone, as asked.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it has ended; if so, all that it printed has been read.
    pub fn has_ended(&mut self) -> bool {
        self.ended().is_some()
    }

    /// Fails if it has ended.
    ///
    /// # Panics
    /// With the output, if it has.
    pub fn still_runs(&mut self) {
        let ended = self.ended();
        assert!(ended.is_none(), "{} ended ({ended:?}); it printed:\n{}", self.name, self.output());
    }

    /// How it ended, once what it printed before has been read too.
    fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("the child is ours")?;
        // Bounded, because a grandchild may live on and keep the pipes open.
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) && !self.readers.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Some(status)
    }

    fn still_waiting(&mut self, start: Instant, deadline: Duration, what: &str) {
        let ended = self.ended();
        let late = start.elapsed() >= deadline;
        let printed = self.output();
        assert!(ended.is_none(), "{} ended ({ended:?}): {what}; it printed:\n{printed}", self.name);
        assert!(!late, "{}: {what} within {deadline:?}; it printed:\n{printed}", self.name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn keep(from: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(io::Result::ok) {
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    })
}

/// Waits, on the thread itself, until something accepts connections at `addr`.
///
/// # Panics
/// If nothing does within the deadline.
pub fn port_blocking(addr: SocketAddr, deadline: Duration) {
    until_blocking("a listener", deadline, || std::net::TcpStream::connect(addr).is_ok());
}
