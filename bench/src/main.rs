//! Measurements, side by side in one run: each is one command that prints its table, and with `--write` puts it
//! into BENCHMARKS.md. None is a test: a figure is read beside its spread, on a quiet machine.
#![allow(clippy::print_stdout, reason = "stdout is where a measurement goes")]

mod cpu;
mod helpers;
mod kinds;
mod machine;
mod page;
mod rivals;
mod stats;
mod steady;
mod traffic;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a measurement gives, or why there is none.
type Outcome<T> = Result<T, String>;

/// Measurements of Sluicegate beside others, in one run.
#[derive(Debug, Parser)]
#[command(name = "sluicegate-bench", arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    settings: Settings,
}

/// What all measurements share.
#[derive(Clone, Debug, clap::Args)]
struct Settings {
    /// Alternating runs.
    #[arg(long, global = true, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Length of one run; each measurement has its own default.
    #[arg(long, global = true, value_name = "S")]
    seconds: Option<f64>,
    /// Put the table into BENCHMARKS.md of the current directory.
    #[arg(long, global = true)]
    write: bool,
    /// A built `sluicegate`, in place of the one of this source in the profile of this program.
    #[arg(long, global = true, value_name = "FILE")]
    bin: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// `Gate::acquire` and drop, beside tokio's semaphore.
    Acquire,
    /// CPU of a proxied request and p99, beside HAProxy and nginx.
    Proxy,
    /// What admission costs a request: `enforce` beside `off`.
    Modes,
    /// 429 shares and peaks of real traffic, beside best fit in virtual time and beside each pod alone.
    Quality,
    /// The door for Envoy: beside an ext_proc server that answers at once, and through the real Envoy.
    Extproc,
    /// Memory of requests that wait.
    Waiting,
    /// The ways to stand before a pool, side by side: balancers, proxies with limits, two Redis commands, Sluicegate.
    Peers(kinds::peers::Choice),
    /// The core's hot paths in instructions, beside the last recorded ones; its speed in virtual time.
    Micro(kinds::micro::Choice),
    /// Leases over HTTP, beside a hyper server that does nothing.
    Decisions,
    /// What `sluicegate plan` foretells beside what the gateway answers.
    Planned,
    /// Ten times the load: what refusals cost, what the admitted feel, how soon it is over.
    Overload,
    /// The first second after a start.
    Start,
    /// Queues: what a backlog costs the requests whose clients wait; units per second beside a consumer tuned by hand.
    Queues {
        /// A minute of everything: whether it works, not what it costs.
        #[arg(long)]
        quick: bool,
    },
    /// What a door adds to its proxy: latency, and requests per second.
    Doors,
    /// The shared ledger on a real Redis, beside two commands per request.
    Ledger {
        /// A few seconds of everything: whether it works, not what it costs.
        #[arg(long)]
        quick: bool,
    },
    #[command(flatten)]
    Helper(helpers::Helper),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let settings = &args.settings;
    let outcome = match &args.command {
        Command::Acquire => kinds::acquire::run(settings),
        Command::Proxy => kinds::proxy::run(settings),
        Command::Modes => kinds::modes::run(settings),
        Command::Quality => kinds::quality::run(settings),
        Command::Extproc => kinds::extproc::run(settings),
        Command::Waiting => kinds::waiting::run(settings),
        Command::Peers(choice) => kinds::peers::run(settings, choice),
        Command::Micro(choice) => kinds::micro::run(settings, *choice),
        Command::Decisions => kinds::decisions::run(settings),
        Command::Planned => kinds::planned::run(settings),
        Command::Overload => kinds::overload::run(settings),
        Command::Start => kinds::start::run(settings),
        Command::Queues { quick } => kinds::queues::run(settings, *quick),
        Command::Doors => kinds::doors::run(settings),
        Command::Ledger { quick } => kinds::ledger::run(settings, *quick),
        Command::Helper(helper) => helpers::run(helper),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
