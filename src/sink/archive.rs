//! An archive as a sink. Values are made compact on the way: the footer checked and dropped,
//! compressed strings expanded, because zstd over plain bytes is smaller than over LZF.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use redis_migrate_format::header::{ConsistencyReached, EndFacts, Header};
use redis_migrate_format::limits::MAX_KEY_LEN;
use redis_migrate_format::{Writer, WriterOptions};

use super::journal::{Journal, Noted, Taken};
use super::{Miscounted, Sink, lacks};
use crate::census::Census;
use crate::encryption::StoredAs;
use crate::host;
use crate::host::unix_ms;
use crate::ledger::{ArchiveWritten, SinkReport, SourceReport};
use crate::observer::{FailureKind, KeyFailure, Observer};
use crate::outside;
use crate::own_writes::OwnWrites;
use crate::payload::{self, ErrorKind, Examined, compact_within};
use crate::rdb::library_flaws;
use crate::record::{
    Batch, Checkpoint, Context, Family, KeyRecord, ModuleAux, Record, Value, larger_than, not_kept,
};
use crate::size::is_larger;
use crate::units::hex;

/// Scratch room that is kept between values; a larger one is given back.
const KEPT_SCRATCH_BYTES: usize = 1024 * 1024;

/// How an output is completed: flushed, synced, renamed.
pub type Commit<W, T = ()> = Box<dyn FnOnce(W) -> Result<T> + Send>;

/// What values become on their way into an archive.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// Payloads are kept as the server sent them.
    pub verbatim: bool,
    /// Nobody looks whether values are sound.
    pub no_check: bool,
    /// Values of more bytes, as stored, are left out and named.
    pub max_value_bytes: u64,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            verbatim: false,
            no_check: false,
            max_value_bytes: u64::MAX,
        }
    }
}

/// Writes an archive.
pub struct ArchiveSink<W: Write + Send> {
    // `None` only after a failed write, when nothing more can be said to it.
    writer: Option<Writer<W>>,
    commit: Commit<W, Option<StoredAs>>,
    form: Form,
    scratch: Vec<u8>,
    observer: Arc<Observer>,
    /// Keys whose payload did not survive its check, by database.
    damaged: BTreeMap<u32, u64>,
    /// Keys that were written, where the source may give them again with another value.
    stands: Option<OwnWrites>,
    /// Tombstones of keys whose later value was left out, by database. No record came for them.
    taken_back: BTreeMap<u32, u64>,
    /// While changes are followed: how long a frame may stay open, and when the last was closed.
    flush: Option<(Duration, Instant)>,
    /// Where a later run can go on.
    journal: Option<Box<dyn Journal>>,
    report: SinkReport,
    /// Which keys stand in it; `None` where an earlier run wrote some of them.
    census: Option<Census>,
}

impl<W: Write + Send> ArchiveSink<W> {
    /// Begins an archive on `out`. `commit` completes the output once the trailer is written, and
    /// says what stands in the file if that is not what was written.
    ///
    /// # Errors
    /// The output's.
    pub fn create(
        out: W,
        header: &Header,
        options: WriterOptions,
        form: Form,
        commit: Commit<W, Option<StoredAs>>,
        observer: Arc<Observer>,
    ) -> Result<Self> {
        let writer = Writer::new(out, header, options).context("cannot write the archive")?;
        Ok(Self::on(writer, form, commit, observer))
    }

    /// The same on an archive that was begun already.
    pub fn on(
        writer: Writer<W>,
        form: Form,
        commit: Commit<W, Option<StoredAs>>,
        observer: Arc<Observer>,
    ) -> Self {
        Self {
            writer: Some(writer),
            commit,
            form,
            scratch: Vec::new(),
            observer,
            damaged: BTreeMap::new(),
            stands: None,
            taken_back: BTreeMap::new(),
            flush: None,
            journal: None,
            report: SinkReport::default(),
            census: Some(Census::default()),
        }
    }

    /// Notes in `journal` how far it has come; `taken` is what an earlier run had written.
    #[must_use]
    pub fn noting(mut self, journal: impl Journal + 'static, taken: Option<Taken>) -> Self {
        self.journal = Some(Box::new(journal));
        if let Some(taken) = taken {
            self.census = None;
            self.report.records.taken = taken.taken;
            self.report.records.archived = taken.archived;
            self.report.records.refused = taken.refused;
            self.report.values.damaged = taken.unsound;
            self.report.functions.taken = taken.functions;
            self.report.functions.restored = taken.functions;
            self.damaged = taken.damaged.into_iter().collect();
            self.report.values.undecoded = taken.undecoded.continued();
        }
        self
    }

    /// Everything that came so far goes to the file, and then the journal says so.
    fn note(&mut self, checkpoint: Checkpoint) -> Result<()> {
        let writer = self.writer()?;
        writer.flush_frame().context("cannot write the archive")?;
        let (bytes, archive_id) = (writer.bytes_written(), writer.archive_id());
        let errors = self.observer.errors_place()?;
        let noted = Noted {
            bytes,
            archive_id,
            checkpoint,
            taken: Taken {
                taken: self.report.records.taken,
                archived: self.report.records.archived,
                refused: self.report.records.refused,
                unsound: self.report.values.damaged,
                functions: self.report.functions.taken,
                damaged: self.damaged.iter().map(|(db, keys)| (*db, *keys)).collect(),
                undecoded: self.report.values.undecoded.clone(),
            },
            errors,
        };
        match &mut self.journal {
            Some(journal) => journal.note(&noted),
            None => Ok(()),
        }
    }

    /// The source may give a key again with another value. If that has to be left out, the archive
    /// gets a tombstone: the earlier value is no longer the key's.
    #[must_use]
    pub fn taking_back(mut self) -> Self {
        self.stands = Some(OwnWrites::default());
        self
    }

    /// A later value of this key was left out.
    fn take_back(&mut self, db: u32, key: Vec<u8>) -> Result<()> {
        let Some(stands) = &mut self.stands else {
            return Ok(());
        };
        let print = stands.fingerprint(db, &key);
        if !stands
            .contains(print)
            .context("cannot look up a key in a temporary file")?
        {
            return Ok(());
        }
        *self.taken_back.entry(db).or_default() += 1;
        self.note_key(db, &key, false)?;
        let record = Record::Deleted { db, key };
        self.writer()?
            .write(&record)
            .context("cannot write the archive")
    }

    /// Closes and flushes a frame at the latest after so long, for a reader that follows.
    #[must_use]
    pub fn flushing_every(mut self, every: Duration) -> Self {
        self.flush = Some((every, host::now()));
        self
    }

    /// Leaves out a key that is too long for an archive; true if it was.
    fn leave_out_long(&mut self, record: &Record) -> Result<bool> {
        let (db, key) = match record {
            Record::Key(record) => (record.db, &record.key),
            Record::Deleted { db, key } => (*db, key),
            _ => return Ok(false),
        };
        if key.len() <= MAX_KEY_LEN {
            return Ok(false);
        }
        self.report.records.taken += 1;
        self.report.records.refused += 1;
        *self.damaged.entry(db).or_default() += 1;
        let reason = format!(
            "its name of {} bytes is longer than an archive allows ({MAX_KEY_LEN} bytes)",
            key.len()
        );
        self.observer.key_failed(&KeyFailure {
            db,
            key: key.clone(),
            kind: FailureKind::Refused,
            reason,
            hint: None,
        })?;
        Ok(true)
    }

    /// Data of modules outside keys, those of before the keys or of behind them.
    fn put_module_aux(&mut self, batch: &[ModuleAux], after_keys: bool) -> Result<()> {
        for aux in batch.iter().filter(|aux| aux.after_keys == after_keys) {
            let written = self.writer()?.module_aux(aux);
            written.context("cannot write the archive")?;
        }
        Ok(())
    }

    fn put(&mut self, mut record: Record, context: &Context) -> Result<()> {
        if self.leave_out_long(&record)? {
            return Ok(());
        }
        match &mut record {
            Record::Functions(dump) => {
                self.report.functions.taken += 1;
                self.report.functions.restored += 1;
                self.look_at_libraries(dump)?;
            }
            Record::Key(key) => {
                self.report.records.taken += 1;
                match self.make_ready(key, context) {
                    Ok(look) => {
                        let undecoded = &mut self.report.values.undecoded;
                        undecoded.note(context.family, key, true);
                        self.note_look(look, key)?;
                    }
                    Err(LeftOut { reason, is_large }) => {
                        self.report.records.refused += 1;
                        self.report.values.above_max_value += u64::from(is_large);
                        *self.damaged.entry(key.db).or_default() += 1;
                        let (db, key) = (key.db, std::mem::take(&mut key.key));
                        self.observer.key_failed(&KeyFailure {
                            db,
                            key: key.clone(),
                            kind: FailureKind::Unread,
                            reason,
                            hint: None,
                        })?;
                        return self.take_back(db, key);
                    }
                }
                self.report.records.archived += 1;
                self.note_key(key.db, &key.key, true)?;
            }
            other => {
                self.report.records.taken += 1;
                self.report.records.archived += 1;
                if let Record::Deleted { db, key } = other {
                    self.note_key(*db, key, false)?;
                }
            }
        }
        self.writer()?
            .write(&record)
            .context("cannot write the archive")?;
        // Its buffer serves the next value.
        if let Record::Key(key) = record
            && let Value::Compact(body) = key.value
            && self.scratch.capacity() == 0
            && body.capacity() <= KEPT_SCRATCH_BYTES
        {
            self.scratch = body;
        }
        Ok(())
    }

    /// Brings a value into its form, and looks at it. `Err`: why it is left out.
    fn make_ready(&mut self, key: &mut KeyRecord, context: &Context) -> Result<Look, LeftOut> {
        let Form {
            verbatim,
            no_check,
            max_value_bytes,
        } = self.form;
        let too_large = || LeftOut {
            reason: larger_than(max_value_bytes),
            is_large: true,
        };
        let look = |body: &[u8]| match no_check {
            true => Look::Fine,
            false => Look::at(context.family, body),
        };
        let is_too_large = is_larger(&key.value, context.family, max_value_bytes);
        let dump = match &mut key.value {
            _ if is_too_large => return Err(too_large()),
            Value::Compact(body) => return Ok(look(body)),
            Value::Verbatim(dump) => dump,
            Value::Withheld(value) => {
                return Err(LeftOut {
                    reason: not_kept(value),
                    is_large: true,
                });
            }
        };
        let (body, rdb_version) = match payload::split(dump) {
            Ok(split) => split,
            Err(error) if verbatim && !no_check => return Ok(Look::Damaged(error.to_string())),
            Err(_) if verbatim => return Ok(Look::Fine),
            Err(error) => {
                return Err(LeftOut {
                    reason: format!("its DUMP payload is damaged: {error}"),
                    is_large: false,
                });
            }
        };
        if verbatim || rdb_version != context.rdb_version {
            return Ok(look(body));
        }
        self.scratch.clear();
        let found = match compact_within(body, context.family, max_value_bytes, &mut self.scratch) {
            Ok(()) => look(&self.scratch),
            Err(error) if matches!(error.kind, ErrorKind::TooLarge(_)) => return Err(too_large()),
            // What cannot be walked to its end travels as it is: module values, types of the future.
            Err(_) => return Ok(look(body)),
        };
        // What is damaged stays exactly as it came.
        if !matches!(found, Look::Damaged(_)) {
            std::mem::swap(dump, &mut self.scratch);
            let body = std::mem::take(dump);
            key.value = Value::Compact(body);
        }
        if self.scratch.capacity() > KEPT_SCRATCH_BYTES {
            self.scratch = Vec::new();
        }
        Ok(found)
    }

    /// Counts and names a value that goes into the archive and is not quite what it should be.
    fn note_look(&mut self, look: Look, key: &KeyRecord) -> Result<()> {
        match look {
            Look::Fine => Ok(()),
            Look::Miscounted(miscounted) => {
                let changes = &mut self.report.changes;
                miscounted.note(&self.observer, changes, key.db, &key.key);
                Ok(())
            }
            Look::Damaged(reason) => {
                self.report.values.damaged += 1;
                self.observer.key_failed(&KeyFailure {
                    db: key.db,
                    key: key.key.clone(),
                    kind: FailureKind::Damaged,
                    reason: format!("its value is damaged and is archived as it is: {reason}"),
                    hint: Some(
                        "no destination accepts it; reading it may crash the server it \
                         comes from"
                            .to_owned(),
                    ),
                })
            }
        }
    }

    /// Counts and names the libraries that no server takes. They are archived all the same.
    fn look_at_libraries(&mut self, dump: &[u8]) -> Result<()> {
        if self.form.no_check {
            return Ok(());
        }
        let flaws = match library_flaws(dump) {
            Ok(flaws) => flaws
                .iter()
                .map(|flaw| (flaw.title(), flaw.kind.to_string()))
                .collect(),
            Err(error) => vec![(b"function library all".to_vec(), error.to_string())],
        };
        for (key, reason) in flaws {
            self.report.values.damaged += 1;
            self.observer.key_failed(&KeyFailure {
                db: 0,
                key,
                kind: FailureKind::Damaged,
                reason: format!("it is damaged and is archived as it is: {reason}"),
                hint: Some("no destination accepts it".to_owned()),
            })?;
        }
        Ok(())
    }

    fn note_key(&mut self, db: u32, key: &[u8], stands: bool) -> Result<()> {
        if let Some(census) = &mut self.census {
            census.add_key(db, key, !stands);
        }
        if let Some(written) = self.stands.as_mut().filter(|_| stands) {
            let print = written.fingerprint(db, key);
            written
                .insert(print)
                .context("cannot remember a key in a temporary file")?;
        }
        Ok(())
    }

    fn writer(&mut self) -> Result<&mut Writer<W>> {
        self.writer
            .as_mut()
            .ok_or_else(|| anyhow!("the archive is closed already"))
    }

    fn end_facts(&self, source: &SourceReport) -> EndFacts {
        let mut counts = source.counts.clone();
        for row in &mut counts {
            // Given by the source, but not fit to be written.
            let damaged = self.damaged.get(&row.db).copied().unwrap_or(0);
            row.written -= damaged.min(row.written);
            row.failed += damaged;
            let taken_back = self.taken_back.get(&row.db).copied().unwrap_or(0);
            row.written += taken_back;
            row.reread += taken_back;
        }
        EndFacts {
            reached: source
                .exactness
                .reached
                .clone()
                .unwrap_or(ConsistencyReached::Scan {
                    from_ms: source.started_ms,
                    to_ms: unix_ms(),
                }),
            counts,
            duplicates_possible: source.duplicates_possible,
            started_ms: source.started_ms,
            finished_ms: unix_ms(),
        }
    }
}

/// Why a value does not go into the archive.
struct LeftOut {
    reason: String,
    /// It is larger than `--max-value` allows.
    is_large: bool,
}

/// What was seen of a value on its way into the archive.
enum Look {
    /// Nothing is wrong with it, or nobody looked.
    Fine,
    /// A stream whose counter is off.
    Miscounted(Miscounted),
    /// No destination should be given it, and why.
    Damaged(String),
}

impl Look {
    fn at(family: Family, body: &[u8]) -> Self {
        match payload::examine(family, body) {
            Examined::Opaque => Self::Fine,
            Examined::Damaged(error) => Self::Damaged(error.to_string()),
            Examined::Sound(checked) => match checked.miscounted {
                None => Self::Fine,
                Some(said) => Self::Miscounted(Miscounted {
                    said,
                    held: checked.count,
                    corrected: false,
                }),
            },
        }
    }
}

impl<W: Write + Send> Sink for ArchiveSink<W> {
    fn write(&mut self, mut batch: Batch) -> Result<()> {
        let checkpoint = batch.checkpoint.take();
        let context = batch.context;
        self.writer()?
            .set_context(context)
            .context("cannot write the archive")?;
        self.put_module_aux(&batch.module_aux, false)?;
        for record in batch.records {
            self.put(record, &context)?;
        }
        self.put_module_aux(&batch.module_aux, true)?;
        if let Some((every, last)) = &mut self.flush
            && host::elapsed(*last) >= *every
        {
            *last = host::now();
            self.writer()?
                .flush_frame()
                .context("cannot write the archive")?;
        }
        if let Some(checkpoint) = checkpoint {
            self.note(*checkpoint)?;
        }
        let bytes = self.writer()?.bytes_written();
        self.observer.progress.archive_bytes.store(bytes, Relaxed);
        Ok(())
    }

    fn finish(mut self: Box<Self>, source: &SourceReport) -> (SinkReport, Result<()>) {
        let mut facts = self.end_facts(source);
        let mut report = self.report;
        report.keys = self.census.and_then(Census::keys);
        // Whatever the source says: what stands in the archive was counted.
        facts.duplicates_possible |= report
            .keys
            .is_some_and(|keys| keys != report.records.archived);
        let Some(mut writer) = self.writer.take() else {
            return (report, Err(anyhow!("the archive is closed already")));
        };
        let left_out = outside::modules_left_out(&source.lacks.module_aux);
        report.problems.extend(left_out);
        if let Err(error) = lacks::say(&mut writer, source) {
            return (report, Err(error.context("cannot complete the archive")));
        }
        let finished = match writer.finish(facts) {
            Ok(finished) => finished,
            Err(error) => {
                return (
                    report,
                    Err(anyhow::Error::new(error).context("cannot complete the archive")),
                );
            }
        };
        let mut written = ArchiveWritten {
            archive_id: finished.archive_id,
            bytes: finished.bytes,
            sha256: hex(&finished.sha256),
            encrypted: false,
        };
        let done = (self.commit)(finished.inner).context("cannot complete the archive");
        let done = done.map(|stored| {
            if let Some(StoredAs { bytes, sha256 }) = stored {
                written = ArchiveWritten {
                    bytes,
                    sha256,
                    encrypted: true,
                    ..written
                };
            }
            report.archive = Some(written);
        });
        (report, done)
    }

    fn abort(mut self: Box<Self>, reason: &str) -> SinkReport {
        if let Some(writer) = self.writer.take() {
            // Best effort: the archive is incomplete with or without the note of why.
            let _ = writer.abort(reason);
        }
        self.report
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use redis_migrate_format::{Limits, Reader};

    use super::*;
    use crate::observer::Recording;

    /// What the end says of an archive of these keys, whose source says that it gives none twice.
    fn duplicates_possible(keys: &[&str]) -> bool {
        let observer = Observer::new(Box::new(Recording::default()), None, None);
        let (sender, receiver) = mpsc::channel();
        let commit: Commit<Vec<u8>, Option<StoredAs>> = Box::new(move |bytes| {
            sender.send(bytes)?;
            Ok(None)
        });
        let mut sink = ArchiveSink::create(
            Vec::new(),
            &Header::default(),
            WriterOptions::default(),
            Form::default(),
            commit,
            Arc::new(observer),
        )
        .expect("begun");
        let mut batch = Batch::default();
        for key in keys {
            batch.push(Record::Key(KeyRecord {
                db: 0,
                key: key.as_bytes().to_vec(),
                value: Value::Compact(b"\x00\x01v".to_vec()),
                expire_at_ms: None,
                eviction: None,
            }));
        }
        sink.write(batch).expect("written");
        let (_, done) = Box::new(sink).finish(&SourceReport::default());
        done.expect("finished");
        let bytes = receiver.recv().expect("committed");
        let mut reader = Reader::new(bytes.as_slice(), Limits::default()).expect("begun");
        while reader.next_frame().expect("read").is_some() {}
        reader.end().expect("an end").facts.duplicates_possible
    }

    #[test]
    fn that_no_key_comes_twice_is_only_said_where_it_is_so() {
        assert!(!duplicates_possible(&["a", "b"]));
        assert!(duplicates_possible(&["a", "b", "a"]));
    }
}
