//! `GET /v1/events`: the state again and again, as server-sent events.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Shared, problem};

/// Listeners at once. Each costs a copy of the state per event, and people who look are few.
pub(super) const LISTENERS_MAX: usize = 32;

/// Time between two events when the listener does not say.
const EVERY: Duration = Duration::from_millis(500);

/// What a listener may say, both ends included.
const EVERY_MIN: Duration = Duration::from_millis(100);
const EVERY_MAX: Duration = Duration::from_secs(10);

/// The longest silence: a comment breaks a longer one, so that whoever listens (and any proxy between)
/// can tell a quiet gate from a dead one.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Answers with a stream that ends with the listener, or with the process.
pub(super) async fn listen(State(shared): State<Arc<Shared>>, uri: Uri) -> Response {
    let every = match every(uri.query().unwrap_or_default()) {
        Ok(every) => every,
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
    };
    let Ok(place) = Arc::clone(&shared.listeners).try_acquire_owned() else {
        let detail = format!("{LISTENERS_MAX} listeners are served already; close one, or read /v1/state");
        let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, &detail);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        return response;
    };
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // nginx would keep the events until its buffer is full.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::new(Events::new(shared, every, place))).into_response()
}

/// The `every` of a query, like `every=250ms` or `every=2s`.
fn every(query: &str) -> Result<Duration, String> {
    let Some(text) = query.split('&').find_map(|pair| pair.strip_prefix("every=")) else {
        return Ok(EVERY);
    };
    let (number, unit_ms) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').unwrap_or_default(), 1000),
    };
    let every = number.parse().ok().and_then(|number: u64| number.checked_mul(unit_ms));
    every
        .map(Duration::from_millis)
        .filter(|every| (EVERY_MIN..=EVERY_MAX).contains(every))
        .ok_or_else(|| format!("every={text} is not a time from 100ms to 10s; write it like 500ms or 2s"))
}

/// The body of one listener. It is asked for the next event only when the last one was written, so a
/// slow reader misses events and never makes them pile up.
struct Events {
    shared: Arc<Shared>,
    every: Duration,
    /// Until the next event, or a comment before it.
    timer: Pin<Box<Sleep>>,
    /// When the next event is due.
    next: Instant,
    /// Given back when the listener is gone.
    _place: OwnedSemaphorePermit,
}

impl Events {
    fn new(shared: Arc<Shared>, every: Duration, place: OwnedSemaphorePermit) -> Events {
        let at_once = Instant::now();
        Events { shared, every, timer: Box::pin(sleep_until(at_once)), next: at_once, _place: place }
    }
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.timer.as_mut().poll(context));
        let now = Instant::now();
        let text = if now < self.next {
            ": quiet\n\n".to_owned()
        } else {
            // From now and not from when it was due: what a slow reader missed is not made up for.
            self.next = now + self.every;
            let state = serde_json::to_string(&self.shared.state()).expect("its keys are text");
            format!("event: state\ndata: {state}\n\n")
        };
        let wake = self.next.min(now + SILENCE_MAX);
        self.timer.as_mut().reset(wake);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(text)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_between_events_is_read_with_its_unit_and_bounds() {
        for (query, ms) in
            [("", 500), ("a=b", 500), ("every=100ms", 100), ("a=b&every=10s", 10_000), ("every=2s", 2000)]
        {
            assert_eq!(every(query), Ok(Duration::from_millis(ms)), "{query}");
        }
        for query in
            ["every=", "every=5", "every=99ms", "every=11s", "every=-1s", "every=18446744073709551615s"]
        {
            assert!(every(query).is_err_and(|why| why.contains("100ms to 10s")), "{query}");
        }
    }
}
