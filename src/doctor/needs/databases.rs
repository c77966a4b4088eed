//! Whether the databases that an import would write can be used.

use std::collections::BTreeMap;

use super::{MAX_REASONS, Prospects};
use crate::dialect::Lookalike;
use crate::doctor::keys::KeyTrial;
use crate::endpoint::ConnectOptions;
use crate::rewrite::DbMap;
use crate::server::conn::asks_for_patience;
use crate::server::facts::Facts;
use crate::sink::server::gate::{closed_databases, show_databases};

/// The databases of an archive.
#[derive(Debug, Default)]
pub struct DatabaseNeeds {
    /// Those that hold keys, and how many.
    pub with_keys: BTreeMap<u32, u64>,
    /// Those of the destination that cannot be used: how many keys would go there, and why not.
    pub closed: BTreeMap<u32, (u64, String)>,
}

impl DatabaseNeeds {
    /// One more key.
    pub(super) fn key(&mut self, db: u32) {
        *self.with_keys.entry(db).or_default() += 1;
    }

    /// Tries the databases that an import would write. `trial` may have met some that it could not
    /// select.
    pub(super) fn try_all(
        &mut self,
        to: &ConnectOptions,
        facts: &Facts,
        trial: &mut KeyTrial<'_>,
        import: &mut Prospects,
    ) {
        let dbs: Vec<u32> = self.with_keys.keys().copied().collect();
        let map = to.db.map_or_else(DbMap::default, DbMap::only_into);
        import.usage = map.check(&dbs).err().map(|usage| usage.to_string());
        let into: Vec<u32> = match to.db {
            Some(db) => vec![db],
            None => dbs,
        };
        let mut closed = closed_databases(to, &into);
        if trial.passed_over.iter().any(|db| !closed.contains_key(db)) {
            let why =
                "too many databases cannot be used, so the keys of the others were not checked";
            import.unforeseen.get_or_insert_with(|| why.to_owned());
        }
        closed.append(&mut trial.closed);
        let mut has_one = false;
        for db in &into {
            if let Some(why) = facts.lacks_database(*db) {
                has_one = true;
                closed.insert(*db, why);
            }
        }
        for (db, why) in closed {
            if asks_for_patience(&why) {
                import.unforeseen.get_or_insert(why);
                continue;
            }
            let keys = match to.db {
                Some(_) => self.with_keys.values().sum(),
                None => self.with_keys.get(&db).copied().unwrap_or(0),
            };
            if facts.cluster || has_one {
                let what = facts.lookalike.map_or("a cluster", Lookalike::name);
                import.usage.get_or_insert_with(|| {
                    format!("the destination is {what} and has no database {db}")
                });
            }
            self.closed.insert(db, (keys, why));
        }
    }

    /// Databases that cannot be used, those with the same reason together: their numbers, as they are
    /// shown; how many keys would go there; and the reason. The list is short whatever an archive and
    /// a server say.
    pub fn closed_told(&self) -> Vec<(String, u64, &str)> {
        let mut told: Vec<(Vec<u32>, u64, &str)> = Vec::new();
        for (db, (keys, why)) in &self.closed {
            let why = match told.iter().any(|(_, _, known)| known == why) {
                false if told.len() >= MAX_REASONS => "for other reasons",
                _ => why.as_str(),
            };
            match told.iter_mut().find(|(_, _, known)| *known == why) {
                Some((dbs, sum, _)) => {
                    dbs.push(*db);
                    *sum += keys;
                }
                None => told.push((vec![*db], *keys, why)),
            }
        }
        told.into_iter()
            .map(|(dbs, keys, why)| (show_databases(&dbs), keys, why))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_that_are_not_to_be_had_are_told_by_reason() {
        let closed = |reason: fn(u32) -> String| DatabaseNeeds {
            closed: (16..65_536).map(|db| (db, (2, reason(db)))).collect(),
            ..DatabaseNeeds::default()
        };
        let same = closed(|_| "ERR DB index is out of range".to_owned());
        let told = same.closed_told();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].1, 2 * 65_520);
        assert!(told[0].0.starts_with("databases 16, 17, "), "{}", told[0].0);
        assert_eq!(told[0].2, "ERR DB index is out of range");
        // A server that says something else of each.
        let each = closed(|db| format!("ERR {db}"));
        let told = each.closed_told();
        assert_eq!(told.len(), MAX_REASONS + 1);
        assert_eq!(
            told.iter().map(|(_, keys, _)| keys).sum::<u64>(),
            2 * 65_520
        );
        assert_eq!(told[0], ("database 16".to_owned(), 2, "ERR 16"));
    }
}
