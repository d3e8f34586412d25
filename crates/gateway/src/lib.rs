//! The reverse proxy of Sluicegate and its admin listener.
//!
//! A request takes these steps:
//! 1. `server.rs` accepts the connection on one of the worker threads, `connection.rs` serves it. A worker is one
//!    `current_thread` runtime with its own listener and its own connections to the pods: nothing
//!    that a request touches is shared between cores, except the gate.
//! 2. `proxy.rs` finds the api and asks the gate, before a byte of the body is read. While the
//!    request waits, a client that leaves is noticed (`stream.rs`).
//! 3. The gate names a pod. `upstream.rs` takes an idle connection to it or opens one, still before
//!    the request is handed over, so that a refused connection costs the request nothing.
//! 4. `hold.rs` owns the lease and the pod's connection from there: a drop guard that moves from
//!    the pending answer to the answer's body (`answer.rs`) or to the tunnel's copy task
//!    (`tunnel.rs`), and knows what to do when the client leaves first.
//!
//! **Invariant:** a lease ends when the pod ends, exactly once. Whoever holds a `Hold` may be
//! dropped at any await point, by a client that leaves, a panic or a drain.
//!
//! **Absent:** any decision about units; that is the gate's.

mod admin;
mod answer;
mod connection;
mod forward;
mod headers;
mod hold;
mod live;
mod overflow;
mod problem;
mod proxy;
mod server;
mod stream;
mod tunnel;
mod upload;
mod upstream;

pub use admin::metrics::{Family, Labels};
pub use admin::pods::pod_call;
pub use admin::{Admin, Control, ControlError, PatchAnswer, Registration};
pub use forward::Forwarder;
pub use live::Live;
pub use overflow::OverflowDoor;
pub use server::{DrainReport, Gateway};
