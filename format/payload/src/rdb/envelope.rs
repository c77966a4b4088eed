//! RDB data in a compressed envelope (Valkey 9.2, `rdbcompression lz4` or `zstd`; read in
//! compression_stream.h and its tests, tried on no server).
//!
//! ```text
//! "VCS" · version 1 · codec 1 LZ4, 2 Zstandard · reserved 0 · kind 1 RDB, 2 replication     7 bytes
//! one frame of the codec: a complete RDB file, whose own checksum may be anything
//! ```
//!
//! What stands behind the frame means nothing to servers; another RDB file there is lost to them. A
//! frame that is cut is an error, also where a decoder would take it for a short one.

use std::io::{self, BufReader, Read};

use lz4_flex::frame::FrameDecoder;
use zstd::stream::read::Decoder;

/// What it begins with.
pub(super) const ENVELOPE: &[u8] = b"VCS";

/// Bytes before the frame.
const HEADER_LEN: usize = 7;
/// Bytes of the frame that are looked at: its magic and its flags.
const FRAME_HEAD_LEN: usize = 5;
const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What the Zstandard library says of a frame whose window is larger than its default bound allows
/// (ZSTD_WINDOWLOG_LIMIT_DEFAULT, 27).
const WINDOW_TOO_LARGE: &str = "too much memory";
/// The flag that a checksum of the contents ends the frame: the same bit in both formats.
const HAS_CHECKSUM: u8 = 0x04;

/// Why an envelope cannot be opened, or not to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Its header says something else than the one that is known.
    #[error("the envelope of compressed data (VCS) has {what} {found}, and only {known} is known,")]
    Header {
        /// Which of its bytes.
        what: &'static str,
        /// What stands there.
        found: u8,
        /// What could.
        known: &'static str,
    },
    /// It holds the stream of a replica, which ends nowhere.
    #[error(
        "the envelope of compressed data (VCS) holds a replication stream and not an RDB file,"
    )]
    Replication,
    /// No frame of its codec follows.
    #[error("no {0} frame follows the envelope of compressed data (VCS),")]
    NoFrame(&'static str),
    /// Zstandard data that refer back farther than this tool keeps what it gave.
    #[error(
        "the compressed data need a window of more than 128 MiB, for which this tool takes no memory,"
    )]
    Window,
    /// It ends before its frame does.
    #[error("the compressed data are cut short")]
    Cut,
    /// The frame does not decompress, or to something else than its checksum says.
    #[error("the compressed data are damaged ({0})")]
    Damaged(String),
}

impl EnvelopeError {
    /// The error of an envelope in what its reader gives.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

/// RDB data as they are, and of those in an envelope what is in it.
pub(super) struct Envelope<R: Read>(State<R>);

enum State<R: Read> {
    /// Nothing was read.
    Unread(Raw<R>),
    Plain(Raw<R>),
    Lz4(Box<FrameDecoder<BufReader<Raw<R>>>>, Frame),
    Zstd(Box<Decoder<'static, BufReader<Raw<R>>>>, Frame),
    /// Only between two of the others.
    Gone,
}

#[derive(Clone, Copy)]
struct Frame {
    has_checksum: bool,
    is_over: bool,
}

/// What is read from, first the bytes that were looked at.
struct Raw<R> {
    head: Vec<u8>,
    used: usize,
    reader: R,
    /// More was asked for than there is.
    is_over: bool,
    /// It could not be read on.
    has_failed: bool,
}

impl<R: Read> Raw<R> {
    /// Looks at the first bytes; fewer where there are no more.
    fn look(&mut self, len: usize) -> io::Result<()> {
        while self.head.len() < len {
            let mut bytes = [0; HEADER_LEN + FRAME_HEAD_LEN];
            let room = &mut bytes[..len - self.head.len()];
            match self.reader.read(room) {
                Ok(0) => break,
                Ok(read) => self.head.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Raw<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let head = &self.head[self.used..];
        if !head.is_empty() {
            let len = head.len().min(buffer.len());
            buffer[..len].copy_from_slice(&head[..len]);
            self.used += len;
            return Ok(len);
        }
        let read = self.reader.read(buffer);
        match &read {
            Ok(0) if !buffer.is_empty() => self.is_over = true,
            Ok(_) => {}
            Err(error) => self.has_failed = error.kind() != io::ErrorKind::Interrupted,
        }
        read
    }
}

impl<R: Read> Envelope<R> {
    /// Looks into nothing yet.
    pub(super) fn new(reader: R) -> Self {
        Self(State::Unread(Raw {
            head: Vec::new(),
            used: 0,
            reader,
            is_over: false,
            has_failed: false,
        }))
    }

    /// What is read from.
    pub(super) fn get_mut(&mut self) -> Option<&mut R> {
        Some(match &mut self.0 {
            State::Unread(raw) | State::Plain(raw) => &mut raw.reader,
            State::Lz4(decoder, _) => &mut decoder.get_mut().get_mut().reader,
            State::Zstd(decoder, _) => &mut decoder.get_mut().get_mut().reader,
            State::Gone => return None,
        })
    }

    /// Of data in an envelope, whether a checksum of all of them ends it; nothing of others.
    pub(super) fn has_checksum(&self) -> Option<bool> {
        match &self.0 {
            State::Lz4(_, frame) | State::Zstd(_, frame) => Some(frame.has_checksum),
            _ => None,
        }
    }

    /// Takes the first bytes behind the frame of an envelope that was read to its end, `most` at most;
    /// nothing of what stands in no envelope.
    pub(super) fn behind(&mut self, most: u64) -> io::Result<Vec<u8>> {
        let mut found = Vec::new();
        match &mut self.0 {
            State::Lz4(decoder, frame) if frame.is_over => {
                decoder.get_mut().take(most).read_to_end(&mut found)?;
            }
            State::Zstd(decoder, frame) if frame.is_over => {
                decoder.get_mut().take(most).read_to_end(&mut found)?;
            }
            _ => {}
        }
        Ok(found)
    }

    fn open(&mut self) -> io::Result<()> {
        let State::Unread(raw) = &mut self.0 else {
            return Ok(());
        };
        raw.look(ENVELOPE.len())?;
        let is_plain = raw.head != ENVELOPE;
        let codec = match is_plain {
            true => None,
            false => {
                raw.look(HEADER_LEN + FRAME_HEAD_LEN)?;
                Some(codec(&raw.head).map_err(io::Error::other)?)
            }
        };
        let State::Unread(mut raw) = std::mem::replace(&mut self.0, State::Gone) else {
            return Ok(());
        };
        let Some(codec) = codec else {
            self.0 = State::Plain(raw);
            return Ok(());
        };
        raw.used = HEADER_LEN;
        let frame = Frame {
            has_checksum: raw
                .head
                .last()
                .is_some_and(|flags| flags & HAS_CHECKSUM != 0),
            is_over: false,
        };
        let raw = BufReader::new(raw);
        self.0 = match codec {
            Codec::Lz4 => State::Lz4(Box::new(FrameDecoder::new(raw)), frame),
            Codec::Zstd => State::Zstd(Box::new(Decoder::with_buffer(raw)?.single_frame()), frame),
        };
        Ok(())
    }
}

enum Codec {
    Lz4,
    Zstd,
}

/// Checks the header and the beginning of the frame.
fn codec(head: &[u8]) -> Result<Codec, EnvelopeError> {
    let byte = |at: usize| head.get(at).copied().ok_or(EnvelopeError::Cut);
    let is = |at: usize, what, known: &'static str, allowed: &[u8]| match byte(at)? {
        found if allowed.contains(&found) => Ok(found),
        found => Err(EnvelopeError::Header { what, found, known }),
    };
    is(3, "version", "1", &[1])?;
    let codec = is(4, "codec", "1 (LZ4) or 2 (Zstandard)", &[1, 2])?;
    is(5, "a reserved byte of", "0", &[0])?;
    if is(6, "kind", "1 (RDB)", &[1, 2])? == 2 {
        return Err(EnvelopeError::Replication);
    }
    let (codec, magic, name) = match codec {
        1 => (Codec::Lz4, LZ4_MAGIC, "LZ4"),
        _ => (Codec::Zstd, ZSTD_MAGIC, "Zstandard"),
    };
    let frame = &head[HEADER_LEN..];
    if !frame.starts_with(&magic[..frame.len().min(magic.len())]) {
        return Err(EnvelopeError::NoFrame(name));
    }
    byte(HEADER_LEN + FRAME_HEAD_LEN - 1)?;
    Ok(codec)
}

/// What a decoder gave, told apart: the end, which it must have reached by itself, damage, and what
/// was wrong below it.
fn given<R>(
    read: io::Result<usize>,
    asked: usize,
    raw: &Raw<R>,
    frame: &mut Frame,
) -> io::Result<usize> {
    match read {
        Ok(0) if asked > 0 && raw.is_over => Err(io::Error::other(EnvelopeError::Cut)),
        Ok(0) if asked > 0 => {
            frame.is_over = true;
            Ok(0)
        }
        Ok(read) => Ok(read),
        Err(error) if raw.has_failed || error.kind() == io::ErrorKind::Interrupted => Err(error),
        Err(_) if raw.is_over => Err(io::Error::other(EnvelopeError::Cut)),
        Err(error) => {
            // The decoder has nothing but its words to tell it by.
            let text = error.to_string();
            Err(io::Error::other(match text.contains(WINDOW_TOO_LARGE) {
                true => EnvelopeError::Window,
                false => EnvelopeError::Damaged(text),
            }))
        }
    }
}

impl<R: Read> Read for Envelope<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.open()?;
        match &mut self.0 {
            State::Unread(raw) | State::Plain(raw) => raw.read(buffer),
            State::Lz4(_, frame) | State::Zstd(_, frame) if frame.is_over => Ok(0),
            State::Lz4(decoder, frame) => {
                let read = decoder.read(buffer);
                given(read, buffer.len(), decoder.get_ref().get_ref(), frame)
            }
            State::Zstd(decoder, frame) => {
                let read = decoder.read(buffer);
                given(read, buffer.len(), decoder.get_ref().get_ref(), frame)
            }
            State::Gone => Ok(0),
        }
    }
}
