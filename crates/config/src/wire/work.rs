//! Work in the background: jobs of the overflow, messages of brokers.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, de};

use super::{RedisAt, Secret};
use crate::values::{AmountText, HeaderName, Name, Size, Span};

/// Requests that are kept for later (`apis[].overflow: enqueue`).
#[derive(Deserialize, JsonSchema, Clone, Debug, Default)]
#[serde(deny_unknown_fields, expecting = "a mapping such as `{store: {path: jobs.redb}}`")]
pub(crate) struct OverflowJobs {
    /// Where jobs are kept. Default: the ledger's Redis, or with `ledger: memory` the file `POOL-jobs.redb` in the
    /// working folder.
    pub(crate) store: Option<JobStore>,
    /// Most bytes of a request's body; a longer one is answered 413.
    #[schemars(extend("default" = "1MiB"))]
    pub(crate) body: Option<Size>,
    /// Most bytes of an answer's body; what is beyond is cut off.
    #[schemars(extend("default" = "1MiB"))]
    pub(crate) result: Option<Size>,
    /// How long an answer is kept.
    #[schemars(extend("default" = "1h"))]
    pub(crate) ttl: Option<Span>,
    /// Path under which jobs are found, without their id.
    #[schemars(extend("default" = "/.sluicegate/jobs"))]
    pub(crate) location: Option<String>,
    /// Most jobs that are not done; beyond it requests are refused as without `overflow`.
    #[schemars(extend("default" = 100000))]
    pub(crate) jobs: Option<u32>,
    /// Tries without an answer of a pod before a job has failed.
    #[schemars(range(min = 1), extend("default" = 3))]
    pub(crate) tries: Option<u32>,
    /// Longest that what arrives later goes before a job.
    #[schemars(extend("default" = "10s"))]
    pub(crate) behind: Option<Span>,
}

/// Where jobs are kept: exactly one of `path`, `redis`.
#[derive(Deserialize, JsonSchema, Clone, Debug)]
#[serde(deny_unknown_fields, expecting = "`{path: FILE}` or `{redis: \"redis://HOST:6379\"}`")]
pub(crate) struct JobStore {
    /// A file of this machine, for one gate.
    pub(crate) path: Option<PathBuf>,
    /// A Redis, for many gates. Jobs are as durable as it is.
    pub(crate) redis: Option<RedisAt>,
}

/// Messages of brokers, sent to pods by units.
#[derive(Deserialize, JsonSchema, Clone, Debug)]
#[serde(deny_unknown_fields, expecting = "a mapping such as `{sources: [{name: …, rabbitmq: …}]}`")]
pub(crate) struct Workers {
    /// Units that messages of this process hold at most. Per cent are of the pool.
    pub(crate) max: Option<AmountText>,
    /// Longest that requests which arrive later go before a message.
    #[schemars(extend("default" = "10s"))]
    pub(crate) behind: Option<Span>,
    /// Where messages come from.
    pub(crate) sources: Vec<Source>,
}

/// Where messages come from: exactly one of `rabbitmq`, `kafka`.
#[derive(Deserialize, JsonSchema, Clone, Debug)]
#[serde(
    deny_unknown_fields,
    expecting = "`{name: …, rabbitmq: URL, queues: […], api: …}` or the same with `kafka`"
)]
pub(crate) struct Source {
    /// Unique name, for logs.
    pub(crate) name: Name,
    /// RabbitMQ: `amqp://USER:PASSWORD@HOST:5672/VHOST`, or `amqps://…:5671/…` for TLS.
    pub(crate) rabbitmq: Option<Secret>,
    /// RabbitMQ with `amqps://`: certificates.
    pub(crate) tls: Option<BrokerTls>,
    /// RabbitMQ: the queues; one that stands earlier is served first.
    pub(crate) queues: Option<Vec<String>>,
    /// RabbitMQ: declare the queues, as quorum queues, with those for later tries and dead letters.
    #[schemars(extend("default" = true))]
    pub(crate) declare: Option<bool>,
    /// Kafka: `HOST:9092[,HOST:9092]`, without TLS and SASL.
    pub(crate) kafka: Option<String>,
    /// Kafka: the topics.
    pub(crate) topics: Option<Vec<String>>,
    /// Kafka: the consumer group.
    pub(crate) group: Option<String>,
    /// Kafka: which messages of a partition keep their order.
    pub(crate) order: Option<MessageOrder>,
    /// Kafka: the topic that gets the pods' answers; default none. (RabbitMQ: `reply_to` of the message.)
    pub(crate) answers: Option<String>,
    /// Kafka: further properties of librdkafka, such as `fetch.wait.max.ms`.
    pub(crate) options: Option<BTreeMap<String, Secret>>,
    /// Most messages held at once, waiting or running.
    #[schemars(range(min = 1), extend("default" = 256))]
    pub(crate) hold: Option<u32>,
    /// The api whose weight a message has.
    pub(crate) api: SourceApi,
    /// The request that a message becomes.
    pub(crate) request: Option<MessageRequest>,
    /// Tries before a message is a dead letter.
    #[schemars(range(min = 1), extend("default" = 5))]
    pub(crate) tries: Option<u32>,
    /// Pause before the second try; it doubles each time, up to 64 times as long.
    #[schemars(extend("default" = "1s"))]
    pub(crate) backoff: Option<Span>,
    /// Queue or topic for dead letters; default the name of the first queue or topic with `.dead`.
    pub(crate) dead: Option<String>,
}

/// Certificates for TLS to RabbitMQ, as PEM files.
#[derive(Deserialize, JsonSchema, Clone, Debug, Default)]
#[serde(deny_unknown_fields, expecting = "`{ca: FILE}`")]
pub(crate) struct BrokerTls {
    /// Whom to trust beside the system's list.
    pub(crate) ca: Option<PathBuf>,
    /// Our own certificate, with `key`.
    pub(crate) cert: Option<PathBuf>,
    /// Its private key.
    pub(crate) key: Option<PathBuf>,
}

/// Which messages of a partition keep their order.
#[derive(Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "kebab-case")]
pub enum MessageOrder {
    /// Those of one key.
    #[default]
    Key,
    /// None: each is sent as soon as there is room.
    None,
    /// All.
    Partition,
}

/// The api of a message.
#[derive(JsonSchema, Clone, Debug)]
#[schemars(untagged)]
pub(crate) enum SourceApi {
    /// All messages are of this api.
    One(Name),
    /// A part of the message says it.
    By(ApiBy),
}

impl<'de> Deserialize<'de> for SourceApi {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = SourceApi;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an api, or `{header: x-api, otherwise: NAME}`")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<SourceApi, E> {
                Name::deserialize(de::value::StrDeserializer::new(word)).map(SourceApi::One)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<SourceApi, A::Error> {
                ApiBy::deserialize(MapAccessDeserializer::new(map)).map(SourceApi::By)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// What of a message says its api.
#[derive(Deserialize, JsonSchema, Clone, Debug)]
#[serde(deny_unknown_fields, expecting = "`{header: x-api, otherwise: NAME}`")]
pub(crate) struct ApiBy {
    /// The header that does. Without it: the routing key, or the topic.
    pub(crate) header: Option<HeaderName>,
    /// What it says, and the api meant; what is not listed is the name itself.
    pub(crate) names: Option<BTreeMap<String, Name>>,
    /// The api of messages that say none, or one that there is not.
    pub(crate) otherwise: Name,
}

/// The request that a message becomes. `{routing_key}`, `{topic}`, `{key}`, `{id}` and `{header:NAME}` stand for parts
/// of the message.
#[derive(Deserialize, JsonSchema, Clone, Debug, Default)]
#[serde(deny_unknown_fields, expecting = "a mapping such as `{method: POST, path: \"/orders\"}`")]
pub(crate) struct MessageRequest {
    /// Its method.
    #[schemars(extend("default" = "POST"))]
    pub(crate) method: Option<String>,
    /// Its path and query.
    #[schemars(extend("default" = "/"))]
    pub(crate) path: Option<String>,
    /// Headers beside those of the message.
    pub(crate) headers: Option<BTreeMap<HeaderName, String>>,
}
