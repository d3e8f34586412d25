//! Style as a test: all checks of the tree that take no compiler.

use std::path::Path;

use crate::tree::Tree;
use crate::{Faults, edges, java, manifests, metadata, modules, named_paths, text};

/// Runs every check and returns all that they find.
///
/// # Errors
/// The tree cannot be read, or cargo cannot give the graph.
pub(crate) fn run(root: &Path) -> Result<Faults, String> {
    let tree = Tree::read(root)?;
    let packages = metadata::read(root)?;
    let mut faults = text::sizes(&tree);
    faults.extend(java::long_functions(&tree));
    faults.extend(text::leftovers(&tree));
    faults.extend(text::machine_names(&tree, &places_of(root)));
    faults.extend(text::lock_sources(&tree));
    faults.extend(text::litter(&tree));
    faults.extend(manifests::check(&tree));
    faults.extend(edges::check(&packages));
    faults.extend(modules::dead_files(&tree, &packages));
    faults.extend(named_paths::check(&tree));
    Ok(faults)
}

/// Paths that only this machine has: the working copy, and what lies beside it (a text that names a
/// neighbour was written for one machine). A copy at the top of the file system has no such neighbours.
fn places_of(root: &Path) -> Vec<String> {
    let Ok(root) = root.canonicalize() else { return Vec::new() };
    let Some(parent) = root.parent().filter(|p| p.parent().is_some()) else {
        return Vec::new();
    };
    let beside = std::fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut places: Vec<String> = beside.filter_map(|path| path.to_str().map(str::to_owned)).collect();
    places.sort();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_working_copy_itself_is_a_place_of_this_machine() {
        let root = crate::root().canonicalize().expect("the repository is there");
        let places = places_of(&root);
        let at_top = root.parent().is_none_or(|p| p.parent().is_none());
        assert_eq!(places.iter().any(|place| Path::new(place) == root), !at_top);
    }
}
