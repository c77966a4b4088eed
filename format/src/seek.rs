//! Reading frames of a complete archive in any order, from a file.
//!
//! [`Table::read`] learns from the end of the archive, trailer, END and INDEX, where its frames
//! are; it reads the frames' headers instead where there is no INDEX. What a table says is a hint:
//! [`read_frame`] checks each frame that it leads to, as any reader does. What nobody checks here is
//! END's digest over the whole archive.

use std::cmp::Ordering;
use std::io::{Read, Seek, SeekFrom};

use crate::error::{Class, Error, Incompleteness, Position, Result, Trailing};
use crate::frame::{Codec, FRAME_HEADER_LEN, FrameHeader, FrameType};
use crate::header::{End, Header};
use crate::lacks::Told;
use crate::limits::MAX_NOTES_KEPT;
use crate::reader::Frame;
use crate::record::{Context, Glance};
use crate::salvage::IntactFrame;
use crate::scan::Scan;
use crate::stream::{FrameStream, fill};
use crate::totals::Totals;
use crate::trailer::{TRAILER_LEN, Trailer};
use crate::version::PREAMBLE_LEN;
use crate::wire;
use crate::zstandard::Unpacker;

/// Where a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Offset of its header.
    pub offset: u64,
    /// Its number, from 0 for HEADER.
    pub seq: u64,
    /// Its type.
    pub frame_type: FrameType,
    /// Bytes of payload.
    pub stored_len: u32,
    /// Bytes of body.
    pub raw_len: u32,
    /// Records that become complete with it, where INDEX says so.
    pub records: Option<u32>,
}

/// What the ends of an archive say of what is between them.
#[derive(Debug, Clone)]
pub struct Table {
    /// What the archive says at its start.
    pub header: Header,
    /// What it says at its end; its counts and its digest are not checked.
    pub end: End,
    /// The archive's id.
    pub archive_id: u64,
    /// The frames before INDEX and END, from HEADER on: a frame's number is its position.
    pub frames: Vec<Place>,
    /// Where END begins: its digest is over the bytes before.
    pub end_offset: u64,
}

impl Table {
    /// Reads preamble, HEADER, trailer, END and INDEX. Offsets count from the stream's start.
    pub fn read<R: Read + Seek>(inner: &mut R) -> Result<Self> {
        let len = seek(inner, SeekFrom::End(0))?;
        seek(inner, SeekFrom::Start(0))?;
        let mut stream = FrameStream::new(&mut *inner)?;
        let mut payload = Vec::new();
        let first = stream.next(&mut payload)?;
        let header = wire::decode_header(&payload)
            .map_err(|what| Error::damaged(first.at("HEADER"), what))?;
        let minor = stream.preamble().minor;
        let archive_id = first.header.archive_id;
        let trailer = read_trailer(inner, len, archive_id)?;
        let end_frame = frame_at(inner, trailer.end_offset, archive_id, FrameType::END)?;
        check_nothing_follows(&end_frame, len)?;
        let mut end = wire::decode_end(&end_frame.payload, minor)
            .map_err(|what| Error::damaged(end_frame.at("END"), what))?;
        if end.frames != end_frame.header.seq {
            let what = format!(
                "END says {} frames, there are {}",
                end.frames, end_frame.header.seq
            );
            return Err(Error::damaged(end_frame.at("frames"), what));
        }
        let frames = match trailer.index_offset {
            0 => hop(inner, trailer.end_offset, end.frames, archive_id)?,
            offset => indexed(inner, offset, archive_id)?,
        };
        let told = told_before_end(inner, &frames, archive_id)?;
        (end.lacks, end.outside) = (told.lacks, told.outside);
        Ok(Table {
            header,
            end,
            archive_id,
            frames,
            end_offset: trailer.end_offset,
        })
    }
}

impl Table {
    /// The same; where it fails, the archive is walked from its start for what is really wrong: what
    /// is missed at the end may follow from something before it, or stand before something behind it.
    pub fn read_or_explain<R: Read + Seek>(inner: &mut R) -> Result<Self> {
        let error = match Self::read(inner) {
            Err(error) => error,
            table => return table,
        };
        let is_at_the_end = matches!(
            error.class(),
            Class::Incomplete | Class::Damaged | Class::TrailingData
        );
        if !is_at_the_end {
            return Err(error);
        }
        seek(inner, SeekFrom::Start(0))?;
        let walked = Scan::new(&mut *inner).and_then(|mut scan| {
            while scan.next_frame()?.is_some() {}
            Ok(())
        });
        Err(walked.err().unwrap_or(error))
    }

    /// Where frame `seq` begins; also the one behind the last of the table.
    pub fn offset_of(&self, seq: u64) -> Option<u64> {
        let before = usize::try_from(seq.checked_sub(1)?).ok()?;
        let place = self.frames.get(before)?;
        Some(place.offset + FRAME_HEADER_LEN as u64 + u64::from(place.stored_len))
    }
}

/// Counts what frames hold, to compare it with END once all were read.
#[derive(Debug, Default)]
pub struct Recount {
    totals: Totals,
    /// Records so far of a frame that comes in pieces.
    of_frame: usize,
}

impl Recount {
    /// Counts the records of a frame, or of a piece of it, that stands at `place` (the last one of a
    /// FRAGMENT run).
    pub fn count(&mut self, frame: &Frame, place: &Place) -> Result<()> {
        let at = Position {
            offset: place.offset,
            frame: Some(place.seq),
            field: "entries",
            ..Position::default()
        };
        let found = self.of_frame + frame.records.len();
        self.of_frame = if frame.goes_on { found } else { 0 };
        if !frame.goes_on && place.records.is_some_and(|told| told as usize != found) {
            let what = format!("the frame has {found} records, which is not what INDEX says");
            return Err(Error::damaged(at, what));
        }
        self.totals.context(&frame.context);
        for record in &frame.records {
            let counted = self.totals.count(record);
            counted.map_err(|_| Error::damaged(at, "there are too many databases"))?;
        }
        Ok(())
    }

    /// Counts a record that was only looked at; false if it is of one database too many.
    pub fn glance(&mut self, record: &Glance<'_>) -> bool {
        self.totals.glance(record).is_ok()
    }

    /// Notes what the records of a frame share.
    pub fn context(&mut self, context: &Context) {
        self.totals.context(context);
    }

    /// Compares with what an END says; the error is in plain words.
    pub fn check_end(&self, end: &End) -> std::result::Result<(), String> {
        let checked = self.totals.check(end);
        checked.map_err(|(field, what)| format!("{field}: {what}"))
    }

    /// Compares with what the table's END says.
    pub fn check(&self, table: &Table) -> Result<()> {
        self.totals.check(&table.end).map_err(|(field, what)| {
            let at = Position {
                archive_id: Some(table.archive_id),
                offset: table.end_offset,
                frame: Some(table.end.frames),
                field,
            };
            Error::damaged(at, what)
        })
    }
}

fn seek(inner: &mut impl Seek, to: SeekFrom) -> Result<u64> {
    inner
        .seek(to)
        .map_err(|source| Error::Read { offset: 0, source })
}

fn read_trailer<R: Read + Seek>(inner: &mut R, len: u64, archive_id: u64) -> Result<Trailer> {
    let at = Position {
        archive_id: Some(archive_id),
        offset: len,
        frame: None,
        field: "trailer",
    };
    let cut_off = Error::Incomplete {
        at,
        how: Incompleteness::Truncated,
    };
    let Some(offset) = len.checked_sub(TRAILER_LEN as u64) else {
        return Err(cut_off);
    };
    seek(inner, SeekFrom::Start(offset))?;
    let mut bytes = [0; TRAILER_LEN];
    fill(inner, &mut bytes).map_err(|source| Error::Read { offset, source })?;
    let trailer = Trailer::decode(&bytes, at).map_err(|_| cut_off)?;
    if trailer.archive_id != archive_id {
        let what = format!(
            "the trailer belongs to archive {:016x}, this is {archive_id:016x}",
            trailer.archive_id
        );
        return Err(Error::damaged(at, what));
    }
    Ok(trailer)
}

/// Behind END is the trailer and nothing else: an archive that stands twice in a file ends with a
/// right trailer, too.
fn check_nothing_follows(end: &IntactFrame, len: u64) -> Result<()> {
    let payload_len = u64::from(end.header.stored_len);
    let due = end.offset + FRAME_HEADER_LEN as u64 + payload_len + TRAILER_LEN as u64;
    let at = Position {
        offset: due.min(len),
        frame: None,
        ..end.at("end of file")
    };
    match due.cmp(&len) {
        Ordering::Equal => Ok(()),
        Ordering::Less => Err(Error::TrailingData {
            at,
            what: Trailing::Bytes,
        }),
        Ordering::Greater => Err(Error::damaged(at, "END reaches into the trailer")),
    }
}

/// An intact frame of this type, stored without compression or not.
fn frame_at<R: Read + Seek>(
    inner: &mut R,
    offset: u64,
    archive_id: u64,
    due: FrameType,
) -> Result<IntactFrame> {
    let header = header_at(inner, offset, archive_id, None)?;
    let frame = payload_of(inner, offset, header)?;
    if header.frame_type != due {
        let what = format!("{} stands where {due} is due", header.frame_type);
        return Err(Error::damaged(frame.at("frame type"), what));
    }
    Ok(frame)
}

/// Goes to a place, by a step from here where that can be said: what is buffered is then kept, and
/// small frames one after the other do not cost a full buffer each.
fn go_to<R: Read + Seek>(inner: &mut R, offset: u64) -> Result<()> {
    let step = |here: u64| {
        let (offset, here) = (i64::try_from(offset).ok()?, i64::try_from(here).ok()?);
        offset.checked_sub(here)
    };
    let failed = |source| Error::Read { offset, source };
    match step(inner.stream_position().map_err(failed)?) {
        Some(step) => inner.seek_relative(step).map_err(failed),
        None => seek(inner, SeekFrom::Start(offset)).map(|_| ()),
    }
}

fn header_at<R: Read + Seek>(
    inner: &mut R,
    offset: u64,
    archive_id: u64,
    seq: Option<u64>,
) -> Result<FrameHeader> {
    let at = Position {
        archive_id: Some(archive_id),
        offset,
        frame: seq,
        field: "frame header",
    };
    go_to(inner, offset)?;
    let mut bytes = [0; FRAME_HEADER_LEN];
    let got = fill(inner, &mut bytes).map_err(|source| Error::Read { offset, source })?;
    if got < FRAME_HEADER_LEN {
        return Err(Error::Incomplete {
            at,
            how: Incompleteness::Truncated,
        });
    }
    FrameHeader::decode(&bytes, at, Some(archive_id), seq)
}

/// The payload behind a header that was just read.
fn payload_of<R: Read>(inner: &mut R, offset: u64, header: FrameHeader) -> Result<IntactFrame> {
    let mut frame = IntactFrame {
        header,
        offset,
        payload: Vec::new(),
    };
    inner
        .by_ref()
        .take(header.stored_len.into())
        .read_to_end(&mut frame.payload)
        .map_err(|source| Error::Read { offset, source })?;
    if frame.payload.len() < header.stored_len as usize {
        return Err(Error::Incomplete {
            at: frame.at("payload"),
            how: Incompleteness::Truncated,
        });
    }
    if crc32fast::hash(&frame.payload) != header.payload_crc {
        let what = "the payload does not have the checksum that its header says";
        return Err(Error::damaged(frame.at("payload CRC"), what));
    }
    Ok(frame)
}

/// What NOTE frames behind the last record say of the source beyond single keys.
fn told_before_end<R: Read + Seek>(
    inner: &mut R,
    frames: &[Place],
    archive_id: u64,
) -> Result<Told> {
    // What a module left behind the keys may stand there, too.
    let is_note =
        |place: &&Place| matches!(place.frame_type, FrameType::NOTE | FrameType::MODULE_AUX);
    let notes = frames.iter().rev().take_while(is_note).count();
    let mut told = Told::default();
    for place in frames[frames.len() - notes..]
        .iter()
        .filter(|place| place.frame_type == FrameType::NOTE)
        .take(MAX_NOTES_KEPT * 3)
    {
        let frame = read_frame(inner, place, archive_id)?;
        if frame.header.codec == Codec::Stored {
            let note = wire::decode_note(&frame.payload)
                .map_err(|what| Error::damaged(frame.at("NOTE"), what))?;
            told.learn(&note);
        }
    }
    Ok(told)
}

/// The frames as INDEX tells them.
fn indexed<R: Read + Seek>(
    inner: &mut R,
    index_offset: u64,
    archive_id: u64,
) -> Result<Vec<Place>> {
    let index = frame_at(inner, index_offset, archive_id, FrameType::INDEX)?;
    let damaged = |what: String| Error::damaged(index.at("INDEX"), what);
    let mut unpacked = Vec::new();
    let body = match index.header.codec {
        Codec::Stored => &index.payload,
        Codec::Zstd => {
            Unpacker::new()
                .and_then(|mut unpacker| {
                    let raw_len = index.header.raw_len as usize;
                    unpacker.unpack(&index.payload, raw_len, &mut unpacked)
                })
                .map_err(damaged)?;
            &unpacked
        }
    };
    let mut frames = Vec::new();
    let mut offset = PREAMBLE_LEN as u64;
    wire::each_index_entry(body, index.header.seq, |entry| {
        // What lies beyond is not there, and only claimed.
        if offset < index_offset {
            frames.push(Place {
                offset,
                seq: frames.len() as u64,
                frame_type: FrameType(entry.frame_type),
                stored_len: entry.stored_len,
                raw_len: entry.raw_len,
                records: Some(entry.records),
            });
        }
        offset = offset.saturating_add(FRAME_HEADER_LEN as u64 + u64::from(entry.stored_len));
    })
    .map_err(damaged)?;
    if offset != index_offset || index.header.seq != frames.len() as u64 {
        return Err(damaged(
            "INDEX is not the table of the frames before it".into(),
        ));
    }
    Ok(frames)
}

/// The frames as their headers tell them, each leading to the next.
fn hop<R: Read + Seek>(
    inner: &mut R,
    end_offset: u64,
    count: u64,
    archive_id: u64,
) -> Result<Vec<Place>> {
    let mut frames = Vec::new();
    let mut offset = PREAMBLE_LEN as u64;
    for seq in 0..count {
        let header = header_at(inner, offset, archive_id, Some(seq))?;
        frames.push(Place {
            offset,
            seq,
            frame_type: header.frame_type,
            stored_len: header.stored_len,
            raw_len: header.raw_len,
            records: None,
        });
        offset += FRAME_HEADER_LEN as u64 + u64::from(header.stored_len);
    }
    if offset != end_offset {
        let at = Position {
            archive_id: Some(archive_id),
            offset,
            frame: Some(count),
            field: "END",
        };
        let what = format!("the trailer says that END is at byte {end_offset}");
        return Err(Error::damaged(at, what));
    }
    Ok(frames)
}

/// Reads and checks the frame at a place: its header, that it is the frame the table means, and its
/// payload's checksum.
pub fn read_frame<R: Read + Seek>(
    inner: &mut R,
    place: &Place,
    archive_id: u64,
) -> Result<IntactFrame> {
    let header = header_at(inner, place.offset, archive_id, Some(place.seq))?;
    let frame = payload_of(inner, place.offset, header)?;
    let told = (place.frame_type, place.stored_len, place.raw_len);
    if (header.frame_type, header.stored_len, header.raw_len) != told {
        let what = "the frame is not the one that INDEX tells of";
        return Err(Error::damaged(frame.at("frame header"), what));
    }
    Ok(frame)
}
