//! `/v1/events` and the dashboard's page.

use std::net::SocketAddr;

use serde_json::Value;
use sluicegate::Ask;
use sluicegate_testkit::client::{Raw, get, get_json};
use sluicegate_testkit::wait::SOON;

use crate::admin::{is_problem, start};

/// As many listeners as are served at once.
const LISTENERS: usize = 32;

/// One listener, past the head of its answer.
struct Listener {
    client: Raw,
    text: String,
}

impl Listener {
    async fn at(admin: SocketAddr, query: &str) -> Listener {
        let mut client = Raw::connect(admin).await.unwrap();
        client.request("GET", &format!("/v1/events{query}"), &[]).await.unwrap();
        let head = client.head().await.unwrap();
        assert_eq!((head.status, head.header("content-type")), (200, "text/event-stream"));
        assert_eq!(head.header("cache-control"), "no-store");
        Listener { client, text: String::new() }
    }

    /// The next event or comment, without the empty line that ends it.
    async fn next(&mut self) -> String {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = event.to_owned();
                self.text = rest.to_owned();
                return event;
            }
            let chunk = self.client.chunk().await.unwrap().expect("it ends only with the process");
            self.text += std::str::from_utf8(&chunk).unwrap();
        }
    }

    /// The state of the next event; comments before it are passed over.
    async fn state(&mut self) -> Value {
        loop {
            let event = self.next().await;
            if let Some(data) = event.strip_prefix("event: state\ndata: ") {
                return serde_json::from_str(data).unwrap();
            }
            assert!(event.starts_with(':'), "{event}");
        }
    }
}

#[tokio::test]
async fn the_first_event_is_the_state_and_later_ones_show_what_changed() {
    let (world, admin, _) = start(None).await;
    let first = Listener::at(admin.local_addr(), "?every=10s").await.next().await;
    let first = first.strip_prefix("event: state\ndata: ").expect("the state comes before any comment");
    let first: Value = serde_json::from_str(first).unwrap();
    let mut shown = get_json(admin.local_addr(), "/v1/state").await.unwrap();
    shown["at_ms"] = first["at_ms"].clone();
    assert_eq!(first, shown);

    let mut listener = Listener::at(admin.local_addr(), "?every=100ms").await;
    let before = listener.state().await;
    assert_eq!((&before["in_use"], &before["apis"][0]["admitted"]), (&0.into(), &0.into()));
    let lease = world.gate.try_acquire(Ask::new(world.gate.api_id("order").unwrap())).unwrap();
    let held = until_in_use(&mut listener, 2).await;
    assert_eq!(held["apis"][0]["admitted"], 1);
    assert!(held["at_ms"].as_u64() > before["at_ms"].as_u64());
    drop(lease);
    until_in_use(&mut listener, 0).await;
}

/// Reads on until the state shows so many units; the client fails by itself when events stay away.
async fn until_in_use(listener: &mut Listener, units: u64) -> Value {
    for _ in 0..100 {
        let state = listener.state().await;
        if state["in_use"] == units {
            return state;
        }
    }
    panic!("100 events and none shows {units} units in use");
}

#[tokio::test]
async fn a_long_silence_is_broken_by_a_comment() {
    let (_world, admin, _) = start(None).await;
    let mut listener = Listener::at(admin.local_addr(), "?every=10s").await;
    assert!(listener.next().await.starts_with("event: state\n"));
    assert!(listener.next().await.starts_with(':'));
}

#[tokio::test]
async fn listeners_are_bounded_and_a_gone_one_makes_room() {
    let (_world, admin, _) = start(None).await;
    let addr = admin.local_addr();
    let mut listeners = Vec::new();
    for _ in 0..LISTENERS {
        listeners.push(Listener::at(addr, "?every=10s").await);
    }
    let refused = get(addr, "/v1/events").await.unwrap();
    is_problem(&refused, 503);
    assert_eq!(refused.head.header("retry-after"), "5");
    assert_eq!(get(addr, "/v1/state").await.unwrap().head.status, 200, "only listeners are bounded");
    listeners.pop();
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let mut client = Raw::connect(addr).await.unwrap();
        client.request("GET", "/v1/events", &[]).await.unwrap();
        if client.head().await.unwrap().status == 200 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the place of the listener that left stays taken");
    }
}

#[tokio::test]
async fn a_time_out_of_bounds_is_a_problem() {
    let (_world, admin, _) = start(None).await;
    for every in ["99ms", "11s", "5", ""] {
        is_problem(&get(admin.local_addr(), &format!("/v1/events?every={every}")).await.unwrap(), 400);
    }
}

#[tokio::test]
async fn events_want_the_token_and_the_page_does_not() {
    let (_world, admin, _) = start(Some("s3cret")).await;
    is_problem(&get(admin.local_addr(), "/v1/events").await.unwrap(), 401);
    is_problem(&get(admin.local_addr(), "/v1/events?token=s3cret").await.unwrap(), 401);
    let mut client = Raw::connect(admin.local_addr()).await.unwrap();
    client.request("GET", "/v1/events", &["authorization: Bearer s3cret"]).await.unwrap();
    assert_eq!(client.head().await.unwrap().status, 200);
    let page = get(admin.local_addr(), "/").await.unwrap();
    assert_eq!(page.head.status, 200);
    assert!(!page.text().contains("trial"), "the page itself tells nothing of the pool");
}

#[tokio::test]
async fn listeners_end_with_the_admin_listener() {
    let (_world, admin, _) = start(None).await;
    let mut listener = Listener::at(admin.local_addr(), "?every=10s").await;
    listener.state().await;
    drop(admin);
    // An end or a reset: both tell the listener. What may not happen is that it stays open.
    let end = listener.client.rest().await;
    assert!(end.is_ok_and(|rest| rest.is_empty() || rest == b"0\r\n\r\n"), "the connection stayed open");
}

#[tokio::test]
async fn the_page_may_run_only_its_own_script_and_reach_only_its_origin() {
    let (_world, admin, _) = start(None).await;
    let page = get(admin.local_addr(), "/").await.unwrap();
    assert_eq!(page.head.header("content-type"), "text/html; charset=utf-8");
    let policy = page.head.header("content-security-policy");
    for rule in ["default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(rule), "{rule} is missing in {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    let (_, nonce) = policy.split_once("script-src 'nonce-").unwrap();
    let nonce = &nonce[..nonce.find('\'').unwrap()];
    assert!(page.text().contains(&format!("<script nonce=\"{nonce}\">")));
    assert!(page.text().contains(&format!("<style nonce=\"{nonce}\">")));
    let again = get(admin.local_addr(), "/").await.unwrap();
    assert!(!again.text().contains(nonce), "a nonce that is used twice can be learnt");
}
