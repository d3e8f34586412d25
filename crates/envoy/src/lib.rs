//! Admission for Envoy: an `ext_proc` server.
//!
//! Envoy opens one gRPC stream for each request and keeps it until the request has ended; the lease lives as long as
//! that stream. The pod is named by the header [`POD_HEADER`], which Envoy's `override_host` policy obeys. What Envoy must be
//! told is in `docs/envoy.md`, with a configuration that runs in the tests.
//!
//! **Invariant:** however a stream ends (half-close, cancel, a lost connection, a panic), its lease ends once: it is owned by the
//! stream's state and goes with it.
//!
//! **Absent:** any decision about units; that is the gate's.

mod conduct;
mod counts;
mod grpc;
mod linger;
mod live;
mod loud;
mod message;
mod server;
mod session;
mod strays;
mod wire;
mod world;

pub use live::Live;
pub use message::POD_HEADER;
pub use server::{Drained, ExtProc};
pub use world::{Count, Settings};
