//! Checks of the manifests that cargo itself does not make.

use crate::Faults;
use crate::tree::Tree;

/// Manifests that do not take the workspace's lints, or that name a version of their own.
pub(crate) fn check(tree: &Tree) -> Faults {
    let members = tree.texts().filter(|(path, _)| path.ends_with("/Cargo.toml"));
    members.flat_map(|(path, text)| check_one(path, text)).collect()
}

fn check_one(path: &str, text: &str) -> Faults {
    let mut faults = Faults::new();
    let mut section = "";
    let mut takes_lints = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.starts_with('[') {
            section = line;
        } else if section == "[lints]" && line.replace(' ', "") == "workspace=true" {
            takes_lints = true;
        } else if section.ends_with("dependencies]") && !line.is_empty() && own_version(line) {
            let number = index + 1;
            faults.push(format!(
                "{path}:{number}: `{line}`: versions stand once, in the root: NAME.workspace = true"
            ));
        }
    }
    if !takes_lints {
        faults.push(format!("{path}: does not take the workspace's lints: [lints] workspace = true"));
    }
    faults
}

/// Whether a dependency's line gives a version or a path instead of taking the workspace's.
fn own_version(line: &str) -> bool {
    let Some((key, value)) = line.split_once('=') else { return false };
    let (key, value) = (key.trim(), value.trim());
    !key.ends_with(".workspace") && !value.replace(' ', "").contains("workspace=true")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[dependencies]\na.workspace = true\nb = { workspace = true, features = [\"x\"] }\n\
                        # c = \"1\"\n\n[lints]\nworkspace = true\n";

    #[test]
    fn a_manifest_that_takes_all_from_the_workspace_is_fine_and_the_root_is_not_read() {
        let root = "[workspace.dependencies]\na = \"1\"\n";
        assert_eq!(check(&Tree::of(&[("Cargo.toml", root), ("crates/a/Cargo.toml", GOOD)])), Faults::new());
    }

    #[test]
    fn missing_lints_and_versions_of_its_own_are_faults() {
        let text = "[dev-dependencies]\na = \"1\"\nb = { path = \"../b\" }\n[lints.rust]\nworkspace = true\n";
        let faults = check(&Tree::of(&[("crates/a/Cargo.toml", text)]));
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults[0].starts_with("crates/a/Cargo.toml:2:"), "{faults:?}");
        assert!(faults[2].contains("lints"), "{faults:?}");
    }
}
