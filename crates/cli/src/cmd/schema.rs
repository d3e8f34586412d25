//! `sluicegate schema`.

use std::process::ExitCode;

use super::{Failure, Outcome};
use crate::args;

#[allow(clippy::print_stdout)] // the answer
pub(crate) fn run(args: &args::Schema) -> Outcome {
    if args.openapi {
        print!("{}", sluicegate_decisions::openapi());
        return Ok(ExitCode::SUCCESS);
    }
    let schema = serde_json::to_string_pretty(&sluicegate_config::schema())
        .map_err(|error| Failure::of("the schema cannot be written", &error))?;
    println!("{schema}");
    Ok(ExitCode::SUCCESS)
}
