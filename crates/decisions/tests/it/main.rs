//! The decision service over real sockets, in the test's own process.

mod leases;
mod line;
mod waiting;
mod world;
