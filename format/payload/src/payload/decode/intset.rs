//! Intsets (intset.c): u32 width (2, 4 or 8), u32 count, integers, lowest first, each once.

use super::packed::{Blob, Element};
use crate::payload::error::{ErrorKind, PayloadError};

const HEADER: usize = 8;

/// An intset that is being read.
#[derive(Debug, Clone)]
pub(super) struct Intset<'a> {
    blob: Blob<'a>,
    width: usize,
    at: usize,
    previous: Option<i64>,
}

impl<'a> Intset<'a> {
    /// Checks the header.
    pub(super) fn new(blob: Blob<'a>) -> Result<Self, PayloadError> {
        let bad = |what| blob.error(0, ErrorKind::Intset(what));
        let (Some(width), Some(count)) = (blob.array(0), blob.array(4)) else {
            return Err(bad("no header"));
        };
        let width = match u32::from_le_bytes(width) {
            2 => 2,
            4 => 4,
            8 => 8,
            _ => return Err(bad("no such width")),
        };
        let count = u64::from(u32::from_le_bytes(count));
        if blob.bytes().len() as u64 != HEADER as u64 + count * width as u64 {
            return Err(bad("wrong count"));
        }
        Ok(Self {
            blob,
            width,
            at: HEADER,
            previous: None,
        })
    }

    /// An error of `kind` at the integer that comes next.
    pub(super) fn error(&self, kind: ErrorKind) -> PayloadError {
        self.blob.error(self.at, kind)
    }

    /// The next integer. The servers search by halves, so an order that is broken is refused.
    pub(super) fn next(&mut self) -> Result<Option<Element<'a>>, PayloadError> {
        let number = match self.width {
            2 => self
                .blob
                .array(self.at)
                .map(|bytes| i16::from_le_bytes(bytes).into()),
            4 => self
                .blob
                .array(self.at)
                .map(|bytes| i32::from_le_bytes(bytes).into()),
            _ => self.blob.array(self.at).map(i64::from_le_bytes),
        };
        let Some(number) = number else {
            return Ok(None);
        };
        if self.previous.is_some_and(|previous| previous >= number) {
            return Err(self.error(ErrorKind::Intset("not in order")));
        }
        self.previous = Some(number);
        self.at += self.width;
        Ok(Some(Element::Int(number)))
    }
}
