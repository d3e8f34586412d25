//! YAML text to a tree whose every node knows its line and column.
//!
//! Variables of the environment are put in *after* the text is taken apart, so that no value of a
//! variable can add keys or end a quotation.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::env;
use crate::problem::{Problem, nearest, quoted};

/// Longest text read, in bytes. Ten thousand pods take about 1 MiB.
const TEXT_MAX: usize = 8 << 20;
/// Deepest nesting. The schema needs 6.
pub(crate) const DEPTH_MAX: usize = 32;
/// Most nodes, those that aliases repeat included: bounds a "billion laughs" file.
const NODES_MAX: usize = 500_000;

/// Where a node or key begins; line 0 means that it comes from a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// One value of the file.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) mark: Mark,
    /// Keys whose faulty values were reported and taken out: that they are missing is no news. For a
    /// list one empty text per item.
    pub(crate) gone: Vec<String>,
    pub(crate) value: Value,
}

#[derive(Clone)]
pub(crate) enum Value {
    /// Already reported; whoever meets it takes it out without a word.
    Bad,
    /// `plain`: not quoted, or made by a variable; may be read as number, bool or null.
    Scalar {
        text: String,
        plain: bool,
    },
    Seq(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) mark: Mark,
    pub(crate) node: Node,
}

/// One step of a path into the tree.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> From<&'a str> for Step<'a> {
    fn from(key: &'a str) -> Self {
        Step::Key(key)
    }
}

impl From<usize> for Step<'_> {
    fn from(index: usize) -> Self {
        Step::Index(index)
    }
}

impl Node {
    pub(crate) fn new(mark: Mark, value: Value) -> Node {
        Node { mark, gone: Vec::new(), value }
    }

    pub(crate) fn plain(text: impl Into<String>) -> Node {
        Node::new(Mark::default(), Value::Scalar { text: text.into(), plain: true })
    }

    pub(crate) fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar { text, plain: true } => {
                matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }

    /// True when the value of `key` was there, was reported and was taken out.
    pub(crate) fn lost(&self, key: &str) -> bool {
        self.gone.iter().any(|gone| gone == key)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        match &mut self.value {
            Value::Map(entries) => entries.iter_mut().find(|e| e.key == key).map(|e| &mut e.node),
            _ => None,
        }
    }

    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::Seq(items) => items,
            _ => &[],
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Sets a key of a mapping; without effect on anything else.
    pub(crate) fn set(&mut self, key: &str, node: Node) {
        if let Value::Map(entries) = &mut self.value {
            match entries.iter_mut().find(|entry| entry.key == key) {
                Some(entry) => entry.node = node,
                None => entries.push(Entry { key: key.to_owned(), mark: node.mark, node }),
            }
        }
    }

    /// Takes a key out of a mapping.
    pub(crate) fn unset(&mut self, key: &str) -> Option<Node> {
        match &mut self.value {
            Value::Map(entries) => {
                let index = entries.iter().position(|entry| entry.key == key)?;
                Some(entries.remove(index).node)
            }
            _ => None,
        }
    }

    /// The deepest node of `path` that exists: its mark, and its name for people (`apis.order.weight`).
    pub(crate) fn locate(&self, path: &[Step<'_>]) -> (Mark, String) {
        let (mut node, mut name) = (self, String::new());
        for step in path {
            let next = match step {
                Step::Key(key) => node.get(key),
                Step::Index(index) => node.items().get(*index),
            };
            let Some(next) = next else { break };
            match step {
                Step::Key(key) => push_key(&mut name, key),
                Step::Index(index) => push_item(&mut name, *index, next),
            }
            node = next;
        }
        (node.mark, name)
    }

    fn size(&self) -> usize {
        1 + match &self.value {
            Value::Seq(items) => items.iter().map(Node::size).sum(),
            Value::Map(entries) => entries.iter().map(|entry| entry.node.size()).sum(),
            _ => 0,
        }
    }
}

pub(crate) fn push_key(name: &mut String, key: &str) {
    if !name.is_empty() {
        name.push('.');
    }
    name.extend(key.chars().take(60).flat_map(char::escape_debug));
}

/// An item of a list is called by its `name` where it has one.
pub(crate) fn push_item(name: &mut String, index: usize, item: &Node) {
    match item.get("name").and_then(Node::text).filter(|text| !text.is_empty()) {
        Some(text) => push_key(name, text),
        None => name.push_str(&format!("[{index}]")),
    }
}

/// A tree and what was wrong with its text. No root: the text cannot be read at all.
pub(crate) struct Read {
    pub(crate) root: Option<Node>,
    pub(crate) problems: Vec<Problem>,
}

/// Reads one YAML document.
pub(crate) fn read(file: &str, text: &str, vars: &dyn Fn(&str) -> Option<String>) -> Read {
    let mut builder = Builder {
        file,
        vars,
        stack: Vec::new(),
        root: None,
        anchors: HashMap::new(),
        nodes: 0,
        documents: 0,
        problems: Vec::new(),
    };
    let root = if text.len() > TEXT_MAX {
        let what = format!("the file has {} bytes; at most {TEXT_MAX} are read", text.len());
        builder.problem(
            Mark { line: 1, column: 1 },
            what,
            "keep many pods in their own file: `pods: {file: …}`",
        );
        None
    } else {
        builder.run(text)
    };
    Read { root, problems: builder.problems }
}

struct Frame {
    mark: Mark,
    anchor: usize,
    kind: FrameKind,
}

enum FrameKind {
    Seq(Vec<Node>),
    /// `key`: read and waiting for its value; `None` inside: a key that was reported, its value is dropped.
    Map {
        entries: Vec<Entry>,
        key: Option<(Option<String>, Mark)>,
    },
}

struct Builder<'a> {
    file: &'a str,
    vars: &'a dyn Fn(&str) -> Option<String>,
    stack: Vec<Frame>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    documents: usize,
    problems: Vec<Problem>,
}

impl Builder<'_> {
    fn run(&mut self, text: &str) -> Option<Node> {
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            match event {
                Ok((event, span)) => {
                    if !self.event(event, span) {
                        return None;
                    }
                }
                Err(error) => {
                    let mark = Mark { line: error.marker().line(), column: error.marker().col() + 1 };
                    let what = format!("not YAML: {}", error.info());
                    let here = text.lines().nth(mark.line.saturating_sub(1)).unwrap_or("");
                    // The braces of a variable end a flow mapping that is not meant to end.
                    let mend = if here.contains("${") {
                        "put quotes around the variable: \"${VAR}\""
                    } else {
                        "look at the indentation, quotes and brackets here and just before"
                    };
                    self.problem(mark, what, mend);
                    return None;
                }
            }
        }
        if self.root.is_none() && self.problems.is_empty() {
            let mend = "write at least `pool: NAME` and `pods:`; `examples/minimal.yaml` is a start";
            self.problem(Mark { line: 1, column: 1 }, "the file is empty", mend);
        }
        self.root.take()
    }

    /// False: reading further makes no sense.
    fn event(&mut self, event: Event<'_>, span: Span) -> bool {
        let mark = Mark { line: span.start.line(), column: span.start.col() + 1 };
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.problem(
                        mark,
                        "a second document begins here",
                        "keep one document: take out the `---`",
                    );
                    return false;
                }
                true
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(mark, tag.is_some());
                let plain = style == ScalarStyle::Plain;
                let node = if self.wants_key() {
                    Node::new(mark, Value::Scalar { text: text.into_owned(), plain })
                } else {
                    self.scalar(mark, &text, plain)
                };
                self.place(node, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(mark, tag.is_some());
                self.open(Frame { mark, anchor, kind: FrameKind::Seq(Vec::new()) })
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(mark, tag.is_some());
                self.open(Frame { mark, anchor, kind: FrameKind::Map { entries: Vec::new(), key: None } })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some(mut node) => {
                    self.nodes += node.size();
                    // Reported where it is used; the text it came from is near enough to find.
                    node.mark = mark;
                    self.place(node, 0)
                }
                None => {
                    self.problem(mark, "an alias inside its own anchor", "write the value out");
                    self.place(Node::new(mark, Value::Bad), 0)
                }
            },
            _ => true,
        }
    }

    fn wants_key(&self) -> bool {
        matches!(self.stack.last(), Some(Frame { kind: FrameKind::Map { key: None, .. }, .. }))
    }

    fn scalar(&mut self, mark: Mark, text: &str, plain: bool) -> Node {
        match env::fill(text, self.vars) {
            Ok(None) => Node::new(mark, Value::Scalar { text: text.to_owned(), plain }),
            Ok(Some(text)) => Node::new(mark, Value::Scalar { text, plain: true }),
            Err(fault) => {
                self.problem(mark, fault.what, &fault.mend);
                Node::new(mark, Value::Bad)
            }
        }
    }

    fn open(&mut self, frame: Frame) -> bool {
        if self.stack.len() >= DEPTH_MAX {
            let what = format!("nested deeper than {DEPTH_MAX} levels");
            self.problem(
                frame.mark,
                what,
                "the schema needs 6 levels: look for a bracket that is not closed",
            );
            return false;
        }
        self.stack.push(frame);
        true
    }

    fn close(&mut self) -> bool {
        let Some(frame) = self.stack.pop() else { return true };
        let value = match frame.kind {
            FrameKind::Seq(items) => Value::Seq(items),
            FrameKind::Map { entries, .. } => Value::Map(entries),
        };
        self.place(Node::new(frame.mark, value), frame.anchor)
    }

    fn place(&mut self, node: Node, anchor: usize) -> bool {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            let what = format!("more than {NODES_MAX} values, those that aliases repeat included");
            self.problem(node.mark, what, "use fewer aliases, or keep pods in a file of their own");
            return false;
        }
        if anchor > 0 {
            self.nodes += node.size();
            self.anchors.insert(anchor, node.clone());
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return true;
        };
        match &mut frame.kind {
            FrameKind::Seq(items) => items.push(node),
            FrameKind::Map { entries, key } => match key.take() {
                Some((Some(name), mark)) => entries.push(Entry { key: name, mark, node }),
                Some((None, _)) => {}
                None => {
                    let (name, fault) = key_of(&node, entries);
                    *key = Some((name, node.mark));
                    if let Some((what, mend)) = fault {
                        self.problem(node.mark, what, &mend);
                    }
                }
            },
        }
        true
    }

    fn refuse_tag(&mut self, mark: Mark, tagged: bool) {
        if tagged {
            self.problem(mark, "a YAML tag (`!…`), which has no meaning here", "take the tag out");
        }
    }

    fn problem(&mut self, mark: Mark, what: impl Into<String>, mend: &str) {
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line: mark.line,
            column: mark.column,
            what: what.into(),
            mend: mend.to_owned(),
        });
    }
}

type KeyFault = (String, String);

fn key_of(node: &Node, entries: &[Entry]) -> (Option<String>, Option<KeyFault>) {
    let Some(text) = node.text() else {
        return (None, Some(("a key that is no word".into(), "write `key: value`".into())));
    };
    match entries.iter().find(|entry| entry.key == text) {
        Some(first) => {
            let what = format!("{} stands twice; the first is in line {}", quoted(text), first.mark.line);
            (None, Some((what, "keep one of the two".into())))
        }
        None => (Some(text.to_owned()), None),
    }
}

/// "did you mean", or the list of what is possible.
pub(crate) fn suggest(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "take it out".to_owned(),
        None => format!("possible here: {}", known.join(", ")),
    }
}
