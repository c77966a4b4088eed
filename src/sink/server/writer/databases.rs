//! Which databases are not to be had at the destination, and the one way into the others.
//!
//! Nothing for a database is queued before the destination said OK to its SELECT, on the very
//! connection that is used. A write that travels behind a SELECT in one pipeline goes into the
//! database selected before when that SELECT is refused: it overwrites and deletes somebody else's
//! keys.
//!
//! So SELECT is the last command in flight, but for WAIT, which is of no database. It goes out behind
//! the writes to the database before, which need not be answered first; records for the new database
//! are made ready meanwhile and wait in the lane until the OK was read. Any other answer puts them
//! off, and SELECT is asked again with nothing else in flight.
//!
//! What that costs is a round trip for each change of database on a connection. So the records of
//! a batch are sorted by database, and the databases that a run is expected to touch are tried in
//! one round trip before its first key, on a connection that writes nothing.

use std::collections::BTreeMap;

use super::lane::Lane;
use super::ledger::Ledger;

/// So often the connection may be lost over the SELECT of one database, before that is how the
/// destination refuses it: some proxies hang up on commands that they do not know.
pub(in crate::sink::server) const MAX_LOSSES: u8 = 3;

/// Which databases are not to be had at the destination, and why.
#[derive(Debug, Default)]
pub(super) struct Databases {
    refused: BTreeMap<u32, String>,
    /// How often the connection was lost over the SELECT of a database.
    losses: BTreeMap<u32, u8>,
    /// The first that is expected and to be had.
    first: Option<u32>,
}

/// What a lane says to a record of a database.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Its connection is proved to be in that database.
    Open,
    /// Its SELECT is in flight: the record can wait until then.
    Moving,
    /// SELECT may go out behind what is in flight.
    Free,
    /// Nothing is in flight: SELECT, and its answer.
    Select,
    /// What is in flight is to be answered first.
    Busy,
    /// It is not to be had, and why.
    Refused(String),
}

impl Databases {
    /// The first that is expected and to be had.
    pub fn first(&self) -> Option<u32> {
        self.first
    }

    /// Why a database is known not to be had.
    pub fn why_closed(&self, db: u32) -> Option<&str> {
        self.refused.get(&db).map(String::as_str)
    }

    /// What a lane, which is connected, says to a record of a database.
    pub fn gate(&mut self, lane: &Lane, db: u32, ledger: &mut Ledger) -> Gate {
        let gate = self.look(lane, db, ledger);
        #[cfg(test)]
        super::tests::mark(&gate);
        gate
    }

    fn look(&mut self, lane: &Lane, db: u32, ledger: &mut Ledger) -> Gate {
        if self.why_closed(db).is_none()
            && let Some(why) = lane.facts.lacks_database(db)
        {
            self.close(db, why, ledger);
        }
        if let Some(why) = self.why_closed(db) {
            return Gate::Refused(why.to_owned());
        }
        if lane.database == Some(db) {
            return Gate::Open;
        }
        if lane.flight.is_empty() {
            return Gate::Select;
        }
        match lane.flight.moving_to() {
            Some(next) if next == db => Gate::Moving,
            // A value that native commands write is sent in several turns, as its answers come: the
            // later ones would go out behind the SELECT.
            None if !lane.flight.has_turns_left() => Gate::Free,
            _ => Gate::Busy,
        }
    }

    /// SELECT was answered with OK.
    pub fn entered(&mut self, db: u32) {
        self.losses.remove(&db);
    }

    /// The connection was lost over SELECT; whether that was once too often.
    pub fn note_loss(&mut self, db: u32) -> bool {
        let losses = self.losses.entry(db).or_default();
        *losses += 1;
        *losses >= MAX_LOSSES
    }

    /// From here on its keys are refused by name.
    pub fn close(&mut self, db: u32, reason: String, ledger: &mut Ledger) {
        if let std::collections::btree_map::Entry::Vacant(free) = self.refused.entry(db) {
            ledger.warn(format!(
                "cannot select database {db} at the destination ({reason}): its keys are refused; \
                 --map-db puts them into another database"
            ));
            free.insert(reason);
        }
    }

    /// These were tried before the first key; `expected`: databases that keys will go to, in order.
    pub fn tried(
        &mut self,
        mut refused: BTreeMap<u32, String>,
        mut expected: impl Iterator<Item = u32>,
    ) {
        self.refused.append(&mut refused);
        self.first = expected.find(|db| !self.refused.contains_key(db));
    }
}

/// Why a key of this database is refused.
pub(super) fn no_database(db: u32, why: &str) -> String {
    format!("cannot select database {db} at the destination: {why}")
}

/// What to do about a database that is not to be had. `from`: the source's, where it is known;
/// `--map-db` names databases as the source does.
pub(super) fn another_database(from: Option<u32>) -> String {
    match from {
        // Which one: what is there, and what else comes, is not known here.
        Some(from) => {
            format!("--map-db {from}:N puts it into database N, if that holds nothing else")
        }
        None => "--map-db puts keys of that database into another one".to_owned(),
    }
}

#[cfg(test)]
super::tests::named!(Gate: Open, Moving, Free, Select, Busy, Refused);

#[cfg(test)]
mod tests {
    use super::another_database;

    #[test]
    fn map_db_is_advised_with_the_number_of_the_source() {
        assert!(another_database(Some(30)).starts_with("--map-db 30:N "));
        assert!(another_database(Some(5)).starts_with("--map-db 5:N "));
        assert!(another_database(Some(0)).starts_with("--map-db 0:N "));
        let unknown = another_database(None);
        assert!(!unknown.contains(|c: char| c.is_ascii_digit()), "{unknown}");
    }
}
