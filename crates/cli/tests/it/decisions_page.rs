//! The commands of `docs/decisions.md`, run as they stand there.

use std::process::Command;

use crate::decisions::Deciding;

fn file(path: &str) -> String {
    let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_pages_commands_do_what_they_say() {
    // The example file but for its listeners.
    let example = file("examples/decisions.yaml");
    let rules: String = example
        .lines()
        .filter(|line| !line.starts_with("decisions:") && !line.starts_with("admin:"))
        .map(|line| format!("{line}\n"))
        .collect();
    let running = Deciding::start(&rules);
    let page = file("docs/decisions.md");
    let blocks: Vec<&str> =
        page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 4, "the page has its commands");
    let script = blocks.concat().replace("http://127.0.0.1:8090", &format!("http://{}", running.decisions));
    let output = Command::new("bash").args(["-euo", "pipefail", "-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for words in ["\"expires_in_ms\":30000", "\"pod\":\"a\"", "\"released\":1", "\"weight\":3"] {
        assert!(said.contains(words), "`{words}` is missing in:\n{said}");
    }
}
