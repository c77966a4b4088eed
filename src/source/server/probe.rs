//! What this source lets us do: each command that some service refuses is tried once.

use std::collections::HashMap;

use anyhow::Result;

use super::ServerSourceOptions;
use crate::observer::Observer;
use crate::payload;
use crate::policy::ReadFunctions;
use crate::rdb::functions_payload;
use crate::server::cluster::is_refusal;
use crate::server::facts::{Facts, Keyspace, ServerClock};
use crate::server::{ABSENT_KEY, Conn, ServerError};
use crate::units::plural;

/// What this server lets us do.
#[derive(Debug, Clone, Copy)]
pub struct Abilities {
    pub multi: bool,
    pub pexpiretime: bool,
    /// TIME, for the absolute moment behind a PTTL.
    pub time: bool,
    pub eviction: Option<EvictionCommand>,
}

impl Abilities {
    /// Without MULTI value and expiry are no pair unless the expiry was the same before and after.
    pub fn rechecks(&self) -> bool {
        !self.multi
    }

    pub fn asks_time(&self) -> bool {
        !self.pexpiretime && self.time
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvictionCommand {
    IdleTime,
    Freq,
}

/// The databases of a source.
#[derive(Debug, Default)]
pub struct Databases {
    /// Those to read.
    pub rows: Vec<Keyspace>,
    /// Those that hold keys, are wanted, and cannot be gone to.
    pub unread: Vec<Keyspace>,
    /// Whether SELECT is refused, so that database 0, where every connection begins, is all there
    /// is to read.
    pub only_zero: bool,
}

/// The databases to read: from INFO keyspace, or by SELECT and DBSIZE where that is refused.
pub fn databases(
    conn: &mut Conn,
    facts: &Facts,
    options: &ServerSourceOptions,
    observer: &Observer,
) -> Result<Databases> {
    let named = &options.selection.dbs;
    let Some(keyspace) = &facts.keyspace else {
        return try_databases(conn, named, observer);
    };
    let known = |db: u32| keyspace.iter().copied().find(|row| row.db == db);
    // A database that was named is scanned even if INFO, a moment ago, did not list it.
    let mut rows = match named.as_slice() {
        [] => keyspace.clone(),
        dbs => dbs
            .iter()
            .map(|&db| known(db).unwrap_or(empty(db)))
            .collect(),
    };
    let mut unread = Vec::new();
    let other = rows.iter().map(|row| row.db).find(|&db| db != 0);
    if let Some(db) = other
        && let Err(text) = select(conn, db)?
    {
        // Who names a database cannot do without it.
        if !named.is_empty() {
            return Err(conn.refusal("SELECT", text).into());
        }
        unread = rows.extract_if(.., |row| row.db != 0).collect();
        let list: Vec<String> = unread
            .iter()
            .map(|row| format!("{} ({})", row.db, plural(row.keys, "key")))
            .collect();
        observer.warn(&format!(
            "the source refuses SELECT ({text}): only database 0 is read; not read, and counted \
             as failed: database {}. --db 0 says that this is all that is wanted",
            list.join(", ")
        ));
    } else if other.is_some() {
        // Back to where every connection begins.
        let _ = select(conn, 0)?;
    }
    Ok(Databases {
        only_zero: !unread.is_empty(),
        rows,
        unread,
    })
}

fn empty(db: u32) -> Keyspace {
    Keyspace {
        db,
        keys: 0,
        expires: 0,
    }
}

fn select(conn: &mut Conn, db: u32) -> Result<Result<redis::Value, String>, ServerError> {
    conn.try_query(redis::cmd("SELECT").arg(db))
}

/// Without INFO: goes to one database after the other until there is no more.
fn try_databases(conn: &mut Conn, named: &[u32], observer: &Observer) -> Result<Databases> {
    observer.notice(
        "the source does not tell its databases (INFO); they are found by trying one after the \
         other",
    );
    let candidates = match named {
        [] => (0..=u32::from(u16::MAX)).collect(),
        dbs => dbs.to_vec(),
    };
    let mut found = Databases::default();
    for db in candidates {
        match select(conn, db)? {
            Ok(_) => {}
            // Services with a single database may forbid SELECT; then database 0 is all there is.
            Err(_) if db == 0 => found.only_zero = true,
            Err(text) if !named.is_empty() => return Err(conn.refusal("SELECT", text).into()),
            Err(text) => {
                if found.only_zero {
                    observer.warn(&format!(
                        "the source refuses SELECT ({text}): only database 0 is read, and whether \
                         there are keys in others is not known"
                    ));
                }
                break;
            }
        }
        let keys = match conn.try_query(&redis::cmd("DBSIZE"))? {
            Ok(redis::Value::Int(keys)) => Some(u64::try_from(keys).unwrap_or(0)),
            _ => None,
        };
        if keys != Some(0) {
            found.rows.push(Keyspace {
                keys: keys.unwrap_or(0),
                ..empty(db)
            });
        }
    }
    Ok(found)
}

/// Keeps our DUMPs from refreshing the LRU clock of every key, where that is known (7.2) and safe.
///
/// Not in a cluster, nor where nobody knows what the server is: a client without touch that names a
/// key of a slot on its way kills nodes of Redis 8.0 and Valkey 8.1, because `lookupKey` (db.c) asks
/// which command is executed while `getNodeByQuery` (cluster.c) only looks for the key, and none is.
///
/// # Errors
/// The connection's.
pub fn leave_no_trace(conn: &mut Conn, facts: &Facts) -> Result<(), ServerError> {
    if !facts.cluster && !facts.version.is_empty() {
        let _refused = conn.try_query(redis::cmd("CLIENT").arg("NO-TOUCH").arg("ON"))?;
    }
    Ok(())
}

/// Tries once what some servers refuse.
pub fn abilities(
    conn: &mut Conn,
    facts: &Facts,
    clock: &ServerClock,
    options: &ServerSourceOptions,
    observer: &Observer,
) -> Result<Abilities> {
    // In a cluster the keys of a MULTI must lie in one slot, so that each would need its own, which
    // costs more than asking for the expiry a second time.
    let asks_multi = !facts.cluster;
    // All in one go, because far away each round trip counts. The name is one that nobody uses: -2
    // says that the command works, whatever the key.
    let absent = ABSENT_KEY;
    conn.queue(&[b"PEXPIRETIME", absent.as_bytes()])?;
    if asks_multi {
        conn.queue(&[b"MULTI"])?;
        conn.queue(&[b"EXEC"])?;
    }
    let pexpiretime = match conn.reply()? {
        Ok(_) => true,
        Err(text) if !is_refusal(&text) => true,
        // No right to that very name says nothing about the command.
        Err(text) => {
            text.starts_with("NOPERM") && text.contains("key") && !text.contains("command")
        }
    };
    let multi = asks_multi && {
        let (multi, exec) = (conn.reply()?, conn.reply()?);
        if multi.is_ok() && exec.is_err() {
            // Else everything from now on would be queued.
            let _ = conn.try_query(&redis::cmd("DISCARD"))?;
        }
        multi.is_ok() && exec.is_ok()
    };
    if !pexpiretime && !clock.is_servers {
        observer.warn(
            "the source refuses both PEXPIRETIME and TIME: expiries are computed with this \
             machine's clock, and are as right as that clock is",
        );
    }
    let eviction = options.eviction.then(|| match facts.policy.as_deref() {
        Some(policy) if policy.contains("lfu") => EvictionCommand::Freq,
        _ => EvictionCommand::IdleTime,
    });
    let eviction = match eviction {
        Some(command) => {
            let sub = if command == EvictionCommand::Freq {
                "FREQ"
            } else {
                "IDLETIME"
            };
            match conn.try_query(redis::cmd("OBJECT").arg(sub).arg(absent))? {
                Ok(_) => Some(command),
                Err(text) if text.contains("no such key") || !is_refusal(&text) => Some(command),
                Err(text) => {
                    observer.warn(&format!(
                        "the source refuses OBJECT {sub} ({text}); idle times and frequencies are not exported"
                    ));
                    None
                }
            }
        }
        None => None,
    };
    Ok(Abilities {
        multi,
        pexpiretime,
        time: clock.is_servers,
        eviction,
    })
}

/// How function libraries are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionsBy {
    /// FUNCTION DUMP.
    Dump,
    /// FUNCTION LIST WITHCODE, where FUNCTION DUMP is refused.
    List,
}

impl FunctionsBy {
    /// The command.
    pub fn command(self) -> &'static [&'static [u8]] {
        match self {
            Self::Dump => &[b"FUNCTION", b"DUMP"],
            Self::List => &[b"FUNCTION", b"LIST", b"WITHCODE"],
        }
    }

    /// The payload that its reply is, or amounts to; `None` where there are no libraries.
    pub fn payload(self, reply: redis::Value) -> Option<Vec<u8>> {
        /// A payload of nothing but its footer.
        const EMPTY_BYTES: usize = payload::FOOTER_LEN;
        let payload = match (self, reply) {
            (Self::Dump, redis::Value::BulkString(payload)) => payload,
            (Self::Dump, _) => return None,
            (Self::List, reply) => functions_payload(&library_codes(reply)),
        };
        (payload.len() > EMPTY_BYTES).then_some(payload)
    }
}

/// The code of each library in a reply of FUNCTION LIST WITHCODE.
fn library_codes(reply: redis::Value) -> Vec<Vec<u8>> {
    let rows: Vec<HashMap<String, redis::Value>> =
        redis::from_redis_value(reply).unwrap_or_default();
    let code = |mut row: HashMap<String, redis::Value>| match row.remove("library_code") {
        Some(redis::Value::BulkString(code)) => Some(code),
        _ => None,
    };
    rows.into_iter().filter_map(code).collect()
}

/// How libraries are read here, if at all, and the payload if there are any.
pub(in crate::source) fn function_dump(
    conn: &mut Conn,
    wish: ReadFunctions,
    observer: &Observer,
) -> Result<(Option<FunctionsBy>, Option<Vec<u8>>)> {
    if wish == ReadFunctions::No {
        return Ok((None, None));
    }
    let mut refused = None;
    for by in [FunctionsBy::Dump, FunctionsBy::List] {
        let mut command = redis::Cmd::new();
        command.arg(by.command());
        match conn.try_query(&command)? {
            Ok(reply) => return Ok((Some(by), by.payload(reply))),
            Err(text) => {
                refused.get_or_insert(text);
            }
        }
    }
    let text = refused.unwrap_or_default();
    if wish == ReadFunctions::Required {
        return Err(conn.refusal("FUNCTION DUMP", text).into());
    }
    // Before 7.0 there are none, and nothing is lost by it.
    if !text.starts_with("ERR unknown command") {
        observer.warn(&format!(
            "the source refuses FUNCTION DUMP and FUNCTION LIST ({text}); function libraries are \
             not read"
        ));
    }
    Ok((None, None))
}
