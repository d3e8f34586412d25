//! The ledger against real servers.

mod access;
mod fake;
mod jobs;
mod kit;
mod life;
mod online;
mod talk;
mod tls;
mod topology;
