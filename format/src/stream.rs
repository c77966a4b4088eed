//! Frames as they stand in the byte stream: everything that can be checked without decompressing.
//!
//! [`Reader`](crate::Reader) and [`scan`](crate::scan) are built on this, so the order of checks
//! and the rules of which frame may follow which exist once.

use std::io::{self, Read, Seek, SeekFrom};

use sha2::{Digest, Sha256};

use crate::error::{Error, Incompleteness, Position, Result, Trailing};
use crate::frame::{FRAME_HEADER_LEN, FrameHeader, FrameType};
use crate::header::End;
use crate::lookalike::LookAlike;
use crate::trailer::{TRAILER_LEN, Trailer};
use crate::version::{MAGIC, PREAMBLE_LEN, Preamble};
use crate::wire;

/// A frame whose header and payload checksum are right.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamFrame {
    pub(crate) header: FrameHeader,
    /// Offset of its header.
    pub(crate) offset: u64,
}

impl StreamFrame {
    pub(crate) fn at(&self, field: &'static str) -> Position {
        Position {
            archive_id: Some(self.header.archive_id),
            offset: self.offset,
            frame: Some(self.header.seq),
            field,
        }
    }
}

/// The frames of an archive, one after the other.
#[derive(Debug)]
pub(crate) struct FrameStream<R> {
    inner: R,
    offset: u64,
    /// Over every byte before the current frame's end, END excepted; `None` after a jump.
    hasher: Option<Sha256>,
    preamble: Preamble,
    archive_id: Option<u64>,
    next_seq: u64,
    index_offset: u64,
    end_offset: u64,
}

impl<R: Read> FrameStream<R> {
    /// Reads and checks the preamble.
    pub(crate) fn new(mut inner: R) -> Result<Self> {
        let mut bytes = [0; PREAMBLE_LEN];
        let got =
            fill(&mut inner, &mut bytes).map_err(|source| Error::Read { offset: 0, source })?;
        if got < PREAMBLE_LEN {
            let there = &bytes[..got];
            let agrees = there.len().min(MAGIC.len());
            if got == 0 || there[..agrees] != MAGIC[..agrees] {
                return Err(Error::NotAnArchive(LookAlike::of(there)));
            }
            let at = Position {
                offset: got as u64,
                field: "preamble",
                ..Position::default()
            };
            return Err(Error::Incomplete {
                at,
                how: Incompleteness::Truncated,
            });
        }
        let preamble = Preamble::decode(&bytes)?;
        let mut hasher = Sha256::new();
        hasher.update(bytes);
        Ok(FrameStream {
            inner,
            offset: PREAMBLE_LEN as u64,
            hasher: Some(hasher),
            preamble,
            archive_id: None,
            next_seq: 0,
            index_offset: 0,
            end_offset: 0,
        })
    }

    pub(crate) fn preamble(&self) -> Preamble {
        self.preamble
    }

    pub(crate) fn archive_id(&self) -> Option<u64> {
        self.archive_id
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Over every byte so far; `None` after a jump.
    pub(crate) fn hasher(&self) -> Option<Sha256> {
        self.hasher.clone()
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// The next frame; its payload replaces what `payload` held. Never called again after END.
    pub(crate) fn next(&mut self, payload: &mut Vec<u8>) -> Result<StreamFrame> {
        let offset = self.offset;
        let at = Position {
            archive_id: self.archive_id,
            offset,
            frame: Some(self.next_seq),
            field: "frame header",
        };
        let mut bytes = [0; FRAME_HEADER_LEN];
        self.read_header(&mut bytes, at, Incompleteness::Truncated)?;
        let header = FrameHeader::decode(&bytes, at, self.archive_id, Some(self.next_seq))?;
        let frame = StreamFrame { header, offset };
        self.check_order(&frame)?;
        self.read_payload(&frame, payload)?;
        self.archive_id = Some(header.archive_id);
        self.next_seq += 1;
        match header.frame_type {
            FrameType::END => self.end_offset = offset,
            other => {
                if let Some(hasher) = &mut self.hasher {
                    hasher.update(bytes);
                    hasher.update(&payload[..]);
                }
                if other == FrameType::INDEX {
                    self.index_offset = offset;
                }
            }
        }
        Ok(frame)
    }

    fn check_order(&self, frame: &StreamFrame) -> Result<()> {
        let is = |ty| frame.header.frame_type == ty;
        let damaged = |what: &str| Err(Error::damaged(frame.at("frame type"), what));
        if (frame.header.seq == 0) != is(FrameType::HEADER) {
            return damaged("HEADER is not the first frame, or not the only one of its kind");
        }
        if self.index_offset != 0 && !is(FrameType::END) {
            return damaged("a frame other than END follows INDEX");
        }
        Ok(())
    }

    fn read_payload(&mut self, frame: &StreamFrame, payload: &mut Vec<u8>) -> Result<()> {
        payload.clear();
        let due = u64::from(frame.header.stored_len);
        // At most a frame's limit, and untouched memory costs nothing. A buffer that grows as bytes
        // arrive would leave its smaller copies behind.
        payload.reserve_exact(frame.header.stored_len as usize);
        let got = (&mut self.inner)
            .take(due)
            .read_to_end(payload)
            .map_err(|source| Error::Read {
                offset: self.offset + payload.len() as u64,
                source,
            })?;
        self.offset += got as u64;
        if (got as u64) < due {
            let at = Position {
                offset: self.offset,
                ..frame.at("payload")
            };
            return Err(Error::Incomplete {
                at,
                how: Incompleteness::Truncated,
            });
        }
        let computed = crc32fast::hash(payload);
        if computed != frame.header.payload_crc {
            let what = format!(
                "the payload's checksum is {computed:08x} where the header says {:08x}",
                frame.header.payload_crc
            );
            return Err(Error::damaged(frame.at("payload CRC"), what));
        }
        Ok(())
    }

    /// Goes on with frame `seq`, whose header is at `offset`. The digest over the whole archive can
    /// then no longer be checked.
    pub(crate) fn jump(&mut self, offset: u64, seq: u64) -> Result<()>
    where
        R: Seek,
    {
        self.inner
            .seek(SeekFrom::Start(offset))
            .map_err(|source| Error::Read { offset, source })?;
        self.offset = offset;
        self.next_seq = seq;
        self.hasher = None;
        Ok(())
    }

    /// Decodes END and checks what it says of the bytes before it.
    pub(crate) fn check_end(&self, frame: &StreamFrame, body: &[u8]) -> Result<End> {
        let minor = self.preamble.minor;
        let end =
            wire::decode_end(body, minor).map_err(|what| Error::damaged(frame.at("END"), what))?;
        if end.frames != frame.header.seq {
            let what = format!(
                "END says {} frames, there are {}",
                end.frames, frame.header.seq
            );
            return Err(Error::damaged(frame.at("frames"), what));
        }
        let digest = self.hasher.clone().map(|hasher| hasher.finalize().into());
        if digest.is_some_and(|digest: [u8; 32]| end.sha256 != digest) {
            let what = "the bytes before END do not have the SHA-256 that END says";
            return Err(Error::damaged(frame.at("sha256"), what));
        }
        Ok(end)
    }

    /// After END: the trailer, and then nothing.
    pub(crate) fn close(&mut self) -> Result<()> {
        let at = Position {
            archive_id: self.archive_id,
            offset: self.offset,
            frame: None,
            field: "trailer",
        };
        let mut bytes = [0; TRAILER_LEN];
        self.read_header(&mut bytes, at, Incompleteness::NoTrailer)?;
        let seen = Trailer {
            end_offset: self.end_offset,
            index_offset: self.index_offset,
            archive_id: self.archive_id.unwrap_or_default(),
        };
        Trailer::decode(&bytes, at)?.check(&seen, at)?;
        let mut more = [0; MAGIC.len()];
        let offset = self.offset;
        let got =
            fill(&mut self.inner, &mut more).map_err(|source| Error::Read { offset, source })?;
        let at = Position {
            offset,
            field: "end of file",
            ..at
        };
        let what = match &more[..got] {
            [] => return Ok(()),
            _ if more == MAGIC => Trailing::Archive,
            rest if rest.iter().all(|byte| *byte == 0) => Trailing::Zeros,
            _ => Trailing::Bytes,
        };
        Err(Error::TrailingData { at, what })
    }

    fn read_header(&mut self, bytes: &mut [u8], at: Position, how: Incompleteness) -> Result<()> {
        let got = fill(&mut self.inner, bytes).map_err(|source| Error::Read {
            offset: at.offset,
            source,
        })?;
        self.offset += got as u64;
        if got < bytes.len() {
            return Err(Error::Incomplete {
                at: Position {
                    offset: self.offset,
                    ..at
                },
                how,
            });
        }
        Ok(())
    }
}

/// Fills a buffer as far as the stream goes, and says how far. Unlike `read_exact` it keeps the end
/// of the stream apart from a failing reader, even from one that fails with `UnexpectedEof`.
pub(crate) fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
