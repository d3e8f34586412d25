//! Protocol Buffers, read where they lie. Of Envoy's messages some ten fields are looked at; nothing is copied for the others.

/// It cannot be read on from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What a field holds, by its wire type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    /// A text, a message, or bytes.
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The fields of a message in the order in which they came: their numbers and values. After a `Malformed` there are no more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or(Malformed))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u32, Value<'a>)> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.chunk()?)),
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(len)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.chunk()?)),
            // Groups, which no message of ours has had for twenty years, and what is no type at all.
            _ => return None,
        };
        Some((number, value))
    }

    /// Seven bits a byte, the lowest first; the top bit says that more come.
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for place in 0..10 {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*chunk)
    }
}

/// The messages in all fields of this number.
pub(crate) fn messages<'a>(
    message: &'a [u8],
    number: u32,
    mut see: impl FnMut(&'a [u8]) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    for field in Fields(message) {
        if let (found, Value::Bytes(inner)) = field?
            && found == number
        {
            see(inner)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(u32, Value<'_>)>, Malformed> {
        Fields(bytes).collect()
    }

    #[test]
    fn every_wire_type_is_read_and_what_breaks_off_is_said() {
        let bytes = [
            &[0x08, 0x96, 0x01][..],                                             // 1: 150
            &[0x11, 1, 0, 0, 0, 0, 0, 0, 0x80],                                  // 2: fixed64
            &[0x1a, 2, b'o', b'k'],                                              // 3: "ok"
            &[0x25, 7, 0, 0, 0],                                                 // 4: fixed32
            &[0xfa, 0x3f, 0],                                                    // 1023: empty
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], // 1: all bits
        ]
        .concat();
        let want = vec![
            (1, Value::Varint(150)),
            (2, Value::Fixed64(0x8000_0000_0000_0001)),
            (3, Value::Bytes(b"ok")),
            (4, Value::Fixed32(7)),
            (1023, Value::Bytes(b"")),
            (1, Value::Varint(u64::MAX)),
        ];
        assert_eq!(all(&bytes), Ok(want));
        let wholes = [0, 3, 12, 16, 21, 24, 35];
        for end in 0..=bytes.len() {
            assert_eq!(all(&bytes[..end]).is_ok(), wholes.contains(&end), "cut at {end}");
        }
    }

    #[test]
    fn what_cannot_be_is_malformed() {
        for bytes in [&[0x0b][..], &[0x0c], &[0x0e], &[0x0f], &[0x0a, 0x80], &[0x08; 1]] {
            assert_eq!(all(bytes), Err(Malformed), "{bytes:x?}");
        }
        assert_eq!(all(&[0x80; 11]), Err(Malformed), "a number without an end");
        let huge = [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(all(&huge), Err(Malformed), "longer than memory");
    }
}
