//! Type 28 of Redis: a sparse array (read in librdb 2.3.0 and Rediscope, tried on no server).
//!
//! ```text
//! length n ≥ 1, length flag, with flag 1: length cursor
//! n × ( length index, length tag, tag 0 or 3: string | 1: i64 | 2: f64 )
//! ```

use super::text::text;
use crate::payload::array::{Array, Slot, SlotValue};
use crate::payload::error::{ErrorKind, PayloadError};
use crate::payload::source::{Slice, Source};
use crate::payload::walk::length;

/// Tags of values (sparsearray.h): how the server keeps them in memory.
pub(crate) const TEXT: u64 = 0;
pub(crate) const INT: u64 = 1;
pub(crate) const FLOAT: u64 = 2;
/// Text that fits into a pointer.
pub(crate) const SMALL_TEXT: u64 = 3;

/// Bytes of a small text, at most.
const SMALL_BYTES: usize = 7;

/// What stands in an array, one after the other. Whether an index comes twice is known at the end of
/// a whole check only.
#[derive(Debug, Clone)]
pub struct Slots<'a> {
    source: Slice<'a>,
    cursor: Option<u64>,
    left: u64,
    over: bool,
}

impl<'a> Slots<'a> {
    pub(super) fn new(mut source: Slice<'a>) -> Result<Self, PayloadError> {
        let left = length(&mut source)?;
        if left == 0 {
            return Err(PayloadError::new(1, ErrorKind::Empty("array")));
        }
        let at = source.position();
        let cursor = match length(&mut source)? {
            0 => None,
            1 => Some(index(&mut source)?),
            _ => return Err(PayloadError::new(at, ErrorKind::Array("unknown flag"))),
        };
        Ok(Self {
            source,
            cursor,
            left,
            over: false,
        })
    }

    /// Where the next insertion goes.
    pub fn cursor(&self) -> Option<u64> {
        self.cursor
    }

    fn slot(&mut self) -> Result<Option<Slot<'a>>, PayloadError> {
        if self.left == 0 {
            self.source.end()?;
            return Ok(None);
        }
        self.left -= 1;
        let source = &mut self.source;
        let index = index(source)?;
        let at = source.position();
        let value = match length(source)? {
            TEXT => SlotValue::Text(text(source)?),
            INT => SlotValue::Int(i64::from_le_bytes(source.array()?)),
            FLOAT => SlotValue::Float(f64::from_le_bytes(source.array()?)),
            SMALL_TEXT => {
                let text = text(source)?;
                if text.len() > SMALL_BYTES {
                    return Err(PayloadError::new(at, ErrorKind::Array("long small text")));
                }
                SlotValue::Text(text)
            }
            _ => return Err(PayloadError::new(at, ErrorKind::Array("unknown tag"))),
        };
        Ok(Some(Slot { index, value }))
    }

    /// All of it, each index once.
    pub(super) fn decoded(self) -> Result<Array<'a>, PayloadError> {
        let cursor = self.cursor;
        let slots = self.collect::<Result<Vec<_>, _>>()?;
        all_differ(slots.iter().map(|slot| slot.index).collect())?;
        Ok(Array { cursor, slots })
    }

    /// How many there are, each index once. Eight bytes of memory for each.
    pub(super) fn checked(self) -> Result<u64, PayloadError> {
        let indexes = self
            .map(|slot| slot.map(|slot| slot.index))
            .collect::<Result<Vec<_>, _>>()?;
        let count = indexes.len() as u64;
        all_differ(indexes)?;
        Ok(count)
    }
}

impl<'a> Iterator for Slots<'a> {
    type Item = Result<Slot<'a>, PayloadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.slot();
        self.over = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}

/// An index. The highest number is none.
fn index(source: &mut Slice<'_>) -> Result<u64, PayloadError> {
    let at = source.position();
    match length(source)? {
        u64::MAX => Err(PayloadError::new(at, ErrorKind::Array("index too high"))),
        index => Ok(index),
    }
}

fn all_differ(mut indexes: Vec<u64>) -> Result<(), PayloadError> {
    if !indexes.is_sorted() {
        indexes.sort_unstable();
    }
    match indexes.windows(2).any(|pair| pair[0] == pair[1]) {
        true => Err(PayloadError::new(1, ErrorKind::Duplicate("index"))),
        false => Ok(()),
    }
}
