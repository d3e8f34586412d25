//! Work that no client waits for: the jobs of the overflow, the messages of brokers.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sluicegate::jobs::{Background, Forward, Store, StoreError};
use sluicegate::policy::Amount;
use sluicegate_config::{
    BrokerSettings, Config, JobStoreSettings, MessageApi, MessageOrder, OverflowSettings, SourceSettings,
    WorkerSettings,
};
use sluicegate_gateway::{Forwarder, OverflowDoor};
use sluicegate_overflow::{FileStore, Overflow, Runner, work_off};
use sluicegate_redis::RedisJobs;
use sluicegate_workers::crew::{Crew, Purse};
use sluicegate_workers::message::{ApiOf, Mapping};
use sluicegate_workers::tally::{End, Tally};
use sluicegate_workers::{kafka, rabbitmq};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::cmd::Failure;
use crate::messages;
use crate::pool::{self, Pool};

/// How long one ask for room lasts before it is made anew.
const WAIT: Duration = Duration::from_secs(60);
/// Of a shared store: after so long without a word of its gate a job is another's.
const LEASE: Duration = Duration::from_secs(15);
/// Default of `gateway.retry.attempts`, for a process without a gateway.
const ATTEMPTS: u32 = 2;
/// Most bytes of a pod's answer to a message.
const ANSWER_MAX: usize = 1 << 20;

/// The thread that sends work to pods, and what it works at.
pub(crate) struct Backstage {
    stop: watch::Sender<bool>,
    /// Told when all that ran has ended.
    ended: Option<oneshot::Receiver<()>>,
    door: Option<OverflowDoor>,
    tallies: Vec<Arc<Tally>>,
}

impl Backstage {
    /// Opens the store and begins to work. `None` where the configuration has nothing of the kind.
    ///
    /// # Errors
    /// The store cannot be opened, a source cannot be understood, or no thread be started.
    pub(crate) fn start(pool: &Pool, config: &Config) -> Result<Option<Backstage>, Failure> {
        if config.overflow.is_none() && config.workers.is_none() {
            return Ok(None);
        }
        let overflow = config.overflow.as_ref().map(|settings| jobs(settings, &config.pool)).transpose()?;
        let door =
            overflow.as_ref().zip(config.overflow.as_ref()).map(|((overflow, _), settings)| OverflowDoor {
                desk: Arc::new(overflow.clone()),
                location: settings.location.clone(),
                body_max: settings.body_max,
            });
        let sources = config.workers.iter().flat_map(|workers| &workers.sources);
        let sources = sources.map(source).collect::<Result<Vec<_>, _>>()?;
        let (stop, stopped) = watch::channel(false);
        let (tell, ended) = oneshot::channel();
        let (gate, live) = (pool.gate.clone(), Arc::clone(&pool.live));
        let attempts = config.gateway.as_ref().map_or(ATTEMPTS, |gateway| gateway.retry_attempts);
        let workers = config.workers.clone();
        let tallies: Vec<Arc<Tally>> = sources.iter().map(|(_, tally)| Arc::clone(tally)).collect();
        if !tallies.is_empty() {
            let shown = tallies.clone();
            pool.show(Box::new(move || messages::families(&shown)));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::of("no runtime", &error))?;
        let work = move || {
            runtime.block_on(async move {
                let forward: Arc<dyn Forward> = Arc::new(Forwarder::new(gate, live, attempts));
                let mut all = JoinSet::new();
                if let Some((overflow, runner)) = overflow {
                    all.spawn(work_off(overflow, Arc::clone(&forward), runner, stopped.clone()));
                }
                if let Some(workers) = workers {
                    all.spawn(consume(sources, Hands::of(&workers, forward, stopped)));
                }
                while all.join_next().await.is_some() {}
            });
            // Whoever asked may have gone.
            let _ = tell.send(());
            runtime.shutdown_background();
        };
        std::thread::Builder::new()
            .name("sluicegate-work".to_owned())
            .spawn(work)
            .map_err(|error| Failure::of("no thread for work in the background", &error))?;
        Ok(Some(Backstage { stop, ended: Some(ended), door, tallies }))
    }

    /// What the gateway needs to keep requests for later.
    pub(crate) fn door(&self) -> Option<OverflowDoor> {
        self.door.clone()
    }

    /// Messages done so far.
    pub(crate) fn done(&self) -> u64 {
        messages::sum(&self.tallies, End::Done)
    }

    /// Takes nothing new and waits for what runs, at most so long. True if all has ended; what has not is done again.
    pub(crate) async fn stop(mut self, longest: Duration) -> bool {
        self.stop.send_replace(true);
        let Some(ended) = self.ended.take() else { return true };
        tokio::time::timeout(longest, ended).await.is_ok()
    }
}

fn jobs(settings: &OverflowSettings, pool: &str) -> Result<(Overflow, Runner), Failure> {
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
    let overflow = Overflow::open(Box::new(open), settings.jobs_max)
        .map_err(|error| Failure(format!("overflow.store: {error}")))?;
    let runner = Runner {
        how: Background { behind: settings.behind, wait: WAIT, result_max: settings.result_max },
        tries: settings.tries,
        ttl: settings.ttl,
        lease: LEASE,
    };
    Ok((overflow, runner))
}

/// What the crews of all sources share.
struct Hands {
    forward: Arc<dyn Forward>,
    how: Background,
    purse: Option<Purse>,
    stop: watch::Receiver<bool>,
}

impl Hands {
    fn of(workers: &WorkerSettings, forward: Arc<dyn Forward>, stop: watch::Receiver<bool>) -> Hands {
        let (_, capacity) = forward.room();
        let capacity = u32::try_from(capacity).unwrap_or(u32::MAX);
        Hands {
            forward,
            how: Background { behind: workers.behind, wait: WAIT, result_max: ANSWER_MAX },
            purse: workers.max.map(|max: Amount| Purse::new(max.floor_of(capacity))),
            stop,
        }
    }

    fn crew(&self, tally: Arc<Tally>) -> Arc<Crew> {
        Arc::new(Crew {
            forward: Arc::clone(&self.forward),
            how: self.how,
            purse: self.purse.clone(),
            stop: self.stop.clone(),
            tally,
        })
    }
}

/// A source that can be consumed.
enum Ready {
    Rabbitmq(rabbitmq::Source),
    Kafka(kafka::Source),
}

async fn consume(sources: Vec<(Ready, Arc<Tally>)>, hands: Hands) {
    let tallies: Vec<Arc<Tally>> = sources.iter().map(|(_, tally)| Arc::clone(tally)).collect();
    let mut all = JoinSet::new();
    for (source, tally) in sources {
        let crew = hands.crew(tally);
        match source {
            Ready::Rabbitmq(source) => spawn(&mut all, rabbitmq::consume(source, crew)),
            Ready::Kafka(source) => spawn(&mut all, kafka::consume(source, crew)),
        }
    }
    while all.join_next().await.is_some() {}
    let taken: u64 = tallies.iter().map(|tally| tally.view().taken).sum();
    let [done, again, dead, untold] = End::ALL.map(|end| messages::sum(&tallies, end));
    tracing::info!(taken, done, again, dead, untold, "messages");
}

fn spawn(all: &mut JoinSet<()>, task: impl Future<Output = ()> + Send + 'static) {
    all.spawn(task);
}

fn source(settings: &SourceSettings) -> Result<(Ready, Arc<Tally>), Failure> {
    let api = match settings.api.clone() {
        MessageApi::One(name) => ApiOf::One(name),
        MessageApi::By { header, names, otherwise } => ApiOf::By { header, names, otherwise },
    };
    let mapping = Mapping::new(api, &settings.method, &settings.path, &settings.headers);
    let mapping =
        mapping.map_err(|why| Failure(format!("workers.sources.{}.request: {why}", settings.name)))?;
    let (name, dead, tries, backoff) =
        (settings.name.clone(), settings.dead.clone(), settings.tries, settings.backoff);
    let (ready, broker) = match settings.broker.clone() {
        BrokerSettings::Rabbitmq { url, tls, queues, declare } => (
            Ready::Rabbitmq(rabbitmq::Source {
                name,
                url,
                tls: rabbitmq::Tls { ca: tls.ca, identity: tls.identity },
                queues,
                declare,
                dead,
                hold: u16::try_from(settings.hold).unwrap_or(u16::MAX),
                tries,
                backoff,
                mapping,
            }),
            "rabbitmq",
        ),
        BrokerSettings::Kafka { brokers, group, topics, order, answers, options } => (
            Ready::Kafka(kafka::Source {
                name,
                brokers,
                group,
                topics,
                order: match order {
                    MessageOrder::Key => kafka::Order::Key,
                    MessageOrder::None => kafka::Order::None,
                    MessageOrder::Partition => kafka::Order::Partition,
                },
                answers,
                dead,
                options,
                hold: settings.hold,
                tries,
                backoff,
                mapping,
            }),
            "kafka",
        ),
    };
    Ok((ready, Arc::new(Tally::new(&settings.name, broker))))
}
