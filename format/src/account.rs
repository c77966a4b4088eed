//! What a reader counted of the frames so far: END and INDEX have to say the same.

use crate::body::Body;
use crate::error::{Error, Result};
use crate::frame::{FrameHeader, FrameType};
use crate::header::End;
use crate::index::IndexDigest;
use crate::limits::{Limits, MAX_DATABASES};
use crate::record::Glance;
use crate::stream::StreamFrame;
use crate::totals::Totals;
use crate::wire::{self, IndexEntry};

/// The counts of a reader.
#[derive(Debug)]
pub(crate) struct Account {
    /// Frames read, HEADER included.
    pub(crate) frames: u64,
    /// Bytes of all bodies with records.
    pub(crate) raw_bytes: u64,
    /// Ancillary frames that this reader does not know.
    pub(crate) skipped_frames: u64,
    /// Entries of frames that this reader does not know.
    pub(crate) skipped_entries: u64,
    pub(crate) totals: Totals,
    pub(crate) index: IndexDigest,
    /// Every frame is read, so that what END and INDEX say of all of them can be compared.
    whole: bool,
}

impl Account {
    /// The HEADER was read.
    pub(crate) fn begin(header: &FrameHeader) -> Self {
        let mut index = IndexDigest::default();
        index.add(&IndexEntry::new(header, 0));
        Account {
            frames: 1,
            raw_bytes: 0,
            skipped_frames: 0,
            skipped_entries: 0,
            totals: Totals::default(),
            index,
            whole: true,
        }
    }

    /// Only what comes from frame `seq` on is read.
    pub(crate) fn go_on_from(&mut self, seq: u64) {
        self.frames = seq;
        self.whole = false;
    }

    /// A frame came, and nothing of it is known but its header.
    pub(crate) fn came(&mut self, frame: &StreamFrame, limits: &Limits) -> Result<()> {
        self.frames += 1;
        let frame_type = frame.header.frame_type;
        if matches!(frame_type, FrameType::DATA | FrameType::FRAGMENT) {
            self.raw_bytes += u64::from(frame.header.raw_len);
        }
        if self.raw_bytes > limits.max_raw_bytes {
            return Err(Error::LimitExceeded {
                at: frame.at("raw length"),
                what: "the decompressed bytes are at least",
                found: self.raw_bytes,
                limit: limits.max_raw_bytes,
            });
        }
        Ok(())
    }

    /// A frame, checked; so many records came to their end in it.
    pub(crate) fn checked(&mut self, header: &FrameHeader, records: u32) {
        self.index.add(&IndexEntry::new(header, records));
    }

    /// A record that was only looked at.
    pub(crate) fn glance(&mut self, frame: &StreamFrame, record: &Glance<'_>) -> Result<()> {
        let counted = self.totals.glance(record);
        counted.map_err(|_| too_many_databases(frame))
    }

    /// The records of a body that are given, and no more of them than allowed.
    pub(crate) fn body(&mut self, frame: &StreamFrame, body: &Body, limits: &Limits) -> Result<()> {
        self.skipped_entries += body.skipped;
        self.totals.context(&body.context);
        for record in &body.records {
            let counted = self.totals.count_sized(record, body.value_len);
            counted.map_err(|_| too_many_databases(frame))?;
        }
        if self.totals.records > limits.max_records {
            return Err(Error::LimitExceeded {
                at: frame.at("entries"),
                what: "the records are at least",
                found: self.totals.records,
                limit: limits.max_records,
            });
        }
        Ok(())
    }

    /// Compares with what END says.
    pub(crate) fn check_end(&self, frame: &StreamFrame, end: &End) -> Result<()> {
        if !self.whole {
            return Ok(());
        }
        let checked = self.totals.check(end);
        checked.map_err(|(field, what)| Error::damaged(frame.at(field), what))
    }

    /// Compares with an INDEX.
    pub(crate) fn check_index(&self, frame: &StreamFrame, body: &[u8]) -> Result<()> {
        let mut told = IndexDigest::default();
        wire::each_index_entry(body, frame.header.seq, |entry| told.add(&entry))
            .map_err(|what| Error::damaged(frame.at("INDEX"), what))?;
        if self.whole && !told.is(&self.index) {
            return Err(Error::damaged(
                frame.at("INDEX"),
                "INDEX is not the table of the frames before it",
            ));
        }
        Ok(())
    }

    /// Records of the whole archive so far, where all of it was read.
    pub(crate) fn all_records(&self) -> Option<u64> {
        self.whole.then_some(self.totals.records)
    }
}

fn too_many_databases(frame: &StreamFrame) -> Error {
    Error::damaged(
        frame.at("db"),
        format!("more than {MAX_DATABASES} databases"),
    )
}
