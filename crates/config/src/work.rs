//! Checked settings of work in the background.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use sluicegate_core::policy::Amount;

use crate::redis::RedisSettings;
pub use crate::wire::MessageOrder;

/// Requests that are kept for later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverflowSettings {
    /// Where.
    pub store: JobStoreSettings,
    /// Most bytes of a request's body.
    pub body_max: usize,
    /// Most bytes of an answer's body.
    pub result_max: usize,
    /// How long an answer is kept.
    pub ttl: Duration,
    /// Path under which jobs are found; begins with `/`, does not end with it.
    pub location: String,
    /// Most jobs that are not done.
    pub jobs_max: u64,
    /// Tries before a job has failed.
    pub tries: u32,
    /// Longest that what arrives later goes before a job.
    pub behind: Duration,
}

/// Where jobs are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobStoreSettings {
    /// In a file.
    File(PathBuf),
    /// In Redis; its `ttl`, `pace` and `on_ledger_loss` say nothing here.
    Redis(Box<RedisSettings>),
}

/// Messages of brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSettings {
    /// Units that messages of this process hold at most.
    pub max: Option<Amount>,
    /// Longest that requests which arrive later go before a message.
    pub behind: Duration,
    /// Where messages come from.
    pub sources: Vec<SourceSettings>,
}

/// Where messages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSettings {
    /// Unique name.
    pub name: String,
    /// Which broker.
    pub broker: BrokerSettings,
    /// Most messages held at once.
    pub hold: usize,
    /// The api of a message.
    pub api: MessageApi,
    /// Method of the request that a message becomes.
    pub method: String,
    /// Its path and query, with `{…}` for parts of the message.
    pub path: String,
    /// Its headers beside the message's, with `{…}` too.
    pub headers: Vec<(String, String)>,
    /// Tries before a message is a dead letter.
    pub tries: u32,
    /// Pause before the second try.
    pub backoff: Duration,
    /// Queue or topic for dead letters.
    pub dead: String,
}

/// Certificates, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct BrokerTls {
    /// Whom to trust beside the system's list.
    pub ca: Option<PathBuf>,
    /// Our certificate and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Which broker.
#[derive(Clone, PartialEq, Eq)]
pub enum BrokerSettings {
    /// RabbitMQ.
    Rabbitmq {
        /// May hold a password: not shown by `Debug`.
        url: String,
        /// For `amqps://`.
        tls: BrokerTls,
        /// The first is served first.
        queues: Vec<String>,
        /// Declare them.
        declare: bool,
    },
    /// Kafka.
    Kafka {
        /// Where.
        brokers: String,
        /// Consumer group.
        group: String,
        /// Topics.
        topics: Vec<String>,
        /// Which messages keep their order.
        order: MessageOrder,
        /// Topic of the answers.
        answers: Option<String>,
        /// Properties of the client; may hold passwords.
        options: BTreeMap<String, String>,
    },
}

impl fmt::Debug for BrokerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BrokerSettings::Rabbitmq { queues, declare, .. } => f
                .debug_struct("Rabbitmq")
                .field("queues", queues)
                .field("declare", declare)
                .finish_non_exhaustive(),
            BrokerSettings::Kafka { brokers, group, topics, order, answers, .. } => f
                .debug_struct("Kafka")
                .field("brokers", brokers)
                .field("group", group)
                .field("topics", topics)
                .field("order", order)
                .field("answers", answers)
                .finish_non_exhaustive(),
        }
    }
}

/// The api of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageApi {
    /// The same for all.
    One(String),
    /// A part of the message says it.
    By {
        /// The header that does; `None`: the routing key, or the topic.
        header: Option<String>,
        /// What it says, and the api meant.
        names: BTreeMap<String, String>,
        /// The api of all others.
        otherwise: String,
    },
}
