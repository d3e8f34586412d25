//! The checked configuration.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sluicegate_core::policy::{PodPolicy, Policy};

use crate::redis::RedisSettings;
use crate::routes::Routes;
use crate::tree::Node;
use crate::values::{DoorAddress, PodScheme, PodUrl};
use crate::wire::{EarlyEnd, OnDisconnect, Overflow, Upgrade};
use crate::work::{OverflowSettings, WorkerSettings};

/// A configuration that can be obeyed.
///
/// **Invariant**: `policy.check()` succeeds; `apis` has the indices of `policy.apis`, `pods` those of
/// `policy.pods`; `routes` only names apis that exist.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the pool.
    pub pool: String,
    /// Pods, apis and limits for the core. Its apis are those of the file, in order; api `default`
    /// follows as the last unless the file declares it.
    pub policy: Policy,
    /// Which request belongs to which api.
    pub routes: Routes,
    /// What doors need to know of each api.
    pub apis: Vec<ApiSettings>,
    /// What doors need to know of each pod; empty while the pods of `source` are not known.
    pub pods: Vec<PodSettings>,
    /// Where the pods come from.
    pub source: PodSource,
    /// Where units are counted.
    pub ledger: LedgerSettings,
    /// The reverse proxy, if this process is one.
    pub gateway: Option<GatewaySettings>,
    /// The admin listener, if this process has one.
    pub admin: Option<AdminSettings>,
    /// The decision service, if this process is one.
    pub decisions: Option<DecisionSettings>,
    /// Requests that are kept for later, if an api has it so.
    pub overflow: Option<OverflowSettings>,
    /// Messages of brokers, if this process consumes any.
    pub workers: Option<WorkerSettings>,
    /// With `order: {fair: {header}}`: the request header whose value is the fairness key, in lower
    /// case. `None` with `order: fair`: the api is the key.
    pub fair_header: Option<String>,
    /// The file itself, for patches.
    pub(crate) origin: Arc<Origin>,
}

/// What doors need to know of an api.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiSettings {
    /// Unique name.
    pub name: String,
    /// Longest time until the response headers.
    pub max_hold: Duration,
    /// Longest time of a response after its headers.
    pub max_stream: Option<Duration>,
    /// What becomes of a request that finds no room.
    pub overflow: Overflow,
    /// What a tunnel holds.
    pub upgrade: Upgrade,
}

/// What doors need to know of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSettings {
    /// Unique name.
    pub name: String,
    /// Where it is.
    pub url: PodUrl,
    /// What it does when its client is gone.
    pub on_disconnect: OnDisconnect,
}

/// Where the pods come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodSource {
    /// They are listed in the configuration.
    Listed,
    /// Every address of a host is a pod.
    Dns {
        /// How the pods are spoken to.
        scheme: PodScheme,
        /// The name to look up.
        host: String,
        /// Every pod's port.
        port: u16,
        /// Every pod's capacity, in units.
        capacity: u32,
        /// How often to look.
        every: Duration,
    },
    /// A YAML file with a list of pods.
    File {
        /// As written; relative to the configuration's own folder when [`load`](crate::load) read it.
        path: PathBuf,
    },
    /// They register themselves at the decision service.
    Registered,
}

/// Where units are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerSettings {
    /// In this process.
    Memory,
    /// In Redis.
    Redis(Box<RedisSettings>),
}

/// The reverse proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// As a sidecar: name of the pod that takes a request if it fits there now.
    pub prefer: Option<String>,
    /// Other pods tried for what surely did not start.
    pub retry_attempts: u32,
    /// Bytes of a request's body kept for a second try.
    pub retry_buffer: usize,
    /// Threads; `None`: the caller decides, one per core.
    pub workers: Option<usize>,
}

/// The admin listener.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What callers must show; always there when `listen` is not a loopback address. Not shown by `Debug`.
    pub token: Option<String>,
}

/// The decision service. At least one of the two listeners is there.
#[derive(Clone, PartialEq, Eq)]
pub struct DecisionSettings {
    /// Where leases are asked for over HTTP.
    pub http: Option<DoorAddress>,
    /// Where Envoy asks.
    pub ext_proc: Option<SocketAddr>,
    /// What to do with an Envoy that seems to end its streams at once.
    pub early_end: EarlyEnd,
    /// What callers must show; it or `tls` is there when a listener is not on a loopback address. Not shown by `Debug`.
    pub token: Option<String>,
    /// Where other gates of the pool reach `http`, as `host:port`, if not where it listens.
    pub advertise: Option<String>,
    /// Mutual TLS.
    pub tls: Option<DecisionTls>,
}

/// Certificates of the decision service, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionTls {
    /// The service's certificate, with those between it and its authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of callers.
    pub client_ca: PathBuf,
}

impl fmt::Debug for AdminSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "…");
        f.debug_struct("AdminSettings").field("listen", &self.listen).field("token", &token).finish()
    }
}

impl fmt::Debug for DecisionSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecisionSettings")
            .field("http", &self.http)
            .field("ext_proc", &self.ext_proc)
            .field("early_end", &self.early_end)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("advertise", &self.advertise)
            .field("tls", &self.tls)
            .finish()
    }
}

/// A pod found elsewhere than in the file: what the core and what the doors need of it.
pub type FoundPod = (PodPolicy, PodSettings);

/// What a [`Config`] was made of, kept so that patches and new pods are checked by the same rules.
#[derive(Clone)]
pub(crate) struct Origin {
    /// The file's name.
    pub(crate) file: String,
    /// Its tree, variables filled in, never patched.
    pub(crate) root: Node,
    /// The pods, where they are not listed and have been found.
    pub(crate) found: Option<Vec<FoundPod>>,
}

impl fmt::Debug for Origin {
    /// Without the tree, which holds tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({})", self.file)
    }
}
