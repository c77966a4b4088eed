//! What the server is: its facts, its limits, and what killed runs left on it. Read only.

use std::time::Duration;

use crate::host;
use crate::record::show_key;
use crate::select::TEMP_KEY_PREFIX;
use crate::server::conn::asks_for_patience;
use crate::server::facts::{Facts, Keyspace, setting};
use crate::server::reply::{Reply, cmd, from_reply};
use crate::server::{Conn, ServerError};
use crate::sink::server::commands::CommandLimits;
use crate::sink::server::refusal::is_about_database;

/// Limits, as far as CONFIG GET tells them.
#[derive(Debug, Clone, Default)]
pub struct ServerLimits {
    /// `proto-max-bulk-len`: the largest argument, and so the largest payload.
    pub max_bulk_bytes: Option<u64>,
    /// `client-query-buffer-limit`.
    pub query_buffer_bytes: Option<u64>,
    pub databases: Option<u64>,
    /// `sanitize-dump-payload`.
    pub sanitize: Option<String>,
    /// The words of a server that answers "not now".
    pub later: Option<String>,
}

impl ServerLimits {
    /// Asks CONFIG GET; what is refused stays unknown.
    ///
    /// # Errors
    /// The connection.
    pub fn ask(conn: &mut Conn) -> Result<Self, ServerError> {
        let mut later = None;
        let mut ask = |name| -> Result<Option<String>, ServerError> {
            Ok(setting(conn, name)?.unwrap_or_else(|text| {
                later = Some(text)
                    .filter(|text| asks_for_patience(text))
                    .or(later.take());
                None
            }))
        };
        let number = |text: String| text.parse().ok();
        Ok(Self {
            max_bulk_bytes: ask("proto-max-bulk-len")?.and_then(number),
            query_buffer_bytes: ask("client-query-buffer-limit")?.and_then(number),
            databases: ask("databases")?.and_then(number),
            sanitize: ask("sanitize-dump-payload")?,
            later,
        })
    }

    /// The largest payload that one RESTORE can carry, as an import judges it.
    pub fn largest_payload_bytes(&self) -> u64 {
        let default = CommandLimits::default();
        let limits = CommandLimits {
            max_bulk_bytes: self.max_bulk_bytes.unwrap_or(default.max_bulk_bytes),
            max_query_bytes: self.query_buffer_bytes.unwrap_or(default.max_query_bytes),
            ..default
        };
        limits.max_argument_bytes()
    }
}

/// What a server told when it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told<T> {
    Known(T),
    /// It refuses, or cannot be reached, in these words.
    Refused(String),
    /// It answers "not now" (BUSY, LOADING …), in these words.
    Later(String),
}

impl<T> Told<T> {
    /// By what an error says.
    pub fn error(text: String) -> Self {
        match asks_for_patience(&text) {
            true => Self::Later(text),
            false => Self::Refused(text),
        }
    }

    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(known) => Some(known),
            _ => None,
        }
    }

    /// Why it did not tell.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Known(_) => None,
            Self::Refused(text) | Self::Later(text) => Some(text),
        }
    }

    /// The words of a server that answers "not now".
    pub fn later(&self) -> Option<&str> {
        match self {
            Self::Later(text) => Some(text),
            _ => None,
        }
    }
}

/// Databases that are tried where INFO does not name them.
const TRIED_DATABASES: u32 = 1024;

/// The databases with keys, by INFO or DBSIZE. Leaves database 0 selected.
///
/// # Errors
/// The connection.
pub fn databases(conn: &mut Conn, facts: &Facts) -> Result<Told<Vec<Keyspace>>, ServerError> {
    if let Some(keyspace) = &facts.keyspace {
        return Ok(Told::Known(keyspace.clone()));
    }
    let mut rows = Vec::new();
    for db in 0..TRIED_DATABASES {
        match select(conn, db)? {
            Err(text) if asks_for_patience(&text) => return Ok(Told::Later(text)),
            // Another one may be open to this user.
            Err(text) if is_about_database(&text) => continue,
            Err(_) if db > 0 => break,
            _ => {}
        }
        match conn.try_query(&cmd("DBSIZE"))? {
            Ok(Reply::Int(keys @ 1..)) => rows.push(Keyspace {
                db,
                keys: keys.unsigned_abs(),
                expires: 0,
            }),
            Ok(_) => {}
            Err(text) if is_about_database(&text) => {}
            Err(text) => return Ok(Told::error(text)),
        }
    }
    let _ = select(conn, 0)?;
    Ok(Told::Known(rows))
}

fn select(conn: &mut Conn, db: u32) -> Result<Result<Reply, String>, ServerError> {
    conn.try_query(cmd("SELECT").arg(db))
}

/// Names of loaded modules, by MODULE LIST.
///
/// # Errors
/// The connection.
pub fn modules(conn: &mut Conn) -> Result<Told<Vec<String>>, ServerError> {
    let value = match conn.try_query(cmd("MODULE").arg("LIST"))? {
        Ok(value) => value,
        Err(text) => return Ok(Told::error(text)),
    };
    let rows: Vec<std::collections::HashMap<String, Reply>> = from_reply(value).unwrap_or_default();
    let names = rows
        .into_iter()
        .filter_map(|mut row| from_reply(row.remove("name")?).ok());
    Ok(Told::Known(names.collect()))
}

/// Temporary keys that runs left behind when they were killed.
#[derive(Debug, Clone, Default)]
pub struct Leftovers {
    /// Some of them: database and name, as it is shown.
    pub shown: Vec<(u32, String)>,
    /// How many were found.
    pub found: u64,
    /// Whether every key was looked at.
    pub complete: bool,
    /// The words of a server that answers "not now".
    pub later: Option<String>,
}

/// Names that are kept of leftovers.
const SHOWN_LEFTOVERS: usize = 10;

/// SCANs after which the search for leftovers gives up, and the time.
const MAX_SCANS: u32 = 2_000;
const MAX_TIME: Duration = Duration::from_secs(5);

impl Leftovers {
    /// Adds those of another node.
    pub fn add(&mut self, other: Self) {
        self.found += other.found;
        self.complete &= other.complete;
        self.later = self.later.take().or(other.later);
        let room = SHOWN_LEFTOVERS.saturating_sub(self.shown.len());
        self.shown.extend(other.shown.into_iter().take(room));
    }

    /// Looks for them in these databases, a bounded while. Leaves database 0 selected.
    ///
    /// # Errors
    /// The connection.
    pub fn find(conn: &mut Conn, databases: &Told<Vec<Keyspace>>) -> Result<Self, ServerError> {
        if let Some(words) = databases.later() {
            return Ok(Self {
                later: Some(words.to_owned()),
                ..Self::default()
            });
        }
        conn.doing("looking for what killed runs left");
        let mut left = Self {
            complete: true,
            ..Self::default()
        };
        let until = host::now() + MAX_TIME;
        let mut scans = 0;
        'databases: for row in databases.known().into_iter().flatten() {
            match select(conn, row.db)? {
                Err(text) if asks_for_patience(&text) => {
                    left.complete = false;
                    left.later = Some(text);
                    break;
                }
                Err(_) if row.db > 0 => {
                    left.complete = false;
                    continue;
                }
                _ => {}
            }
            let mut cursor = b"0".to_vec();
            loop {
                if scans == MAX_SCANS || host::now() > until {
                    left.complete = false;
                    break 'databases;
                }
                scans += 1;
                let pattern = [TEMP_KEY_PREFIX, b"*"].concat();
                let mut scan = cmd("SCAN");
                scan.arg(&cursor).arg("MATCH").arg(pattern);
                scan.arg("COUNT").arg(1000);
                let page = match conn.try_query(&scan)? {
                    Ok(page) => page,
                    Err(text) => {
                        left.complete = false;
                        if is_about_database(&text) {
                            continue 'databases;
                        }
                        left.later = asks_for_patience(&text).then_some(text);
                        break 'databases;
                    }
                };
                let Ok((next, keys)) = from_reply::<(Vec<u8>, Vec<Vec<u8>>)>(page) else {
                    return Err(conn.confused("SCAN did not answer with a cursor and keys"));
                };
                left.found += keys.len() as u64;
                let room = SHOWN_LEFTOVERS.saturating_sub(left.shown.len());
                let shown = keys.iter().take(room).map(|key| (row.db, show_key(key)));
                left.shown.extend(shown);
                cursor = next;
                if cursor == b"0" {
                    break;
                }
            }
        }
        let _ = select(conn, 0)?;
        Ok(left)
    }
}
