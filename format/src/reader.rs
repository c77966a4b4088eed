//! Reading an archive, front to back, from any byte stream.

use std::collections::BTreeSet;
use std::io::{Read, Seek};

use sha2::Sha256;

use crate::account::Account;
use crate::body::{self, Body, Room};
use crate::error::{Error, Incompleteness, Position, Result};
use crate::fragment::Joiner;
use crate::frame::{Codec, FRAME_HEADER_LEN, FrameType};
use crate::header::{End, Header};
use crate::keyset::KeySet;
use crate::lacks::Told;
use crate::limits::{DEFAULT_FRAME_TARGET, Limits, MAX_NOTES_KEPT};
use crate::module_aux::{KeptAux, ModuleAux};
use crate::pieces::Rest;
use crate::record::{Context, Record};
use crate::seek::Table;
use crate::skim::Keep;
use crate::stream::{FrameStream, StreamFrame};
use crate::totals::Totals;
use crate::version::{PREAMBLE_LEN, Preamble};
use crate::wire::{self, IndexEntry};
use crate::zstandard::Unpacker;

/// The records of one DATA frame, or of one FRAGMENT run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What they share.
    pub context: Context,
    /// The records. Within a frame their order means nothing; no key stands twice.
    pub records: Vec<Record>,
    /// Number of the (first) frame.
    pub seq: u64,
    /// Offset of the (first) frame's header.
    pub offset: u64,
    /// Bytes of payload, frame headers not counted.
    pub stored_len: u64,
    /// Bytes of body.
    pub raw_len: u64,
    /// Bytes of the only record's value, where the record has but its beginning
    /// ([`Reader::heads_only`]).
    pub value_len: Option<u64>,
    /// More records of the same frame come next ([`Reader::next_piece`]).
    pub goes_on: bool,
}

impl Frame {
    /// Bytes of a record's value or function payload, all of them.
    pub fn value_len(&self, record: &Record) -> u64 {
        self.value_len.unwrap_or(match record {
            Record::Key(key) => key.value.stored_len(),
            Record::Functions(payload) => payload.len() as u64,
            Record::WithheldFunctions(len) => *len,
            Record::Deleted { .. } => 0,
        })
    }
}

/// Reads an archive. Every check of a frame comes before any record of it is released, and
/// [`Reader::next_frame`] returns `None` only after END, the trailer and the end of the stream were
/// checked: what was released before an error is an intact prefix, and only `None` means complete.
///
/// The stream need not be buffered: it is read in large pieces.
#[derive(Debug)]
pub struct Reader<R: Read> {
    stream: FrameStream<R>,
    limits: Limits,
    header: Header,
    buffers: Buffers,
    keys: KeySet,
    account: Account,
    notes: Notes,
    module_aux: KeptAux,
    end: Option<End>,
    manner: Manner,
    /// What is left of a frame whose records come in pieces; its body is in `buffers`.
    rest: Option<Rest>,
    state: State,
}

/// Payload and body of the present frame, in buffers that are kept between frames.
#[derive(Debug)]
struct Buffers {
    stored: Vec<u8>,
    raw: Vec<u8>,
    unpacker: Unpacker,
}

impl Buffers {
    /// The body of a frame whose payload was read.
    fn unpack(&mut self, frame: &StreamFrame) -> Result<()> {
        let len = frame.header.raw_len as usize;
        let unpacked = match frame.header.codec {
            Codec::Stored => {
                std::mem::swap(&mut self.stored, &mut self.raw);
                Ok(())
            }
            Codec::Zstd => self.unpacker.unpack(&self.stored, len, &mut self.raw),
        };
        unpacked.map_err(|what| Error::damaged(frame.at("zstd payload"), what))
    }
}

/// How the records of a frame are given.
#[derive(Debug, Clone, Copy)]
struct Manner {
    /// Of values in FRAGMENT runs only the beginning is kept.
    heads_only: bool,
    /// The records of a DATA frame are looked at where they lie.
    visiting: bool,
    /// How many records of a DATA frame are made at a time.
    room: Room,
}

/// What NOTE frames said so far.
#[derive(Debug, Default)]
struct Notes {
    /// The first ones.
    kept: Vec<String>,
    /// How many there were.
    seen: u64,
    /// What those of fixed forms told.
    told: Told,
}

impl Notes {
    /// One more; only one that is stored as it is can be of a fixed form.
    fn add(&mut self, text: String, codec: Codec) {
        self.seen += 1;
        if codec == Codec::Stored {
            self.told.learn(&text);
        }
        if self.kept.len() < MAX_NOTES_KEPT {
            self.kept.push(text);
        }
    }
}

/// What was read of an archive that is to be gone on with.
pub(crate) struct Written {
    pub(crate) archive_id: u64,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    pub(crate) raw_bytes: u64,
    pub(crate) hasher: Sha256,
    pub(crate) totals: Totals,
    pub(crate) index: Vec<IndexEntry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Complete,
    Failed,
}

impl<R: Read> Reader<R> {
    /// Reads and checks preamble and HEADER.
    pub fn new(inner: R, limits: Limits) -> Result<Self> {
        let mut stream = FrameStream::new(inner)?;
        let mut stored = Vec::new();
        let frame = stream.next(&mut stored)?;
        let header = wire::decode_header(&stored)
            .map_err(|what| Error::damaged(frame.at("HEADER"), what))?;
        let unpacker = Unpacker::new().map_err(|what| Error::damaged(frame.at("zstd"), what))?;
        let account = Account::begin(&frame.header);
        Ok(Reader {
            stream,
            limits,
            header,
            buffers: Buffers {
                stored,
                raw: Vec::new(),
                unpacker,
            },
            keys: KeySet::default(),
            account,
            notes: Notes::default(),
            module_aux: KeptAux::default(),
            end: None,
            manner: Manner {
                heads_only: false,
                visiting: false,
                room: Room::ALL,
            },
            rest: None,
            state: State::Reading,
        })
    }

    /// For whoever needs no values: of a value in a FRAGMENT run only the first
    /// [`HEAD_LEN`](crate::limits::HEAD_LEN) bytes or so are given, and its length in
    /// [`Frame::value_len`]. Everything is checked all the same, in the memory of one frame.
    #[must_use]
    pub fn heads_only(mut self) -> Self {
        self.manner.heads_only = true;
        self
    }

    /// Reads from frame `seq` on, which must not be in the middle of a FRAGMENT run. `table` is that
    /// of this archive. Each frame is checked as always; the counts and the digest of END are about
    /// all frames and are not.
    pub fn from_frame(inner: R, limits: Limits, table: &Table, seq: u64) -> Result<Self>
    where
        R: Seek,
    {
        let mut reader = Self::new(inner, limits)?;
        let at = Position {
            archive_id: Some(reader.archive_id()),
            frame: Some(seq),
            field: "frame",
            ..Position::default()
        };
        let Some(offset) = table.offset_of(seq).filter(|_| seq > 0) else {
            return Err(Error::damaged(
                at,
                "there is no such frame to continue with",
            ));
        };
        if table.archive_id != reader.archive_id() {
            return Err(Error::damaged(at, "this is not the archive it was"));
        }
        reader.stream.jump(offset, seq)?;
        reader.account.go_on_from(seq);
        Ok(reader)
    }

    /// From HEADER on, keeps the table that a writer needs to go on behind what was read.
    pub(crate) fn keep_table(&mut self) {
        let len = (self.offset() - (PREAMBLE_LEN + FRAME_HEADER_LEN) as u64) as u32;
        self.account.index.table = Some(vec![IndexEntry {
            frame_type: FrameType::HEADER.0,
            stored_len: len,
            raw_len: len,
            records: 0,
        }]);
    }

    /// What a writer has to know of the frames that were read, all of them from HEADER on.
    pub(crate) fn into_written(self) -> Written {
        Written {
            archive_id: self.archive_id(),
            frames: self.account.frames,
            bytes: self.offset(),
            raw_bytes: self.account.raw_bytes,
            hasher: self.stream.hasher().unwrap_or_default(),
            totals: self.account.totals,
            index: self.account.index.table.unwrap_or_default(),
        }
    }

    /// The next DATA frame or joined FRAGMENT run, completely checked. `None` only after END, the
    /// trailer and the end of the stream were. After an error every further call fails.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        if let Some(rest) = self.rest.take() {
            return self.piece(rest, Room::ALL).map(Some);
        }
        match self.state {
            State::Complete => return Ok(None),
            State::Failed => return Err(Error::Poisoned),
            State::Reading => {}
        }
        self.state = State::Failed;
        let frame = self.read_frame()?;
        self.state = if frame.is_some() {
            State::Reading
        } else {
            State::Complete
        };
        Ok(frame)
    }

    /// The same, with the memory of a part of a large frame in place of all of it: its records come in
    /// several pieces, each a [`Frame`] that says whether more of it comes. Before the first piece
    /// is given, the whole frame was checked and counted. A frame of ordinary size is one piece.
    pub fn next_piece(&mut self) -> Result<Option<Frame>> {
        if let Some(rest) = self.rest.take() {
            return self.piece(rest, Room::PIECE).map(Some);
        }
        self.manner.room = Room::PIECE;
        let frame = self.next_frame();
        self.manner.room = Room::ALL;
        frame
    }

    fn piece(&mut self, rest: Rest, room: Room) -> Result<Frame> {
        let archive_id = self.stream.archive_id();
        let (frame, rest) = rest.next(&self.buffers.raw, archive_id, &self.limits, room)?;
        if rest.is_none() {
            release_if_large(&mut self.buffers.raw);
        }
        self.rest = rest;
        Ok(frame)
    }

    /// The same, with the memory of one record in place of that of all of them: each is shown to
    /// `each`, once the whole frame was checked, together with the length of its value. The frame
    /// that is returned has no records.
    pub fn visit_frame(
        &mut self,
        mut each: impl FnMut(&Context, &Record, u64),
    ) -> Result<Option<Frame>> {
        self.manner.visiting = true;
        let frame = self.next_frame();
        self.manner.visiting = false;
        let Some(mut frame) = frame? else {
            return Ok(None);
        };
        // A run of FRAGMENT frames has one record, which is there; so is what is left of a frame that
        // was given by pieces.
        let records = std::mem::take(&mut frame.records);
        if !records.is_empty() {
            for record in &records {
                each(&frame.context, record, frame.value_len(record));
            }
            return Ok(Some(frame));
        }
        let at = Position {
            archive_id: self.stream.archive_id(),
            offset: frame.offset,
            frame: Some(frame.seq),
            field: "entries",
        };
        body::each_record(&self.buffers.raw, at, &self.limits, |record| {
            each(&frame.context, record, frame.value_len(record));
        })?;
        release_if_large(&mut self.buffers.raw);
        Ok(Some(frame))
    }

    fn read_frame(&mut self) -> Result<Option<Frame>> {
        loop {
            let frame = self.next_stream_frame()?;
            match frame.header.frame_type {
                FrameType::DATA if self.manner.visiting => return self.checked(frame).map(Some),
                FrameType::DATA => return self.data(frame).map(Some),
                FrameType::FRAGMENT => return self.fragments(frame).map(Some),
                FrameType::END => return self.end_of_archive(frame).map(|()| None),
                FrameType::ABORT => return Err(self.aborted(frame)),
                FrameType::NOTE => self.note(frame)?,
                FrameType::MODULE_AUX => self.module_aux(frame)?,
                FrameType::INDEX => self.account.check_index(&frame, &self.buffers.raw)?,
                _ => self.account.skipped_frames += 1,
            }
            self.account.checked(&frame.header, 0);
        }
    }

    /// The next frame, its body in `raw`.
    fn next_stream_frame(&mut self) -> Result<StreamFrame> {
        let frame = self.stream.next(&mut self.buffers.stored)?;
        self.account.came(&frame, &self.limits)?;
        self.buffers.unpack(&frame)?;
        Ok(frame)
    }

    fn data(&mut self, frame: StreamFrame) -> Result<Frame> {
        // A payload of the largest size is not kept beside the body and its records.
        release_if_large(&mut self.buffers.stored);
        let (at, limits) = (frame.at("entries"), &self.limits);
        let raw = &self.buffers.raw;
        let (body, rest) = body::decode(raw, at, limits, &mut self.keys, self.manner.room)?;
        let mut records = body.records.len() as u32;
        if let Some(from) = rest {
            let account = &mut self.account;
            body::each_glance(raw, from, at, limits, |record| {
                records += 1;
                account.glance(&frame, record)
            })?;
        }
        self.account.checked(&frame.header, records);
        let (stored_len, raw_len) = (frame.header.stored_len, frame.header.raw_len);
        let frame = self.release(frame, body, stored_len.into(), raw_len.into())?;
        let (frame, rest) = Rest::behind(frame, rest);
        if rest.is_none() {
            release_if_large(&mut self.buffers.raw);
        }
        self.rest = rest;
        Ok(frame)
    }

    /// A DATA frame whose records stay in `raw`.
    fn checked(&mut self, frame: StreamFrame) -> Result<Frame> {
        release_if_large(&mut self.buffers.stored);
        let at = frame.at("entries");
        let context = body::check(&self.buffers.raw, at, &self.limits, &mut self.keys, |_| {})?;
        let (account, mut records) = (&mut self.account, 0);
        let skipped = body::each_glance(&self.buffers.raw, 0, at, &self.limits, |record| {
            records += 1;
            account.glance(&frame, record)
        })?;
        self.account.checked(&frame.header, records);
        let body = Body {
            context,
            records: Vec::new(),
            skipped,
            value_len: None,
        };
        self.release(
            frame,
            body,
            u64::from(frame.header.stored_len),
            u64::from(frame.header.raw_len),
        )
    }

    fn release(
        &mut self,
        frame: StreamFrame,
        body: Body,
        stored_len: u64,
        raw_len: u64,
    ) -> Result<Frame> {
        self.account.body(&frame, &body, &self.limits)?;
        Ok(Frame {
            context: body.context,
            records: body.records,
            seq: frame.header.seq,
            offset: frame.offset,
            stored_len,
            raw_len,
            value_len: body.value_len,
            goes_on: false,
        })
    }

    /// Joins a run of FRAGMENT frames, which no other frame interrupts.
    fn fragments(&mut self, first: StreamFrame) -> Result<Frame> {
        let mut joiner = Joiner::new(Keep::of(self.manner.heads_only, &self.limits));
        let mut stored_len = 0;
        let mut frame = first;
        loop {
            let (header, at) = (&frame.header, frame.at("fragment"));
            let last = joiner.push(
                header,
                &self.buffers.stored,
                &self.buffers.raw,
                at,
                &self.limits,
            )?;
            stored_len += u64::from(frame.header.stored_len);
            self.account.checked(&frame.header, u32::from(last));
            if last {
                break;
            }
            frame = self.next_stream_frame()?;
            match frame.header.frame_type {
                FrameType::FRAGMENT => {}
                FrameType::ABORT => return Err(self.aborted(frame)),
                other => {
                    let part = joiner.parts();
                    let what = format!("{other} stands where part {part} of a large value was due");
                    return Err(Error::damaged(frame.at("frame type"), what));
                }
            }
        }
        let raw_len = joiner.len();
        let body = joiner.into_body(&mut self.buffers.unpacker, first.at("entries"))?;
        self.release(first, body, stored_len, raw_len)
    }

    fn end_of_archive(&mut self, frame: StreamFrame) -> Result<()> {
        let mut end = self.stream.check_end(&frame, &self.buffers.raw)?;
        self.account.check_end(&frame, &end)?;
        let told = std::mem::take(&mut self.notes.told);
        (end.lacks, end.outside) = (told.lacks, told.outside);
        self.end = Some(end);
        self.stream.close()
    }

    fn aborted(&self, frame: StreamFrame) -> Error {
        aborted(&frame, &self.buffers.raw, self.account.all_records())
    }

    fn note(&mut self, frame: StreamFrame) -> Result<()> {
        let text = wire::decode_note(&self.buffers.raw)
            .map_err(|what| Error::damaged(frame.at("NOTE"), what))?;
        self.notes.add(text, frame.header.codec);
        Ok(())
    }

    fn module_aux(&mut self, frame: StreamFrame) -> Result<()> {
        let aux = wire::decode_module_aux(&self.buffers.raw)
            .map_err(|what| Error::damaged(frame.at("MODULE_AUX"), what))?;
        self.module_aux.add(aux);
        Ok(())
    }

    /// What MODULE_AUX frames said that were read since this was asked last, and how many of them
    /// were more than is kept.
    pub fn take_module_aux(&mut self) -> (Vec<ModuleAux>, u64) {
        self.module_aux.take()
    }

    /// The modules whose frames were more than is kept, of all that was read: the first
    /// [`MAX_MODULES_NAMED`](crate::limits::MAX_MODULES_NAMED) of them.
    pub fn module_aux_left_out(&self) -> &BTreeSet<String> {
        &self.module_aux.left_out
    }

    /// What the archive says of itself at its start.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Version and flags.
    pub fn preamble(&self) -> Preamble {
        self.stream.preamble()
    }

    /// The archive's id.
    pub fn archive_id(&self) -> u64 {
        self.stream.archive_id().unwrap_or_default()
    }

    /// What it says at its end, once END was read and its totals and digest were checked. Only
    /// `None` from [`Reader::next_frame`] says that the trailer was right as well.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Bytes read.
    pub fn offset(&self) -> u64 {
        self.stream.offset()
    }

    /// Frames read, HEADER included.
    pub fn frames_read(&self) -> u64 {
        self.account.frames
    }

    /// Records released.
    pub fn records_read(&self) -> u64 {
        self.account.totals.records
    }

    /// The first sixteen notes so far. They are anybody's text: escape them before showing them.
    pub fn notes(&self) -> &[String] {
        &self.notes.kept
    }

    /// Notes so far, kept or not.
    pub fn notes_seen(&self) -> u64 {
        self.notes.seen
    }

    /// Ancillary frames and entries that this reader does not know and skipped.
    pub fn skipped(&self) -> (u64, u64) {
        (self.account.skipped_frames, self.account.skipped_entries)
    }

    /// The stream underneath.
    pub fn into_inner(self) -> R {
        self.stream.into_inner()
    }
}

/// Gives the memory of a buffer back that is larger than an ordinary frame needs.
pub(crate) fn release_if_large(buffer: &mut Vec<u8>) {
    const ORDINARY: usize = 2 * DEFAULT_FRAME_TARGET as usize;
    if buffer.capacity() > ORDINARY {
        *buffer = Vec::new();
    }
}

/// The error that an ABORT frame stands for.
pub(crate) fn aborted(frame: &StreamFrame, body: &[u8], records: Option<u64>) -> Error {
    match wire::decode_abort(body) {
        Ok(abort) if records.is_some_and(|records| records != abort.records) => Error::damaged(
            frame.at("ABORT"),
            format!(
                "ABORT says {} records, there are {}",
                abort.records,
                records.unwrap_or_default()
            ),
        ),
        Ok(abort) => Error::Incomplete {
            at: Position {
                ..frame.at("ABORT")
            },
            how: Incompleteness::Aborted {
                reason: abort.reason,
                records: abort.records,
            },
        },
        Err(what) => Error::damaged(frame.at("ABORT"), what),
    }
}
