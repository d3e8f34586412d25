//! A consumer as teams write it: a fixed number of messages in flight, each sent to the next pod in turn, and tried
//! again where the pod's own lock refuses it.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{Headers, Message, OwnedMessage};
use sluicegate_testkit::client::Raw;
use tokio::sync::Semaphore;

use crate::Outcome;

/// What somebody tunes by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tuning {
    /// Messages in flight.
    pub(crate) concurrency: usize,
    /// Mean pause after a pod's 429, before the next pod is tried, milliseconds; spread by half.
    pub(crate) pause_ms: u64,
}

/// `CONCURRENCY:PAUSE`
impl FromStr for Tuning {
    type Err = String;

    fn from_str(text: &str) -> Result<Tuning, String> {
        let read = || {
            let (concurrency, pause) = text.split_once(':')?;
            Some(Tuning { concurrency: concurrency.parse().ok()?, pause_ms: pause.parse().ok()? })
        };
        read().ok_or_else(|| format!("`{text}` is not CONCURRENCY:PAUSE"))
    }
}

/// Where it takes messages, and where it sends them.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Consume {
    brokers: String,
    topic: String,
    group: String,
    /// Seconds of each tuning but the last, which stays.
    seconds: f64,
    #[arg(long, value_delimiter = ',')]
    pods: Vec<SocketAddr>,
    /// One after the other, each with at least as many messages in flight as the one before.
    #[arg(long, value_delimiter = ',')]
    tunings: Vec<Tuning>,
}

/// Consumes until killed. Prints `tuning N` when the Nth begins, the first with the first message.
///
/// # Errors
/// The client cannot be made.
pub(crate) async fn consume(how: &Consume) -> Outcome<()> {
    let mut config = ClientConfig::new();
    // It commits by itself what was handed out, done or not: cheaper, and weaker, than ours.
    config
        .set("bootstrap.servers", &how.brokers)
        .set("group.id", &how.group)
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "10000");
    let consumer: StreamConsumer = config.create().map_err(|error| format!("Kafka: {error}"))?;
    consumer.subscribe(&[how.topic.as_str()]).map_err(|error| format!("Kafka: {error}"))?;
    let sender = Arc::new(Sender {
        pods: how.pods.iter().map(|addr| (*addr, Mutex::default())).collect(),
        turn: AtomicUsize::new(0),
        pause_ms: AtomicU64::new(0),
    });
    let seats = Arc::new(Semaphore::new(0));
    let mut first = Some(next(&consumer).await);
    tokio::spawn(tune(how.clone(), Arc::clone(&sender), Arc::clone(&seats)));
    loop {
        let message = match first.take() {
            Some(message) => message,
            None => next(&consumer).await,
        };
        let seat = Arc::clone(&seats).acquire_owned().await.map_err(|error| error.to_string())?;
        let sender = Arc::clone(&sender);
        tokio::spawn(async move {
            sender.work(&message).await;
            drop(seat);
        });
    }
}

async fn next(consumer: &StreamConsumer) -> OwnedMessage {
    loop {
        match consumer.recv().await {
            Ok(message) => return message.detach(),
            Err(error) => eprintln!("Kafka: {error}"),
        }
    }
}

async fn tune(how: Consume, sender: Arc<Sender>, seats: Arc<Semaphore>) {
    let mut there = 0;
    for (number, tuning) in how.tunings.iter().enumerate() {
        seats.add_permits(tuning.concurrency.saturating_sub(there));
        there = there.max(tuning.concurrency);
        sender.pause_ms.store(tuning.pause_ms, Ordering::Relaxed);
        println!("tuning {number}");
        tokio::time::sleep(Duration::from_secs_f64(how.seconds)).await;
    }
}

struct Sender {
    /// Each with its idle connections.
    pods: Vec<(SocketAddr, Mutex<Vec<Raw>>)>,
    turn: AtomicUsize,
    pause_ms: AtomicU64,
}

impl Sender {
    /// Until some pod has answered it.
    async fn work(&self, message: &OwnedMessage) {
        let target = format!("/w/{}", header(message, "x-weight"));
        let trial = format!("x-trial: {}", header(message, "x-trial"));
        loop {
            let (addr, idle) = &self.pods[self.turn.fetch_add(1, Ordering::Relaxed) % self.pods.len()];
            match once(*addr, idle, &target, &trial).await {
                Ok(429) => {}
                Ok(_) => return,
                Err(error) => eprintln!("{addr}: {error}"),
            }
            let pause_ms = self.pause_ms.load(Ordering::Relaxed) as f64 * (0.5 + fastrand::f64());
            tokio::time::sleep(Duration::from_secs_f64(pause_ms / 1000.0)).await;
        }
    }
}

async fn once(addr: SocketAddr, idle: &Mutex<Vec<Raw>>, target: &str, trial: &str) -> std::io::Result<u16> {
    let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut client = match kept {
        Some(client) => client,
        None => Raw::connect(addr).await?,
    };
    client.request("POST", target, &[trial, "content-length: 2"]).await?;
    client.send("{}").await?;
    let status = client.answer().await?.head.status;
    idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
    Ok(status)
}

fn header(message: &OwnedMessage, name: &str) -> String {
    let found = message.headers().and_then(|all| all.iter().find(|header| header.key == name));
    String::from_utf8_lossy(found.and_then(|header| header.value).unwrap_or_default()).into_owned()
}
