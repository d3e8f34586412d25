//! Reference pages that are printed by the program itself, so that they cannot say anything else.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Faults, reference};

/// The configuration's schema, as `sluicegate schema` prints it.
const SCHEMA: &str = "docs/reference/config.schema.json";
/// The same for people.
const REFERENCE: &str = "docs/reference/config.md";

/// The decision service's OpenAPI document.
const OPENAPI: &str = "docs/reference/decisions.openapi.json";

/// Writes the generated files; with `check_only`, compares instead.
///
/// # Errors
/// The program cannot be built or fails, prints no JSON, or a file cannot be written.
pub(crate) fn run(root: &Path, check_only: bool) -> Result<Faults, String> {
    let mut faults = Faults::new();
    let (text, schema) = printed(root, &["schema"])?;
    let (openapi, _) = printed(root, &["schema", "--openapi"])?;
    for (path, fresh) in [(SCHEMA, text), (REFERENCE, reference::page(&schema)), (OPENAPI, openapi)] {
        let file = root.join(path);
        if check_only {
            faults.extend(drift(path, fs::read_to_string(&file).ok().as_deref(), &fresh));
        } else {
            let folder = file.parent().ok_or_else(|| format!("{path}: has no folder"))?;
            fs::create_dir_all(folder).map_err(|e| format!("{path}: {e}"))?;
            fs::write(&file, fresh).map_err(|e| format!("{path}: {e}"))?;
            println!("wrote {path}");
        }
    }
    Ok(faults)
}

/// What the program prints, checked to be JSON.
fn printed(root: &Path, args: &[&str]) -> Result<(String, serde_json::Value), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["run", "--quiet", "--locked", "--package", "sluicegate-cli", "--"])
        .args(args)
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cargo run: {e}"))?;
    if !output.status.success() {
        return Err(format!("`sluicegate {}`: {}", args.join(" "), output.status));
    }
    let text =
        String::from_utf8(output.stdout).map_err(|e| format!("`sluicegate {}`: {e}", args.join(" ")))?;
    let value: Result<serde_json::Value, _> = serde_json::from_str(&text);
    let value = value.map_err(|e| format!("`sluicegate {}` printed no JSON: {e}", args.join(" ")))?;
    Ok((text, value))
}

fn drift(path: &str, there: Option<&str>, fresh: &str) -> Option<String> {
    let mend = "run `cargo xtask gen` and commit the result";
    let Some(there) = there else { return Some(format!("{path}: missing: {mend}")) };
    if there == fresh {
        return None;
    }
    let same = there.lines().zip(fresh.lines()).take_while(|(a, b)| a == b).count();
    Some(format!("{path}:{}: differs from what the program prints: {mend}", same + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_names_the_first_line_that_differs() {
        assert_eq!(drift("a.json", Some("{\n}\n"), "{\n}\n"), None);
        let changed = drift("a.json", Some("{\n\"a\": 1}\n"), "{\n\"b\": 1}\n").expect("they differ");
        assert!(changed.starts_with("a.json:2:"), "{changed}");
        let shorter = drift("a.json", Some("{\n"), "{\n}\n").expect("they differ");
        assert!(shorter.starts_with("a.json:2:"), "{shorter}");
        let missing = drift("a.json", None, "{}").expect("nothing is there");
        assert!(missing.starts_with("a.json: missing"), "{missing}");
    }
}
