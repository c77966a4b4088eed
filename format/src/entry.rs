//! Entries of a DATA body, encoded and decoded by hand.
//!
//! There are millions of them, so they do not pass through serde; the bytes are those of SPEC.md
//! §6 all the same, and a test compares them with bincode's.

use std::ops::Range;

use crate::limits::{HEAD_LEN, MAX_KEY_LEN};
use crate::record::{Context, Eviction, KeyRecord, Record, Value};
use crate::wire;

/// Kinds of entries. Below 80 a reader must know the kind.
pub(crate) const KEY: u8 = 0x01;
pub(crate) const KEY_VERBATIM: u8 = 0x02;
pub(crate) const FUNCTION_LIBRARY: u8 = 0x03;
pub(crate) const TOMBSTONE: u8 = 0x04;
pub(crate) const CONTEXT: u8 = 0x05;

/// Appends a number: one byte below 251, else a tag and two, four or eight bytes.
pub(crate) fn put_varint(out: &mut Vec<u8>, value: u64) {
    if value < 251 {
        out.push(value as u8);
    } else if let Ok(short) = u16::try_from(value) {
        out.push(0xFB);
        out.extend_from_slice(&short.to_le_bytes());
    } else if let Ok(word) = u32::try_from(value) {
        out.push(0xFC);
        out.extend_from_slice(&word.to_le_bytes());
    } else {
        out.push(0xFD);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// Bytes that [`put_varint`] appends.
pub(crate) fn varint_len(value: u64) -> usize {
    match value {
        0..251 => 1,
        251..0x1_0000 => 3,
        0x1_0000..0x1_0000_0000 => 5,
        _ => 9,
    }
}

/// Appends a CONTEXT entry.
pub(crate) fn put_context(out: &mut Vec<u8>, context: &Context) {
    let body = wire::encode_context(context);
    out.push(CONTEXT);
    put_varint(out, body.len() as u64);
    out.extend_from_slice(&body);
}

/// Length of the whole entry of a record.
pub(crate) fn entry_len(record: &Record) -> u64 {
    let body = body_len(record);
    1 + varint_len(body) as u64 + body
}

fn body_len(record: &Record) -> u64 {
    let bytes = |len: usize| (varint_len(len as u64) + len) as u64;
    match record {
        Record::Key(key) => {
            let fixed = varint_len(u64::from(key.db))
                + key.expire_at_ms.map_or(1, |ms| 1 + varint_len(ms))
                + match key.eviction {
                    None => 2,
                    Some(Eviction::IdleSecs(secs)) => 2 + varint_len(secs),
                    Some(Eviction::Freq(_)) => 3,
                };
            fixed as u64 + bytes(key.key.len()) + bytes(key.value.bytes().len())
        }
        Record::Deleted { db, key } => varint_len(u64::from(*db)) as u64 + bytes(key.len()),
        Record::Functions(payload) => bytes(payload.len()),
        // A writer takes none.
        Record::WithheldFunctions(_) => 0,
    }
}

/// Appends all of a record's entry but its last field's bytes, and returns those: a large value is
/// never copied whole.
pub(crate) fn put_head<'a>(out: &mut Vec<u8>, record: &'a Record) -> &'a [u8] {
    out.push(match record {
        Record::Key(KeyRecord {
            // A writer takes no withheld value.
            value: Value::Compact(_) | Value::Withheld(_),
            ..
        }) => KEY,
        Record::Key(KeyRecord {
            value: Value::Verbatim(_),
            ..
        }) => KEY_VERBATIM,
        Record::Deleted { .. } => TOMBSTONE,
        Record::Functions(_) | Record::WithheldFunctions(_) => FUNCTION_LIBRARY,
    });
    put_varint(out, body_len(record));
    let tail: &[u8] = match record {
        Record::Key(key) => {
            put_varint(out, u64::from(key.db));
            put_option(out, key.expire_at_ms);
            match key.eviction {
                None => out.extend_from_slice(&[0, 0]),
                Some(Eviction::IdleSecs(secs)) => {
                    put_option(out, Some(secs));
                    out.push(0);
                }
                Some(Eviction::Freq(freq)) => out.extend_from_slice(&[0, 1, freq]),
            }
            put_varint(out, key.key.len() as u64);
            out.extend_from_slice(&key.key);
            key.value.bytes()
        }
        Record::Deleted { db, key } => {
            put_varint(out, u64::from(*db));
            key
        }
        Record::Functions(payload) => payload,
        Record::WithheldFunctions(_) => &[],
    };
    put_varint(out, tail.len() as u64);
    tail
}

fn put_option(out: &mut Vec<u8>, value: Option<u64>) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            put_varint(out, value);
        }
    }
}

/// An entry as it lies in a body; ranges are offsets in that body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Key {
        db: u32,
        expire_at_ms: Option<u64>,
        eviction: Option<Eviction>,
        key: Range<usize>,
        value: Range<usize>,
        verbatim: bool,
    },
    Functions {
        payload: Range<usize>,
    },
    Tombstone {
        db: u32,
        key: Range<usize>,
    },
    Context(Context),
    /// Ancillary and unknown.
    Skipped,
}

impl Entry {
    /// Database and key, where it has them.
    pub(crate) fn key(&self) -> Option<(u32, Range<usize>)> {
        match self {
            Entry::Key { db, key, .. } | Entry::Tombstone { db, key } => Some((*db, key.clone())),
            _ => None,
        }
    }
}

/// What is wrong with an entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EntryError {
    /// Field, and what is wrong with it.
    Damaged(&'static str, String),
    /// A kind that this reader does not know and may not skip.
    Unknown(u8),
    /// The slice ends inside the entry; with so many bytes of it there is more to see.
    CutAt(usize),
}

impl std::fmt::Display for EntryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            EntryError::Damaged(field, what) => write!(f, "{field}: {what}"),
            EntryError::Unknown(kind) => write!(f, "entries of kind {kind:02X} are unknown"),
            EntryError::CutAt(_) => f.write_str("it ends inside an entry"),
        }
    }
}

impl EntryError {
    fn new(field: &'static str, what: impl Into<String>) -> Self {
        EntryError::Damaged(field, what.into())
    }
}

/// Walks the entries of a body.
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    body: &'a [u8],
    pos: usize,
}

impl<'a> Entries<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Entries::from(body, 0)
    }

    /// From an entry that begins at byte `pos`.
    pub(crate) fn from(body: &'a [u8], pos: usize) -> Self {
        Entries { body, pos }
    }

    /// Where the next entry begins.
    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    /// The next entry; `None` when the body is used up exactly.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, EntryError> {
        let Some(&kind) = self.body.get(self.pos) else {
            return Ok(None);
        };
        let mut outer = Cursor {
            body: self.body,
            pos: self.pos + 1,
            ..Cursor::new(self.body)
        };
        let range = outer.bytes("entry length")?;
        self.pos = range.end;
        entry(kind, self.body, range).map(Some)
    }
}

/// The entry whose body is this range of `bytes`. Of a large one the bytes may end before the range
/// does: then a field that is cut is [`EntryError::CutAt`], while the last field's range goes beyond
/// the bytes.
pub(crate) fn entry(kind: u8, bytes: &[u8], range: Range<usize>) -> Result<Entry, EntryError> {
    let mut body = Cursor {
        body: bytes,
        pos: range.start,
        end: range.end,
        shortest: false,
    };
    // Bytes after the fields known here belong to a later minor version.
    Ok(match kind {
        KEY | KEY_VERBATIM => {
            let db = body.u32("db")?;
            let expire_at_ms = body.option("expire_at_ms", Cursor::varint)?;
            let idle = body.option("idle_s", Cursor::varint)?;
            let freq = body.option("freq", Cursor::byte)?;
            let eviction = match (idle, freq) {
                (None, None) => None,
                (Some(secs), None) => Some(Eviction::IdleSecs(secs)),
                (None, Some(freq)) => Some(Eviction::Freq(freq)),
                (Some(_), Some(_)) => {
                    return Err(EntryError::new(
                        "idle_s",
                        "a key has both an idle time and a frequency",
                    ));
                }
            };
            let key = body.key()?;
            let value = body.bytes("value")?;
            if value.is_empty() {
                return Err(EntryError::new("value", "a value without its type byte"));
            }
            Entry::Key {
                db,
                expire_at_ms,
                eviction,
                key,
                value,
                verbatim: kind == KEY_VERBATIM,
            }
        }
        FUNCTION_LIBRARY => Entry::Functions {
            payload: body.bytes("payload")?,
        },
        TOMBSTONE => {
            let db = body.u32("db")?;
            Entry::Tombstone {
                db,
                key: body.key()?,
            }
        }
        CONTEXT => {
            // Its fields are few: of what a later version puts behind them not all need be there.
            let end = range.end.min(range.start + HEAD_LEN);
            let context = bytes.get(range.start..end).ok_or(EntryError::CutAt(end))?;
            Entry::Context(
                wire::decode_context(context).map_err(|what| EntryError::new("CONTEXT", what))?,
            )
        }
        0x80.. => Entry::Skipped,
        _ => return Err(EntryError::Unknown(kind)),
    })
}

/// Reads fields of a slice, one after the other.
pub(crate) struct Cursor<'a> {
    body: &'a [u8],
    pos: usize,
    /// Where the fields end; the slice may end before.
    end: usize,
    /// Numbers must be in their shortest form.
    shortest: bool,
}

impl<'a> Cursor<'a> {
    /// All of a slice.
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Cursor {
            body,
            pos: 0,
            end: body.len(),
            shortest: false,
        }
    }

    /// All of a slice whose numbers must be in their shortest form.
    pub(crate) fn shortest(body: &'a [u8]) -> Self {
        Cursor {
            shortest: true,
            ..Cursor::new(body)
        }
    }

    /// Bytes read.
    pub(crate) fn pos(&self) -> usize {
        self.pos
    }
}

impl Cursor<'_> {
    pub(crate) fn byte(&mut self, field: &'static str) -> Result<u8, EntryError> {
        if self.pos >= self.end {
            return Err(EntryError::new(field, "the entry ends inside this field"));
        }
        let Some(&byte) = self.body.get(self.pos) else {
            return Err(EntryError::CutAt(self.pos + 1));
        };
        self.pos += 1;
        Ok(byte)
    }

    pub(crate) fn varint(&mut self, field: &'static str) -> Result<u64, EntryError> {
        let width = match self.byte(field)? {
            small @ 0..251 => return Ok(u64::from(small)),
            0xFB => 2,
            0xFC => 4,
            0xFD => 8,
            tag => {
                return Err(EntryError::new(
                    field,
                    format!("{tag:02X} begins no number"),
                ));
            }
        };
        if self.end - self.pos < width {
            return Err(EntryError::new(field, "the entry ends inside this field"));
        }
        let Some(number) = self.body.get(self.pos..self.pos + width) else {
            return Err(EntryError::CutAt(self.pos + width));
        };
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(number);
        self.pos += width;
        let number = u64::from_le_bytes(bytes);
        if self.shortest && varint_len(number) <= width {
            return Err(EntryError::new(field, "a number is longer than it must be"));
        }
        Ok(number)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, EntryError> {
        let value = self.varint(field)?;
        u32::try_from(value)
            .map_err(|_| EntryError::new(field, format!("{value} is too large for this field")))
    }

    fn option<T>(
        &mut self,
        field: &'static str,
        read: fn(&mut Self, &'static str) -> Result<T, EntryError>,
    ) -> Result<Option<T>, EntryError> {
        match self.byte(field)? {
            0 => Ok(None),
            1 => read(self, field).map(Some),
            tag => Err(EntryError::new(
                field,
                format!("{tag:02X} where 00 or 01 was due"),
            )),
        }
    }

    /// A key, which has a limit of its own.
    fn key(&mut self) -> Result<Range<usize>, EntryError> {
        let key = self.bytes("key")?;
        if key.len() > MAX_KEY_LEN {
            let what = format!("a key of {} bytes, allowed are {MAX_KEY_LEN}", key.len());
            return Err(EntryError::new("key", what));
        }
        Ok(key)
    }

    fn bytes(&mut self, field: &'static str) -> Result<Range<usize>, EntryError> {
        let len = self.varint(field)?;
        let left = self.end - self.pos;
        match usize::try_from(len) {
            Ok(len) if len <= left => {
                let start = self.pos;
                self.pos += len;
                Ok(start..self.pos)
            }
            _ => Err(EntryError::new(
                field,
                format!("a length of {len} where {left} bytes are left"),
            )),
        }
    }
}
