//! Finding the intact frames of a damaged archive.
//!
//! A [`Scanner`] looks for the sync mark and takes what follows for a frame only if the header's
//! checksum, the archive's id and the payload's checksum are right; otherwise it goes on one byte
//! further. So a damaged place costs the frame it lies in and nothing else, and an archive that
//! somebody stored as a value is not taken for frames of this one. A [`Decoder`] makes records of
//! the frames. Nothing here says that an archive is complete.

use std::io::Read;

use crate::body::{self, Room};
use crate::error::{Error, Position, Result};
use crate::fragment::Joiner;
use crate::frame::{Codec, FRAME_HEADER_LEN, FrameHeader, FrameType, SYNC};
use crate::header::{End, Header};
use crate::keyset::KeySet;
use crate::limits::{Limits, MAX_RAW_LEN, STORED_SLACK};
use crate::module_aux::ModuleAux;
use crate::pieces::Rest;
use crate::reader::{Frame, release_if_large};
use crate::record::{Context, Glance, Record};
use crate::skim::Keep;
use crate::stream::fill;
use crate::trailer::{TRAILER_LEN, Trailer};
use crate::version::{MINOR, PREAMBLE_LEN, Preamble};
use crate::wire::{self, IndexEntry};
use crate::zstandard::Unpacker;

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;

/// What a [`Scanner`] meets next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// An intact frame.
    Frame(IntactFrame),
    /// Bytes that belong to no intact frame: from the first to before the second offset.
    Lost(u64, u64),
}

/// A frame whose header and payload checksum are right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntactFrame {
    /// Its header.
    pub header: FrameHeader,
    /// Offset of the header.
    pub offset: u64,
    /// Its payload as stored; empty from a scanner of [`Scanner::places_only`].
    pub payload: Vec<u8>,
}

impl IntactFrame {
    pub(crate) fn at(&self, field: &'static str) -> Position {
        frame_at(&self.header, self.offset, field)
    }
}

/// Looks for intact frames. Holds at most one frame of the largest size and a chunk.
#[derive(Debug)]
pub struct Scanner<R: Read> {
    inner: R,
    archive_id: Option<u64>,
    buffer: Vec<u8>,
    /// Where in `buffer` the search stands, and which offset of the stream `buffer[0]` is.
    pos: usize,
    base: u64,
    at_end: bool,
    lost_from: Option<u64>,
    /// A frame that was found behind lost bytes, which are told first.
    held: Option<IntactFrame>,
    /// Frames of every archive are taken.
    any: bool,
    places_only: bool,
    preamble: Option<Preamble>,
    trailer_end: Option<u64>,
}

impl<R: Read> Scanner<R> {
    /// `archive_id` is the id of the archive in question; without it the first intact frame says.
    pub fn new(inner: R, archive_id: Option<u64>) -> Self {
        Scanner {
            inner,
            archive_id,
            buffer: Vec::new(),
            pos: 0,
            base: 0,
            at_end: false,
            lost_from: None,
            held: None,
            any: false,
            places_only: false,
            preamble: None,
            trailer_end: None,
        }
    }

    /// Takes frames of every archive, to find out whose they are: where the archive's beginning is
    /// damaged, the first intact frame may be one of another archive that somebody stored in it.
    pub fn of_any_archive(inner: R) -> Self {
        Scanner {
            any: true,
            ..Scanner::new(inner, None)
        }
    }

    /// For whoever reads the payloads later: the frames come without them.
    #[must_use]
    pub fn places_only(mut self) -> Self {
        self.places_only = true;
        self
    }

    /// The preamble, if an intact one stands at the very start.
    pub fn preamble(&self) -> Option<Preamble> {
        self.preamble
    }

    /// Where the archive's intact trailer ends, once it was passed.
    pub fn trailer_end(&self) -> Option<u64> {
        self.trailer_end
    }

    /// The id that frames must have, once it is known.
    pub fn archive_id(&self) -> Option<u64> {
        self.archive_id
    }

    /// The next intact frame or lost range, in order; `None` at the end of the stream. The only
    /// errors are those of the stream itself.
    pub fn next_found(&mut self) -> Result<Option<Found>> {
        if let Some(frame) = self.held.take() {
            return Ok(Some(Found::Frame(frame)));
        }
        loop {
            if !self.have(1)? {
                let to = self.offset();
                return Ok(self.lost_from.take().map(|from| Found::Lost(from, to)));
            }
            let before = self.offset();
            if let Some(frame) = self.frame_here()? {
                return Ok(Some(match self.lost_from.take() {
                    Some(from) => {
                        self.held = Some(frame);
                        Found::Lost(from, before)
                    }
                    None => Found::Frame(frame),
                }));
            }
            if self.skip_known()? {
                if let Some(from) = self.lost_from.take() {
                    return Ok(Some(Found::Lost(from, before)));
                }
                continue;
            }
            self.lost_from.get_or_insert(before);
            self.skip_to_candidate();
        }
    }

    fn offset(&self) -> u64 {
        self.base + self.pos as u64
    }

    /// An intact frame at the current place, if there is one; goes past it.
    fn frame_here(&mut self) -> Result<Option<IntactFrame>> {
        if !self.have(SYNC.len())? || self.buffer[self.pos..][..SYNC.len()] != SYNC {
            return Ok(None);
        }
        if !self.have(FRAME_HEADER_LEN)? {
            return Ok(None);
        }
        let Some(bytes) = self.buffer[self.pos..].first_chunk::<FRAME_HEADER_LEN>() else {
            return Ok(None);
        };
        let Ok(header) = FrameHeader::decode(bytes, Position::default(), self.archive_id, None)
        else {
            return Ok(None);
        };
        let len = FRAME_HEADER_LEN + header.stored_len as usize;
        if !self.have(len)? {
            return Ok(None);
        }
        let payload = &self.buffer[self.pos + FRAME_HEADER_LEN..self.pos + len];
        if crc32fast::hash(payload) != header.payload_crc {
            return Ok(None);
        }
        let frame = IntactFrame {
            header,
            offset: self.offset(),
            payload: if self.places_only {
                Vec::new()
            } else {
                payload.to_vec()
            },
        };
        if !self.any {
            self.archive_id = Some(header.archive_id);
        }
        self.pos += len;
        Ok(Some(frame))
    }

    /// Goes past a preamble at the very start, or a trailer: intact, but no frame.
    fn skip_known(&mut self) -> Result<bool> {
        if self.offset() == 0
            && self.have(PREAMBLE_LEN)?
            && let Some(bytes) = self.buffer[self.pos..].first_chunk::<PREAMBLE_LEN>()
            && let Ok(preamble) = Preamble::decode(bytes)
        {
            self.pos += PREAMBLE_LEN;
            self.preamble = Some(preamble);
            return Ok(true);
        }
        if self.have(TRAILER_LEN)?
            && let Some(bytes) = self.buffer[self.pos..].first_chunk::<TRAILER_LEN>()
            && let Ok(trailer) = Trailer::decode(bytes, Position::default())
            && Some(trailer.archive_id) == self.archive_id
        {
            self.pos += TRAILER_LEN;
            self.trailer_end = Some(self.offset());
            return Ok(true);
        }
        Ok(false)
    }

    /// Goes at least one byte further, to where a frame or the trailer could begin. A trailer has no
    /// mark at its start, so its place is found from its magic.
    fn skip_to_candidate(&mut self) {
        self.pos += 1;
        let rest = &self.buffer[self.pos..];
        let step = rest
            .iter()
            .position(|byte| *byte == SYNC[0])
            .unwrap_or(rest.len())
            // Near the end of what is buffered every place is looked at: a trailer may begin there.
            .min(rest.len().saturating_sub(TRAILER_LEN));
        self.pos += step;
    }

    /// Makes sure that `len` bytes from the current place are buffered; false if the stream ends
    /// before.
    fn have(&mut self, len: usize) -> Result<bool> {
        debug_assert!(len <= FRAME_HEADER_LEN + (MAX_RAW_LEN + STORED_SLACK) as usize);
        while self.buffer.len() - self.pos < len {
            if self.at_end {
                return Ok(false);
            }
            if self.pos > 0 {
                self.buffer.drain(..self.pos);
                self.base += self.pos as u64;
                self.pos = 0;
            }
            let filled = self.buffer.len();
            self.buffer.resize(filled + CHUNK, 0);
            let got = fill(&mut self.inner, &mut self.buffer[filled..]).map_err(|source| {
                Error::Read {
                    offset: self.base + filled as u64,
                    source,
                }
            })?;
            self.buffer.truncate(filled + got);
            self.at_end = got < CHUNK;
        }
        Ok(true)
    }
}

/// What an intact frame holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// HEADER.
    Header(Box<Header>),
    /// Records of a DATA frame, or of a whole FRAGMENT run at its last part.
    Records(Frame),
    /// A part of a FRAGMENT run that is not whole yet.
    Part,
    /// END; its totals are those of the whole archive, not of what is left of it.
    End(Box<End>),
    /// Records that were only looked at ([`Decoder::glance`]), of a DATA frame or of a whole run.
    Seen {
        /// What they share.
        context: Context,
        /// How many they are.
        records: u64,
    },
    /// INDEX: the frames that stood before it.
    Index(Index),
    /// NOTE.
    Note(String),
    /// MODULE_AUX.
    ModuleAux(Box<ModuleAux>),
    /// Anything else.
    Other,
}

/// The table in an INDEX. It is as long as the frame's number says that it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    body: Vec<u8>,
    frames: u64,
}

impl Index {
    fn new(body: Vec<u8>, frames: u64) -> Result<Self, String> {
        wire::each_index_entry(&body, frames, |_| {})?;
        Ok(Index { body, frames })
    }

    /// Goes through the frames that stood before it, from HEADER on.
    pub fn each(&self, each: impl FnMut(IndexEntry)) {
        // It was walked when it was made.
        let _intact = wire::each_index_entry(&self.body, self.frames, each);
    }
}

/// Makes records of intact frames, given to it in order.
#[derive(Debug)]
pub struct Decoder {
    minor: u8,
    limits: Limits,
    unpacker: Unpacker,
    raw: Vec<u8>,
    keys: KeySet,
    run: Option<Run>,
    /// How many records of a DATA frame are made at a time.
    room: Room,
    rest: Option<Rest>,
}

#[derive(Debug)]
struct Run {
    joiner: Joiner,
    first: Position,
    next_seq: u64,
    stored_len: u64,
}

impl Decoder {
    /// A decoder that takes values up to the limits.
    pub fn new(limits: Limits) -> Result<Self> {
        let unpacker = Unpacker::new()
            .map_err(|what| Error::Unwritable(format!("zstd cannot start: {what}")))?;
        Ok(Decoder {
            minor: MINOR,
            limits,
            unpacker,
            raw: Vec::new(),
            keys: KeySet::default(),
            run: None,
            room: Room::ALL,
            rest: None,
        })
    }

    /// Of an archive of this minor version of the format; unless told otherwise, of this crate's.
    #[must_use]
    pub fn of_minor(mut self, minor: u8) -> Self {
        self.minor = minor;
        self
    }

    /// The body of a frame, unpacked. Its payload is left with the frame where it is compressed.
    pub fn body(&mut self, frame: &mut IntactFrame) -> Result<&[u8]> {
        self.rest = None;
        let header = &frame.header;
        match header.codec {
            Codec::Stored => self.raw = std::mem::take(&mut frame.payload),
            Codec::Zstd => self
                .unpacker
                .unpack(&frame.payload, header.raw_len as usize, &mut self.raw)
                .map_err(|what| Error::damaged(frame.at("zstd payload"), what))?,
        }
        Ok(&self.raw)
    }

    /// Which part of its run a FRAGMENT frame is, from 0.
    pub fn part(&mut self, frame: &mut IntactFrame) -> Result<u32> {
        self.body(frame)?;
        crate::fragment::part_of(&self.raw)
            .map_err(|what| Error::damaged(frame.at("fragment head"), what))
    }

    /// Of the FRAGMENT run that is being decoded: the database and the name of its key, once the part
    /// with the end of that name was decoded. It need not be the first part: other entries may come
    /// before the key.
    pub fn name_in_run(&self) -> Option<(u32, &[u8])> {
        self.run.as_ref()?.joiner.name()
    }

    /// What a frame holds. An error loses this frame (or the run it belongs to) and nothing else.
    pub fn decode(&mut self, frame: IntactFrame) -> Result<Content> {
        self.content(frame, None)
    }

    /// The same, but the records of a large DATA frame come in several pieces: the first here, the
    /// others by [`Decoder::next_piece`], as [`Frame::goes_on`] says. All of the frame is checked
    /// before the first is given.
    pub fn decode_piece(&mut self, frame: IntactFrame) -> Result<Content> {
        self.room = Room::PIECE;
        let content = self.content(frame, None);
        self.room = Room::ALL;
        content
    }

    /// The next piece of the frame that was decoded last; `None` after its last one.
    pub fn next_piece(&mut self) -> Result<Option<Frame>> {
        let Some(rest) = self.rest.take() else {
            return Ok(None);
        };
        let (frame, rest) = rest.next(&self.raw, None, &self.limits, Room::PIECE)?;
        if rest.is_none() {
            release_if_large(&mut self.raw);
        }
        self.rest = rest;
        Ok(Some(frame))
    }

    /// The same, without the memory that records take: each is shown to `each`, and
    /// [`Content::Seen`] stands for them. What `each` was shown before an error is to be forgotten.
    pub fn glance(
        &mut self,
        frame: IntactFrame,
        each: &mut dyn FnMut(&Glance<'_>),
    ) -> Result<Content> {
        self.content(frame, Some(each))
    }

    /// The same as [`Decoder::decode`], with the memory of one record in place of that of all of a
    /// DATA frame: each is shown to `each`, once the frame was checked, and [`Content::Seen`] stands
    /// for them.
    pub fn visit(
        &mut self,
        frame: IntactFrame,
        each: &mut dyn FnMut(&Context, &Record),
    ) -> Result<Content> {
        let at = frame.at("entries");
        let is_data = frame.header.frame_type == FrameType::DATA;
        match if is_data {
            self.glance(frame, &mut |_| {})?
        } else {
            self.decode(frame)?
        } {
            Content::Records(frame) => {
                frame
                    .records
                    .iter()
                    .for_each(|record| each(&frame.context, record));
                Ok(Content::Seen {
                    context: frame.context,
                    records: frame.records.len() as u64,
                })
            }
            Content::Seen { context, records } => {
                let show = |record: &Record| each(&context, record);
                body::each_record(&self.raw, at, &self.limits, show)?;
                release_if_large(&mut self.raw);
                Ok(Content::Seen { context, records })
            }
            other => Ok(other),
        }
    }

    fn content(
        &mut self,
        mut frame: IntactFrame,
        glance: Option<&mut dyn FnMut(&Glance<'_>)>,
    ) -> Result<Content> {
        self.body(&mut frame)?;
        let header = frame.header;
        if header.frame_type != FrameType::FRAGMENT {
            self.run = None;
            frame.payload = Vec::new();
        }
        let damaged = |field| {
            move |what: String| Error::damaged(frame_at(&header, frame.offset, field), what)
        };
        match header.frame_type {
            FrameType::HEADER => wire::decode_header(&self.raw)
                .map(|header| Content::Header(Box::new(header)))
                .map_err(damaged("HEADER")),
            FrameType::END => wire::decode_end(&self.raw, self.minor)
                .map(|end| Content::End(Box::new(end)))
                .map_err(damaged("END")),
            FrameType::DATA => self.data(&frame, glance),
            FrameType::FRAGMENT => self.fragment(&frame, glance),
            FrameType::INDEX => Index::new(std::mem::take(&mut self.raw), header.seq)
                .map(Content::Index)
                .map_err(damaged("INDEX")),
            FrameType::NOTE => wire::decode_note(&self.raw)
                .map(Content::Note)
                .map_err(damaged("NOTE")),
            FrameType::MODULE_AUX => wire::decode_module_aux(&self.raw)
                .map(|aux| Content::ModuleAux(Box::new(aux)))
                .map_err(damaged("MODULE_AUX")),
            _ => Ok(Content::Other),
        }
    }

    fn data(
        &mut self,
        frame: &IntactFrame,
        glance: Option<&mut dyn FnMut(&Glance<'_>)>,
    ) -> Result<Content> {
        let at = frame.at("entries");
        if let Some(each) = glance {
            let mut records = 0;
            let context = body::check(&self.raw, at, &self.limits, &mut self.keys, |record| {
                records += 1;
                each(record);
            })?;
            return Ok(Content::Seen { context, records });
        }
        let (body, rest) = body::decode(&self.raw, at, &self.limits, &mut self.keys, self.room)?;
        if rest.is_none() {
            release_if_large(&mut self.raw);
        }
        let header = &frame.header;
        let whole = Frame {
            context: body.context,
            records: body.records,
            seq: header.seq,
            offset: frame.offset,
            stored_len: u64::from(header.stored_len),
            raw_len: u64::from(header.raw_len),
            value_len: None,
            goes_on: false,
        };
        let (first, rest) = Rest::behind(whole, rest);
        self.rest = rest;
        Ok(Content::Records(first))
    }

    fn fragment(
        &mut self,
        frame: &IntactFrame,
        glance: Option<&mut dyn FnMut(&Glance<'_>)>,
    ) -> Result<Content> {
        // A run goes on only with the very next frame; anything else begins a new one.
        let mut run = self
            .run
            .take()
            .filter(|run| run.next_seq == frame.header.seq)
            .unwrap_or_else(|| Run {
                joiner: Joiner::new(Keep::of(glance.is_some(), &self.limits)),
                first: frame.at("entries"),
                next_seq: frame.header.seq,
                stored_len: 0,
            });
        let (header, at) = (&frame.header, frame.at("fragment"));
        let last = run
            .joiner
            .push(header, &frame.payload, &self.raw, at, &self.limits)?;
        run.next_seq = frame.header.seq.saturating_add(1);
        run.stored_len += u64::from(frame.header.stored_len);
        if !last {
            self.run = Some(run);
            return Ok(Content::Part);
        }
        let raw_len = run.joiner.len();
        let body = run.joiner.into_body(&mut self.unpacker, run.first)?;
        if let (Some(each), [record]) = (glance, body.records.as_slice()) {
            each(&record.glance(body.value_len));
            return Ok(Content::Seen {
                context: body.context,
                records: 1,
            });
        }
        Ok(Content::Records(Frame {
            context: body.context,
            records: body.records,
            seq: run.first.frame.unwrap_or_default(),
            offset: run.first.offset,
            stored_len: run.stored_len,
            raw_len,
            value_len: body.value_len,
            goes_on: false,
        }))
    }
}

fn frame_at(header: &FrameHeader, offset: u64, field: &'static str) -> Position {
    Position {
        archive_id: Some(header.archive_id),
        offset,
        frame: Some(header.seq),
        field,
    }
}
