//! What a run wrote, as rows: what the destination is held against at its end.
//!
//! A key counts once the destination has accepted it, or was seen to hold it already, so keys that
//! were refused, skipped, left alone or past their time are not expected, and nothing has to be said about them.

use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::Result;

use super::collect::{gone, library, row_of_key};
use super::meaning::Reading;
use super::row::What;
use super::store::Store;
use crate::ledger::Deletions;
use crate::payload::{self, FieldFate};
use crate::record::{Family, KeyRecord, Origin, Value};
use crate::sink::{Accepted, FieldTtls, Landed};

/// What was written so far.
#[derive(Debug)]
pub(crate) struct Written {
    /// How values are read.
    pub reading: Reading,
    /// The rows.
    pub store: Store,
    /// Databases that were written to, or deleted from.
    pub dbs: Vec<u32>,
    /// Function libraries among the rows.
    pub libraries: u64,
}

impl Written {
    fn enter(&mut self, db: u32) {
        if !self.dbs.contains(&db) {
            self.dbs.push(db);
        }
    }
}

/// The memory of a run, shared by the sink that fills it and the verb that reads it afterwards.
pub(crate) type Memory = Arc<Mutex<Written>>;

/// Nothing written yet.
pub(crate) fn memory() -> Memory {
    Arc::new(Mutex::new(Written {
        reading: Reading {
            prints: super::Prints::default(),
            from_ms: 0,
        },
        store: Store::new(),
        dbs: Vec::new(),
        libraries: 0,
    }))
}

/// The memory, whatever happened to its other holder.
pub(crate) fn lock(memory: &Memory) -> MutexGuard<'_, Written> {
    memory.lock().unwrap_or_else(|error| error.into_inner())
}

/// Remembers what is accepted, and tells who else wants to know.
pub(crate) struct Remember {
    memory: Memory,
    then: Option<Box<dyn Accepted>>,
}

impl Remember {
    /// Fills `own_writes`.
    pub(crate) fn new(memory: &Memory, then: Option<Box<dyn Accepted>>) -> Self {
        Self {
            memory: Arc::clone(memory),
            then,
        }
    }

    /// The destination holds this from now on.
    fn expect(&self, origin: &Origin, record: &KeyRecord, landed: &Landed) -> Result<()> {
        let mut written = lock(&self.memory);
        written.enter(record.db);
        let (family, value, expire_at_ms) = match &landed.seen {
            Some(seen) => (seen.family, &seen.value, seen.expire_at_ms),
            None => (origin.family, &record.value, record.expire_at_ms),
        };
        let refielded = refielded(family, value, landed.field_ttls);
        let value = refielded.as_ref().unwrap_or(value);
        let (kind, mut meaning) = written.reading.value(family, value);
        meaning.keeps_metadata = landed.keeps_metadata;
        for beside in &mut meaning.metadata {
            beside.left_out = landed.classes_left_out.contains(&beside.class);
        }
        let what = What::Key(kind);
        let mut row = row_of_key(&written.reading.prints, record, what, meaning, true);
        row.expire_at_ms = expire_at_ms;
        written.store.add(&row)
    }
}

/// The value with the expiry of fields that the destination gave it; `None` if it is the same.
fn refielded(family: Family, value: &Value, field_ttls: FieldTtls) -> Option<Value> {
    let fate = |at_ms: u64| match field_ttls {
        FieldTtls::Kept => Some(at_ms),
        FieldTtls::AtMost(max_ms) => Some(at_ms.min(max_ms)),
        FieldTtls::Lost => None,
    };
    if field_ttls == FieldTtls::Kept {
        return None;
    }
    let body = payload::body_with_field_expiry(family, value)?;
    let done = payload::refield(family, body, |at_ms| FieldFate::Expires(fate(at_ms)));
    Some(Value::Compact(done.ok()??.value))
}

impl Accepted for Remember {
    fn accepted(&mut self, origin: Origin, record: KeyRecord, landed: Landed) -> Result<()> {
        self.expect(&origin, &record, &landed)?;
        match &mut self.then {
            Some(then) => then.accepted(origin, record, landed),
            None => Ok(()),
        }
    }

    fn stands(&mut self, origin: Origin, record: KeyRecord, landed: Landed) -> Result<()> {
        self.expect(&origin, &record, &landed)?;
        match &mut self.then {
            Some(then) => then.stands(origin, record, landed),
            None => Ok(()),
        }
    }

    fn compares(&self) -> bool {
        self.then.as_ref().is_some_and(|then| then.compares())
    }

    fn left(&mut self, keys: u64) {
        if let Some(then) = &mut self.then {
            then.left(keys);
        }
    }

    fn deleted(&mut self, db: u32, key: &[u8]) -> Result<()> {
        let mut written = lock(&self.memory);
        written.enter(db);
        let row = gone(&written.reading.prints, db, key.to_vec());
        written.store.add(&row)?;
        drop(written);
        match &mut self.then {
            Some(then) => then.deleted(db, key),
            None => Ok(()),
        }
    }

    fn library(&mut self, name: &str, code: &[u8]) -> Result<()> {
        let mut written = lock(&self.memory);
        let row = library(&written.reading, name.as_bytes(), code);
        written.libraries += 1;
        written.store.add(&row)?;
        drop(written);
        match &mut self.then {
            Some(then) => then.library(name, code),
            None => Ok(()),
        }
    }

    fn halt(&mut self, why: &str) -> Result<()> {
        self.then.as_mut().map_or(Ok(()), |then| then.halt(why))
    }

    fn finish(&mut self) -> Result<()> {
        self.then.as_mut().map_or(Ok(()), |then| then.finish())
    }

    fn counts(&self) -> Deletions {
        let then = self.then.as_ref();
        then.map_or_else(Deletions::default, |then| then.counts())
    }
}
