//! The one clippy call of this repository. One set of flags, because another set would check
//! everything again.

use std::path::Path;
use std::process::Command;

use crate::Faults;

/// Runs clippy over every target of the workspace.
///
/// # Errors
/// Cargo cannot be started.
pub(crate) fn run(root: &Path) -> Result<Faults, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--"])
        // The threshold, 70, stands in clippy.toml.
        .args(["-W", "clippy::too_many_lines", "-D", "warnings"])
        .current_dir(root)
        .status()
        .map_err(|e| format!("cargo clippy: {e}"))?;
    Ok(if status.success() { Faults::new() } else { vec![format!("clippy: {status}; its words are above")] })
}
