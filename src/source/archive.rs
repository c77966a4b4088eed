//! An archive as a source. A record is given only after its whole frame was checked.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::Result;
use redis_migrate_format::header::{End, Header};
use redis_migrate_format::{Limits, Reader};

use super::{Estimate, Source};
use crate::ledger::{CountsByDb, SourceReport};
use crate::observer::Observer;
use crate::payload;
use crate::record::{Batch, Context, Record};
use crate::select::Selection;
use crate::units::now_ms;

/// Reads an archive.
pub struct ArchiveSource<R: Read + Send> {
    reader: Reader<R>,
    selection: Selection,
    functions: bool,
    input_bytes: Option<u64>,
    observer: Arc<Observer>,
    counts: CountsByDb,
    functions_given: u64,
    started_ms: u64,
}

impl<R: Read + Send> ArchiveSource<R> {
    /// Opens the archive: preamble and header are checked.
    ///
    /// # Errors
    /// Those of the format's reader.
    pub fn open(
        input: R,
        limits: Limits,
        selection: Selection,
        functions: bool,
        input_bytes: Option<u64>,
        observer: Arc<Observer>,
    ) -> Result<Self> {
        Ok(Self {
            reader: Reader::new(input, limits)?,
            selection,
            functions,
            input_bytes,
            observer,
            counts: CountsByDb::default(),
            functions_given: 0,
            started_ms: now_ms(),
        })
    }

    /// What the archive says at its start.
    pub fn header(&self) -> &Header {
        self.reader.header()
    }

    /// What it says at its end, once that was reached and verified.
    pub fn end(&self) -> Option<&End> {
        self.reader.end()
    }

    fn wants(&mut self, record: &Record, context: &Context) -> bool {
        let (db, key) = match record {
            Record::Key(record) => (record.db, &record.key),
            Record::Deleted { db, key } => (*db, key),
            Record::Functions(_) => {
                self.functions_given += u64::from(self.functions);
                return self.functions;
            }
            _ => return false,
        };
        let mut wanted = self.selection.wants_db(db) && self.selection.wants_key(key);
        if let Record::Key(record) = record
            && wanted
            && self.selection.needs_value()
        {
            let type_byte = record.value.type_byte().unwrap_or(u8::MAX);
            let kind = payload::kind_of(context.family, type_byte).name();
            let size = record.value.bytes().len() as u64;
            wanted =
                self.selection
                    .wants_value(kind, size, record.expire_at_ms, context.source_time_ms);
        }
        let counts = self.counts.of(db);
        counts.scanned += 1;
        if wanted {
            counts.written += 1;
        } else {
            counts.filtered += 1;
        }
        wanted
    }
}

impl<R: Read + Send> Source for ArchiveSource<R> {
    fn read(&mut self, batch: &mut Batch) -> Result<bool> {
        loop {
            let frame = self.reader.next_frame()?;
            self.observer
                .progress
                .archive_bytes
                .store(self.reader.offset(), Relaxed);
            let Some(frame) = frame else { return Ok(false) };
            batch.context = frame.context;
            for record in frame.records {
                if self.wants(&record, &frame.context) {
                    batch.push(record);
                }
            }
            if !batch.is_empty() {
                return Ok(true);
            }
        }
    }

    fn report(&self) -> SourceReport {
        let facts = self.reader.end().map(|end| &end.facts);
        SourceReport {
            counts: self.counts.rows(),
            functions: self.functions_given,
            duplicates_possible: facts.is_none_or(|facts| facts.duplicates_possible),
            reached: facts.map(|facts| facts.reached.clone()),
            consistency_missed: false,
            started_ms: self.started_ms,
            paused: None,
        }
    }

    fn estimate(&self) -> Estimate {
        let records: u64 = self.header().expected.iter().map(|row| row.keys).sum();
        Estimate {
            records: Some(records).filter(|&records| records > 0),
            bytes: self.input_bytes,
        }
    }
}
