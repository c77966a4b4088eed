//! The one way into a database of the destination.
//!
//! Nothing for a database is queued before the destination said OK to its SELECT, on the very
//! connection that is used. A write that travels behind a SELECT in one pipeline goes into the
//! database selected before when that SELECT is refused: it overwrites and deletes somebody else's
//! keys.
//!
//! So SELECT is the last command in flight, but for WAIT, which is of no database. It goes out behind the writes to the database before,
//! which need not be answered first; records for the new database are made ready meanwhile and wait
//! in the lane (`Move`) until the OK was read. Any other answer puts them off, and SELECT is asked
//! again with nothing else in flight.
//!
//! What that costs is a round trip for each change of database on a connection. So the records of
//! a batch are sorted by database, and the databases that a run is expected to touch are tried in
//! one round trip before its first key, on a connection that writes nothing.

use std::collections::BTreeMap;

use anyhow::Result;

use super::lane::Move;
use super::refusal::{Refusal, is_about_database};
use super::{Action, Sent, ServerSink};
use crate::dialect::Feature;
use crate::endpoint::ConnectOptions;
use crate::exit::Interrupted;
use crate::record::{Batch, Origin, Record};
use crate::server::conn::asks_for_patience;
use crate::server::reply::{Reply, cmd};
use crate::server::{ABSENT_KEY, Conn, ServerError};
use crate::units::{count_text, plural};

/// So often the connection may be lost over the SELECT of one database, before that is how the
/// destination refuses it: some proxies hang up on commands that they do not know.
const MAX_LOSSES: u8 = 3;

/// So many records are put together to wait before it is looked whether answers have come.
const HELD_BETWEEN_LOOKS: usize = 64;

/// So many of the records that waited for a database go out before the others are put together: the
/// server has nothing else to do.
const FIRST_HELD: usize = 64;

/// Databases that are tried in one round trip.
const TRIED_AT_ONCE: usize = 256;

/// Which databases are not to be had at the destination, and why.
#[derive(Debug, Default)]
pub(super) struct Databases {
    refused: BTreeMap<u32, String>,
    /// How often the connection was lost over the SELECT of a database.
    losses: BTreeMap<u32, u8>,
    /// The first that is expected and to be had.
    first: Option<u32>,
}

impl Databases {
    /// The first that is expected and to be had.
    pub fn first(&self) -> Option<u32> {
        self.first
    }
}

/// What a lane says to a record of a database.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Its connection is proved to be in that database.
    Open,
    /// Its SELECT is in flight: the record can be held until then.
    Moving,
    /// Not now.
    Later,
    /// Never, and why.
    Refused(String),
}

impl ServerSink {
    /// Sees to it that a lane's connection is proved to be in this database, or on its way there.
    ///
    /// # Errors
    /// What ends the run.
    pub(super) fn enter(&mut self, at: usize, db: u32) -> Result<Gate> {
        loop {
            if let Some(reason) = self.databases.refused.get(&db) {
                return Ok(Gate::Refused(reason.clone()));
            }
            if let Some(why) = self.lanes[at].facts.lacks_database(db) {
                self.close_database(db, why);
                continue;
            }
            let Some(conn) = &self.lanes[at].conn else {
                return Ok(Gate::Later);
            };
            if conn.database() == Some(db) {
                return Ok(Gate::Open);
            }
            if self.lanes[at].sent.is_empty() {
                return self.select(at, db);
            }
            match &self.lanes[at].next {
                Some(next) if next.db == db => return Ok(Gate::Moving),
                // A value that native commands write is sent in several turns, as its answers come:
                // the later ones would go out behind the SELECT.
                None if !self.is_entering && !self.lanes[at].has_turns_left() => {
                    return self.start_move(at, db);
                }
                _ => {}
            }
            // What an answer leads to may be for another database than the one that is waited for.
            if std::mem::replace(&mut self.is_entering, true) {
                return Ok(Gate::Later);
            }
            let drained = self.drain_lane(at);
            self.is_entering = false;
            drained?;
        }
    }

    /// Sends SELECT behind what is in flight.
    fn start_move(&mut self, at: usize, db: u32) -> Result<Gate> {
        let lane = &mut self.lanes[at];
        let queued = lane.conn()?.queue_select(db);
        lane.push(Sent::without_key(Action::Select));
        lane.next = Some(Move::to(db));
        match queued {
            Ok(()) => {
                self.flush()?;
                Ok(Gate::Moving)
            }
            Err(error) => {
                self.read_last_words(at, error)?;
                Ok(Gate::Later)
            }
        }
    }

    /// Keeps a record until its SELECT is answered. Answers are read as they come meanwhile, without a
    /// wait: that comes when the window is full.
    pub(super) fn hold(&mut self, at: usize, sent: Sent) -> Result<()> {
        let lane = &mut self.lanes[at];
        let Some(next) = &mut lane.next else {
            self.put_again(sent);
            return Ok(());
        };
        self.prints.insert(sent.print);
        next.hold(sent);
        if !next.held.len().is_multiple_of(HELD_BETWEEN_LOOKS) {
            return Ok(());
        }
        while self.lanes[at].has_answer_while_moving() {
            self.read_one(at)?;
        }
        Ok(())
    }

    /// SELECT was answered; anything but OK is asked again, with nothing else in flight, and judged
    /// there.
    pub(super) fn moved(&mut self, at: usize, is_ok: bool) -> Result<()> {
        let Some(mut next) = self.lanes[at].next.take() else {
            return Ok(());
        };
        if is_ok && let Some(conn) = &mut self.lanes[at].conn {
            conn.arrived(next.db);
            self.databases.losses.remove(&next.db);
        } else {
            self.again.append(&mut next.held);
        }
        let mut queued = 0;
        while let Some(sent) = next.held.pop_front() {
            self.prints.remove(&sent.print);
            let mut done = self.queue(sent);
            queued += 1;
            if queued == FIRST_HELD && done.is_ok() {
                done = self.flush();
            }
            if let Err(error) = done {
                self.again.append(&mut next.held);
                return Err(error);
            }
        }
        self.flush()
    }

    fn select(&mut self, at: usize, db: u32) -> Result<Gate> {
        let conn = self.lanes[at].conn()?;
        match conn.select(db) {
            Ok(Ok(())) => {
                self.databases.losses.remove(&db);
                Ok(Gate::Open)
            }
            Ok(Err(text)) => {
                // An error is no proof that it is where it was.
                conn.forget_database();
                self.not_selected(at, db, text)
            }
            Err(error) => {
                let losses = self.databases.losses.entry(db).or_default();
                *losses += 1;
                let is_over = *losses >= MAX_LOSSES;
                let reason = error.to_string();
                self.lose_connection(at, error)?;
                if is_over && self.lanes[at].to.retries > 0 {
                    self.close_database(db, reason);
                }
                Ok(Gate::Later)
            }
        }
    }

    /// An error reply to SELECT.
    fn not_selected(&mut self, at: usize, db: u32, text: String) -> Result<Gate> {
        if asks_for_patience(&text) {
            if self.stop.is_set() {
                return Err(Interrupted.into());
            }
            return Err(anyhow::Error::new(self.refusal(at, "SELECT", text))
                .context("the destination answered SELECT with \"not now\" for too long"));
        }
        if text.starts_with("NOAUTH") {
            let losses = self.databases.losses.entry(db).or_default();
            *losses += 1;
            if *losses < MAX_LOSSES {
                let lost = ServerError::Lost {
                    address: self.lanes[at].to.address.to_string(),
                    doing: "selecting a database".to_owned(),
                    reason: text,
                };
                self.lost(at, lost)?;
                return Ok(Gate::Later);
            }
        }
        if db == 0 && !is_about_database(&text) {
            // Every connection begins there, also where SELECT is not to be had.
            self.lanes[at].conn = None;
            self.lanes[at].unconfirmed.is_on_new_connection();
            let is_there = self.connect(at)?;
            let conn = self.lanes[at].conn.as_ref();
            return Ok(
                match is_there && conn.is_some_and(|conn| conn.database() == Some(0)) {
                    true => Gate::Open,
                    false => Gate::Later,
                },
            );
        }
        self.close_database(db, text.clone());
        Ok(Gate::Refused(text))
    }

    /// From here on its keys are refused by name.
    pub(super) fn close_database(&mut self, db: u32, reason: String) {
        if !self.databases.refused.contains_key(&db) {
            self.observer.warn(&format!(
                "the destination does not give database {db} ({reason}): its keys are refused; \
                 --map-db puts them into another database"
            ));
            self.databases.refused.insert(db, reason);
        }
    }

    /// A key of a database that is not to be had.
    pub(super) fn refuse_database(&mut self, sent: Sent, why: &str) -> Result<()> {
        let db = sent.record.db;
        if matches!(sent.action, Action::CleanUp(_)) {
            self.leave_behind(db, &sent.record.key, why);
        }
        if !sent.action.concerns_key() {
            return Ok(());
        }
        let from = sent.origin.as_ref().map(|origin| origin.db);
        let refusal = Refusal::Key {
            reason: no_database(db, why),
            hint: Some(another_database(from)),
        };
        self.refuse(sent, refusal)
    }

    /// Why a database is known not to be had.
    pub(super) fn closed_database(&self, db: u32) -> Option<String> {
        self.databases.refused.get(&db).cloned()
    }

    /// Tries the databases that the run is expected to write, before its first key, and says which
    /// are not to be had. `expected`: databases of the destination, and how many keys are expected
    /// to go there, where that is known.
    ///
    /// # Errors
    /// Interruption.
    pub fn try_databases(
        &mut self,
        expected: impl IntoIterator<Item = (u32, Option<u64>)>,
    ) -> Result<()> {
        let mut keys: BTreeMap<u32, Option<u64>> = BTreeMap::new();
        for (db, count) in expected {
            let sum = keys.entry(db).or_default();
            *sum = count
                .map(|count| sum.unwrap_or(0).saturating_add(count))
                .or(*sum);
        }
        let others: Vec<u32> = keys.keys().copied().filter(|db| *db > 0).collect();
        let mut refused = BTreeMap::new();
        for lane in &mut self.lanes {
            if keys.contains_key(&0)
                && let Some(text) = lane.refuses_database_0()
            {
                refused.insert(0, text);
            }
            if !others.is_empty() {
                refused.append(&mut try_select(&lane.to, &others));
            }
            if self.stop.is_set() {
                return Err(Interrupted.into());
            }
        }
        self.tell_refused(&refused, &keys);
        self.databases.refused.append(&mut refused);
        let open = |db: &u32| !self.databases.refused.contains_key(db);
        self.databases.first = keys.keys().copied().find(open);
        Ok(())
    }

    fn tell_refused(&self, refused: &BTreeMap<u32, String>, keys: &BTreeMap<u32, Option<u64>>) {
        let mut by_reason: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for (db, reason) in refused {
            by_reason.entry(reason).or_default().push(*db);
        }
        for (reason, dbs) in by_reason {
            let known: Option<u64> = dbs.iter().map(|db| keys.get(db).copied().flatten()).sum();
            let what = match known {
                Some(count) => format!("{} that would go there", plural(count, "key")),
                None => "keys that would go there".to_owned(),
            };
            self.observer.warn(&format!(
                "the destination does not give {} ({reason}): {what} will be refused; --map-db \
                 puts them into another database, --db leaves databases out",
                show_databases(&dbs)
            ));
        }
    }

    /// The records of a batch by database, those of the database that is selected first. Records of
    /// one key stay in their order.
    pub(super) fn by_database(&self, batch: &mut Batch) {
        let db_of = |record: &Record| match record {
            Record::Key(key) => Some(key.db),
            Record::Deleted { db, .. } => Some(*db),
            _ => None,
        };
        let first = batch.records.first().and_then(db_of);
        let is_plain = batch.records.iter().all(|record| db_of(record) == first);
        // What belongs to no database keeps its place among the others.
        if is_plain || batch.records.iter().any(|record| db_of(record).is_none()) {
            return;
        }
        let lane = &self.lanes[0];
        let proved = lane.conn.as_ref().and_then(Conn::database);
        let selected = lane.next.as_ref().map(|next| next.db).or(proved);
        let rank = |record: &Record| (db_of(record) != selected, db_of(record));
        let mut origins = std::mem::take(&mut batch.origins).into_iter();
        let records = std::mem::take(&mut batch.records).into_iter();
        let mut rows: Vec<(Record, Option<Origin>)> =
            records.map(|record| (record, origins.next())).collect();
        rows.sort_by_key(|(record, _)| rank(record));
        for (record, origin) in rows {
            batch.records.push(record);
            batch.origins.extend(origin);
        }
    }
}

impl super::lane::Lane {
    /// Why a user may not use the database in which every connection begins. `None` where nothing
    /// says so, and where the server has no rules about databases.
    fn refuses_database_0(&mut self) -> Option<String> {
        let is_possible =
            self.facts.version.is_empty() || self.facts.dialect().has(Feature::DatabaseRules);
        let conn = self.conn.as_mut()?;
        if !is_possible || conn.database() != Some(0) {
            return None;
        }
        let answer = conn.try_query(cmd("EXISTS").arg(ABSENT_KEY)).ok()?;
        answer.err().filter(|text| is_about_database(text))
    }
}

/// Which of `dbs` are not to be had by somebody who connects by `to`, and why. Nothing is written.
pub fn closed_databases(to: &ConnectOptions, dbs: &[u32]) -> BTreeMap<u32, String> {
    let others: Vec<u32> = dbs.iter().copied().filter(|db| *db > 0).collect();
    let mut closed = try_select(to, &others);
    if dbs.contains(&0)
        && let Ok(mut conn) = Conn::open(to)
        && let Ok(Err(text)) = conn.try_query(cmd("EXISTS").arg(ABSENT_KEY))
        && is_about_database(&text)
    {
        closed.insert(0, text);
    }
    closed
}

/// Which of `dbs` are not to be had, and why. On connections of its own, which write nothing. What
/// cannot be tried is not in it.
fn try_select(to: &ConnectOptions, dbs: &[u32]) -> BTreeMap<u32, String> {
    let mut trial = Trial::default();
    let mut rest = dbs;
    while !rest.is_empty() && trial.hung_up < usize::from(MAX_LOSSES) {
        let Ok(mut conn) = Conn::open(to) else { break };
        while !rest.is_empty() {
            let count = match trial.suspect {
                Some(_) => 1,
                None => TRIED_AT_ONCE.min(rest.len()),
            };
            let (now, later) = rest.split_at(count);
            match trial.select_all(&mut conn, now) {
                Ok(()) => rest = later,
                Err((answered, error)) => {
                    rest = &rest[answered..];
                    if trial.is_refused_by_hanging_up(rest[0], &error) {
                        rest = &rest[1..];
                    }
                    break;
                }
            }
        }
    }
    if trial.hung_up >= usize::from(MAX_LOSSES)
        && let Some(reason) = trial.refused.values().next().cloned()
    {
        trial
            .refused
            .extend(rest.iter().map(|db| (*db, reason.clone())));
    }
    trial.refused
}

#[derive(Default)]
struct Trial {
    refused: BTreeMap<u32, String>,
    /// The connection was lost when this was the first without an answer.
    suspect: Option<u32>,
    /// Databases over which it hung up, one after the other.
    hung_up: usize,
}

impl Trial {
    /// In one round trip. The error comes with how many were answered before.
    fn select_all(&mut self, conn: &mut Conn, dbs: &[u32]) -> Result<(), (usize, ServerError)> {
        let queue = |conn: &mut Conn| -> Result<(), ServerError> {
            for db in dbs {
                conn.queue(&[b"SELECT", db.to_string().as_bytes()])?;
            }
            conn.flush()
        };
        // What it answered before it hung up is read all the same.
        let sent = queue(conn);
        for (at, db) in dbs.iter().enumerate() {
            match conn.reply() {
                Ok(Ok(Reply::Okay)) => self.hung_up = 0,
                Ok(Err(text)) => {
                    self.hung_up = 0;
                    if !asks_for_patience(&text) && !text.starts_with("NOAUTH") {
                        self.refused.insert(*db, text);
                    }
                }
                Ok(Ok(other)) => {
                    let error = conn.confused(format!("SELECT {db}: {other:?}"));
                    return Err((at, error));
                }
                Err(error) => return Err((at, error)),
            }
        }
        sent.map_err(|error| (0, error))
    }

    /// Whether it hung up over this database before, with nothing else on the connection.
    fn is_refused_by_hanging_up(&mut self, db: u32, error: &ServerError) -> bool {
        let is_again = self.suspect.replace(db) == Some(db);
        if is_again {
            self.hung_up += 1;
            self.refused.insert(db, error.to_string());
        }
        is_again
    }
}

/// Why a key of this database is refused.
pub(super) fn no_database(db: u32, why: &str) -> String {
    format!("the destination does not give database {db}: {why}")
}

/// What to do about a database that is not to be had. `from`: the source's, where it is known;
/// `--map-db` names databases as the source does.
fn another_database(from: Option<u32>) -> String {
    match from {
        // Which one: what is there, and what else comes, is not known here.
        Some(from) => {
            format!("--map-db {from}:N puts it into database N, if that holds nothing else")
        }
        None => "--map-db puts keys of that database into another one".to_owned(),
    }
}

/// `database 3`, `databases 3, 4 and 7 more`.
pub fn show_databases(dbs: &[u32]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = dbs.iter().take(SHOWN).map(u32::to_string).collect();
    match (dbs, dbs.len().saturating_sub(SHOWN)) {
        ([db], _) => format!("database {db}"),
        (_, 0) => format!("databases {}", shown.join(", ")),
        (_, more) => format!(
            "databases {} and {} more",
            shown.join(", "),
            count_text(more as u64)
        ),
    }
}

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
