//! The shared ledger in Redis 7: the only crate that knows Redis exists.
//!
//! [`RedisLedger`] implements the library's [`Ledger`](sluicegate::link::Ledger): it finds the server (one server,
//! Sentinel, Cluster), speaks to it over one connection at a time, and maps reports and replies to what the
//! scripts in `scripts/` read and write. It decides nothing: the scripts are the ledger, the gate's
//! `Member` is the other half.
//!
//! - **A connection is one life.** Nothing here reconnects by itself; after any error the connection is gone until
//!   the owner connects again and is told the server's identity anew.
//! - **Each call has a deadline**, also one that is answered byte by byte.
//! - **Names travel, numbers stay.** Core's ids are one gate's own; on the wire an api is `a:NAME`, a pod
//!   `p:NAME`, the trickle `t`.
//!
//! [`RedisJobs`] keeps the jobs of the overflow.
//!
//! [`online::check`] looks whether a server is fit to hold a ledger.

mod codec;
mod ear;
mod fault;
mod greet;
mod jobs;
mod keys;
pub mod online;
mod scripts;
mod settings;
mod store;
mod tls;
mod topology;
#[cfg(test)]
mod twin;
mod wire;

pub use jobs::RedisJobs;
pub use keys::Keys;
pub use scripts::{ACCESS, JOBS_ACCESS};
pub use settings::{Address, Kind, Settings, Tls};
pub use store::RedisLedger;
