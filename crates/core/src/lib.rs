//! The core of Sluicegate: it decides, and knows no clock, socket, thread, random source or file.
//!
//! Time is an argument in microseconds, randomness is seeded, containers are ordered: the same calls give
//! the same answers on any machine. The same code is the embedded ledger of the library, the inside of
//! the simulator, and the oracle for other ledgers.
//!
//! - [`policy`]: the rules of one pool, checked.
//! - [`gate`]: the gate's half. Start at [`gate::Gate`]; its example is the whole loop.
//! - [`ledger`]: the ledger's half: pods, limits, the order of all waiters.
//! - [`exchange`]: what the two halves say to each other.
//! - [`shared`]: what many gates and one ledger say to each other; [`member`] and [`keeper`] are the two sides.
//! - [`refusal`], [`stats`], [`snapshot`]: what comes out.

mod adopt;
mod book;
mod estimate;
pub mod exchange;
pub mod gate;
pub mod ids;
pub mod keeper;
pub mod ledger;
mod line;
pub mod member;
mod pods;
pub mod policy;
mod rank;
pub mod refusal;
mod relocate;
mod requeue;
pub mod shared;
mod slab;
pub mod snapshot;
pub mod stats;
pub mod time;
