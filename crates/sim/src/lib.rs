//! A virtual world over the core of Sluicegate.
//!
//! The same `Gate` that runs in production is stepped through seeded arrivals in virtual time, so a day of
//! load takes seconds and a run is its seed. Beside it stand models that share no code with the core: they say
//! what each pod alone would answer and what arithmetic allows at best.
//!
//! - [`load`]: who arrives when, and how long each request holds its units.
//! - [`world`]: the core in virtual time. Start at [`simulate`].
//! - [`models`]: each pod alone, and pooled best fit with and without waiting.
//! - [`kaufman_roberts`]: what one big pod refuses, exactly; [`erlang`]: the same for one weight, and the wait.
//! - [`pool_world`]: many gates and one ledger, with a [`network`] and [`faults`] between them.
//! - [`pools`]: small pools of all kinds, with what goes wrong in them.
//! - [`report`]: what came out.
//!
//! ```
//! use sluicegate_core::policy::Policy;
//! use sluicegate_sim::{Load, simulate};
//!
//! let policy = Policy::simple(&[("a", 20), ("b", 20)], &[("light", 1), ("heavy", 3)]);
//! let load = Load::of_pool(&policy, 0.8, 100_000);
//! let report = simulate(&policy, &load, 7, 5_000).unwrap();
//! assert_eq!(report.offered(), 5_000);
//! assert!(report.share_refused() < 0.01);
//! ```

pub mod erlang;
pub mod faults;
pub mod kaufman_roberts;
pub mod load;
pub mod models;
pub mod network;
pub mod pool_world;
pub mod pools;
pub mod report;
pub mod world;

pub use load::{ApiLoad, Arrival, Load, Service};
pub use models::{Balance, Outcome, WaitOrder, each_pod_alone, replay_best_fit, replay_best_fit_waiting};
pub use report::{ApiReport, Histogram, Report};
pub use world::{Watch, World, replay, simulate};
