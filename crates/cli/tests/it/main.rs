//! The program as its user runs it: real processes, real sockets, exit codes and words.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod check;
mod decisions;
mod decisions_page;
mod decisions_shared;
mod demo;
mod openapi;
mod overflow;
mod plan;
mod registered;
mod run;
mod running;
mod shared;
mod sources;
mod top;
mod traffic;

use running::{Folder, Running, SOON, pods, say};
