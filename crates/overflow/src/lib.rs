//! Requests that found no room: kept durably, answered later, worked off in the background of the same gate.
//!
//! [`Overflow`] is the [`Desk`](sluicegate::jobs::Desk) that doors hand jobs to: one thread with the store, which works
//! off all that came up meanwhile in one batch. [`FileStore`] keeps them on this machine; another store is in the
//! crate that knows Redis. [`work_off`] takes jobs in the order in which they came, asks the gate for their units and
//! has them sent.
//!
//! **Laws:** a job whose `put` was answered is not lost by a crash of this process. It is worked at *at least* once:
//! twice when a process dies between a pod's answer and its writing. Only the first answer is kept.

mod desk;
mod file;
mod runner;

pub use desk::{Open, Overflow, now_ms};
pub use file::FileStore;
pub use runner::{Runner, work_off};
