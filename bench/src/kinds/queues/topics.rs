//! Topics full of messages, and a gateway that consumes them.

use bytes::Bytes;
use sluicegate_workers::kafka;
use sluicegate_workers::message::Message;

use crate::{Outcome, world};

/// Mean work of a message or a job, milliseconds; exponentially distributed.
pub(super) const MEAN_MS: f64 = 100.0;
/// Messages handed to the client at once.
const AT_ONCE: u64 = 20_000;

/// Puts so many messages into a topic, of these weights in turn.
///
/// # Errors
/// The broker did not take one.
pub(super) fn fill(brokers: &str, topic: &str, count: u64, weights: &[u32]) -> Outcome<()> {
    let mut random = fastrand::Rng::with_seed(count);
    let mut message = |number: u64| {
        let weight = weights[(number % weights.len() as u64) as usize];
        let work = format!("ms={:.2}", work_ms(&mut random));
        let headers = [("x-api", format!("w{weight}")), ("x-weight", weight.to_string()), ("x-trial", work)];
        Message {
            id: number.to_string(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.into_bytes())).to_vec(),
            body: Bytes::from_static(b"{}"),
            ..Message::default()
        }
    };
    world::block_on(async {
        let mut from = 0;
        while from < count {
            let until = count.min(from + AT_ONCE);
            let messages: Vec<Message> = (from..until).map(&mut message).collect();
            kafka::fill(brokers, topic, &messages).await.map_err(|error| format!("fill {topic}: {error}"))?;
            from = until;
        }
        Ok(())
    })
}

/// The work of one of them.
pub(super) fn work_ms(random: &mut fastrand::Rng) -> f64 {
    // 1 - u is in (0, 1]: the logarithm is finite.
    -(1.0 - random.f64()).ln() * MEAN_MS
}

/// The part of a configuration that consumes a topic, from its beginning where the group is new.
pub(super) fn worker(brokers: &str, topic: &str, group: &str) -> String {
    format!(
        "workers:\n  sources:\n    - name: work\n      kafka: \"{brokers}\"\n      group: \"{group}\"\n      \
         topics: [\"{topic}\"]\n      order: none\n      api: {{header: x-api, otherwise: w1}}\n      \
         request: {{path: \"/w/{{header:x-weight}}\"}}\n"
    )
}
