//! `sluicegate demo`: the same load on the same kind of pods three times at once, side by side and live.

mod brokers;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sluicegate_gateway::{Admin, Gateway};
use sluicegate_trial::load::{Plan, Record, RunOptions, Target, equal_erlangs};
use sluicegate_trial::pod::{Pod, PodHandle, PodOptions};
use tokio::net::TcpListener;

use super::{Failure, Outcome};
use crate::args;
use crate::background::Backstage;
use crate::pool;

const PODS: usize = 10;
const CAPACITY: u32 = 20;
const WEIGHTS: [u32; 3] = [1, 2, 3];
const MEAN_MS: f64 = 100.0;

/// One way to send the load, and what it was answered so far.
struct Way {
    title: &'static str,
    pods: Vec<PodHandle>,
    target: Target,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    refused: AtomicU64,
    /// Latencies of the served since the last line, microseconds.
    served_us: Mutex<Vec<u64>>,
}

pub(crate) fn run(args: &args::Demo) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::of("no runtime", &error))?;
    runtime.block_on(show(args))
}

async fn show(args: &args::Demo) -> Outcome {
    let brokers = brokers::Brokers::of(&args.brokers)?;
    brokers.fill().await?;
    let (pooled, gateway, admin, backstage) = pooled(&args.wait, &brokers.rules()).await?;
    let ways = [
        alone("pods alone, random", Target::Random).await?,
        alone("pods alone, in turn", Target::RoundRobin).await?,
        pooled,
    ];
    let plan = Plan {
        apis: equal_erlangs(&WEIGHTS, PODS as u32 * CAPACITY, args.load, MEAN_MS),
        seconds: args.seconds as f64,
        seed: args.seed,
    };
    introduce(args, &admin);
    let runs: Vec<_> = ways.iter().map(|way| tokio::spawn(send(plan.clone(), way))).collect();
    for second in 1..=args.seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        line(second, &ways);
    }
    let mut records = Vec::new();
    for run in runs {
        let record = run.await.map_err(|error| Failure::of("a run broke off", &error))?;
        records.push(record.map_err(|error| Failure::of("the load cannot be sent", &error))?);
    }
    conclude(&ways, &records);
    if let Some(backstage) = backstage {
        brokers.conclude(backstage).await;
    }
    tokio::task::spawn_blocking(move || gateway.drain(Duration::from_secs(10)))
        .await
        .map_err(|error| Failure::of("the gateway did not drain", &error))?;
    Ok(ExitCode::SUCCESS)
}

fn send(plan: Plan, way: &Way) -> impl Future<Output = std::io::Result<Record>> + use<> {
    let (target, counts) = (way.target.clone(), Arc::clone(&way.counts));
    let options = RunOptions {
        on_sample: Some(Arc::new(move |sample| {
            counts.answered.fetch_add(1, Ordering::Relaxed);
            if sample.is_refused() {
                counts.refused.fetch_add(1, Ordering::Relaxed);
            } else {
                let mut served = counts.served_us.lock().unwrap_or_else(PoisonError::into_inner);
                served.push(sample.done_us.saturating_sub(sample.planned_us));
            }
        })),
        ..RunOptions::default()
    };
    async move { sluicegate_trial::load::run(&plan, target, options).await }
}

async fn pods() -> Result<Vec<PodHandle>, Failure> {
    let mut pods = Vec::new();
    for number in 0..PODS {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.map_err(|error| Failure::of("a sample pod cannot listen", &error))?;
        let pod = Pod::start(PodOptions::new(format!("p{number}"), CAPACITY), listener);
        pods.push(pod.map_err(|error| Failure::of("a sample pod cannot start", &error))?);
    }
    Ok(pods)
}

async fn alone(title: &'static str, target: fn(Vec<SocketAddr>) -> Target) -> Result<Way, Failure> {
    let pods = pods().await?;
    let target = target(pods.iter().map(PodHandle::addr).collect());
    Ok(Way { title, pods, target, counts: Arc::default() })
}

/// Pods behind a gateway that is configured as a user would.
async fn pooled(wait: &str, more: &str) -> Result<(Way, Gateway, Admin, Option<Backstage>), Failure> {
    let pods = pods().await?;
    let mut yaml = String::from("pool: demo\npods:\n");
    for pod in &pods {
        yaml += &format!("  - {{name: {}, url: \"{}\", capacity: {CAPACITY}}}\n", pod.name(), pod.url());
    }
    yaml += "apis:\n";
    for weight in WEIGHTS {
        yaml += &format!("  - {{name: weight-{weight}, match: \"GET /w/{weight}\", weight: {weight}}}\n");
    }
    yaml += &format!("admission: {{wait: {wait}}}\n");
    yaml += "gateway: {listen: \"127.0.0.1:0\"}\nadmin: {listen: \"127.0.0.1:0\"}\n";
    yaml += more;
    let loaded = sluicegate_config::parse("demo", &yaml, &|_| None);
    let config = loaded.map_err(|problems| Failure(problems.to_string()))?.config;
    let pool = pool::Pool::new(&config, None).map_err(Failure)?;
    let backstage = Backstage::start(&pool, &config)?;
    let (Some(gateway), Some(admin)) = (&config.gateway, &config.admin) else {
        unreachable!("both sections stand in the text above")
    };
    let gateway = Gateway::start(pool.gate.clone(), Arc::clone(&pool.live), gateway)
        .map_err(|error| Failure::of("the gateway cannot listen", &error))?;
    let admin = Admin::start(pool.gate.clone(), Arc::clone(&pool.live), pool, admin)
        .map_err(|error| Failure::of("the admin listener cannot start", &error))?;
    let target = Target::One(gateway.local_addr());
    Ok((Way { title: "sluicegate", pods, target, counts: Arc::default() }, gateway, admin, backstage))
}

#[allow(clippy::print_stdout)] // the answer
fn introduce(args: &args::Demo, admin: &Admin) {
    println!(
        "{PODS} pods of {CAPACITY} units; weights 1, 2 and 3 in equal numbers; mean work {MEAN_MS} ms; \
         load {:.2} of the units for {} s; seed {}",
        args.load, args.seconds, args.seed
    );
    println!(
        "The same requests go three ways at once: to a random pod, to the pods in turn, through Sluicegate"
    );
    println!("(wait {}). Dashboard: http://{}/\n", args.wait, admin.local_addr());
    println!("          pods alone, random    pods alone, in turn        sluicegate        pool now");
    println!("second     429s     p99 ms        429s     p99 ms        429s     p99 ms     in use");
}

#[allow(clippy::print_stdout)] // the answer
fn line(second: u64, ways: &[Way]) {
    let mut text = format!("{second:>5}");
    for way in ways {
        let answered = way.counts.answered.load(Ordering::Relaxed);
        let refused = way.counts.refused.load(Ordering::Relaxed);
        let share = refused as f64 * 100.0 / answered.max(1) as f64;
        let mut served =
            std::mem::take(&mut *way.counts.served_us.lock().unwrap_or_else(PoisonError::into_inner));
        served.sort_unstable();
        let p99 = served.get(served.len().saturating_sub(1) * 99 / 100).copied().unwrap_or(0) / 1000;
        text += &format!("   {share:>6.2} %   {p99:>7}  ");
    }
    let in_use: u32 = ways.last().map_or(0, |way| way.pods.iter().map(|pod| pod.gauge().read().in_use).sum());
    println!("{text}   {in_use:>4} / {}", PODS as u32 * CAPACITY);
}

#[allow(clippy::print_stdout)] // the answer
fn conclude(ways: &[Way], records: &[Record]) {
    println!(
        "\n                      requests      429s    share   weight 1  weight 2  weight 3   p50 ms   p99 ms   highest pod"
    );
    for (way, record) in ways.iter().zip(records) {
        let summary = record.summary();
        let peak = way.pods.iter().map(|pod| pod.gauge().read().peak).max().unwrap_or(0);
        let shares: Vec<String> =
            summary.apis.iter().map(|api| format!("{:>6.2} %", api.refused_share * 100.0)).collect();
        println!(
            "{:<20}  {:>8}  {:>8}  {:>5.2} %   {}  {:>7}  {:>7}   {peak:>4} / {CAPACITY}",
            way.title,
            summary.total.requests,
            summary.total.refused,
            summary.total.refused_share * 100.0,
            shares.join("  "),
            summary.total.p50_us / 1000,
            summary.total.p99_us / 1000,
        );
        if summary.void {
            println!(
                "  (void: the load generator lagged {} ms; this machine is too busy)",
                summary.lag_us_max / 1000
            );
        }
        if summary.total.failed > 0 {
            println!("  ({} requests failed)", summary.total.failed);
        }
    }
    let refused: u64 =
        ways.last().map_or(0, |way| way.pods.iter().map(|pod| pod.gauge().read().refused).sum());
    println!("\nRefused by the pods' own locks behind Sluicegate: {refused}");
}
