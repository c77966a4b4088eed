//! Zipmaps (zipmap.c), before 2.6: u8 count, then fields and values, each with its length before
//! it, 0xFF. Between a value's length and the value stands how many unused bytes follow it.

use super::packed::{Blob, Element};
use crate::payload::error::{ErrorKind, PayloadError};

const END: u8 = 0xff;
/// The length stands in four more bytes; as a count: more fields than it can count.
const LONG: u8 = 0xfe;

/// A zipmap that is being read: field, value, field, value.
#[derive(Debug, Clone)]
pub(super) struct Zipmap<'a> {
    blob: Blob<'a>,
    at: usize,
    count: u8,
    seen: u64,
}

impl<'a> Zipmap<'a> {
    /// Checks the header.
    pub(super) fn new(blob: Blob<'a>) -> Result<Self, PayloadError> {
        let Some(&count) = blob.bytes().first() else {
            return Err(blob.error(0, ErrorKind::Zipmap("no header")));
        };
        Ok(Self {
            blob,
            at: 1,
            count,
            seen: 0,
        })
    }

    /// An error of `kind` at the entry that comes next.
    pub(super) fn error(&self, kind: ErrorKind) -> PayloadError {
        self.blob.error(self.at, kind)
    }

    fn bad(&self, what: &'static str) -> PayloadError {
        self.error(ErrorKind::Zipmap(what))
    }

    /// The next field or value; none when the zipmap ended where it should.
    pub(super) fn next(&mut self) -> Result<Option<Element<'a>>, PayloadError> {
        let is_value = self.seen % 2 == 1;
        let Some(&byte) = self.blob.bytes().get(self.at) else {
            return Err(self.bad("no end"));
        };
        if byte == END && !is_value {
            if self.at + 1 != self.blob.bytes().len() {
                return Err(self.bad("ends before its string does"));
            }
            if self.count < LONG && u64::from(self.count) * 2 != self.seen {
                return Err(self.bad("wrong count"));
            }
            return Ok(None);
        }
        let Some((element, end)) = self.entry(byte, is_value) else {
            return Err(self.bad("bad entry"));
        };
        self.at = end;
        self.seen += 1;
        Ok(Some(element))
    }

    fn entry(&self, byte: u8, is_value: bool) -> Option<(Element<'a>, usize)> {
        let (len, mut start) = match byte {
            END => return None,
            LONG => {
                let len = u32::from_le_bytes(self.blob.array(self.at + 1)?);
                // No server writes a short length like this, and none reads it.
                if len < LONG.into() {
                    return None;
                }
                (usize::try_from(len).ok()?, self.at + 5)
            }
            _ => (byte.into(), self.at + 1),
        };
        let mut unused = 0;
        if is_value {
            unused = usize::from(*self.blob.bytes().get(start)?);
            start += 1;
        }
        let end = start.checked_add(len)?;
        let next = end.checked_add(unused)?;
        self.blob.bytes().get(end..next)?;
        Some((Element::Text(self.blob.cut(start..end)?), next))
    }
}
