//! Work that no client waits for: the jobs of the overflow.

use std::sync::Arc;
use std::time::Duration;

use sluicegate::jobs::{Background, Forward, Store, StoreError};
use sluicegate_config::{Config, JobStoreSettings, OverflowSettings};
use sluicegate_gateway::{Forwarder, OverflowDoor};
use sluicegate_overflow::{FileStore, Overflow, Runner, work_off};
use sluicegate_redis::RedisJobs;
use tokio::sync::{oneshot, watch};

use crate::cmd::Failure;
use crate::pool::{self, Pool};

/// How long one ask for room lasts before it is made anew.
const WAIT: Duration = Duration::from_secs(60);
/// Of a shared store: after so long without a word of its gate a job is another's.
const LEASE: Duration = Duration::from_secs(15);
/// Default of `gateway.retry.attempts`, for a process without a gateway.
const ATTEMPTS: u32 = 2;

/// The thread that sends work to pods, and what it works off.
pub(crate) struct Backstage {
    stop: watch::Sender<bool>,
    /// Told when all that ran has ended.
    ended: Option<oneshot::Receiver<()>>,
    door: Option<OverflowDoor>,
}

impl Backstage {
    /// Opens the store and begins to work its jobs off. `None` where the configuration has nothing of the kind.
    ///
    /// # Errors
    /// The store cannot be opened, or no thread be started.
    pub(crate) fn start(pool: &Pool, config: &Config) -> Result<Option<Backstage>, Failure> {
        let Some(settings) = &config.overflow else { return Ok(None) };
        let overflow = open(settings, &config.pool)?;
        let door = OverflowDoor {
            desk: Arc::new(overflow.clone()),
            location: settings.location.clone(),
            body_max: settings.body_max,
        };
        let runner = Runner {
            how: Background { behind: settings.behind, wait: WAIT, result_max: settings.result_max },
            tries: settings.tries,
            ttl: settings.ttl,
            lease: LEASE,
        };
        let (stop, stopped) = watch::channel(false);
        let (tell, ended) = oneshot::channel();
        let (gate, live) = (pool.gate.clone(), Arc::clone(&pool.live));
        let attempts = config.gateway.as_ref().map_or(ATTEMPTS, |gateway| gateway.retry_attempts);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::of("no runtime", &error))?;
        std::thread::Builder::new()
            .name("sluicegate-work".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    let forward: Arc<dyn Forward> = Arc::new(Forwarder::new(gate, live, attempts));
                    work_off(overflow, forward, runner, stopped).await;
                });
                // Whoever asked may have gone.
                let _ = tell.send(());
                runtime.shutdown_background();
            })
            .map_err(|error| Failure::of("no thread for work in the background", &error))?;
        Ok(Some(Backstage { stop, ended: Some(ended), door: Some(door) }))
    }

    /// What the gateway needs to keep requests for later.
    pub(crate) fn door(&self) -> Option<OverflowDoor> {
        self.door.clone()
    }

    /// Takes nothing new and waits for what runs, at most so long. True if all has ended; what has not is done again
    /// after the next start.
    pub(crate) async fn stop(mut self, longest: Duration) -> bool {
        self.stop.send_replace(true);
        let Some(ended) = self.ended.take() else { return true };
        tokio::time::timeout(longest, ended).await.is_ok()
    }
}

fn open(settings: &OverflowSettings, pool: &str) -> Result<Overflow, Failure> {
    let (store, pool) = (settings.store.clone(), pool.to_owned());
    match &store {
        JobStoreSettings::File(path) => tracing::info!(path = %path.display(), "jobs are kept in a file"),
        JobStoreSettings::Redis(_) => tracing::info!("jobs are kept in Redis"),
    }
    let open = move || -> Result<Box<dyn Store>, StoreError> {
        Ok(match &store {
            JobStoreSettings::File(path) => Box::new(FileStore::open(path)?),
            JobStoreSettings::Redis(redis) => {
                Box::new(RedisJobs::new(pool::ledger::connection(redis), &pool))
            }
        })
    };
    Overflow::open(Box::new(open), settings.jobs_max)
        .map_err(|error| Failure(format!("overflow.store: {error}")))
}
