//! An RDB file, or what a master sends a replica, as a source: a snapshot, exact as of the moment
//! it was begun.
//!
//! Keys come in the order of the file and exactly once. The end is reached only with the file's own
//! end mark and checksum; until then everything given is provisional, as with any source.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::Result;

use super::{Estimate, Source};
use crate::ledger::{ConsistencyReached, CountsByDb, SourceReport};
use crate::observer::Observer;
use crate::payload;
use crate::policy::ReadFunctions;
use crate::rdb::{Checksum, Event, Facts, Form, RdbError, RdbReader};
use crate::record::{Batch, Context, Family, KeyRecord, Record, Value};
use crate::select::Selection;
use crate::units::now_ms;

/// What is wanted of an RDB file.
#[derive(Debug, Clone)]
pub struct RdbSourceOptions {
    /// What to read.
    pub selection: Selection,
    /// Whether to read function libraries.
    pub functions: ReadFunctions,
    /// In which form to give values.
    pub form: Form,
    /// Whether nothing may follow the end mark, as in a file.
    pub alone: bool,
    /// The moment of the snapshot in Unix ms, for files that do not say it (before version 7).
    pub otherwise_ms: u64,
}

/// Reads an RDB file or stream.
pub struct RdbSource<R: Read + Send> {
    reader: RdbReader<R>,
    options: RdbSourceOptions,
    observer: Arc<Observer>,
    /// Read while opening, not given yet.
    pending: Option<Event>,
    /// Function libraries read and not given yet, as they stand in a FUNCTION DUMP.
    libraries: Vec<u8>,
    at_end: bool,
    counts: CountsByDb,
    functions_given: u64,
    started_ms: u64,
}

impl<R: Read + Send> RdbSource<R> {
    /// Opens the file and reads up to its first key, so that what it says of itself is known.
    ///
    /// # Errors
    /// [`RdbError`].
    pub fn open(
        input: R,
        options: RdbSourceOptions,
        observer: Arc<Observer>,
    ) -> Result<Self, RdbError> {
        let reader = RdbReader::new(input, options.form)?;
        let mut source = Self {
            reader,
            options,
            observer,
            pending: None,
            libraries: Vec::new(),
            at_end: false,
            counts: CountsByDb::default(),
            functions_given: 0,
            started_ms: now_ms(),
        };
        source.pending = source.event()?;
        Ok(source)
    }

    /// What the file says of itself.
    pub fn facts(&self) -> &Facts {
        self.reader.facts()
    }

    /// What its values share.
    pub fn context(&self) -> Context {
        Context {
            source_time_ms: self.taken_ms(),
            ..self.reader.context()
        }
    }

    /// The moment of the snapshot, Unix ms.
    pub fn taken_ms(&self) -> u64 {
        let created_ms = self.reader.facts().created_ms;
        created_ms.unwrap_or(self.options.otherwise_ms)
    }

    /// The reader, for what follows the end.
    pub fn reader(&mut self) -> &mut RdbReader<R> {
        &mut self.reader
    }

    /// The next key, wanted or not; everything before it is taken in.
    fn event(&mut self) -> Result<Option<Event>, RdbError> {
        let selection = &self.options.selection;
        loop {
            let family = self.reader.facts().family;
            let wants = |db, key: &[u8], type_byte| {
                selection.wants_db(db)
                    && selection.wants_key(key)
                    && (selection.types.is_empty()
                        || selection.wants_type(payload::kind_of(family, type_byte).name()))
            };
            match self.reader.next_wanted(wants)? {
                Some(Event::Function(library)) => {
                    if self.options.functions != ReadFunctions::No {
                        self.libraries.extend_from_slice(&library);
                    }
                }
                Some(Event::Sizes { keys, .. }) if selection.wants_db(self.reader.db()) => {
                    // By and by, as databases turn up.
                    self.observer
                        .progress
                        .expected_records
                        .fetch_add(keys, Relaxed);
                }
                Some(
                    Event::Aux { .. }
                    | Event::Database(_)
                    | Event::Sizes { .. }
                    | Event::ModuleAux(_),
                ) => {}
                event @ (Some(Event::Key(_) | Event::Unwanted { .. }) | None) => return Ok(event),
            }
        }
    }

    fn give(&mut self, record: KeyRecord, batch: &mut Batch) {
        let selection = &self.options.selection;
        let counts = self.counts.of(record.db);
        counts.scanned += 1;
        let type_byte = record.value.type_byte().unwrap_or(u8::MAX);
        let wanted = !selection.needs_value()
            || selection.wants_value(
                payload::kind_of(batch.context.family, type_byte).name(),
                stored_bytes(&record.value, batch.context.family),
                record.expire_at_ms,
                batch.context.source_time_ms,
            );
        if wanted {
            counts.written += 1;
            batch.push(Record::Key(record));
        } else {
            counts.filtered += 1;
        }
    }

    fn give_libraries(&mut self, batch: &mut Batch) {
        if !self.libraries.is_empty() {
            let body = std::mem::take(&mut self.libraries);
            let payload = payload::sign(&body, batch.context.rdb_version);
            self.functions_given += 1;
            batch.push(Record::Functions(payload));
        }
    }

    fn say_what_was_not_read(&self) {
        if self.reader.checksum() != Some(Checksum::Verified) {
            self.observer.notice(
                "the RDB data has no checksum (rdbchecksum no, or before version 5); its layout \
                 was checked, its contents could not be",
            );
        }
        let modules = &self.reader.facts().module_aux;
        if !modules.is_empty() {
            self.observer.warn(&format!(
                "modules keep data of their own in the RDB data that belongs to no key ({}); it \
                 is left out",
                modules.join(", ")
            ));
        }
    }
}

/// The size that the selection goes by: that of the value as archives store it, so that it means
/// the same on every verb.
fn stored_bytes(value: &Value, family: Family) -> u64 {
    let mut compact = Vec::new();
    if let Value::Verbatim(dump) = value
        && let Ok((body, _)) = payload::split(dump)
        && payload::compact(body, family, &mut compact).is_ok()
    {
        return compact.len() as u64;
    }
    value.bytes().len() as u64
}

impl<R: Read + Send> Source for RdbSource<R> {
    fn read(&mut self, batch: &mut Batch) -> Result<bool> {
        batch.context = self.context();
        while !batch.is_full() && !self.at_end {
            let event = match self.pending.take() {
                Some(event) => Some(event),
                None => self.event()?,
            };
            // Before the first key, as in an export of a server.
            self.give_libraries(batch);
            match event {
                Some(Event::Key(record)) => self.give(record, batch),
                Some(Event::Unwanted { db }) => {
                    let counts = self.counts.of(db);
                    counts.scanned += 1;
                    counts.filtered += 1;
                }
                Some(_) => {}
                None => {
                    if self.options.alone {
                        self.reader.expect_end()?;
                    }
                    self.at_end = true;
                    self.say_what_was_not_read();
                }
            }
        }
        self.give_libraries(batch);
        Ok(!batch.is_empty())
    }

    fn report(&self) -> SourceReport {
        SourceReport {
            counts: self.counts.rows(),
            functions: self.functions_given,
            duplicates_possible: false,
            reached: Some(ConsistencyReached::Exact(vec![(0, self.taken_ms())])),
            consistency_missed: false,
            started_ms: self.started_ms,
            cut_short: Vec::new(),
            paused: None,
        }
    }

    fn estimate(&self) -> Estimate {
        let records = self.observer.progress.expected_records.load(Relaxed);
        Estimate {
            records: Some(records).filter(|&records| records > 0),
            bytes: None,
        }
    }
}
