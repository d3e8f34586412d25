//! Paths that documents name in back-ticks must exist: a map that names what is gone misleads.

use std::collections::BTreeSet;

use crate::Faults;
use crate::tree::Tree;

/// The documents that describe the tree. They must be there.
const DOCUMENTS: [&str; 3] = ["ARCHITECTURE.md", "CONTRIBUTING.md", "TESTING.md"];

/// Endings by which a span with a slash is surely a path.
const ENDINGS: [&str; 7] = [".rs", ".md", ".toml", ".yaml", ".json", ".lua", ".sh"];

/// Missing documents, and paths in them that name nothing.
pub(crate) fn check(tree: &Tree) -> Faults {
    let tops = top_names(tree);
    let mut faults = Faults::new();
    for document in DOCUMENTS {
        let Some(text) = tree.text(document) else {
            faults.push(format!("{document}: missing: it is the map of this repository"));
            continue;
        };
        for (number, span) in spans(text) {
            let Some(path) = as_path(span, &tops) else { continue };
            if !exists(tree, path) {
                faults
                    .push(format!("{document}:{number}: `{path}` does not exist: mend the text or the tree"));
            }
        }
    }
    faults
}

/// Names with which a path of this tree can begin: entries of the root and of `crates`.
fn top_names(tree: &Tree) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for path in tree.paths() {
        names.extend(path.split_once('/').map(|(top, _)| top));
        let in_crates = path.strip_prefix("crates/").and_then(|rest| rest.split_once('/'));
        names.extend(in_crates.map(|(top, _)| top));
    }
    names
}

/// The spans between single back-ticks outside of code blocks, with their lines.
fn spans(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_block = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            found.extend(line.split('`').skip(1).step_by(2).map(|span| (index + 1, span)));
        }
    }
    found
}

/// The path in a span, when the span looks like one. URL paths, media types and globs do not.
fn as_path<'a>(span: &'a str, tops: &BTreeSet<&str>) -> Option<&'a str> {
    let path = span.split("::").next()?.trim_start_matches("./");
    let plain = path.chars().all(|c| c.is_alphanumeric() || "._-/".contains(c));
    if !plain || path.is_empty() || path.starts_with('/') || path.starts_with("target/") {
        return None;
    }
    let (top, rest) = path.split_once('/').unwrap_or((path, ""));
    let has_slash = top.len() < path.len();
    let known_top = has_slash && tops.contains(top) && (rest.is_empty() || !rest.starts_with('/'));
    let by_ending = ENDINGS.iter().any(|end| path.ends_with(end)) && has_slash;
    (known_top || by_ending || path.ends_with(".rs")).then_some(path)
}

/// Whether the tree holds the path, from the root, from `crates`, or, for a source file, as the end of a
/// longer path: a text under the heading of a crate names `gate.rs`.
fn exists(tree: &Tree, path: &str) -> bool {
    let tail = format!("/{path}");
    tree.holds(path)
        || tree.holds(&format!("crates/{path}"))
        || (path.ends_with(".rs") && tree.paths().any(|p| p.ends_with(&tail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(architecture: &str) -> Faults {
        check(&Tree::of(&[
            ("ARCHITECTURE.md", architecture),
            ("CONTRIBUTING.md", ""),
            ("TESTING.md", ""),
            ("crates/core/src/gate.rs", ""),
            ("docs/guide.md", ""),
        ]))
    }

    #[test]
    fn paths_that_exist_and_words_that_are_no_paths_pass() {
        let text = "`crates/core/`, `core/src/gate.rs::step`, `gate.rs`, `docs/guide.md`, `/v1/state`,\n\
                    `application/problem+json`, `HTTP/1.1`, `crates/*`, `target/debug/x`, `GET /a/b`\n\
                    ```\n`crates/gone/`\n```\n";
        assert_eq!(faults_of(text), Faults::new());
    }

    #[test]
    fn paths_that_are_gone_are_faults_with_their_line() {
        for gone in ["crates/gone/", "core/src/gone.rs", "gone.rs", "docs/gone", "elsewhere/x.toml"] {
            let faults = faults_of(&format!("fine\nsee `{gone}`\n"));
            assert_eq!(faults.len(), 1, "{gone}: {faults:?}");
            assert!(faults[0].starts_with(&format!("ARCHITECTURE.md:2: `{gone}`")), "{faults:?}");
        }
    }

    #[test]
    fn the_documents_must_be_there() {
        assert_eq!(check(&Tree::of(&[("ARCHITECTURE.md", "")])).len(), 2);
    }
}
