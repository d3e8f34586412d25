//! What the service is told when it starts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sluicegate_config::DecisionTls;

use crate::http::pods::PodsDoor;
use crate::names::GateName;
use crate::peers::Peers;

/// Bounds that a caller cannot cross.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body: usize,
    /// Time for a request's head to arrive, and for its body. An idle connection is closed after it too.
    pub read: Duration,
    /// Connections at once. More wait in the kernel.
    pub connections: usize,
}

/// What the service is told when it starts, beside its listener.
#[derive(Clone)]
pub struct Settings {
    /// What callers must show: `Authorization: Bearer`. Needed on any address but loopback, unless there is
    /// [`Settings::tls`].
    pub token: Option<String>,
    /// Mutual TLS; not on a Unix socket, which has its file's rights.
    pub tls: Option<DecisionTls>,
    /// This gate's name: the first part of the ids that it gives out. Must differ between the gates of a pool, and
    /// between two lives of one.
    pub gate: GateName,
    /// Takes pods that register themselves. `None`: there is no such route.
    pub pods: Option<Arc<PodsDoor>>,
    /// The other gates of the pool. `None`: this gate is alone.
    pub peers: Option<Arc<dyn Peers>>,
    /// Threads. At least 1.
    pub workers: usize,
    /// Bounds for callers.
    pub limits: Limits,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { body: 256 << 10, read: Duration::from_secs(30), connections: 10_000 }
    }
}

impl Settings {
    /// Settings without a token, with a drawn name, one thread per core.
    #[must_use]
    pub fn new() -> Settings {
        Settings {
            token: None,
            tls: None,
            gate: GateName::draw(),
            pods: None,
            peers: None,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            limits: Limits::default(),
        }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings::new()
    }
}

impl fmt::Debug for Settings {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("tls", &self.tls)
            .field("gate", &self.gate)
            .field("workers", &self.workers)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
