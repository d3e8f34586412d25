//! Consumers of brokers that take messages by what they cost, not by their number.
//!
//! A message has an api and so a weight. It takes a lease in the same pool as the requests of clients, ranks behind
//! them, and is sent to the chosen pod as an HTTP request; only after the pod's answer is the broker told that it is
//! done. [`message`] makes requests of messages, [`crew`] asks and sends, and each broker has a module that knows how to hold, repeat
//! and acknowledge there.
//!
//! **Laws:** a message is acknowledged after its answer, or after the broker confirmed that it stands elsewhere (a later
//! try, a dead letter). So each is done at *least* once; what is running when a process or its connection dies runs again.

pub mod crew;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod message;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
pub mod tally;
