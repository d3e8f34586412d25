//! Known vulnerabilities of dependencies, by whichever tool and data the machine has.
//!
//! The data is a git repository that changes daily, so it is no part of this one, and a build without
//! a network cannot have it. Its absence is said in one line and is no failure.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Faults;

/// A tool, what it calls itself, its folder of data below cargo's home, and its arguments.
struct Tool {
    name: &'static str,
    data: &'static str,
    args: &'static [&'static str],
}

const TOOLS: [Tool; 2] = [
    Tool {
        name: "deny",
        data: "advisory-dbs",
        args: &["deny", "--all-features", "--offline", "check", "advisories"],
    },
    Tool { name: "audit", data: "advisory-db", args: &["audit", "--no-fetch"] },
];

/// Runs the first tool that is there with its data.
///
/// # Errors
/// The tool is there and cannot be started.
pub(crate) fn run(root: &Path) -> Result<Faults, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let home = cargo_home();
    for tool in TOOLS {
        let has_data = home.as_deref().is_some_and(|home| home.join(tool.data).is_dir());
        let version = Command::new(&cargo)
            .args([tool.name, "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !has_data || !version.is_ok_and(|status| status.success()) {
            continue;
        }
        let status = Command::new(&cargo).args(tool.args).current_dir(root).status();
        let status = status.map_err(|e| format!("cargo {}: {e}", tool.name))?;
        let fault = format!("cargo {}: {status}; its words are above", tool.name);
        return Ok(if status.success() { Faults::new() } else { vec![fault] });
    }
    println!("advisories: NOT CHECKED: neither cargo-deny nor cargo-audit is here with its data");
    Ok(Faults::new())
}

fn cargo_home() -> Option<PathBuf> {
    let given = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    given.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))
}
