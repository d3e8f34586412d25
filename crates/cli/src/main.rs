//! `sluicegate`: admission by capacity units for a pool of pods.

mod args;
mod background;
mod cmd;
mod logs;
mod messages;
mod pool;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};

fn main() -> ExitCode {
    let args = Args::parse();
    logs::start(args.log_format);
    let outcome = match &args.command {
        Command::Run(run) => cmd::run::run(run),
        Command::Check(check) => cmd::check::run(check),
        Command::Schema(args) => cmd::schema::run(args),
        Command::Plan(plan) => cmd::plan::run(plan),
        Command::Pod(pod) => cmd::pod::run(pod),
        Command::Demo(demo) => cmd::demo::run(demo),
        Command::Top(top) => cmd::top::run(top),
    };
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
