//! What the pipe tells of itself: counters for progress, events, and the journal of keys that
//! could not be moved. Nothing here prints; `ui` does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::errors_file::{ErrorsFile, ErrorsPlace};
use crate::record::show_key;
use crate::units::{hex, plural};
use crate::version::SCHEMA_VERSION;

/// Why a key is in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The source refused to give it.
    Unread,
    /// It existed at the destination before this run first wrote it.
    Conflict,
    /// The destination refused it, or the tool refused to send it.
    Refused,
    /// The destination accepted it, and does not hold what was written (`--verify`).
    Different,
    /// The destination accepted it, and it cannot be told whether it holds what was written
    /// (`--verify`).
    Incomparable,
    /// It was archived as it is, and no destination should be given it.
    Damaged,
}

impl FailureKind {
    /// The word used in journals and JSON.
    pub fn name(self) -> &'static str {
        match self {
            FailureKind::Unread => "unread",
            FailureKind::Conflict => "conflict",
            FailureKind::Refused => "refused",
            FailureKind::Different => "different",
            FailureKind::Incomparable => "incomparable",
            FailureKind::Damaged => "damaged",
        }
    }
}

/// One key that could not be moved.
#[derive(Debug, Clone)]
pub struct KeyFailure {
    /// Database.
    pub db: u32,
    /// Key.
    pub key: Vec<u8>,
    /// What kind of failure.
    pub kind: FailureKind,
    /// What happened, one line; the server's own words where there are any.
    pub reason: String,
    /// What to do about it, where something can be done.
    pub hint: Option<String>,
}

impl KeyFailure {
    /// As events and journals have it.
    pub fn json(&self) -> Value {
        json!({
            "event": "key_failed",
            "kind": self.kind.name(),
            "db": self.db,
            "key": String::from_utf8_lossy(&self.key),
            "key_hex": hex(&self.key),
            "reason": self.reason,
            "hint": self.hint,
        })
    }

    /// In words, without its kind.
    pub fn text(&self) -> String {
        let hint = self.hint.as_ref();
        let hint = hint.map_or_else(String::new, |hint| format!(" ({hint})"));
        let key = show_key(&self.key);
        format!("db {} key {key}: {}{hint}", self.db, self.reason)
    }
}

/// What a reporter gets.
#[derive(Debug)]
pub enum Event<'a> {
    /// Something a person should know, no harm done.
    Notice(&'a str),
    /// Something a person should worry about.
    Warning(&'a str),
    /// A key could not be moved.
    KeyFailed(&'a KeyFailure),
}

/// Counters for progress; written by the pipe, read by the ui.
#[derive(Debug, Default)]
pub struct Progress {
    /// Records expected, where known; an estimate.
    pub expected_records: AtomicU64,
    /// Bytes of input expected (an archive file), where known.
    pub expected_bytes: AtomicU64,
    /// Records through the pipe.
    pub records: AtomicU64,
    /// Bytes of their keys and values.
    pub payload_bytes: AtomicU64,
    /// Bytes of archive read or written.
    pub archive_bytes: AtomicU64,
    /// How far behind, where changes are followed.
    pub following: Following,
    /// Keys in the journal.
    pub failed: AtomicU64,
}

/// How far behind each followed server is.
#[derive(Debug, Default)]
pub struct Following(Mutex<HashMap<String, Lag>>);

/// Changed keys that wait to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// How many.
    pub keys: u64,
    /// When the first of them changed; `None` if none waits.
    pub since: Option<Instant>,
}

impl Following {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Lag>> {
        self.0.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// Everything of this server was read once; this is how far behind its changes we are.
    pub fn is_at(&self, server: &str, lag: Lag) {
        let mut servers = self.lock();
        match servers.get_mut(server) {
            Some(known) => *known = lag,
            None => drop(servers.insert(server.to_owned(), lag)),
        }
    }

    /// Its changes are followed no more, or not at present.
    pub fn ends(&self, server: &str) {
        self.lock().remove(server);
    }

    /// All servers together; `None` where none is followed.
    pub fn lag(&self) -> Option<Lag> {
        self.lock().values().copied().reduce(|one, other| Lag {
            keys: one.keys + other.keys,
            since: [one.since, other.since].into_iter().flatten().min(),
        })
    }
}

/// Receives events. Implementations print, or remember for tests.
pub trait Reporter: Send + Sync {
    /// One event.
    fn event(&self, event: &Event<'_>);
}

const WRITE_ERRORS: &str = "cannot write to the --errors-to file";

/// More keys failed than `--max-errors` allows.
#[derive(Debug, thiserror::Error)]
#[error("{failed} keys failed, more than --max-errors {max} allows; stopped")]
pub struct TooManyErrors {
    /// So many.
    pub failed: u64,
    /// So many were allowed.
    pub max: u64,
}

/// What becomes of a key that could not be read.
#[derive(Debug, Clone, Copy)]
pub enum KeyNews<'a> {
    /// It could not be read.
    Failed(&'a KeyFailure),
    /// It was read after all, or is gone.
    Recovered {
        /// Its database.
        db: u32,
        /// Its name.
        key: &'a [u8],
    },
}

/// Who deals with failed keys in place of the report and the journal.
type Hear = Box<dyn Fn(KeyNews<'_>) -> Result<()> + Send + Sync>;

/// The one place that everything in the pipe reports to.
pub struct Observer {
    /// Counters.
    pub progress: Arc<Progress>,
    report: Arc<dyn Reporter>,
    hear: Option<Hear>,
    errors_file: Mutex<Option<ErrorsFile>>,
    max_errors: Option<u64>,
}

impl Observer {
    /// An observer that reports to `report`, writes failures as JSON Lines to `errors_file` and gives
    /// up after `max_errors` of them (`None`: never).
    pub fn new(
        report: Box<dyn Reporter>,
        errors_file: Option<ErrorsFile>,
        max_errors: Option<u64>,
    ) -> Self {
        Self {
            progress: Arc::default(),
            report: report.into(),
            hear: None,
            errors_file: Mutex::new(errors_file),
            max_errors,
        }
    }

    /// The same observer for a reader of one side of a comparison: `hear` gets the keys that it
    /// cannot read, and those that it then could. They are not printed, counted or journalled here, because the side may be read
    /// again, and what becomes of them is known at the end only.
    #[must_use]
    pub fn with_failures_to(
        &self,
        hear: impl Fn(KeyNews<'_>) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            progress: Arc::clone(&self.progress),
            report: Arc::clone(&self.report),
            hear: Some(Box::new(hear)),
            errors_file: Mutex::new(None),
            max_errors: None,
        }
    }

    /// Tells people something harmless.
    pub fn notice(&self, text: &str) {
        self.report.event(&Event::Notice(text));
    }

    /// Tells people something worrying.
    pub fn warn(&self, text: &str) {
        self.report.event(&Event::Warning(text));
    }

    /// Journals a key that could not be moved.
    ///
    /// # Errors
    /// [`TooManyErrors`] when that was one too many, or the journal's own write error.
    pub fn key_failed(&self, failure: &KeyFailure) -> Result<()> {
        if let Some(hear) = &self.hear {
            return hear(KeyNews::Failed(failure));
        }
        let failed = self.progress.failed.fetch_add(1, Relaxed) + 1;
        self.report.event(&Event::KeyFailed(failure));
        self.journal(failure.json())?;
        match self.max_errors {
            Some(max) if failed > max => Err(TooManyErrors { failed, max }.into()),
            _ => Ok(()),
        }
    }

    /// Takes back what [`Self::key_failed`] said of a key: it was read after all, or is gone at the
    /// source.
    ///
    /// # Errors
    /// The journal's write error.
    pub fn key_recovered(&self, db: u32, key: &[u8]) -> Result<()> {
        if let Some(hear) = &self.hear {
            return hear(KeyNews::Recovered { db, key });
        }
        self.progress.failed.fetch_sub(1, Relaxed);
        self.notice(&format!(
            "db {db} key {}: could not be read earlier; it has been read now, or no longer exists",
            show_key(key)
        ));
        self.journal(json!({
            "event": "key_recovered",
            "db": db,
            "key": String::from_utf8_lossy(key),
            "key_hex": hex(key),
        }))
    }

    /// Adds a line to the `--errors-to` file, where there is one.
    fn journal(&self, mut object: Value) -> Result<()> {
        let mut file = self.errors_file();
        let Some(file) = file.as_mut() else {
            return Ok(());
        };
        object["schema_version"] = json!(SCHEMA_VERSION);
        file.line(&crate::escape::json_text(&object))
            .context(WRITE_ERRORS)
    }

    /// Notes what a source expects to give.
    pub fn expect(&self, estimate: Estimate) {
        self.progress
            .expected_records
            .store(estimate.records.unwrap_or(0), Relaxed);
        self.progress
            .expected_bytes
            .store(estimate.bytes.unwrap_or(0), Relaxed);
    }

    /// Counts what went through the pipe.
    pub fn count(&self, records: u64, payload_bytes: u64) {
        self.progress.records.fetch_add(records, Relaxed);
        self.progress
            .payload_bytes
            .fetch_add(payload_bytes, Relaxed);
    }

    fn errors_file(&self) -> MutexGuard<'_, Option<ErrorsFile>> {
        self.errors_file.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// How far the `--errors-to` file is written, for a run that goes on with this one; `None`
    /// without such a file.
    ///
    /// # Errors
    /// The file's.
    pub fn errors_place(&self) -> Result<Option<ErrorsPlace>> {
        match self.errors_file().as_mut() {
            Some(file) => file.place().context(WRITE_ERRORS),
            None => Ok(None),
        }
    }

    /// This run does not go on with another: the `--errors-to` file is emptied.
    ///
    /// # Errors
    /// The file's.
    pub fn begin_errors_anew(&self) -> Result<()> {
        match self.errors_file().as_mut() {
            Some(file) => file.begin_anew().context(WRITE_ERRORS),
            None => Ok(()),
        }
    }

    /// This run goes on with an earlier one, in which so many keys had failed. The `--errors-to` file
    /// goes on at `place` too, or a notice says that the file does not name those keys.
    ///
    /// # Errors
    /// The file's.
    pub fn go_on_with_errors(&self, place: Option<ErrorsPlace>, failed: u64) -> Result<()> {
        let named = match self.errors_file().as_mut() {
            None => None,
            Some(file) => {
                if let Some(place) = place
                    && file.go_on(&place).context(WRITE_ERRORS)?
                {
                    return Ok(());
                }
                file.begin_anew().context(WRITE_ERRORS)?;
                Some(format!(" and not in {}", file.name().display()))
            }
        };
        if failed > 0 {
            self.notice(&format!(
                "{} failed in the earlier run: their names are in its output{}",
                plural(failed, "key"),
                named.unwrap_or_default()
            ));
        }
        Ok(())
    }
}

/// What a source expects to give; for progress only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Records.
    pub records: Option<u64>,
    /// Bytes of input.
    pub bytes: Option<u64>,
}

/// Remembers events, for tests.
#[derive(Debug, Default, Clone)]
pub struct Recording(std::sync::Arc<Mutex<Vec<String>>>);

impl Recording {
    /// What was told, one line each.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }
}

impl Reporter for Recording {
    fn event(&self, event: &Event<'_>) {
        let line = match event {
            Event::Notice(text) => format!("notice: {text}"),
            Event::Warning(text) => format!("warning: {text}"),
            Event::KeyFailed(failure) => {
                format!(
                    "{}: db {} {}: {}",
                    failure.kind.name(),
                    failure.db,
                    show_key(&failure.key),
                    failure.reason
                )
            }
        };
        self.0.lock().unwrap_or_else(|e| e.into_inner()).push(line);
    }
}
