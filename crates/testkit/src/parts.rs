//! Programs that `scripts/install-parts` brings and the system's packages do not have.

use std::path::PathBuf;

/// The path of a program, or of another file of a part, below the folder of parts: `SLUICEGATE_PARTS`, or one in the
/// user's cache.
///
/// # Panics
/// It is not there: a part that is missing is a failure, with the way to get it.
#[must_use]
pub fn part(path: &str) -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    let parts = folder("SLUICEGATE_PARTS").or_else(|| Some(cache()?.join("sluicegate-parts")));
    let file = parts.expect("HOME is set").join(path);
    assert!(file.exists(), "there is no {}: run scripts/install-parts", file.display());
    file
}
