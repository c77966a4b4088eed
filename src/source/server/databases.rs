//! The databases of the server: those that are read, and those that cannot be.

use super::probe::NotHad;
use crate::select::Selection;
use crate::server::facts::{Facts, Keyspace};
use crate::units::{count_text, plural};

/// The databases.
#[derive(Debug, Default)]
pub(super) struct Databases {
    rows: Vec<Keyspace>,
    /// Those that are wanted and could not be entered when the server was opened.
    not_had: Vec<NotHad>,
    /// Those that could be entered then, and not any more.
    lost: Vec<u32>,
}

impl Databases {
    pub fn new(rows: Vec<Keyspace>, not_had: Vec<NotHad>) -> Self {
        Self {
            rows,
            not_had,
            lost: Vec::new(),
        }
    }

    /// Those that are read.
    pub fn rows(&self) -> &[Keyspace] {
        &self.rows
    }

    pub fn numbers(&self) -> Vec<u32> {
        self.rows.iter().map(|row| row.db).collect()
    }

    /// How many keys it had when that was last asked.
    pub fn keys(&self, db: u32) -> Option<u64> {
        let row = self.rows.iter().find(|row| row.db == db);
        row.map(|row| row.keys)
    }

    pub fn note_keys(&mut self, db: u32, keys: u64) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.db == db) {
            row.keys = keys;
        }
    }

    /// All keys, as far as is known.
    pub fn all_keys(&self) -> u64 {
        self.rows.iter().map(|row| row.keys).sum()
    }

    /// Whether it is read, or known to be out of reach.
    pub fn has(&self, db: u32) -> bool {
        self.keys(db).is_some() || self.not_had.iter().any(|row| row.db == db)
    }

    /// Those of `now` that are not known yet.
    pub fn unknown_among(&self, now: &[Keyspace]) -> Vec<Keyspace> {
        now.iter()
            .filter(|row| !self.has(row.db))
            .copied()
            .collect()
    }

    pub fn add(&mut self, row: Keyspace) {
        self.rows.push(row);
    }

    /// From now on these are read too, as far as they are wanted and not known.
    pub fn learn(&mut self, rows: &[Keyspace], selection: &Selection) {
        for row in self.unknown_among(rows) {
            if selection.wants_db(row.db) {
                self.rows.push(row);
            }
        }
    }

    /// Slots may come with keys to a node that had none.
    pub fn know_database_0(&mut self) {
        if self.keys(0).is_none() {
            let row = Keyspace {
                db: 0,
                keys: 0,
                expires: 0,
            };
            self.rows.insert(0, row);
        }
    }

    /// It cannot be entered any more.
    pub fn lose(&mut self, db: u32) {
        self.lost.push(db);
    }

    /// Those that could be entered when the server was opened, and not any more.
    pub fn lost(&self) -> &[u32] {
        &self.lost
    }

    /// The databases that are wanted and cannot be read.
    pub fn not_had(&self) -> &[NotHad] {
        &self.not_had
    }
}

/// What the database that the URL names leaves out, where the server tells.
pub(super) fn left_out(facts: &Facts, db_of_url: Option<u32>) -> Option<String> {
    let db = db_of_url?;
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

/// That a database cannot be entered any more, of which something was read.
pub(super) fn cannot_be_entered_any_more(db: u32, reason: &str) -> String {
    format!(
        "database {db} can no longer be selected ({reason}): what was not read from it by then is \
         missing"
    )
}

/// What a database has lost when another process was found; `None` where it has lost nothing.
/// `now` is what it holds, where the server tells. Keys of a cluster's node may be on another by
/// now.
pub(super) fn loss(db: u32, before: u64, now: Option<u64>, is_node: bool) -> Option<String> {
    let Some(now) = now else {
        return Some(format!(
            "the connection was lost, and the source tells neither its run_id nor DBSIZE: it is \
             not known whether it was restarted and lost keys of database {db}"
        ));
    };
    let is_less = match is_node {
        false => now < before,
        true => now == 0 && before > 0,
    };
    is_less.then(|| {
        format!(
            "the source was restarted, or is another one: database {db} had {} keys when it was \
             opened, and {} after that; what it lost and was not read before is missing",
            count_text(before),
            count_text(now)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_has_fewer_keys_may_have_given_them_to_another() {
        assert!(loss(3, 10, Some(9), false).is_some_and(|text| text.contains("10 keys")));
        assert_eq!(loss(3, 10, Some(10), false), None);
        assert_eq!(loss(0, 10, Some(9), true), None);
        assert!(loss(0, 10, Some(0), true).is_some());
        assert_eq!(loss(0, 0, Some(0), true), None);
        assert!(loss(3, 0, None, true).is_some_and(|text| text.contains("is not known")));
    }

    #[test]
    fn databases_are_learned_once_and_only_if_they_are_wanted() {
        let row = |db| Keyspace {
            db,
            keys: 1,
            expires: 0,
        };
        let not_had = NotHad {
            db: 5,
            keys: None,
            reason: String::new(),
        };
        let mut databases = Databases::new(vec![row(1)], vec![not_had]);
        databases.know_database_0();
        databases.know_database_0();
        databases.learn(&[row(1), row(2), row(5)], &Selection::default());
        assert_eq!(databases.numbers(), [0, 1, 2]);
        assert!(databases.has(5) && !databases.has(6));
        databases.note_keys(2, 7);
        assert_eq!((databases.keys(2), databases.all_keys()), (Some(7), 8));
    }
}
