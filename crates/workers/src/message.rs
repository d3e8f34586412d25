//! From a message to a request.

use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use sluicegate::jobs::Work;

/// Longest text that a part of a message puts into a path or a header, bytes.
const PART_MAX: usize = 1024;

/// What of a message says its api.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiOf {
    /// All are of this one.
    One(String),
    /// A part of it.
    By {
        /// The header that does, in lower case; `None`: the route.
        header: Option<String>,
        /// What it says, and the api meant; what is not listed is the name itself.
        names: BTreeMap<String, String>,
        /// The api of those that say none.
        otherwise: String,
    },
}

/// The request that each message becomes.
#[derive(Clone, Debug)]
pub struct Mapping {
    api: ApiOf,
    method: Method,
    path: Template,
    headers: Vec<(HeaderName, Template)>,
}

/// A text with places for parts of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Route,
    Key,
    Id,
    Header(String),
}

/// A message, whoever carried it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The routing key, or the topic.
    pub route: String,
    /// Kafka's key.
    pub key: Option<Vec<u8>>,
    /// Its id, if it has one: the `message_id`, or `TOPIC-PARTITION-OFFSET`.
    pub id: String,
    /// Its headers that are texts.
    pub headers: Vec<(String, Vec<u8>)>,
    /// What its body is.
    pub content_type: Option<String>,
    /// Its body.
    pub body: Bytes,
}

impl Mapping {
    /// # Errors
    /// What is wrong, in words: a method, a name of a header, or a `{…}` that is none.
    pub fn new(
        api: ApiOf,
        method: &str,
        path: &str,
        headers: &[(String, String)],
    ) -> Result<Mapping, String> {
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| format!("`{method}` is no method"))?;
        let mut named = Vec::with_capacity(headers.len());
        for (name, text) in headers {
            let name = name.parse().map_err(|_| format!("`{name}` is no name of a header"))?;
            named.push((name, Template::read(text)?));
        }
        Ok(Mapping { api, method, path: Template::read(path)?, headers: named })
    }

    /// The api of a message, by name. `known` tells apis that there are.
    #[must_use]
    pub fn api(&self, message: &Message, known: impl Fn(&str) -> bool) -> String {
        match &self.api {
            ApiOf::One(name) => name.clone(),
            ApiOf::By { header, names, otherwise } => {
                let said = match header {
                    None => Some(message.route.clone()),
                    Some(name) => {
                        message.header(name).map(|value| String::from_utf8_lossy(value).into_owned())
                    }
                };
                let meant = said.map(|said| names.get(&said).cloned().unwrap_or(said));
                meant.filter(|name| known(name)).unwrap_or_else(|| otherwise.clone())
            }
        }
    }

    /// The request of a message.
    ///
    /// # Errors
    /// The path that comes out is none.
    pub fn work(&self, message: &Message, api: String) -> Result<Work, String> {
        let path = self.path.fill(message, true);
        let path = PathAndQuery::try_from(path.as_str()).map_err(|_| format!("`{path}` is no path"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &message.headers {
            // What HTTP cannot carry, or what frames its messages, stays behind.
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(value))
                && !is_framing(&name)
            {
                headers.append(name, value);
            }
        }
        if let Some(kind) = message.content_type.as_deref().and_then(|kind| HeaderValue::try_from(kind).ok())
        {
            headers.insert(header::CONTENT_TYPE, kind);
        }
        if let Ok(id) = HeaderValue::try_from(&message.id)
            && !message.id.is_empty()
        {
            headers.insert("x-message-id", id);
        }
        for (name, template) in &self.headers {
            if let Ok(value) = HeaderValue::try_from(template.fill(message, false)) {
                headers.insert(name, value);
            }
        }
        Ok(Work { api, method: self.method.clone(), path, headers, body: message.body.clone() })
    }
}

impl Message {
    /// The last value of a header, its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let found = self.headers.iter().rev().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_slice())
    }
}

fn is_framing(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "host"
            | "connection"
            | "content-length"
            | "transfer-encoding"
            | "upgrade"
            | "te"
            | "trailer"
            | "expect"
            | "keep-alive"
            | "proxy-connection"
    ) || name.starts_with("x-sluicegate-")
}

impl Template {
    fn read(text: &str) -> Result<Template, String> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) =
                behind.split_once('}').ok_or_else(|| format!("`{{` without `}}` in `{text}`"))?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(match name {
                "routing_key" | "topic" => Piece::Route,
                "key" => Piece::Key,
                "id" => Piece::Id,
                other => match other.strip_prefix("header:") {
                    Some(header) if !header.is_empty() => Piece::Header(header.to_ascii_lowercase()),
                    _ => {
                        let known = "{routing_key}, {topic}, {key}, {id} and {header:NAME}";
                        return Err(format!("`{{{other}}}` is no part of a message; there are {known}"));
                    }
                },
            });
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Template(pieces))
    }

    fn fill(&self, message: &Message, is_path: bool) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            let part = match piece {
                Piece::Text(fixed) => {
                    text.push_str(fixed);
                    continue;
                }
                Piece::Route => message.route.as_bytes(),
                Piece::Key => message.key.as_deref().unwrap_or_default(),
                Piece::Id => message.id.as_bytes(),
                Piece::Header(name) => message.header(name).unwrap_or_default(),
            };
            let part = &part[..part.len().min(PART_MAX)];
            if is_path {
                encode(part, &mut text);
            } else {
                text.push_str(&String::from_utf8_lossy(part));
            }
        }
        text
    }
}

/// As one segment of a path, or one value of a query: RFC 3986's unreserved characters stand for themselves.
fn encode(part: &[u8], text: &mut String) {
    for byte in part {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            write!(text, "%{byte:02X}").expect("a String takes every text");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            route: "orders.eu".into(),
            key: Some(b"a/b".to_vec()),
            id: "7".into(),
            headers: vec![
                ("X-Api".into(), b"order".to_vec()),
                ("content-length".into(), b"9".to_vec()),
                ("x-sluicegate-tries".into(), b"2".to_vec()),
                ("bad name".into(), b"x".to_vec()),
            ],
            content_type: Some("application/json".into()),
            body: Bytes::from_static(b"{}"),
        }
    }

    fn by(header: Option<&str>) -> ApiOf {
        let names = BTreeMap::from([("orders.eu".to_owned(), "eu".to_owned())]);
        ApiOf::By { header: header.map(str::to_owned), names, otherwise: "other".into() }
    }

    #[test]
    fn a_message_becomes_a_request() {
        let headers = [("x-key".to_owned(), "<{key}>".to_owned())];
        let mapping =
            Mapping::new(ApiOf::One("a".into()), "PUT", "/o/{key}?r={routing_key}&i={id}", &headers);
        let work = mapping.unwrap().work(&message(), "a".into()).unwrap();
        assert_eq!(work.path.as_str(), "/o/a%2Fb?r=orders.eu&i=7");
        assert_eq!((work.method, work.body), (Method::PUT, Bytes::from_static(b"{}")));
        let mut expected = HeaderMap::new();
        for (name, value) in [
            ("x-api", "order"),
            ("content-type", "application/json"),
            ("x-message-id", "7"),
            ("x-key", "<a/b>"),
        ] {
            expected.insert(name, HeaderValue::from_static(value));
        }
        assert_eq!(work.headers, expected);
    }

    #[test]
    fn the_api_is_said_by_the_route_or_a_header_or_is_the_other_one() {
        let known = |name: &str| matches!(name, "eu" | "order" | "other");
        let api =
            |of: ApiOf, message: &Message| Mapping::new(of, "POST", "/", &[]).unwrap().api(message, known);
        assert_eq!(api(by(None), &message()), "eu");
        assert_eq!(api(by(Some("x-api")), &message()), "order");
        assert_eq!(api(by(Some("x-none")), &message()), "other");
        let unknown = Message { route: "nonsense".into(), ..message() };
        assert_eq!(api(by(None), &unknown), "other");
    }

    #[test]
    fn a_template_that_names_no_part_is_refused() {
        for bad in ["/{x}", "/{", "/{header:}"] {
            assert!(Template::read(bad).is_err(), "{bad}");
        }
    }
}
