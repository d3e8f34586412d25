//! Which api a request belongs to, by method and path.
//!
//! A pattern is `[METHOD[,METHOD]] path`. In the path `*` stands for one segment that is not empty,
//! and `**`, at the end only, for all the rest, also for nothing: `/reports/**` takes `/reports`,
//! `/reports/` and `/reports/a/b`. The first pattern that matches wins.
//!
//! Decisions, the same for every door:
//! - one slash at the end makes no difference, as for many backends (`/orders/` is `/orders`);
//! - `//` is an empty segment, which only `**` takes;
//! - the path is compared raw, as it came: percent-encoding is not undone and letters keep their
//!   case. A request spelled in an unusual way belongs to api `default`, so give that a fitting weight;
//! - the query is no part of the path;
//! - `GET` does not include `HEAD`: write `GET,HEAD`;
//! - a request without a path (`OPTIONS *`, `CONNECT`) belongs to `default`.
//!
//! As `**` stands only at the end, a pattern is compared in one pass: no input makes it slow.

use std::str::FromStr;

use crate::problem::{Fault, quoted};
use crate::values::{TextVisitor, from_text};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;

/// The patterns of all apis, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    patterns: Vec<(Pattern, usize)>,
    default: usize,
}

impl Routes {
    pub(crate) fn new(patterns: Vec<(Pattern, usize)>, default: usize) -> Routes {
        Routes { patterns, default }
    }

    /// The index (in `Config::apis` and in the policy) of the api that a request belongs to.
    ///
    /// `path` is the request's path as it came, with or without its query. Never allocates.
    #[must_use]
    pub fn find(&self, method: &str, path: &str) -> usize {
        let path = path.split(['?', '#']).next().unwrap_or(path);
        let found = self.patterns.iter().find(|(pattern, _)| pattern.matches(method, path));
        found.map_or(self.default, |(_, api)| *api)
    }
}

/// One pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// Empty: any method.
    methods: Vec<String>,
    segments: Vec<Segment>,
    /// Ends with `**`.
    rest: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Word(String),
    One,
}

from_text!(Pattern, "a pattern such as `GET /quotes/*`", {
    "description": "`[METHOD[,METHOD]] path`; `*` stands for one segment, `**` at the end for the rest.",
    "type": "string", "pattern": "^([A-Z-]+(,[A-Z-]+)* +)?/[^ ?#]*$"
});

impl Pattern {
    fn matches(&self, method: &str, path: &str) -> bool {
        if !self.methods.is_empty() && !self.methods.iter().any(|own| own == method) {
            return false;
        }
        let Some(path) = path.strip_prefix('/') else { return false };
        let mut segments = path.strip_suffix('/').unwrap_or(path).split('/');
        if path.is_empty() {
            segments.next(); // `split` finds one empty segment in nothing
        }
        for wanted in &self.segments {
            let fits = match (wanted, segments.next()) {
                (_, None) => false,
                (Segment::Word(word), Some(found)) => word == found,
                (Segment::One, Some(found)) => !found.is_empty(),
            };
            if !fits {
                return false;
            }
        }
        self.rest || segments.next().is_none()
    }

    /// True when every request that `other` matches is matched by `self` too.
    pub(crate) fn covers(&self, other: &Pattern) -> bool {
        let methods = self.methods.is_empty()
            || (!other.methods.is_empty() && other.methods.iter().all(|m| self.methods.contains(m)));
        let length = if self.rest {
            self.segments.len() <= other.segments.len()
        } else {
            !other.rest && self.segments.len() == other.segments.len()
        };
        let each = self.segments.iter().zip(&other.segments).all(|(own, others)| match (own, others) {
            (Segment::One, _) => true,
            (Segment::Word(own), Segment::Word(others)) => own == others,
            (Segment::Word(_), Segment::One) => false,
        });
        methods && length && each
    }
}

impl FromStr for Pattern {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Pattern, Fault> {
        let mend = "write `[METHOD[,METHOD]] path`, such as `GET /quotes/*` or `/reports/**`";
        let fault = |why: String| Fault::new(format!("{}: {why}", quoted(text)), mend);
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let (methods, path) = match words[..] {
            [path] => ("", path),
            [methods, path] => (methods, path),
            [] => return Err(fault("the pattern is empty".into())),
            _ => return Err(fault("more than a method and a path; methods are parted by `,` alone".into())),
        };
        let methods = if methods.is_empty() { Vec::new() } else { methods_of(methods).map_err(fault)? };
        let (segments, rest) = segments_of(path).map_err(fault)?;
        Ok(Pattern { methods, segments, rest })
    }
}

fn methods_of(text: &str) -> Result<Vec<String>, String> {
    let method = |word: &str| {
        if word.is_empty() || !word.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-') {
            return Err(format!("{} is no method", quoted(word)));
        }
        if word.bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(format!("methods are upper case: `{}`", word.to_ascii_uppercase()));
        }
        Ok(word.to_owned())
    };
    text.split(',').map(method).collect()
}

fn segments_of(path: &str) -> Result<(Vec<Segment>, bool), String> {
    let Some(inner) = path.strip_prefix('/') else {
        return Err("the path does not begin with `/`".to_owned());
    };
    if path.contains(['?', '#']) {
        return Err("the query is no part of the path".to_owned());
    }
    if !path.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("a path has no such characters: percent-encode them, as the request does".to_owned());
    }
    let mut segments = Vec::new();
    let mut rest = false;
    for word in inner.strip_suffix('/').unwrap_or(inner).split('/').skip(usize::from(inner.is_empty())) {
        if rest {
            return Err("`**` stands for all the rest, so nothing may follow it".to_owned());
        }
        match word {
            "**" => rest = true,
            "*" => segments.push(Segment::One),
            "" => return Err("`//` is an empty segment, which only `**` takes".to_owned()),
            _ if word.contains('*') => {
                return Err(format!(
                    "{}: `*` stands for a whole segment, not for a part of one",
                    quoted(word)
                ));
            }
            _ => segments.push(Segment::Word(word.to_owned())),
        }
    }
    Ok((segments, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, method: &str, path: &str) -> bool {
        let routes = Routes::new(vec![(pattern.parse().expect("a good pattern"), 1)], 0);
        routes.find(method, path) == 1
    }

    #[test]
    fn segments_rest_and_slashes() {
        for (pattern, method, path, expected) in [
            ("GET /quotes/*", "GET", "/quotes/7", true),
            ("GET /quotes/*", "GET", "/quotes/7/", true),
            ("GET /quotes/*", "GET", "/quotes/7?x=/a/b", true),
            ("GET /quotes/*", "HEAD", "/quotes/7", false),
            ("GET /quotes/*", "GET", "/quotes", false),
            ("GET /quotes/*", "GET", "/quotes//", false),
            ("GET /quotes/*", "GET", "/quotes/7/8", false),
            ("GET,HEAD /quotes/*", "HEAD", "/quotes/7", true),
            ("/reports/**", "PUT", "/reports", true),
            ("/reports/**", "PUT", "/reports//x", true),
            ("/reports/**", "PUT", "/reportsx", false),
            ("/", "GET", "/", true),
            ("/", "GET", "/a", false),
            ("/", "GET", "//", false),
            ("/**", "OPTIONS", "*", false),
            ("/orders", "GET", "/Orders", false),
            ("/orders", "GET", "/%6frders", false),
            ("/orders/", "GET", "/orders", true),
        ] {
            assert_eq!(matches(pattern, method, path), expected, "{pattern} on {method} {path}");
        }
    }

    #[test]
    fn bad_patterns_say_why() {
        for (pattern, why) in [
            ("", "empty"),
            ("orders", "begin with"),
            ("get /orders", "upper case"),
            ("GET, POST /orders", "more than"),
            ("GET,/ /orders", "no method"),
            ("/a/**/b", "nothing may follow"),
            ("/a*", "whole segment"),
            ("/a?b", "query"),
            ("/a//b", "empty segment"),
            ("//", "empty segment"),
            ("/ä", "no such characters"),
        ] {
            let fault = pattern.parse::<Pattern>().expect_err(pattern);
            assert!(fault.what.contains(why), "{pattern}: {}", fault.what);
        }
    }

    #[test]
    fn covering() {
        let covers = |left: &str, right: &str| {
            let (left, right): (Pattern, Pattern) =
                (left.parse().expect("good"), right.parse().expect("good"));
            left.covers(&right)
        };
        assert!(covers("/a/*", "GET /a/b"));
        assert!(covers("/a/**", "/a"));
        assert!(covers("GET,POST /a", "POST /a/"));
        assert!(!covers("GET /a", "/a"));
        assert!(!covers("/a/*", "/a/**"));
        assert!(!covers("/a/b", "/a/*"));
    }
}
