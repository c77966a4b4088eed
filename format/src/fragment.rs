//! FRAGMENT frames: the parts of one DATA body that is too large for a frame, and their joining.
//!
//! A run of a few kilobytes may stand for terabytes, and nobody knows before its last part whether
//! it ends. So no more than a few times the bytes that are really there is ever unpacked ahead of
//! that part; whoever needs no values joins nothing at all.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use crate::body::{Body, too_large};
use crate::error::{Error, Position, Result};
use crate::frame::{Codec, FrameHeader};
use crate::limits::{Limits, MAX_JOINED_LEN};
use crate::record::{Record, Value};
use crate::skim::{Keep, Skimmer};
use crate::wire::{self, FragmentHead};
use crate::zstandard::Unpacker;

/// Bytes of a value that are kept whatever they took as stored.
const ALWAYS_JOINED: u64 = 16 * 1024 * 1024;

/// Bytes of a value that are kept for each stored one. Honest values rarely compress better.
const JOINED_FOR_EACH_STORED: u64 = 4;

/// A run that is being joined. Its parts go by a [`Skimmer`]; of the joined body nothing is held but
/// what that keeps, and the value, where all of it is wanted.
#[derive(Debug)]
pub(crate) struct Joiner {
    skimmer: Skimmer,
    progress: Progress,
    value: Option<Joined>,
}

/// How far a run has come.
#[derive(Debug, Default)]
struct Progress {
    next_part: u32,
    total_len: Option<u64>,
    /// Bytes of the whole in the parts so far.
    len: u64,
    stored_len: u64,
}

/// A value, or a function payload, as far as it came.
#[derive(Debug)]
struct Joined {
    bytes: Vec<u8>,
    /// Where in the joined body the bytes are that are not in `bytes` yet.
    rest: Range<u64>,
    /// The parts behind those, as stored.
    waiting: VecDeque<Waiting>,
}

/// A part, as stored.
#[derive(Debug)]
struct Waiting {
    codec: Codec,
    raw_len: u32,
    /// Where in the joined body it begins.
    begin: u64,
    payload: Vec<u8>,
}

impl Joiner {
    /// For a run of which so much is wanted.
    pub(crate) fn new(keep: Keep) -> Self {
        Joiner {
            skimmer: Skimmer::new(keep),
            progress: Progress::default(),
            value: None,
        }
    }

    /// Takes a part after checking that it is the one that is due; true if it was the last. `stored`
    /// is its payload where that is not the body itself.
    pub(crate) fn push(
        &mut self,
        header: &FrameHeader,
        stored: &[u8],
        body: &[u8],
        at: Position,
        limits: &Limits,
    ) -> Result<bool> {
        let begin = self.progress.len;
        let (bytes, last) = self.progress.part(header, body, at, limits)?;
        let total = self.progress.total_len.unwrap_or_default();
        self.skimmer.push(bytes, total, at, limits);
        if self.skimmer.has_failed() {
            // The error is told at the end of the run, and nothing will be made of the value.
            self.value = None;
        } else if let Some((bytes, rest)) = self.skimmer.take_beginning() {
            self.value = Some(Joined {
                bytes,
                rest,
                waiting: VecDeque::new(),
            });
        }
        let Some(value) = &mut self.value else {
            return Ok(last);
        };
        let wanted = value.part_of(begin, bytes);
        if value.waiting.is_empty() && value.has_room_for(wanted.len(), self.progress.stored_len) {
            value.append(wanted, at)?;
        } else if !wanted.is_empty() {
            let payload = match header.codec {
                Codec::Stored => body,
                Codec::Zstd => stored,
            };
            value.waiting.push_back(Waiting {
                codec: header.codec,
                raw_len: header.raw_len,
                begin,
                payload: payload.to_vec(),
            });
        }
        Ok(last)
    }

    /// The database and the name of the record's key, once that came.
    pub(crate) fn name(&self) -> Option<(u32, &[u8])> {
        match self.skimmer.record()? {
            Record::Key(record) => Some((record.db, &record.key)),
            Record::Deleted { db, key } => Some((*db, key)),
            _ => None,
        }
    }

    /// How many parts were joined: the number of the part that is due.
    pub(crate) fn parts(&self) -> u32 {
        self.progress.next_part
    }

    /// Bytes of the joined body.
    pub(crate) fn len(&self) -> u64 {
        self.progress.len
    }

    /// The record, once the last part came. `at` is where the run begins.
    pub(crate) fn into_body(self, unpacker: &mut Unpacker, at: Position) -> Result<Body> {
        let mut body = self.skimmer.into_body(at)?;
        let Some(value) = self.value else {
            return Ok(body);
        };
        let whole = value.join(unpacker, at)?;
        match body.records.first_mut() {
            Some(Record::Key(key)) => {
                key.value = match key.value {
                    Value::Verbatim(_) => Value::Verbatim(whole),
                    _ => Value::Compact(whole),
                };
            }
            Some(Record::Functions(payload)) => *payload = whole,
            _ => {}
        }
        Ok(body)
    }
}

impl Progress {
    /// The bytes of the part that is due, and whether it is the last.
    fn part<'a>(
        &mut self,
        header: &FrameHeader,
        body: &'a [u8],
        at: Position,
        limits: &Limits,
    ) -> Result<(&'a [u8], bool)> {
        let damaged = |field, what: String| Error::damaged(Position { field, ..at }, what);
        let (head, bytes) = split(body).map_err(|what| damaged("fragment head", what))?;
        if head.part != self.next_part {
            let what = format!(
                "part {} stands where part {} was due",
                head.part, self.next_part
            );
            return Err(damaged("part", what));
        }
        let total_len = *self.total_len.get_or_insert(head.total_len);
        if head.total_len != total_len || total_len > MAX_JOINED_LEN {
            return Err(damaged(
                "total_len",
                format!("a total length of {} bytes", head.total_len),
            ));
        }
        // Key, lengths and CONTEXT come on top of the value; they are not what the limit is about.
        const AROUND_VALUE: u64 = 1 << 20;
        if total_len > limits.max_value_bytes.saturating_add(AROUND_VALUE) {
            return Err(too_large(at, total_len, limits));
        }
        let left = total_len - self.len;
        let len = bytes.len() as u64;
        if len == 0 || len > left || head.last != (len == left) {
            let what = format!("a part of {len} bytes where {left} are left of the whole");
            return Err(damaged("part", what));
        }
        self.next_part += 1;
        self.len += len;
        self.stored_len += u64::from(header.stored_len);
        Ok((bytes, head.last))
    }
}

impl Joined {
    /// What of a part that begins at `begin` belongs to the value.
    fn part_of<'a>(&self, begin: u64, bytes: &'a [u8]) -> &'a [u8] {
        let len = bytes.len() as u64;
        let place = |offset: u64| offset.saturating_sub(begin).min(len) as usize;
        let (from, to) = (place(self.rest.start), place(self.rest.end));
        bytes.get(from..to).unwrap_or_default()
    }

    fn has_room_for(&self, more: usize, stored_len: u64) -> bool {
        let room = ALWAYS_JOINED.max(JOINED_FOR_EACH_STORED * stored_len);
        (self.bytes.len() + more) as u64 <= room
    }

    fn append(&mut self, bytes: &[u8], at: Position) -> Result<()> {
        // Grows by doubling as parts arrive, and never beyond the whole: a claim buys nothing.
        if self.bytes.capacity() - self.bytes.len() < bytes.len() {
            let left = self.rest.end - self.rest.start;
            let double = self.bytes.len().max(bytes.len()) as u64;
            reserve(&mut self.bytes, double.min(left), at)?;
        }
        self.bytes.extend_from_slice(bytes);
        self.rest.start += bytes.len() as u64;
        Ok(())
    }

    /// The whole, in memory that is taken once its bytes are known to be there.
    fn join(mut self, unpacker: &mut Unpacker, at: Position) -> Result<Vec<u8>> {
        reserve(&mut self.bytes, self.rest.end - self.rest.start, at)?;
        let damaged = |what| Error::damaged(at, what);
        let mut body = Vec::new();
        while let Some(part) = self.waiting.pop_front() {
            if part.codec == Codec::Zstd {
                unpacker
                    .unpack(&part.payload, part.raw_len as usize, &mut body)
                    .map_err(damaged)?;
            } else {
                body = part.payload;
            }
            let (_, bytes) = split(&body).map_err(damaged)?;
            let wanted = self.part_of(part.begin, bytes);
            self.bytes.extend_from_slice(wanted);
        }
        Ok(self.bytes)
    }
}

/// Room for so many more bytes, or an error where the machine has none.
fn reserve(buffer: &mut Vec<u8>, more: u64, at: Position) -> Result<()> {
    let taken = usize::try_from(more).is_ok_and(|more| buffer.try_reserve_exact(more).is_ok());
    if taken {
        return Ok(());
    }
    let what = format!(
        "there is no memory for a value of {} bytes",
        buffer.len() as u64 + more
    );
    Err(Error::Read {
        offset: at.offset,
        source: io::Error::new(io::ErrorKind::OutOfMemory, what),
    })
}

/// Which part of its run a body is.
pub(crate) fn part_of(body: &[u8]) -> Result<u32, String> {
    split(body).map(|(head, _)| head.part)
}

/// Head and bytes of a FRAGMENT body: `length of the head · head · bytes`.
fn split(body: &[u8]) -> Result<(FragmentHead, &[u8]), String> {
    // A head is shorter than 251 bytes, now and later, so that its length is one byte.
    let Some((&len, rest)) = body.split_first() else {
        return Err("it is empty".into());
    };
    match rest.split_at_checked(usize::from(len)) {
        Some((head, bytes)) if len < 251 => Ok((wire::decode_fragment_head(head)?, bytes)),
        _ => Err(format!("a head of {len} bytes in a body of {}", body.len())),
    }
}
