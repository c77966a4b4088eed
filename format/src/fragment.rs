//! FRAGMENT frames: the parts of one DATA body that is too large for a frame, and their joining.
//!
//! A run of a few kilobytes may stand for terabytes, and nobody knows before its last part whether
//! it ends. So no more than a few times the bytes that are really there is ever unpacked ahead of
//! that part; whoever needs no values joins nothing at all.

use std::collections::VecDeque;
use std::io;

use crate::body::{self, Body, too_large};
use crate::error::{Error, Position, Result};
use crate::frame::{Codec, FrameHeader};
use crate::limits::{Limits, MAX_JOINED_LEN};
use crate::skim::{Keep, Skimmer};
use crate::wire::{self, FragmentHead};
use crate::zstandard::Unpacker;

/// Joined bytes that are kept whatever they took as stored.
const ALWAYS_JOINED: u64 = 16 * 1024 * 1024;

/// Joined bytes that are kept for each stored one. Honest values rarely compress better.
const JOINED_FOR_EACH_STORED: u64 = 4;

/// What becomes of a run.
#[derive(Debug)]
pub(crate) enum Joiner {
    /// All of it is wanted.
    Whole(Parts),
    /// Of the value only the beginning, or all of it if it turns out to be small.
    Heads(Box<Skimmer>, Progress),
}

/// How far a run has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    next_part: u32,
    total_len: Option<u64>,
    /// Bytes of the whole in the parts so far.
    len: u64,
    stored_len: u64,
}

/// The parts so far.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    progress: Progress,
    joined: Vec<u8>,
    /// Those behind `joined`, as stored, each with the length of its body.
    waiting: VecDeque<(Codec, u32, Vec<u8>)>,
}

impl Joiner {
    /// For a run that begins with this body.
    pub(crate) fn new(keep: Keep, first: &[u8]) -> Self {
        let goes_by = match keep {
            Keep::Heads => true,
            // A head that cannot be read is told when the part is taken.
            Keep::UpTo(most) => split(first).is_ok_and(|(head, _)| head.total_len > most),
        };
        if goes_by {
            Joiner::Heads(Box::new(Skimmer::new(keep)), Progress::default())
        } else {
            Joiner::Whole(Parts::default())
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
        match self {
            Joiner::Heads(skimmer, progress) => {
                let (bytes, last) = progress.part(header, body, at, limits)?;
                let total = progress.total_len.unwrap_or_default();
                skimmer.push(bytes, total, at, limits);
                Ok(last)
            }
            Joiner::Whole(parts) => {
                let (bytes, last) = parts.progress.part(header, body, at, limits)?;
                if parts.waiting.is_empty() && parts.has_room_for(bytes.len()) {
                    parts.append(bytes, at)?;
                } else {
                    let payload = match header.codec {
                        Codec::Stored => body,
                        Codec::Zstd => stored,
                    };
                    let part = (header.codec, header.raw_len, payload.to_vec());
                    parts.waiting.push_back(part);
                }
                Ok(last)
            }
        }
    }

    /// How many parts were joined: the number of the part that is due.
    pub(crate) fn parts(&self) -> u32 {
        match self {
            Joiner::Whole(parts) => parts.progress.next_part,
            Joiner::Heads(_, progress) => progress.next_part,
        }
    }

    /// Bytes of the joined body.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Joiner::Whole(parts) => parts.progress.len,
            Joiner::Heads(_, progress) => progress.len,
        }
    }

    /// The record, once the last part came. `at` is where the run begins.
    pub(crate) fn into_body(
        self,
        unpacker: &mut Unpacker,
        at: Position,
        limits: &Limits,
    ) -> Result<Body> {
        match self {
            Joiner::Whole(parts) => body::decode_large(parts.join(unpacker, at)?, at, limits),
            Joiner::Heads(skimmer, _) => skimmer.into_body(at),
        }
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

impl Parts {
    fn has_room_for(&self, more: usize) -> bool {
        let room = ALWAYS_JOINED.max(JOINED_FOR_EACH_STORED * self.progress.stored_len);
        (self.joined.len() + more) as u64 <= room
    }

    fn append(&mut self, bytes: &[u8], at: Position) -> Result<()> {
        let whole = self.progress.total_len.unwrap_or_default();
        // Grows by doubling as parts arrive, and never beyond the whole: a claim buys nothing.
        if self.joined.capacity() - self.joined.len() < bytes.len() {
            let left = whole - self.joined.len() as u64;
            let double = self.joined.len().max(bytes.len()) as u64;
            reserve(&mut self.joined, double.min(left), at)?;
        }
        self.joined.extend_from_slice(bytes);
        Ok(())
    }

    /// The whole, in memory that is taken once its bytes are known to be there.
    fn join(mut self, unpacker: &mut Unpacker, at: Position) -> Result<Vec<u8>> {
        let left = self.progress.len - self.joined.len() as u64;
        reserve(&mut self.joined, left, at)?;
        let damaged = |what| Error::damaged(at, what);
        let mut body = Vec::new();
        while let Some((codec, raw_len, payload)) = self.waiting.pop_front() {
            if codec == Codec::Zstd {
                unpacker
                    .unpack(&payload, raw_len as usize, &mut body)
                    .map_err(damaged)?;
            } else {
                body = payload;
            }
            self.joined
                .extend_from_slice(split(&body).map_err(damaged)?.1);
        }
        Ok(self.joined)
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
