//! Laws on arbitrary input.

use proptest::prelude::*;
use serde_json::{Value, json};
use sluicegate_config::{merge, parse};

use crate::config;
use crate::examples::SECTION_9;

/// Judges a pattern on a path by recursion over segments: slow, plain, and no code of the crate's.
fn fits(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern.first(), path.first()) {
        (None, None) => true,
        (Some(&"**"), None) => true,
        (Some(&"**"), Some(_)) => fits(pattern, &path[1..]),
        (Some(&"*"), Some(&found)) => !found.is_empty() && fits(&pattern[1..], &path[1..]),
        (Some(&wanted), Some(&found)) => wanted == found && fits(&pattern[1..], &path[1..]),
        _ => false,
    }
}

fn pieces(path: &str) -> Vec<&str> {
    let mut pieces: Vec<&str> = path.split('/').skip(1).collect();
    if pieces.last() == Some(&"") {
        pieces.pop();
    }
    pieces
}

prop_compose! {
    fn pattern()(words in prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "*"]), 0..4),
                 rest in any::<bool>(), method in prop::sample::select(vec!["", "GET ", "GET,PUT "])) -> (String, String) {
        let mut words = words;
        if rest { words.push("**") }
        (method.trim().to_owned(), format!("/{}", words.join("/")))
    }
}

proptest! {
    #[test]
    fn routes_agree_with_a_plain_judge(
        patterns in prop::collection::vec(pattern(), 1..6),
        path in "(/(a|b|ab|))*/?(\\?x=/a)?",
        method in prop::sample::select(vec!["GET", "PUT", "POST"]),
    ) {
        let apis: String = patterns.iter().enumerate()
            .map(|(index, (methods, path))| format!("  - {{name: n{index}, match: '{}'}}\n", format!("{methods} {path}").trim()))
            .collect();
        let text = format!("pool: p\npods: [{{name: a, url: 'http://a:1', capacity: 9}}]\napis:\n{apis}");
        let routes = config(&text).routes;
        let bare = path.split('?').next().expect("a path");
        let expected = patterns.iter().position(|(methods, pattern)| {
            let method_fits = methods.is_empty() || methods.split(',').any(|own| own == method);
            method_fits && bare.starts_with('/') && fits(&pieces(pattern), &pieces(bare))
        });
        prop_assert_eq!(routes.find(method, &path), expected.unwrap_or(patterns.len()), "{} {} on {}", method, path, text);
    }

    #[test]
    fn any_path_finds_an_api(method in ".*", path in ".*") {
        prop_assert!(config(SECTION_9).routes.find(&method, &path) < 5);
    }

    #[test]
    fn any_text_is_read_or_refused_with_a_problem(text in "\\PC*|[-a-z:{}\\[\\],&*!#|>'\"%@`$~? \\n\\t]{0,120}") {
        if let Err(problems) = parse("t", &text, &|_| None) {
            prop_assert!(!problems.0.is_empty());
        }
    }

    /// The example with a piece cut out or put in: the region where arbitrary text never comes.
    #[test]
    fn a_broken_example_is_read_or_refused(at in 0..SECTION_9.len(), cut in 0..40usize, insert in "[-a-z0-9:{}\\[\\],%*&$ \\n]{0,12}") {
        let end = (at + cut).min(SECTION_9.len());
        let text = format!("{}{insert}{}", &SECTION_9[..at], &SECTION_9[end..]);
        match parse("t", &text, &|_| None) {
            Ok(loaded) => prop_assert!(loaded.config.policy.check().is_ok()),
            Err(problems) => {
                prop_assert!(!problems.0.is_empty());
                let lines = text.lines().count() + 1;
                prop_assert!(problems.0.iter().all(|problem| problem.line <= lines), "{}", problems);
            }
        }
    }

    #[test]
    fn patching_by_parts_is_patching_at_once(weights in prop::collection::vec((0..3usize, prop::option::of(1..9u32)), 0..12)) {
        let names = ["quote", "order", "report"];
        let (mut all, mut last) = (json!({}), [None; 3]);
        for (api, weight) in &weights {
            merge(&mut all, &json!({"apis": {names[*api]: {"weight": weight.map_or(Value::Null, Value::from)}}}));
            last[*api] = *weight;
        }
        let file = config(SECTION_9);
        let patched = file.patch(&all).map_err(|problems| TestCaseError::fail(problems.to_string()))?;
        for (index, weight) in last.iter().enumerate() {
            let expected = weight.unwrap_or(file.policy.apis[index + 1].weight);
            prop_assert_eq!(patched.policy.apis[index + 1].weight, expected);
        }
    }
}

#[test]
fn ten_thousand_pods_are_read_with_their_faults() {
    let pods: String = (0..10_000)
        .map(|index| format!("  - {{name: p{index}, url: 'http://h{index}:1', capacity: 20}}\n"))
        .collect();
    let text = format!("pool: p\npods:\n{pods}");
    assert_eq!(config(&text).policy.pods.len(), 10_000);
    let twin = format!("{text}  - {{name: p7, url: 'http://z:1', capacity: 20}}\n");
    assert_eq!(
        crate::problems(&twin),
        ["10003:12 pods.p7.name: a second pod named `p7`; the first is in line 10"]
    );
}
