//! The table of a measurement: printed, and put between its marks in BENCHMARKS.md.

use std::fs;

use crate::{Outcome, Settings, machine};

const PAGE: &str = "BENCHMARKS.md";
const END: &str = "<!-- /bench -->";

/// What one measurement has to say.
pub(crate) struct Section {
    name: &'static str,
    machine: String,
    lines: Vec<String>,
}

impl Section {
    /// Made before the measurement, so that the load average is the one it met.
    pub(crate) fn begin(name: &'static str) -> Section {
        Section { name, machine: machine::line(), lines: Vec::new() }
    }

    /// Begins a table.
    pub(crate) fn table(&mut self, columns: &[&str]) {
        self.lines.push(String::new());
        self.lines.push(format!("| {} |", columns.join(" | ")));
        self.lines.push(format!("|{}", "---|".repeat(columns.len())));
    }

    /// A row of the table begun last: cells between bars. It is shown at once too, for those who watch.
    pub(crate) fn row(&mut self, cells: impl Into<String>) {
        let row = format!("| {} |", cells.into());
        eprintln!("{row}");
        self.lines.push(row);
    }

    /// A paragraph.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.lines.push(String::new());
        self.lines.push(text.into());
    }

    /// Prints it, and writes it if asked to.
    ///
    /// # Errors
    /// The page has no marks for this measurement, or cannot be read or written.
    pub(crate) fn end(self, settings: &Settings) -> Outcome<()> {
        let mut options = String::new();
        if settings.runs != RUNS {
            options += &format!(" --runs {}", settings.runs);
        }
        if let Some(seconds) = settings.seconds {
            options += &format!(" --seconds {seconds}");
        }
        let profile =
            if profile() == "release" { "--release".to_owned() } else { format!("--profile {}", profile()) };
        let text = format!(
            "`cargo run {profile} -p sluicegate-bench -- {}{options}` · {}{}\n{}\n",
            self.name,
            self.machine,
            if settings.bin.is_some() {
                ", **a binary named by --bin**: not surely of that commit"
            } else {
                ""
            },
            self.lines.join("\n")
        );
        println!("{text}");
        if !settings.write {
            return Ok(());
        }
        let page = fs::read_to_string(PAGE).map_err(|error| format!("{PAGE}: {error}"))?;
        let page = replaced(&page, self.name, &text)
            .ok_or_else(|| format!("{PAGE}: no `{}` with an `{END}` after it", mark(self.name)))?;
        fs::write(PAGE, page).map_err(|error| format!("{PAGE}: {error}"))
    }
}

/// The default of `--runs`, which a command line need not name.
const RUNS: u32 = 20;

/// The folder of this program below `target`: cargo names it by the profile.
pub(crate) fn profile() -> String {
    let program = std::env::current_exe().ok();
    let folder = program.as_deref().and_then(|path| path.parent()).and_then(|folder| folder.file_name());
    folder.map_or_else(|| "release".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn mark(name: &str) -> String {
    format!("<!-- bench:{name} -->")
}

fn replaced(page: &str, name: &str, text: &str) -> Option<String> {
    let (head, rest) = page.split_once(&mark(name))?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{}\n{text}{END}{tail}", mark(name)))
}

#[cfg(test)]
mod tests {
    use super::replaced;

    #[test]
    fn only_the_named_part_changes() {
        let page = "a\n<!-- bench:x -->\nold\n<!-- /bench -->\nb\n<!-- bench:y -->\n<!-- /bench -->\n";
        let new = replaced(page, "x", "new\n").expect("the marks are there");
        assert_eq!(new, "a\n<!-- bench:x -->\nnew\n<!-- /bench -->\nb\n<!-- bench:y -->\n<!-- /bench -->\n");
        assert_eq!(replaced(&new, "x", "new\n"), Some(new));
        assert_eq!(replaced(page, "z", ""), None);
    }
}
