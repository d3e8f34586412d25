//! `sluicegate plan`: reads files, writes the answer; the planning itself is `sluicegate-plan`'s.

use std::fs::File;
use std::io::{BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;

use clap::ArgAction;
use sluicegate_config::{Config, Fault};
use sluicegate_plan::{
    Options, Plan, Progress, ServiceOf, ShareOf, Silent, Sweep, Trace, Traffic, Wanted, html, plan,
};

use super::{Failure, Outcome, load};
use crate::{args, pool};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The configuration.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Offered units over the pool's units; scales a trace. Without it, --rps and --trace: 0.9.
    #[arg(long, value_name = "X", value_parser = args::load, conflicts_with = "rps")]
    load: Option<f64>,
    /// Requests per second of all apis together.
    #[arg(long, value_name = "N", value_parser = above_0)]
    rps: Option<f64>,
    /// An api's part of the requests, `report=10`; once per api or with commas. Others get none.
    #[arg(long, value_name = "API=N", value_delimiter = ',', action = ArgAction::Append)]
    share: Vec<ShareOf>,
    /// How long requests hold their units: `exp:100ms`, `fixed:50ms`, `lognormal:100ms:1.0`; `API=` before it for one api.
    #[arg(long, value_name = "[API=]FORM", value_delimiter = ',', action = ArgAction::Append)]
    service: Vec<ServiceOf>,
    /// Traffic from an access log (common, combined, JSON) or a CSV with a header (time, api, duration). `-`: stdin.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rps", "share", "arrivals"])]
    trace: Option<PathBuf>,
    /// Leave out lines of the trace that cannot be read, and count them.
    #[arg(long, requires = "trace")]
    skip_bad_lines: bool,
    /// Requests of each run. Default: 200,000, or 100 times what is in progress at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    arrivals: Option<u64>,
    /// Share of the requests that may be answered 429; what is advised keeps it.
    #[arg(long, value_name = "SHARE", default_value = "0.1%", value_parser = share)]
    target: f64,
    /// Gates of the scenario over Redis.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1000))]
    gates: u64,
    /// Round trip between a gate and Redis.
    #[arg(long, value_name = "TIME", default_value = "500us", value_parser = sluicegate_plan::duration)]
    rtt: u64,
    /// Also the pool cut into so many that know nothing of each other.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    cells: Option<u64>,
    /// Also at many loads or sizes: `load=0.5..1.2`, `load=0.5..1.2:0.05`, `pods=6..12`.
    #[arg(long, value_name = "RANGE")]
    sweep: Option<Sweep>,
    /// Only these scenarios, and no advice: keys of the JSON, such as `pooled_no_wait,gates`.
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    only: Vec<String>,
    /// Seed of everything.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs at a time. Default: the machine's cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    threads: Option<u64>,
    /// Print the plan as JSON.
    #[arg(long)]
    json: bool,
    /// Also write the plan as one page with charts.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[allow(clippy::print_stdout)] // the answer
pub(crate) fn run(args: &Args) -> Outcome {
    let config = pool::resolve(&load(&args.config)?).map_err(Failure)?;
    let wanted = Wanted {
        rps: args.rps,
        load: args.load,
        shares: args.share.clone(),
        services: args.service.clone(),
        arrivals: args.arrivals.map(|arrivals| usize::try_from(arrivals).unwrap_or(usize::MAX)),
        seed: args.seed,
    };
    let trace = args.trace.as_deref().map(|path| read(path, &config, args.skip_bad_lines)).transpose()?;
    let traffic = match &trace {
        Some(trace) => Traffic::traced(&config.policy, trace, &wanted),
        None => Traffic::made(&config.policy, &wanted),
    };
    let traffic = traffic.map_err(failure)?;
    let bar = Bar::default();
    let progress: &dyn Progress = if std::io::stderr().is_terminal() { &bar } else { &Silent };
    let made = plan(&config, &traffic, trace.as_ref(), &options(args), progress);
    bar.clear();
    let made = made.map_err(failure)?;
    if let Some(path) = &args.html {
        std::fs::write(path, html::page(&made))
            .map_err(|error| Failure::of(format!("{} cannot be written", path.display()), &error))?;
    }
    if args.json {
        println!("{}", json(&made)?);
    } else {
        print!("{made}");
    }
    Ok(ExitCode::SUCCESS)
}

fn options(args: &Args) -> Options {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Options {
        gates: args.gates as usize,
        rtt_us: args.rtt,
        target: args.target,
        threads: args.threads.map_or_else(cores, |threads| threads as usize),
        cells: args.cells.map(|cells| usize::try_from(cells).unwrap_or(usize::MAX)),
        sweep: args.sweep.clone(),
        only: args.only.clone(),
        seed: args.seed,
    }
}

fn json(plan: &Plan) -> Result<String, Failure> {
    serde_json::to_string_pretty(plan).map_err(|error| Failure::of("the plan cannot be printed", &error))
}

fn read(path: &Path, config: &Config, skips: bool) -> Result<Trace, Failure> {
    let read = if path == Path::new("-") {
        Trace::read("stdin", std::io::stdin().lock(), config, skips)
    } else {
        let file = File::open(path).map_err(|error| {
            let mend = "give the path of an access log or a CSV that this user may read";
            Failure(format!("{}: cannot be read: {error}\n  mend: {mend}", path.display()))
        })?;
        Trace::read(&path.display().to_string(), BufReader::new(file), config, skips)
    };
    read.map_err(|problems| {
        let count = problems.0.len();
        Failure(format!("{problems}\n{count} problem{}", if count == 1 { "" } else { "s" }))
    })
}

fn failure(fault: Fault) -> Failure {
    Failure(format!("{}\n  mend: {}", fault.what, fault.mend))
}

/// `0.1%` or `0.001`.
fn share(text: &str) -> Result<f64, String> {
    const WANTED: &str = "write a share like 0.1% or 0.001";
    let (number, unit) = match text.strip_suffix('%') {
        Some(number) => (number, 0.01),
        None => (text, 1.0),
    };
    let share = number.trim().parse().map(|number: f64| number * unit).map_err(|_| WANTED.to_owned())?;
    if (0.0..1.0).contains(&share) { Ok(share) } else { Err(format!("not below 100 %; {WANTED}")) }
}

fn above_0(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "write a number above 0".to_owned())
}

/// How far the runs are, on one line of the terminal.
#[derive(Default)]
struct Bar {
    /// Runs done, runs known.
    state: Mutex<(usize, usize)>,
}

impl Bar {
    const WIDTH: usize = 30;

    fn change(&self, change: impl Fn(&mut (usize, usize))) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let (done, known) = *state;
        let full = Bar::WIDTH * done / known.max(1);
        let line =
            format!("\r[{}{}] {done} of {known} runs ", "#".repeat(full), " ".repeat(Bar::WIDTH - full));
        // A terminal that is gone is no reason to stop.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn clear(&self) {
        if self.state.lock().unwrap_or_else(PoisonError::into_inner).1 > 0 {
            let _ = std::io::stderr().write_all(b"\r\x1b[2K");
        }
    }
}

impl Progress for Bar {
    fn more(&self, runs: usize) {
        self.change(|(_, known)| *known += runs);
    }

    fn done(&self) {
        self.change(|(done, _)| *done += 1);
    }
}
