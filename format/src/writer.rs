//! Writing an archive, front to back, to any byte stream.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Write};

use sha2::{Digest, Sha256};

use crate::entry;
use crate::error::{Error, Result};
use crate::frame::{Codec, FrameHeader, FrameType};
use crate::header::{End, EndFacts, Header};
use crate::keyset::{KeySet, pair};
use crate::lacks::{LACKS, OUTSIDE, Told};
use crate::limits::{
    DEFAULT_FRAGMENT_LEN, DEFAULT_FRAME_TARGET, Limits, MAX_DATABASES, MAX_ENTRIES, MAX_HEADER_LEN,
    MAX_JOINED_LEN, MAX_KEY_LEN, MAX_NOTE_LEN, MAX_RAW_LEN, MAX_TIME_SPREAD_MS, MIN_FRAGMENT_LEN,
};
use crate::module_aux::ModuleAux;
use crate::pending::Pending;
use crate::reader::Reader;
use crate::record::{Context, KeyRecord, Record, Value};
use crate::totals::Totals;
use crate::trailer::Trailer;
use crate::version::Preamble;
use crate::wire::{self, Abort, FragmentHead, IndexEntry};
use crate::zstandard::Packer;

/// How an archive is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterOptions {
    /// zstd level; 0 stores without compression.
    pub level: i32,
    /// Raw bytes at which a DATA frame is closed.
    pub frame_target_bytes: u32,
    /// Raw bytes of one part of a value that is too large for one frame; at most 16 MiB.
    pub fragment_bytes: u32,
    /// The archive's id, for tests; `None` for a random one.
    pub archive_id: Option<u64>,
    /// Whether an INDEX is written.
    pub index: bool,
}

impl Default for WriterOptions {
    fn default() -> Self {
        WriterOptions {
            level: 3,
            frame_target_bytes: DEFAULT_FRAME_TARGET,
            fragment_bytes: DEFAULT_FRAGMENT_LEN,
            archive_id: None,
            index: true,
        }
    }
}

/// What [`Writer::finish`] returns.
#[derive(Debug)]
pub struct Finished<W> {
    /// The stream underneath, flushed.
    pub inner: W,
    /// What END says.
    pub end: End,
    /// The archive's id.
    pub archive_id: u64,
    /// Bytes of the whole archive.
    pub bytes: u64,
    /// SHA-256 of the whole archive, as `sha256sum` prints it.
    pub sha256: [u8; 32],
}

/// Writes an archive. Only [`Writer::finish`] completes it: dropping a writer finishes nothing, and
/// after an error no call can, so that what was begun and not ended is never taken for complete.
///
/// Frames are written whole, so the stream underneath need not be buffered.
#[must_use = "an archive is complete only after `finish`"]
#[derive(Debug)]
pub struct Writer<W: Write> {
    inner: W,
    options: WriterOptions,
    archive_id: u64,
    seq: u64,
    bytes: u64,
    raw_bytes: u64,
    hasher: Sha256,
    packer: Option<Packer>,
    told: Told,
    context: Option<Context>,
    /// That of the pending frame.
    pending_context: Option<Context>,
    pending: Pending,
    keys: KeySet,
    /// Where a frame's body is put together.
    body: Vec<u8>,
    totals: Totals,
    index: Vec<IndexEntry>,
    failed: bool,
}

impl<W: Write> Writer<W> {
    /// Writes preamble and HEADER. The header's `level` and `frame_target_bytes` are replaced by
    /// those of the options.
    pub fn new(inner: W, header: &Header, options: WriterOptions) -> Result<Self> {
        let mut writer = Self::unbegun(inner, options)?;
        let header = Header {
            level: writer.options.level,
            frame_target_bytes: writer.options.frame_target_bytes,
            ..header.clone()
        };
        let body = wire::encode_header(&header);
        wire::check_header_lists(&header)
            .map_err(|what| Error::Unwritable(format!("HEADER: {what}")))?;
        if body.len() > MAX_HEADER_LEN as usize {
            return Err(Error::Unwritable(format!(
                "a HEADER of {} bytes, allowed are {MAX_HEADER_LEN}",
                body.len()
            )));
        }
        writer.put(&Preamble::CURRENT.encode())?;
        writer.put_frame(FrameType::HEADER, &body, 0)?;
        Ok(writer)
    }

    fn unbegun(inner: W, options: WriterOptions) -> Result<Self> {
        let fragment_bytes = options.fragment_bytes.clamp(MIN_FRAGMENT_LEN, MAX_RAW_LEN);
        let options = WriterOptions {
            fragment_bytes,
            frame_target_bytes: options.frame_target_bytes.clamp(1, fragment_bytes),
            ..options
        };
        let packer = if options.level == 0 {
            None
        } else {
            Some(Packer::new(options.level)?)
        };
        Ok(Writer {
            inner,
            archive_id: options.archive_id.unwrap_or_else(random_id),
            options,
            seq: 0,
            bytes: 0,
            raw_bytes: 0,
            hasher: Sha256::new(),
            packer,
            told: Told::default(),
            context: None,
            pending_context: None,
            pending: Pending::default(),
            keys: KeySet::default(),
            body: Vec::new(),
            totals: Totals::default(),
            index: Vec::new(),
            failed: false,
        })
    }

    /// Goes on behind the first `len` bytes of an archive that was begun and not ended: `written`
    /// gives them, and `inner` stands behind them. Everything is checked as by a [`Reader`], and the
    /// options' level and frame size are those of its HEADER. `len` must be the end of a frame, and
    /// of no part of a value but the last.
    pub fn go_on(
        inner: W,
        written: impl Read,
        len: u64,
        limits: Limits,
        options: WriterOptions,
    ) -> Result<Self> {
        let mut reader = Reader::new(written.take(len), limits)?;
        reader.keep_table();
        while reader.offset() < len {
            if reader.next_frame()?.is_none() {
                return Err(Error::Unwritable("the archive is complete already".into()));
            }
        }
        let (level, frame_target_bytes) =
            (reader.header().level, reader.header().frame_target_bytes);
        let options = WriterOptions {
            level,
            frame_target_bytes,
            ..options
        };
        let mut writer = Self::unbegun(inner, options)?;
        let written = reader.into_written();
        writer.archive_id = written.archive_id;
        writer.seq = written.frames;
        writer.bytes = written.bytes;
        writer.raw_bytes = written.raw_bytes;
        writer.hasher = written.hasher;
        writer.totals = written.totals;
        writer.index = written.index;
        Ok(writer)
    }

    /// Says what the following records share. The pending frame is closed where that is something
    /// else than before, or earlier, or later by more than [`MAX_TIME_SPREAD_MS`]. A frame carries
    /// the earliest time it was given: a record of it was read then or somewhat later, so that a
    /// remaining life computed from it is never negative, and never far too long.
    pub fn set_context(&mut self, context: Context) -> Result<()> {
        self.check_alive()?;
        let joins = self.pending_context.is_none_or(|first| {
            let times =
                first.source_time_ms..=first.source_time_ms.saturating_add(MAX_TIME_SPREAD_MS);
            let same = Context {
                source_time_ms: first.source_time_ms,
                ..context
            };
            same == first && times.contains(&context.source_time_ms)
        });
        if !joins {
            self.guard(Self::close_frame)?;
        }
        self.context = Some(context);
        if self.pending.is_empty() {
            self.restart_context();
        }
        Ok(())
    }

    /// Writes a record. It stands in the pending frame until that is full, or until
    /// [`Writer::flush_frame`]; a large one is written at once, straight from the record's bytes.
    ///
    /// Within a frame records are grouped by type. Across frames order is kept, and a key that
    /// comes again closes the frame that has it, so that the last record of a key stays the last.
    pub fn write(&mut self, record: &Record) -> Result<()> {
        self.check_alive()?;
        self.check_writable(record)?;
        self.guard(|writer| writer.write_checked(record))
    }

    fn check_writable(&self, record: &Record) -> Result<()> {
        if self.context.is_none() {
            return Err(Error::Unwritable("a record before its context".into()));
        }
        if let Record::WithheldFunctions(_) = record {
            let what = "function libraries that were not kept when they were read";
            return Err(Error::Unwritable(what.into()));
        }
        if let Some((_, key)) = pair(record)
            && key.len() > MAX_KEY_LEN
        {
            let len = key.len();
            let what = format!("a key of {len} bytes, allowed are {MAX_KEY_LEN}");
            return Err(Error::Unwritable(what));
        }
        if let Record::Key(KeyRecord { value, .. }) = record
            && value.bytes().is_empty()
        {
            let what = match value {
                Value::Withheld(_) => "a value that was not kept when it was read",
                _ => "a value without its type byte",
            };
            return Err(Error::Unwritable(what.into()));
        }
        Ok(())
    }

    fn write_checked(&mut self, record: &Record) -> Result<()> {
        self.totals.count(record).map_err(|_| {
            Error::Unwritable(format!("records of more than {MAX_DATABASES} databases"))
        })?;
        let hash = self.keys.hash(record);
        let len = entry::entry_len(record);
        let target = u64::from(self.options.frame_target_bytes);
        let full =
            self.pending.len() as u64 + len > target || self.pending.entries() == MAX_ENTRIES;
        if !self.pending.is_empty() && (full || hash.is_some_and(|hash| self.keys.contains(hash))) {
            self.close_frame()?;
        }
        if self.pending.len() as u64 + len > target {
            return self.write_large(record, len);
        }
        if let Some(hash) = hash {
            self.keys.insert(hash);
        }
        self.pending.push(record);
        Ok(())
    }

    /// Writes a record that is alone in its frame, or in a run of FRAGMENT frames.
    fn write_large(&mut self, record: &Record, entry_len: u64) -> Result<()> {
        let mut head = self.pending.context_entry().to_vec();
        let total_len = head.len() as u64 + entry_len;
        let value = entry::put_head(&mut head, record);
        let mut body = std::mem::take(&mut self.body);
        let result = if total_len <= u64::from(self.options.fragment_bytes) {
            body.clear();
            body.extend_from_slice(&head);
            body.extend_from_slice(value);
            self.put_frame(FrameType::DATA, &body, 1)
        } else {
            self.put_fragments(&head, value, total_len, &mut body)
        };
        self.body = body;
        self.totals_of_context();
        self.restart_context();
        result
    }

    fn put_fragments(
        &mut self,
        head: &[u8],
        value: &[u8],
        total_len: u64,
        body: &mut Vec<u8>,
    ) -> Result<()> {
        if total_len > MAX_JOINED_LEN {
            return Err(Error::Unwritable(format!(
                "a value of {} bytes",
                value.len()
            )));
        }
        let limit = self.options.fragment_bytes as usize;
        let mut pieces = [head, value];
        let mut left = total_len;
        let mut part = 0;
        while left > 0 {
            body.clear();
            // The longest head there is, so that `last` need not be known to know the room.
            let longest = FragmentHead {
                part,
                last: false,
                total_len,
            };
            let room = limit - 1 - wire::encode_fragment_head(&longest).len();
            let len = left.min(room as u64);
            left -= len;
            let fragment = wire::encode_fragment_head(&FragmentHead {
                last: left == 0,
                ..longest
            });
            entry::put_varint(body, fragment.len() as u64);
            body.extend_from_slice(&fragment);
            let mut due = len as usize;
            for piece in &mut pieces {
                let (now, later) = piece.split_at(due.min(piece.len()));
                body.extend_from_slice(now);
                due -= now.len();
                *piece = later;
            }
            self.put_frame(FrameType::FRAGMENT, body, u32::from(left == 0))?;
            part += 1;
        }
        Ok(())
    }

    /// Closes the pending frame, if there is one, and flushes the stream underneath.
    pub fn flush_frame(&mut self) -> Result<()> {
        self.check_alive()?;
        self.guard(|writer| {
            writer.close_frame()?;
            writer.flush()
        })
    }

    fn close_frame(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut body = std::mem::take(&mut self.body);
        let records = self.pending.take(&mut body);
        self.totals_of_context();
        self.keys.clear();
        let result = self.put_frame(FrameType::DATA, &body, records as u32);
        self.body = body;
        self.restart_context();
        result
    }

    fn totals_of_context(&mut self) {
        if let Some(context) = &self.context {
            self.totals.context(context);
        }
    }

    fn restart_context(&mut self) {
        if let Some(context) = self.context {
            self.pending.set_context(&context);
            self.pending_context = Some(context);
        }
    }

    /// Writes text for people: a label, a ticket number. It stands where it is written, between
    /// frames; the pending frame is closed before it.
    pub fn note(&mut self, text: &str) -> Result<()> {
        self.check_alive()?;
        let body = wire::encode_note(text);
        if body.len() > MAX_NOTE_LEN as usize {
            return Err(Error::Unwritable(format!(
                "a note of {} bytes, allowed are {MAX_NOTE_LEN}",
                text.len()
            )));
        }
        self.guard(|writer| {
            writer.close_frame()?;
            writer.put_frame(FrameType::NOTE, &body, 0)
        })
    }

    /// Says what the source may hold beyond single keys and the archive has not, behind the last
    /// record. Readers tell it as [`End::lacks`].
    pub fn lacks(&mut self, text: &str) -> Result<()> {
        self.tell(format!("{LACKS}{text}"))
    }

    /// Says what the source holds outside keys, an object of JSON, behind the last record. Readers
    /// tell it as [`End::outside`].
    pub fn outside(&mut self, json: &str) -> Result<()> {
        self.tell(format!("{OUTSIDE}{json}"))
    }

    fn tell(&mut self, note: String) -> Result<()> {
        self.check_alive()?;
        self.guard(Self::close_frame)?;
        // Stored as it is, for readers that decompress nothing.
        let packer = self.packer.take();
        let written = self.note(&note);
        self.packer = packer;
        written.map(|()| self.told.learn(&note))
    }

    /// Keeps data that a module had outside keys, in a frame of its own: before the first record or
    /// behind the last one, as it stood in the RDB file.
    pub fn module_aux(&mut self, aux: &ModuleAux) -> Result<()> {
        self.check_alive()?;
        let body = wire::encode_module_aux(aux);
        if body.len() > MAX_RAW_LEN as usize {
            return Err(Error::Unwritable(format!(
                "module data of {} bytes, a frame holds {MAX_RAW_LEN}",
                aux.data.len()
            )));
        }
        self.guard(|writer| {
            writer.close_frame()?;
            writer.put_frame(FrameType::MODULE_AUX, &body, 0)
        })
    }

    /// Gives up: writes what is pending, and the reason. The archive stays incomplete and says why.
    pub fn abort(mut self, reason: &str) -> Result<W> {
        self.check_alive()?;
        self.close_frame()?;
        // Only the reason's beginning: it may hold anything a server said.
        let reason = reason.chars().take(4096).collect();
        let body = wire::encode_abort(&Abort {
            reason,
            records: self.totals.records,
        });
        self.put_frame(FrameType::ABORT, &body, 0)?;
        self.flush()?;
        Ok(self.inner)
    }

    /// Completes the archive: pending frame, INDEX, END, trailer, flush. Whoever wants the bytes on
    /// disk syncs the file after this. Fails without completing anything if the exporter's count of
    /// records written differs from the archive's.
    pub fn finish(mut self, facts: EndFacts) -> Result<Finished<W>> {
        self.check_alive()?;
        self.close_frame()?;
        let mut end = End {
            frames: 0,
            records: self.totals.records,
            per_db: self.totals.per_db(),
            functions: self.totals.functions(),
            rdb_versions: self.totals.rdb_versions(),
            facts,
            sha256: [0; 32],
            lacks: std::mem::take(&mut self.told.lacks),
            outside: std::mem::take(&mut self.told.outside),
        };
        self.totals.check_written(&end).map_err(Error::Unwritable)?;
        let index_offset = self.put_index()?;
        let end_offset = self.bytes;
        end.frames = self.seq;
        end.sha256 = self.hasher.clone().finalize().into();
        let body = wire::encode_end(&end);
        wire::check_end_lists(&end).map_err(|what| Error::Unwritable(format!("END: {what}")))?;
        self.put_frame(FrameType::END, &body, 0)?;
        let archive_id = self.archive_id;
        self.put(
            &Trailer {
                end_offset,
                index_offset,
                archive_id,
            }
            .encode(),
        )?;
        self.flush()?;
        let sha256 = self.hasher.finalize().into();
        Ok(Finished {
            inner: self.inner,
            end,
            archive_id,
            bytes: self.bytes,
            sha256,
        })
    }

    /// Writes INDEX if it is wanted and not too large for a frame; returns its offset or 0.
    fn put_index(&mut self) -> Result<u64> {
        // Each entry takes at most 16 bytes.
        if !self.options.index || self.index.len() > (MAX_RAW_LEN as usize - 9) / 16 {
            return Ok(0);
        }
        let offset = self.bytes;
        let body = wire::encode_index(std::mem::take(&mut self.index));
        self.put_frame(FrameType::INDEX, &body, 0)?;
        Ok(offset)
    }

    fn put_frame(&mut self, frame_type: FrameType, body: &[u8], records: u32) -> Result<()> {
        let mut packer = self.packer.take();
        let packed = match &mut packer {
            Some(packer) if !frame_type.must_be_stored() => packer.pack(body)?,
            _ => None,
        };
        let (codec, payload) = match packed {
            Some(packed) => (Codec::Zstd, packed),
            None => (Codec::Stored, body),
        };
        let header = FrameHeader {
            frame_type,
            codec,
            archive_id: self.archive_id,
            seq: self.seq,
            stored_len: payload.len() as u32,
            raw_len: body.len() as u32,
            payload_crc: crc32fast::hash(payload),
        };
        let result = self.put(&header.encode()).and_then(|()| self.put(payload));
        self.packer = packer;
        result?;
        self.seq += 1;
        if matches!(frame_type, FrameType::DATA | FrameType::FRAGMENT) {
            self.raw_bytes += body.len() as u64;
        }
        if self.options.index {
            self.index.push(IndexEntry::new(&header, records));
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let offset = self.bytes;
        self.inner
            .write_all(bytes)
            .map_err(|source| Error::Write { offset, source })?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let offset = self.bytes;
        self.inner
            .flush()
            .map_err(|source| Error::Write { offset, source })
    }

    fn check_alive(&self) -> Result<()> {
        if self.failed {
            Err(Error::Poisoned)
        } else {
            Ok(())
        }
    }

    /// Runs a step after whose failure nothing may follow: part of a frame may have been written.
    fn guard(&mut self, step: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.failed = true;
        step(self)?;
        self.failed = false;
        Ok(())
    }

    /// The archive's id.
    pub fn archive_id(&self) -> u64 {
        self.archive_id
    }

    /// Bytes written to the stream underneath.
    pub fn bytes_written(&self) -> u64 {
        self.bytes
    }

    /// Records taken, pending ones included.
    pub fn records_written(&self) -> u64 {
        self.totals.records
    }

    /// The stream underneath; writing to it breaks the archive.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }
}

/// A number that no other archive has. `RandomState` takes its keys from the operating system; two
/// of them, the clock and the process make up for its reusing those keys within a thread.
fn random_id() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    if let Ok(now) = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        hasher.write_u128(now.as_nanos());
    }
    hasher.finish()
}
