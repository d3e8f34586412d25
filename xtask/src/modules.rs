//! Dead files: sources that no target reaches through `mod`, so that no compiler ever reads them.

use std::collections::BTreeSet;

use crate::Faults;
use crate::metadata::Package;
use crate::tree::Tree;

/// Source files below a folder of one of our packages that no target reaches.
pub(crate) fn dead_files(tree: &Tree, packages: &[Package]) -> Faults {
    let roots = packages.iter().filter(|p| p.ours).flat_map(|p| p.roots.iter().cloned());
    let mut alive: BTreeSet<String> = roots.collect();
    let mut open: Vec<(String, bool)> = alive.iter().map(|path| (path.clone(), true)).collect();
    while let Some((path, is_root)) = open.pop() {
        let Some(text) = tree.text(&path) else { continue };
        for child in children(tree, &path, is_root, text) {
            if alive.insert(child.clone()) {
                open.push((child, false));
            }
        }
    }
    let sources = tree.paths().filter(|path| path.ends_with(".rs") && !alive.contains(*path));
    sources.map(|path| format!("{path}: no target reaches it: declare it with `mod`, or remove it")).collect()
}

/// The files that one file declares or includes.
fn children(tree: &Tree, path: &str, is_root: bool, text: &str) -> Vec<String> {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = file.trim_end_matches(".rs");
    let below = if is_root || stem == "mod" { folder.to_owned() } else { format!("{folder}/{stem}") };
    let mut found = Vec::new();
    let mut given_path = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some(name) = quoted_after(line, "#[path = ") {
            given_path = Some(name);
        } else if let Some(name) = quoted_after(line, "include!(") {
            found.push(join(folder, name));
        }
        let Some(name) = declared(line) else { continue };
        if let Some(given) = given_path.take() {
            found.push(join(folder, given));
            continue;
        }
        let places = [format!("{below}/{name}.rs"), format!("{below}/{name}/mod.rs")];
        found.extend(places.into_iter().filter(|place| tree.text(place).is_some()));
    }
    found
}

/// The name in a line that declares a module kept in another file.
fn declared(line: &str) -> Option<&str> {
    let mut rest = line;
    while rest.starts_with("#[") {
        rest = rest.split_once(']')?.1.trim_start();
    }
    if let Some(public) = rest.strip_prefix("pub") {
        rest = public.trim_start();
        if rest.starts_with('(') {
            rest = rest.split_once(')')?.1.trim_start();
        }
    }
    let name = rest.strip_prefix("mod ")?.split_once(';')?.0.trim();
    let plain = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    plain.then_some(name)
}

fn quoted_after<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    let rest = &line[line.find(start)? + start.len()..];
    rest.strip_prefix('"')?.split_once('"').map(|(name, _)| name)
}

/// Joins and takes out `..`, as the tree knows only plain paths.
fn join(folder: &str, name: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|p| !p.is_empty()).collect();
    for part in name.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(roots: &[&str]) -> Package {
        Package {
            name: "a".to_owned(),
            version: "0.1.0".to_owned(),
            licence: None,
            ours: true,
            needs: Vec::new(),
            dev_needs: Vec::new(),
            roots: roots.iter().map(|r| (*r).to_owned()).collect(),
        }
    }

    #[test]
    fn modules_are_followed_by_both_layouts_by_path_and_by_include() {
        let tree = Tree::of(&[
            ("a/src/lib.rs", "mod one;\npub(crate) mod two;\n#[cfg(test)] mod tests;\nmod inline { }\n"),
            ("a/src/one.rs", "pub mod deep;\n"),
            ("a/src/one/deep.rs", "#[path = \"../../shared/x.rs\"]\nmod x;\n"),
            ("a/src/two/mod.rs", "mod leaf;\n"),
            ("a/src/two/leaf.rs", "include!(\"../part.rs\");\n"),
            ("a/src/part.rs", ""),
            ("a/src/tests.rs", ""),
            ("a/shared/x.rs", ""),
            ("a/tests/it/main.rs", "mod case;\n"),
            ("a/tests/it/case.rs", ""),
        ]);
        let faults = dead_files(&tree, &[package(&["a/src/lib.rs", "a/tests/it/main.rs"])]);
        // `../../shared` from a/src/one is a/shared.
        assert_eq!(faults, Faults::new());
    }

    #[test]
    fn a_file_that_nothing_declares_is_dead_even_when_a_comment_names_it() {
        let tree = Tree::of(&[
            ("a/src/lib.rs", "// mod gone;\nmod here;\n"),
            ("a/src/here.rs", ""),
            ("a/src/gone.rs", ""),
        ]);
        let faults = dead_files(&tree, &[package(&["a/src/lib.rs"])]);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with("a/src/gone.rs:"), "{faults:?}");
    }
}
