//! The entries in one listpack of a stream (t_stream.c, streamAppendItem).
//!
//! First a master entry: how many entries live, how many are deleted, how many fields the first
//! entry had, their names, 0. Then for every entry: flags, id relative to the node's (milliseconds,
//! sequence), fields and values (only values if the fields are the master's), and how many elements
//! the entry took.

use super::listpack::Listpack;
use super::packed::{Blob, Element};
use crate::payload::error::{ErrorKind, PayloadError};
use crate::payload::object::{Bytes, StreamId};

/// The entry is a tombstone.
const DELETED: i64 = 1;
/// The entry has the master's fields.
const SAME_FIELDS: i64 = 2;

/// Fields and values of an entry.
pub(super) type Pairs<'a> = Vec<(Bytes<'a>, Bytes<'a>)>;

/// The entries of a node, being read.
#[derive(Debug, Clone)]
pub(super) struct NodeEntries<'a> {
    listpack: Listpack<'a>,
    id: StreamId,
    fields: Vec<Element<'a>>,
    alive: u64,
    deleted: u64,
}

impl<'a> NodeEntries<'a> {
    /// Reads the master entry.
    pub(super) fn new(id: StreamId, blob: Blob<'a>) -> Result<Self, PayloadError> {
        let mut listpack = Listpack::new(blob)?;
        let alive = count(&mut listpack)?;
        let deleted = count(&mut listpack)?;
        let mut fields = Vec::new();
        for _ in 0..some(&mut listpack)? {
            fields.push(element(&mut listpack)?);
        }
        if int(&mut listpack)? != 0 {
            return Err(bad(&listpack, "master entry without its end"));
        }
        Ok(Self {
            listpack,
            id,
            fields,
            alive,
            deleted,
        })
    }

    /// Reads the next entry that is not deleted: its id, and its fields and values if they are
    /// wanted. None when there are as many entries as the master says, and nothing else.
    pub(super) fn next(
        &mut self,
        mut pairs: Option<&mut Pairs<'a>>,
    ) -> Result<Option<StreamId>, PayloadError> {
        loop {
            let flags = match self.listpack.next()? {
                Some(Element::Int(flags @ 0..4)) => flags,
                Some(_) => return Err(bad(&self.listpack, "entry with unknown flags")),
                None if self.alive == 0 && self.deleted == 0 => return Ok(None),
                None => return Err(bad(&self.listpack, "fewer entries than the master says")),
            };
            let left = if flags & DELETED != 0 {
                &mut self.deleted
            } else {
                &mut self.alive
            };
            *left = left
                .checked_sub(1)
                .ok_or_else(|| bad(&self.listpack, "more entries than the master says"))?;
            // Relative ids are differences of unsigned numbers, so they may go around.
            let ms = self.id.ms.wrapping_add(int(&mut self.listpack)? as u64);
            let seq = self.id.seq.wrapping_add(int(&mut self.listpack)? as u64);
            let wanted = if flags & DELETED != 0 {
                None
            } else {
                pairs.as_deref_mut()
            };
            let elements = self.pairs(flags & SAME_FIELDS != 0, wanted)?;
            if count(&mut self.listpack)? != elements {
                return Err(bad(&self.listpack, "entry of another length than it says"));
            }
            if flags & DELETED == 0 {
                return Ok(Some(StreamId { ms, seq }));
            }
        }
    }

    /// Reads fields and values, and says of how many elements the whole entry is made.
    fn pairs(
        &mut self,
        same_fields: bool,
        mut wanted: Option<&mut Pairs<'a>>,
    ) -> Result<u64, PayloadError> {
        let mut keep = |name: &dyn Fn() -> Bytes<'a>, value: Element<'a>| {
            if let Some(pairs) = &mut wanted {
                pairs.push((name(), value.into_bytes()));
            }
        };
        if same_fields {
            for name in &self.fields {
                keep(&|| name.clone().into_bytes(), element(&mut self.listpack)?);
            }
            return Ok(3 + self.fields.len() as u64);
        }
        let pairs = some(&mut self.listpack)?;
        for _ in 0..pairs {
            let name = element(&mut self.listpack)?;
            keep(&|| name.clone().into_bytes(), element(&mut self.listpack)?);
        }
        Ok(4 + 2 * pairs)
    }
}

fn bad(listpack: &Listpack<'_>, what: &'static str) -> PayloadError {
    listpack.error(ErrorKind::Stream(what))
}

fn element<'a>(listpack: &mut Listpack<'a>) -> Result<Element<'a>, PayloadError> {
    listpack
        .next()?
        .ok_or_else(|| bad(listpack, "node ends within an entry"))
}

fn int(listpack: &mut Listpack<'_>) -> Result<i64, PayloadError> {
    match element(listpack)? {
        Element::Int(number) => Ok(number),
        Element::Text(_) => Err(bad(listpack, "text where a number is expected")),
    }
}

fn count(listpack: &mut Listpack<'_>) -> Result<u64, PayloadError> {
    u64::try_from(int(listpack)?).map_err(|_| bad(listpack, "negative count"))
}

/// The number of fields of an entry: XADD wants one at least, and no listpack holds 2^32.
fn some(listpack: &mut Listpack<'_>) -> Result<u64, PayloadError> {
    match int(listpack)? {
        number @ 1..0x1_0000_0000 => Ok(number as u64),
        _ => Err(bad(listpack, "entry without fields")),
    }
}
