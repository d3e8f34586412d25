//! The program as its user runs it: real processes, real sockets, exit codes and words.

mod check;
mod demo;
mod run;
mod running;
mod sources;
mod top;
mod traffic;

use running::{Folder, Running, SOON, pods, say};
