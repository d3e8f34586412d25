//! The core in virtual time: the figures that the design promises, each from its seed.
//!
//! `SLUICEGATE_SEED=N` runs everything with another seed; a failing test prints the command that replays it.
//! Lengths are for profile `test-release`; an unoptimised build runs a tenth and `SLUICEGATE_FULL=1` ten times as much.

mod claims;
mod early;
mod faults;
mod overload;
mod shared_pool;
mod table;
mod trickle;
mod world;
