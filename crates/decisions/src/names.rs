//! Ids of leases: `GATE.NAME`.
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
const ID_MAX: usize = GATE_MAX + 1 + 2 + 2 * KEY_MAX;
/// What a caller may choose, as a pattern for the OpenAPI document: with or without the gate before it.
pub(crate) const ID_PATTERN: &str = "^([a-z0-9-]{1,32}\\.)?[A-Za-z0-9][A-Za-z0-9_-]{0,127}$";
/// Any id.
pub(crate) const ANY_ID_PATTERN: &str = "^([a-z0-9-]{1,32}\\.)?[A-Za-z0-9_][A-Za-z0-9_-]{0,257}$";

/// A gate's name within its pool: 1 to 32 of `a-z`, `0-9` and `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateName(Arc<str>);

/// The part of an id behind the gate's name.
pub(crate) type Name = Arc<str>;

/// An id as a caller wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Id {
    /// The gate that holds it; `None`: the caller named none, and means the one it asks.
    pub(crate) gate: Option<String>,
    pub(crate) name: Name,
}

impl GateName {
    /// A name, if it is one.
    #[must_use]
    pub fn new(name: &str) -> Option<GateName> {
        let fits = (1..=GATE_MAX).contains(&name.len())
            && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        fits.then(|| GateName(name.into()))
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

impl Id {
    /// An id in a path or a list.
    pub(crate) fn parse(text: &str) -> Result<Id, Fault> {
        let (gate, name) = match text.split_once('.') {
            Some((gate, name)) => (Some(gate), name),
            None => (None, text),
        };
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let fits = text.len() <= ID_MAX
            && gate.is_none_or(|gate| GateName::new(gate).is_some())
            && name.bytes().next().is_some_and(|first| first != b'-')
            && name.bytes().all(letters);
        if !fits {
            return Err(Fault::new(
                "id",
                "is no id of a lease: it is `GATE.NAME`, of letters, digits, `_` and `-`",
            ));
        }
        Ok(Id { gate: gate.map(str::to_owned), name: name.into() })
    }

    /// An id that a caller chooses for a new lease.
    pub(crate) fn chosen(text: &str) -> Result<Id, Fault> {
        let id = Id::parse(text)?;
        if id.name.starts_with('_') || id.name.len() > NAME_MAX {
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
        assert_eq!(Id::parse("a-1.x_Y").ok(), Some(Id { gate: Some("a-1".to_owned()), name: "x_Y".into() }));
        assert_eq!(Id::parse("x").ok(), Some(Id { gate: None, name: "x".into() }));
        for bad in ["", ".", "a.", ".x", "A.x", "a.b.c", "a b", "a/b", "-x", "a.-x", "ä", &"x".repeat(400)] {
            assert!(Id::parse(bad).is_err(), "{bad:?}");
        }
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
