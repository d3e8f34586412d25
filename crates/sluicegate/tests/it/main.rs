//! The library from outside: leases, cancellation, threads, the tower layer, the examples.

mod examples;
mod gate;
mod layer;
