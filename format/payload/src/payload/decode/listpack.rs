//! Listpacks (listpack.c): u32 total length, u16 count, entries, 0xFF. An entry is an encoding
//! byte, its contents, and its own length again for those who come from behind.

use std::borrow::Cow;
use std::ops::Range;

use super::packed::{Blob, Element, i24};
use crate::payload::error::{ErrorKind, PayloadError};

const HEADER: usize = 6;
const END: u8 = 0xff;
/// More entries than the header can count.
const COUNT_UNKNOWN: u16 = u16::MAX;

/// A listpack that is being read.
#[derive(Debug, Clone)]
pub(crate) struct Listpack<'a> {
    blob: Blob<'a>,
    at: usize,
    count: u16,
    seen: u64,
    steps: Option<BackLengths>,
}

impl<'a> Listpack<'a> {
    /// Checks the header.
    pub(crate) fn new(blob: Blob<'a>) -> Result<Self, PayloadError> {
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
            steps: None,
        })
    }

    /// An error of `kind` at the entry that comes next.
    pub(crate) fn error(&self, kind: ErrorKind) -> PayloadError {
        self.blob.error(self.at, kind)
    }

    fn bad(&self, what: &'static str) -> PayloadError {
        self.error(ErrorKind::Listpack(what))
    }

    /// The next entry; none when the listpack ended where it should.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Element<'a>>, PayloadError> {
        Ok(self.next_at()?.map(|(element, _)| element))
    }

    /// The next entry and where it stands, its backward length not included.
    fn next_at(&mut self) -> Result<Option<(Element<'a>, Range<usize>)>, PayloadError> {
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
        let start = self.at;
        let end = start + len;
        let steps = if is_step(len) {
            self.step(end)
        } else {
            BackLengths::Early
        };
        let back = steps.size(len);
        if !self
            .blob
            .bytes()
            .get(end..end + back)
            .is_some_and(|bytes| is_backlen(bytes, len, steps))
        {
            return Err(self.bad("wrong backward length"));
        }
        if is_step(len) && *self.steps.get_or_insert(steps) != steps {
            return Err(self.bad("backward lengths of two kinds"));
        }
        self.at = end + back;
        self.seen += 1;
        Ok(Some((element, start..end)))
    }

    /// Of which kind the backward length at `at` is, where the kinds differ.
    fn step(&self, at: usize) -> BackLengths {
        match self.blob.bytes().get(at) {
            Some(0x7f) => BackLengths::Exact,
            _ => BackLengths::Early,
        }
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

/// Where the steps stand at which an entry's length, said backwards, takes another byte. Entries of
/// 16,383, 2,097,151 and 268,435,455 bytes are written in two ways, and a server that expects the
/// other way reads on at the wrong byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BackLengths {
    /// One short of the powers of two, as every server did until 2026 (lpEncodeBacklenBytes).
    #[default]
    Early,
    /// At the powers of two: Valkey from 9.1 on (valkey#3601; redis#15151 does the same for a
    /// later Redis).
    Exact,
}

/// The shortest entry that is written in two ways.
const FIRST_STEP: usize = (1 << 14) - 1;

fn is_step(len: usize) -> bool {
    len == FIRST_STEP || len == (1 << 21) - 1 || len == (1 << 28) - 1
}

impl BackLengths {
    /// How many bytes say the length of an entry backwards.
    fn size(self, len: usize) -> usize {
        // What is one short for the one is exact for the other, but for the first step.
        let len = if self == Self::Early && len > 127 {
            len + 1
        } else {
            len
        };
        match len {
            0..0x80 => 1,
            0x80..0x4000 => 2,
            0x4000..0x20_0000 => 3,
            0x20_0000..0x1000_0000 => 4,
            _ => 5,
        }
    }

    /// The bytes that say the length of an entry backwards: seven bits each, highest first, all but
    /// the first marked.
    pub fn bytes(self, len: usize) -> ([u8; 5], usize) {
        let size = self.size(len);
        let mut bytes = [0; 5];
        for (n, byte) in bytes[..size].iter_mut().rev().enumerate() {
            *byte = (len >> (7 * n)) as u8 & 0x7f | 0x80;
        }
        bytes[0] &= 0x7f;
        (bytes, size)
    }
}

fn is_backlen(bytes: &[u8], len: usize, steps: BackLengths) -> bool {
    match bytes {
        [byte] => usize::from(*byte) == len,
        _ => {
            let (expected, size) = steps.bytes(len);
            bytes == &expected[..size]
        }
    }
}

/// Whether a listpack of so many bytes can hold an entry that is written in two ways.
pub(crate) fn may_step(len: u64) -> bool {
    len > FIRST_STEP as u64
}

/// Which way the entries of a listpack are written, if it has any that tell.
pub(crate) fn back_lengths(blob: Blob<'_>) -> Result<Option<BackLengths>, PayloadError> {
    let mut listpack = Listpack::new(blob)?;
    while listpack.next()?.is_some() {}
    Ok(listpack.steps)
}

/// A sound listpack, its backward lengths written the other way; nothing if they need no change.
pub(crate) fn rewritten(bytes: &[u8], steps: BackLengths) -> Option<Vec<u8>> {
    if !may_step(bytes.len() as u64) {
        return None;
    }
    let blob = Blob::new(Cow::Borrowed(bytes), 0);
    let found = back_lengths(blob.clone()).ok()??;
    if found == steps {
        return None;
    }
    let mut listpack = Listpack::new(blob).ok()?;
    let mut out = bytes[..HEADER].to_vec();
    while let Some((_, range)) = listpack.next_at().ok()? {
        let (back, size) = steps.bytes(range.len());
        out.extend_from_slice(&bytes[range]);
        out.extend_from_slice(&back[..size]);
    }
    out.push(END);
    let total = u32::try_from(out.len()).ok()?;
    out[..4].copy_from_slice(&total.to_le_bytes());
    Some(out)
}
