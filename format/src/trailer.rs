//! The trailer: the last forty bytes, at fixed offsets from the end, so that a seekable reader
//! finds END and INDEX, and so that an archive without its last byte is never complete.

use crate::error::{Error, Position, Result};
use crate::frame::{u32_at, u64_at};

/// Length of the trailer.
pub const TRAILER_LEN: usize = 40;

/// Last bytes of every archive.
pub const TAIL_MAGIC: [u8; 8] = *b"\x89RMZEND\n";

/// A trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Offset of the END frame's header.
    pub end_offset: u64,
    /// Offset of the INDEX frame's header; 0 without one.
    pub index_offset: u64,
    /// The archive's id.
    pub archive_id: u64,
}

impl Trailer {
    /// Its bytes.
    pub fn encode(&self) -> [u8; TRAILER_LEN] {
        let mut bytes = [0; TRAILER_LEN];
        bytes[..8].copy_from_slice(&self.end_offset.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.index_offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.archive_id.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..28]);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        bytes[32..].copy_from_slice(&TAIL_MAGIC);
        bytes
    }

    /// Checks magic, checksum and reserved bytes.
    pub fn decode(bytes: &[u8; TRAILER_LEN], mut at: Position) -> Result<Self> {
        at.field = "trailer magic";
        if bytes[32..] != TAIL_MAGIC {
            return Err(Error::damaged(at, "the trailer does not end as it must"));
        }
        at.field = "trailer CRC";
        let (found, computed) = (u32_at(bytes, 28), crc32fast::hash(&bytes[..28]));
        if found != computed {
            let what =
                format!("the trailer's checksum is {computed:08x} where it says {found:08x}");
            return Err(Error::damaged(at, what));
        }
        at.field = "trailer reserved";
        if u32_at(bytes, 24) != 0 {
            return Err(Error::damaged(
                at,
                "reserved bytes of the trailer are not zero",
            ));
        }
        Ok(Trailer {
            end_offset: u64_at(bytes, 0),
            index_offset: u64_at(bytes, 8),
            archive_id: u64_at(bytes, 16),
        })
    }

    /// Compares with what a reader saw.
    pub(crate) fn check(&self, seen: &Trailer, mut at: Position) -> Result<()> {
        at.field = "trailer";
        if self.archive_id != seen.archive_id {
            let what = format!(
                "the trailer belongs to archive {:016x}, this is {:016x}",
                self.archive_id, seen.archive_id
            );
            return Err(Error::damaged(at, what));
        }
        for (what, found, due) in [
            ("END", self.end_offset, seen.end_offset),
            ("INDEX", self.index_offset, seen.index_offset),
        ] {
            if found != due {
                let what =
                    format!("the trailer says that {what} is at byte {found} where {due} is right");
                return Err(Error::damaged(at, what));
            }
        }
        Ok(())
    }
}
