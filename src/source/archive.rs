//! Archives as a source, one or several in a row. A record is given only after its whole frame was
//! checked.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::{self, Read, Seek};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use redis_migrate_format::header::{End, Header};
use redis_migrate_format::seek::Table;
use redis_migrate_format::{Class, Error, Frame, Limits, Reader};
use sha2::{Digest, Sha256};

use super::prefetch::Ahead;
use super::reading::Reading;
use super::{Estimate, Source};
use crate::host::unix_ms;
use crate::ledger::{CountsByDb, Exactness, ExportLacks, Lacks, LibrariesRead, SourceReport};
use crate::observer::Observer;
use crate::outside;
use crate::own_writes::OwnWrites;
use crate::record::{Batch, Context, KeyRecord, Mark, Record};
use crate::select::{Selection, type_of};
use crate::size;
use crate::units::bytes_text;

/// Lines about payloads of function libraries that were not kept: an archive has one or two of them.
const MOST_NOT_HAD: usize = 16;

/// Why function libraries are left out of what an archive gives.
pub fn functions_not_kept(len: u64) -> String {
    format!(
        "function libraries of {} are left out: that is more than --max-value allows",
        bytes_text(len)
    )
}

/// Why the libraries of an archive are not compared that were not read when it was made.
const LIBRARIES_NOT_READ: &str = "function libraries were not read when the archive was made, because \
     they were not asked for or the source refused them; --no-functions leaves them out";

type StartAhead = Box<dyn FnOnce() -> Result<Ahead> + Send>;

/// Reads an archive.
pub struct ArchiveSource<R: Read + Send> {
    reader: Reader<R>,
    /// Workers that read in its place.
    ahead: Option<Ahead>,
    /// How they are started, when the first frame is wanted: of several archives one is read.
    start_ahead: Option<StartAhead>,
    choice: Choice,
    input_bytes: Option<u64>,
    observer: Arc<Observer>,
    /// Records of frames before this one were given by an earlier run.
    from_frame: u64,
    /// What an earlier reading found, where one went before.
    earlier: Option<Reading>,
    /// It is to be compared.
    is_compared: bool,
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
            ahead: None,
            start_ahead: None,
            choice: Choice {
                selection,
                functions,
                counts: CountsByDb::default(),
                functions_given: 0,
                not_had: Vec::new(),
                given: Given::default(),
            },
            input_bytes,
            observer,
            from_frame: 0,
            earlier: None,
            is_compared: false,
            started_ms: unix_ms(),
        })
    }

    /// The archive is to be compared: that it has no function libraries then says something only
    /// where they were read.
    #[must_use]
    pub fn compared(self) -> Self {
        Self {
            is_compared: true,
            ..self
        }
    }

    /// Why the libraries are not known that its source may have had.
    fn libraries_not_read(&self) -> Option<String> {
        let choice = &self.choice;
        let has_none = choice.functions && choice.functions_given == 0;
        let lacks = self.is_compared && has_none && !self.header().functions;
        lacks.then(|| LIBRARIES_NOT_READ.to_owned())
    }

    /// The archive was read before, and `earlier` is what that found. Where this reading finds
    /// another archive, it ends with an error.
    #[must_use]
    pub fn again(self, earlier: Reading) -> Self {
        Self {
            earlier: Some(earlier),
            ..self
        }
    }

    /// What this reading found, as far as it came.
    pub fn reading(&self) -> Reading {
        Reading::of(self.archive_id(), self.end())
    }

    /// Gives no records of the frames before `frame`, which are read and checked all the same.
    pub fn skip_to(&mut self, frame: u64) {
        self.from_frame = frame;
    }

    /// Whether frames are read of which no records are given.
    pub fn passes_over(&self) -> bool {
        self.from_frame > 0
    }

    /// Goes on with frame `frame` of the archive that `table` is of, without reading those before.
    ///
    /// # Errors
    /// Those of the format's reader.
    pub fn seek_to(self, frame: u64, limits: Limits, table: &Table) -> Result<Self>
    where
        R: Seek,
    {
        let mut input = self.reader.into_inner();
        input
            .rewind()
            .context("cannot go back to the start of the archive")?;
        Ok(Self {
            reader: Reader::from_frame(input, limits, table, frame)?,
            ..self
        })
    }

    /// Has several workers read ahead from frame `from` on (0: the beginning); `open` gives each a
    /// reader of the same bytes. Where `table` does not say enough for that, nothing changes.
    pub fn read_ahead<S: Read + Seek + Send + 'static>(
        &mut self,
        table: Table,
        from: u64,
        workers: usize,
        limits: Limits,
        open: impl FnMut() -> Result<S> + Send + 'static,
    ) {
        if Ahead::is_possible(&table) {
            self.start_ahead = Some(Box::new(move || {
                Ahead::start(table, from.max(1), workers, limits, open)
            }));
        }
    }

    /// What the archive says at its start.
    pub fn header(&self) -> &Header {
        self.reader.header()
    }

    /// The archive's id.
    pub fn archive_id(&self) -> u64 {
        self.reader.archive_id()
    }

    /// What it says at its end, once that was reached and verified.
    pub fn end(&self) -> Option<&End> {
        match &self.ahead {
            Some(ahead) => ahead.is_at_end().then(|| &ahead.table().end),
            None => self.reader.end(),
        }
    }

    /// Bytes of it that were read.
    fn offset(&self) -> u64 {
        match &self.ahead {
            Some(ahead) => ahead.offset(),
            None => self.reader.offset(),
        }
    }

    /// The frame that comes next.
    fn frames_read(&self) -> u64 {
        match &self.ahead {
            Some(ahead) => ahead.frames_read(),
            None => self.reader.frames_read(),
        }
    }

    /// The next frame that has something to give, or a piece of it.
    fn next_frame(&mut self) -> Result<Option<Frame>> {
        if let Some(start) = self.start_ahead.take() {
            self.ahead = Some(start()?);
        }
        loop {
            let frame = match &mut self.ahead {
                Some(ahead) => ahead.next_frame()?,
                None => self.reader.next_piece()?,
            };
            match frame {
                Some(frame) if frame.seq < self.from_frame => self.choice.pass_over(&frame)?,
                frame => return Ok(frame),
            }
        }
    }

    /// Whatever modules kept outside keys goes along, as it belongs to no key.
    fn take_module_aux(&mut self, batch: &mut Batch) {
        let (kept, _) = self.reader.take_module_aux();
        kept.into_iter().for_each(|aux| batch.push_module_aux(aux));
    }

    /// Shows the records of the next frame as they would be given, of large values the beginning
    /// only unless the selection asks for sizes; `false` after the last. To be used in place of
    /// [`Source::read`], and on no archive that was begun by that.
    ///
    /// # Errors
    /// Those of the format's reader, of `each`, and of a temporary file.
    pub fn visit(&mut self, mut each: impl FnMut(&Record) -> Result<()>) -> Result<bool> {
        let (choice, mut seen) = (&mut self.choice, Ok(()));
        let frame = self.reader.visit_frame(|context, record, _| {
            if seen.is_err() {
                return;
            }
            seen = match choice.of(record, context) {
                Ok(Fate::Given) => each(record),
                Ok(Fate::Deleted) => each(&as_deleted(record)),
                Ok(Fate::LeftOut) => Ok(()),
                Err(error) => Err(error),
            };
        });
        let is_frame = frame?.is_some();
        seen.map(|()| is_frame)
    }

    /// For whoever only visits: of large values nothing but the beginning is held, unless the
    /// selection asks for sizes, which are measured on the whole value.
    #[must_use]
    pub fn heads_only(self) -> Self {
        if self.choice.selection.needs_size() {
            return self;
        }
        Self {
            reader: self.reader.heads_only(),
            ..self
        }
    }
}

/// Which records are given, and how many were.
struct Choice {
    selection: Selection,
    functions: bool,
    counts: CountsByDb,
    functions_given: u64,
    /// Function libraries that were not kept, a line each.
    not_had: Vec<String>,
    given: Given,
}

/// Which keys were given so far. Only filled where the selection looks at values: a later record
/// that it does not want still replaces an earlier one that it wanted. The archives of one row share
/// it.
#[derive(Clone, Default)]
struct Given(Arc<Mutex<OwnWrites>>);

impl Given {
    fn note(&self, db: u32, key: &[u8]) -> io::Result<()> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let print = keys.fingerprint(db, key);
        keys.insert(print)
    }

    fn holds(&self, db: u32, key: &[u8]) -> io::Result<bool> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let print = keys.fingerprint(db, key);
        keys.contains(print)
    }
}

/// What becomes of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Given,
    /// It is not wanted, but replaces one of its key that was given: that key goes away.
    Deleted,
    LeftOut,
}

/// The record's key as one that went away.
fn as_deleted(record: &Record) -> Record {
    match record {
        Record::Key(record) => Record::Deleted {
            db: record.db,
            key: record.key.clone(),
        },
        other => other.clone(),
    }
}

impl Choice {
    /// Decides about the next record, and counts it.
    fn of(&mut self, record: &Record, context: &Context) -> Result<Fate> {
        let db = match record {
            Record::Key(record) => record.db,
            Record::Deleted { db, .. } => *db,
            Record::Functions(_) => {
                self.functions_given += u64::from(self.functions);
                return Ok(match self.functions {
                    true => Fate::Given,
                    false => Fate::LeftOut,
                });
            }
            Record::WithheldFunctions(len) => {
                if self.functions && self.not_had.len() < MOST_NOT_HAD {
                    self.not_had.push(functions_not_kept(*len));
                }
                return Ok(Fate::LeftOut);
            }
            _ => return Ok(Fate::LeftOut),
        };
        let fate = self.decide(record, context)?;
        let counts = self.counts.of(db);
        counts.scanned += 1;
        match fate {
            Fate::Given | Fate::Deleted => counts.written += 1,
            Fate::LeftOut => counts.filtered += 1,
        }
        Ok(fate)
    }

    fn decide(&self, record: &Record, context: &Context) -> Result<Fate> {
        const WHAT: &str = "cannot remember a key in a temporary file";
        let (db, key) = match record {
            Record::Key(record) => (record.db, &record.key),
            Record::Deleted { db, key } => (*db, key),
            _ => return Ok(Fate::LeftOut),
        };
        if !(self.selection.wants_db(db) && self.selection.wants_key(key)) {
            return Ok(Fate::LeftOut);
        }
        if !self.selection.needs_value() {
            return Ok(Fate::Given);
        }
        if let Record::Key(record) = record
            && self.wants_value(record, context)
        {
            self.given.note(db, key).context(WHAT)?;
            return Ok(Fate::Given);
        }
        Ok(match self.given.holds(db, key).context(WHAT)? {
            true => Fate::Deleted,
            false => Fate::LeftOut,
        })
    }

    fn wants_value(&self, record: &KeyRecord, context: &Context) -> bool {
        let bytes = match self.selection.needs_size() {
            true => size::of(&record.value, context.family),
            false => 0,
        };
        self.selection.wants_value(
            &type_of(context.family, record.value.head()),
            bytes,
            record.expire_at_ms,
            context.source_time_ms,
        )
    }

    /// Remembers what an earlier run was given of a frame.
    fn pass_over(&self, frame: &Frame) -> Result<()> {
        if self.selection.needs_value() {
            for record in &frame.records {
                self.decide(record, &frame.context)?;
            }
        }
        Ok(())
    }
}

impl<R: Read + Send> Source for ArchiveSource<R> {
    fn read(&mut self, batch: &mut Batch) -> Result<bool> {
        loop {
            let frame = self.next_frame()?;
            let offset = self.offset();
            self.observer.progress.archive_bytes.store(offset, Relaxed);
            self.take_module_aux(batch);
            let Some(frame) = frame else {
                // What stood behind the keys comes in a batch of its own.
                if !batch.is_empty() {
                    return Ok(true);
                }
                let changed = self.earlier.map(|it| it.must_equal(self.reading()));
                return changed.transpose().map(|_| false);
            };
            batch.context = frame.context;
            batch.goes_on = frame.goes_on;
            batch.records.reserve(frame.records.len());
            for record in frame.records {
                match self.choice.of(&record, &frame.context)? {
                    Fate::Given => batch.push(record),
                    Fate::Deleted => batch.push(as_deleted(&record)),
                    Fate::LeftOut => {}
                }
            }
            if !batch.is_empty() {
                batch.mark = Some(Mark {
                    archive: 0,
                    frame: self.frames_read(),
                });
                return Ok(true);
            }
        }
    }

    fn report(&self) -> SourceReport {
        let facts = self.end().map(|end| &end.facts);
        let left_out = self.reader.module_aux_left_out();
        let outside = outside::of_archive(self.header(), self.end());
        let mut not_had = self.choice.not_had.clone();
        not_had.extend(self.libraries_not_read());
        SourceReport {
            counts: self.choice.counts.rows(),
            duplicates_possible: facts.is_none_or(|facts| facts.duplicates_possible),
            started_ms: self.started_ms,
            exactness: Exactness {
                reached: facts.map(|facts| facts.reached.clone()),
                ..Exactness::default()
            },
            libraries: LibrariesRead {
                given: self.choice.functions_given,
                unread: not_had.first().cloned(),
                ..LibrariesRead::default()
            },
            lacks: Lacks {
                not_had,
                module_aux: left_out.clone(),
                ..Lacks::default()
            },
            export: ExportLacks::of(self.end()),
            outside: outside::without_modules(outside, left_out),
            ..SourceReport::default()
        }
    }

    fn estimate(&self) -> Estimate {
        let records = self.header().expected.iter().map(|row| row.keys);
        // What a header claims fits in no sum.
        let records = records.fold(0, u64::saturating_add);
        Estimate {
            records: Some(records).filter(|&records| records > 0),
            bytes: self.input_bytes,
        }
    }
}

/// Several archives, one after the other: the parts of one export, or of a cluster.
pub struct ArchiveRow<R: Read + Send> {
    /// Those still to be read, the current one first, each with its name.
    rest: VecDeque<(String, ArchiveSource<R>)>,
    /// How many were read.
    read: u32,
    /// Take what is intact of an incomplete or damaged archive.
    allow_incomplete: bool,
    /// Digests of the function payloads given: each part of a cluster has the same libraries.
    functions: HashSet<[u8; 32]>,
    /// Reports of those that were read.
    reports: Vec<SourceReport>,
    cut_short: Vec<String>,
    observer: Arc<Observer>,
    estimate: Estimate,
    bytes_before: u64,
}

impl<R: Read + Send> ArchiveRow<R> {
    /// A row of opened archives with their names.
    pub fn new(
        archives: Vec<(String, ArchiveSource<R>)>,
        allow_incomplete: bool,
        observer: Arc<Observer>,
    ) -> Self {
        let mut estimate = Estimate {
            records: Some(0),
            bytes: Some(0),
        };
        let sum = |left: Option<u64>, right: Option<u64>| Some(left?.saturating_add(right?));
        let (mut archives, given) = (archives, Given::default());
        for (_, archive) in &mut archives {
            archive.choice.given = given.clone();
            let one = archive.estimate();
            estimate.records = sum(estimate.records, one.records);
            estimate.bytes = sum(estimate.bytes, one.bytes);
        }
        Self {
            rest: archives.into(),
            read: 0,
            allow_incomplete,
            functions: HashSet::new(),
            reports: Vec::new(),
            cut_short: Vec::new(),
            observer,
            estimate,
            bytes_before: 0,
        }
    }

    /// Goes on at `mark`, where an earlier run stopped, and reads everything before it once more: what
    /// comes may replace what was given there, and that is to be known.
    pub fn pass_over_to(&mut self, mark: Mark) {
        for (at, (_, archive)) in (0..).zip(&mut self.rest) {
            match mark.archive.cmp(&at) {
                Ordering::Greater => archive.skip_to(u64::MAX),
                Ordering::Equal => archive.skip_to(mark.frame),
                Ordering::Less => {}
            }
        }
    }

    /// Leaves out the archives before `archive`, which an earlier run has settled.
    pub fn begin_with(&mut self, archive: u32) {
        while self.read < archive && self.rest.pop_front().is_some() {
            self.read += 1;
        }
    }

    /// Goes on with frame `frame` of the first archive: by seeking where `table` says where it is,
    /// else by reading what is before it, too.
    ///
    /// # Errors
    /// Those of the format's reader.
    pub fn go_on_with(&mut self, frame: u64, limits: Limits, table: Option<&Table>) -> Result<()>
    where
        R: Seek,
    {
        let Some((name, mut archive)) = self.rest.pop_front() else {
            return Ok(());
        };
        match table {
            Some(table) => {
                archive = archive
                    .seek_to(frame, limits, table)
                    .with_context(|| name.clone())?;
            }
            None => archive.skip_to(frame),
        }
        self.rest.push_front((name, archive));
        Ok(())
    }

    /// The archives still to be read.
    pub fn archives(&self) -> impl Iterator<Item = &ArchiveSource<R>> {
        self.rest.iter().map(|(_, archive)| archive)
    }

    /// The same, to be changed before they are read.
    pub fn archives_mut(&mut self) -> impl Iterator<Item = &mut ArchiveSource<R>> {
        self.rest.iter_mut().map(|(_, archive)| archive)
    }

    /// Reads the current archive; what ends it early is only told where that was allowed.
    fn read_one(&mut self, batch: &mut Batch) -> Result<bool> {
        let Some((name, archive)) = self.rest.front_mut() else {
            return Ok(false);
        };
        let error = match archive.read(batch) {
            Ok(more) => return Ok(more),
            Err(error) => error,
        };
        batch.clear();
        let is_of_archive = error.downcast_ref::<Error>().is_some_and(|error| {
            let is_told_of_a_place = !error.is_of_everything();
            is_told_of_a_place
                && matches!(
                    error.class(),
                    Class::Incomplete | Class::Damaged | Class::TrailingData
                )
        });
        if !(self.allow_incomplete && is_of_archive) {
            return Err(error.context(name.clone()));
        }
        self.cut_short.push(format!(
            "{name}: {error:#}; what is intact before that was imported, the rest was not"
        ));
        Ok(false)
    }
}

impl<R: Read + Send> Source for ArchiveRow<R> {
    fn read(&mut self, batch: &mut Batch) -> Result<bool> {
        loop {
            if self.rest.is_empty() {
                return Ok(false);
            }
            if self.read_one(batch)? {
                let functions = &mut self.functions;
                batch.records.retain(|record| match record {
                    Record::Functions(dump) => functions.insert(Sha256::digest(dump).into()),
                    _ => true,
                });
                if let Some(mark) = &mut batch.mark {
                    mark.archive = self.read;
                }
                if self.bytes_before > 0
                    && let Some((_, archive)) = self.rest.front()
                {
                    let bytes = self.bytes_before + archive.offset();
                    self.observer.progress.archive_bytes.store(bytes, Relaxed);
                }
                if batch.is_empty() {
                    batch.clear();
                    continue;
                }
                return Ok(true);
            }
            if let Some((_, archive)) = self.rest.pop_front() {
                self.bytes_before += archive.offset();
                self.reports.push(archive.report());
                self.read += 1;
            }
        }
    }

    fn report(&self) -> SourceReport {
        let current = self.rest.front().map(|(_, archive)| archive.report());
        // One archive's rows need not be added up, and may be many.
        if let ([], Some(only)) | ([only], None) = (self.reports.as_slice(), &current) {
            let mut only = only.clone();
            only.lacks.cut_short.clone_from(&self.cut_short);
            return only;
        }
        let mut counts = CountsByDb::default();
        let mut exports = ExportsLack::default();
        let mut whole = SourceReport::default();
        whole.lacks.cut_short.clone_from(&self.cut_short);
        for report in self.reports.iter().chain(&current) {
            for row in &report.counts {
                counts.add(row);
            }
            exports.add(&report.export);
            outside::merge(&mut whole.outside, report.outside.iter().cloned());
            let (libraries, lacks) = (&mut whole.libraries, &mut whole.lacks);
            libraries.given += report.libraries.given;
            if libraries.unread.is_none() {
                libraries.unread.clone_from(&report.libraries.unread);
            }
            let left_out = report.lacks.module_aux.iter().cloned();
            lacks.module_aux.extend(left_out);
            let room = MOST_NOT_HAD.saturating_sub(lacks.not_had.len());
            let lines = report.lacks.not_had.iter().take(room);
            lacks.not_had.extend(lines.cloned());
            whole.duplicates_possible |= report.duplicates_possible;
            whole
                .exactness
                .reached
                .clone_from(&report.exactness.reached);
            whole.started_ms = match whole.started_ms {
                0 => report.started_ms,
                started_ms => started_ms.min(report.started_ms),
            };
        }
        // Several archives have no one moment.
        if self.reports.len() + usize::from(current.is_some()) > 1 {
            whole.exactness.reached = None;
        }
        whole.counts = counts.rows();
        whole.export = exports.close();
        whole
    }

    fn estimate(&self) -> Estimate {
        self.estimate
    }
}

/// What the exports of several archives lacked, together.
#[derive(Default)]
struct ExportsLack {
    keys: BTreeMap<u32, u64>,
    lines: Vec<String>,
}

impl ExportsLack {
    fn add(&mut self, of_one: &ExportLacks) {
        for &(db, keys) in &of_one.keys {
            let sum = self.keys.entry(db).or_default();
            *sum = sum.saturating_add(keys);
        }
        for line in &of_one.lines {
            if self.lines.len() < MOST_NOT_HAD && !self.lines.contains(line) {
                self.lines.push(line.clone());
            }
        }
    }

    fn close(self) -> ExportLacks {
        ExportLacks {
            keys: self.keys.into_iter().collect(),
            lines: self.lines,
        }
    }
}
