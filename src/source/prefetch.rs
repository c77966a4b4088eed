//! Frames of an archive, read and unpacked ahead by several workers, handed out in the archive's
//! order. Each worker takes every so many-th frame by the INDEX.
//!
//! Everything is checked as by the format's reader, at the same moments: a frame before its records
//! are given, counts and digest before the end is told. The digest is made by a thread of its own.

use std::io::{BufReader, Read, Seek};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow};
use redis_migrate_format::frame::FrameType;
use redis_migrate_format::salvage::{Content, Decoder};
use redis_migrate_format::seek::{Recount, Table, read_frame};
use redis_migrate_format::{Error, Frame, Limits, Position};
use sha2::{Digest, Sha256};

use crate::channel::{Receiver, Sender, channel};

/// Bytes that one worker may be ahead, or one frame if that is larger.
const AHEAD_BYTES: usize = 2 * 1024 * 1024;

/// A DATA frame, or a run of FRAGMENT frames: positions in the table, the last one included.
type Unit = (usize, usize);

/// The frames, in order.
pub(super) struct Ahead {
    table: Arc<Table>,
    units: Arc<Vec<Unit>>,
    next: usize,
    workers: Vec<Receiver<Result<Frame>>>,
    /// `None` if not all frames are read.
    whole: Option<(Recount, JoinHandle<Result<[u8; 32]>>)>,
    frames_read: u64,
    offset: u64,
}

impl Ahead {
    /// Whether the table says enough: where there is no INDEX, a worker does not know where a value
    /// of several frames ends.
    pub(super) fn is_possible(table: &Table) -> bool {
        table.frames.iter().all(|place| place.records.is_some())
    }

    /// Reads from frame `from` on with so many workers; `open` gives each a reader of its own.
    ///
    /// # Errors
    /// Those of `open`.
    pub(super) fn start<R: Read + Seek + Send + 'static>(
        table: Table,
        from: u64,
        workers: usize,
        limits: Limits,
        mut open: impl FnMut() -> Result<R>,
    ) -> Result<Self> {
        let units = Arc::new(units(&table, from));
        let table = Arc::new(table);
        let mut receivers = Vec::with_capacity(workers);
        for worker in 0..workers {
            let mut input = open()?;
            let (sender, receiver) = channel(AHEAD_BYTES);
            let (table, units) = (Arc::clone(&table), Arc::clone(&units));
            std::thread::spawn(move || {
                let mut decoder = match Decoder::new(limits) {
                    Ok(decoder) => decoder,
                    Err(error) => {
                        let _nobody_waits = sender.send(Err(error.into()), 0);
                        return;
                    }
                };
                for unit in units.iter().skip(worker).step_by(workers) {
                    let first = decode(&mut input, &mut decoder, &table, *unit);
                    if !send_pieces(&sender, &mut decoder, first) {
                        return;
                    }
                }
            });
            receivers.push(receiver);
        }
        let mut whole = None;
        if from <= 1 {
            let (input, len) = (open()?, table.end_offset);
            let digest = std::thread::spawn(move || digest_of(input, len));
            whole = Some((Recount::default(), digest));
        }
        Ok(Self {
            table,
            units,
            next: 0,
            workers: receivers,
            whole,
            frames_read: from,
            offset: 0,
        })
    }

    /// The table of the archive.
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// Number of the frame that comes after what was given.
    pub(super) fn frames_read(&self) -> u64 {
        self.frames_read
    }

    /// Bytes of the archive before that.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether everything was given and compared with END.
    pub(super) fn is_at_end(&self) -> bool {
        self.next == self.units.len() && self.whole.is_none()
    }

    /// The next frame, a large one in pieces; `None` after the last, and after counts and digest were
    /// compared with END.
    ///
    /// # Errors
    /// As of the format's reader.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>> {
        let Some(&(_, last)) = self.units.get(self.next) else {
            self.conclude()?;
            return Ok(None);
        };
        let worker = &self.workers[self.next % self.workers.len()];
        let frame = worker
            .receive()
            .ok_or_else(|| anyhow!("a reading thread ended early; this is a bug"))??;
        let place = self.table.frames[last];
        if let Some((recount, _)) = &mut self.whole {
            recount.count(&frame, &place)?;
        }
        self.next += usize::from(!frame.goes_on);
        self.frames_read = place.seq + 1;
        self.offset = place.offset + u64::from(place.stored_len);
        Ok(Some(frame))
    }

    fn conclude(&mut self) -> Result<()> {
        let Some((recount, digest)) = self.whole.take() else {
            return Ok(());
        };
        recount.check(&self.table)?;
        let digest = digest
            .join()
            .map_err(|_| anyhow!("the digest's thread panicked; this is a bug"))??;
        if digest != self.table.end.sha256 {
            let at = Position {
                archive_id: Some(self.table.archive_id),
                offset: self.table.end_offset,
                frame: Some(self.table.end.frames),
                field: "sha256",
            };
            let what = "the bytes before END do not have the SHA-256 that END says".to_owned();
            return Err(Error::Damaged { at, what }.into());
        }
        Ok(())
    }
}

/// Sends a frame, piece by piece; false if that is the end, because of an error or because nobody
/// receives any more.
fn send_pieces(
    sender: &Sender<Result<Frame>>,
    decoder: &mut Decoder,
    first: Result<Frame>,
) -> bool {
    let mut next = Some(first);
    while let Some(piece) = next {
        // A piece of a large frame is not larger than what may be ahead.
        let bytes = piece.as_ref().map_or(0, |piece| match piece.goes_on {
            true => AHEAD_BYTES,
            false => piece.raw_len as usize,
        });
        let is_failed = piece.is_err();
        if !sender.send(piece, bytes) || is_failed {
            return false;
        }
        next = decoder.next_piece().map_err(Into::into).transpose();
    }
    true
}

fn units(table: &Table, from: u64) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut first = None;
    for (at, place) in table.frames.iter().enumerate() {
        if place.seq < from {
            continue;
        }
        match place.frame_type {
            FrameType::DATA => units.push((at, at)),
            FrameType::FRAGMENT => {
                let begin = *first.get_or_insert(at);
                if place.records == Some(1) {
                    units.push((begin, at));
                    first = None;
                }
            }
            _ => {}
        }
    }
    // A run without its end: whoever reads it will say so.
    units.extend(first.map(|begin| (begin, table.frames.len() - 1)));
    units
}

fn decode<R: Read + Seek>(
    input: &mut R,
    decoder: &mut Decoder,
    table: &Table,
    (first, last): Unit,
) -> Result<Frame> {
    for at in first..=last {
        let frame = read_frame(input, &table.frames[at], table.archive_id)?;
        if let Content::Records(frame) = decoder.decode_piece(frame)?
            && at == last
        {
            return Ok(frame);
        }
    }
    let place = &table.frames[first];
    let at = Position {
        archive_id: Some(table.archive_id),
        offset: place.offset,
        frame: Some(place.seq),
        field: "part",
    };
    let what = "a large value does not end where INDEX says".to_owned();
    Err(Error::Damaged { at, what }.into())
}

fn digest_of(input: impl Read, len: u64) -> Result<[u8; 32]> {
    let mut input = BufReader::with_capacity(256 * 1024, input).take(len);
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = input.read(&mut buffer).context("cannot read the archive")?;
        if read == 0 {
            return Ok(digest.finalize().into());
        }
        digest.update(&buffer[..read]);
    }
}
