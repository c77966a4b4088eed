//! Which databases a destination gives, tried before anything is written.

use std::collections::BTreeMap;

use super::refusal::is_about_database;
use super::writer::MAX_LOSSES;
use crate::dialect::Feature;
use crate::endpoint::ConnectOptions;
use crate::server::conn::asks_for_patience;
use crate::server::facts::Facts;
use crate::server::reply::{Reply, cmd};
use crate::server::{ABSENT_KEY, Conn, ServerError};
use crate::units::{count_text, plural};

/// Databases that are tried in one round trip.
const TRIED_AT_ONCE: usize = 256;

/// Why a user may not use the database in which every connection begins. `None` where nothing
/// says so, and where the server has no rules about databases.
pub(super) fn refuses_database_0(conn: &mut Conn, facts: &Facts) -> Option<String> {
    let is_possible = facts.version.is_empty() || facts.dialect().has(Feature::DatabaseRules);
    if !is_possible || conn.database() != Some(0) {
        return None;
    }
    let answer = conn.try_query(cmd("EXISTS").arg(ABSENT_KEY)).ok()?;
    answer.err().filter(|text| is_about_database(text))
}

/// What is told of databases that are not to be had. `keys`: how many keys are expected to go to
/// each, where that is known.
pub(super) fn refused_lines(
    refused: &BTreeMap<u32, String>,
    keys: &BTreeMap<u32, Option<u64>>,
) -> Vec<String> {
    let mut by_reason: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for (db, reason) in refused {
        by_reason.entry(reason).or_default().push(*db);
    }
    let line = |(reason, dbs): (&str, Vec<u32>)| {
        let known: Option<u64> = dbs.iter().map(|db| keys.get(db).copied().flatten()).sum();
        let what = match known {
            Some(count) => format!("{} that would go there", plural(count, "key")),
            None => "keys that would go there".to_owned(),
        };
        format!(
            "cannot select {} at the destination ({reason}): {what} will be refused; --map-db puts \
             them into another database, --db leaves databases out",
            show_databases(&dbs)
        )
    };
    by_reason.into_iter().map(line).collect()
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
pub(super) fn try_select(to: &ConnectOptions, dbs: &[u32]) -> BTreeMap<u32, String> {
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
