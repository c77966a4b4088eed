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
use crate::record::{Family, KeyRecord, Origin};
use crate::sink::Accepted;

/// What was written so far.
#[derive(Debug)]
pub struct Written {
    /// How values are read.
    pub reading: Reading,
    /// The rows.
    pub store: Store,
    /// Databases that were written to.
    pub dbs: Vec<u32>,
    /// Function libraries among the rows.
    pub libraries: u64,
    /// The server that wrote the values.
    family: Family,
}

/// The memory of a run, shared by the sink that fills it and the verb that reads it afterwards.
pub type Memory = Arc<Mutex<Written>>;

/// Nothing written yet. Values come from servers of `family`.
pub fn memory(family: Family, now_ms: u64) -> Memory {
    Arc::new(Mutex::new(Written {
        reading: Reading {
            prints: super::Prints::default(),
            from_ms: now_ms,
        },
        store: Store::new(),
        dbs: Vec::new(),
        libraries: 0,
        family,
    }))
}

/// The memory, whatever happened to its other holder.
pub fn lock(memory: &Memory) -> MutexGuard<'_, Written> {
    memory.lock().unwrap_or_else(|error| error.into_inner())
}

/// Remembers what is accepted, and tells who else wants to know.
pub struct Remember {
    memory: Memory,
    then: Option<Box<dyn Accepted>>,
}

impl Remember {
    /// Fills `memory`.
    pub fn new(memory: &Memory, then: Option<Box<dyn Accepted>>) -> Self {
        Self {
            memory: Arc::clone(memory),
            then,
        }
    }

    /// The destination holds this from now on.
    fn expect(&self, record: &KeyRecord) -> Result<()> {
        let mut written = lock(&self.memory);
        if !written.dbs.contains(&record.db) {
            written.dbs.push(record.db);
        }
        let (kind, meaning) = written.reading.value(written.family, &record.value);
        let what = What::Key(kind);
        let row = row_of_key(&written.reading.prints, record, what, meaning, true);
        written.store.add(&row)
    }
}

impl Accepted for Remember {
    fn accepted(&mut self, origin: Origin, record: KeyRecord) -> Result<()> {
        self.expect(&record)?;
        match &mut self.then {
            Some(then) => then.accepted(origin, record),
            None => Ok(()),
        }
    }

    fn stands(&mut self, origin: Origin, record: KeyRecord) -> Result<()> {
        self.expect(&record)?;
        match &mut self.then {
            Some(then) => then.stands(origin, record),
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
        let row = gone(&written.reading.prints, db, key.to_vec());
        written.store.add(&row)
    }

    fn library(&mut self, name: &str, code: &[u8]) -> Result<()> {
        let mut written = lock(&self.memory);
        let row = library(&written.reading, name.as_bytes(), code);
        written.libraries += 1;
        written.store.add(&row)
    }

    fn finish(&mut self) -> Result<()> {
        self.then.as_mut().map_or(Ok(()), |then| then.finish())
    }

    fn counts(&self) -> (u64, u64) {
        self.then.as_ref().map_or((0, 0), |then| then.counts())
    }
}
