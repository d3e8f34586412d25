//! The files of the repository as the checks see them: text, by path from the root, in a fixed order.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Folders that hold no source: what cargo, git and package managers make.
const SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];

/// Every file below the root. Text files carry their content, others `None`.
pub(crate) struct Tree {
    files: BTreeMap<String, Option<String>>,
}

impl Tree {
    /// Reads the tree.
    ///
    /// # Errors
    /// A folder or file that cannot be read, by name. A file that vanishes while the tree is read is
    /// left out: editors write and rename.
    pub(crate) fn read(root: &Path) -> Result<Tree, String> {
        let mut files = BTreeMap::new();
        walk(root, "", &mut files)?;
        Ok(Tree { files })
    }

    /// The text files, with their content.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter_map(|(path, text)| Some((path.as_str(), text.as_deref()?)))
    }

    /// All paths, of text or not.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The content of one text file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.as_deref()
    }

    /// Whether `path` names a file or a folder of the tree.
    pub(crate) fn holds(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let folder = format!("{path}/");
        self.files.contains_key(path)
            || self.files.range(folder.clone()..).next().is_some_and(|(p, _)| p.starts_with(&folder))
    }

    /// A tree made of literals, for the tests of the checks.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Tree {
        let files = files.iter().map(|(p, t)| ((*p).to_owned(), Some((*t).to_owned()))).collect();
        Tree { files }
    }
}

fn walk(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Option<String>>) -> Result<(), String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for entry in entries {
        let entry = entry.map_err(|e| format!("{}: {e}", folder.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if SKIPPED.contains(&name.as_str()) {
            continue;
        }
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            walk(&entry.path(), &path, files)?;
        } else if kind.is_file() {
            match fs::read(entry.path()) {
                Ok(bytes) => {
                    files.insert(path, String::from_utf8(bytes).ok());
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(format!("{path}: {e}")),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_counts_as_held_and_a_prefix_of_a_name_does_not() {
        let tree = Tree::of(&[("crates/core/src/lib.rs", "")]);
        assert!(tree.holds("crates/core/"));
        assert!(tree.holds("crates/core/src/lib.rs"));
        assert!(!tree.holds("crates/cor"));
        assert!(!tree.holds("crates/core/src/lib"));
    }

    #[test]
    fn this_repository_is_read_without_what_cargo_made() {
        let tree = Tree::read(&crate::root()).expect("the repository can be read");
        assert!(tree.text("xtask/src/tree.rs").is_some_and(|t| t.contains("fn walk")));
        assert_eq!(tree.paths().find(|p| p.starts_with("target/") || p.starts_with(".git/")), None);
    }
}
