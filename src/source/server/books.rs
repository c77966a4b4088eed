//! What became of each key: counted, told, remembered.

use std::sync::Arc;

use anyhow::Result;

use super::ServerSourceOptions;
use super::delivered::Given;
use super::reader::Dump;
use crate::ledger::{CountsByDb, SourceCounts};
use crate::observer::{FailureKind, KeyFailure, Observer};
use crate::payload;
use crate::record::{Batch, KeyRecord, Record, Value, larger_than};
use crate::select::type_of;
use crate::server::facts::Facts;
use crate::server::resp::VALUE_LIMIT;
use crate::size;
use crate::units::bytes_text;

/// Why a key is not read that stands, and of which DUMP says nothing.
const WITHHELD: &str =
    "it is there, but the server answers DUMP as if it were not: it dumps no values of this type";

/// A key of a database.
#[derive(Debug)]
pub(super) struct DbKey {
    pub db: u32,
    pub key: Vec<u8>,
}

/// The counts, what was given, and what could not be read.
pub(super) struct Books {
    counts: CountsByDb,
    /// Of the failed ones, those whose values are larger than `--max-value` allows.
    above_max_value: u64,
    /// What was given, where that is to be followed up.
    given: Option<Given>,
    /// Keys that were given and cannot be read any more: they go out at the next occasion.
    tombstones: Vec<Record>,
    scratch: Vec<u8>,
    options: Arc<ServerSourceOptions>,
    observer: Arc<Observer>,
}

impl Books {
    pub fn new(options: Arc<ServerSourceOptions>, observer: Arc<Observer>) -> Self {
        Self {
            counts: CountsByDb::default(),
            above_max_value: 0,
            given: None,
            tombstones: Vec::new(),
            scratch: Vec::new(),
            options,
            observer,
        }
    }

    /// From now on it is remembered what is given; `with_log`: also by name.
    pub fn remember_given(&mut self, with_log: bool) -> Result<()> {
        self.given = Some(Given::new(with_log)?);
        Ok(())
    }

    pub fn given(&self) -> Option<&Given> {
        self.given.as_ref()
    }

    pub fn given_mut(&mut self) -> Option<&mut Given> {
        self.given.as_mut()
    }

    pub fn rows(&self) -> Vec<SourceCounts> {
        self.counts.rows()
    }

    pub fn above_max_value(&self) -> u64 {
        self.above_max_value
    }

    /// How many records were given.
    pub fn written(&self) -> u64 {
        self.counts.rows().iter().map(|row| row.written).sum()
    }

    /// Goes on with the counts of an earlier run.
    pub fn go_on_with(&mut self, row: SourceCounts) {
        *self.counts.of(row.db) = row;
    }

    /// The database is read: it has a row, be it of zeros.
    pub fn open_row(&mut self, db: u32) {
        self.counts.of(db);
    }

    /// SCAN returned so many names, of which so many are to be read.
    pub fn scanned(&mut self, db: u32, names: u64, wanted: u64) {
        let counts = self.counts.of(db);
        counts.scanned += names;
        counts.filtered += names - wanted;
    }

    /// So many keys of the database were never reached.
    pub fn not_reached(&mut self, db: u32, keys: u64) {
        let counts = self.counts.of(db);
        counts.scanned += keys;
        counts.failed += keys;
    }

    /// So many keys are read again.
    pub fn read_again(&mut self, db: u32, keys: usize) {
        self.counts.of(db).reread += keys as u64;
    }

    /// Another reading of so many keys counts instead of this one.
    pub fn superseded(&mut self, db: u32, keys: usize) {
        if keys > 0 {
            self.counts.of(db).superseded += keys as u64;
        }
    }

    /// These records were read and are not given: they did not happen.
    pub fn put_back(&mut self, batch: &Batch) {
        for record in &batch.records {
            let db = match record {
                Record::Key(key) => key.db,
                Record::Deleted { db, .. } => *db,
                _ => continue,
            };
            let counts = self.counts.of(db);
            counts.written -= 1;
            counts.superseded += 1;
        }
    }

    /// Gives a key, or leaves it out if the selection says so; whether it was given. `now_ms` is the
    /// server's clock.
    pub fn give(
        &mut self,
        DbKey { db, key }: DbKey,
        dump: Dump,
        (facts, now_ms): (&Facts, u64),
        batch: &mut Batch,
    ) -> Result<bool> {
        let payload = facts.dumped(dump.payload);
        let selection = &self.options.selection;
        let kind = type_of(facts.family, &payload);
        let size = match selection.needs_size() {
            true => size::of_dump(&payload, facts.family, &mut self.scratch),
            false => 0,
        };
        if !selection.wants_value(&kind, size, dump.expire_at_ms, now_ms) {
            self.leave_out(db, &key, &payload, facts, batch)?;
            return Ok(false);
        }
        self.recovers(db, &key)?;
        self.counts.of(db).written += 1;
        if let Some(given) = &mut self.given {
            given.note(facts.family, db, &key, &payload)?;
        }
        batch.push(Record::Key(KeyRecord {
            db,
            key,
            value: Value::Verbatim(payload),
            expire_at_ms: dump.expire_at_ms,
            eviction: dump.eviction,
        }));
        Ok(true)
    }

    /// The selection says so.
    fn leave_out(
        &mut self,
        db: u32,
        key: &[u8],
        payload: &[u8],
        facts: &Facts,
        batch: &mut Batch,
    ) -> Result<()> {
        self.recovers(db, key)?;
        // It may have been given when it was something else.
        if self.was_given(db, key)? {
            self.gone(
                DbKey {
                    db,
                    key: key.to_vec(),
                },
                batch,
            )?;
        } else {
            self.counts.of(db).filtered += 1;
        }
        // Its size may become another one unheard.
        if self.options.selection.needs_size()
            && let Some(given) = &mut self.given
        {
            given.note_unheard(facts.family, db, key, payload);
        }
        Ok(())
    }

    fn was_given(&mut self, db: u32, key: &[u8]) -> Result<bool> {
        self.given
            .as_mut()
            .map_or(Ok(false), |given| given.knows(db, key))
    }

    /// A key that is not there: vanished since its name was read, or gone after it was given.
    pub fn gone(&mut self, DbKey { db, key }: DbKey, batch: &mut Batch) -> Result<()> {
        self.recovers(db, &key)?;
        if let Some(given) = &mut self.given {
            given.forget_unheard(db, &key);
        }
        if !self.was_given(db, &key)? {
            self.counts.of(db).vanished += 1;
            return Ok(());
        }
        self.counts.of(db).written += 1;
        batch.push(Record::Deleted { db, key });
        Ok(())
    }

    /// The largest payload that is taken.
    pub fn max_value(&self) -> usize {
        let max = self.options.max_value_bytes;
        max.map_or(VALUE_LIMIT, |max| {
            let payload = max.saturating_add(payload::FOOTER_LEN as u64);
            usize::try_from(payload).unwrap_or(usize::MAX)
        })
    }

    /// A value of so many bytes, which is more than is taken.
    pub fn fail_as_too_long(&mut self, key: DbKey, bytes: u64) -> Result<()> {
        if !self.count_failure(&key, true)? {
            return Ok(());
        }
        let (reason, hint) = match self.options.max_value_bytes {
            Some(max) => (larger_than(max), None),
            None => (
                format!(
                    "its value takes {}, and the limit is {}",
                    bytes_text(bytes),
                    bytes_text(self.max_value() as u64)
                ),
                Some("--max-value SIZE sets the limit"),
            ),
        };
        self.tell_failure(key, reason, hint)
    }

    /// The server dumps no values of its type.
    pub fn fail_as_withheld(&mut self, key: DbKey) -> Result<()> {
        self.fail(key, WITHHELD)
    }

    /// It cannot be read, in the server's words or ours.
    pub fn fail(&mut self, key: DbKey, reason: &str) -> Result<()> {
        let hint = reason
            .starts_with("NOPERM")
            .then_some("the user needs DUMP, PTTL, PEXPIRETIME and TIME on this key");
        self.fail_with(key, reason.to_owned(), hint)
    }

    pub fn fail_with(&mut self, key: DbKey, reason: String, hint: Option<&str>) -> Result<()> {
        match self.count_failure(&key, false)? {
            true => self.tell_failure(key, reason, hint),
            false => Ok(()),
        }
    }

    fn tell_failure(&self, key: DbKey, reason: String, hint: Option<&str>) -> Result<()> {
        self.observer.key_failed(&KeyFailure {
            db: key.db,
            key: key.key,
            kind: FailureKind::Unread,
            reason,
            hint: hint.map(str::to_owned),
        })
    }

    /// A key that counted as read again elsewhere cannot be read there either.
    pub fn fail_superseded(
        &mut self,
        key: DbKey,
        reason: String,
        hint: Option<&str>,
    ) -> Result<()> {
        self.counts.of(key.db).superseded -= 1;
        self.fail_with(key, reason, hint)
    }

    /// Counts a key that cannot be read; `false` if that was counted, and said, before. If it was
    /// given earlier, a tombstone takes that back where that is wanted: what was given may no longer
    /// be what it holds.
    fn count_failure(&mut self, DbKey { db, key }: &DbKey, is_too_large: bool) -> Result<bool> {
        let counts = self.counts.of(*db);
        if let Some(given) = &mut self.given {
            if self.options.takes_back && given.knows(*db, key)? {
                // Besides the failure, so that each of both is accounted for.
                counts.reread += 1;
                counts.written += 1;
                let (db, key) = (*db, key.clone());
                self.tombstones.push(Record::Deleted { db, key });
            }
            if !given.fails(*db, key, is_too_large)? {
                counts.superseded += 1;
                return Ok(false);
            }
        }
        counts.failed += 1;
        self.above_max_value += u64::from(is_too_large && self.options.max_value_bytes.is_some());
        Ok(true)
    }

    /// A key was read or is gone: if it could not be read before, that failure counts no more.
    fn recovers(&mut self, db: u32, key: &[u8]) -> Result<()> {
        let Some(given) = &mut self.given else {
            return Ok(());
        };
        let Some(was_too_large) = given.recovers(db, key)? else {
            return Ok(());
        };
        let counts = self.counts.of(db);
        counts.failed -= 1;
        counts.superseded += 1;
        self.above_max_value -= u64::from(was_too_large && self.options.max_value_bytes.is_some());
        self.observer.key_recovered(db, key)
    }

    /// Hands on what takes back what was given of keys that cannot be read any more.
    pub fn give_tombstones(&mut self, batch: &mut Batch) {
        if self.tombstones.is_empty() {
            return;
        }
        for tombstone in self.tombstones.drain(..) {
            batch.push(tombstone);
        }
    }

    /// What was given so far is gone with the server's process. That is no reason to delete it.
    pub fn delete_nothing_for_loss(&mut self) {
        if let Some(given) = &mut self.given {
            given.all_lost();
        }
    }
}
