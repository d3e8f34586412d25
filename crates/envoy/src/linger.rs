//! How long a pod may still work for a client that left.
//!
//! When a client leaves before the answer, Envoy cuts the connection to the pod and ends the stream. A pod that `continues` works
//! on, and nobody sees its end. Its units are held on until the request is as old as the oldest of its api that was seen to
//! end within the last minute or two; at most `max_hold`.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use sluicegate::ApiId;

/// Ages of the last minute to the last two are remembered.
const MINUTE: Duration = Duration::from_secs(60);

/// Longest ages at which requests ended, by api.
#[derive(Debug, Default)]
pub(crate) struct Ages {
    apis: Mutex<Vec<Longest>>,
}

/// Of this minute and of the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Longest {
    since: Option<Instant>,
    now: Duration,
    before: Duration,
}

impl Ages {
    /// A request of `api` ended at this age.
    pub(crate) fn note(&self, api: ApiId, age: Duration, now: Instant) {
        let mut apis = self.apis.lock().unwrap_or_else(PoisonError::into_inner);
        if apis.len() <= api.index() {
            apis.resize(api.index() + 1, Longest::default());
        }
        let longest = &mut apis[api.index()];
        longest.turn(now);
        longest.now = longest.now.max(age);
    }

    /// The longest age at which requests of `api` ended lately; `None` if none did.
    pub(crate) fn longest(&self, api: ApiId, now: Instant) -> Option<Duration> {
        let mut apis = self.apis.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = apis.get_mut(api.index())?;
        longest.turn(now);
        Some(longest.now.max(longest.before)).filter(|age| !age.is_zero())
    }
}

impl Longest {
    fn turn(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let passed = now.duration_since(since);
        if passed < MINUTE {
            return;
        }
        self.before = if passed < 2 * MINUTE { self.now } else { Duration::ZERO };
        self.now = Duration::ZERO;
        self.since = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_of_the_last_minute_or_two_counts() {
        let ages = Ages::default();
        let (api, start) = (ApiId(1), Instant::now());
        assert_eq!(ages.longest(api, start), None);
        ages.note(api, Duration::from_millis(300), start);
        ages.note(api, Duration::from_millis(20), start);
        assert_eq!(ages.longest(ApiId(0), start), None, "of its own api");
        assert_eq!(ages.longest(api, start), Some(Duration::from_millis(300)));
        ages.note(api, Duration::from_millis(40), start + MINUTE);
        assert_eq!(ages.longest(api, start + MINUTE), Some(Duration::from_millis(300)));
        assert_eq!(ages.longest(api, start + 2 * MINUTE), Some(Duration::from_millis(40)));
        assert_eq!(ages.longest(api, start + 5 * MINUTE), None);
    }
}
