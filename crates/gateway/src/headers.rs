//! What is taken from and added to the headers on their way.

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use sluicegate::tower::server_timing;
use sluicegate::{Gate, PodId};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// A pod's own count of the units it has in use.
const IN_USE: HeaderName = HeaderName::from_static("x-sluicegate-in-use");
/// Ours alone: a client's own are dropped.
const OUR_PREFIX: &str = "x-sluicegate-";

/// The protocol a client asks to change to, if it does so properly. `h2c` is none: it is between
/// the client and us, and passed on it would carry requests past the gate.
pub(crate) fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|to| !to.as_bytes().eq_ignore_ascii_case(b"h2c"))
        && lists(headers, &header::CONNECTION, "upgrade")
}

/// True if the request is a gRPC call.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Makes a client's headers those of the request to the pod. `host` is the one the client named.
pub(crate) fn to_pod(headers: &mut HeaderMap, peer: &HeaderValue, host: Option<HeaderValue>, upgrade: bool) {
    let trailers = headers.contains_key(header::TE) && lists(headers, &header::TE, "trailers");
    let to = if upgrade { headers.get(header::UPGRADE).cloned() } else { None };
    take_hop_by_hop(headers);
    if headers.keys().any(|name| name.as_str().starts_with(OUR_PREFIX)) {
        let ours: Vec<HeaderName> =
            headers.keys().filter(|name| name.as_str().starts_with(OUR_PREFIX)).cloned().collect();
        for name in ours {
            headers.remove(name);
        }
    }
    // hyper has answered it, or will when the body is first read.
    headers.remove(header::EXPECT);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Some(to) = to {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, to);
    }
    append_forwarded_for(headers, peer);
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if let Some(host) = host {
        if !headers.contains_key(X_FORWARDED_HOST) {
            headers.insert(X_FORWARDED_HOST, host.clone());
        }
        headers.insert(header::HOST, host);
    }
}

/// Makes a pod's headers those of the answer to the client, whose request waited so long.
pub(crate) fn to_client(headers: &mut HeaderMap, waited: Duration, upgrade: bool) {
    let to = if upgrade { headers.get(header::UPGRADE).cloned() } else { None };
    take_hop_by_hop(headers);
    if let Some(to) = to {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, to);
    }
    headers.append(SERVER_TIMING, server_timing(waited));
}

/// Tells the gate how many units the pod says it has in use.
pub(crate) fn report_in_use(gate: &Gate, pod: PodId, headers: &HeaderMap) {
    let Some(value) = headers.get(IN_USE) else { return };
    // A pod's nonsense is not worth more than being ignored.
    if let Some(units) = value.to_str().ok().and_then(|text| text.trim().parse().ok()) {
        gate.report_in_use(pod, units);
    }
}

/// Takes the headers that are about this connection only, those that `Connection` lists among them.
fn take_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let values: Vec<HeaderValue> = headers.get_all(header::CONNECTION).iter().cloned().collect();
        headers.remove(header::CONNECTION);
        let listed = values.iter().filter_map(|value| value.to_str().ok()).flat_map(|all| all.split(','));
        for name in listed.map(str::trim) {
            // The two that say where the message goes and how long it is are not the sender's to
            // take away: what stands behind them would become another request.
            if !name.is_empty()
                && !name.eq_ignore_ascii_case("host")
                && !name.eq_ignore_ascii_case("content-length")
            {
                headers.remove(name);
            }
        }
    }
    // One pass over the few that are there costs less than a look-up of each that might be.
    let mut found = [const { None }; HOP_BY_HOP_MAX];
    let listed = headers.keys().filter(|name| is_hop_by_hop(name.as_str()));
    for (slot, name) in found.iter_mut().zip(listed) {
        *slot = Some(name.clone());
    }
    for name in found.into_iter().flatten() {
        headers.remove(name);
    }
}

/// Names for which [`is_hop_by_hop`] holds.
const HOP_BY_HOP_MAX: usize = 8;

fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "keep-alive"
            | "proxy-connection"
            | "http2-settings"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "proxy-authorization"
            | "x-sluicegate-in-use"
    )
}

fn append_forwarded_for(headers: &mut HeaderMap, peer: &HeaderValue) {
    let value = match headers.get(X_FORWARDED_FOR) {
        None => peer.clone(),
        Some(_) => {
            let mut all = Vec::new();
            for value in headers.get_all(X_FORWARDED_FOR) {
                all.extend_from_slice(value.as_bytes());
                all.extend_from_slice(b", ");
            }
            all.extend_from_slice(peer.as_bytes());
            HeaderValue::try_from(all).expect("joined from valid values")
        }
    };
    headers.insert(X_FORWARDED_FOR, value);
}

/// True if the comma-separated header lists the token.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        value.to_str().is_ok_and(|value| {
            value.split(',').any(|one| {
                let one = one.split(';').next().unwrap_or_default();
                one.trim().eq_ignore_ascii_case(token)
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        headers
    }

    #[test]
    fn a_request_loses_what_is_not_for_the_pod() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Hop, host, content-length"),
            ("connection", "x-second"),
            ("x-hop", "1"),
            ("x-second", "2"),
            ("keep-alive", "5"),
            ("te", "gzip, trailers;q=1"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AA"),
            ("expect", "100-continue"),
            ("x-sluicegate-reason", "forged"),
            ("x-sluicegate-in-use", "1"),
            ("content-length", "3"),
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-for", "8.8.8.8"),
            ("x-forwarded-proto", "https"),
        ]);
        to_pod(
            &mut headers,
            &HeaderValue::from_static("127.0.0.1"),
            Some(HeaderValue::from_static("shop")),
            false,
        );
        let expected = map(&[
            ("content-length", "3"),
            ("te", "trailers"),
            ("x-forwarded-for", "9.9.9.9, 8.8.8.8, 127.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop"),
            ("host", "shop"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn an_upgrade_keeps_its_two_headers_and_h2c_is_none() {
        let mut headers = map(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert!(wants_upgrade(&headers));
        to_pod(&mut headers, &HeaderValue::from_static("::1"), None, true);
        assert_eq!(headers["connection"], "upgrade");
        assert_eq!(headers["upgrade"], "websocket");
        assert!(!wants_upgrade(&map(&[("connection", "Upgrade"), ("upgrade", "h2c")])));
        assert!(!wants_upgrade(&map(&[("upgrade", "websocket")])));
    }

    #[test]
    fn an_answer_gains_the_time_it_waited() {
        let mut headers =
            map(&[("connection", "close"), ("x-sluicegate-in-use", "4"), ("server-timing", "db;dur=1")]);
        to_client(&mut headers, Duration::from_micros(12_034), false);
        let timings: Vec<_> = headers.get_all("server-timing").iter().collect();
        assert_eq!(timings, ["db;dur=1", "admission;dur=12.034"]);
        assert_eq!(headers.len(), 2);
        let mut headers = HeaderMap::new();
        to_client(&mut headers, Duration::ZERO, false);
        assert_eq!(headers["server-timing"], "admission;dur=0");
    }
}
