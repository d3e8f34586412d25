//! The library from outside: leases, cancellation, threads, the tower layer, the examples.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod examples;
mod gate;
mod layer;
mod shared;
