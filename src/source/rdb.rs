//! An RDB file, or what a master sends a replica, as a source: a snapshot, exact as of the moment
//! it was begun, unless the file says otherwise or names no moment.
//!
//! Keys come in the order of the file and exactly once: one that the data hold twice is given the
//! first time only, and named. No server writes or loads such data. The end is reached only with the file's own
//! end mark and checksum; until then everything given is provisional, as with any source.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context as _, Result};

use super::{Estimate, Source};
use crate::dialect::KEYDB_MEMBER_EXPIRY;
use crate::host::unix_ms;
use crate::ledger::{
    ConsistencyReached, CountsByDb, Exactness, ExportLacks, Lacks, LibrariesRead, SourceReport,
};
use crate::observer::{FailureKind, KeyFailure, Observer};
use crate::outside::{self, Outside};
use crate::own_writes::OwnWrites;
use crate::payload;
use crate::place::directory_of;
use crate::policy::ReadFunctions;
use crate::rdb::{Checksum, Event, Facts, Form, RdbError, RdbReader, Tail, Taken};
use crate::record::{Batch, Context, KeyRecord, ModuleAux, Record, show_key};
use crate::select::{Selection, type_of};
use crate::size;
use crate::units::count_text;
use crate::unproven::Unproven;

/// What is said of a file that [`NOT_WHOLE`](crate::rdb::NOT_WHOLE) marks.
pub const LEFT_OUT_BY_CONVERT: &str = "without what was left out when the file was made";

/// Most of modules' own data that are kept of one file, by what each part costs: what a reader of an
/// archive keeps, too.
const MOST_MODULE_AUX_COST: usize = redis_migrate_format::limits::MAX_MODULE_AUX_KEPT;

/// Most modules that are named of those whose data are left out.
const MOST_MODULE_NAMES: usize = 64;

/// Most keys that are passed over before a batch is given, however empty.
const MOST_PASSED: u32 = 1000;

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
    /// Unix ms, not before the moment of the snapshot: for what does not say when it was made
    /// (before version 7).
    pub otherwise_ms: u64,
    /// Values, and names, of more bytes are left out and named.
    pub max_value_bytes: u64,
    /// The file, where it is one: other parts of an append-only file stand beside it.
    pub path: Option<PathBuf>,
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
    /// Data of modules read and not given yet.
    module_aux: Vec<ModuleAux>,
    /// What those cost that were given or are to be.
    module_aux_cost: usize,
    /// Names of modules whose data are too large to be given.
    module_aux_left_out: BTreeSet<String>,
    /// Expiries of members of sets and fields of hashes, as KeyDB has them.
    member_expiries: u64,
    /// Function libraries that were not read, and why, one line each.
    left_out: Vec<String>,
    /// Keys that came.
    seen: OwnWrites,
    /// Keys that came a second time.
    doubled: u64,
    counts: CountsByDb,
    /// Of the failed ones, those that are larger than `--max-value` allows.
    above_max_value: u64,
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
        let reader = RdbReader::new(input, options.form)?.within(options.max_value_bytes);
        let mut source = Self {
            reader,
            options,
            observer,
            pending: None,
            libraries: Vec::new(),
            module_aux: Vec::new(),
            module_aux_cost: 0,
            module_aux_left_out: BTreeSet::new(),
            member_expiries: 0,
            at_end: false,
            left_out: Vec::new(),
            seen: OwnWrites::default(),
            doubled: 0,
            counts: CountsByDb::default(),
            above_max_value: 0,
            functions_given: 0,
            started_ms: unix_ms(),
        };
        source.pending = source.event()?;
        if source.facts().is_aof_base {
            source.say_that_more_was_written();
        }
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

    /// Of what moment the data are, as far as the file has been read.
    pub fn taken(&self) -> Taken {
        let taken = Taken::of_file(self.facts(), self.options.otherwise_ms);
        match taken.from_ms {
            // A server has made it this very moment.
            0 if !self.options.alone => Taken {
                from_ms: taken.to_ms,
                at_one_instant: true,
                ..taken
            },
            _ => taken,
        }
    }

    /// The moment from which the remaining life of keys counts, Unix ms.
    pub fn taken_ms(&self) -> u64 {
        self.taken().reference_ms()
    }

    /// The reader, for what follows the end.
    pub fn reader(&mut self) -> &mut RdbReader<R> {
        &mut self.reader
    }

    /// The next key, wanted or not; everything before it is taken in.
    fn event(&mut self) -> Result<Option<Event>, RdbError> {
        loop {
            let selection = &self.options.selection;
            let family = self.reader.facts().family;
            let wants = |db, key: &[u8], type_byte| {
                selection.wants_db(db)
                    && selection.wants_key(key)
                    && selection.may_want_kind(payload::kind_of(family, type_byte))
            };
            match self.reader.next_wanted(wants)? {
                Some(Event::Function(library)) => {
                    if self.options.functions != ReadFunctions::No {
                        self.libraries.extend_from_slice(&library);
                    }
                }
                Some(Event::FunctionTooLarge) => {
                    if self.options.functions != ReadFunctions::No {
                        self.left_out.push(
                            "a function library was left out: it is larger than --max-value allows"
                                .to_owned(),
                        );
                    }
                }
                Some(Event::Sizes { keys, .. }) if selection.wants_db(self.reader.db()) => {
                    // By and by, as databases turn up.
                    self.observer
                        .progress
                        .expected_records
                        .fetch_add(keys, Relaxed);
                }
                Some(Event::Aux { name, .. }) if name == KEYDB_MEMBER_EXPIRY => {
                    self.member_expiries += 1;
                }
                Some(
                    Event::Aux { .. }
                    | Event::Database(_)
                    | Event::Sizes { .. }
                    | Event::NoModuleAux(_),
                ) => {}
                Some(Event::ModuleAux(aux)) => self.keep_module_aux(aux),
                Some(Event::ModuleAuxTooLarge(module)) => {
                    self.leave_out_module_aux(module);
                }
                event @ (Some(Event::Key(_) | Event::Unwanted { .. } | Event::TooLarge { .. })
                | None) => return Ok(event),
            }
        }
    }

    /// They belong to no key, so no selection is about them.
    fn keep_module_aux(&mut self, aux: ModuleAux) {
        let cost = self.module_aux_cost.saturating_add(aux.cost());
        if cost > MOST_MODULE_AUX_COST {
            self.leave_out_module_aux(aux.module);
            return;
        }
        self.module_aux_cost = cost;
        self.module_aux.push(aux);
    }

    fn leave_out_module_aux(&mut self, module: String) {
        if self.module_aux_left_out.len() < MOST_MODULE_NAMES {
            self.module_aux_left_out.insert(module);
        }
    }

    /// Whether the data have held this key already; it is named then. Which of the two is right
    /// nobody can tell.
    fn comes_twice(&mut self, db: u32, key: &[u8]) -> Result<bool> {
        const WHAT: &str = "cannot remember a key in a temporary file";
        let print = self.seen.fingerprint(db, key);
        if !self.seen.contains(print).context(WHAT)? {
            self.seen.insert(print).context(WHAT)?;
            return Ok(false);
        }
        self.doubled += 1;
        let counts = self.counts.of(db);
        counts.scanned += 1;
        counts.failed += 1;
        self.observer.key_failed(&KeyFailure {
            db,
            key: key.to_vec(),
            kind: FailureKind::Unread,
            reason: "the RDB data hold this key twice, and no server loads such data; this is not \
                     the first, and it is left out"
                .to_owned(),
            hint: None,
        })?;
        Ok(true)
    }

    fn give(&mut self, record: KeyRecord, batch: &mut Batch) -> Result<()> {
        if self.comes_twice(record.db, &record.key)? {
            return Ok(());
        }
        let selection = &self.options.selection;
        let counts = self.counts.of(record.db);
        counts.scanned += 1;
        let wanted = !selection.needs_value()
            || selection.wants_value(
                &type_of(batch.context.family, record.value.bytes()),
                match selection.needs_size() {
                    true => size::of(&record.value, batch.context.family),
                    false => 0,
                },
                record.expire_at_ms,
                batch.context.source_time_ms,
            );
        if wanted {
            counts.written += 1;
            batch.push(Record::Key(record));
        } else {
            counts.filtered += 1;
        }
        Ok(())
    }

    fn give_libraries(&mut self, batch: &mut Batch) {
        if !self.libraries.is_empty() {
            let body = std::mem::take(&mut self.libraries);
            let payload = payload::sign(&body, batch.context.rdb_version);
            self.functions_given += 1;
            batch.push(Record::Functions(payload));
        }
    }

    /// A key that was passed over because it would not fit.
    fn too_large(&mut self, db: u32, key: Option<Vec<u8>>) -> Result<()> {
        if let Some(key) = &key
            && self.comes_twice(db, key)?
        {
            return Ok(());
        }
        let counts = self.counts.of(db);
        counts.scanned += 1;
        counts.failed += 1;
        self.above_max_value += 1;
        let what = match key {
            Some(_) => "value",
            None => "name",
        };
        let max = self.options.max_value_bytes;
        self.observer.key_failed(&KeyFailure {
            db,
            key: key.unwrap_or_default(),
            kind: FailureKind::Unread,
            reason: format!("its {what} has more than the {max} bytes that --max-value allows"),
            hint: None,
        })
    }

    fn reached(&self) -> ConsistencyReached {
        let Taken {
            from_ms,
            to_ms,
            at_one_instant,
            is_whole,
        } = self.taken();
        match at_one_instant && is_whole && self.doubled == 0 {
            true => ConsistencyReached::Exact(vec![(0, from_ms)]),
            false => ConsistencyReached::Scan { from_ms, to_ms },
        }
    }

    /// What modules keep outside keys goes along, and no RESTORE brings it.
    fn outside(&self) -> Vec<Outside> {
        let left_out = &self.module_aux_left_out;
        // Of more modules than are remembered none is known to be whole.
        let all = match left_out.len() < MOST_MODULE_NAMES {
            true => self.facts().module_aux.as_slice(),
            false => &[],
        };
        outside::module_data(all, left_out)
    }

    fn say_what_follows(&self, tail: Tail) {
        let what = match tail {
            Tail::EndMark => {
                "the 40 bytes by which a server marks the end of a snapshot (redis-cli --rdb - \
                 writes them out)"
            }
            Tail::LineEnd => "a line end",
            Tail::BehindFrame => "something, after the end of the compressed data",
        };
        self.observer.notice(&format!(
            "after the RDB data comes {what}; it is skipped, as every server does"
        ));
    }

    /// Of an append-only file in parts the base is only where it begins.
    fn say_that_more_was_written(&self) {
        let parts = self.options.path.as_deref().map_or(Vec::new(), later_parts);
        let where_it_is = match parts.as_slice() {
            [] => "its .incr.aof files".to_owned(),
            names => names.join(", "),
        };
        self.observer.warn(&format!(
            "this is the base of an append-only file: what was written after it is in \
             {where_it_is} and is not read; start a server on the whole appendonlydir and read \
             from that server"
        ));
    }

    fn member_expiries_lost(&self) -> Option<String> {
        (self.member_expiries > 0).then(|| {
            format!(
                "KeyDB lets members and fields expire by themselves (EXPIREMEMBER), and no other \
                 server does it so: {} of them live as long as their keys",
                count_text(self.member_expiries)
            )
        })
    }

    fn say_what_was_not_read(&self) {
        let mut unproven = Unproven::default();
        let templated = self.reader.facts().templated_hashes;
        if templated > 0 {
            unproven.add(payload::Encoding::RedisTemplateTableRef, templated);
        }
        unproven.tell(&self.observer);
        if self.reader.checksum() != Some(Checksum::Verified) {
            self.observer.notice(
                "the RDB data has no checksum (rdbchecksum no, or before version 5); its layout \
                 was checked, its contents could not be",
            );
        }
        if let Some(text) = self.member_expiries_lost() {
            self.observer.warn(&text);
        }
    }
}

/// Parts of an append-only file that follow the base `path` (aof.c: `NAME.1.base.rdb` is followed by
/// `NAME.1.incr.aof` and so on, in one directory), as people are shown them.
fn later_parts(path: &Path) -> Vec<String> {
    const MOST_NAMED: usize = 4;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(prefix) = name
        .strip_suffix(".base.rdb")
        .and_then(|name| name.rsplit_once('.'))
        .map(|(prefix, _)| format!("{prefix}."))
    else {
        return Vec::new();
    };
    let mut names: Vec<String> = std::fs::read_dir(directory_of(path))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(&prefix) && name.ends_with(".incr.aof"))
        .map(|name| show_key(name.as_bytes()))
        .collect();
    names.sort();
    names.truncate(MOST_NAMED);
    names
}

impl<R: Read + Send> Source for RdbSource<R> {
    fn read(&mut self, batch: &mut Batch) -> Result<bool> {
        batch.context = self.context();
        // Keys that are passed over fill no batch. An empty one is given now and then, so that who asks
        // can be stopped.
        let mut passed = 0;
        while !batch.is_full() && !self.at_end && passed < MOST_PASSED {
            let event = match self.pending.take() {
                Some(event) => Some(event),
                None => self.event()?,
            };
            // Before the first key, as in an export of a server.
            self.give_libraries(batch);
            self.module_aux
                .drain(..)
                .for_each(|aux| batch.push_module_aux(aux));
            match event {
                Some(Event::Key(record)) => self.give(record, batch)?,
                Some(Event::Unwanted { db }) => {
                    passed += 1;
                    let counts = self.counts.of(db);
                    counts.scanned += 1;
                    counts.filtered += 1;
                }
                Some(Event::TooLarge { db, key }) => {
                    passed += 1;
                    self.too_large(db, key)?;
                }
                Some(_) => {}
                None => {
                    if self.options.alone
                        && let Some(tail) = self.reader.expect_end_of_file()?
                    {
                        self.say_what_follows(tail);
                    }
                    self.at_end = true;
                    self.say_what_was_not_read();
                }
            }
        }
        self.give_libraries(batch);
        Ok(!batch.is_empty() || !self.at_end)
    }

    fn report(&self) -> SourceReport {
        SourceReport {
            counts: self.counts.rows(),
            above_max_value: self.above_max_value,
            duplicates_possible: false,
            started_ms: self.started_ms,
            exactness: Exactness {
                reached: Some(self.reached()),
                of_one_instant: self.taken().at_one_instant,
                ..Exactness::default()
            },
            libraries: LibrariesRead {
                given: self.functions_given,
                unread: self.left_out.first().cloned(),
                ..LibrariesRead::default()
            },
            lacks: Lacks {
                cut_short: self.left_out.clone(),
                not_had: self.member_expiries_lost().into_iter().collect(),
                by_choice: (self.facts().is_not_whole).then(|| LEFT_OUT_BY_CONVERT.to_owned()),
                module_aux: self.module_aux_left_out.clone(),
                ..Lacks::default()
            },
            export: ExportLacks::default(),
            outside: self.outside(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::Recording;

    /// Whoever asks for batches hears that it is to stop only between two of them.
    #[test]
    fn keys_that_are_passed_over_do_not_keep_whoever_asks() {
        const KEYS: u32 = 3 * MOST_PASSED;
        let mut bytes = b"REDIS0011\xfe\x00".to_vec();
        for number in 0..KEYS {
            bytes.extend_from_slice(b"\x00\x04");
            bytes.extend_from_slice(&number.to_be_bytes());
            bytes.extend_from_slice(b"\x09a value..");
        }
        bytes.extend_from_slice(b"\xff\0\0\0\0\0\0\0\0");
        let options = RdbSourceOptions {
            selection: Selection::default(),
            functions: ReadFunctions::No,
            form: Form::Compact,
            alone: true,
            otherwise_ms: 1,
            max_value_bytes: 8,
            path: None,
        };
        let observer = Observer::new(Box::new(Recording::default()), None, None);
        let mut source = RdbSource::open(bytes.as_slice(), options, Arc::new(observer)).unwrap();
        let mut batches = 0;
        let mut batch = Batch::default();
        while source.read(&mut batch).unwrap() {
            assert!(batch.is_empty());
            batches += 1;
        }
        assert_eq!(batches, 3);
        assert_eq!(source.report().above_max_value, u64::from(KEYS));
    }
}
