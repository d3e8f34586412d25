//! Messages put into a topic.

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;

use crate::message::Message;

/// Puts messages into a topic and waits until the broker has them all.
///
/// # Errors
/// The broker did not take one.
pub async fn fill(brokers: &str, topic: &str, messages: &[Message]) -> Result<(), KafkaError> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("message.timeout.ms", "30000").set("linger.ms", "5");
    let producer: FutureProducer = config.create()?;
    let sent = messages.iter().map(|message| {
        let headers = message.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_slice()) })
        });
        let record = FutureRecord::<[u8], [u8]>::to(topic).payload(&message.body).headers(headers);
        producer.send(record.key(message.id.as_bytes()), Timeout::Never)
    });
    for one in futures_util::future::join_all(sent).await {
        one.map_err(|(error, _)| error)?;
    }
    Ok(())
}
