//! An open-loop load: each request is sent at its planned time, whatever the others do.
//!
//! [`Plan::arrivals`] draws the whole load beforehand from a seed, so two runs (or a run and a replay in virtual
//! time) see the same requests. [`run`] sends it and gives a [`Record`], one [`Sample`] for each arrival.
//!
//! Sending is timed by tokio's timer, which rounds up to a whole millisecond; every sample has its planned and its
//! real time of sending, and a run that lagged by more than [`LAG_MAX`] is void.

mod plan;
mod pool;
mod record;
mod runner;

pub use plan::{Arrival, Plan, Service, Shape, equal_erlangs};
pub use record::{ApiSummary, Record, Sample, Summary};
pub use runner::{LAG_MAX, OnSample, RunOptions, Target, run};
