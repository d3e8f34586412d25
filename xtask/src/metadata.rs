//! What cargo knows of the workspace, as the few plain facts that the checks ask for.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// One package of the dependency graph.
pub(crate) struct Package {
    /// Name in its manifest.
    pub(crate) name: String,
    /// Version.
    pub(crate) version: String,
    /// SPDX expression, as the manifest gives it.
    pub(crate) licence: Option<String>,
    /// Whether it is one of ours.
    pub(crate) ours: bool,
    /// Dependencies that its users build as well: names of packages. Also build dependencies.
    pub(crate) needs: Vec<String>,
    /// Dependencies of its tests, examples and benchmarks only.
    pub(crate) dev_needs: Vec<String>,
    /// Root files of its targets, from the root of the workspace; filled for ours only.
    pub(crate) roots: Vec<String>,
}

/// Asks cargo for the graph, all features on, and the lock file as it stands.
///
/// # Errors
/// Cargo's own words when it fails, and answers that are not of the shape expected.
pub(crate) fn read(root: &Path) -> Result<Vec<Package>, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--all-features"])
        .current_dir(root)
        .output()
        .map_err(|e| format!("cargo metadata: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let value = serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata: {e}"))?;
    parse(&value).ok_or_else(|| "cargo metadata: an answer of another shape than version 1".to_owned())
}

/// Takes the facts from cargo's answer; `None` when a field is missing.
pub(crate) fn parse(value: &Value) -> Option<Vec<Package>> {
    let root = format!("{}/", value["workspace_root"].as_str()?);
    let members: Vec<&str> =
        value["workspace_members"].as_array()?.iter().filter_map(Value::as_str).collect();
    let packages = value["packages"].as_array()?;
    let name_of: BTreeMap<&str, &str> =
        packages.iter().filter_map(|p| Some((p["id"].as_str()?, p["name"].as_str()?))).collect();
    let mut edges = BTreeMap::new();
    for node in value["resolve"]["nodes"].as_array()? {
        edges.insert(node["id"].as_str()?, split_edges(node, &name_of)?);
    }
    let mut found = Vec::with_capacity(packages.len());
    for package in packages {
        let id = package["id"].as_str()?;
        let ours = members.contains(&id);
        let (needs, dev_needs) = edges.remove(id).unwrap_or_default();
        let targets = package["targets"].as_array()?.iter().filter_map(|t| t["src_path"].as_str());
        let roots = targets.filter(|_| ours).filter_map(|path| path.strip_prefix(&root)).map(str::to_owned);
        found.push(Package {
            name: package["name"].as_str()?.to_owned(),
            version: package["version"].as_str()?.to_owned(),
            licence: package["license"].as_str().map(str::to_owned),
            ours,
            needs,
            dev_needs,
            roots: roots.collect(),
        });
    }
    Some(found)
}

/// The edges of one node: what users build as well, and what only its tests need.
fn split_edges(node: &Value, name_of: &BTreeMap<&str, &str>) -> Option<(Vec<String>, Vec<String>)> {
    let (mut needs, mut dev_needs) = (Vec::new(), Vec::new());
    for dep in node["deps"].as_array()? {
        let name = (*name_of.get(dep["pkg"].as_str()?)?).to_owned();
        let kinds = dep["dep_kinds"].as_array()?;
        if kinds.iter().any(|k| k["kind"].as_str() != Some("dev")) {
            needs.push(name);
        } else {
            dev_needs.push(name);
        }
    }
    Some((needs, dev_needs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn edges_are_split_by_kind_and_roots_are_relative() {
        let value = json!({
            "workspace_root": "/w",
            "workspace_members": ["a"],
            "packages": [
                {"id": "a", "name": "ours", "version": "0.1.0", "license": "MIT", "targets": [{"src_path": "/w/a/src/lib.rs"}]},
                {"id": "b", "name": "theirs", "version": "1.0.0", "license": null, "targets": [{"src_path": "/r/b/src/lib.rs"}]},
                {"id": "c", "name": "tests", "version": "1.0.0", "license": "MIT", "targets": []},
            ],
            "resolve": {"nodes": [
                {"id": "a", "deps": [
                    {"pkg": "b", "dep_kinds": [{"kind": "dev"}, {"kind": null}]},
                    {"pkg": "c", "dep_kinds": [{"kind": "dev"}]},
                ]},
                {"id": "b", "deps": []},
                {"id": "c", "deps": []},
            ]},
        });
        let packages = parse(&value).expect("all fields are there");
        assert_eq!(packages[0].needs, ["theirs"]);
        assert_eq!(packages[0].dev_needs, ["tests"]);
        assert_eq!(packages[0].roots, ["a/src/lib.rs"]);
        assert!(packages[0].ours && !packages[1].ours);
        assert_eq!((packages[1].licence.as_deref(), packages[1].roots.len()), (None, 0));
        assert!(parse(&json!({"packages": []})).is_none());
    }
}
