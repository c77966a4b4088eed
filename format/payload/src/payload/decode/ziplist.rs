//! Ziplists (ziplist.c), before 7.0: u32 length, u32 offset of the last entry, u16 count, entries,
//! 0xFF. An entry is the length of the one before it, an encoding, and contents.

use super::packed::{Blob, Element, i24};
use crate::payload::error::{ErrorKind, PayloadError};

const HEADER: usize = 10;
const END: u8 = 0xff;
/// The length of the entry before stands in four more bytes.
const LONG_PREVIOUS: u8 = 0xfe;
/// More entries than the header can count.
const COUNT_UNKNOWN: u16 = u16::MAX;

/// A ziplist that is being read.
#[derive(Debug, Clone)]
pub(super) struct Ziplist<'a> {
    blob: Blob<'a>,
    at: usize,
    /// Length of the entry before.
    previous: usize,
    tail: usize,
    count: u16,
    seen: u64,
}

impl<'a> Ziplist<'a> {
    /// Checks the header.
    pub(super) fn new(blob: Blob<'a>) -> Result<Self, PayloadError> {
        let bad = |what| blob.error(0, ErrorKind::Ziplist(what));
        let (Some(total), Some(tail), Some(count)) = (blob.array(0), blob.array(4), blob.array(8))
        else {
            return Err(bad("no header"));
        };
        if u64::from(u32::from_le_bytes(total)) != blob.bytes().len() as u64 {
            return Err(bad("length is not that of the string"));
        }
        let tail = usize::try_from(u32::from_le_bytes(tail)).map_err(|_| bad("no such tail"))?;
        let count = u16::from_le_bytes(count);
        Ok(Self {
            blob,
            at: HEADER,
            previous: 0,
            tail,
            count,
            seen: 0,
        })
    }

    /// An error of `kind` at the entry that comes next.
    pub(super) fn error(&self, kind: ErrorKind) -> PayloadError {
        self.blob.error(self.at, kind)
    }

    fn bad(&self, what: &'static str) -> PayloadError {
        self.error(ErrorKind::Ziplist(what))
    }

    /// The next entry; none when the ziplist ended where it should.
    pub(super) fn next(&mut self) -> Result<Option<Element<'a>>, PayloadError> {
        let Some(&byte) = self.blob.bytes().get(self.at) else {
            return Err(self.bad("no end"));
        };
        if byte == END {
            if self.at + 1 != self.blob.bytes().len() {
                return Err(self.bad("ends before its length"));
            }
            if self.count != COUNT_UNKNOWN && u64::from(self.count) != self.seen {
                return Err(self.bad("wrong count"));
            }
            if self.tail != self.at - self.previous {
                return Err(self.bad("tail is not the last entry"));
            }
            return Ok(None);
        }
        // The long form may hold a small length: an entry once longer leaves it behind.
        let (previous, header) = match byte {
            LONG_PREVIOUS => match self.blob.array(self.at + 1) {
                Some(bytes) => (u64::from(u32::from_le_bytes(bytes)), 5),
                None => return Err(self.bad("bad entry")),
            },
            _ => (byte.into(), 1),
        };
        if previous != self.previous as u64 {
            return Err(self.bad("wrong length of the entry before"));
        }
        let Some((element, len)) = self.entry(self.at + header) else {
            return Err(self.bad("bad entry"));
        };
        self.previous = header + len;
        self.at += self.previous;
        self.seen += 1;
        Ok(Some(element))
    }

    /// The encoding and contents at `at`, and their length.
    fn entry(&self, at: usize) -> Option<(Element<'a>, usize)> {
        let &byte = self.blob.bytes().get(at)?;
        let text = |header: usize, len: usize| {
            let end = at.checked_add(header)?.checked_add(len)?;
            Some((
                Element::Text(self.blob.cut(at + header..end)?),
                header + len,
            ))
        };
        let int = |number: i64, len| Some((Element::Int(number), len));
        match byte {
            0x00..0x40 => text(1, byte.into()),
            0x40..0x80 => {
                let low = *self.blob.bytes().get(at + 1)?;
                text(2, usize::from(byte & 0x3f) << 8 | usize::from(low))
            }
            0x80 => text(
                5,
                usize::try_from(u32::from_be_bytes(self.blob.array(at + 1)?)).ok()?,
            ),
            0xc0 => int(i16::from_le_bytes(self.blob.array(at + 1)?).into(), 3),
            0xd0 => int(i32::from_le_bytes(self.blob.array(at + 1)?).into(), 5),
            0xe0 => int(i64::from_le_bytes(self.blob.array(at + 1)?), 9),
            0xf0 => int(i24(self.blob.array(at + 1)?), 4),
            0xfe => int(i8::from_le_bytes(self.blob.array(at + 1)?).into(), 2),
            0xf1..=0xfd => int(i64::from(byte & 0x0f) - 1, 1),
            _ => None,
        }
    }
}
