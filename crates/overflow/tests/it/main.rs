//! The file store and the runner, from outside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod file;
mod runner;
