//! The server and a gRPC client that speaks as Envoy does; the real Envoy is in the tests of `sluicegate-cli`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ends;
mod streams;
mod world;
