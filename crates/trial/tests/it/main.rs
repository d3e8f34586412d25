//! The sample pod and the load, over real sockets.

#![allow(clippy::unwrap_used, reason = "what fails in a helper of a test should fail the test")]

mod load;
mod pod;

use sluicegate_trial::pod::{Pod, PodHandle, PodOptions};
use tokio::net::TcpListener;

/// Starts a pod on a free port of loopback.
async fn start(options: PodOptions) -> PodHandle {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Pod::start(options, listener).unwrap()
}
