//! Admission by capacity units, inside your own service.
//!
//! A backend is a pool of pods; each api declares a weight in units, each pod a capacity. A [`Gate`]
//! admits a request when a pod and the pool have its units, lets it wait in a well-ordered queue when not,
//! and hands freed units to the next waiter in the same step. A [`Lease`] gives its units back exactly
//! once, when it is dropped.
//!
//! ```
//! use sluicegate::{Ask, Gate, policy::Policy};
//!
//! # async fn handler() -> Result<(), sluicegate::Refusal> {
//! let gate = Gate::new(Policy::simple(&[("a", 20), ("b", 20)], &[("quote", 1), ("report", 3)])).unwrap();
//! let report = gate.api_id("report").unwrap();
//! let lease = gate.acquire(Ask::new(report)).await?;   // waits up to the api's `wait`
//! println!("runs on pod {:?} after {:?}", lease.pod(), lease.waited());
//! drop(lease);                                          // 3 units go to whoever waits first
//! # Ok(()) }
//! # struct Noop; impl std::task::Wake for Noop { fn wake(self: std::sync::Arc<Self>) {} }
//! # let waker = std::task::Waker::from(std::sync::Arc::new(Noop));
//! # let mut cx = std::task::Context::from_waker(&waker);
//! # assert!(std::pin::pin!(handler()).as_mut().poll(&mut cx).is_ready());
//! ```
//!
//! The library needs no async runtime: one thread of its own keeps the deadlines of those who wait.
//! [`tower`] has the same as a middleware.

mod acquire;
mod answer;
mod clock;
mod courier;
mod ear;
mod engine;
mod gate;
pub mod jobs;
mod lease;
pub mod link;
mod shared;
pub mod tower;

pub use acquire::{Acquire, Ask};
pub use gate::Gate;
pub use lease::Lease;
pub use shared::{LedgerView, RTT_BOUNDS_US, SharedSettings};
pub use sluicegate_core::ids::{ApiId, PodId};
pub use sluicegate_core::member::OnLoss;
pub use sluicegate_core::policy;
pub use sluicegate_core::refusal::{Reason, Refusal};
pub use sluicegate_core::shared::{GateId, Rules, Timing};
pub use sluicegate_core::snapshot::{self, Snapshot};
pub use sluicegate_core::stats;
