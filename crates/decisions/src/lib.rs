//! The decision service of Sluicegate: it says whether and where a request may run, and leaves the traffic to others.
//!
//! A caller asks for a lease (`POST /v1/leases`), runs its request on the pod named, and gives the lease back: plugins of
//! nginx, Kong and APISIX do, and any language can. The page `docs/decisions.md` is for them.
//!
//! - `book.rs` owns every lease that was given out by its id: waiting, held, ended.
//! - `http/` reads calls and writes answers; `names.rs` is the form of an id.
//! - `server.rs` accepts (`socket.rs`, `tls.rs`) and drains.
//! - `peers.rs` calls the other gates of a pool, and `http/elsewhere.rs` says when.
//! - `directory.rs` is what calls read of the configuration.
//!
//! **Invariant:** a lease ends once, in one place: it is dropped or written off when its entry leaves the book.
//!
//! **Absent:** any decision about units; that is the gate's.

mod book;
mod counters;
mod directory;
mod http;
mod names;
mod peers;
mod probes;
mod server;
mod settings;
mod socket;
mod tls;

pub use counters::Counts;
pub use directory::Directory;
pub use http::pods::{PodCall, PodsDoor};
pub use names::GateName;
pub use peers::{Peer, Peers};
pub use server::{Decisions, DrainReport};
pub use settings::{Limits, Settings};
pub use socket::Bound;

/// The OpenAPI 3.1 document of the service, as text. What a running service serves differs in one thing: it lists the
/// names of the apis and pods in force.
#[must_use]
pub fn openapi() -> String {
    let mut text = serde_json::to_string_pretty(&http::openapi::document()).expect("a tree of JSON is JSON");
    text.push('\n');
    text
}
