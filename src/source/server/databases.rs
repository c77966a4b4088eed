//! From one database to the next. Nothing is asked of one before the connection was proved to be in
//! it; one that is not to be had is named and counted, and the others are read.

use anyhow::{Result, anyhow};

use super::probe::NotHad;
use super::{Job, ServerSource, ServerSourceOptions};
use crate::server::facts::{Facts, Keyspace};
use crate::units::{count_text, plural};

impl ServerSource {
    /// Goes to the present database, and proves it. If it is not to be had any more, what was still
    /// to be read of it counts as failed, by name where names are known, and nothing is left to be
    /// asked of it.
    ///
    /// # Errors
    /// The connection's, and the observer's.
    pub(super) fn enter(&mut self) -> Result<()> {
        if self.conn.database() == Some(self.db) {
            return Ok(());
        }
        if !self.sent.is_empty() || !self.awaited.is_empty() {
            return Err(anyhow!(
                "replies of another database are still to come; this is a bug"
            ));
        }
        let mut gone_to = self.conn.select(self.db)?;
        if self.db == 0 && gone_to.is_err() {
            // Every new connection is in database 0, also where SELECT is refused.
            self.conn.renew()?;
            if self.conn.database() == Some(0) {
                gone_to = Ok(());
            }
        }
        match gone_to {
            Ok(()) => Ok(()),
            Err(reason) => self.lose_database(&reason),
        }
    }

    /// The present database cannot be gone to, though it could before, or turned up later.
    fn lose_database(&mut self, reason: &str) -> Result<()> {
        let db = self.db;
        let is_begun = self.cursor.as_deref().is_none_or(|cursor| cursor != b"0");
        self.cursor = None;
        let keys = self.databases.iter().find(|row| row.db == db);
        let keys = keys.map_or(0, |row| row.keys);
        let text = match is_begun {
            true => format!(
                "database {db} cannot be gone to any more ({reason}): what was not read of it by \
                 then is missing"
            ),
            false => {
                let counts = self.counts.of(db);
                counts.scanned += keys;
                counts.failed += keys;
                let keys = plural(keys, "key");
                format!("database {db} ({keys}) is not read: it cannot be gone to ({reason})")
            }
        };
        self.observer.warn(&text);
        self.lost_dbs.push(db);
        self.unread.push(text.clone());
        self.incomplete.get_or_insert(text);
        while let Some(key) = self.keys.pop_front() {
            self.fail(key, &format!("SELECT {db} is refused: {reason}"))?;
        }
        Ok(())
    }

    /// Those that are wanted and not to be had: in the ledger, and exit code 3.
    pub(super) fn count_not_had(&mut self, not_had: Vec<NotHad>) {
        for row in &not_had {
            let keys = row.keys.unwrap_or(0);
            let counts = self.counts.of(row.db);
            counts.scanned += keys;
            counts.failed += keys;
            let what = match row.keys {
                Some(keys) => plural(keys, "key"),
                None => "it is not known how many keys".to_owned(),
            };
            self.unread.push(format!(
                "database {} ({what}) was not read: {}",
                row.db, row.reason
            ));
        }
        self.not_had.extend(not_had);
    }

    /// Whether it is read, or known not to be had.
    pub(super) fn knows_database(&self, db: u32) -> bool {
        self.databases.iter().any(|row| row.db == db) || self.not_had.iter().any(|row| row.db == db)
    }

    /// From now on these are read too, as far as they are wanted and not known.
    pub(super) fn learn_databases(&mut self, rows: &[Keyspace]) {
        for row in rows {
            if self.options.selection.wants_db(row.db) && !self.knows_database(row.db) {
                self.databases.push(*row);
            }
        }
    }

    /// The databases that are wanted and cannot be read.
    pub fn databases_not_had(&self) -> Vec<u32> {
        self.not_had.iter().map(|row| row.db).collect()
    }

    /// Function libraries that the server may have, and that are not to be had.
    pub(super) fn libraries_unread(&mut self, reason: &str) {
        self.libraries_unread
            .get_or_insert_with(|| libraries_unread(reason));
    }

    /// After the connection was lost, and a server was found that is another process, or may be:
    /// what it no longer has and was not read before is missing, and has to be said.
    ///
    /// # Errors
    /// The connection's.
    pub(super) fn look_for_loss(&mut self, facts: &Facts) -> Result<()> {
        let scans = self.waiting.iter().filter_map(|job| match job {
            Job::Scan(db) => Some(*db),
            Job::Names(..) => None,
        });
        let mut open: Vec<u32> = scans.collect();
        if self.cursor.is_some() || !self.keys.is_empty() {
            open.push(self.db);
        }
        if self.abandoned {
            // Everything is read anew.
            open = self.databases.iter().map(|row| row.db).collect();
        }
        for db in open {
            let Some(before) = self.databases.iter().find(|row| row.db == db).copied() else {
                continue;
            };
            let now = match &facts.keyspace {
                Some(rows) => Some(
                    rows.iter()
                        .find(|row| row.db == db)
                        .map_or(0, |row| row.keys),
                ),
                None if self.conn.select(db)?.is_ok() => super::probe::count_keys(&mut self.conn)?,
                None => None,
            };
            // Keys of a cluster's node may be on another by now.
            let is_node = self.cluster.is_some();
            let is_less = |now: u64| match is_node {
                false => now < before.keys,
                true => now == 0 && before.keys > 0,
            };
            if now == Some(0) && before.keys > 0 {
                self.no_deletes_for_loss();
            }
            let text = match now {
                Some(now) if is_less(now) => format!(
                    "the source was restarted, or is another one: database {db} had {} keys when \
                     it was opened, and {} then; what it lost and was not read before is missing",
                    count_text(before.keys),
                    count_text(now)
                ),
                Some(_) => continue,
                None => format!(
                    "the connection was lost, and the source tells neither its run_id nor DBSIZE: \
                     whether it was restarted, and lost keys of database {db}, is not known"
                ),
            };
            self.keys_were_lost(text);
            if let Some(now) = now
                && let Some(row) = self.databases.iter_mut().find(|row| row.db == db)
            {
                row.keys = now;
            }
        }
        Ok(())
    }

    /// Some of what the server held was lost: that is said, and what is read is never exact.
    fn keys_were_lost(&mut self, text: String) {
        self.observer.warn(&text);
        self.unread.push(text.clone());
        self.incomplete.get_or_insert(text);
    }

    /// What was given so far is gone with the server's process. That is no reason to delete it.
    fn no_deletes_for_loss(&mut self) {
        if let Some(given) = &mut self.given {
            given.all_lost();
        }
    }

    /// All that the server held was lost, as `text` says. Nothing is deleted for it.
    pub(in crate::source) fn all_keys_were_lost(&mut self, text: String) {
        self.keys_were_lost(text);
        self.no_deletes_for_loss();
    }

    /// Whether the server holds no key of the databases that are read. Nothing may be in flight.
    ///
    /// # Errors
    /// The connection's.
    pub(in crate::source) fn holds_nothing(&mut self, facts: &Facts) -> Result<bool> {
        if let Some(rows) = &facts.keyspace {
            let wanted = |row: &&Keyspace| self.options.selection.wants_db(row.db);
            return Ok(rows.iter().filter(wanted).all(|row| row.keys == 0));
        }
        let dbs: Vec<u32> = self.databases.iter().map(|row| row.db).collect();
        for db in dbs {
            let is_there = self.conn.database() == Some(db) || self.conn.select(db)?.is_ok();
            if !is_there || !super::probe::is_empty(&mut self.conn)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What the database that the URL names leaves out, where the server tells.
pub(super) fn left_out(facts: &Facts, options: &ServerSourceOptions) -> Option<String> {
    let db = options.db_of_url?;
    let others = facts.keyspace.as_ref()?.iter().filter(|row| row.db != db);
    let (count, keys) = others.fold((0u64, 0u64), |(count, keys), row| {
        (count + 1, keys + row.keys)
    });
    (count > 0).then(|| {
        let were = if keys == 1 { "was" } else { "were" };
        format!(
            "database {db} only, as the URL says; {} in {} {were} not read",
            plural(keys, "key"),
            plural(count, "other database")
        )
    })
}

/// What can be done about it that function libraries were not read.
const WITHOUT_LIBRARIES: &str = "; --no-functions leaves them out";

/// That function libraries were not read, and why.
pub(in crate::source) fn libraries_unread(reason: &str) -> String {
    format!("function libraries were not read ({reason}){WITHOUT_LIBRARIES}")
}

/// The same for a verb that has no such option.
pub fn without_hint(line: &str) -> &str {
    line.strip_suffix(WITHOUT_LIBRARIES).unwrap_or(line)
}
