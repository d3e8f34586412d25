//! The decision service as a role of the process.

use std::sync::Arc;
use std::thread::JoinHandle;

use sluicegate_config::{Config, LedgerSettings};
use sluicegate_decisions::{Bound, Decisions, DrainReport, GateName, PodCall, Settings};
use sluicegate_gateway::{Family, pod_call};

use super::Failure;
use crate::pool::Pool;
use crate::pool::ledger::{self, Others};

/// A listener that is not served yet.
pub(super) struct Door {
    bound: Bound,
    /// Where other gates of the pool reach it, if they can.
    pub(super) url: Option<String>,
}

/// Listens where the configuration says; nothing is accepted yet.
///
/// # Errors
/// The place cannot be listened on.
pub(super) fn bind(config: &Config) -> Result<Option<Door>, Failure> {
    let Some(settings) = &config.decisions else { return Ok(None) };
    let Some(http) = &settings.http else { return Ok(None) };
    let bound = Bound::listen(http).map_err(|error| Failure(error.to_string()))?;
    let own = bound.address().filter(|address| !address.ip().is_unspecified());
    let place = settings.advertise.clone().or_else(|| own.map(|address| address.to_string()));
    let is_shared = matches!(config.ledger, LedgerSettings::Redis(_));
    if is_shared && place.is_none() {
        tracing::warn!(
            "other gates of the pool cannot reach this one's decision service, so calls for its leases must come \
             here: set decisions.advertise"
        );
    }
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    let url = place.filter(|_| is_shared).map(|place| format!("{scheme}://{place}"));
    Ok(Some(Door { bound, url }))
}

/// Serves.
///
/// # Errors
/// A certificate cannot be read, or a thread not be started.
pub(super) fn start(door: Door, config: &Config, pool: &Arc<Pool>) -> Result<Decisions, Failure> {
    let decisions = config.decisions.as_ref().expect("its listener was bound");
    let http = decisions.http.as_ref().expect("its listener was bound");
    let registry = Arc::clone(pool);
    let settings = Settings {
        token: decisions.token.clone(),
        tls: decisions.tls.clone(),
        pods: Some(Arc::new(move |call: PodCall| {
            pod_call(registry.as_ref(), &call.method, &call.name, &call.headers, &call.body)
        })),
        ..shared(pool, config)
    };
    let service = Decisions::start(pool.gate.clone(), Arc::clone(&pool.directory), door.bound, &settings);
    let service = service.map_err(|error| Failure::of("no decision service", &error))?;
    let counts = service.counts();
    pool.show(Box::new(move || {
        counts().families().map(|(name, help, count)| Family::count(name, help, count)).to_vec()
    }));
    match service.local_addr() {
        Some(listen) => tracing::info!(%listen, pool = config.pool, "decisions listening"),
        None => tracing::info!(listen = %http, pool = config.pool, "decisions listening"),
    }
    Ok(service)
}

/// Over a shared ledger a gate's name is the ledger's, so that the others know whose a lease is.
fn shared(pool: &Pool, config: &Config) -> Settings {
    let (Some(id), LedgerSettings::Redis(redis)) = (pool.gate.ledger().id, &config.ledger) else {
        return Settings::new();
    };
    let gate = GateName::new(&ledger::name(id)).expect("hexadecimal digits are a name");
    let others = Others { gate: pool.gate.clone(), ttl: redis.ttl };
    Settings { gate, peers: Some(Arc::new(others)), ..Settings::new() }
}

/// What a drain left; to be dropped when the ledger has been told that this gate goes.
pub(super) fn drained(draining: JoinHandle<DrainReport>) -> Option<DrainReport> {
    let report = draining.join().ok()?;
    tracing::info!(left = report.cut, took_ms = report.took.as_millis() as u64, "decisions drained");
    Some(report)
}
