//! The file store and the runner, from outside.

mod file;
mod runner;
