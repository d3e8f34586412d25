//! Tests of the kit itself, and of the failures that Sluicegate exists to avoid.

#![allow(clippy::unwrap_used, reason = "what fails in a helper of a test should fail the test")]

mod buckets;
mod kit;
mod naive;
mod proxy;
mod servers;
