//! What the tests of this workspace share, so that each test owns its world: child processes that die with their
//! test, clients that misbehave, a Redis of one's own, and waiting for a state instead of for a time.
//!
//! Everything listens on loopback at port 0 or on a Unix socket in a temporary folder; two tests never meet. A server that
//! has to keep its port over a restart is given one that was free, and another if somebody was quicker.

pub mod buckets;
pub mod client;
pub mod jobs;
pub mod kafka;
pub mod parts;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod rabbitmq;
pub mod redis;
pub mod wait;
