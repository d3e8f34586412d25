//! Messages of real brokers, worked off behind the load that the demo shows.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sluicegate_workers::message::Message;
use sluicegate_workers::{kafka, rabbitmq};

use super::super::Failure;
use super::{MEAN_MS, WEIGHTS};
use crate::background::Backstage;

/// Messages for each broker.
const MESSAGES: u32 = 2000;
/// Queue and topic; new for each run, so that nothing of another is in it.
const NAME: &str = "sluicegate-demo";
/// How long the rest may take when the load is over.
const REST_MAX: Duration = Duration::from_secs(60);

/// The brokers of a demo, and the name of its queue and topic.
pub(super) struct Brokers {
    all: Vec<Broker>,
    name: String,
}

enum Broker {
    Rabbitmq(String),
    Kafka(String),
}

impl Brokers {
    /// # Errors
    /// A URL of something else.
    pub(super) fn of(urls: &[String]) -> Result<Brokers, Failure> {
        let broker = |url: &String| match url.strip_prefix("kafka://") {
            Some(address) => Ok(Broker::Kafka(address.to_owned())),
            None if url.starts_with("amqp://") => Ok(Broker::Rabbitmq(url.clone())),
            None => Err(Failure("--brokers: write `amqp://…` or `kafka://HOST:9092`".to_owned())),
        };
        let all = urls.iter().map(broker).collect::<Result<_, _>>()?;
        Ok(Brokers { all, name: format!("{NAME}-{}", std::process::id()) })
    }

    /// Gives each its messages.
    ///
    /// # Errors
    /// One cannot be reached.
    pub(super) async fn fill(&self) -> Result<(), Failure> {
        let messages: Vec<Message> = (0..MESSAGES).map(message).collect();
        for broker in &self.all {
            match broker {
                Broker::Rabbitmq(url) => rabbitmq::fill(url, &self.name, &messages)
                    .await
                    .map_err(|error| Failure::of("RabbitMQ", &error))?,
                Broker::Kafka(address) => kafka::fill(address, &self.name, &messages)
                    .await
                    .map_err(|error| Failure::of("Kafka", &error))?,
            }
        }
        Ok(())
    }

    /// The section for them.
    pub(super) fn rules(&self) -> String {
        if self.all.is_empty() {
            return String::new();
        }
        let name = &self.name;
        let source = |(number, broker): (usize, &Broker)| {
            let from = match broker {
                Broker::Rabbitmq(url) => format!("rabbitmq: \"{url}\", queues: [{name}]"),
                Broker::Kafka(address) => {
                    format!("kafka: \"{address}\", topics: [{name}], group: {name}, order: none")
                }
            };
            format!(
                "    - {{name: broker-{number}, {from}, api: {{header: x-api, otherwise: default}}, request: {{path: \"/w/{{header:x-weight}}?ms={MEAN_MS}\"}}}}\n"
            )
        };
        let sources: String = self.all.iter().enumerate().map(source).collect();
        format!("workers:\n  sources:\n{sources}")
    }

    /// Waits for what is left, and says what came of all.
    #[allow(clippy::print_stdout)] // the answer
    pub(super) async fn conclude(&self, backstage: Backstage) {
        let all = u64::from(MESSAGES) * self.all.len() as u64;
        let beside = backstage.done();
        let begin = Instant::now();
        while backstage.done() < all && begin.elapsed() < REST_MAX {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!(
            "\nMessages: {beside} of {all} done beside the load, in units that it left; {} done {:.1} s after it",
            backstage.done(),
            begin.elapsed().as_secs_f64()
        );
        backstage.stop(Duration::from_secs(10)).await;
    }
}

fn message(number: u32) -> Message {
    let weight = WEIGHTS[number as usize % WEIGHTS.len()];
    let header = |name: &str, value: String| (name.to_owned(), value.into_bytes());
    Message {
        id: number.to_string(),
        headers: vec![header("x-api", format!("weight-{weight}")), header("x-weight", weight.to_string())],
        body: Bytes::from(number.to_string()),
        ..Message::default()
    }
}
