//! Access logs with one JSON object per line.
//!
//! Known are the names that common proxies give: of the time `time`, `ts`, `timestamp`, `@timestamp`, `start_time`,
//! `time_iso8601`, `time_local`, `msec`; of the request `api`, or `request`, or `method` and `path` (`uri`, `url`,
//! `request_method`, `request_uri`); of the duration `duration`, `request_time`, `upstream_response_time`, `latency`,
//! `elapsed` in seconds, or any of these with `_ns`, `_us`, `_ms` or `_s` behind it; of the answer `status`.

use serde_json::{Map, Value};

use super::{CostKind, Record, Who, Wrong, duration_us, path_of, request, short, status, time};

/// A `cost` in JSON is what a request takes while it runs.
pub(super) const COST: CostKind = CostKind::Held;

/// Names of the time; the second says whether it is the end.
const TIMES: [(&str, bool); 10] = [
    ("start_time", false),
    ("time", false),
    ("ts", false),
    ("timestamp", false),
    ("@timestamp", false),
    ("end_time", true),
    ("msec", true),
    ("time_iso8601", true),
    ("time_local", true),
    ("StartUTC", false),
];
const DURATIONS: [&str; 6] =
    ["duration", "request_time", "upstream_response_time", "latency", "elapsed", "response_time"];
const UNITS: [(&str, f64); 5] = [("", 1e6), ("_s", 1e6), ("_ms", 1e3), ("_us", 1.0), ("_ns", 1e-3)];

pub(super) fn record(line: &str) -> Result<Record, Wrong> {
    let object: Map<String, Value> = serde_json::from_str(line).map_err(|error| {
        Wrong::new(error.column().max(1), format!("no JSON object: {error}"), "one object per line, complete")
    })?;
    // Where a value stands is found by its name: good enough to point at it.
    let column = |key: &str| {
        let at = line.find(&format!("\"{key}\""));
        at.map_or(1, |at| line[..at].chars().count() + 1)
    };
    let time = TIMES.iter().find_map(|(key, is_end)| object.get(*key).map(|value| (*key, value, *is_end)));
    let Some((key, value, is_end)) = time else {
        let mend = "log the time as `time`, in seconds or RFC 3339";
        return Err(Wrong::new(1, "no time", mend));
    };
    let Some((time_us, is_whole)) = time::moment(&text(value)) else {
        let what = format!("`{}` is no time", short(&text(value)));
        return Err(Wrong::new(column(key), what, "seconds, or RFC 3339 such as 2026-10-10T13:55:36.125Z"));
    };
    let mut duration = None;
    let mut stamped_at_end = is_end;
    for (name, (unit, us)) in DURATIONS.iter().flat_map(|name| UNITS.map(|unit| (*name, unit))) {
        let key = format!("{name}{unit}");
        if let Some(value) = object.get(&key) {
            duration = duration_us(&text(value), us, column(&key))?;
            // nginx knows the time of the answer's end only, under whatever name it is logged.
            stamped_at_end |= name == "request_time" && !object.contains_key("start_time");
            break;
        }
    }
    let status = object.get("status").map(|value| status(&text(value), column("status")));
    let cost = object.get("cost").and_then(Value::as_f64).filter(|cost| *cost >= 0.0);
    Ok(Record {
        time_us,
        is_end: stamped_at_end,
        is_whole,
        who: who(&object, &column)?,
        duration_us: duration,
        status: status.transpose()?.flatten(),
        cost,
    })
}

fn who(object: &Map<String, Value>, column: &dyn Fn(&str) -> usize) -> Result<Who, Wrong> {
    if let Some(api) = object.get("api") {
        return Ok(Who::Api(text(api), column("api")));
    }
    let first =
        |keys: &[&'static str]| keys.iter().find_map(|key| object.get(*key).map(|value| (*key, value)));
    // Caddy nests method and uri in `request`.
    let (object, nested) = match object.get("request") {
        Some(Value::Object(inner)) => (inner, true),
        Some(line) => return request(&text(line), column("request")),
        None => (object, false),
    };
    let inner = |keys: &[&str]| keys.iter().find_map(|key| object.get(*key)).map(text);
    let method = inner(&["method", "request_method", "RequestMethod"]).unwrap_or_else(|| "GET".to_owned());
    match inner(&["path", "uri", "request_uri", "url", "RequestPath"]) {
        Some(path) => Ok(Who::Request(method, path_of(&path))),
        None => {
            let at =
                if nested { column("request") } else { first(&["method"]).map_or(1, |(key, _)| column(key)) };
            Err(Wrong::new(at, "no request", "log `request`, or `method` and `path`, or `api`"))
        }
    }
}

/// A value as text; a string without its quotes.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_several_proxies() {
        let nginx = r#"{"time_iso8601":"2025-10-10T13:55:36+00:00","request":"POST /orders HTTP/2.0","status":"201","request_time":"0.250"}"#;
        let one = record(nginx).expect("good");
        assert_eq!((one.time_us, one.is_end, one.duration_us), (1_760_104_536e6, true, Some(250_000.0)));
        assert_eq!(one.who, Who::Request("POST".to_owned(), "/orders".to_owned()));
        let caddy =
            r#"{"ts":1760104536.5,"request":{"method":"GET","uri":"/a?b"},"duration":0.002,"status":200}"#;
        let one = record(caddy).expect("good");
        assert_eq!((one.duration_us, one.is_end, one.status), (Some(2_000.0), false, Some(200)));
        let own = r#"{"time":1,"api":"report","duration_ms":12.5,"cost":3}"#;
        let one = record(own).expect("good");
        assert_eq!((one.duration_us, one.cost), (Some(12_500.0), Some(3.0)));
        assert_eq!(one.who, Who::Api("report".to_owned(), 11));
    }

    #[test]
    fn what_is_wrong_has_its_column() {
        let wrong = |line: &str| record(line).expect_err(line).column;
        assert_eq!(wrong(r#"{"time":1,"api":"#), 16);
        assert_eq!(wrong(r#"{"time":"noon","api":"a"}"#), 2);
        assert_eq!(wrong(r#"{"time":1,"api":"a","duration":"slow"}"#), 21);
        assert_eq!(wrong(r#"{"time":1,"duration":1}"#), 1);
        assert_eq!(wrong(r#"{"api":"a"}"#), 1);
    }
}
