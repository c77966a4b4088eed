//! A walk over the frames that checks headers, payload checksums, END's digest and the trailer, and
//! decompresses nothing: as fast as the disk, and enough to know that no byte changed since the
//! archive was written. It does not look at records, so END's counts of them are not compared.

use std::io::Read;

use crate::error::{Error, Result};
use crate::frame::{Codec, FrameType};
use crate::header::{End, Header};
use crate::lacks::Told;
use crate::reader::aborted;
use crate::stream::{FrameStream, StreamFrame};
use crate::version::Preamble;
use crate::wire;

/// One frame, as its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameInfo {
    /// Offset of its header.
    pub offset: u64,
    /// Type.
    pub frame_type: FrameType,
    /// How the payload is stored.
    pub codec: Codec,
    /// Number.
    pub seq: u64,
    /// Bytes of payload.
    pub stored_len: u32,
    /// Bytes of body.
    pub raw_len: u32,
    /// CRC-32 of the payload.
    pub payload_crc: u32,
}

impl From<&StreamFrame> for FrameInfo {
    fn from(frame: &StreamFrame) -> Self {
        FrameInfo {
            offset: frame.offset,
            frame_type: frame.header.frame_type,
            codec: frame.header.codec,
            seq: frame.header.seq,
            stored_len: frame.header.stored_len,
            raw_len: frame.header.raw_len,
            payload_crc: frame.header.payload_crc,
        }
    }
}

/// The walk.
#[derive(Debug)]
pub struct Scan<R: Read> {
    stream: FrameStream<R>,
    header: Header,
    payload: Vec<u8>,
    told: Told,
    end: Option<End>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// HEADER was read and is still to be returned.
    First(FrameInfo),
    Walking,
    /// END was returned; the trailer is still to be read.
    Ending,
    Complete,
    Failed,
}

impl<R: Read> Scan<R> {
    /// Reads and checks preamble and HEADER.
    pub fn new(inner: R) -> Result<Self> {
        let mut stream = FrameStream::new(inner)?;
        let mut payload = Vec::new();
        let frame = stream.next(&mut payload)?;
        let header = wire::decode_header(&payload)
            .map_err(|what| Error::damaged(frame.at("HEADER"), what))?;
        Ok(Scan {
            stream,
            header,
            payload,
            told: Told::default(),
            end: None,
            state: State::First(FrameInfo::from(&frame)),
        })
    }

    /// The next frame, HEADER and END included. `None` only after the trailer and the end of the
    /// stream were checked.
    pub fn next_frame(&mut self) -> Result<Option<FrameInfo>> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::First(info) => {
                self.state = State::Walking;
                Ok(Some(info))
            }
            State::Walking => {
                let frame = self.stream.next(&mut self.payload)?;
                self.state = State::Walking;
                match frame.header.frame_type {
                    FrameType::END => {
                        let mut end = self.stream.check_end(&frame, &self.payload)?;
                        let told = std::mem::take(&mut self.told);
                        (end.lacks, end.outside) = (told.lacks, told.outside);
                        self.end = Some(end);
                        self.state = State::Ending;
                    }
                    FrameType::NOTE if frame.header.codec == Codec::Stored => {
                        let note = wire::decode_note(&self.payload)
                            .map_err(|what| Error::damaged(frame.at("NOTE"), what));
                        if note.is_err() {
                            self.state = State::Failed;
                        }
                        self.told.learn(&note?);
                    }
                    FrameType::ABORT => {
                        self.state = State::Failed;
                        return Err(aborted(&frame, &self.payload, None));
                    }
                    _ => {}
                }
                Ok(Some(FrameInfo::from(&frame)))
            }
            State::Ending => {
                self.stream.close()?;
                self.state = State::Complete;
                Ok(None)
            }
            State::Complete => {
                self.state = State::Complete;
                Ok(None)
            }
            State::Failed => Err(Error::Poisoned),
        }
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

    /// What it says at its end, once END was reached; its counts of records are not checked here.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Bytes read.
    pub fn offset(&self) -> u64 {
        self.stream.offset()
    }
}
