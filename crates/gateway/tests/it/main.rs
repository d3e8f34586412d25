//! The gateway and its admin listener against real pods, over real sockets.

mod admin;
mod bad_input;
mod drain;
mod endings;
mod proxying;
mod retries;
mod table;
mod visitor;
mod world;
