//! An archive as a sink. Values are made compact on the way: the footer checked and dropped,
//! compressed strings expanded, because zstd over plain bytes is smaller than over LZF.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use redis_migrate_format::header::{ConsistencyReached, EndFacts, Header};
use redis_migrate_format::{Writer, WriterOptions};

use super::Sink;
use crate::encryption::StoredAs;
use crate::ledger::{ArchiveWritten, SinkReport, SourceReport};
use crate::observer::{FailureKind, KeyFailure, Observer, hex};
use crate::payload;
use crate::record::{Batch, Checkpoint, Context, Record, Value};
use crate::resume::{ExportJournal, Noted, Taken};
use crate::units::now_ms;

/// Scratch room that is kept between values; a larger one is given back.
const KEPT_SCRATCH_BYTES: usize = 1024 * 1024;

/// How an output is completed: flushed, synced, renamed.
pub type Commit<W, T = ()> = Box<dyn FnOnce(W) -> Result<T> + Send>;

/// Writes an archive.
pub struct ArchiveSink<W: Write + Send> {
    // `None` only after a failed write, when nothing more can be said to it.
    writer: Option<Writer<W>>,
    commit: Commit<W, Option<StoredAs>>,
    verbatim: bool,
    scratch: Vec<u8>,
    observer: Arc<Observer>,
    /// Keys whose payload did not survive its check, by database.
    damaged: BTreeMap<u32, u64>,
    /// While changes are followed: how long a frame may stay open, and when the last was closed.
    flush: Option<(Duration, Instant)>,
    /// Where a later run can go on.
    journal: Option<ExportJournal>,
    report: SinkReport,
}

impl<W: Write + Send> ArchiveSink<W> {
    /// Begins an archive on `out`. `verbatim` keeps payloads as the server sent them; `commit`
    /// completes the output once the trailer is written, and says what stands in the file if that is
    /// not what was written.
    ///
    /// # Errors
    /// The output's.
    pub fn create(
        out: W,
        header: &Header,
        options: WriterOptions,
        verbatim: bool,
        commit: Commit<W, Option<StoredAs>>,
        observer: Arc<Observer>,
    ) -> Result<Self> {
        let writer = Writer::new(out, header, options).context("write the archive")?;
        Ok(Self::on(writer, verbatim, commit, observer))
    }

    /// The same on an archive that was begun already.
    pub fn on(
        writer: Writer<W>,
        verbatim: bool,
        commit: Commit<W, Option<StoredAs>>,
        observer: Arc<Observer>,
    ) -> Self {
        Self {
            writer: Some(writer),
            commit,
            verbatim,
            scratch: Vec::new(),
            observer,
            damaged: BTreeMap::new(),
            flush: None,
            journal: None,
            report: SinkReport::default(),
        }
    }

    /// Notes in `journal` how far it has come; `taken` is what an earlier run had written.
    #[must_use]
    pub fn noting(mut self, journal: ExportJournal, taken: Option<Taken>) -> Self {
        self.journal = Some(journal);
        if let Some(taken) = taken {
            self.report.taken = taken.taken;
            self.report.archived = taken.archived;
            self.report.refused = taken.refused;
            self.report.functions.taken = taken.functions;
            self.report.functions.restored = taken.functions;
            self.damaged = taken.damaged.into_iter().collect();
        }
        self
    }

    /// Everything that came so far goes to the file, and then the journal says so.
    fn note(&mut self, checkpoint: Checkpoint) -> Result<()> {
        let writer = self.writer()?;
        writer.flush_frame().context("write the archive")?;
        let (bytes, archive_id) = (writer.bytes_written(), writer.archive_id());
        let noted = Noted {
            bytes,
            archive_id,
            checkpoint,
            taken: Taken {
                taken: self.report.taken,
                archived: self.report.archived,
                refused: self.report.refused,
                functions: self.report.functions.taken,
                damaged: self.damaged.iter().map(|(db, keys)| (*db, *keys)).collect(),
            },
        };
        match &mut self.journal {
            Some(journal) => journal.note(&noted),
            None => Ok(()),
        }
    }

    /// Closes and flushes a frame at the latest after so long, for a reader that follows.
    #[must_use]
    pub fn flushing_every(mut self, every: Duration) -> Self {
        self.flush = Some((every, Instant::now()));
        self
    }

    fn put(&mut self, mut record: Record, context: &Context) -> Result<()> {
        match &mut record {
            Record::Functions(_) => {
                self.report.functions.taken += 1;
                self.report.functions.restored += 1;
            }
            Record::Key(key) => {
                self.report.taken += 1;
                if let Value::Verbatim(dump) = &mut key.value
                    && !self.verbatim
                {
                    match compacted(dump, context, &mut self.scratch) {
                        Ok(true) => {
                            std::mem::swap(dump, &mut self.scratch);
                            let body = std::mem::take(dump);
                            key.value = Value::Compact(body);
                        }
                        Ok(false) => {}
                        Err(reason) => {
                            self.report.refused += 1;
                            *self.damaged.entry(key.db).or_default() += 1;
                            return self.observer.key_failed(&KeyFailure {
                                db: key.db,
                                key: std::mem::take(&mut key.key),
                                kind: FailureKind::Unread,
                                reason: format!("its DUMP payload is damaged: {reason}"),
                                hint: None,
                            });
                        }
                    }
                    if self.scratch.capacity() > KEPT_SCRATCH_BYTES {
                        self.scratch = Vec::new();
                    }
                }
                self.report.archived += 1;
            }
            _ => {
                self.report.taken += 1;
                self.report.archived += 1;
            }
        }
        self.writer()?.write(&record).context("write the archive")?;
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
        }
        EndFacts {
            reached: source.reached.clone().unwrap_or(ConsistencyReached::Scan {
                from_ms: source.started_ms,
                to_ms: now_ms(),
            }),
            counts,
            duplicates_possible: source.duplicates_possible,
            started_ms: source.started_ms,
            finished_ms: now_ms(),
        }
    }
}

/// Checks a payload and puts its compact form into `out`; `false` if it must stay as it is.
fn compacted(dump: &[u8], context: &Context, out: &mut Vec<u8>) -> Result<bool, String> {
    let (body, rdb_version) = payload::split(dump).map_err(|error| error.to_string())?;
    if rdb_version != context.rdb_version {
        return Ok(false);
    }
    out.clear();
    // What cannot be walked to its end travels as it is: module values, types of the future.
    Ok(payload::compact(body, context.family, out).is_ok())
}

impl<W: Write + Send> Sink for ArchiveSink<W> {
    fn write(&mut self, mut batch: Batch) -> Result<()> {
        let checkpoint = batch.checkpoint.take();
        let context = batch.context;
        self.writer()?
            .set_context(context)
            .context("write the archive")?;
        for record in batch.records {
            self.put(record, &context)?;
        }
        if let Some((every, last)) = &mut self.flush
            && last.elapsed() >= *every
        {
            *last = Instant::now();
            self.writer()?.flush_frame().context("write the archive")?;
        }
        if let Some(checkpoint) = checkpoint {
            self.note(*checkpoint)?;
        }
        let bytes = self.writer()?.bytes_written();
        self.observer.progress.archive_bytes.store(bytes, Relaxed);
        Ok(())
    }

    fn finish(mut self: Box<Self>, source: &SourceReport) -> (SinkReport, Result<()>) {
        let facts = self.end_facts(source);
        let mut report = self.report;
        let Some(writer) = self.writer.take() else {
            return (report, Err(anyhow!("the archive is closed already")));
        };
        let finished = match writer.finish(facts) {
            Ok(finished) => finished,
            Err(error) => {
                return (
                    report,
                    Err(anyhow::Error::new(error).context("complete the archive")),
                );
            }
        };
        let mut written = ArchiveWritten {
            archive_id: finished.archive_id,
            bytes: finished.bytes,
            sha256: hex(&finished.sha256),
            encrypted: false,
        };
        let done = (self.commit)(finished.inner).context("complete the archive");
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
