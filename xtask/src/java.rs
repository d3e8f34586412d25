//! Java's long functions: clippy looks at those of Rust, and javac at none.

use crate::Faults;
use crate::tree::Tree;

/// Longest function, lines: the bound of clippy.toml.
const LINES_MAX: usize = 70;

/// What the braces of a block belong to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    /// A class or its like: its blocks with parameters are functions.
    Type,
    /// A function, from this line.
    Function(usize),
    /// A statement, or whatever stands within a function.
    Other,
}

/// Functions of Java that are longer than the bound.
pub(crate) fn long_functions(tree: &Tree) -> Faults {
    let sources = tree.texts().filter(|(path, _)| path.ends_with(".java"));
    sources.flat_map(|(path, text)| of_file(path, text)).collect()
}

fn of_file(path: &str, text: &str) -> Faults {
    let mut faults = Faults::new();
    let mut blocks: Vec<Block> = Vec::new();
    // What stands before a brace since the last statement or block, and where it began.
    let (mut header, mut begin) = (String::new(), 1);
    for (line, letter) in code(text) {
        match letter {
            '{' => {
                blocks.push(kind(&header, blocks.last().copied(), begin));
                header.clear();
            }
            '}' => {
                if let Some(Block::Function(from)) = blocks.pop() {
                    let lines = line - from + 1;
                    if lines > LINES_MAX {
                        faults.push(format!(
                            "{path}:{from}: a function of {lines} lines, {LINES_MAX} at most: split it"
                        ));
                    }
                }
                header.clear();
            }
            ';' => header.clear(),
            _ => {
                if header.is_empty() && !letter.is_whitespace() {
                    begin = line;
                }
                if !header.is_empty() || !letter.is_whitespace() {
                    header.push(letter);
                }
            }
        }
    }
    faults
}

fn kind(header: &str, parent: Option<Block>, begin: usize) -> Block {
    let mut words = header.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    if words.any(|word| matches!(word, "class" | "interface" | "enum" | "record" | "new")) {
        return Block::Type;
    }
    match parent {
        None => Block::Type,
        Some(Block::Type) if header.contains('(') => Block::Function(begin),
        Some(Block::Type) => Block::Type,
        Some(_) => Block::Other,
    }
}

/// The letters of the code with their lines, without comments, texts and letters in quotes.
fn code(text: &str) -> Vec<(usize, char)> {
    let mut kept = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(letter) = rest.chars().next() {
        let taken = skipped(rest).unwrap_or_else(|| {
            kept.push((line, letter));
            letter.len_utf8()
        });
        line += rest[..taken].matches('\n').count();
        rest = &rest[taken..];
    }
    kept
}

/// How much of `rest` is a comment or a quotation that begins here.
fn skipped(rest: &str) -> Option<usize> {
    let through =
        |end: &str, from: usize| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(through("*/", 2));
    }
    if rest.starts_with("\"\"\"") {
        return Some(through("\"\"\"", 3));
    }
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut escaped = false;
    let end = rest[1..].find(|c: char| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    Some(end.map_or(rest.len(), |at| at + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(function: &str) -> Faults {
        let text = format!("package a;\n\n/** A {{ in words. */\nclass A {{\n{function}\n}}\n");
        long_functions(&Tree::of(&[("A.java", &text), ("a.md", &text)]))
    }

    fn long(head: &str, lines: usize) -> String {
        format!("    {head} {{\n{}    }}", "        go();\n".repeat(lines))
    }

    #[test]
    fn a_function_of_71_lines_is_too_long_and_one_of_70_is_not() {
        assert_eq!(faults(&long("void a()", 68)), Faults::new());
        let found = faults(&long("@Override\n    public <T> T a(B b)\n            throws C", 67));
        assert_eq!(found, ["A.java:5: a function of 71 lines, 70 at most: split it"]);
    }

    #[test]
    fn types_within_types_are_none_and_their_functions_are_looked_at() {
        let many: String = (0..30).map(|_| "    void a() {\n        go();\n    }\n").collect();
        let inner = format!(
            "enum E {{ ONE {{\n{many}}} }}\nA a = new A(1) {{\n{many}}};\nrecord R(int x) {{\n{many}}}"
        );
        assert_eq!(faults(&inner), Faults::new());
        assert_eq!(faults(&format!("static class B {{\n{}\n}}", long("B()", 80))).len(), 1);
    }

    #[test]
    fn braces_in_quotes_and_comments_are_no_blocks() {
        let quoted = r#"String a = "}\"}"; char b = '}', c = '\''; // }
            String d = """
                } "quoted" }
                """; /* } */"#;
        let found = faults(&format!("    void a() {{\n{quoted}\n}}\n{}", long("void b()", 69)));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("71 lines"), "{found:?}");
    }
}
