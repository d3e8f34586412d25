//! Kafka.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use sluicegate_testkit::kafka::Kafka;

use crate::rig::{Rig, api, demo, long, messages, metrics_tell, weight};

const PARTITIONS: u32 = 4;
/// Messages with the same remainder have one key.
const KEYS: u32 = 200;

fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

async fn produce(producer: &FutureProducer, number: u32, trial: &str) {
    let (weight, key, body) = (weight(number), (number % KEYS).to_string(), number.to_string());
    let (text, id) = (weight.to_string(), number.to_string());
    let mut headers = OwnedHeaders::new();
    for (key, value) in [("x-api", api(weight)), ("x-weight", &text), ("x-id", &id), ("x-trial", trial)] {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    let record = FutureRecord::to("work").key(&key).payload(&body).headers(headers);
    producer.send(record, Timeout::Never).await.map_err(|(error, _)| error).unwrap();
}

/// Reads a topic from its beginning.
fn reader(brokers: &str, topic: &str) -> StreamConsumer {
    let mut config = client(brokers);
    config.set("group.id", format!("judge-{topic}")).set("auto.offset.reset", "earliest");
    config.set("session.timeout.ms", "6000").set("allow.auto.create.topics", "true");
    let consumer: StreamConsumer = config.create().unwrap();
    consumer.subscribe(&[topic]).unwrap();
    consumer
}

async fn next(consumer: &StreamConsumer, what: &str) -> OwnedMessage {
    let begin = Instant::now();
    loop {
        assert!(begin.elapsed() < long(), "no {what}");
        // Errors are those of a broker that is away for a moment.
        if let Ok(Ok(message)) = tokio::time::timeout(Duration::from_secs(5), consumer.recv()).await {
            return message.detach();
        }
    }
}

fn header(message: &OwnedMessage, name: &str) -> String {
    let found = message.headers().iter().flat_map(|all| all.iter()).find(|header| header.key == name);
    String::from_utf8(found.and_then(|header| header.value).unwrap_or_default().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_is_done_though_gates_and_the_broker_die_and_keys_keep_their_order() {
    let mut broker = Kafka::start(PARTITIONS);
    let (brokers, count) = (broker.addr().to_string(), messages());
    let rig = Rig::new(include_str!("../../../../examples/kafka.yaml"), ("KAFKA", brokers.clone())).await;
    let producer: FutureProducer =
        client(&brokers).set("linger.ms", "20").set("enable.idempotence", "true").create().unwrap();
    let mut sent = tokio::task::JoinSet::new();
    // One after another into the client, which sends none again out of turn: the log's order is that of the numbers.
    for number in 0..count {
        let producer = producer.clone();
        let mut sending = Box::pin(async move { produce(&producer, number, "ms=3&echo=1").await });
        if (&mut sending).now_or_never().is_none() {
            sent.spawn(sending);
        }
    }
    while let Some(one) = sent.join_next().await {
        one.unwrap();
    }
    let mut gates = vec![rig.gate(), rig.gate()];
    for (share, index) in [(8, 0), (4, 1)] {
        rig.until_started((count / share) as usize, &gates).await;
        gates[index].kill();
        gates[index] = rig.gate();
    }
    rig.until_started((count / 2) as usize, &gates).await;
    tokio::task::block_in_place(|| broker.restart());
    rig.until_started((count / 4 * 3) as usize, &gates).await;
    gates[0].kill();
    gates[0] = rig.gate();
    rig.until_started(count as usize, &gates).await;
    let answers = reader(&brokers, "work.answers");
    let (mut seen, mut all) = (HashSet::new(), 0);
    while (seen.len() as u32) < count {
        let answer = next(&answers, "answer").await;
        assert_eq!(header(&answer, "x-status"), "200");
        seen.insert(String::from_utf8(answer.payload().unwrap().to_vec()).unwrap());
        all += 1;
    }
    rig.judge("Kafka", count, 3);
    println!("Kafka: {all} answers of {count} messages");
    let mut last: HashMap<u32, u32> = HashMap::new();
    for number in &rig.seen.lock().unwrap().order {
        let before = last.insert(number % KEYS, *number);
        assert!(before.is_none_or(|before| before < *number), "{number} of a key came after {before:?}");
    }
    let dead = reader(&brokers, "work.dead");
    for (number, trial, tries) in [(1_000_000, "status=503", "3"), (1_000_001, "status=404", "1")] {
        produce(&producer, number, trial).await;
        let letter = next(&dead, "dead letter").await;
        assert_eq!(letter.payload(), Some(number.to_string().as_bytes()));
        assert_eq!(header(&letter, "x-sluicegate-tries"), tries, "{trial}");
        assert!(header(&letter, "x-sluicegate-error").contains(&trial[7..]));
        assert!(header(&letter, "x-sluicegate-from").starts_with("work-"));
    }
    let scrape = metrics_tell(&mut gates, "kafka").await;
    let partitions = scrape.sum("sluicegate_message_partitions", &["source=\"work\""]);
    assert!((1..=u64::from(PARTITIONS)).contains(&partitions), "{partitions} of {PARTITIONS} partitions");
    tokio::task::block_in_place(|| demo(&format!("kafka://{brokers}")));
}
