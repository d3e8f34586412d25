//! Where and of what a figure was taken.

use std::fs;
use std::process::Command;

/// One line: processor, cores, kernel, date, commit, load average.
pub(crate) fn line() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?");
    format!(
        "{}, {cores} cores, Linux {}, {}, commit {}, load average at the start {load}",
        model.trim_start_matches([' ', '\t', ':']),
        said("uname", &["-r"]),
        said("date", &["-u", "+%Y-%m-%d"]),
        commit(),
    )
}

/// The commit's short name, and `+` if the sources differ from it.
fn commit() -> String {
    let clean =
        said("git", &["status", "--porcelain", "--", "crates", "Cargo.toml", "Cargo.lock"]).is_empty();
    format!("{}{}", said("git", &["rev-parse", "--short", "HEAD"]), if clean { "" } else { "+" })
}

/// What a command printed; empty if it cannot be run.
pub(crate) fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// The arguments with which valgrind counts instructions (user space only) and leaves no file behind.
pub(crate) const CALLGRIND: [&str; 3] = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"];

/// Instructions of a command from start to end.
///
/// # Errors
/// valgrind is not there, or the command failed.
pub(crate) fn instructions(command: &[&str]) -> Result<u64, String> {
    let output = Command::new(CALLGRIND[0]).args(&CALLGRIND[1..]).args(command).output();
    let output = output.map_err(|error| format!("valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    collected(&text).filter(|_| output.status.success()).ok_or_else(|| format!("valgrind said: {text}"))
}

/// The count in what callgrind prints at its end.
pub(crate) fn collected(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
}
