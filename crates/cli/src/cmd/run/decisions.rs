//! The decision service as a role of the process.

use std::sync::Arc;
use std::thread::JoinHandle;

use sluicegate_config::Config;
use sluicegate_decisions::{Bound, Decisions, DrainReport, PodCall, Settings};
use sluicegate_gateway::pod_call;

use super::Failure;
use crate::pool::Pool;

/// Listens where the configuration says; nothing is accepted yet.
///
/// # Errors
/// The place cannot be listened on.
pub(super) fn bind(config: &Config) -> Result<Option<Bound>, Failure> {
    let http = config.decisions.as_ref().and_then(|decisions| decisions.http.as_ref());
    let bound = http.map(Bound::listen).transpose();
    bound.map_err(|error| Failure(error.to_string()))
}

/// Serves.
///
/// # Errors
/// A certificate cannot be read, or a thread not be started.
pub(super) fn start(door: Bound, config: &Config, pool: &Arc<Pool>) -> Result<Decisions, Failure> {
    let decisions = config.decisions.as_ref().expect("its listener was bound");
    let http = decisions.http.as_ref().expect("its listener was bound");
    let registry = Arc::clone(pool);
    let settings = Settings {
        token: decisions.token.clone(),
        tls: decisions.tls.clone(),
        pods: Some(Arc::new(move |call: PodCall| {
            pod_call(registry.as_ref(), &call.method, &call.name, &call.headers, &call.body)
        })),
        ..Settings::new()
    };
    let service = Decisions::start(pool.gate.clone(), Arc::clone(&pool.directory), door, &settings);
    let service = service.map_err(|error| Failure::of("no decision service", &error))?;
    let counts = service.counts();
    pool.show(Box::new(move || counts().families().to_vec()));
    match service.local_addr() {
        Some(listen) => tracing::info!(%listen, pool = config.pool, "decisions listening"),
        None => tracing::info!(listen = %http, pool = config.pool, "decisions listening"),
    }
    Ok(service)
}

/// Leases that were cut.
pub(super) fn drained(draining: JoinHandle<DrainReport>) -> usize {
    let Ok(report) = draining.join() else { return 1 };
    tracing::info!(left = report.cut, took_ms = report.took.as_millis() as u64, "decisions drained");
    report.cut
}
