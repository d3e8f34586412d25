//! `sluicegate schema`.

use std::process::ExitCode;

use super::{Failure, Outcome};

#[allow(clippy::print_stdout)] // the answer
pub(crate) fn run() -> Outcome {
    let schema = serde_json::to_string_pretty(&sluicegate_config::schema())
        .map_err(|error| Failure::of("the schema cannot be written", &error))?;
    println!("{schema}");
    Ok(ExitCode::SUCCESS)
}
