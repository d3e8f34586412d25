//! The gateway and its admin listener against real pods, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test whose world cannot be set up has failed")]

mod admin;
mod bad_input;
mod drain;
mod endings;
mod events;
mod overflow;
mod proxying;
mod retries;
mod table;
mod visitor;
mod world;
