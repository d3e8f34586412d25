//! The commands that the README files tell people to type: each must name a command, flags and files
//! that exist. Configurations that they check are checked here too.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use crate::Faults;

/// Files whose code blocks people copy. Each must hold a call of the program.
const READMES: [&str; 2] = ["README.md", "README.zh-TW.md"];

/// How a line of a code block may call the program.
const CALLS: [&str; 4] =
    ["cargo run --release -- ", "cargo run -- ", "sluicegate ", "target/release/sluicegate "];

/// Checks every command of every README.
///
/// # Errors
/// The program cannot be built.
pub(crate) fn run(root: &Path) -> Result<Faults, String> {
    let mut faults = Faults::new();
    for readme in READMES {
        let Ok(text) = std::fs::read_to_string(root.join(readme)) else {
            faults.push(format!("{readme}: missing"));
            continue;
        };
        let commands = commands(&text);
        let mut calls = 0;
        for (number, command) in &commands.lines {
            if let Some(args) = CALLS.iter().find_map(|call| command.strip_prefix(call)) {
                calls += 1;
                let found = check_call(root, args, &commands.written)?;
                faults.extend(
                    found.into_iter().map(|fault| format!("{readme}:{number}: `{command}`: {fault}")),
                );
            } else if let Some(fault) = script_fault(root, command) {
                faults.push(format!("{readme}:{number}: `{command}`: {fault}"));
            }
        }
        println!("{readme}: {calls} calls of sluicegate");
        if calls == 0 {
            faults.push(format!("{readme}: shows no call of sluicegate in a code block"));
        }
    }
    Ok(faults)
}

/// What the code blocks of a document say.
struct Commands {
    /// Command lines by line number, without prompt, comment and `&`.
    lines: Vec<(usize, String)>,
    /// Files that a command of the document writes, so that they need not be here.
    written: BTreeSet<String>,
}

fn commands(text: &str) -> Commands {
    let mut found = Commands { lines: Vec::new(), written: BTreeSet::new() };
    let mut in_shell = false;
    let mut carried: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            in_shell = !in_shell && ["sh", "bash", "console", "shell"].contains(&language.trim());
            continue;
        }
        if !in_shell {
            continue;
        }
        let line = line.trim().trim_start_matches("$ ");
        let line = line.split(" #").next().unwrap_or_default().trim().trim_end_matches('&').trim();
        let (number, mut whole) = carried.take().unwrap_or((index + 1, String::new()));
        whole.push_str(line.trim_end_matches('\\').trim_start_matches("./"));
        if line.ends_with('\\') {
            carried = Some((number, whole));
            continue;
        }
        let words: Vec<&str> = whole.split_whitespace().collect();
        let targets = words.windows(2).filter(|pair| pair[0] == ">").map(|pair| pair[1].to_owned());
        found.written.extend(targets);
        found.lines.push((number, whole));
    }
    found
}

/// Faults of one call of the program: its command, its flags, its files.
fn check_call(root: &Path, args: &str, written: &BTreeSet<String>) -> Result<Faults, String> {
    let words: Vec<&str> =
        args.split_whitespace().take_while(|word| !["|", ">", "&&", ";"].contains(word)).collect();
    let Some(name) = words.first().filter(|word| !word.starts_with('-')) else {
        return Ok(Faults::new());
    };
    let help = sluicegate(root, &[name, "--help"])?;
    if !help.status.success() {
        return Ok(vec![format!("there is no command `{name}`")]);
    }
    let mut faults = flag_faults(&words, &String::from_utf8_lossy(&help.stdout));
    let file = words.windows(2).find(|pair| ["-c", "--config"].contains(&pair[0])).map(|pair| pair[1]);
    let Some(file) = file.filter(|file| !written.contains(*file)) else { return Ok(faults) };
    if !root.join(file).is_file() {
        faults.push(format!("{file} does not exist"));
    } else {
        let checked = sluicegate(root, &["check", "-c", file])?;
        if !checked.status.success() {
            faults.push(format!("`check` refuses {file}: {}", String::from_utf8_lossy(&checked.stderr)));
        }
    }
    Ok(faults)
}

/// Flags that the help of their command does not name.
fn flag_faults(words: &[&str], help: &str) -> Faults {
    let known: BTreeSet<&str> = help.split([' ', ',', '=', '\n', '[', ']', '<']).collect();
    let flags =
        words.iter().filter(|word| word.starts_with('-')).map(|word| word.split('=').next().unwrap_or(word));
    flags.filter(|flag| !known.contains(flag)).map(|flag| format!("there is no flag `{flag}`")).collect()
}

fn sluicegate(root: &Path, args: &[&str]) -> Result<Output, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["run", "--quiet", "--locked", "--package", "sluicegate-cli", "--"])
        .args(args)
        .current_dir(root)
        .output()
        .map_err(|e| format!("cargo run: {e}"))?;
    // 101 is cargo's own failure (the program does not build), or a panic: neither is an answer.
    if output.status.code() == Some(101) {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(output)
}

/// Whether a line that starts a script of ours names one that can be started.
fn script_fault(root: &Path, command: &str) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let script = command.split_whitespace().next()?;
    if !script.starts_with("scripts/") && !script.starts_with("bench/") {
        return None;
    }
    match std::fs::metadata(root.join(script)) {
        Ok(meta) if meta.permissions().mode() & 0o111 != 0 => None,
        Ok(_) => Some("it cannot be executed".to_owned()),
        Err(_) => Some("it does not exist".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_from_shell_blocks_without_prompt_comment_and_ampersand() {
        let text = "`sluicegate no`\n```yaml\nsluicegate: no\n```\n```sh\n$ ./scripts/test --full   # long\n\
                    cargo run -- run \\\n  -c a.yaml &\ncat > b.yaml\n```\nsluicegate no\n";
        let found = commands(text);
        let lines: Vec<&str> = found.lines.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(lines, ["scripts/test --full", "cargo run -- run -c a.yaml", "cat > b.yaml"]);
        assert_eq!(found.lines[1].0, 7);
        assert!(found.written.contains("b.yaml"));
    }

    #[test]
    fn a_flag_that_the_help_does_not_name_is_a_fault() {
        let help =
            "Usage: sluicegate run [OPTIONS]\n  -c, --config <FILE>  the file\n      --log-format=<F>\n";
        assert_eq!(flag_faults(&["run", "-c", "a.yaml", "--log-format=json"], help), Faults::new());
        assert_eq!(flag_faults(&["run", "--conf", "a.yaml"], help), ["there is no flag `--conf`"]);
    }

    #[test]
    fn a_script_must_exist() {
        let root = crate::root();
        assert_eq!(script_fault(&root, "ls scripts"), None);
        assert!(script_fault(&root, "scripts/no-such-script").is_some_and(|f| f.contains("does not exist")));
    }
}
