//! RabbitMQ: quorum queues, prefetch that follows the free units, later tries and dead letters by confirmed publishes.
//!
//! Prefetch cannot be changed while a consumer runs, so a queue is consumed with a prefetch that fits the units that are
//! free, and when that is off by a factor of two the consumer is cancelled and begun anew with another; what it holds
//! stays held. A later try is a message in a queue of its own (`QUEUE.retry.MS`) whose time to live brings it back; the
//! original is acknowledged once that is confirmed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions,
    BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use sluicegate::jobs::Outcome;
use tokio::task::JoinSet;

use crate::crew::{Crew, Verdict, pause};
use crate::message::{Mapping, Message};
use crate::tally::End;

/// First and longest pause before a lost connection is made again.
const CONNECT_AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Longest for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How often the prefetch is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Least prefetch: an ask must be there when units come free.
const PREFETCH_MIN: u16 = 4;
/// A message that was given out so many times per try without an end kills whoever takes it.
const POISON: i64 = 20;

const TRIES: &str = "x-sluicegate-tries";
const ERROR: &str = "x-sluicegate-error";

/// One source of messages.
#[derive(Clone, Debug)]
pub struct Source {
    /// For logs.
    pub name: String,
    /// `amqp://…` or `amqps://…`; never logged.
    pub url: String,
    /// For `amqps://`.
    pub tls: Tls,
    /// The first is served first.
    pub queues: Vec<String>,
    /// Declare them, and those for later tries and dead letters.
    pub declare: bool,
    /// The queue for dead letters.
    pub dead: String,
    /// Most messages held at once per queue.
    pub hold: u16,
    /// Tries before a message is a dead letter.
    pub tries: u32,
    /// Pause before the second try.
    pub backoff: Duration,
    /// What a message becomes.
    pub mapping: Mapping,
}

/// Certificates, as PEM files. They are read for each connection, so that renewed ones are taken.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Whom to trust beside the system's list.
    pub ca: Option<PathBuf>,
    /// Our certificate and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    fn read(&self) -> std::io::Result<OwnedTLSConfig> {
        let file = |path: &PathBuf| {
            let named = |error| std::io::Error::other(format!("{}: {error}", path.display()));
            std::fs::read(path).map_err(named)
        };
        let ca = self.ca.as_ref().map(file).transpose()?;
        let ca = ca.map(|pem| String::from_utf8(pem).map_err(std::io::Error::other)).transpose()?;
        let identity = match &self.identity {
            Some((pem, key)) => Some(OwnedIdentity::PKCS8 { pem: file(pem)?, key: file(key)? }),
            None => None,
        };
        Ok(OwnedTLSConfig { identity, cert_chain: ca })
    }
}

/// Consumes until the crew is told to stop. Outlives lost connections and broker restarts.
pub async fn consume(source: Source, crew: Arc<Crew>) {
    let source = Arc::new(source);
    let mut again = CONNECT_AGAIN.0;
    while !*crew.stop.borrow() {
        match Session::open(&source, &crew).await {
            Ok(session) => {
                tracing::info!(source = source.name, "consumes from RabbitMQ");
                again = CONNECT_AGAIN.0;
                match session.run().await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::warn!(source = source.name, %error, "RabbitMQ is lost; what runs may run again")
                    }
                }
            }
            Err(error) => tracing::warn!(source = source.name, %error, "RabbitMQ cannot be used"),
        }
        tokio::select! {
            () = tokio::time::sleep(again) => {}
            () = crew.stopped() => return,
        }
        again = (again * 2).min(CONNECT_AGAIN.1);
    }
}

/// Puts messages into a queue, which is declared, and waits until the broker has them all.
///
/// # Errors
/// The broker cannot be reached, or did not take one.
pub async fn fill(url: &str, queue: &str, messages: &[Message]) -> Result<(), lapin::Error> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, arguments).await?;
    let mut confirms = Vec::with_capacity(messages.len());
    for message in messages {
        let mut headers = FieldTable::default();
        for (name, value) in &message.headers {
            headers.insert(name.as_str().into(), AMQPValue::LongString(value.clone().into()));
        }
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_headers(headers)
            .with_message_id(message.id.as_str().into());
        let options = BasicPublishOptions::default();
        confirms
            .push(channel.basic_publish("".into(), queue.into(), options, &message.body, properties).await?);
    }
    for confirm in confirms {
        confirm.await?;
    }
    connection.close(200, "done".into()).await
}

/// One connection's life.
struct Session {
    source: Arc<Source>,
    crew: Arc<Crew>,
    connection: Connection,
    publish: Channel,
}

impl Session {
    async fn open(source: &Arc<Source>, crew: &Arc<Crew>) -> Result<Session, lapin::Error> {
        let properties = ConnectionProperties::default().with_connection_name("sluicegate".into());
        let (tls, runtime) = (source.tls.read()?, lapin::runtime::default_runtime()?);
        let connect = Connection::connect_with_config(&source.url, properties, tls, runtime);
        let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "no connection within 10 s");
        let connection = tokio::time::timeout(CONNECT_MAX, connect).await.map_err(|_| late())??;
        let publish = connection.create_channel().await?;
        publish.confirm_select(ConfirmSelectOptions::default()).await?;
        let session = Session { source: Arc::clone(source), crew: Arc::clone(crew), connection, publish };
        if source.declare {
            for queue in source.queues.iter().chain([&source.dead]) {
                session.declare(queue, &[]).await?;
            }
        }
        Ok(session)
    }

    async fn declare(&self, queue: &str, more: &[(&str, AMQPValue)]) -> Result<(), lapin::Error> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        for (name, value) in more {
            arguments.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.publish.queue_declare(queue.into(), options, arguments).await?;
        Ok(())
    }

    /// Until the crew stops, or an error. The connection is closed then, so that the broker gives out again what this
    /// one held.
    async fn run(self) -> Result<(), lapin::Error> {
        let session = Arc::new(self);
        let outcome = session.tap_all().await;
        let close = session.connection.close(200, "done".into());
        // One that is lost already cannot be closed.
        let _ = tokio::time::timeout(CONNECT_MAX, close).await;
        outcome
    }

    async fn tap_all(self: &Arc<Self>) -> Result<(), lapin::Error> {
        let mut taps = JoinSet::new();
        for place in 0..self.source.queues.len() {
            let tap = Tap::open(self, place).await?;
            taps.spawn(tap.run());
        }
        while let Some(ended) = taps.join_next().await {
            // A panic of a tap is an end of the connection too: what it held comes again.
            ended.unwrap_or_else(|error| Err(std::io::Error::other(error).into()))?;
        }
        Ok(())
    }

    /// Confirmed by the broker, in a queue.
    async fn publish(
        &self,
        queue: &str,
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<(), lapin::Error> {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = properties.with_delivery_mode(2);
        let confirm = self.publish.basic_publish("".into(), queue.into(), options, body, properties).await?;
        match confirm.await? {
            Confirmation::Ack(None) => Ok(()),
            _ => Err(std::io::Error::other(format!("`{queue}` did not take a message")).into()),
        }
    }

    /// What is to become of a message is done, so that it can be acknowledged.
    async fn settle(
        &self,
        delivery: &Delivery,
        queue: &str,
        verdict: Verdict,
    ) -> Result<Option<End>, lapin::Error> {
        Ok(Some(match verdict {
            Verdict::NotBegun => return Ok(None),
            Verdict::Done(outcome) => {
                self.answer(delivery, outcome).await?;
                End::Done
            }
            Verdict::Again(why) => {
                let tries = tries_of(&delivery.properties) + 1;
                if tries >= self.source.tries {
                    self.bury(delivery, queue, &why, tries).await?;
                    End::Dead
                } else {
                    let wait = pause(self.source.backoff, tries);
                    self.later(delivery, queue, &why, tries, wait).await?;
                    End::Again
                }
            }
            Verdict::Dead(why) => {
                let tries = tries_of(&delivery.properties) + 1;
                self.bury(delivery, queue, &why, tries).await?;
                End::Dead
            }
        }))
    }

    async fn later(
        &self,
        delivery: &Delivery,
        queue: &str,
        why: &str,
        tries: u32,
        wait: Duration,
    ) -> Result<(), lapin::Error> {
        let ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1);
        let name = format!("{queue}.retry.{ms}");
        // Declared each time: it costs one call, and a queue that was deleted is there again.
        self.declare(
            &name,
            &[
                ("x-message-ttl", AMQPValue::LongUInt(ms)),
                ("x-dead-letter-exchange", AMQPValue::LongString("".into())),
                ("x-dead-letter-routing-key", AMQPValue::LongString(queue.into())),
                ("x-dead-letter-strategy", AMQPValue::LongString("at-least-once".into())),
                ("x-overflow", AMQPValue::LongString("reject-publish".into())),
            ],
        )
        .await?;
        let properties = marked(&delivery.properties, why, tries);
        self.publish(&name, &delivery.data, properties).await?;
        tracing::info!(
            source = self.source.name,
            queue,
            tries,
            why,
            wait_ms = ms,
            "a message is tried again"
        );
        Ok(())
    }

    async fn bury(
        &self,
        delivery: &Delivery,
        queue: &str,
        why: &str,
        tries: u32,
    ) -> Result<(), lapin::Error> {
        let properties = marked(&delivery.properties, why, tries);
        self.publish(&self.source.dead, &delivery.data, properties).await?;
        tracing::warn!(source = self.source.name, queue, tries, why, "a message is a dead letter");
        Ok(())
    }

    /// The pod's answer goes to whoever asked for it.
    async fn answer(&self, delivery: &Delivery, outcome: Outcome) -> Result<(), lapin::Error> {
        let Some(reply_to) = delivery.properties.reply_to() else { return Ok(()) };
        let mut headers = FieldTable::default();
        headers.insert("x-status".into(), AMQPValue::LongUInt(u32::from(outcome.status.as_u16())));
        let mut properties = BasicProperties::default().with_headers(headers);
        if let Some(id) = delivery.properties.correlation_id() {
            properties = properties.with_correlation_id(id.clone());
        }
        if let Some(kind) = outcome.headers.get("content-type").and_then(|kind| kind.to_str().ok()) {
            properties = properties.with_content_type(kind.into());
        }
        match self.publish(reply_to.as_str(), &outcome.body, properties).await {
            Ok(()) => Ok(()),
            // Whoever asked has gone: nobody misses the answer.
            Err(error) if self.publish.status().connected() => {
                tracing::info!(source = self.source.name, %error, "nobody takes the answer of a message");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// One queue's consumer.
struct Tap {
    session: Arc<Session>,
    /// Position among the queues: a later one ranks further behind.
    place: usize,
    channel: Channel,
    consumer: Consumer,
    prefetch: u16,
}

impl Tap {
    async fn open(session: &Arc<Session>, place: usize) -> Result<Tap, lapin::Error> {
        let channel = session.connection.create_channel().await?;
        let prefetch = fitting(session, 1.0, 0);
        let consumer = begin(&channel, &session.source.queues[place], prefetch).await?;
        session.crew.tally.set_prefetch(&session.source.queues[place], prefetch);
        Ok(Tap { session: Arc::clone(session), place, channel, consumer, prefetch })
    }

    async fn run(mut self) -> Result<(), lapin::Error> {
        let mut jobs = JoinSet::new();
        let mut look = tokio::time::interval(LOOK_EVERY);
        let crew = Arc::clone(&self.session.crew);
        let mut weights = Mean::default();
        loop {
            tokio::select! {
                delivery = self.consumer.next() => {
                    let Some(delivery) = delivery else {
                        return Err(std::io::Error::other("the broker cancelled the consumer").into());
                    };
                    let delivery = delivery?;
                    crew.tally.took(delivery.redelivered);
                    let job = Job::of(&self.session, self.place, delivery);
                    weights.add(crew.forward.weight(&job.api).unwrap_or(1));
                    jobs.spawn(job.run());
                }
                Some(ended) = jobs.join_next() => ended.unwrap_or_else(|error| Err(std::io::Error::other(error).into()))?,
                _ = look.tick() => self.refit(weights.read(), jobs.len()).await?,
                () = crew.stopped() => break,
            }
        }
        self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default()).await?;
        while let Some(ended) = jobs.join_next().await {
            ended.unwrap_or_else(|error| Err(std::io::Error::other(error).into()))?;
        }
        Ok(())
    }

    /// Another prefetch, where the present one is off by a factor of two.
    async fn refit(&mut self, weight: f64, held: usize) -> Result<(), lapin::Error> {
        let fits = fitting(&self.session, weight, held);
        if fits < self.prefetch.saturating_mul(2) && fits > self.prefetch / 2 {
            return Ok(());
        }
        self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default()).await?;
        // What was on its way before the cancel is held by the broker's count: it is given back, and comes again.
        while let Some(Some(delivery)) = futures_util::FutureExt::now_or_never(self.consumer.next()) {
            delivery?.nack(BasicNackOptions { requeue: true, multiple: false }).await?;
        }
        let queue = &self.session.source.queues[self.place];
        self.consumer = begin(&self.channel, queue, fits).await?;
        self.session.crew.tally.set_prefetch(queue, fits);
        tracing::debug!(
            source = self.session.source.name,
            queue,
            from = self.prefetch,
            to = fits,
            "prefetch"
        );
        self.prefetch = fits;
        Ok(())
    }
}

async fn begin(channel: &Channel, queue: &str, prefetch: u16) -> Result<Consumer, lapin::Error> {
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let tag = ShortString::from("");
    channel.basic_consume(queue.into(), tag, BasicConsumeOptions::default(), FieldTable::default()).await
}

/// As many messages of this mean weight as the free units and those of the messages held can hold, and half as many
/// more to be at hand.
fn fitting(session: &Session, weight: f64, held: usize) -> u16 {
    let (free, _) = session.crew.forward.room();
    let fits = 1.5 * (free as f64 / weight.max(1.0) + held as f64);
    (fits.ceil().min(f64::from(session.source.hold)) as u16).max(PREFETCH_MIN.min(session.source.hold))
}

/// Mean weight of the last messages.
#[derive(Default)]
struct Mean(Option<f64>);

impl Mean {
    fn add(&mut self, weight: u32) {
        let weight = f64::from(weight);
        self.0 = Some(self.0.map_or(weight, |mean| mean + (weight - mean) / 64.0));
    }

    fn read(&self) -> f64 {
        self.0.unwrap_or(1.0)
    }
}

/// One message on its way.
struct Job {
    session: Arc<Session>,
    place: usize,
    delivery: Delivery,
    message: Message,
    api: String,
}

impl Job {
    fn of(session: &Arc<Session>, place: usize, delivery: Delivery) -> Job {
        let message = message_of(&delivery);
        let crew = &session.crew;
        let api = session.source.mapping.api(&message, |name| crew.forward.weight(name).is_some());
        Job { session: Arc::clone(session), place, delivery, message, api }
    }

    async fn run(self) -> Result<(), lapin::Error> {
        let Job { session, place, delivery, message, api } = self;
        let tally = Arc::clone(&session.crew.tally);
        let _held = tally.hold();
        let queue = session.source.queues[place].clone();
        let given = number(&delivery.properties, "x-delivery-count");
        let verdict = if given > POISON * i64::from(session.source.tries) {
            Verdict::Dead(format!("given out {given} times without an end"))
        } else {
            match session.source.mapping.work(&message, api.clone()) {
                Ok(work) => session.crew.attempt(work, place as u32).await,
                Err(why) => Verdict::Dead(why),
            }
        };
        let ran = !matches!(verdict, Verdict::NotBegun);
        let told = match session.settle(&delivery, &queue, verdict).await {
            Ok(Some(end)) => {
                tally.ended(&api, end);
                delivery.ack(BasicAckOptions::default()).await
            }
            Ok(None) => delivery.nack(BasicNackOptions { requeue: true, multiple: false }).await,
            Err(error) => Err(error),
        };
        if told.is_err() && ran {
            tally.ended(&api, End::Untold);
        }
        told.map(|_| ())
    }
}

fn message_of(delivery: &Delivery) -> Message {
    let properties = &delivery.properties;
    let mut headers = Vec::new();
    for (name, value) in properties.headers().iter().flat_map(|table| table.inner()) {
        let text = match value {
            AMQPValue::LongString(text) => text.as_bytes().to_vec(),
            AMQPValue::ShortString(text) => text.as_str().as_bytes().to_vec(),
            AMQPValue::Boolean(value) => value.to_string().into_bytes(),
            other => match integer(other) {
                Some(number) => number.to_string().into_bytes(),
                None => continue,
            },
        };
        headers.push((name.to_string(), text));
    }
    Message {
        route: delivery.routing_key.to_string(),
        key: None,
        id: properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default(),
        headers,
        content_type: properties.content_type().as_ref().map(ToString::to_string),
        body: Bytes::copy_from_slice(&delivery.data),
    }
}

fn integer(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::ShortShortInt(number) => Some(i64::from(*number)),
        AMQPValue::ShortShortUInt(number) => Some(i64::from(*number)),
        AMQPValue::ShortInt(number) => Some(i64::from(*number)),
        AMQPValue::ShortUInt(number) => Some(i64::from(*number)),
        AMQPValue::LongInt(number) => Some(i64::from(*number)),
        AMQPValue::LongUInt(number) => Some(i64::from(*number)),
        AMQPValue::LongLongInt(number) => Some(*number),
        _ => None,
    }
}

fn number(properties: &BasicProperties, name: &str) -> i64 {
    let headers = properties.headers().as_ref();
    headers.and_then(|table| table.inner().get(name)).and_then(integer).unwrap_or(0)
}

/// Tries that failed, by the message's own word.
fn tries_of(properties: &BasicProperties) -> u32 {
    u32::try_from(number(properties, TRIES)).unwrap_or(0)
}

/// The message's properties, with how often it failed and why. What the broker notes of deliveries and deaths is
/// taken out: it would be counted on.
fn marked(properties: &BasicProperties, why: &str, tries: u32) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in properties.headers().iter().flat_map(|table| table.inner()) {
        let name = name.as_str();
        if !name.starts_with("x-death") && !name.starts_with("x-first-death") && name != "x-delivery-count" {
            headers.insert(name.into(), value.clone());
        }
    }
    headers.insert(TRIES.into(), AMQPValue::LongUInt(tries));
    headers.insert(ERROR.into(), AMQPValue::LongString(why.into()));
    properties.clone().with_headers(headers)
}
