//! Watches the bytes of an archive on their way to its reader: their digest, which is the one an
//! export prints, and the frames they form. It believes nothing: what does not look like a frame
//! only ends the watching, and is left to the reader to refuse.

use std::collections::BTreeMap;
use std::io::{self, Read};

use redis_migrate_format::Position;
use redis_migrate_format::frame::{FRAME_HEADER_LEN, FrameHeader, FrameType};
use redis_migrate_format::version::PREAMBLE_LEN;
use sha2::{Digest, Sha256};

use super::table::Table;
use crate::units::{bytes_text, count_text, hex};

/// Frames of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameCounts {
    pub frames: u64,
    /// Bytes of their payloads.
    pub stored_bytes: u64,
    /// Bytes of their bodies.
    pub raw_bytes: u64,
}

/// A frame that went by: where its header began, and the header.
pub type SeenFrame = (u64, FrameHeader);

type OnFrame = Box<dyn FnMut(&SeenFrame)>;

/// The stream, watched.
pub struct Watched<R> {
    inner: R,
    digest: Sha256,
    offset: u64,
    state: Expecting,
    frames: BTreeMap<FrameType, FrameCounts>,
    on_frame: Option<OnFrame>,
}

enum Expecting {
    /// So many bytes are of no interest.
    Skip(u64),
    /// A frame header, as far as it came.
    Header(Vec<u8>),
    /// Behind the last frame, or lost.
    Done,
}

impl<R: Read> Watched<R> {
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            digest: Sha256::new(),
            offset: 0,
            state: Expecting::Skip(PREAMBLE_LEN as u64),
            frames: BTreeMap::new(),
            on_frame: None,
        }
    }

    /// Calls `on_frame` for each frame header that goes by.
    pub fn each_frame(mut self, on_frame: impl FnMut(&SeenFrame) + 'static) -> Self {
        self.on_frame = Some(Box::new(on_frame));
        self
    }

    /// Digest of what was read, hex.
    pub fn sha256(&self) -> String {
        hex(&self.digest.clone().finalize())
    }

    /// What it reads from.
    pub fn inner(&self) -> &R {
        &self.inner
    }

    pub fn bytes_read(&self) -> u64 {
        self.offset
    }

    pub fn frames(&self) -> &BTreeMap<FrameType, FrameCounts> {
        &self.frames
    }

    fn watch(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.state {
                Expecting::Done => {
                    self.offset += bytes.len() as u64;
                    return;
                }
                Expecting::Skip(left) => {
                    let step = usize::try_from(*left).map_or(bytes.len(), |n| n.min(bytes.len()));
                    *left -= step as u64;
                    if *left == 0 {
                        self.state = Expecting::Header(Vec::with_capacity(FRAME_HEADER_LEN));
                    }
                    self.offset += step as u64;
                    bytes = &bytes[step..];
                }
                Expecting::Header(header) => {
                    let step = (FRAME_HEADER_LEN - header.len()).min(bytes.len());
                    header.extend_from_slice(&bytes[..step]);
                    self.offset += step as u64;
                    bytes = &bytes[step..];
                    if let Ok(header) = <&[u8; FRAME_HEADER_LEN]>::try_from(header.as_slice()) {
                        let header = *header;
                        self.frame(&header);
                    }
                }
            }
        }
    }

    fn frame(&mut self, header: &[u8; FRAME_HEADER_LEN]) {
        let Ok(header) = FrameHeader::decode(header, Position::default(), None, None) else {
            self.state = Expecting::Done;
            return;
        };
        let counts = self.frames.entry(header.frame_type).or_default();
        counts.frames += 1;
        counts.stored_bytes += u64::from(header.stored_len);
        counts.raw_bytes += u64::from(header.raw_len);
        if let Some(on_frame) = &mut self.on_frame {
            on_frame(&(self.offset - FRAME_HEADER_LEN as u64, header));
        }
        self.state = if header.frame_type == FrameType::END {
            Expecting::Done
        } else {
            Expecting::Skip(header.stored_len.into())
        };
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.digest.update(&buffer[..len]);
        self.watch(&buffer[..len]);
        Ok(len)
    }
}

/// Frames by type, as a table.
pub fn frames_table(frames: &BTreeMap<FrameType, FrameCounts>) -> Table {
    let mut table = Table::new("frame | >count | >stored | >raw | >ratio");
    for (frame_type, counts) in frames {
        table.row(vec![
            frame_type.to_string(),
            count_text(counts.frames),
            bytes_text(counts.stored_bytes),
            bytes_text(counts.raw_bytes),
            format!(
                "{:.2}",
                counts.raw_bytes as f64 / counts.stored_bytes.max(1) as f64
            ),
        ]);
    }
    table
}
