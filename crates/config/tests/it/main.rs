//! Tests of `sluicegate-config` through its public API.

mod examples;
mod faults;
mod patches;
mod properties;

use sluicegate_config::{Config, Loaded, Problems, parse};

/// Parses with an environment of `TOKEN` alone.
fn read(text: &str) -> Result<Loaded, Problems> {
    parse("t.yaml", text, &|name| (name == "TOKEN").then(|| "long-enough-token".to_owned()))
}

fn config(text: &str) -> Config {
    read(text).unwrap_or_else(|problems| panic!("{problems}")).config
}

/// Every problem as `line:column what`.
fn problems(text: &str) -> Vec<String> {
    match read(text) {
        Ok(_) => Vec::new(),
        Err(Problems(all)) => all
            .iter()
            .map(|problem| format!("{}:{} {}", problem.line, problem.column, problem.what))
            .collect(),
    }
}

fn warnings(text: &str) -> Vec<String> {
    let loaded = read(text).unwrap_or_else(|problems| panic!("{problems}"));
    loaded
        .warnings
        .iter()
        .map(|problem| format!("{}:{} {}", problem.line, problem.column, problem.what))
        .collect()
}

/// Takes each `¶` out of the text; the places (`line:column`) where they stood. So a test says where a
/// fault is by showing it.
fn marked(text: &str) -> (String, Vec<String>) {
    let mut places = Vec::new();
    let (mut clean, mut line, mut column) = (String::new(), 1, 1);
    for c in text.chars() {
        match c {
            '¶' => places.push(format!("{line}:{column}")),
            '\n' => (line, column) = (line + 1, 1),
            _ => column += 1,
        }
        if c != '¶' {
            clean.push(c);
        }
    }
    (clean, places)
}

/// The problems (or warnings) in `found` are those of `expected`, in order, at the marks of the text.
#[track_caller]
fn agree(found: &[String], places: &[String], expected: &[&str]) {
    assert_eq!((found.len(), places.len()), (expected.len(), expected.len()), "{found:#?}");
    for ((found, place), expected) in found.iter().zip(places).zip(expected) {
        let expected = format!("{place} {expected}");
        assert!(found.starts_with(&expected), "{found:?} does not begin with {expected:?}");
    }
}
