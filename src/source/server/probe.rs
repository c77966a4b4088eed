//! What this source lets us do: each command that some service refuses is tried once.

use anyhow::Result;

use super::ServerSourceOptions;
use crate::observer::Observer;
use crate::payload;
use crate::policy::ReadFunctions;
use crate::server::facts::{Facts, Keyspace, ServerClock};
use crate::server::{ABSENT_KEY, Conn};

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

/// The databases to read: from INFO keyspace, or by SELECT and DBSIZE where that is refused.
pub fn databases(
    conn: &mut Conn,
    facts: &Facts,
    options: &ServerSourceOptions,
    observer: &Observer,
) -> Result<Vec<Keyspace>> {
    let named = &options.selection.dbs;
    if let Some(keyspace) = &facts.keyspace {
        let known = |db: u32| keyspace.iter().copied().find(|row| row.db == db);
        // A database that was named is scanned even if INFO, a moment ago, did not list it.
        return Ok(match named.as_slice() {
            [] => keyspace.clone(),
            dbs => dbs
                .iter()
                .map(|&db| {
                    known(db).unwrap_or(Keyspace {
                        db,
                        keys: 0,
                        expires: 0,
                    })
                })
                .collect(),
        });
    }
    observer.notice("the source does not answer INFO; its databases are found by trying them");
    let candidates = match named.as_slice() {
        [] => (0..=u32::from(u16::MAX)).collect(),
        dbs => dbs.to_vec(),
    };
    let mut rows = Vec::new();
    for db in candidates {
        match conn.try_query(redis::cmd("SELECT").arg(db))? {
            Ok(_) => {}
            // Services with a single database may forbid SELECT; then database 0 is all there is.
            Err(_) if db == 0 => {}
            Err(text) if !named.is_empty() => return Err(conn.refusal("SELECT", text).into()),
            Err(_) => break,
        }
        let keys = match conn.try_query(&redis::cmd("DBSIZE"))? {
            Ok(redis::Value::Int(keys)) => Some(u64::try_from(keys).unwrap_or(0)),
            _ => None,
        };
        if keys != Some(0) {
            rows.push(Keyspace {
                db,
                keys: keys.unwrap_or(0),
                expires: 0,
            });
        }
    }
    Ok(rows)
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
    let multi = !facts.cluster
        && conn.try_query(&redis::cmd("MULTI"))?.is_ok()
        && conn.try_query(&redis::cmd("EXEC"))?.is_ok();
    // A name nobody uses; -2 says that the command works, whatever the key.
    let absent = ABSENT_KEY;
    let pexpiretime = match conn.try_query(redis::cmd("PEXPIRETIME").arg(absent))? {
        Ok(_) => true,
        // No right to that very name says nothing about the command.
        Err(text) => {
            text.starts_with("NOPERM") && text.contains("key") && !text.contains("command")
        }
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
                Err(text) if text.contains("no such key") => Some(command),
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

/// Whether FUNCTION DUMP is answered, and what it says if there are libraries.
pub fn function_dump(
    conn: &mut Conn,
    wish: ReadFunctions,
    observer: &Observer,
) -> Result<(bool, Option<Vec<u8>>)> {
    /// A payload of nothing but its footer.
    const EMPTY_BYTES: usize = payload::FOOTER_LEN;
    if wish == ReadFunctions::No {
        return Ok((false, None));
    }
    match conn.try_query(redis::cmd("FUNCTION").arg("DUMP"))? {
        Ok(redis::Value::BulkString(payload)) if payload.len() > EMPTY_BYTES => {
            Ok((true, Some(payload)))
        }
        Ok(_) => Ok((true, None)),
        Err(text) if wish == ReadFunctions::Required => {
            Err(conn.refusal("FUNCTION DUMP", text).into())
        }
        // Before 7.0 there are none, and nothing is lost by it.
        Err(text) if text.starts_with("ERR unknown command") => Ok((false, None)),
        Err(text) => {
            observer.warn(&format!(
                "the source refuses FUNCTION DUMP ({text}); function libraries are not read"
            ));
            Ok((false, None))
        }
    }
}
