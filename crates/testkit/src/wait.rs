//! Waiting for a state by polling it until a deadline.
//!
//! A test that sleeps guesses how slow the machine is; one that polls is as fast as the state comes, and fails
//! with a word when it does not.

use std::time::{Duration, Instant};

/// Time between two looks. Short against what is waited for, long against the cost of a look.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Long enough for anything that should happen at once, on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);

/// Waits until `is_so`, which is looked at every 2 ms.
///
/// # Panics
/// With `what` when it is not so within `deadline`.
#[track_caller]
pub fn until<'a>(
    what: &'a str,
    deadline: Duration,
    mut is_so: impl FnMut() -> bool + 'a,
) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < deadline, "{caller}: not within {deadline:?}: {what}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// As [`until`], on the thread itself, for tests without a runtime.
///
/// # Panics
/// With `what` when it is not so within `deadline`.
#[track_caller]
pub fn until_blocking(what: &str, deadline: Duration, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}
