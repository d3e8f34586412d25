//! Checks that read lines: sizes, words that must not land, names of one machine or registry, litter.

use crate::Faults;
use crate::tree::Tree;

/// Longest source file. Beyond it a file holds two concepts: split it by concept.
const LINES_MAX: usize = 600;

/// Left-overs that no commit should hold. Split, so that this list is not found by itself.
const LEFTOVERS: [&str; 6] = [
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("FIX", "ME"),
    concat!("TO", "DO"),
    concat!("X", "XX"),
    concat!("<<<<", "<<< "),
];

/// Hosts of package registries and their mirrors: which one a build uses is the builder's setting, never ours.
const REGISTRY_HOSTS: [&str; 9] = [
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("npmjs", ".org"),
    concat!("npmjs", ".com"),
    concat!("deb.debian", ".org"),
    concat!("proxy.golang", ".org"),
    concat!("repo1.maven", ".org"),
    concat!("repo.maven.apache", ".org"),
];

/// Home folders: a path below one of them is right on one machine only.
const HOMES: [&str; 3] = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];

/// Endings of files in which left-over words are looked for (documents may speak about them).
const CODE: [&str; 12] =
    [".rs", ".toml", ".yaml", ".yml", ".lua", ".js", ".ts", ".java", ".py", ".sh", ".html", ".css"];

/// Endings and names that editors, merges and profilers leave behind.
const LITTER: [&str; 8] =
    [".profraw", ".orig", ".rej", ".swp", ".DS_Store", "perf.data", ".proptest-tmp", "nohup.out"];

/// Source files longer than the limit.
pub(crate) fn sizes(tree: &Tree) -> Faults {
    let sources = tree.texts().filter(|(path, _)| path.ends_with(".rs") || path.ends_with(".java"));
    let long = sources.map(|(path, text)| (path, text.lines().count())).filter(|(_, n)| *n > LINES_MAX);
    long.map(|(path, n)| format!("{path}: {n} lines, {LINES_MAX} at most: split it by concept")).collect()
}

/// Words that mark unfinished work, and tests switched off without a reason.
pub(crate) fn leftovers(tree: &Tree) -> Faults {
    let mut faults = Faults::new();
    for (path, text) in tree.texts().filter(|(path, _)| is_code(path)) {
        for (number, line) in numbered(text) {
            if let Some(word) = LEFTOVERS.iter().find(|word| line.contains(**word)) {
                faults
                    .push(format!("{path}:{number}: `{word}`: finish it, or file it and take the note out"));
            }
            let ignored = line.trim_start();
            if path.ends_with(".rs") && ignored.starts_with(concat!("#[ign", "ore]")) {
                faults.push(format!("{path}:{number}: a test ignored without a reason: #[ignore = \"why\"]"));
            }
        }
    }
    faults
}

/// Names that are right on one machine or with one registry only. `places` are more such paths, known when
/// the check runs: where this working copy lies, and what lies beside it.
pub(crate) fn machine_names(tree: &Tree, places: &[String]) -> Faults {
    let mut faults = Faults::new();
    // cargo writes the name of its public index into every lock file; `lock_sources` reads that one.
    for (path, text) in tree.texts().filter(|(path, _)| !path.ends_with("Cargo.lock")) {
        for (number, line) in numbered(text) {
            if let Some(host) = REGISTRY_HOSTS.iter().find(|host| line.contains(**host)) {
                faults.push(format!(
                    "{path}:{number}: names the registry {host}: leave the choice to the builder"
                ));
            }
            let home = HOMES.iter().find(|home| names_path(line, home, true));
            let place = places.iter().find(|place| names_path(line, place, false));
            if let Some(found) = home.copied().or(place.map(String::as_str)) {
                faults.push(format!(
                    "{path}:{number}: names a path of one machine ({found}): make it relative"
                ));
            }
        }
    }
    faults
}

/// Packages in the lock file that come from anywhere but the public index: nobody else could build them.
pub(crate) fn lock_sources(tree: &Tree) -> Faults {
    let Some(lock) = tree.text("Cargo.lock") else {
        return vec!["Cargo.lock: missing: commit it, CI builds with --locked".to_owned()];
    };
    let public = concat!("source = \"registry+https://github.com/rust-lang/crates", ".io-index\"");
    let others = numbered(lock).filter(|(_, line)| line.starts_with("source = ") && *line != public);
    others.map(|(n, line)| format!("Cargo.lock:{n}: not from the public index: {line}")).collect()
}

/// Files that tools leave behind.
pub(crate) fn litter(tree: &Tree) -> Faults {
    let left = tree.paths().filter(|path| {
        LITTER.iter().any(|end| path.ends_with(end)) || path.starts_with(".idea/") || path.contains("/.idea/")
    });
    left.map(|path| format!("{path}: left by a tool: remove it")).collect()
}

fn is_code(path: &str) -> bool {
    CODE.iter().any(|end| path.ends_with(end)) || path.starts_with("scripts/") || path.starts_with(".ci/")
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// Whether `line` holds `path` as the start of an absolute path: not as the tail of a longer path or of a
/// URL. With `child`, a name must follow, so that a route like `/home/**` is none.
fn names_path(line: &str, path: &str, child: bool) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + path.len()..].chars().next();
        let starts = before.is_none_or(|c| !(c.is_alphanumeric() || "._-/}*".contains(c)));
        let named = after.is_some_and(|c| c.is_alphanumeric() || c == '.' || c == '_');
        starts && if child { named } else { !named }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_601_lines_is_too_long_and_one_of_600_is_not() {
        let (fits, long) = ("x\n".repeat(600), "x\n".repeat(601));
        let tree = Tree::of(&[("a.rs", &fits), ("b.rs", &long), ("c.md", &long), ("d.java", &long)]);
        let faults = sizes(&tree);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("b.rs: 601 lines"), "{faults:?}");
        assert!(faults[1].starts_with("d.java: 601 lines"), "{faults:?}");
    }

    #[test]
    fn unfinished_words_are_found_with_their_line_in_code_only() {
        let word = LEFTOVERS[2];
        let text = format!("fn a() {{}}\n// {word}: later\n");
        let faults = leftovers(&Tree::of(&[("a.rs", &text), ("scripts/test", &text), ("a.md", &text)]));
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("a.rs:2:") && faults[1].starts_with("scripts/test:2:"), "{faults:?}");
    }

    #[test]
    fn an_ignored_test_needs_its_reason() {
        let bare = concat!("#[ign", "ore]\nfn a() {}\n");
        let with = "    #[ignore = \"needs root\"]\nfn a() {}\n";
        let faults = leftovers(&Tree::of(&[("a.rs", bare), ("b.rs", with)]));
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with("a.rs:1:"), "{faults:?}");
    }

    #[test]
    fn homes_and_working_copies_are_machine_names_and_routes_are_not() {
        let home = format!("cd {}someone/x\n", HOMES[1]);
        let place = "# see /srv/copy/notes\n";
        let routes = format!(
            "match: \"GET {}**\"\nhttp://host{}x\n/srv/copy2\nhttp://a/srv/copy\n",
            HOMES[1], HOMES[0]
        );
        let tree = Tree::of(&[("a.sh", &home), ("b.md", place), ("c.yaml", &routes)]);
        let faults = machine_names(&tree, &["/srv/copy".to_owned()]);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("a.sh:1:") && faults[1].starts_with("b.md:1:"), "{faults:?}");
    }

    #[test]
    fn a_registry_is_named_nowhere_but_in_the_lock_file() {
        let text = format!("index = \"https://{}\"\n", REGISTRY_HOSTS[1]);
        let faults = machine_names(&Tree::of(&[("a.toml", &text), ("Cargo.lock", &text)]), &[]);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with("a.toml:1:"), "{faults:?}");
    }

    #[test]
    fn a_git_dependency_in_the_lock_file_is_a_fault() {
        let public = concat!("source = \"registry+https://github.com/rust-lang/crates", ".io-index\"\n");
        assert_eq!(lock_sources(&Tree::of(&[("Cargo.lock", public)])), Faults::new());
        let text = format!("{public}source = \"git+https://example.org/x\"\n");
        assert!(lock_sources(&Tree::of(&[("Cargo.lock", &text)]))[0].starts_with("Cargo.lock:2:"));
        assert_eq!(lock_sources(&Tree::of(&[])).len(), 1);
    }

    #[test]
    fn litter_is_found_by_name() {
        let tree = Tree::of(&[("a/default.profraw", ""), (".idea/x.xml", ""), ("src/lib.rs", "")]);
        assert_eq!(litter(&tree).len(), 2);
    }
}
