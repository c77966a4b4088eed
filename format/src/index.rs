//! The INDEX: a table of the frames before it, checked by a reader against what it saw.

use crate::frame::FrameHeader;
use crate::wire::IndexEntry;

impl IndexEntry {
    pub(crate) fn new(header: &FrameHeader, records: u32) -> Self {
        IndexEntry {
            frame_type: header.frame_type.0,
            stored_len: header.stored_len,
            raw_len: header.raw_len,
            records,
        }
    }
}

/// A running checksum over index entries: a reader compares an INDEX with the frames it saw
/// without keeping a table of its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct IndexDigest {
    frames: u64,
    crc: crc32fast::Hasher,
    /// The entries themselves, for a writer that goes on.
    pub(crate) table: Option<Vec<IndexEntry>>,
}

impl IndexDigest {
    pub(crate) fn add(&mut self, entry: &IndexEntry) {
        self.frames += 1;
        self.crc.update(&[entry.frame_type]);
        self.crc.update(&entry.stored_len.to_le_bytes());
        self.crc.update(&entry.raw_len.to_le_bytes());
        self.crc.update(&entry.records.to_le_bytes());
        if let Some(table) = &mut self.table {
            table.push(*entry);
        }
    }

    pub(crate) fn is(&self, other: &IndexDigest) -> bool {
        self.frames == other.frames && self.crc.clone().finalize() == other.crc.clone().finalize()
    }
}
