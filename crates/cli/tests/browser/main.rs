//! The dashboard as its reader sees it. Apart from the other tests, because a browser takes both cores of a
//! small machine, and what is measured beside it would be measured wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod dashboard;
mod page;
#[allow(dead_code, reason = "the other tests use more of it")]
#[path = "../it/running.rs"]
mod running;

use running::{Folder, Running, SOON, pods};
