//! A joined body that goes by in pieces, for readers that want no values, or none so large: its
//! entries are checked as those of any body are, and of its one record the beginning is kept.

use std::ops::Range;

use crate::body::{Body, record_of, too_large};
use crate::entry::{self, Cursor, Entry, EntryError};
use crate::error::{Error, Position, Result};
use crate::limits::{HEAD_LEN, Limits, MAX_ENTRIES, MAX_KEPT_FUNCTIONS};
use crate::record::{Context, Record, Value, Withheld};

/// Longest kind and length of an entry: one byte, and a number of nine.
const ENTRY_HEAD: usize = 10;

/// What of a value in a FRAGMENT run is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The first bytes, whatever its length.
    Heads,
    /// All of it, unless it has more bytes; of a larger one nothing. [`Skimmer::take_beginning`] says
    /// what is wanted behind the first bytes.
    UpTo(u64),
}

impl Keep {
    /// What a reader wants.
    pub(crate) fn of(heads_only: bool, limits: &Limits) -> Self {
        match heads_only {
            true => Keep::Heads,
            false => Keep::UpTo(limits.kept_value_bytes),
        }
    }
}

/// The entries so far.
#[derive(Debug)]
pub(crate) struct Skimmer {
    keep: Keep,
    /// Where the run begins, which errors name.
    first: Option<Position>,
    context: Option<Context>,
    /// It, and the length of its value where only the beginning is there.
    record: Option<(Record, Option<u64>)>,
    /// Where in the joined body the bytes are that the record's value or payload lacks.
    lacks: Option<Range<u64>>,
    skipped: u64,
    count: usize,
    /// Bytes of the joined body before what comes next.
    at: u64,
    /// Kind and length of the entry that comes next, as far as they came.
    head: Vec<u8>,
    current: Option<Current>,
    /// What is wrong: told once the last part came, as a reader of whole values tells it.
    error: Option<Error>,
}

/// The entry that is going by.
#[derive(Debug)]
struct Current {
    kind: u8,
    /// Where in the joined body its own begins.
    begin: u64,
    len: u64,
    seen: u64,
    kept: Vec<u8>,
    /// Bytes of it that are to be kept.
    wanted: usize,
    is_done: bool,
}

impl Skimmer {
    /// For a run that begins.
    pub(crate) fn new(keep: Keep) -> Self {
        Skimmer {
            keep,
            first: None,
            context: None,
            record: None,
            lacks: None,
            skipped: 0,
            count: 0,
            at: 0,
            head: Vec::new(),
            current: None,
            error: None,
        }
    }

    /// Takes the next bytes of a body of `total`.
    pub(crate) fn push(&mut self, mut bytes: &[u8], total: u64, at: Position, limits: &Limits) {
        let at = *self.first.get_or_insert(Position {
            field: "entries",
            ..at
        });
        while !bytes.is_empty() && self.error.is_none() {
            let before = bytes.len();
            let step = match &self.current {
                Some(_) => self.go_on(&mut bytes, at, limits),
                None => self.begin(&mut bytes, total, at),
            };
            self.at += (before - bytes.len()) as u64;
            self.error = step.err();
        }
    }

    /// Reads kind and length of an entry.
    fn begin(&mut self, bytes: &mut &[u8], total: u64, at: Position) -> Result<()> {
        let before = self.head.len();
        let more = (ENTRY_HEAD - before).min(bytes.len());
        self.head.extend_from_slice(&bytes[..more]);
        let mut cursor = Cursor::new(&self.head[1..]);
        let len = match cursor.varint("entry length") {
            Ok(len) => len,
            // The number may go on in the next part.
            Err(EntryError::Damaged(..)) if self.head.len() < ENTRY_HEAD && more == bytes.len() => {
                *bytes = &[];
                return Ok(());
            }
            Err(error) => return Err(in_place(error, at)),
        };
        let head_len = 1 + cursor.pos();
        let kind = self.head[0];
        self.head.clear();
        *bytes = &bytes[head_len - before..];
        let left = total - self.at - (head_len - before) as u64;
        if len > left {
            let what = format!("a length of {len} where {left} bytes are left");
            return Err(damaged("entry length", what, at));
        }
        self.count += 1;
        if self.count > MAX_ENTRIES {
            let what = format!("more than {MAX_ENTRIES} entries in one frame");
            return Err(damaged("entries", what, at));
        }
        self.current = Some(Current {
            kind,
            begin: self.at + (head_len - before) as u64,
            len,
            seen: 0,
            kept: Vec::new(),
            wanted: HEAD_LEN,
            is_done: false,
        });
        // One without a body has nothing that could come.
        if len == 0 {
            self.look(at, &Limits::default())?;
        }
        Ok(())
    }

    /// Takes bytes of the current entry.
    fn go_on(&mut self, bytes: &mut &[u8], at: Position, limits: &Limits) -> Result<()> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        let left = current.len - current.seen;
        let step = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        if !current.is_done {
            let room = current.wanted - current.kept.len();
            current.kept.extend_from_slice(&bytes[..step.min(room)]);
            let taken = step.min(room);
            current.seen += taken as u64;
            *bytes = &bytes[taken..];
            if current.kept.len() == current.wanted || current.seen == current.len {
                self.look(at, limits)?;
            }
            return Ok(());
        }
        current.seen += step as u64;
        *bytes = &bytes[step..];
        if current.seen == current.len {
            self.current = None;
        }
        Ok(())
    }

    /// Decodes what is kept of the current entry; what it is then is settled, or more is wanted.
    fn look(&mut self, at: Position, limits: &Limits) -> Result<()> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        let end = usize::try_from(current.len).unwrap_or(usize::MAX);
        let decoded = entry::entry(current.kind, &current.kept, 0..end);
        let wanted = match &decoded {
            Err(EntryError::CutAt(wanted)) => Some(*wanted),
            Ok(Entry::Key { key, .. } | Entry::Tombstone { key, .. })
                if key.end > current.kept.len() =>
            {
                Some(key.end)
            }
            _ => None,
        };
        if let Some(wanted) = wanted {
            current.wanted = (wanted + HEAD_LEN).min(end);
            return Ok(());
        }
        let decoded = decoded.map_err(|error| in_place(error, at))?;
        let (kept, begin) = (std::mem::take(&mut current.kept), current.begin);
        current.is_done = true;
        let is_over = current.seen == current.len;
        if is_over {
            self.current = None;
        }
        self.settle(decoded, &kept, begin, at, limits)
    }

    /// Takes an entry whose own bytes begin at `begin` of the joined body, `kept` being the first.
    fn settle(
        &mut self,
        entry: Entry,
        kept: &[u8],
        begin: u64,
        at: Position,
        limits: &Limits,
    ) -> Result<()> {
        let value_len = match (&entry, self.context.is_some()) {
            (Entry::Context(context), false) => {
                self.context = Some(*context);
                return Ok(());
            }
            (Entry::Context(_), true) => {
                return Err(damaged("CONTEXT", "a second CONTEXT in one frame", at));
            }
            (_, false) => {
                let what = "the first entry of a frame is not its CONTEXT";
                return Err(damaged("CONTEXT", what, at));
            }
            (Entry::Skipped, true) => {
                self.skipped += 1;
                return Ok(());
            }
            (Entry::Key { value, .. }, true) => value.len(),
            (Entry::Functions { payload }, true) => payload.len(),
            (Entry::Tombstone { .. }, true) => 0,
        };
        if value_len as u64 > limits.max_value_bytes {
            return Err(too_large(at, value_len as u64, limits));
        }
        let record = record_of(&entry, kept);
        let Some(mut record) = record.filter(|_| self.record.is_none()) else {
            let what = "a FRAGMENT run holds more than one record";
            return Err(damaged("entries", what, at));
        };
        let mut len = None;
        match (self.keep, &mut record) {
            (Keep::Heads, _) => len = Some(value_len as u64),
            (Keep::UpTo(most), Record::Key(key)) if value_len as u64 > most => {
                let withheld = Withheld::of(value_len as u64, key.value.bytes());
                key.value = Value::Withheld(withheld);
            }
            (Keep::UpTo(most), Record::Functions(_))
                if value_len as u64 > most.max(MAX_KEPT_FUNCTIONS) =>
            {
                record = Record::WithheldFunctions(value_len as u64);
            }
            (Keep::UpTo(_), _) => {
                let end = match &entry {
                    Entry::Key { value, .. } => value.end,
                    Entry::Functions { payload } => payload.end,
                    _ => 0,
                };
                if end > kept.len() {
                    self.lacks = Some(begin + kept.len() as u64..begin + end as u64);
                }
            }
        }
        self.record = Some((record, len));
        Ok(())
    }

    /// Whether something is wrong, which [`Skimmer::into_body`] says.
    pub(crate) fn has_failed(&self) -> bool {
        self.error.is_some()
    }

    /// The record, as far as it is kept, once its name came.
    pub(crate) fn record(&self) -> Option<&Record> {
        self.record.as_ref().map(|(record, _)| record)
    }

    /// Once, when the record was seen, and all of its value or function payload is wanted and did not
    /// come yet: the first bytes of that, and where in the joined body the others are.
    pub(crate) fn take_beginning(&mut self) -> Option<(Vec<u8>, Range<u64>)> {
        let lacks = self.lacks.take()?;
        let first = match &mut self.record {
            Some((Record::Key(key), _)) => match &mut key.value {
                Value::Compact(bytes) | Value::Verbatim(bytes) => std::mem::take(bytes),
                Value::Withheld(_) => return None,
            },
            Some((Record::Functions(payload), _)) => std::mem::take(payload),
            _ => return None,
        };
        Some((first, lacks))
    }

    /// The record, once everything came.
    pub(crate) fn into_body(self, at: Position) -> Result<Body> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if let Some((_, number)) = self.head.split_first() {
            let cut_off = Cursor::new(number).varint("entry length").err();
            return Err(in_place(cut_off.unwrap_or(EntryError::CutAt(0)), at));
        }
        let Some(context) = self.context else {
            let what = "the first entry of a frame is not its CONTEXT";
            return Err(damaged("CONTEXT", what, at));
        };
        let Some((record, value_len)) = self.record else {
            return Err(damaged("entries", "a FRAGMENT run holds no record", at));
        };
        Ok(Body {
            context,
            records: vec![record],
            skipped: self.skipped,
            value_len,
        })
    }
}

fn damaged(field: &'static str, what: impl Into<String>, at: Position) -> Error {
    Error::damaged(Position { field, ..at }, what)
}

/// An error of an entry as one of the archive.
pub(crate) fn in_place(error: EntryError, at: Position) -> Error {
    match error {
        EntryError::Damaged(field, what) => damaged(field, what, at),
        EntryError::CutAt(_) => damaged("entry length", "it ends inside an entry", at),
        EntryError::Unknown(kind) => Error::unsupported(
            Position {
                field: "entry kind",
                ..at
            },
            format!("entries of kind {kind:02X} are unknown and may not be skipped"),
        ),
    }
}
