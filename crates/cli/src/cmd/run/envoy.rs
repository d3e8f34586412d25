//! The door for Envoy as a role of the process.

use std::sync::Arc;
use std::thread::JoinHandle;

use sluicegate_config::Config;
use sluicegate_envoy::{Count, Drained, ExtProc, Settings};
use sluicegate_gateway::Family;

use super::Failure;
use crate::pool::Pool;

/// Serves, if the configuration says so.
///
/// # Errors
/// The place cannot be listened on, or a thread not be started.
pub(super) fn start(config: &Config, pool: &Arc<Pool>) -> Result<Option<ExtProc>, Failure> {
    let Some(decisions) = &config.decisions else { return Ok(None) };
    let Some(listen) = decisions.ext_proc else { return Ok(None) };
    let settings =
        Settings { listen, token: decisions.token.clone(), early_end: decisions.early_end, workers: None };
    let server = ExtProc::start(pool.gate.clone(), Arc::clone(&pool.envoy), &settings);
    let server = server.map_err(|error| Failure::of("no door for Envoy", &error))?;
    let counts = server.counter();
    let family = |count: &Count| Family::count(count.name, count.help, count.value);
    pool.show(Box::new(move || counts().iter().map(family).collect()));
    tracing::info!(listen = %server.local_addr(), pool = config.pool, "ext_proc listening");
    Ok(Some(server))
}

/// What a drain left; to be dropped when the ledger has been told that this gate goes.
pub(super) fn drained(draining: JoinHandle<Drained>) -> Option<Drained> {
    let drained = draining.join().ok()?;
    tracing::info!(left = drained.cut, took_ms = drained.took.as_millis() as u64, "ext_proc drained");
    Some(drained)
}
