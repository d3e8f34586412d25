//! Ids of leases: `GATE.NAME`, in a pool of many gates `GATE.NAME.TAG`.
//!
//! `GATE` is the name of the gate that holds the lease, so that a call that reaches another gate can be passed on.
//! `NAME` is the caller's choice (it begins with a letter or a digit), this gate's (`_g…`), or made of an
//! `Idempotency-Key` (`_k` and the key's bytes in hexadecimal: no two keys have one name).

use std::fmt;
use std::sync::Arc;

use crate::http::problem::Fault;

/// Longest name that a caller may choose, bytes.
pub(crate) const NAME_MAX: usize = 128;
/// Longest `Idempotency-Key`, bytes.
pub(crate) const KEY_MAX: usize = 128;
/// Longest name of a gate, bytes.
const GATE_MAX: usize = 32;
/// Longest id in a path.
const ID_MAX: usize = GATE_MAX + 1 + 2 + 2 * KEY_MAX + 1 + 8 + 1 + 8 + 1 + 8;
/// What a caller may choose, as a pattern for the OpenAPI document: with or without the gate before it.
pub(crate) const ID_PATTERN: &str = "^([a-z0-9-]{1,32}\\.)?[A-Za-z0-9][A-Za-z0-9_-]{0,127}$";
/// Any id.
pub(crate) const ANY_ID_PATTERN: &str = "^([a-z0-9-]{1,32}\\.[A-Za-z0-9_][A-Za-z0-9_-]{0,257}(\\.[0-9a-f]{1,8}-[0-9a-f]{8}-[0-9a-f]{8})?|[A-Za-z0-9_][A-Za-z0-9_-]{0,257})$";

/// A gate's name within its pool: 1 to 32 of `a-z`, `0-9` and `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateName(Arc<str>);

/// The part of an id behind the gate's name; of an adopted lease the whole id.
pub(crate) type Name = Arc<str>;

/// An id as a caller wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id<'a> {
    /// All of it.
    pub(crate) text: &'a str,
    /// The gate that holds it; `None`: the caller named none, and means the one it asks.
    pub(crate) gate: Option<&'a str>,
    pub(crate) name: &'a str,
    pub(crate) tag: Option<Tag>,
}

/// What another gate must know of a lease when its own is gone: the third part of ids in a pool of many gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) weight: u32,
    /// [`short`] of its api's name.
    pub(crate) api: u32,
    /// [`short`] of its pod's name.
    pub(crate) pod: u32,
}

impl GateName {
    /// A name, if it is one.
    #[must_use]
    pub fn new(name: &str) -> Option<GateName> {
        GateName::fits(name).then(|| GateName(name.into()))
    }

    fn fits(name: &str) -> bool {
        (1..=GATE_MAX).contains(&name.len())
            && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    }

    /// A name that no other gate has: 64 random bits.
    #[must_use]
    pub fn draw() -> GateName {
        GateName(format!("{:016x}", fastrand::u64(..)).into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Tag {
    fn parse(text: &str) -> Option<Tag> {
        let mut parts = text.split('-').map(|part| u32::from_str_radix(part, 16).ok());
        let tag = Tag { weight: parts.next()??, api: parts.next()??, pod: parts.next()?? };
        parts.next().is_none().then_some(tag)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:08x}-{:08x}", self.weight, self.api, self.pod)
    }
}

/// A name in 32 bits (FNV-1a), the same in every gate. Of 100 pods two share one once in a million pools; then one of the
/// two is taken for the other when a lease is adopted.
pub(crate) fn short(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl<'a> Id<'a> {
    /// An id in a path or a list.
    pub(crate) fn parse(text: &'a str) -> Result<Id<'a>, Fault> {
        Id::read(text).ok_or_else(|| {
            Fault::new("id", "is no id of a lease: those are `GATE.NAME`, of letters, digits, `_` and `-`")
        })
    }

    fn read(text: &'a str) -> Option<Id<'a>> {
        let mut parts = text.split('.');
        let first = parts.next()?;
        let (gate, name) = match parts.next() {
            Some(name) => (Some(first), name),
            None => (None, first),
        };
        let tag = match parts.next() {
            Some(tag) => Some(Tag::parse(tag)?),
            None => None,
        };
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let fits = text.len() <= ID_MAX
            && parts.next().is_none()
            && gate.is_none_or(GateName::fits)
            && name.bytes().next().is_some_and(|first| first != b'-')
            && name.bytes().all(letters);
        fits.then_some(Id { text, gate, name, tag })
    }

    /// An id that a caller chooses for a new lease.
    pub(crate) fn chosen(text: &'a str) -> Result<Id<'a>, Fault> {
        let id = Id::parse(text)?;
        if id.name.starts_with('_') || id.name.len() > NAME_MAX || id.tag.is_some() {
            let what = "cannot be chosen: a name begins with a letter or a digit and has at most 128 of letters, digits, `_` and `-`";
            return Err(Fault::new("id", what));
        }
        Ok(id)
    }
}

/// A name that no caller can have chosen.
pub(crate) fn draw() -> Name {
    format!("_g{:032x}", fastrand::u128(..)).into()
}

/// True if nobody can ask for this name before it was given out.
pub(crate) fn is_drawn(name: &str) -> bool {
    name.starts_with("_g")
}

/// The name of an `Idempotency-Key`, quoted (RFC 8941 string) or bare.
pub(crate) fn of_key(value: &[u8]) -> Result<Name, Fault> {
    use fmt::Write;
    let bare = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
    if bare.is_empty() || bare.len() > KEY_MAX {
        return Err(Fault::new("Idempotency-Key", "must have 1 to 128 bytes"));
    }
    let mut name = String::with_capacity(2 + 2 * bare.len());
    name.push_str("_k");
    for byte in bare {
        write!(name, "{byte:02x}").expect("a String takes everything");
    }
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_split_at_their_gate() {
        let id = |text| Id::parse(text).ok().map(|id| (id.gate, id.name, id.tag));
        assert_eq!(id("a-1.x_Y"), Some((Some("a-1"), "x_Y", None)));
        assert_eq!(id("x"), Some((None, "x", None)));
        let tag = Tag { weight: 3, api: short("report"), pod: short("b") };
        assert_eq!(id(&format!("a.x.{tag}")), Some((Some("a"), "x", Some(tag))));
        for bad in [
            "",
            ".",
            "a.",
            ".x",
            "A.x",
            "a.b.c",
            "a.b.1-2-3.d",
            "a b",
            "a/b",
            "-x",
            "a.-x",
            "ä",
            &"x".repeat(400),
        ] {
            assert!(Id::parse(bad).is_err(), "{bad:?}");
        }
        assert_ne!(short("a"), short("b"));
    }

    #[test]
    fn a_caller_cannot_choose_a_name_of_ours() {
        assert!(Id::chosen("mine").is_ok());
        assert!(Id::chosen(&"x".repeat(NAME_MAX)).is_ok());
        assert!(Id::chosen(&"x".repeat(NAME_MAX + 1)).is_err());
        assert!(Id::chosen(&draw()).is_err());
        assert!(Id::chosen(&of_key(b"k").unwrap()).is_err());
    }

    #[test]
    fn no_two_keys_have_one_name() {
        assert_eq!(of_key(b"\"ab\"").unwrap(), of_key(b"ab").unwrap());
        assert_ne!(of_key(b"ab").unwrap(), of_key(b"AB").unwrap());
        assert_ne!(of_key(b"a\xff").unwrap(), of_key(b"a").unwrap());
        let longest = of_key(&[b'x'; KEY_MAX]).unwrap();
        assert!(Id::parse(&format!("{}.{longest}", "a".repeat(GATE_MAX))).is_ok());
        assert!(of_key(b"").is_err() && of_key(&[b'x'; KEY_MAX + 1]).is_err());
    }
}
