//! Parts of a measurement that run in processes of their own, so that neither shares a core's time or a clock with
//! what is measured: this same program, called by itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use sluicegate_trial::pod::{Pod, PodOptions};
use tokio::net::TcpListener;

use crate::kinds::queues::consumer::{Consume, consume};
use crate::world::PODS;
use crate::{Outcome, kinds, steady, traffic, world};

#[derive(Debug, Subcommand)]
pub(crate) enum Helper {
    /// Ten sample pods; prints their addresses.
    #[command(hide = true)]
    Pods {
        #[arg(long)]
        count_only: bool,
        /// So many free 2 ms late.
        #[arg(long)]
        late: usize,
        #[arg(long)]
        units: u32,
    },
    /// Sends the jobs of a file and writes a record of each beside it.
    #[command(hide = true)]
    Load { jobs: PathBuf },
    /// One request after the other at their planned times, as cheaply as can be; prints what it saw.
    #[command(hide = true)]
    Steady {
        target: SocketAddr,
        path: String,
        /// Requests per second.
        rate: f64,
        seconds: f64,
        seed: u64,
    },
    /// An ext_proc server that decides nothing, until it is killed.
    #[command(hide = true)]
    EmptyExtProc { listen: SocketAddr },
    /// Streams of an ext_proc filter; prints how many ended.
    #[command(hide = true)]
    Streams { target: SocketAddr, talk: kinds::extproc::streams::Talk, seconds: f64 },
    /// Requests that wait until this process is killed.
    #[command(hide = true)]
    Waiters {
        target: SocketAddr,
        connections: usize,
        /// HTTP/2 streams on each connection; 0: HTTP/1.1 with one request each.
        streams: usize,
    },
    /// Messages of Kafka to pods, with a fixed concurrency, until killed.
    #[command(hide = true)]
    Consume(Consume),
    /// A hyper server that does nothing, until killed.
    #[command(hide = true)]
    Empty,
    /// Pairs of acquire and release over HTTP; prints how many.
    #[command(hide = true)]
    Pairs { target: SocketAddr, seconds: f64 },
    /// So many acquisitions and nothing else, for the counting of instructions.
    #[command(hide = true)]
    AcquireLoop { count: u64 },
    /// The same of one of the core's hot paths, by its name.
    #[command(hide = true)]
    MicroLoop { name: String, count: u64 },
}

pub(crate) fn run(helper: &Helper) -> Outcome<()> {
    match helper {
        Helper::Pods { count_only, late, units } => world::block_on(pods(*count_only, *late, *units)),
        Helper::Load { jobs } => world::block_on(traffic::send(jobs)),
        Helper::Waiters { target, connections, streams } => {
            world::block_on(kinds::waiting::wait(*target, *connections, *streams))
        }
        Helper::EmptyExtProc { listen } => world::block_on(kinds::extproc::empty::serve(*listen)),
        Helper::Streams { target, talk, seconds } => {
            world::block_on(kinds::extproc::streams::send(*target, *talk, *seconds))
        }
        Helper::Steady { target, path, rate, seconds, seed } => {
            steady::send(*target, path, *rate, *seconds, *seed)
        }
        Helper::MicroLoop { name, count } => kinds::micro::repeat(name, *count),
        Helper::Consume(how) => world::block_on(consume(how)),
        Helper::Empty => kinds::decisions::empty(),
        Helper::Pairs { target, seconds } => kinds::decisions::call(*target, *seconds),
        Helper::AcquireLoop { count } => kinds::acquire::repeat(*count),
    }
}

async fn pods(count_only: bool, late: usize, units: u32) -> Outcome<()> {
    let mut pods = Vec::new();
    for number in 0..PODS {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| format!("pod: {error}"))?;
        let mut options = PodOptions::new(format!("p{number}"), units);
        options.count_only = count_only;
        if number < late {
            options.late = Duration::from_millis(2);
        }
        pods.push(Pod::start(options, listener).map_err(|error| format!("pod: {error}"))?);
    }
    let addrs: Vec<String> = pods.iter().map(|pod| pod.addr().to_string()).collect();
    println!("pods {}", addrs.join(","));
    // Until killed by whoever asked for them.
    std::future::pending().await
}
