//! The counts that END holds and that a reader makes again for itself.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::header::{DbTotals, End};
use crate::limits::MAX_DATABASES;
use crate::record::{Context, Glance, Record};

/// Counts so far.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    per_db: BTreeMap<u32, DbTotals>,
    pub(crate) records: u64,
    functions: u64,
    rdb_versions: Option<(u16, u16)>,
}

/// There are more databases than an archive may have.
#[derive(Debug)]
pub(crate) struct TooManyDatabases;

impl Totals {
    pub(crate) fn count(&mut self, record: &Record) -> Result<(), TooManyDatabases> {
        self.count_sized(record, None)
    }

    /// Counts a record of whose value only the beginning may be there: `value_len` is its length.
    pub(crate) fn count_sized(
        &mut self,
        record: &Record,
        value_len: Option<u64>,
    ) -> Result<(), TooManyDatabases> {
        self.glance(&record.glance(value_len))
    }

    /// Counts what was only looked at.
    pub(crate) fn glance(&mut self, record: &Glance<'_>) -> Result<(), TooManyDatabases> {
        match *record {
            Glance::Key {
                db,
                key,
                value_len,
                expires,
            } => {
                let db = self.db(db)?;
                db.records += 1;
                db.with_ttl += u64::from(expires);
                db.key_bytes += key.len() as u64;
                db.value_bytes += value_len;
            }
            Glance::Deleted { db, .. } => self.db(db)?.tombstones += 1,
            Glance::Functions => self.functions += 1,
        }
        self.records += 1;
        Ok(())
    }

    pub(crate) fn context(&mut self, context: &Context) {
        let version = context.rdb_version;
        let (min, max) = self.rdb_versions.unwrap_or((version, version));
        self.rdb_versions = Some((min.min(version), max.max(version)));
    }

    fn db(&mut self, db: u32) -> Result<&mut DbTotals, TooManyDatabases> {
        let room = self.per_db.len() < MAX_DATABASES;
        match self.per_db.entry(db) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) if room => Ok(entry.insert(DbTotals {
                db,
                ..DbTotals::default()
            })),
            Entry::Vacant(_) => Err(TooManyDatabases),
        }
    }

    pub(crate) fn per_db(&self) -> Vec<DbTotals> {
        self.per_db.values().copied().collect()
    }

    pub(crate) fn functions(&self) -> u64 {
        self.functions
    }

    pub(crate) fn rdb_versions(&self) -> (u16, u16) {
        self.rdb_versions.unwrap_or((0, 0))
    }

    /// Compares with an END. The error names the field, what it says and what is right.
    pub(crate) fn check(&self, end: &End) -> Result<(), (&'static str, String)> {
        let same = |field, found: u64, due: u64| {
            if found == due {
                Ok(())
            } else {
                Err((field, format!("END says {found}, the archive has {due}")))
            }
        };
        same("records", end.records, self.records)?;
        same("functions", end.functions, self.functions)?;
        same(
            "rdb_version_min",
            end.rdb_versions.0.into(),
            self.rdb_versions().0.into(),
        )?;
        same(
            "rdb_version_max",
            end.rdb_versions.1.into(),
            self.rdb_versions().1.into(),
        )?;
        if end.per_db != self.per_db() {
            return Err((
                "per_db",
                "the totals by database are not those of the archive".into(),
            ));
        }
        self.check_written(end).map_err(|what| ("counts", what))
    }

    /// The exporter's counts must agree with the archive where both know the same thing.
    pub(crate) fn check_written(&self, end: &End) -> Result<(), String> {
        let mut before = None;
        for counts in &end.facts.counts {
            if before.is_some_and(|db| db >= counts.db) {
                return Err("the exporter's counts are not in ascending order of databases".into());
            }
            before = Some(counts.db);
            let here = self
                .per_db
                .get(&counts.db)
                .map_or(0, |db| db.records + db.tombstones);
            if counts.written != here {
                return Err(format!(
                    "the exporter counted {} records of database {}, the archive has {here}",
                    counts.written, counts.db
                ));
            }
        }
        Ok(())
    }
}
