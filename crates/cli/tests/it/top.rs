//! `top`, at a terminal and at a pipe.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use sluicegate_testkit::client::get;
use sluicegate_testkit::wait::until_blocking;
use sluicegate_trial::pod::PodOptions;

use crate::{Folder, Running, SOON, pods, say};

const RULES: &str = "apis:\n  - {name: light, match: \"GET /w/1\", weight: 1}\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_prints_one_table_without_codes() {
    let (_pods, yaml) = pods(2, |name| PodOptions::new(name, 20)).await;
    let running = Running::start(&format!("{yaml}{RULES}"));
    get(running.gateway, "/w/1").await.unwrap();
    let said = say(&["top", "--once", "--admin", &format!("http://{}/", running.admin)]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(!said.out.contains('\u{1b}'), "{:?}", said.out);
    let row = said.out.lines().find(|line| line.starts_with("light")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..8], ["light", "1", "0", "0", "0", "-", "1", "-"], "{}", said.out);
    assert!(said.out.contains("0 / 40"), "{}", said.out);
    for pod in ["p0", "p1"] {
        assert!(
            said.out.lines().any(|line| line.starts_with(pod) && line.ends_with("ready")),
            "{}",
            said.out
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_gets_a_table_a_second_until_nobody_reads() {
    let (_pods, yaml) = pods(1, |name| PodOptions::new(name, 20)).await;
    let running = Running::start(&format!("{yaml}{RULES}"));
    let mut top = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
        .args(["top", "--admin", &format!("http://{}", running.admin)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(top.stdout.take().unwrap()).lines().map(Result::unwrap);
    let rates = |line: &String| line.starts_with("light") && line.split_whitespace().nth(7) != Some("-");
    assert!(lines.any(|line| rates(&line)), "the second table has rates");
    drop(lines);
    let mut status = None;
    until_blocking("it ends with its reader", SOON, || {
        status = top.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0));
}

#[test]
fn what_is_no_gate_is_said_with_the_mend() {
    for (wrong, code, word) in [
        ("https://127.0.0.1:8081", 2, "http://127.0.0.1:8081"),
        ("127.0.0.1:8081", 2, "http://127.0.0.1:8081"),
        ("http://127.0.0.1:8081/v1", 2, "http://127.0.0.1:8081"),
        ("http://me@127.0.0.1:8081", 2, "--token"),
        // Nothing can listen at port 0.
        ("http://127.0.0.1:0", 1, "mend: start it"),
    ] {
        let said = say(&["top", "--once", "--admin", wrong]);
        assert_eq!(said.code, code, "{wrong}: {}", said.err);
        assert!(said.err.contains(word) && said.out.is_empty(), "{wrong}: {}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_is_sent_and_its_lack_is_said() {
    let (_pods, yaml) = pods(1, |name| PodOptions::new(name, 20)).await;
    let listen = "gateway: {listen: \"127.0.0.1:0\"}\nadmin: {listen: \"127.0.0.1:0\", token: s3cret-word}\n";
    let running = Running::in_folder(Folder::new(&format!("{yaml}{RULES}{listen}")));
    let (admin, gateway) = (format!("http://{}", running.admin), format!("http://{}", running.gateway));
    let without = say(&["top", "--once", "--admin", &admin]);
    assert_eq!(without.code, 1);
    assert!(without.err.contains("--token"), "{}", without.err);
    assert_eq!(say(&["top", "--once", "--admin", &admin, "--token", "s3cret-word"]).code, 0);
    let other = say(&["top", "--once", "--admin", &gateway, "--token", "s3cret-word"]);
    assert!(other.code == 1 && other.err.contains("not the gateway"), "{}", other.err);
}

/// A terminal of 20 rows and 70 columns, and all that was written to it.
struct Terminal {
    keyboard: File,
    line: OwnedFd,
    seen: Arc<Mutex<String>>,
}

impl Terminal {
    fn new() -> Terminal {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let path = ptsname(&controller, Vec::new()).unwrap();
        let line = File::options().read(true).write(true).open(path.to_str().unwrap()).unwrap();
        let size = Winsize { ws_row: 20, ws_col: 70, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&line, size).unwrap();
        let keyboard = File::from(controller);
        let (mut screen, seen) = (keyboard.try_clone().unwrap(), Arc::new(Mutex::new(String::new())));
        let keep = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // It fails when the last one who holds the line is gone.
            while let Ok(read) = screen.read(&mut buffer) {
                keep.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
        Terminal { keyboard, line: line.into(), seen }
    }

    fn modes(&self) -> LocalModes {
        tcgetattr(&self.line).unwrap().local_modes
    }

    fn until_seen(&self, what: &str) {
        until_blocking(what, SOON, || self.seen.lock().unwrap().contains(what));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_is_given_back_as_it_was() {
    let (_pods, yaml) = pods(1, |name| PodOptions::new(name, 20)).await;
    let running = Running::start(&format!("{yaml}{RULES}"));
    for by_signal in [false, true] {
        let mut terminal = Terminal::new();
        let before = terminal.modes();
        assert!(before.contains(LocalModes::ICANON | LocalModes::ECHO));
        let line = || Stdio::from(terminal.line.try_clone().unwrap());
        let mut top = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
            .args(["top", "--admin", &format!("http://{}", running.admin)])
            .stdin(line())
            .stdout(line())
            .spawn()
            .unwrap();
        terminal.until_seen("\u{1b}[?1049h");
        terminal.until_seen("q ends");
        assert!(!terminal.modes().intersects(LocalModes::ICANON | LocalModes::ECHO), "a key at a time");
        // Rates come with the second picture: it is drawn anew.
        until_blocking("a second picture", SOON, || {
            terminal.seen.lock().unwrap().matches("q ends").count() > 1
        });
        if by_signal {
            let id = top.id().to_string();
            assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        } else {
            terminal.keyboard.write_all(b"xq").unwrap();
        }
        let mut status = None;
        until_blocking("it ends", SOON, || {
            status = top.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.unwrap().code(), Some(0));
        terminal.until_seen("\u{1b}[?25h\u{1b}[?1049l");
        assert_eq!(terminal.modes(), before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_a_terminal_a_gate_that_is_gone_is_said_and_its_last_figures_stay() {
    let (_pods, yaml) = pods(1, |name| PodOptions::new(name, 20)).await;
    let mut running = Running::start(&format!("{yaml}{RULES}"));
    let mut terminal = Terminal::new();
    let line = || Stdio::from(terminal.line.try_clone().unwrap());
    let mut top = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
        .args(["top", "--admin", &format!("http://{}", running.admin)])
        .stdin(line())
        .stdout(line())
        .spawn()
        .unwrap();
    terminal.until_seen("0 / 20");
    running.process.kill();
    terminal.until_seen("no gate answers at");
    let last = terminal.seen.lock().unwrap().rsplit("\u{1b}[H").next().unwrap_or_default().to_owned();
    assert!(last.contains("0 / 20"), "{last}");
    terminal.keyboard.write_all(b"q").unwrap();
    until_blocking("it ends", SOON, || top.try_wait().unwrap().is_some());
}
