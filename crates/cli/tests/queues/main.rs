//! Messages through real brokers, with gates and workers killed and the broker restarted: every message is done, none
//! is lost, and no pod is handed more than its capacity.
//!
//! 10,000 messages per broker; 100,000 with `SLUICEGATE_FULL=1`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and what came twice is told"
)]

mod kafka;
mod rabbitmq;
mod rig;
