//! Listpacks (listpack.c): u32 total length, u16 count, entries, 0xFF. An entry is an encoding
//! byte, its contents, and its own length again for those who come from behind.

use super::packed::{Blob, Element, i24};
use crate::payload::error::{ErrorKind, PayloadError};

const HEADER: usize = 6;
const END: u8 = 0xff;
/// More entries than the header can count.
const COUNT_UNKNOWN: u16 = u16::MAX;

/// A listpack that is being read.
#[derive(Debug, Clone)]
pub struct Listpack<'a> {
    blob: Blob<'a>,
    at: usize,
    count: u16,
    seen: u64,
}

impl<'a> Listpack<'a> {
    /// Checks the header.
    pub fn new(blob: Blob<'a>) -> Result<Self, PayloadError> {
        let bad = |what| blob.error(0, ErrorKind::Listpack(what));
        let (Some(total), Some(count)) = (blob.array(0), blob.array(4)) else {
            return Err(bad("no header"));
        };
        if u64::from(u32::from_le_bytes(total)) != blob.bytes().len() as u64 {
            return Err(bad("length is not that of the string"));
        }
        Ok(Self {
            blob,
            at: HEADER,
            count: u16::from_le_bytes(count),
            seen: 0,
        })
    }

    /// An error of `kind` at the entry that comes next.
    pub fn error(&self, kind: ErrorKind) -> PayloadError {
        self.blob.error(self.at, kind)
    }

    fn bad(&self, what: &'static str) -> PayloadError {
        self.error(ErrorKind::Listpack(what))
    }

    /// The next entry; none when the listpack ended where it should.
    pub fn next(&mut self) -> Result<Option<Element<'a>>, PayloadError> {
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
            return Ok(None);
        }
        let Some((element, len)) = self.entry(byte) else {
            return Err(self.bad("bad entry"));
        };
        let end = self.at + len;
        let back = backlen_size(len);
        if !self
            .blob
            .bytes()
            .get(end..end + back)
            .is_some_and(|bytes| is_backlen(bytes, len))
        {
            return Err(self.bad("wrong backward length"));
        }
        self.at = end + back;
        self.seen += 1;
        Ok(Some(element))
    }

    /// The entry that begins with `byte`, and its length without the backward length.
    fn entry(&self, byte: u8) -> Option<(Element<'a>, usize)> {
        let at = self.at;
        let second = || self.blob.bytes().get(at + 1).map(|&byte| usize::from(byte));
        let text = |header: usize, len: usize| {
            let end = at.checked_add(header)?.checked_add(len)?;
            Some((
                Element::Text(self.blob.cut(at + header..end)?),
                header + len,
            ))
        };
        let int = |number: i64, len| Some((Element::Int(number), len));
        match byte {
            0x00..0x80 => int(byte.into(), 1),
            0x80..0xc0 => text(1, usize::from(byte & 0x3f)),
            0xc0..0xe0 => {
                let raw = i64::from(byte & 0x1f) << 8 | second()? as i64;
                int(if raw < 1 << 12 { raw } else { raw - (1 << 13) }, 2)
            }
            0xe0..0xf0 => text(2, usize::from(byte & 0x0f) << 8 | second()?),
            0xf0 => text(
                5,
                usize::try_from(u32::from_le_bytes(self.blob.array(at + 1)?)).ok()?,
            ),
            0xf1 => int(i16::from_le_bytes(self.blob.array(at + 1)?).into(), 3),
            0xf2 => int(i24(self.blob.array(at + 1)?), 4),
            0xf3 => int(i32::from_le_bytes(self.blob.array(at + 1)?).into(), 5),
            0xf4 => int(i64::from_le_bytes(self.blob.array(at + 1)?), 9),
            0xf5.. => None,
        }
    }
}

/// How many bytes say the length of an entry backwards. The steps stand one short of the powers of
/// two, in every server (lpEncodeBacklenBytes).
pub fn backlen_size(len: usize) -> usize {
    match len {
        0..128 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    }
}

/// The bytes that say the length of an entry backwards: seven bits each, highest first, all but
/// the first marked.
pub fn backlen(len: usize) -> ([u8; 5], usize) {
    let size = backlen_size(len);
    let mut bytes = [0; 5];
    for (n, byte) in bytes[..size].iter_mut().rev().enumerate() {
        *byte = (len >> (7 * n)) as u8 & 0x7f | 0x80;
    }
    bytes[0] &= 0x7f;
    (bytes, size)
}

fn is_backlen(bytes: &[u8], len: usize) -> bool {
    match bytes {
        [byte] => usize::from(*byte) == len,
        _ => {
            let (expected, size) = backlen(len);
            bytes == &expected[..size]
        }
    }
}
