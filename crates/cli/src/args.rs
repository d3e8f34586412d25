//! The command line as typed. A wrong one exits with 2.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use hyper::Uri;
use hyper::http::uri::Authority;

/// Co-ordinates the capacity units of a whole pool of pods, one step up the road.
#[derive(Debug, Parser)]
#[command(name = "sluicegate", version, arg_required_else_help = true)]
pub(crate) struct Args {
    /// How log lines on stderr look.
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take the roles whose sections the file has.
    Run(Run),
    /// Say what is wrong with a configuration, or what its rules mean in units.
    Check(Check),
    /// Print the configuration's JSON Schema.
    Schema(Schema),
    /// Know before: simulate the configuration under given or recorded traffic, and say what to change.
    Plan(Box<crate::cmd::plan::Args>),
    /// A sample pod with units of its own, for trials.
    Pod(Pod),
    /// Sample pods, gateway and load in one process: each pod alone beside Sluicegate.
    Demo(Demo),
    /// What a running gate does now, refreshed every second.
    Top(Top),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// The configuration.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Longest time to wait for requests in flight after SIGTERM or SIGINT.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) drain: Duration,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Schema {
    /// The OpenAPI document of the decision service instead.
    #[arg(long)]
    pub(crate) openapi: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// The configuration.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Also try to reach every pod, and look whether the ledger's server is fit for it.
    #[arg(long)]
    pub(crate) online: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Pod {
    /// The configuration that lists the pod.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The pod's name there. It listens on the port of its url.
    #[arg(long)]
    pub(crate) name: String,
    /// Never refuse, only keep the peak: a pod that refuses can never show an overshoot.
    #[arg(long)]
    pub(crate) count_only: bool,
    /// Free units so many milliseconds after the last byte.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) late: u64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// Offered units over the pool's units.
    #[arg(long, default_value_t = 0.95, value_parser = load)]
    pub(crate) load: f64,
    /// Length of the run.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// Longest wait for room, as in the configuration (`0`, `50ms`, `1s`).
    #[arg(long, default_value = "1s")]
    pub(crate) wait: String,
    /// Brokers, separated by commas: `amqp://USER:PASSWORD@HOST:5672/%2f` and `kafka://HOST:9092`. Each gets 2,000
    /// messages, which are worked off in the background of the gateway that is shown.
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    pub(crate) brokers: Vec<String>,
    /// Seed of the arrivals and of the service times.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Top {
    /// The admin listener of the gate.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081", value_parser = admin)]
    pub(crate) admin: Authority,
    /// Its token; without this option that of the variable SLUICEGATE_ADMIN_TOKEN, which other users of
    /// the machine cannot read.
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// Print once, and end.
    #[arg(long)]
    pub(crate) once: bool,
}

/// `host:port` of `http://host:port/`; port 80 when none is named.
fn admin(text: &str) -> Result<Authority, String> {
    const WANTED: &str = "write the admin listener's address like http://127.0.0.1:8081";
    let uri: Uri = text.parse().map_err(|error| format!("{error}; {WANTED}"))?;
    let plain = uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
    let authority = uri.authority().filter(|_| plain).ok_or_else(|| WANTED.to_owned())?;
    if authority.as_str().contains('@') {
        return Err(format!("give the token by --token; {WANTED}"));
    }
    if authority.port().is_some() {
        return Ok(authority.clone());
    }
    format!("{authority}:80").parse().map_err(|error| format!("{error}; {WANTED}"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "write a number of seconds, like 60".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "write seconds from 0 up".to_owned())
}

pub(crate) fn load(text: &str) -> Result<f64, String> {
    let load: f64 = text.parse().map_err(|_| "write a number like 0.95".to_owned())?;
    if load > 0.0 && load <= 5.0 { Ok(load) } else { Err("write a load above 0 and up to 5".to_owned()) }
}
