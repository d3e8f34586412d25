//! Work in the background.

use std::path::PathBuf;
use std::time::Duration;

use super::{Check, at};
use crate::config::{ApiSettings, LedgerSettings};
use crate::problem::{nearest, quoted};
use crate::tree::Step;
use crate::wire::{self, Overflow, Source, SourceApi};
use crate::work::{
    BrokerSettings, BrokerTls, JobStoreSettings, MessageApi, OverflowSettings, SourceSettings, WorkerSettings,
};

/// Default of `overflow.body` and `overflow.result`, bytes.
const BODY: usize = 1 << 20;
/// Default of `overflow.ttl`.
const TTL: Duration = Duration::from_secs(3600);
/// Default of `overflow.location`.
const LOCATION: &str = "/.sluicegate/jobs";
/// Default of `overflow.jobs`.
const JOBS: u32 = 100_000;
/// Default of `overflow.tries`.
const JOB_TRIES: u32 = 3;
/// Default of `behind`.
const BEHIND: Duration = Duration::from_secs(10);
/// Default of `hold` of a source.
const HOLD: u32 = 256;
/// Most of it.
const HOLD_MAX: u32 = 65_535;
/// Default of `tries` of a source.
const TRIES: u32 = 5;
/// Default of `backoff` of a source.
const BACKOFF: Duration = Duration::from_secs(1);

/// What to do about a Kafka that wants more.
const CLEAR_KAFKA: &str = "use a listener without them, or a proxy beside this process that adds them";

impl Check<'_> {
    /// `None` where no api overflows and there is no section.
    pub(super) fn overflow(
        &mut self,
        file: &wire::File,
        apis: &[ApiSettings],
        ledger: &LedgerSettings,
    ) -> Option<OverflowSettings> {
        let enqueues = apis.iter().any(|api| api.overflow == Overflow::Enqueue);
        if file.overflow.is_some() && !enqueues {
            let mend = "add `overflow: enqueue` to an api, or take the section out";
            self.warning(at!["overflow"], "without effect: no api has `overflow: enqueue`", mend);
        }
        if file.overflow.is_none() && !enqueues {
            return None;
        }
        let rules = file.overflow.clone().unwrap_or_default();
        let default = || match ledger {
            LedgerSettings::Redis(redis) => JobStoreSettings::Redis(redis.clone()),
            LedgerSettings::Memory => {
                let pool = file.pool.as_ref().map_or("pool", |pool| &pool.0);
                JobStoreSettings::File(PathBuf::from(format!("{pool}-jobs.redb")))
            }
        };
        let store = match &rules.store {
            None => default(),
            Some(wire::JobStore { path: Some(path), redis: None }) => JobStoreSettings::File(path.clone()),
            Some(wire::JobStore { path: None, redis: Some(redis) }) => {
                JobStoreSettings::Redis(Box::new(self.redis(at!["overflow", "store", "redis"], redis)))
            }
            Some(_) => {
                let mend = "write `{path: FILE}` for one gate, or `{redis: URL}` for many";
                self.problem(at!["overflow", "store"], "one of `path` and `redis`", mend);
                default()
            }
        };
        let location = rules.location.unwrap_or_else(|| LOCATION.to_owned());
        let is_path = location.starts_with('/')
            && location.len() > 1
            && !location.ends_with('/')
            && location.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'));
        if !is_path {
            let mend = format!("write a path such as `{LOCATION}`");
            self.problem(
                at!["overflow", "location"],
                "no path that begins, and does not end, with `/`",
                mend,
            );
        }
        self.at_least_one(at!["overflow", "tries"], rules.tries);
        self.at_least_one(at!["overflow", "jobs"], rules.jobs);
        self.no_zero_behind(at!["overflow", "behind"], rules.behind);
        Some(OverflowSettings {
            store,
            body_max: rules.body.map_or(BODY, |size| size.0),
            result_max: rules.result.map_or(BODY, |size| size.0),
            ttl: rules.ttl.map_or(TTL, |span| span.0),
            location,
            jobs_max: u64::from(rules.jobs.unwrap_or(JOBS)),
            tries: rules.tries.unwrap_or(JOB_TRIES),
            behind: rules.behind.map_or(BEHIND, |span| span.0),
        })
    }

    pub(super) fn workers(&mut self, workers: &wire::Workers, apis: &[ApiSettings]) -> WorkerSettings {
        self.no_zero_behind(at!["workers", "behind"], workers.behind);
        if workers.sources.is_empty() {
            let mend = "add `{name: …, rabbitmq: URL, queues: […], api: …}`";
            self.problem(at!["workers", "sources"], "no source: nothing would be consumed", mend);
        }
        let mut sources = Vec::new();
        for (index, source) in workers.sources.iter().enumerate() {
            if workers.sources[..index].iter().any(|other| other.name == source.name) {
                let what = format!("a second source named {}", quoted(&source.name.0));
                self.problem(at!["workers", "sources", index, "name"], what, "give each its own name");
            }
            sources.extend(self.message_source(index, source, apis));
        }
        WorkerSettings {
            max: workers.max.map(|amount| amount.0),
            behind: workers.behind.map_or(BEHIND, |span| span.0),
            sources,
        }
    }

    fn message_source(
        &mut self,
        index: usize,
        source: &Source,
        apis: &[ApiSettings],
    ) -> Option<SourceSettings> {
        let place = |key| [Step::from("workers"), Step::from("sources"), Step::from(index), Step::from(key)];
        self.at_least_one(&place("tries"), source.tries);
        if source.hold.is_some_and(|hold| hold == 0 || hold > HOLD_MAX) {
            let mend = format!("write 1 to {HOLD_MAX}; {HOLD} is the default");
            self.problem(&place("hold"), "no number of messages to hold", mend);
        }
        let api = self.message_api(index, source, apis);
        let broker = self.broker(index, source)?;
        let first = match &broker {
            BrokerSettings::Rabbitmq { queues, .. } => queues.first(),
            BrokerSettings::Kafka { topics, .. } => topics.first(),
        };
        let request = source.request.clone().unwrap_or_default();
        let method = request.method.unwrap_or_else(|| "POST".to_owned());
        if !method.bytes().all(|byte| byte.is_ascii_uppercase()) || method.is_empty() {
            let at = at!["workers", "sources", index, "request", "method"];
            self.problem(at, format!("{} is no method", quoted(&method)), "write `POST`");
        }
        let path = request.path.unwrap_or_else(|| "/".to_owned());
        if !path.starts_with('/') {
            let at = at!["workers", "sources", index, "request", "path"];
            self.problem(at, "a path begins with `/`", format!("write `/{path}`"));
        }
        let headers = request.headers.unwrap_or_default();
        Some(SourceSettings {
            name: source.name.0.clone(),
            hold: source.hold.unwrap_or(HOLD).clamp(1, HOLD_MAX) as usize,
            api,
            method,
            path,
            headers: headers.into_iter().map(|(name, value)| (name.0, value)).collect(),
            tries: source.tries.unwrap_or(TRIES),
            backoff: source.backoff.map_or(BACKOFF, |span| span.0),
            dead: source.dead.clone().unwrap_or_else(|| format!("{}.dead", first.map_or("", String::as_str))),
            broker,
        })
    }

    fn broker(&mut self, index: usize, source: &Source) -> Option<BrokerSettings> {
        match (&source.rabbitmq, &source.kafka) {
            (Some(url), None) => Some(self.rabbitmq(index, source, &url.0)),
            (None, Some(brokers)) => Some(self.kafka(index, source, brokers)),
            _ => {
                let mend = "add `rabbitmq: URL` with `queues`, or `kafka: HOST:PORT` with `topics`";
                let at = at!["workers", "sources", index];
                self.problem(at, "one of `rabbitmq` and `kafka`", mend);
                None
            }
        }
    }

    fn rabbitmq(&mut self, index: usize, source: &Source, url: &str) -> BrokerSettings {
        let place = |key| [Step::from("workers"), Step::from("sources"), Step::from(index), Step::from(key)];
        if !url.starts_with("amqp://") && !url.starts_with("amqps://") {
            let mend = "write `amqp://USER:PASSWORD@HOST:5672/VHOST` (`/%2f` for the default one)";
            self.problem(&place("rabbitmq"), "not the URL of a RabbitMQ", mend);
        }
        if source.tls.is_some() && !url.starts_with("amqps://") {
            let mend = "write the URL with `amqps://`, or take `tls` out";
            self.problem(&place("tls"), "certificates, but the URL says clear text", mend);
        }
        let queues = source.queues.clone().unwrap_or_default();
        if queues.is_empty() {
            self.problem(&place("queues"), "no queue", "add `queues: [NAME]`");
        }
        for (key, there) in [
            ("topics", source.topics.is_some()),
            ("group", source.group.is_some()),
            ("order", source.order.is_some()),
            ("answers", source.answers.is_some()),
            ("options", source.options.is_some()),
        ] {
            if there {
                self.problem(&place(key), "a key of Kafka in a source of RabbitMQ", "take it out");
            }
        }
        let tls = source.tls.clone().unwrap_or_default();
        let identity = match (tls.cert, tls.key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => {
                self.problem(&place("tls"), "`cert` and `key` only go together", "give both, or neither");
                None
            }
        };
        BrokerSettings::Rabbitmq {
            url: url.to_owned(),
            tls: BrokerTls { ca: tls.ca, identity },
            queues,
            declare: source.declare.unwrap_or(true),
        }
    }

    fn kafka(&mut self, index: usize, source: &Source, brokers: &str) -> BrokerSettings {
        let place = |key| [Step::from("workers"), Step::from("sources"), Step::from(index), Step::from(key)];
        let topics = source.topics.clone().unwrap_or_default();
        if topics.is_empty() {
            self.problem(&place("topics"), "no topic", "add `topics: [NAME]`");
        }
        for (key, there) in [("queues", source.queues.is_some()), ("declare", source.declare.is_some())] {
            if there {
                self.problem(&place(key), "a key of RabbitMQ in a source of Kafka", "take it out");
            }
        }
        if source.tls.is_some() {
            self.problem(&place("tls"), "Kafka has no TLS in this version", CLEAR_KAFKA);
        }
        let clear = |value: &str| value.trim().eq_ignore_ascii_case("plaintext");
        for (key, value) in source.options.iter().flatten() {
            let secured =
                key.starts_with("ssl.") || key.starts_with("sasl.") || key.starts_with("enable.ssl.");
            if secured || (key == "security.protocol" && !clear(&value.0)) {
                let at = at!["workers", "sources", index, "options", key.as_str()];
                self.problem(at, "Kafka has no TLS and no SASL in this version", CLEAR_KAFKA);
            }
        }
        BrokerSettings::Kafka {
            brokers: brokers.to_owned(),
            group: source.group.clone().unwrap_or_else(|| "sluicegate".to_owned()),
            topics,
            order: source.order.unwrap_or_default(),
            answers: source.answers.clone(),
            options: source.options.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect(),
        }
    }

    fn message_api(&mut self, index: usize, source: &Source, apis: &[ApiSettings]) -> MessageApi {
        match &source.api {
            SourceApi::One(name) => {
                self.known_api(at!["workers", "sources", index, "api"], &name.0, apis);
                MessageApi::One(name.0.clone())
            }
            SourceApi::By(by) => {
                self.known_api(at!["workers", "sources", index, "api", "otherwise"], &by.otherwise.0, apis);
                for (said, name) in by.names.iter().flatten() {
                    let at = at!["workers", "sources", index, "api", "names", said.as_str()];
                    self.known_api(at, &name.0, apis);
                }
                MessageApi::By {
                    header: by.header.as_ref().map(|header| header.0.clone()),
                    names: by.names.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect(),
                    otherwise: by.otherwise.0.clone(),
                }
            }
        }
    }

    fn known_api(&mut self, path: &[Step<'_>], name: &str, apis: &[ApiSettings]) {
        if apis.iter().any(|api| api.name == name) {
            return;
        }
        let mend = match nearest(name, apis.iter().map(|api| api.name.as_str())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "write the `name` of one of `apis`, or `default`".to_owned(),
        };
        self.problem(path, format!("there is no api {}", quoted(name)), mend);
    }

    fn at_least_one(&mut self, path: &[Step<'_>], number: Option<u32>) {
        if number == Some(0) {
            self.problem(path, "0 would do nothing at all", "write at least 1, or take the key out");
        }
    }

    fn no_zero_behind(&mut self, path: &[Step<'_>], behind: Option<crate::values::Span>) {
        if behind.is_some_and(|span| span.0.is_zero()) {
            let what = "work in the background that ranks with the foreground";
            self.problem(path, what, "write at least `1ms`; `10s` is the default");
        }
    }
}
