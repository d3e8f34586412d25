//! From the tree to typed values, with every fault reported at its place.
//!
//! serde stops at the first error. So [`read`] records the error, takes the faulty value out of the
//! tree, and reads again until nothing is wrong with what is left.

use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};

use crate::problem::{Fault, Problem, quoted};
use crate::tree::{Mark, Node, Value, push_item, push_key, suggest};

/// Most faults told at once: who has more mends these first.
const ROUNDS_MAX: usize = 100;

/// Reads a `T`, taking what is faulty out of the tree and adding it to `problems`.
/// `None`: nothing of the kind can be made of it.
pub(crate) fn read<T: DeserializeOwned>(
    file: &str,
    root: &mut Node,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    for _ in 0..ROUNDS_MAX {
        let error = match T::deserialize(De(root)) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let path: Vec<usize> = error.path.iter().rev().copied().collect();
        if let Some(problem) = error.told(file, root, &path) {
            problems.push(problem);
        }
        if path.is_empty() {
            return None;
        }
        take_out(root, &path);
    }
    problems.push(Problem {
        file: file.to_owned(),
        line: 0,
        column: 0,
        what: format!("more than {ROUNDS_MAX} problems"),
        mend: "mend those listed, then check again".to_owned(),
    });
    None
}

fn take_out(root: &mut Node, path: &[usize]) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut node = root;
    for index in parents {
        node = match &mut node.value {
            Value::Seq(items) => &mut items[*index],
            Value::Map(entries) => &mut entries[*index].node,
            _ => return,
        };
    }
    let key = match &mut node.value {
        Value::Seq(items) => {
            items.remove(*last);
            String::new()
        }
        Value::Map(entries) => entries.remove(*last).key,
        _ => return,
    };
    node.gone.push(key);
}

/// An error on its way up; each level adds the index of the child that it came from.
#[derive(Debug)]
struct Error {
    kind: Kind,
    path: Vec<usize>,
}

#[derive(Debug)]
enum Kind {
    Unknown { key: String, expected: &'static [&'static str] },
    Missing(&'static str),
    Silent,
    Fault(Fault),
}

impl Error {
    fn fault(what: impl Into<String>, mend: impl Into<String>) -> Error {
        Error { kind: Kind::Fault(Fault::new(what, mend)), path: Vec::new() }
    }

    fn under(mut self, index: usize) -> Error {
        self.path.push(index);
        self
    }

    fn told(&self, file: &str, root: &Node, path: &[usize]) -> Option<Problem> {
        let (node, key_mark, name) = walk(root, path);
        let (mark, what, mend) = match &self.kind {
            Kind::Silent => return None,
            Kind::Missing(key) if node.lost(key) => return None,
            Kind::Missing(key) => {
                (node.mark, format!("`{key}` is missing"), format!("add `{key}: …`; it has no default"))
            }
            Kind::Unknown { key, expected } => {
                (key_mark, format!("unknown key {}", quoted(key)), suggest(key, expected))
            }
            Kind::Fault(fault) => (node.mark, fault.what.clone(), fault.mend.clone()),
        };
        let what = if name.is_empty() { what } else { format!("{name}: {what}") };
        let file = if mark.line == 0 { "patch" } else { file };
        Some(Problem { file: file.to_owned(), line: mark.line, column: mark.column, what, mend })
    }
}

/// The node at the end of a path, the mark of its key, and its name.
fn walk<'a>(root: &'a Node, path: &[usize]) -> (&'a Node, Mark, String) {
    let (mut node, mut mark, mut name) = (root, root.mark, String::new());
    for index in path {
        match &node.value {
            Value::Seq(items) => {
                node = &items[*index];
                mark = node.mark;
                push_item(&mut name, *index, node);
            }
            Value::Map(entries) => {
                let entry = &entries[*index];
                (node, mark) = (&entry.node, entry.mark);
                push_key(&mut name, &entry.key);
            }
            _ => break,
        }
    }
    (node, mark, name)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Unknown { key, .. } => write!(f, "unknown key `{key}`"),
            Kind::Missing(key) => write!(f, "`{key}` is missing"),
            Kind::Silent => f.write_str("reported before"),
            Kind::Fault(fault) => f.write_str(&fault.what),
        }
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    /// The text may hold a mend after a line break; [`crate::values`] writes it so.
    fn custom<T: fmt::Display>(message: T) -> Error {
        let text = message.to_string();
        match text.split_once('\n') {
            Some((what, mend)) => Error::fault(what, mend),
            None => Error::fault(text, "see `sluicegate schema` for what may stand here"),
        }
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Error {
        let found = match unexpected {
            de::Unexpected::Str(text) => format!("{} stands here", quoted(text)),
            de::Unexpected::Unit => "nothing stands here".to_owned(),
            de::Unexpected::Seq => "a list stands here".to_owned(),
            de::Unexpected::Map => "a mapping (`key: value`) stands here".to_owned(),
            other => format!("{other} stands here"),
        };
        Error::fault(found, format!("write {expected}"))
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Error {
        de::Error::invalid_type(unexpected, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Error {
        let what = format!("{} is none of {}", quoted(variant), expected.join(", "));
        Error::fault(what, suggest(variant, expected))
    }

    fn unknown_field(key: &str, expected: &'static [&'static str]) -> Error {
        Error { kind: Kind::Unknown { key: key.to_owned(), expected }, path: Vec::new() }
    }

    fn missing_field(key: &'static str) -> Error {
        Error { kind: Kind::Missing(key), path: Vec::new() }
    }
}

#[derive(Clone, Copy)]
struct De<'a>(&'a Node);

impl De<'_> {
    /// The number of a scalar that was not quoted.
    fn number(self, most: u64) -> Result<u64, Error> {
        let wanted = format!("write a whole number from 0 to {most}");
        match &self.0.value {
            Value::Bad => Err(Error { kind: Kind::Silent, path: Vec::new() }),
            Value::Scalar { text, plain: true } => {
                // YAML's `1_000` and `0x10` are not numbers here: they read differently elsewhere.
                let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                match text.parse::<u64>() {
                    Ok(number) if digits && number <= most => Ok(number),
                    _ if self.0.is_null() => Err(Error::fault("nothing stands here", wanted)),
                    _ if digits => Err(Error::fault(format!("{} is too large", quoted(text)), wanted)),
                    _ => Err(Error::fault(format!("{} is no whole number", quoted(text)), wanted)),
                }
            }
            Value::Scalar { text, .. } => {
                Err(Error::fault(format!("{} is a text, not a number", quoted(text)), "take the quotes away"))
            }
            Value::Seq(_) => Err(Error::fault("a list stands here", wanted)),
            Value::Map(_) => Err(Error::fault("a mapping (`key: value`) stands here", wanted)),
        }
    }
}

macro_rules! unsigned {
    ($($method:ident $visit:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let number = self.number(u64::from(<$type>::MAX))?;
            visitor.$visit(<$type>::try_from(number).expect("number() holds the bound"))
        }
    )*};
}

impl<'de> de::Deserializer<'de> for De<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.value {
            Value::Bad => Err(Error { kind: Kind::Silent, path: Vec::new() }),
            _ if self.0.is_null() => visitor.visit_unit(),
            Value::Scalar { text, .. } => visitor.visit_str(text),
            Value::Seq(items) => visitor.visit_seq(Items { items, next: 0 }),
            Value::Map(_) => visitor.visit_map(Fields { node: self.0, next: 0 }),
        }
    }

    unsigned!(deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64);

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.value {
            Value::Bad => Err(Error { kind: Kind::Silent, path: Vec::new() }),
            Value::Scalar { text, plain: true } if text == "true" => visitor.visit_bool(true),
            Value::Scalar { text, plain: true } if text == "false" => visitor.visit_bool(false),
            Value::Scalar { text, .. } => Err(Error::fault(
                format!("{} is neither true nor false", quoted(text)),
                "write `true` or `false`",
            )),
            _ => Err(Error::fault("more than one word stands here", "write `true` or `false`")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.0.value {
            Value::Bad => Err(Error { kind: Kind::Silent, path: Vec::new() }),
            Value::Scalar { text, .. } => visitor.visit_enum(text.as_str().into_deserializer()),
            _ => Err(Error::fault(
                "more than one word stands here",
                format!("write one of {}", variants.join(", ")),
            )),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier
    }
}

struct Items<'a> {
    items: &'a [Node],
    next: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(node) = self.items.get(self.next) else { return Ok(None) };
        self.next += 1;
        seed.deserialize(De(node)).map(Some).map_err(|error| error.under(self.next - 1))
    }
}

struct Fields<'a> {
    node: &'a Node,
    next: usize,
}

impl<'de> de::MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(entry) = self.node.entries().get(self.next) else { return Ok(None) };
        let key = IntoDeserializer::<Error>::into_deserializer(entry.key.as_str());
        seed.deserialize(key).map(Some).map_err(|error| error.under(self.next))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let entry = self.node.entries().get(self.next).expect("a key was read before its value");
        self.next += 1;
        seed.deserialize(De(&entry.node)).map_err(|error| error.under(self.next - 1))
    }
}
