//! The decision service over real sockets, in the test's own process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;
mod ends;
mod leases;
mod line;
mod peers;
mod random;
mod waiting;
mod world;
