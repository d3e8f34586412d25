//! Development tasks: what CI runs beside the compiler, as commands that a person can run too.
//!
//! Each task collects every fault it finds before it fails, because a check that stops at the first
//! one is run as often as there are faults.
#![allow(clippy::print_stdout, reason = "the answer of a task belongs on stdout")]

mod advisories;
mod edges;
mod generate;
mod java;
mod licences;
mod lint;
mod manifests;
mod metadata;
mod modules;
mod named_paths;
mod readme;
mod reference;
mod spdx;
mod text;
mod tidy;
mod tree;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask TASK
  tidy            sizes, manifests, dependency rules, dead files, paths named in documents, litter
  lint            clippy over the workspace, warnings denied, functions held to 70 lines
  licences        the licence of every dependency against the allowed ones
  advisories      known vulnerabilities of dependencies, where the data can be had
  gen [--check]   regenerate docs/reference; --check fails on drift and writes nothing
  readme          the commands that the README files name, against the built program";

/// What a task found: empty means that all is well.
pub(crate) type Faults = Vec<String>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = root();
    let result = match words.as_slice() {
        ["tidy"] => tidy::run(&root),
        ["lint"] => lint::run(&root),
        ["licences"] => licences::run(&root),
        ["advisories"] => advisories::run(&root),
        ["gen"] => generate::run(&root, false),
        ["gen", "--check"] => generate::run(&root, true),
        ["readme"] => readme::run(&root),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    report(words[0], result)
}

fn report(task: &str, result: Result<Faults, String>) -> ExitCode {
    match result {
        Ok(faults) if faults.is_empty() => {
            println!("xtask {task}: nothing to mend");
            ExitCode::SUCCESS
        }
        Ok(faults) => {
            for fault in &faults {
                eprintln!("{fault}");
            }
            eprintln!("xtask {task}: {} to mend", faults.len());
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("xtask {task}: could not run: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The repository, found from where cargo says this package is, so that tasks run from any folder.
fn root() -> PathBuf {
    let package =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("xtask"), PathBuf::from);
    package.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}
