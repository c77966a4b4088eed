//! A sink that keeps what it gets as rows.

use std::sync::{Arc, Mutex};

use anyhow::Result;

use super::hashing::Prints;
use super::meaning::{Depth, Meaning, Reading};
use super::row::{Row, What};
use super::scope::Scope;
use super::store::Store;
use super::unread::{UnreadKeys, unread};
use crate::ledger::{LibraryApart, RecordCounts, SinkReport, SourceReport};
use crate::payload::metadata::are_kept_by;
use crate::payload::{self, Kind};
use crate::rdb::{function_codes, library_name};
use crate::record::{Batch, Context, KeyRecord, Origin, Record, Value};
use crate::select::{Selection, type_of};
use crate::sink::Sink;
use crate::size::{self, is_larger};

/// One side, once it was read.
#[derive(Debug)]
pub(crate) struct Side {
    /// Its rows.
    pub store: Store,
    /// The latest moment that it speaks of, Unix ms by its own clock.
    pub moment_ms: u64,
    /// Databases, as the right side numbers them, that were not read, or not to their end: a key of
    /// theirs that is not among the rows may stand all the same.
    pub lost_dbs: Vec<u32>,
    /// Whether it has, or may have, function libraries that were not read.
    pub libraries_unread: bool,
}

/// Where a [`Collect`] leaves what it collected; it is gone itself by then.
pub(crate) type Collected = Arc<Mutex<Option<Side>>>;

/// Keeps rows of everything it gets.
pub(crate) struct Collect {
    reading: Reading,
    selection: Selection,
    scope: Option<Scope>,
    without: Vec<u32>,
    unread: Option<UnreadKeys>,
    side: Side,
    into: Collected,
    max_value_bytes: u64,
    taken: u64,
}

impl Collect {
    /// Of what comes, that takes part which `selection` wants by type, size and expiry, and only
    /// what is within `scope` is kept at all. `opened_ms` is when the reading begins, by the side's
    /// own clock.
    pub(crate) fn new(
        reading: Reading,
        selection: Selection,
        scope: Option<Scope>,
        opened_ms: u64,
    ) -> (Self, Collected) {
        let into = Collected::default();
        let collect = Self {
            reading,
            selection,
            scope,
            without: Vec::new(),
            unread: None,
            side: Side {
                store: Store::new(),
                moment_ms: opened_ms,
                lost_dbs: Vec::new(),
                libraries_unread: false,
            },
            into: Arc::clone(&into),
            max_value_bytes: u64::MAX,
            taken: 0,
        };
        (collect, into)
    }

    /// Does not look at values of more bytes.
    #[must_use]
    pub(crate) fn within(self, max_value_bytes: u64) -> Self {
        Self {
            max_value_bytes,
            ..self
        }
    }

    /// Takes up what the source of this side could not read, at the end.
    #[must_use]
    pub(crate) fn with_unread(self, unread: &UnreadKeys) -> Self {
        Self {
            unread: Some(unread.clone()),
            ..self
        }
    }

    /// What a value is and means; of one that is too large only the former.
    fn read(&self, context: &Context, record: &KeyRecord) -> (Kind, Meaning) {
        if is_broken(&record.value) {
            return (Kind::Unknown, unread(BROKEN));
        }
        if !is_larger(&record.value, context.family, self.max_value_bytes) {
            let (kind, mut meaning) = self.reading.value(context.family, &record.value);
            meaning.keeps_metadata = are_kept_by(context.family, context.rdb_version);
            return (kind, meaning);
        }
        let meaning = Meaning {
            depth: Depth::TooLarge,
            count: record.value.stored_len(),
            ..Meaning::default()
        };
        (payload::kind(context.family, record.value.head()), meaning)
    }

    /// Leaves these databases out: the other side could not be read there.
    #[must_use]
    pub(crate) fn without(mut self, dbs: &[u32]) -> Self {
        self.without = dbs.to_vec();
        self
    }

    fn is_selected(&self, record: &KeyRecord, context: &Context) -> bool {
        let bytes = match self.selection.needs_size() {
            true => size::of(&record.value, context.family),
            false => 0,
        };
        !self.selection.needs_value()
            || self.selection.wants_value(
                &type_of(context.family, record.value.head()),
                bytes,
                record.expire_at_ms,
                context.source_time_ms,
            )
    }

    fn is_within(&self, db: u32, key: &[u8]) -> bool {
        let is_in_scope = |scope: &Scope| scope.contains(db, key);
        !self.without.contains(&db) && self.scope.as_ref().is_none_or(is_in_scope)
    }

    /// `origin`: what the side itself calls it, where that is to be known.
    fn take(&mut self, record: Record, context: &Context, origin: Option<Origin>) -> Result<()> {
        let mut row = match record {
            Record::Key(record) if self.is_within(record.db, &record.key) => {
                let (kind, meaning) = self.read(context, &record);
                // What a value is that could not be read, nobody knows.
                let selected = meaning.depth == Depth::Unread || self.is_selected(&record, context);
                row_of_key(
                    &self.reading.prints,
                    &record,
                    What::Key(kind),
                    meaning,
                    selected,
                )
            }
            Record::Deleted { db, key } if self.is_within(db, &key) => {
                gone(&self.reading.prints, db, key)
            }
            Record::Functions(dump) => {
                for row in libraries(&self.reading, &dump)? {
                    self.side.store.add(&row)?;
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        row.origin = origin.map(|origin| (origin.db, origin.key));
        self.side.store.add(&row)
    }

    fn take_unread(&mut self) -> Result<()> {
        let Some(keys) = self.unread.take() else {
            return Ok(());
        };
        let mut store = std::mem::take(&mut self.side.store);
        let taken = keys.drain(|row| match self.is_within(row.db, &row.key) {
            true => store.add(&row),
            false => Ok(()),
        });
        self.side.store = store;
        taken
    }

    fn leave(self) -> SinkReport {
        *self.into.lock().unwrap_or_else(|error| error.into_inner()) = Some(self.side);
        SinkReport::of(RecordCounts::all_checked(self.taken))
    }
}

/// Why a payload that is none cannot be read.
const BROKEN: &str = "the server sent no whole payload (its checksum is wrong, or it has none)";

/// Whether a payload is not the one that a server made: its checksum is wrong, or it has none. It
/// says nothing of the value that the server holds.
fn is_broken(value: &Value) -> bool {
    matches!(value, Value::Verbatim(dump) if payload::split(dump).is_err())
}

/// The row of a key.
pub(crate) fn row_of_key(
    prints: &Prints,
    record: &KeyRecord,
    what: What,
    meaning: Meaning,
    selected: bool,
) -> Row {
    Row {
        print: prints.key(record.db, prints.name(&record.key)),
        what,
        selected,
        db: record.db,
        key: record.key.clone(),
        origin: None,
        expire_at_ms: record.expire_at_ms,
        meaning,
    }
}

/// The row of a key that was deleted.
pub(crate) fn gone(prints: &Prints, db: u32, key: Vec<u8>) -> Row {
    Row {
        print: prints.key(db, prints.name(&key)),
        what: What::Gone,
        selected: true,
        db,
        key,
        origin: None,
        expire_at_ms: None,
        meaning: Meaning::default(),
    }
}

/// The row of a function library.
pub(crate) fn library(reading: &Reading, name: &[u8], code: &[u8]) -> Row {
    Row {
        // As in a database that no server has.
        print: reading.prints.key(u32::MAX, reading.prints.name(name)),
        what: What::Library,
        selected: true,
        db: 0,
        key: name.to_vec(),
        origin: None,
        expire_at_ms: None,
        meaning: reading.library(code),
    }
}

impl Side {
    /// Takes in what its source says of function libraries, once all was read: which are not the
    /// same on every primary, and whether some were not read.
    ///
    /// # Errors
    /// The temporary files.
    pub(crate) fn learn_of_libraries(
        &mut self,
        reading: &Reading,
        report: &SourceReport,
    ) -> Result<()> {
        self.libraries_unread = report.libraries.unread.is_some();
        for apart in &report.libraries.apart {
            // Takes the place of the row of the one that was given.
            self.store.add(&library_apart(reading, apart))?;
        }
        Ok(())
    }
}

/// The row of a library that is not the same on every primary: it is equal to no library that is.
fn library_apart(reading: &Reading, apart: &LibraryApart) -> Row {
    let mut row = library(reading, apart.name.as_bytes(), &[]);
    row.meaning = reading.library_apart(&apart.codes);
    row.meaning.reason = apart.place.clone();
    row
}

/// The libraries of a FUNCTION DUMP.
fn libraries(reading: &Reading, dump: &[u8]) -> Result<Vec<Row>> {
    let codes = function_codes(dump)
        .map_err(|reason| anyhow::anyhow!("the function libraries cannot be read: {reason}"))?;
    Ok(codes
        .iter()
        .map(|code| library(reading, library_name(code).as_bytes(), code))
        .collect())
}

impl Sink for Collect {
    fn write(&mut self, batch: Batch) -> Result<()> {
        let context = batch.context;
        self.side.moment_ms = self.side.moment_ms.max(context.source_time_ms);
        let mut origins = batch.origins.into_iter();
        for record in batch.records {
            self.taken += u64::from(!matches!(record, Record::Functions(_)));
            self.take(record, &context, origins.next())?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, _: &SourceReport) -> (SinkReport, Result<()>) {
        let taken = self.take_unread();
        (self.leave(), taken)
    }

    fn abort(self: Box<Self>, _: &str) -> SinkReport {
        self.leave()
    }
}
