//! What a gate needs of the server that keeps a shared ledger, whatever that server is.
//!
//! The core's [`Member`](sluicegate_core::member::Member) decides what to say and when; a [`Ledger`] carries
//! it. One link thread per gate owns the ledger and calls it, one call at a time and never with the gate's
//! lock held; an ear thread waits for pushes.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use sluicegate_core::ids::{ApiId, PodId};
use sluicegate_core::shared::{GateId, Push, Reply, Report};

/// Names of what core numbers mean, both ways. On the wire things have names, because each gate has numbers
/// of its own. Never shrinks: a number that was given once means the same for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// By [`PodId`].
    pub pods: Vec<String>,
    /// By [`ApiId`].
    pub apis: Vec<String>,
    /// The way back; a pool may have thousands of pods.
    pod_ids: HashMap<String, PodId>,
    api_ids: HashMap<String, ApiId>,
}

impl Names {
    /// Names by number; no two pods and no two apis share one.
    #[must_use]
    pub fn new(pods: Vec<String>, apis: Vec<String>) -> Names {
        let pod_ids = pods.iter().cloned().zip((0..).map(PodId)).collect();
        let api_ids = apis.iter().cloned().zip((0..).map(ApiId)).collect();
        Names { pods, apis, pod_ids, api_ids }
    }

    /// The pod of this name, if this gate has one.
    #[must_use]
    pub fn pod(&self, name: &str) -> Option<PodId> {
        self.pod_ids.get(name).copied()
    }

    /// The api of this name, if this gate has one.
    #[must_use]
    pub fn api(&self, name: &str) -> Option<ApiId> {
        self.api_ids.get(name).copied()
    }
}

/// A shared ledger's server, as one gate reaches it. All calls block; each has a time-out of its own (the
/// exchange's: `Timing::timeout_us`, at least 100 ms). After an error the connection counts as gone until
/// [`Ledger::connect`] is called again: nothing here may reconnect by itself.
pub trait Ledger: Send + 'static {
    /// A new connection; an earlier one is dropped. Answers the server's identity (Redis: the first 16 hex digits of `run_id`).
    ///
    /// # Errors
    /// The server cannot be reached, or does not take us.
    fn connect(&mut self, gate: GateId) -> Result<u64, LinkError>;

    /// One exchange over the present connection.
    ///
    /// # Errors
    /// The connection is gone, or the server refused. Whether the report was heard is then unknown.
    fn exchange(&mut self, names: &Names, report: &Report) -> Result<Exchanged, LinkError>;

    /// A second connection that hears pushes to `gate`.
    ///
    /// # Errors
    /// It cannot be made. The gate then goes on without pushes and asks again later.
    fn listen(&mut self, gate: GateId) -> Result<Box<dyn Ear>, LinkError>;

    /// The pool's document; version 0 and empty if there is none.
    ///
    /// # Errors
    /// As [`Ledger::exchange`].
    fn document(&mut self) -> Result<Document, LinkError>;

    /// Stores `document` under the version [`Document::version`], if the stored version is still `expected` (a
    /// store without a document counts as 0). The version may be greater than `expected` (a change that all gates
    /// must read; also one that puts back what the server lost) or the same (only `until_ms` of pods changed,
    /// which nobody needs to read before it runs out). Never written: [`Document::now_ms`].
    ///
    /// # Errors
    /// As [`Ledger::exchange`].
    fn store(&mut self, expected: u64, document: &Document) -> Result<Stored, LinkError>;

    /// All gates that the ledger knows, this one included.
    ///
    /// # Errors
    /// As [`Ledger::exchange`].
    fn gates(&mut self) -> Result<Vec<GateSeen>, LinkError>;

    /// The gates that are gone and whose units still count, because what they admitted may still run.
    ///
    /// # Errors
    /// As [`Ledger::exchange`].
    fn gone(&mut self) -> Result<Vec<GateGone>, LinkError>;
}

/// A connection that hears pushes.
pub trait Ear: Send {
    /// The next push, or `None` after about `patience`.
    ///
    /// # Errors
    /// The connection is gone, and with it this ear; or what came is no push (`Protocol`).
    fn next(&mut self, names: &Names, patience: Duration) -> Result<Option<Push>, LinkError>;
}

/// An answered exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchanged {
    /// The ledger's words.
    pub reply: Reply,
    /// Words to other gates that it caused.
    pub pushes: u32,
    /// Accounts whose balance it changed.
    pub touched: u32,
}

/// Why the ledger's server did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkError {
    /// What happened, and the mend where there is one.
    pub what: String,
    /// Whose fault it is.
    pub kind: LinkErrorKind,
}

/// The kinds of [`LinkError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkErrorKind {
    /// No connection could be made.
    Unreachable,
    /// The connection was lost: a time-out, a broken pipe.
    Lost,
    /// The server answers and refuses: wrong password, missing right, not enough replicas, read only, no memory.
    Refused,
    /// It answered what makes no sense.
    Protocol,
}

impl LinkError {
    /// An error of this kind.
    #[must_use]
    pub fn new(kind: LinkErrorKind, what: impl Into<String>) -> LinkError {
        LinkError { what: what.into(), kind }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            LinkErrorKind::Unreachable => "the ledger cannot be reached",
            LinkErrorKind::Lost => "the connection to the ledger was lost",
            LinkErrorKind::Refused => "the ledger refused",
            LinkErrorKind::Protocol => "the ledger's answer makes no sense",
        };
        write!(f, "{kind}: {}", self.what)
    }
}

impl std::error::Error for LinkError {}

/// What the operators of a pool changed while it runs, the same for all gates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Grows with each change that gates must read. 0: there is no document.
    pub version: u64,
    /// A JSON merge patch (RFC 7396) over every gate's file, as text.
    pub patch: String,
    /// Pods that registered themselves, by name.
    pub pods: BTreeMap<String, RegisteredPod>,
    /// The server's clock when this was read, Unix milliseconds; 0 in a document that was not read. What
    /// [`RegisteredPod::until_ms`] is compared with, so that gates need not agree on the time.
    pub now_ms: u64,
}

impl Default for Document {
    fn default() -> Document {
        Document { version: 0, patch: "{}".to_owned(), pods: BTreeMap::new(), now_ms: 0 }
    }
}

/// A pod that registered itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredPod {
    /// Where it is.
    pub url: String,
    /// Units it can hold at once; 0: it drains.
    pub capacity: u32,
    /// It is gone when the server's clock (Unix milliseconds) reaches this without a renewal.
    pub until_ms: u64,
}

/// What became of [`Ledger::store`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is stored, under this version.
    Stored(u64),
    /// Another change came first; this is the version stored now.
    Conflict(u64),
}

/// A gate that is gone and whose units still count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateGone {
    /// Who.
    pub id: GateId,
    /// They come back in so many milliseconds.
    pub back_ms: u64,
}

/// A gate, as the ledger sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateSeen {
    /// Who.
    pub id: GateId,
    /// What people call it.
    pub label: String,
    /// Units that its leases hold.
    pub in_use: u64,
    /// Units that it holds for leases to come.
    pub credit: u64,
    /// Asks that wait there.
    pub waiting: u64,
    /// Milliseconds since its last exchange.
    pub last_seen_ms: u64,
    /// Version of the pool's document that it obeys.
    pub version: u64,
    /// Names the terms that it obeys; gates with the same rules have the same.
    pub digest: u64,
}
