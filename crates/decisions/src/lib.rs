//! The decision service of Sluicegate: it says whether and where a request may run, and leaves the traffic to others.
//!
//! Two doors, one gate:
//! - **HTTP leases** (`http/`): for plugins of nginx, Kong and APISIX and for any language. A caller asks for a lease,
//!   runs its request on the pod named, and gives the lease back.
//! - **Envoy's `ext_proc`** (`ext_proc/`): one gRPC stream per request; the lease lives as long as the stream.
//!
//! `book.rs` owns every lease that was given out by its id: waiting, held, overdue. `server.rs` accepts
//! (`socket.rs`, `tls.rs`) and drains. `directory.rs` is what requests read of the configuration.
//!
//! **Invariant:** a lease ends once, in one place: it is dropped or written off when its entry leaves the book, or
//! when its stream ends.
//!
//! **Absent:** any decision about units; that is the gate's.

mod book;
mod counters;
mod directory;
mod ext_proc;
mod http;
mod names;
mod server;
mod settings;
mod socket;
mod tls;

pub use counters::Counts;
pub use directory::Directory;
pub use http::elsewhere::{Peers, PeersFn};
pub use http::pods::{PodRegistration, Registry, RegistryError, RegistryProblem};
pub use names::GateName;
pub use server::{Decisions, DrainReport};
pub use settings::{Limits, Listen, Settings, TlsSettings};
