//! Kafka: parallel work within a partition, in order where asked, and no offset committed before all below it are done.
//!
//! One task owns all state. Each partition knows which offsets are open; what is stored for the commit is the lowest
//! open one, so a crash repeats and never skips. Messages of one key wait for each other in a lane. While as many
//! messages are held as may be, none is asked for. A partition is paused only where a share of them waits in its lanes,
//! or when nothing ended for a while: a pause throws away what the client has fetched, and it is fetched anew. When a
//! partition is taken away, what waits for room is dropped and what runs ends at its pod; both come again to whoever
//! has the partition then.

mod fill;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message as _, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::util::Timeout;
use sluicegate::jobs::Outcome;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::crew::{Crew, Verdict, pause};
use crate::message::{Mapping, Message};
use crate::tally::End;

pub use fill::fill;

/// Pause after an error of the client, which mends itself.
const ERROR_PAUSE: Duration = Duration::from_millis(200);
/// Pause before an answer or a dead letter is sent again.
const SEND_AGAIN: Duration = Duration::from_secs(1);
/// A client that holds all it may and has not been asked for so long is asked on, with its partitions paused, so that
/// the group does not take it for dead.
const REST_AFTER: Duration = Duration::from_secs(1);
/// A partition whose lowest open offset lags so far behind is paused: what is done above it is remembered.
const SPREAD_MAX: i64 = 10_000;

/// Which messages of a partition wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Those of one key; those without a key for nobody.
    Key,
    /// None.
    None,
    /// All.
    Partition,
}

/// One source of messages.
#[derive(Clone, Debug)]
pub struct Source {
    /// For logs.
    pub name: String,
    /// `HOST:PORT,…`
    pub brokers: String,
    /// Consumer group.
    pub group: String,
    /// Topics.
    pub topics: Vec<String>,
    /// Which messages keep their order.
    pub order: Order,
    /// Topic of the pods' answers.
    pub answers: Option<String>,
    /// Topic of dead letters.
    pub dead: String,
    /// Further properties of the client; they beat ours.
    pub options: BTreeMap<String, String>,
    /// Most messages held at once.
    pub hold: usize,
    /// Tries before a message is a dead letter.
    pub tries: u32,
    /// Pause before the second try.
    pub backoff: Duration,
    /// What a message becomes.
    pub mapping: Mapping,
}

/// Consumes until the crew is told to stop.
pub async fn consume(source: Source, crew: Arc<Crew>) {
    let source = Arc::new(source);
    let (tell, told) = mpsc::unbounded_channel();
    let clients = client(&source, Watch(tell)).and_then(|consumer| Ok((consumer, producer(&source)?)));
    match clients {
        Ok((consumer, producer)) => {
            tracing::info!(source = source.name, "consumes from Kafka");
            let post = Post { source: Arc::clone(&source), producer, crew: Arc::clone(&crew) };
            let desk = Desk {
                source,
                crew,
                consumer,
                post,
                told,
                parts: HashMap::new(),
                jobs: JoinSet::new(),
                held: 0,
                resting: false,
            };
            desk.run().await;
        }
        // Only a property that the client does not know comes to this.
        Err(error) => {
            tracing::error!(source = source.name, %error, "Kafka cannot be consumed: see `options`")
        }
    }
}

fn client(source: &Source, watch: Watch) -> Result<StreamConsumer<Watch>, KafkaError> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &source.brokers)
        .set("group.id", &source.group)
        .set("auto.offset.reset", "earliest")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", "10000")
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", "500")
        // Only what is stored here is committed.
        .set("enable.auto.offset.store", "false");
    config.extend(source.options.clone());
    let consumer: StreamConsumer<Watch> = config.create_with_context(watch)?;
    let topics: Vec<&str> = source.topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics)?;
    Ok(consumer)
}

fn producer(source: &Source) -> Result<FutureProducer, KafkaError> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &source.brokers)
        // A message that is sent again after a lost answer stands in the log once.
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "2");
    config.extend(source.options.clone());
    config.create()
}

/// A partition.
type Place = (String, i32);

/// Partitions that go or come.
enum Moved {
    Gone(Vec<Place>),
    Come(Vec<Place>),
}

/// Hears of them.
struct Watch(mpsc::UnboundedSender<Moved>);

impl ClientContext for Watch {}

impl ConsumerContext for Watch {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let places = |list: &TopicPartitionList| -> Vec<Place> {
            list.elements().iter().map(|one| (one.topic().to_owned(), one.partition())).collect()
        };
        let moved = match rebalance {
            Rebalance::Revoke(gone) => Moved::Gone(places(gone)),
            Rebalance::Assign(come) => Moved::Come(places(come)),
            Rebalance::Error(_) => return,
        };
        // The desk is gone only at the end of everything.
        let _ = self.0.send(moved);
    }
}

/// What is known of a partition.
#[derive(Default)]
struct Part {
    /// Offsets taken and not done.
    open: BTreeSet<i64>,
    /// One above the highest offset taken.
    next: i64,
    /// What was stored last.
    stored: i64,
    /// Lanes that are busy, and what waits in them.
    lanes: HashMap<Vec<u8>, VecDeque<OwnedMessage>>,
    /// How many wait there.
    waiting: usize,
    running: HashMap<i64, AbortHandle>,
    paused: bool,
}

impl Part {
    /// All below it is done.
    fn committable(&self) -> i64 {
        self.open.first().copied().unwrap_or(self.next)
    }
}

/// How one message ended.
struct Ended {
    place: Place,
    offset: i64,
    lane: Option<Vec<u8>>,
    is_done: bool,
}

struct Desk {
    source: Arc<Source>,
    crew: Arc<Crew>,
    consumer: StreamConsumer<Watch>,
    post: Post,
    told: mpsc::UnboundedReceiver<Moved>,
    parts: HashMap<Place, Part>,
    jobs: JoinSet<Ended>,
    /// Messages taken and not done.
    held: usize,
    /// All partitions are paused: see [`REST_AFTER`].
    resting: bool,
}

impl Desk {
    async fn run(mut self) {
        loop {
            let crew = Arc::clone(&self.crew);
            let full = self.held >= self.source.hold && !self.resting;
            tokio::select! {
                biased;
                Some(moved) = self.told.recv() => self.moved(moved),
                Some(ended) = self.jobs.join_next() => self.ended(ended),
                message = self.consumer.recv(), if !full => match message.map(|message| message.detach()) {
                    Ok(message) => self.take(message),
                    Err(error) => {
                        tracing::warn!(source = self.source.name, %error, "Kafka");
                        tokio::time::sleep(ERROR_PAUSE).await;
                    }
                },
                () = tokio::time::sleep(REST_AFTER), if full => self.rest(),
                () = crew.stopped() => break,
            }
            self.show();
        }
        // What was not begun ends by itself; the consumer is polled on, so that the group does not take it for dead.
        while !self.jobs.is_empty() {
            tokio::select! {
                Some(ended) = self.jobs.join_next() => self.ended(ended),
                _ = self.consumer.recv() => {}
                Some(moved) = self.told.recv() => self.moved(moved),
            }
            self.show();
        }
        if let Err(error) = self.consumer.commit_consumer_state(CommitMode::Sync) {
            tracing::debug!(source = self.source.name, %error, "nothing to commit at the end");
        }
    }

    /// Tells the tally how it stands.
    fn show(&self) {
        let paused = self.parts.values().filter(|part| part.paused).count();
        self.crew.tally.set_partitions(self.parts.len(), paused);
        self.crew.tally.set_held(self.held);
    }

    fn moved(&mut self, moved: Moved) {
        match moved {
            Moved::Gone(gone) => self.gone(gone),
            Moved::Come(come) => {
                // A message of an earlier stay may have come after it ended: what is known of that is not this stay's,
                // and the client remembers that it was paused.
                self.gone(come.clone());
                for place in &come {
                    if let Err(error) = self.consumer.resume(&list(place)) {
                        tracing::debug!(source = self.source.name, %error, "not resumed");
                    }
                }
            }
        }
    }

    /// Partitions that are another's now.
    fn gone(&mut self, gone: Vec<Place>) {
        for place in gone {
            let Some(part) = self.parts.remove(&place) else { continue };
            self.held -= part.open.len();
            tracing::info!(
                source = self.source.name,
                topic = place.0,
                partition = place.1,
                open = part.open.len(),
                "partition given up"
            );
            for job in part.running.into_values() {
                job.abort();
            }
        }
        // It may have held all that was held: then nothing of the others ends, which are paused.
        self.wake();
    }

    fn take(&mut self, message: OwnedMessage) {
        let place = (message.topic().to_owned(), message.partition());
        let (offset, source) = (message.offset(), &self.source);
        let part = self.parts.entry(place.clone()).or_insert_with(|| Part {
            next: offset,
            stored: offset,
            ..Part::default()
        });
        if offset < part.next {
            // The client went back (a reset, a partition that came again): what is open runs, what is done stays done.
            return;
        }
        self.crew.tally.took(false);
        part.open.insert(offset);
        part.next = offset + 1;
        self.held += 1;
        let lane = match source.order {
            Order::None => None,
            Order::Partition => Some(Vec::new()),
            Order::Key => message.key().map(<[u8]>::to_vec),
        };
        match lane.as_ref().and_then(|lane| part.lanes.get_mut(lane)) {
            Some(lane) => {
                lane.push_back(message);
                part.waiting += 1;
            }
            None => {
                if let Some(lane) = &lane {
                    part.lanes.insert(lane.clone(), VecDeque::new());
                }
                self.start(&place, message, lane);
            }
        }
        self.brake(&place);
    }

    fn start(&mut self, place: &Place, message: OwnedMessage, lane: Option<Vec<u8>>) {
        let (post, offset, of) = (self.post.clone(), message.offset(), place.clone());
        let job = self.jobs.spawn(async move {
            let is_done = post.work(&message).await;
            Ended { place: of, offset, lane, is_done }
        });
        if let Some(part) = self.parts.get_mut(place) {
            part.running.insert(offset, job);
        }
    }

    fn ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        let Ok(Ended { place, offset, lane, is_done }) = ended else { return };
        let Some(part) = self.parts.get_mut(&place) else { return };
        // Not one of an earlier stay of the partition here.
        if part.running.remove(&offset).is_none() || !is_done {
            return;
        }
        part.open.remove(&offset);
        self.held -= 1;
        let committable = part.committable();
        if committable > part.stored {
            part.stored = committable;
            let mut list = TopicPartitionList::new();
            let added = list.add_partition_offset(&place.0, place.1, Offset::Offset(committable));
            if let Err(error) = added.and_then(|()| self.consumer.store_offsets(&list)) {
                tracing::debug!(source = self.source.name, %error, "an offset was not stored; its messages come again");
            }
        }
        let next = lane.as_ref().and_then(|lane| part.lanes.get_mut(lane)).and_then(VecDeque::pop_front);
        part.waiting -= usize::from(next.is_some());
        match (next, lane) {
            (Some(message), lane) => self.start(&place, message, lane),
            (None, Some(lane)) => {
                part.lanes.remove(&lane);
            }
            (None, None) => {}
        }
        self.release(&place);
    }

    /// Messages that may wait in the lanes of one partition.
    fn share(&self) -> usize {
        (self.source.hold / self.parts.len().max(1)).max(1)
    }

    /// Pauses a partition whose lanes are full, or any while all rest.
    fn brake(&mut self, place: &Place) {
        let (share, resting) = (self.share(), self.resting);
        let Some(part) = self.parts.get_mut(place) else { return };
        let lags = part.next - part.committable() > SPREAD_MAX;
        if part.paused || !(part.waiting >= share || lags || resting) {
            return;
        }
        match self.consumer.pause(&list(place)) {
            Ok(()) => part.paused = true,
            Err(error) => tracing::debug!(source = self.source.name, %error, "not paused"),
        }
    }

    /// Ends the rest once half of what may be held is gone.
    fn wake(&mut self) {
        if !self.resting || self.held > self.source.hold / 2 {
            return;
        }
        self.resting = false;
        // Those that have given no message yet are paused too.
        let outcome = self.consumer.assignment().and_then(|all| self.consumer.resume(&all));
        if let Err(error) = outcome {
            tracing::debug!(source = self.source.name, %error, "not resumed");
        }
        let all: Vec<Place> = self.parts.keys().cloned().collect();
        for place in all {
            self.parts.entry(place.clone()).and_modify(|part| part.paused = false);
            self.brake(&place);
        }
    }

    /// Resumes the partition where a message ended, if its lanes are half empty; after a rest all.
    fn release(&mut self, place: &Place) {
        if self.resting {
            return self.wake();
        }
        let share = self.share();
        let Some(part) = self.parts.get_mut(place) else { return };
        let lags = part.next - part.committable() > SPREAD_MAX / 2;
        if !part.paused || part.waiting > share / 2 || lags {
            return;
        }
        match self.consumer.resume(&list(place)) {
            Ok(()) => part.paused = false,
            Err(error) => tracing::debug!(source = self.source.name, %error, "not resumed"),
        }
    }

    /// Pauses all, so that the client can be asked without giving anything.
    fn rest(&mut self) {
        match self.consumer.assignment().and_then(|all| self.consumer.pause(&all)) {
            Ok(()) => {
                self.resting = true;
                self.parts.values_mut().for_each(|part| part.paused = true);
            }
            Err(error) => tracing::debug!(source = self.source.name, %error, "not paused"),
        }
    }
}

fn list(place: &Place) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition(&place.0, place.1);
    list
}

/// Works at messages and sends what comes of them.
#[derive(Clone)]
struct Post {
    source: Arc<Source>,
    producer: FutureProducer,
    crew: Arc<Crew>,
}

impl Post {
    /// True if the message is done with: answered, or a dead letter. False if it was not begun.
    async fn work(&self, message: &OwnedMessage) -> bool {
        let tally = &self.crew.tally;
        let parts = message_of(message);
        let forward = &self.crew.forward;
        let api = self.source.mapping.api(&parts, |name| forward.weight(name).is_some());
        let mut tries = 0;
        loop {
            let verdict = match self.source.mapping.work(&parts, api.clone()) {
                Ok(work) => self.crew.attempt(work, 0).await,
                Err(why) => Verdict::Dead(why),
            };
            tries += 1;
            match verdict {
                Verdict::NotBegun => return false,
                Verdict::Done(outcome) => {
                    if let Some(topic) = &self.source.answers
                        && !self.answer(topic, message, &outcome).await
                    {
                        return false;
                    }
                    tally.ended(&api, End::Done);
                    return true;
                }
                Verdict::Again(why) if tries < self.source.tries => {
                    tally.ended(&api, End::Again);
                    tracing::info!(
                        source = self.source.name,
                        id = parts.id,
                        tries,
                        why,
                        "a message is tried again"
                    );
                    tokio::select! {
                        () = tokio::time::sleep(pause(self.source.backoff, tries)) => {}
                        () = self.crew.stopped() => return false,
                    }
                }
                Verdict::Again(why) | Verdict::Dead(why) => {
                    if !self.bury(message, &why, tries).await {
                        return false;
                    }
                    tally.ended(&api, End::Dead);
                    tracing::warn!(
                        source = self.source.name,
                        id = parts.id,
                        tries,
                        why,
                        "a message is a dead letter"
                    );
                    return true;
                }
            }
        }
    }

    async fn bury(&self, message: &OwnedMessage, why: &str, tries: u32) -> bool {
        let mut headers = message.headers().cloned().unwrap_or_else(OwnedHeaders::new);
        let tries = tries.to_string();
        for (key, value) in
            [("x-sluicegate-error", why), ("x-sluicegate-tries", &tries), ("x-sluicegate-from", &id(message))]
        {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        self.send(&self.source.dead, message.key(), message.payload().unwrap_or_default(), headers).await
    }

    async fn answer(&self, topic: &str, message: &OwnedMessage, outcome: &Outcome) -> bool {
        let status = outcome.status.as_u16().to_string();
        let mut headers = OwnedHeaders::new()
            .insert(Header { key: "x-status", value: Some(&status) })
            .insert(Header { key: "x-sluicegate-from", value: Some(&id(message)) });
        if let Some(kind) = outcome.headers.get("content-type") {
            headers = headers.insert(Header { key: "content-type", value: Some(kind.as_bytes()) });
        }
        self.send(topic, message.key(), &outcome.body, headers).await
    }

    /// Until the broker has it in its log. False if the process stops before.
    async fn send(&self, topic: &str, key: Option<&[u8]>, body: &[u8], headers: OwnedHeaders) -> bool {
        loop {
            let mut record = FutureRecord::<[u8], [u8]>::to(topic).payload(body).headers(headers.clone());
            if let Some(key) = key {
                record = record.key(key);
            }
            match self.producer.send(record, Timeout::Never).await {
                Ok(_) => return true,
                Err((error, _)) => tracing::warn!(source = self.source.name, topic, %error, "not sent yet"),
            }
            tokio::select! {
                () = tokio::time::sleep(SEND_AGAIN) => {}
                () = self.crew.stopped() => return false,
            }
        }
    }
}

fn id(message: &OwnedMessage) -> String {
    format!("{}-{}-{}", message.topic(), message.partition(), message.offset())
}

fn message_of(message: &OwnedMessage) -> Message {
    let mut headers = Vec::new();
    let mut content_type = None;
    for header in message.headers().iter().flat_map(|headers| headers.iter()) {
        let value = header.value.unwrap_or_default();
        if header.key.eq_ignore_ascii_case("content-type") {
            content_type = Some(String::from_utf8_lossy(value).into_owned());
        } else {
            headers.push((header.key.to_owned(), value.to_vec()));
        }
    }
    Message {
        route: message.topic().to_owned(),
        key: message.key().map(<[u8]>::to_vec),
        id: id(message),
        headers,
        content_type,
        body: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests;
