//! What the service is told when it starts.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sluicegate_config::DecisionSettings;

use crate::http::elsewhere::Peers;
use crate::http::pods::Registry;
use crate::names::GateName;

/// Where a door listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An address and a port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket. A stale one is replaced; the file is its owner's and its group's (mode 660).
    Unix(PathBuf),
}

/// Mutual TLS. All three are PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The service's certificate, with those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of callers. A caller without a certificate of theirs is not heard.
    pub client_authorities: PathBuf,
}

/// Bounds that a caller cannot cross.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body: usize,
    /// Time for a request's head to arrive, and for its body. An idle connection is closed after it too.
    pub read: Duration,
    /// Connections at once, per door. More wait in the kernel.
    pub connections: usize,
}

/// What the service is told when it starts.
#[derive(Clone)]
pub struct Settings {
    /// Where leases are asked for over HTTP.
    pub http: Option<Listen>,
    /// Where Envoy asks (`ext_proc`, gRPC).
    pub ext_proc: Option<Listen>,
    /// What callers must show: `Authorization: Bearer`, over gRPC as metadata. Needed on any address but loopback,
    /// unless there is [`Settings::tls`].
    pub token: Option<String>,
    /// Mutual TLS on both doors; not on Unix sockets, which have their file's rights.
    pub tls: Option<TlsSettings>,
    /// This gate's name: the first part of the ids that it gives out. Must differ between the gates of a pool.
    pub gate: GateName,
    /// Where the other gates of the pool are.
    pub peers: Arc<dyn Peers>,
    /// Takes pods that register themselves. `None`: there is no such route.
    pub registry: Option<Arc<dyn Registry>>,
    /// Threads. At least 1.
    pub workers: usize,
    /// Bounds for callers.
    pub limits: Limits,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { body: 64 << 10, read: Duration::from_secs(30), connections: 10_000 }
    }
}

impl Settings {
    /// Settings without a door, without a token, with a drawn name, alone in its pool, one thread per core.
    #[must_use]
    pub fn new() -> Settings {
        Settings {
            http: None,
            ext_proc: None,
            token: None,
            tls: None,
            gate: GateName::draw(),
            peers: Arc::new(()),
            registry: None,
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

impl From<&DecisionSettings> for Settings {
    /// What the configuration says; the rest as in [`Settings::new`].
    fn from(settings: &DecisionSettings) -> Settings {
        Settings {
            http: settings.http.map(Listen::Tcp),
            ext_proc: settings.ext_proc.map(Listen::Tcp),
            token: settings.token.clone(),
            ..Settings::new()
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Debug for Settings {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("http", &self.http)
            .field("ext_proc", &self.ext_proc)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("tls", &self.tls)
            .field("gate", &self.gate)
            .field("workers", &self.workers)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
