//! A whole DATA body: every entry is walked before any record of it is released.

use std::ops::Range;

use crate::entry::{Entries, Entry};
use crate::error::{Error, Position, Result};
use crate::keyset::KeySet;
use crate::limits::{Limits, MAX_ENTRIES, PIECE_BYTES, PIECE_RECORDS};
use crate::record::{Context, Glance, KeyRecord, Record, Value};
use crate::skim::in_place;

/// A decoded body.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) context: Context,
    pub(crate) records: Vec<Record>,
    /// Ancillary entries that this reader does not know.
    pub(crate) skipped: u64,
    /// Length of the only record's value, where only the beginning of it is there.
    pub(crate) value_len: Option<u64>,
}

/// How many records of a body are made at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    records: usize,
    /// Bytes of entries.
    bytes: usize,
}

impl Room {
    /// All of them.
    pub(crate) const ALL: Room = Room {
        records: usize::MAX,
        bytes: usize::MAX,
    };

    /// One piece.
    pub(crate) const PIECE: Room = Room {
        records: PIECE_RECORDS,
        bytes: PIECE_BYTES,
    };
}

/// Decodes a body of many small records, copying each out of it, as far as there is room. All of it
/// is checked before anything is returned; beside the records, the place where [`piece`] goes on.
pub(crate) fn decode(
    body: &[u8],
    at: Position,
    limits: &Limits,
    keys: &mut KeySet,
    room: Room,
) -> Result<(Body, Option<usize>)> {
    keys.clear();
    let mut walk = Walk::start(body, at)?;
    let begin = walk.entries.pos();
    let (mut records, mut count, mut rest) = (Vec::new(), 0, None);
    loop {
        let place = walk.entries.pos();
        let Some(entry) = walk.next_record(limits)? else {
            break;
        };
        if let Some((db, key)) = entry.key() {
            let is_new = keys.insert(keys.hash_of(db, &body[key.clone()]));
            // Equal hashes are rare enough to look at every record; see KeySet.
            if !is_new && stands_before(body, at, limits, count, (db, &body[key]))? {
                return Err(walk.damaged("key", TWICE));
            }
        }
        count += 1;
        if records.len() >= room.records || place - begin >= room.bytes {
            rest.get_or_insert(place);
        }
        if rest.is_none() {
            records.extend(record_of(&entry, body));
        }
    }
    let body = Body {
        context: walk.context,
        records,
        skipped: walk.skipped,
        value_len: None,
    };
    Ok((body, rest))
}

/// Makes the next records of a body that was checked, from byte `from` on; with them, the place
/// where it goes on.
pub(crate) fn piece(
    body: &[u8],
    from: usize,
    at: Position,
    limits: &Limits,
    room: Room,
) -> Result<(Vec<Record>, Option<usize>)> {
    let mut walk = Walk::go_on(body, from, at);
    let mut records = Vec::new();
    loop {
        let place = walk.entries.pos();
        let is_full = records.len() >= room.records || place - from >= room.bytes;
        if is_full && place < body.len() {
            return Ok((records, Some(place)));
        }
        let Some(entry) = walk.next_record(limits)? else {
            return Ok((records, None));
        };
        records.extend(record_of(&entry, body));
    }
}

/// Checks a body as [`decode`] does; what is in it, but no records.
pub(crate) fn check(
    body: &[u8],
    at: Position,
    limits: &Limits,
    keys: &mut KeySet,
    mut each: impl FnMut(&Glance<'_>),
) -> Result<Context> {
    keys.clear();
    let mut walk = Walk::start(body, at)?;
    let mut count = 0_usize;
    while let Some(entry) = walk.next_record(limits)? {
        if let Some((db, key)) = entry.key() {
            let is_new = keys.insert(keys.hash_of(db, &body[key.clone()]));
            if !is_new && stands_before(body, at, limits, count, (db, &body[key]))? {
                return Err(walk.damaged("key", TWICE));
            }
        }
        count += 1;
        if let Some(glance) = glance_of(&entry, body) {
            each(&glance);
        }
    }
    Ok(walk.context)
}

/// Whether one of the first `count` records has this database and key.
fn stands_before(
    body: &[u8],
    at: Position,
    limits: &Limits,
    count: usize,
    pair: (u32, &[u8]),
) -> Result<bool> {
    let mut walk = Walk::start(body, at)?;
    for _ in 0..count {
        if let Some(entry) = walk.next_record(limits)?
            && let Some((db, key)) = entry.key()
            && (db, &body[key]) == pair
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn glance_of<'a>(entry: &Entry, body: &'a [u8]) -> Option<Glance<'a>> {
    Some(match entry {
        Entry::Key {
            db,
            expire_at_ms,
            key,
            value,
            ..
        } => Glance::Key {
            db: *db,
            key: &body[key.clone()],
            value_len: value.len() as u64,
            expires: expire_at_ms.is_some(),
        },
        Entry::Tombstone { db, key } => Glance::Deleted {
            db: *db,
            key: &body[key.clone()],
        },
        Entry::Functions { .. } => Glance::Functions,
        Entry::Context(_) | Entry::Skipped => return None,
    })
}

const TWICE: &str = "a key stands twice in one frame";

/// Makes the records of a body that was checked, one at a time.
pub(crate) fn each_record(
    body: &[u8],
    at: Position,
    limits: &Limits,
    mut each: impl FnMut(&Record),
) -> Result<()> {
    let mut walk = Walk::start(body, at)?;
    while let Some(entry) = walk.next_record(limits)? {
        if let Some(record) = record_of(&entry, body) {
            each(&record);
        }
    }
    Ok(())
}

/// Looks at the records of a body that was checked, from byte `from` on, where an entry begins; how
/// many entries were skipped.
pub(crate) fn each_glance(
    body: &[u8],
    from: usize,
    at: Position,
    limits: &Limits,
    mut each: impl FnMut(&Glance<'_>) -> Result<()>,
) -> Result<u64> {
    let mut walk = match from {
        0 => Walk::start(body, at)?,
        from => Walk::go_on(body, from, at),
    };
    while let Some(entry) = walk.next_record(limits)? {
        if let Some(glance) = glance_of(&entry, body) {
            each(&glance)?;
        }
    }
    Ok(walk.skipped)
}

/// The record of an entry, copied out of `body`; of a value that goes on behind it, the beginning.
pub(crate) fn record_of(entry: &Entry, body: &[u8]) -> Option<Record> {
    let there = |range: &Range<usize>| {
        let end = range.end.min(body.len());
        body.get(range.start..end).unwrap_or_default().to_vec()
    };
    Some(match entry {
        Entry::Key {
            db,
            expire_at_ms,
            eviction,
            key,
            value,
            verbatim,
        } => {
            let bytes = there(value);
            let value = if *verbatim {
                Value::Verbatim(bytes)
            } else {
                Value::Compact(bytes)
            };
            Record::Key(KeyRecord {
                db: *db,
                key: there(key),
                value,
                expire_at_ms: *expire_at_ms,
                eviction: *eviction,
            })
        }
        Entry::Tombstone { db, key } => Record::Deleted {
            db: *db,
            key: there(key),
        },
        Entry::Functions { payload } => Record::Functions(there(payload)),
        Entry::Context(_) | Entry::Skipped => return None,
    })
}

/// Walks the entries and keeps the rules that are about their order and number.
struct Walk<'a> {
    entries: Entries<'a>,
    at: Position,
    count: usize,
    context: Context,
    skipped: u64,
}

impl<'a> Walk<'a> {
    fn start(body: &'a [u8], at: Position) -> Result<Self> {
        let mut walk = Walk {
            entries: Entries::new(body),
            at,
            count: 1,
            context: Context::default(),
            skipped: 0,
        };
        match walk.next()? {
            Some(Entry::Context(context)) => walk.context = context,
            _ => {
                return Err(
                    walk.damaged("CONTEXT", "the first entry of a frame is not its CONTEXT")
                );
            }
        }
        Ok(walk)
    }

    /// In a body that was checked, at an entry behind its CONTEXT.
    fn go_on(body: &'a [u8], from: usize, at: Position) -> Self {
        Walk {
            entries: Entries::from(body, from),
            at,
            count: 1,
            context: Context::default(),
            skipped: 0,
        }
    }

    fn next(&mut self) -> Result<Option<Entry>> {
        let at = self.at;
        self.entries.next().map_err(|error| in_place(error, at))
    }

    /// The next entry that is a record.
    fn next_record(&mut self, limits: &Limits) -> Result<Option<Entry>> {
        loop {
            let Some(entry) = self.next()? else {
                return Ok(None);
            };
            self.count += 1;
            if self.count > MAX_ENTRIES {
                return Err(self.damaged(
                    "entries",
                    format!("more than {MAX_ENTRIES} entries in one frame"),
                ));
            }
            let value_len = match &entry {
                Entry::Context(_) => {
                    return Err(self.damaged("CONTEXT", "a second CONTEXT in one frame"));
                }
                Entry::Skipped => {
                    self.skipped += 1;
                    continue;
                }
                Entry::Key { value, .. } => value.len(),
                Entry::Functions { payload } => payload.len(),
                Entry::Tombstone { .. } => 0,
            };
            if value_len as u64 > limits.max_value_bytes {
                return Err(too_large(self.at, value_len as u64, limits));
            }
            return Ok(Some(entry));
        }
    }

    fn damaged(&self, field: &'static str, what: impl Into<String>) -> Error {
        Error::damaged(Position { field, ..self.at }, what)
    }
}

/// The refusal of a value beyond the caller's limit.
pub(crate) fn too_large(at: Position, found: u64, limits: &Limits) -> Error {
    Error::LimitExceeded {
        at: Position {
            field: "value",
            ..at
        },
        what: "the bytes of a value are",
        found,
        limit: limits.max_value_bytes,
    }
}
