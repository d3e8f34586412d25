//! `sluicegate run`: the roles of a file, until told to stop.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sluicegate_config::{Config, LedgerSettings, PodSource};
use sluicegate_gateway::{Admin, Gateway};
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, Outcome, load};
use crate::args;
use crate::background::Backstage;
use crate::pool::{self, Pool};

mod decisions;
mod envoy;

/// Longest time to tell the ledger that this gate goes.
const LEAVE_MAX: Duration = Duration::from_secs(2);

pub(crate) fn run(args: &args::Run) -> Outcome {
    let config = load(&args.config)?;
    let door = decisions::bind(&config)?;
    let pool = Pool::new(&config, door.as_ref().and_then(|door| door.url.as_deref())).map_err(Failure)?;
    look_at_ledger(&config);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of("no runtime", &error))?;
    let backstage = Backstage::start(&pool, &config)?;
    let gateway = match &config.gateway {
        Some(settings) => {
            let place = format!("gateway cannot listen on {}", settings.listen);
            let door = backstage.as_ref().and_then(Backstage::door);
            let gateway = Gateway::start_with(pool.gate.clone(), Arc::clone(&pool.live), settings, door);
            Some(gateway.map_err(|error| Failure::of(place, &error))?)
        }
        None => None,
    };
    let admin = match &config.admin {
        Some(settings) => {
            let place = format!("admin cannot listen on {}", settings.listen);
            let admin = Admin::start(pool.gate.clone(), Arc::clone(&pool.live), pool.clone(), settings);
            Some(admin.map_err(|error| Failure::of(place, &error))?)
        }
        None => None,
    };
    let decisions = door.map(|door| decisions::start(door, &config, &pool)).transpose()?;
    let envoy = envoy::start(&config, &pool)?;
    if let Some(gateway) = &gateway {
        tracing::info!(listen = %gateway.local_addr(), pool = config.pool, "gateway listening");
    }
    if let Some(admin) = &admin {
        tracing::info!(listen = %admin.local_addr(), "admin listening");
    }
    runtime.block_on(async {
        if let Some(every) = pool::every(&config.source) {
            tokio::spawn(watch_source(Arc::clone(&pool), every));
        }
        if config.source == PodSource::Registered {
            tokio::spawn(watch_registered(Arc::clone(&pool)));
        }
        until_told_to_stop().await
    })?;
    pool.drain();
    tracing::info!("draining: no new connections and leases, waiting for what is in flight");
    // All at once: one limit for the process.
    let longest = args.drain;
    let decisions = decisions.map(|decisions| std::thread::spawn(move || decisions.drain(longest)));
    let envoy = envoy.map(|envoy| std::thread::spawn(move || envoy.drain(longest)));
    let gateway = gateway.map_or(0, |gateway| drain(gateway, longest));
    // What both left is kept until the ledger knows that this gate goes: the requests still run.
    let envoy = envoy.and_then(envoy::drained);
    let decisions = decisions.and_then(decisions::drained);
    let cut =
        gateway + decisions.as_ref().map_or(0, |left| left.cut) + envoy.as_ref().map_or(0, |left| left.cut);
    if let Some(backstage) = backstage
        && !runtime.block_on(backstage.stop(args.drain))
    {
        tracing::warn!("work in the background was cut; it is done again after the next start");
    }
    let code = if cut == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if !pool.gate.leave(LEAVE_MAX) {
        tracing::warn!("the ledger was not told that this gate goes; its credit comes back after the ttl");
    }
    Ok(code)
}

/// Requests that were cut.
fn drain(gateway: Gateway, longest: Duration) -> usize {
    let report = gateway.drain(longest);
    tracing::info!(cut = report.cut, took_ms = report.took.as_millis() as u64, "drained");
    report.cut
}

/// Warns of a Redis that is not fit for a ledger. Beside, because one that does not answer takes its time.
fn look_at_ledger(config: &Config) {
    let LedgerSettings::Redis(redis) = &config.ledger else { return };
    let (config, redis) = (config.clone(), redis.clone());
    std::thread::spawn(move || {
        for finding in pool::ledger::findings(&config, &redis) {
            tracing::warn!(what = finding.what, mend = finding.mend, "the ledger's server");
        }
    });
}

/// Lets pods go that registered themselves and fell silent.
async fn watch_registered(pool: Arc<Pool>) {
    loop {
        tokio::time::sleep(pool::LOOK_EVERY).await;
        let pool = Arc::clone(&pool);
        let outcome = tokio::task::spawn_blocking(move || pool.reap()).await;
        if let Err(error) = outcome.unwrap_or_else(|error| Err(error.to_string())) {
            tracing::debug!(error, "silent pods stay until the ledger answers");
        }
    }
}

/// Looks at the pods' source again and again. Blocking look-ups run beside, so that a slow name server
/// delays nobody.
async fn watch_source(pool: Arc<Pool>, every: Duration) {
    let mut failing = false;
    loop {
        tokio::time::sleep(every).await;
        let pool = Arc::clone(&pool);
        let outcome = tokio::task::spawn_blocking(move || pool.refresh()).await;
        match outcome.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(changed) => {
                if changed {
                    tracing::info!("the pods changed");
                }
                failing = false;
            }
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(error, "the pods' source fails; the known pods go on");
            }
            Err(_) => {}
        }
    }
}

/// Waits for SIGTERM or SIGINT.
pub(crate) async fn until_told_to_stop() -> Result<(), Failure> {
    let failed = |error| Failure::of("signals cannot be awaited", &error);
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}
