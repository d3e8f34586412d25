//! Proxies that ask Sluicegate, as their users run them: the real proxy, the real program, pods that count.
//!
//! Each door has a module; what every door must bear is in [`matrix`]. A sample of the matrix runs with every change, all of it
//! with `SLUICEGATE_FULL=1`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stderr, reason = "a long test says how far it is")]

mod behind;
mod cell;
mod endings;
mod envoy;
mod ground;
mod matrix;
mod nginx;
mod restart;
#[allow(dead_code, reason = "the other tests use more of it")]
#[path = "../it/running.rs"]
mod running;
mod visitor;
