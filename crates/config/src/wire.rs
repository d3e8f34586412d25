//! The file as written: one definition for reading, for the schema and for its words.
//!
//! Every doc comment here is the description of its key in `sluicegate schema`.

mod work;

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::{Deserialize, Deserializer, de};

use crate::redis::RedisUrl;
use crate::routes::Pattern;
use crate::values::{
    AmountText, DoorAddress, HeaderName, HostPort, Listen, Name, Percent, PodUrl, Rate, Size, Span, Token,
};
pub use work::MessageOrder;
pub(crate) use work::{JobStore, OverflowJobs, Source, SourceApi, Workers};

/// Configuration of Sluicegate. `"${VAR}"` and `"${VAR:-default}"` come from the environment.
#[derive(Deserialize, JsonSchema, Clone, Debug)]
#[serde(deny_unknown_fields, expecting = "a mapping that begins with `pool: NAME`")]
#[schemars(title = "Sluicegate")]
pub(crate) struct File {
    /// Name of the pool: the pods that share the work of one service.
    #[schemars(with = "Name", required)]
    pub(crate) pool: Option<Name>,
    /// The pods: a list, or where to find them.
    #[schemars(with = "Pods", required)]
    pub(crate) pods: Option<Pods>,
    /// The apis. The first match wins; an unmatched request is api `default`.
    pub(crate) apis: Option<Vec<Api>>,
    /// Weight of api `default`, in units.
    #[schemars(range(min = 1), extend("default" = 1))]
    pub(crate) default_weight: Option<u32>,
    /// Limits and order of the whole pool.
    pub(crate) admission: Option<Admission>,
    /// Where units are counted.
    pub(crate) ledger: Option<Ledger>,
    /// The reverse proxy. Without this section the process is no gateway.
    pub(crate) gateway: Option<Gateway>,
    /// The decision service. Without this section there is none.
    pub(crate) decisions: Option<Decisions>,
    /// Requests that are kept for later; for apis with `overflow: enqueue`.
    pub(crate) overflow: Option<OverflowJobs>,
    /// Messages of brokers, sent to pods by units. Without this section none are consumed.
    pub(crate) workers: Option<Workers>,
    /// Metrics, health and live changes. Without this section there is no such listener.
    pub(crate) admin: Option<Admin>,
}

/// The pods.
#[derive(JsonSchema, Clone, Debug)]
#[schemars(untagged)]
pub(crate) enum Pods {
    /// Named one by one.
    Listed(Vec<Pod>),
    /// Found elsewhere.
    Found(PodsFound),
}

impl<'de> Deserialize<'de> for Pods {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = Pods;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a list of `{name, url, capacity}`, or `{dns: …}`, `{file: …}`, `{registered: true}`",
                )
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, items: A) -> Result<Pods, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(items)).map(Pods::Listed)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Pods, A::Error> {
                PodsFound::deserialize(MapAccessDeserializer::new(map)).map(Pods::Found)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// One pod.
#[derive(Deserialize, JsonSchema, Clone, Debug)]
#[serde(deny_unknown_fields, expecting = "`{name: …, url: …, capacity: …}`")]
pub(crate) struct Pod {
    /// Unique name.
    pub(crate) name: Name,
    /// Where it is.
    pub(crate) url: PodUrl,
    /// Units it can hold at once. 0: it takes nothing.
    pub(crate) capacity: u32,
    /// Units above its capacity that its own lock bears, for trickle leases only.
    #[schemars(extend("default" = 0))]
    pub(crate) burst: Option<u32>,
    /// What it does when its client is gone.
    pub(crate) on_disconnect: Option<OnDisconnect>,
    /// Delay before freed units are used again.
    #[schemars(extend("default" = "0ms"))]
    pub(crate) settle: Option<Span>,
}

/// Pods found elsewhere: exactly one of `dns`, `file`, `registered`.
#[derive(Deserialize, JsonSchema, Clone, Debug)]
#[serde(deny_unknown_fields, expecting = "`{dns: …}`, `{file: …}` or `{registered: true}`")]
pub(crate) struct PodsFound {
    /// `HOST:PORT` (or `h2c://HOST:PORT`); every address of the host is a pod.
    pub(crate) dns: Option<String>,
    /// With `dns`: the capacity of each pod, in units.
    #[schemars(range(min = 1))]
    pub(crate) capacity: Option<u32>,
    /// With `dns`: how often the host is looked up.
    #[schemars(extend("default" = "5s"))]
    pub(crate) every: Option<Span>,
    /// A YAML file with a list of pods, relative to this file.
    pub(crate) file: Option<PathBuf>,
    /// Pods register themselves at the decision service.
    pub(crate) registered: Option<bool>,
}

/// What a pod does when its client is gone.
#[derive(Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "kebab-case")]
pub enum OnDisconnect {
    /// It works on: the gate reads on and discards, and the units are held to the pod's end.
    #[default]
    Continues,
    /// It stops: the connection is cut and the units are free at once.
    Stops,
}

/// A class of requests.
#[derive(Deserialize, JsonSchema, Clone, Debug)]
#[serde(deny_unknown_fields, expecting = "`{name: …, match: …, weight: …}`")]
pub(crate) struct Api {
    /// Unique name. The name `default` is that of unmatched requests.
    pub(crate) name: Name,
    /// Which requests it is about. Without it the api is only asked for by name.
    #[serde(rename = "match")]
    pub(crate) pattern: Option<Pattern>,
    /// Units that one request holds while it runs.
    #[schemars(range(min = 1), extend("default" = 1))]
    pub(crate) weight: Option<u32>,
    /// Holds nothing: counted, and sent to the least used pod (probes, preflight).
    #[schemars(extend("default" = false))]
    pub(crate) exempt: Option<bool>,
    /// Guaranteed: kept for this api while it does not use it.
    #[schemars(extend("default" = 0))]
    pub(crate) min: Option<AmountText>,
    /// At most so much at once.
    pub(crate) max: Option<AmountText>,
    /// May use the reserve.
    #[schemars(extend("default" = false))]
    pub(crate) protected: Option<bool>,
    /// Longest wait for room; default that of `admission`.
    pub(crate) wait: Option<Span>,
    /// Longest time until the response headers; default that of `admission`.
    pub(crate) max_hold: Option<Span>,
    /// Longest time of a response after its headers; default that of `admission`.
    pub(crate) max_stream: Option<Span>,
    /// What becomes of a request that finds no room.
    pub(crate) overflow: Option<Overflow>,
    /// What a tunnel (WebSocket) holds.
    pub(crate) upgrade: Option<Upgrade>,
}

/// What becomes of a request that finds no room.
#[derive(Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Overflow {
    /// It is answered 429.
    #[default]
    Reject,
    /// It is answered 202 and worked off later.
    Enqueue,
}

/// What a tunnel (WebSocket) holds.
#[derive(Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Upgrade {
    /// Its lease until it ends.
    #[default]
    Hold,
    /// The lease ends with the handshake.
    Handshake,
}

/// Limits and order of the whole pool.
#[derive(Deserialize, JsonSchema, Clone, Debug, Default)]
#[serde(deny_unknown_fields, expecting = "a mapping such as `{wait: 1s, reserve: 5%}`")]
pub(crate) struct Admission {
    /// Whether decisions are obeyed.
    pub(crate) mode: Option<Mode>,
    /// Longest wait for room; 0 refuses at once.
    #[schemars(extend("default" = "1s"))]
    pub(crate) wait: Option<Span>,
    /// Most asks waiting in this gate.
    #[schemars(extend("default" = 10000))]
    pub(crate) queue: Option<u32>,
    /// Who goes first among waiters.
    pub(crate) order: Option<Order>,
    /// Which pod among those with room.
    pub(crate) placement: Option<Placement>,
    /// Caps the pool below the sum of its pods.
    pub(crate) capacity: Option<AmountText>,
    /// Units that ordinary apis never drain.
    #[schemars(extend("default" = 0))]
    pub(crate) reserve: Option<AmountText>,
    /// The part of the pool entered by tokens that come back with time.
    pub(crate) trickle: Option<Trickle>,
    /// Longest time until the response headers; then 504.
    #[schemars(extend("default" = "60s"))]
    pub(crate) max_hold: Option<Span>,
    /// Longest time of a response after its headers; default none.
    pub(crate) max_stream: Option<Span>,
}

/// Whether decisions are obeyed.
#[derive(Deserialize, JsonSchema, Clone, Copy, Debug, Default)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// Delay and refuse.
    #[default]
    Enforce,
    /// Decide and count; never delay, refuse nothing.
    Shadow,
    /// Decide nothing.
    Off,
}

/// Who goes first among waiters.
#[derive(JsonSchema, Clone, Debug)]
#[schemars(untagged)]
pub(crate) enum Order {
    /// `light-first`, `fifo`, or `fair` between apis.
    Word(OrderWord),
    /// Fair between the values of a request header.
    Fair(FairOrder),
}

/// Who goes first among waiters.
#[derive(Deserialize, JsonSchema, Clone, Copy, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OrderWord {
    /// Light requests hardly wait, heavy ones go before their time runs out. The default.
    LightFirst,
    /// By arrival.
    Fifo,
    /// Equal units for each api.
    Fair,
}

/// `{fair: {header: x-caller}}`
#[derive(Deserialize, JsonSchema, Clone, Debug)]
#[serde(deny_unknown_fields, expecting = "`{fair: {header: x-caller}}`")]
pub(crate) struct FairOrder {
    /// By what callers are told apart.
    pub(crate) fair: FairBy,
}

/// By what callers are told apart.
#[derive(Deserialize, JsonSchema, Clone, Debug)]
#[serde(deny_unknown_fields, expecting = "`{header: x-caller}`")]
pub(crate) struct FairBy {
    /// The request header that names the caller.
    pub(crate) header: HeaderName,
}

impl<'de> Deserialize<'de> for Order {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = Order;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`light-first`, `fifo`, `fair` or `{fair: {header: x-caller}}`")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Order, E> {
                OrderWord::deserialize(de::value::StrDeserializer::new(word)).map(Order::Word)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Order, A::Error> {
                FairOrder::deserialize(MapAccessDeserializer::new(map)).map(Order::Fair)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Which pod among those with room.
#[derive(Deserialize, JsonSchema, Clone, Copy, Debug, Default)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Placement {
    /// Spread while the heaviest api still finds a pod with room afterwards, else pack.
    #[default]
    Auto,
    /// The pod with the most room.
    Spread,
    /// The fullest pod with room enough.
    Pack,
}

/// The part of the pool entered by tokens that come back with time.
#[derive(Deserialize, JsonSchema, Clone, Debug)]
#[serde(deny_unknown_fields, expecting = "`{share: 10%, rate: 20/s}`")]
pub(crate) struct Trickle {
    /// Its size; 0 for none.
    pub(crate) share: AmountText,
    /// How fast its tokens (units) come back.
    pub(crate) rate: Rate,
    /// Trickle leases may bring the pool up to this; above 100% pods need `burst`, or `max_hold`.
    #[schemars(extend("default" = "100%"))]
    pub(crate) ceiling: Option<Percent>,
}

/// Where units are counted.
#[derive(JsonSchema, Clone, Debug)]
#[schemars(untagged)]
pub(crate) enum Ledger {
    /// `memory`: in this process. The default.
    Memory(LedgerWord),
    /// In Redis, for many gates.
    Redis(Box<RedisLedger>),
}

/// A ledger that needs no settings.
#[derive(Deserialize, JsonSchema, Clone, Copy, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LedgerWord {
    /// In this process.
    Memory,
}

impl<'de> Deserialize<'de> for Ledger {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = Ledger;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`memory` or `{redis: \"redis://HOST:6379\"}`")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Ledger, E> {
                LedgerWord::deserialize(de::value::StrDeserializer::new(word)).map(Ledger::Memory)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Ledger, A::Error> {
                let ledger = RedisLedger::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Ledger::Redis(Box::new(ledger)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Units counted in Redis.
#[derive(Deserialize, JsonSchema, Clone, Debug)]
#[serde(deny_unknown_fields, expecting = "`{redis: \"redis://HOST:6379\"}`")]
pub(crate) struct RedisLedger {
    /// Where Redis is.
    pub(crate) redis: RedisAt,
    /// After so long without a word a gate counts as gone. The heartbeat is a fifth of it.
    #[schemars(extend("default" = "5s"))]
    pub(crate) ttl: Option<Span>,
    /// Shortest time between two exchanges of a gate.
    #[schemars(extend("default" = "5ms"))]
    pub(crate) pace: Option<Span>,
    /// What a gate does when Redis is gone and its credit has run out.
    pub(crate) on_ledger_loss: Option<OnLedgerLoss>,
}

/// What a gate does when the ledger is gone and its credit has run out.
#[derive(Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "kebab-case")]
pub enum OnLedgerLoss {
    /// It admits its share of the capacity: that divided by the most gates seen.
    #[default]
    Share,
    /// It admits up to each pod's capacity by its own count.
    PodLimit,
    /// It refuses. Only this is exact.
    Refuse,
}

/// Where Redis is.
#[derive(JsonSchema, Clone, Debug)]
#[schemars(untagged)]
pub(crate) enum RedisAt {
    /// One server.
    Url(RedisUrl),
    /// Sentinel, Cluster, TLS, or a user.
    Settings(Box<RedisServer>),
}

impl<'de> Deserialize<'de> for RedisAt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = RedisAt;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL such as `redis://127.0.0.1:6379`, or `{url: …, sentinel: …}`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RedisAt, E> {
                RedisUrl::deserialize(de::value::StrDeserializer::new(text)).map(RedisAt::Url)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<RedisAt, A::Error> {
                let server = RedisServer::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RedisAt::Settings(Box::new(server)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Redis with more than a URL.
#[derive(Deserialize, JsonSchema, Clone, Debug)]
#[serde(deny_unknown_fields, expecting = "`{url: \"redis://HOST:6379\"}`")]
pub(crate) struct RedisServer {
    /// The server; with `sentinel` one sentinel, with `cluster` one node.
    pub(crate) url: RedisUrl,
    /// With `sentinel` or `cluster`: further sentinels or nodes to begin with.
    pub(crate) more: Option<Vec<RedisUrl>>,
    /// The master's name: `url` and `more` are sentinels.
    pub(crate) sentinel: Option<String>,
    /// `url` and `more` are nodes of a Redis Cluster.
    #[schemars(extend("default" = false))]
    pub(crate) cluster: Option<bool>,
    /// User of Redis' access list; beats the URL's.
    pub(crate) user: Option<String>,
    /// Password; beats the URL's.
    pub(crate) password: Option<Secret>,
    /// TLS; needs `rediss://`.
    pub(crate) tls: Option<RedisTls>,
}

/// A text that no message shows.
#[derive(Deserialize, JsonSchema, Clone)]
#[serde(transparent)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Certificates for TLS to Redis, as PEM files.
#[derive(Deserialize, JsonSchema, Clone, Debug)]
#[serde(deny_unknown_fields, expecting = "`{ca: FILE}`")]
pub(crate) struct RedisTls {
    /// Whom to trust; default the system's list.
    pub(crate) ca: Option<PathBuf>,
    /// Our own certificate, with `key`.
    pub(crate) cert: Option<PathBuf>,
    /// Its private key.
    pub(crate) key: Option<PathBuf>,
}

/// The reverse proxy.
#[derive(Deserialize, JsonSchema, Clone, Debug)]
#[serde(deny_unknown_fields, expecting = "`{listen: \"127.0.0.1:8080\"}`")]
pub(crate) struct Gateway {
    /// Where it listens.
    pub(crate) listen: Listen,
    /// As a sidecar: the pod that takes a request if it fits there now.
    pub(crate) prefer: Option<Name>,
    /// Second tries of what surely did not start.
    pub(crate) retry: Option<Retry>,
    /// Threads; default one per core.
    #[schemars(range(min = 1, max = 1024))]
    pub(crate) workers: Option<u32>,
}

/// Second tries of what surely did not start.
#[derive(Deserialize, JsonSchema, Clone, Debug, Default)]
#[serde(deny_unknown_fields, expecting = "`{attempts: 2, buffer: 64KiB}`")]
pub(crate) struct Retry {
    /// Other pods tried.
    #[schemars(extend("default" = 2))]
    pub(crate) attempts: Option<u32>,
    /// Bytes of a request's body kept for a second try.
    #[schemars(extend("default" = "64KiB"))]
    pub(crate) buffer: Option<Size>,
}

/// The decision service.
#[derive(Deserialize, JsonSchema, Clone, Debug)]
#[serde(deny_unknown_fields, expecting = "`{http: \"127.0.0.1:8090\"}`")]
pub(crate) struct Decisions {
    /// Where leases are asked for over HTTP: an address and a port, or `unix:` and a socket's path.
    pub(crate) http: Option<DoorAddress>,
    /// Where Envoy asks (`ext_proc`, gRPC).
    pub(crate) ext_proc: Option<Listen>,
    /// What to do with an Envoy that seems to end its streams at once, so that no unit is held.
    pub(crate) early_end: Option<EarlyEnd>,
    /// What callers must show; it, or `tls`, is needed on any address but loopback.
    pub(crate) token: Option<Token>,
    /// `host:port` where the other gates of the pool reach `http`; default where it listens. Needed over Redis when that is
    /// `0.0.0.0`, `[::]` or a Unix socket and callers come through a balancer.
    pub(crate) advertise: Option<HostPort>,
    /// Mutual TLS: callers show a certificate.
    pub(crate) tls: Option<DecisionsTls>,
}

/// Certificates of the decision service, as PEM files.
#[derive(Deserialize, JsonSchema, Clone, Debug)]
#[serde(deny_unknown_fields, expecting = "`{cert: FILE, key: FILE, client_ca: FILE}`")]
pub(crate) struct DecisionsTls {
    /// The service's certificate, with those between it and its authority.
    pub(crate) cert: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
    /// The authorities of callers: one without a certificate of theirs is not heard.
    pub(crate) client_ca: PathBuf,
}

/// What to do with an Envoy that seems to end its streams at once.
#[derive(Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum EarlyEnd {
    /// Say so in the log and the metrics, and go on.
    #[default]
    Warn,
    /// Answer its requests 503, but for a few that show whether it was mended. Needs `allow_mode_override` in its filter, which
    /// alone makes it certain.
    Refuse,
}

/// Metrics, health and live changes.
#[derive(Deserialize, JsonSchema, Clone, Debug)]
#[serde(deny_unknown_fields, expecting = "`{listen: \"127.0.0.1:8081\"}`")]
pub(crate) struct Admin {
    /// Where it listens.
    pub(crate) listen: Listen,
    /// What callers must show; needed on any address but loopback.
    pub(crate) token: Option<Token>,
}
