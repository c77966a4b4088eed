//! The frame header: forty bytes at fixed offsets with a checksum of their own, so that no length
//! is used before it is known to be right.

use crate::error::{Error, Position, Result};
use crate::limits::{MAX_HEADER_LEN, MAX_NOTE_LEN, MAX_RAW_LEN, STORED_SLACK};

/// Length of a frame header.
pub const FRAME_HEADER_LEN: usize = 40;

/// First bytes of a frame header. F5 never occurs in UTF-8.
pub const SYNC: [u8; 4] = *b"\xF5RMF";

/// Type of a frame. 00–7F are critical: a reader that does not know one refuses the archive.
/// 80–FF are ancillary: a reader that does not know one checks it and skips it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameType(pub u8);

impl FrameType {
    /// What the archive is; the first frame.
    pub const HEADER: FrameType = FrameType(0x01);
    /// Entries.
    pub const DATA: FrameType = FrameType(0x02);
    /// A part of a DATA body that is too large for one frame.
    pub const FRAGMENT: FrameType = FrameType(0x03);
    /// The exporter gave up.
    pub const ABORT: FrameType = FrameType(0x7E);
    /// Totals and digest; the last frame.
    pub const END: FrameType = FrameType(0x7F);
    /// Table of the frames before it; optional.
    pub const INDEX: FrameType = FrameType(0x81);
    /// Text for people.
    pub const NOTE: FrameType = FrameType(0x82);
    /// Data of a module that belongs to no key.
    pub const MODULE_AUX: FrameType = FrameType(0x90);

    /// Whether a reader that does not know this type may skip it.
    pub fn is_ancillary(self) -> bool {
        self.0 >= 0x80
    }

    /// Whether this crate knows the type.
    pub fn is_known(self) -> bool {
        self.name().is_some()
    }

    /// The name SPEC.md gives it.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            FrameType::HEADER => "HEADER",
            FrameType::DATA => "DATA",
            FrameType::FRAGMENT => "FRAGMENT",
            FrameType::ABORT => "ABORT",
            FrameType::END => "END",
            FrameType::INDEX => "INDEX",
            FrameType::NOTE => "NOTE",
            FrameType::MODULE_AUX => "MODULE_AUX",
            _ => return None,
        })
    }

    /// Whether its body must be stored without compression: these are read when nothing else can
    /// be trusted, or by the simplest of tools.
    pub fn must_be_stored(self) -> bool {
        matches!(self, FrameType::HEADER | FrameType::ABORT | FrameType::END)
    }

    fn max_raw_len(self) -> u32 {
        match self {
            FrameType::HEADER => MAX_HEADER_LEN,
            FrameType::NOTE => MAX_NOTE_LEN,
            _ => MAX_RAW_LEN,
        }
    }
}

impl std::fmt::Debug for FrameType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::fmt::Display for FrameType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "type {:02X}", self.0),
        }
    }
}

/// How a payload is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// As it is.
    Stored,
    /// One zstd frame.
    Zstd,
}

impl Codec {
    /// The byte in the frame header.
    pub fn byte(self) -> u8 {
        match self {
            Codec::Stored => 0,
            Codec::Zstd => 1,
        }
    }
}

/// A frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Type.
    pub frame_type: FrameType,
    /// How the payload is stored.
    pub codec: Codec,
    /// The same in every frame of an archive, and in no other archive.
    pub archive_id: u64,
    /// 0, 1, 2 … without gaps.
    pub seq: u64,
    /// Bytes of payload that follow.
    pub stored_len: u32,
    /// Bytes of body they stand for.
    pub raw_len: u32,
    /// CRC-32 of the payload as stored.
    pub payload_crc: u32,
}

impl FrameHeader {
    /// Its bytes.
    pub fn encode(&self) -> [u8; FRAME_HEADER_LEN] {
        let mut bytes = [0; FRAME_HEADER_LEN];
        bytes[..4].copy_from_slice(&SYNC);
        bytes[4] = self.frame_type.0;
        bytes[5] = self.codec.byte();
        bytes[8..16].copy_from_slice(&self.archive_id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.seq.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.stored_len.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.raw_len.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..36]);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Checks everything a header can say of itself: sync, checksum, reserved bytes, type, codec
    /// and lengths. `at` is where it stands; `archive_id` and `seq` are the caller's to compare,
    /// before the type is judged, so they are passed in where they are known.
    pub fn decode(
        bytes: &[u8; FRAME_HEADER_LEN],
        mut at: Position,
        archive_id: Option<u64>,
        seq: Option<u64>,
    ) -> Result<Self> {
        at.field = "sync";
        if bytes[..4] != SYNC {
            return Err(Error::damaged(at, "no frame begins where one is due"));
        }
        let found = u32_at(bytes, 36);
        let computed = crc32fast::hash(&bytes[..36]);
        if found != computed {
            at.field = "header CRC";
            let what =
                format!("the frame header's checksum is {computed:08x} where it says {found:08x}");
            return Err(Error::damaged(at, what));
        }
        if bytes[6..8] != [0, 0] {
            at.field = "reserved";
            return Err(Error::damaged(
                at,
                "reserved bytes of the frame header are not zero",
            ));
        }
        let header_id = u64_at(bytes, 8);
        if let Some(id) = archive_id.filter(|id| *id != header_id) {
            at.field = "archive id";
            let what = format!("the frame belongs to archive {header_id:016x}, this is {id:016x}");
            return Err(Error::damaged(at, what));
        }
        let header_seq = u64_at(bytes, 16);
        if let Some(seq) = seq.filter(|seq| *seq != header_seq) {
            at.field = "sequence number";
            let what = format!("frame {header_seq} stands where frame {seq} was due");
            return Err(Error::damaged(at, what));
        }
        let frame_type = FrameType(bytes[4]);
        if !frame_type.is_known() && !frame_type.is_ancillary() {
            at.field = "frame type";
            return Err(Error::unsupported(
                at,
                format!("frame {frame_type} is unknown and may not be skipped"),
            ));
        }
        let codec = match bytes[5] {
            0 => Codec::Stored,
            1 => Codec::Zstd,
            other => {
                at.field = "codec";
                return Err(Error::unsupported(at, format!("codec {other} is unknown")));
            }
        };
        let header = FrameHeader {
            frame_type,
            codec,
            archive_id: header_id,
            seq: header_seq,
            stored_len: u32_at(bytes, 24),
            raw_len: u32_at(bytes, 28),
            payload_crc: u32_at(bytes, 32),
        };
        header.check_lengths(at)?;
        Ok(header)
    }

    fn check_lengths(&self, mut at: Position) -> Result<()> {
        at.field = "codec";
        if self.frame_type.must_be_stored() && self.codec != Codec::Stored {
            return Err(Error::damaged(
                at,
                format!("{} must not be compressed", self.frame_type),
            ));
        }
        at.field = "raw length";
        let max = self.frame_type.max_raw_len();
        if self.raw_len == 0 || self.raw_len > max {
            let what = format!("a body of {} bytes, allowed are 1 to {max}", self.raw_len);
            return Err(Error::damaged(at, what));
        }
        at.field = "stored length";
        let stored_is_right = match self.codec {
            Codec::Stored => self.stored_len == self.raw_len,
            Codec::Zstd => self.stored_len >= 1 && self.stored_len <= self.raw_len + STORED_SLACK,
        };
        if !stored_is_right {
            let what = format!(
                "{} stored bytes for a body of {}",
                self.stored_len, self.raw_len
            );
            return Err(Error::damaged(at, what));
        }
        Ok(())
    }
}

/// The little-endian number at `offset` of a fixed-size header.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut array = [0; 4];
    array.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(array)
}

/// The little-endian number at `offset` of a fixed-size header.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut array = [0; 8];
    array.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(array)
}
