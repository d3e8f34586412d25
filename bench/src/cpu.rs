//! What the kernel says of a process.

use std::fs;

use crate::Outcome;

/// CPU time of all live threads of a process, nanoseconds. From the scheduler's own account: the clock ticks of
/// `stat` are too coarse for one run.
pub(crate) fn cpu_ns(pid: u32) -> Outcome<u64> {
    let tasks = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&tasks).map_err(|error| format!("{tasks}: {error}"))?;
    let mut sum = 0;
    for entry in entries.flatten() {
        // A thread may end between the listing and the reading; its time is then lost, as it is a moment later.
        let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
        let ran = text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok());
        sum += ran.ok_or_else(|| format!("{tasks}: schedstat says `{text}`"))?;
    }
    Ok(sum)
}

/// CPU time of the calling thread, nanoseconds, as the scheduler last wrote it down (some milliseconds ago at most).
pub(crate) fn own_thread_ns() -> Outcome<u64> {
    let path = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let ran = text.split_whitespace().next().and_then(|field| field.parse().ok());
    ran.ok_or_else(|| format!("{path}: it says `{text}`"))
}

/// Memory of a process that is in RAM now, bytes.
pub(crate) fn resident(pid: u32) -> Outcome<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib =
        line.and_then(|line| line.split_whitespace().next()).and_then(|field| field.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| format!("{path}: no VmRSS"))
}
