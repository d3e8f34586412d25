//! The licence of every dependency, also of those for other platforms and of tests.

use std::path::Path;

use crate::metadata::{self, Package};
use crate::{Faults, spdx};

/// Checks every package of the graph.
///
/// # Errors
/// Cargo cannot give the graph.
pub(crate) fn run(root: &Path) -> Result<Faults, String> {
    let packages = metadata::read(root)?;
    let faults = check(&packages);
    println!("{} packages, {} with a licence that is not allowed", packages.len(), faults.len());
    Ok(faults)
}

fn check(packages: &[Package]) -> Faults {
    packages.iter().filter_map(fault_of).collect()
}

fn fault_of(package: &Package) -> Option<String> {
    let named = format!("{} {}", package.name, package.version);
    let Some(expression) = &package.licence else {
        return Some(format!("{named}: its manifest gives no SPDX licence: read its files and decide"));
    };
    match spdx::allowed(expression) {
        Ok(true) => None,
        Ok(false) => {
            Some(format!("{named}: {expression}: not among the allowed licences (xtask/src/spdx.rs)"))
        }
        Err(why) => Some(format!("{named}: {expression}: cannot be read: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(licence: Option<&str>) -> Package {
        Package {
            name: "a".to_owned(),
            version: "1.2.3".to_owned(),
            licence: licence.map(str::to_owned),
            ours: false,
            needs: Vec::new(),
            dev_needs: Vec::new(),
            roots: Vec::new(),
        }
    }

    #[test]
    fn each_kind_of_offender_is_named_with_its_version() {
        let packages =
            [package(Some("MIT")), package(None), package(Some("GPL-3.0-only")), package(Some("MIT OR"))];
        let faults = check(&packages);
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults.iter().all(|fault| fault.starts_with("a 1.2.3: ")), "{faults:?}");
    }
}
