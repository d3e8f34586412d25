//! One module per command. Each answers an exit code, or a failure in words for stderr.

pub(crate) mod check;
pub(crate) mod demo;
pub(crate) mod plan;
pub(crate) mod pod;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod top;

use std::path::Path;
use std::process::ExitCode;

use sluicegate_config::{Config, Loaded};

/// What a command answers.
pub(crate) type Outcome = Result<ExitCode, Failure>;

/// Why a command could not do its work, in words for the person who typed it.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Failure {
    /// `what`, and what lay under it.
    pub(crate) fn of(what: impl std::fmt::Display, error: &dyn std::error::Error) -> Failure {
        let mut text = format!("{what}: {error}");
        let mut source = error.source();
        while let Some(error) = source {
            text.push_str(&format!(": {error}"));
            source = error.source();
        }
        Failure(text)
    }
}

/// Reads a configuration; warnings go to stderr, problems are the failure.
pub(crate) fn load(path: &Path) -> Result<Config, Failure> {
    let loaded = sluicegate_config::load(path, &|name| std::env::var(name).ok());
    let Loaded { config, warnings } = loaded.map_err(|problems| {
        let count = problems.0.len();
        Failure(format!("{problems}\n{count} problem{}", if count == 1 { "" } else { "s" }))
    })?;
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    Ok(config)
}
