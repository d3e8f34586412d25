//! Names of a pool's keys and channels.

use sluicegate_core::shared::GateId;

/// Names of the keys of one pool. They share one hash tag, so a Cluster keeps them on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    stem: String,
}

impl Keys {
    /// Keys of this pool.
    #[must_use]
    pub fn of(pool: &str) -> Keys {
        Keys { stem: format!("sluicegate:{{{pool}}}:") }
    }

    /// The six keys, in the order in which the exchange's script takes them: state, open, line, seen, idle,
    /// document.
    #[must_use]
    pub fn all(&self) -> [String; 6] {
        ["state", "open", "line", "seen", "idle", "document"].map(|name| self.named(name))
    }

    /// The pool's document: a hash of version, patch and registered pods.
    #[must_use]
    pub fn document(&self) -> String {
        self.named("document")
    }

    /// A key for a look at the server; it is gone after it.
    pub(crate) fn probe(&self) -> String {
        self.named("probe")
    }

    /// What the channels of all gates begin with.
    #[must_use]
    pub fn channels(&self) -> String {
        self.named("to:")
    }

    /// The channel of one gate.
    #[must_use]
    pub fn channel(&self, gate: GateId) -> String {
        format!("{}{}", self.channels(), gate_text(gate))
    }

    pub(crate) fn named(&self, name: &str) -> String {
        format!("{}{name}", self.stem)
    }

    /// The Cluster's slot of all keys.
    pub(crate) fn slot(&self) -> u16 {
        let key = self.stem.as_bytes();
        let tag = key.iter().position(|b| *b == b'{').and_then(|open| {
            let rest = &key[open + 1..];
            let len = rest.iter().position(|b| *b == b'}').filter(|len| *len > 0)?;
            Some(&rest[..len])
        });
        // An empty tag counts as none, and then the whole key would be hashed: no key here is without a tag.
        crc16(tag.unwrap_or(key)) % 16384
    }
}

/// A gate's identity as the scripts have it: 32 lower-case hexadecimal digits.
pub(crate) fn gate_text(gate: GateId) -> String {
    format!("{:032x}", gate.0)
}

/// CRC-16/XMODEM, as the Cluster specification asks for.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let keys = Keys::of("search");
        assert_eq!(keys.all()[0], "sluicegate:{search}:state");
        assert_eq!(keys.document(), "sluicegate:{search}:document");
        let gate = GateId(0xabc);
        assert_eq!(keys.channel(gate), "sluicegate:{search}:to:00000000000000000000000000000abc");
    }

    /// The value of the specification's appendix, and slots that `CLUSTER KEYSLOT` gives.
    #[test]
    fn slots() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(Keys::of("foo").slot(), 12182);
        assert_eq!(Keys::of("somekey").slot(), 11058);
    }
}
