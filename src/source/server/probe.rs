//! What this source lets us do: each command that some service refuses is tried once.

use anyhow::Result;

use super::ServerSourceOptions;
use crate::dialect::Feature;
use crate::observer::Observer;
use crate::record::Eviction;
use crate::server::cluster::is_refusal;
use crate::server::conn::{asks_for_patience, is_forbidden};
use crate::server::facts::{Facts, Keyspace, ServerClock};
use crate::server::reply::{Command, Reply, cmd, from_reply_ref};
use crate::server::{ABSENT_KEY, Conn, ServerError, transaction};
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
    /// As the server's version has it, where nothing can be tried.
    pub fn of(facts: &Facts, clock: &ServerClock) -> Self {
        Self {
            multi: false,
            pexpiretime: facts.dialect().has(Feature::ExpireTime),
            time: clock.is_servers,
            eviction: None,
        }
    }

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

impl EvictionCommand {
    /// What is asked of OBJECT.
    pub fn word(self) -> &'static [u8] {
        match self {
            Self::IdleTime => b"IDLETIME",
            Self::Freq => b"FREQ",
        }
    }

    /// What its answer tells; `None` where that is no idle time or no frequency.
    pub fn told(self, number: i64) -> Option<Eviction> {
        match self {
            Self::IdleTime => u64::try_from(number).ok().map(Eviction::IdleSecs),
            Self::Freq => u8::try_from(number).ok().map(Eviction::Freq),
        }
    }
}

/// A database that holds keys, or may, and cannot be gone to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotHad {
    /// Its number.
    pub db: u32,
    /// Its keys, where the server tells.
    pub keys: Option<u64>,
    /// The server's words.
    pub reason: String,
}

impl NotHad {
    /// `3 (20 keys)`.
    fn show(&self) -> String {
        match self.keys {
            Some(keys) => format!("{} ({})", self.db, plural(keys, "key")),
            None => format!("{} (it is not known whether it has keys)", self.db),
        }
    }

    /// That it was not read, in a line.
    pub fn told(&self) -> String {
        let what = match self.keys {
            Some(keys) => plural(keys, "key"),
            None => "it is not known how many keys".to_owned(),
        };
        format!(
            "database {} ({what}) was not read: {}",
            self.db, self.reason
        )
    }
}

/// The databases of a source.
#[derive(Debug, Default)]
pub struct Databases {
    /// Those to read: each was gone to.
    pub rows: Vec<Keyspace>,
    /// Those that are wanted, and are not to be had.
    pub not_had: Vec<NotHad>,
    /// That there may be others with keys, and that we have no right to look, in a line.
    pub unseen: Option<String>,
    /// What the server lets us do, tried in the first of those to read.
    pub abilities: Option<Abilities>,
}

/// What a server is asked at its opening, and who is told.
pub struct Asking<'a> {
    pub facts: &'a Facts,
    pub clock: &'a ServerClock,
    pub options: &'a ServerSourceOptions,
    pub observer: &'a Observer,
}

/// The databases to read, from INFO keyspace, or by SELECT and DBSIZE where that is refused: every
/// one is gone to, before anything is read. `conn` is in database 0, as every new connection.
///
/// # Errors
/// Where none of them is to be had, or what cannot be done without, and the connection's.
pub fn databases(conn: &mut Conn, asking: &Asking<'_>) -> Result<Databases> {
    let named = &asking.options.selection.dbs;
    let mut found = match &asking.facts.keyspace {
        None => try_databases(conn, named, asking)?,
        Some(keyspace) => {
            let known = |db: u32| keyspace.iter().copied().find(|row| row.db == db);
            // A database that was named is scanned even if INFO, a moment ago, did not list it.
            let rows = match named.as_slice() {
                [] => keyspace.clone(),
                dbs => dbs
                    .iter()
                    .map(|&db| known(db).unwrap_or(empty(db)))
                    .collect(),
            };
            go_to_all(conn, rows, asking)?
        }
    };
    if let (true, Some(first)) = (found.rows.is_empty(), found.not_had.first()) {
        // A database that is not there is as little to be had as one that is forbidden.
        return Err(conn.needed("SELECT", Err(first.reason.clone())).into());
    }
    tell(&found.not_had, named.is_empty(), asking.observer);
    if found.abilities.is_none() {
        // Nothing to read yet: what may come later is read from database 0, as far as is known.
        found.abilities = abilities(conn, asking)?.ok();
    }
    Ok(found)
}

/// Goes to each, and to the first of them to find out what can be done there.
fn go_to_all(conn: &mut Conn, mut rows: Vec<Keyspace>, asking: &Asking<'_>) -> Result<Databases> {
    let mut found = Databases::default();
    rows.retain(|row| {
        let lacks = asking.facts.lacks_database(row.db);
        found.not_had.extend(lacks.clone().map(|reason| NotHad {
            db: row.db,
            keys: None,
            reason,
        }));
        lacks.is_none()
    });
    // Database 0 comes first: a new connection is in it, and there may be no way back.
    rows.sort_by_key(|row| row.db);
    rows.dedup_by_key(|row| row.db);
    let mut rest = rows.into_iter();
    let mut tried = Vec::new();
    for row in rest.by_ref() {
        let mut gone_to = conn.select(row.db)?;
        if gone_to.is_ok() {
            gone_to = abilities(conn, asking)?.map(|abilities| found.abilities = Some(abilities));
        }
        let is_first = gone_to.is_ok();
        tried.push((row, gone_to));
        if is_first {
            break;
        }
    }
    let rest: Vec<Keyspace> = rest.collect();
    let dbs: Vec<u32> = rest.iter().map(|row| row.db).collect();
    if !dbs.is_empty() {
        tried.extend(rest.into_iter().zip(conn.select_each(&dbs)?));
    }
    for (row, gone_to) in tried {
        match gone_to {
            Ok(()) => found.rows.push(row),
            Err(reason) => found.not_had.push(NotHad {
                db: row.db,
                keys: Some(row.keys),
                reason,
            }),
        }
    }
    Ok(found)
}

/// Says which databases are not read.
fn tell(not_had: &[NotHad], all_wanted: bool, observer: &Observer) {
    let Some(first) = not_had.first() else {
        return;
    };
    let list: Vec<String> = not_had.iter().map(NotHad::show).collect();
    let advice = match all_wanted {
        true => "; if you need only the others, select them with --db",
        false => "",
    };
    observer.warn(&format!(
        "the source refuses SELECT ({}): not read, and counted as failed: database {}{advice}",
        first.reason,
        list.join(", ")
    ));
}

fn empty(db: u32) -> Keyspace {
    Keyspace {
        db,
        keys: 0,
        expires: 0,
    }
}

/// Whether a refusal is about the command, and not about the key or the database.
fn is_about_command(text: &str) -> bool {
    match text.starts_with("NOPERM") {
        true => text.contains("command"),
        false => is_forbidden(text),
    }
}

/// Whether the server says that there is no such database.
fn is_no_database(text: &str) -> bool {
    text.contains("out of range")
        || text.contains("invalid DB index")
        || text.contains("not allowed in cluster mode")
}

/// Without INFO: goes to one database after the other until there is no more.
fn try_databases(conn: &mut Conn, named: &[u32], asking: &Asking<'_>) -> Result<Databases> {
    /// So many that are forbidden in a row are the last that are tried: as many as a server has
    /// where nobody says otherwise.
    const FORBIDDEN: usize = 16;
    asking.observer.notice(
        "the server does not tell its databases (INFO); they are found by trying one after the \
         other",
    );
    let candidates = match named {
        [] => (0..=u32::from(u16::MAX)).collect(),
        dbs => dbs.to_vec(),
    };
    let mut found = Databases::default();
    let mut forbidden = 0;
    for db in candidates {
        let mut tried = conn.select(db)?;
        if tried.is_ok() && found.abilities.is_none() {
            tried = abilities(conn, asking)?.map(|abilities| found.abilities = Some(abilities));
        }
        if let Err(reason) = tried {
            if named.is_empty() && is_no_database(&reason) {
                break;
            }
            if named.is_empty() && is_about_command(&reason) {
                found.unseen = warn_of_select(&reason, asking.observer);
                break;
            }
            found.not_had.push(NotHad {
                db,
                keys: None,
                reason,
            });
            forbidden += 1;
            if named.is_empty() && forbidden >= FORBIDDEN {
                break;
            }
            continue;
        }
        forbidden = 0;
        let keys = count_keys(conn)?;
        if keys != Some(0) || !named.is_empty() {
            found.rows.push(Keyspace {
                keys: keys.unwrap_or(0),
                ..empty(db)
            });
        }
    }
    Ok(found)
}

/// Says that SELECT is refused; what is not seen for it. A proxy that has no SELECT has no other
/// database. A right that we lack is one that others have.
fn warn_of_select(reason: &str, observer: &Observer) -> Option<String> {
    let text = format!(
        "the source refuses SELECT ({reason}): only database 0 is read, and whether there are keys \
         in others is not known"
    );
    match reason.starts_with("NOPERM") {
        true => {
            observer.warn(&format!("{text}; --db 0 says that nothing else is wanted"));
            Some(text)
        }
        false => {
            observer.warn(&text);
            None
        }
    }
}

/// The keys of the present database, where DBSIZE tells.
///
/// # Errors
/// The connection's.
pub fn count_keys(conn: &mut Conn) -> Result<Option<u64>, ServerError> {
    Ok(match conn.ask(&cmd("DBSIZE"))? {
        Ok(Reply::Int(keys)) => u64::try_from(keys).ok(),
        _ => None,
    })
}

/// Whether the present database has no key, by DBSIZE, or where that is refused by SCAN.
///
/// # Errors
/// The connection's.
pub fn is_empty(conn: &mut Conn) -> Result<bool, ServerError> {
    if let Some(keys) = count_keys(conn)? {
        return Ok(keys == 0);
    }
    let answer = conn.ask(&cmd("SCAN").arg(0).arg("COUNT").arg(10).to_owned())?;
    let Ok(Reply::Array(parts)) = answer else {
        return Ok(false);
    };
    let [cursor, Reply::Array(names)] = parts.as_slice() else {
        return Ok(false);
    };
    let cursor: Option<String> = from_reply_ref(cursor).ok();
    Ok(cursor.as_deref() == Some("0") && names.is_empty())
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
        let no_touch = cmd("CLIENT").arg("NO-TOUCH").arg("ON").to_owned();
        if conn.ask(&no_touch)?.is_ok() {
            conn.keep(&no_touch);
        }
    }
    Ok(())
}

/// Tries once what some servers refuse, in the present database; all in one go, because far away
/// each round trip counts. The inner error is that this database is forbidden.
///
/// # Errors
/// What cannot be done without: SCAN, DUMP, and PEXPIRETIME or PTTL; and the connection's.
pub fn abilities(conn: &mut Conn, asking: &Asking<'_>) -> Result<Result<Abilities, String>> {
    let facts = asking.facts;
    let answers = conn.ask_all(&tries(facts), |text| {
        // In a cluster nobody may serve the slot of that name, for as long as it likes.
        asks_for_patience(text) && !(facts.cluster && text.starts_with("CLUSTERDOWN"))
    })?;
    let [scan, pexpiretime, pttl, dump, pair @ ..] = answers.as_slice() else {
        return Ok(Err("its questions were not answered".to_owned()));
    };
    if let Err(text) = dump
        && is_about_database(text)
    {
        return Ok(Err(text.clone()));
    }
    // Before the first key: else each of them would be tried in vain.
    for (name, answer) in [("SCAN", scan), ("DUMP", dump)] {
        if let Err(text) = answer
            && is_about_command(text)
        {
            return Err(needed_to_read(conn, facts, name, text).into());
        }
    }
    let pexpiretime = match pexpiretime {
        Ok(value) => matches!(value, Reply::Int(_)),
        Err(text) => !is_about_command(text),
    };
    if let (false, Err(text)) = (pexpiretime, pttl)
        && is_about_command(text)
    {
        return Err(conn.refusal("PTTL", text.clone()).into());
    }
    let multi = match pair {
        [multi, exec] => transaction::judge(conn, multi.clone(), exec.clone())?.is_ok(),
        _ => false,
    };
    let multi = multi && queues(conn, asking)?;
    if !asking.clock.is_servers {
        // An archive tells its instant, too, and nobody who reads it can know whose clock that was.
        asking.observer.warn(match pexpiretime {
            true => {
                "the source refuses TIME: the moments that this run tells are of this machine's \
                 clock, and are as right as that clock is"
            }
            false => {
                "the source refuses both PEXPIRETIME and TIME: expiries, and the moments that this \
                 run tells, are computed with this machine's clock when an answer comes: they are as \
                 right as that clock is, and late by the time that an answer takes"
            }
        });
    }
    let eviction = match asking.options.eviction {
        true => eviction(conn, facts, asking.observer)?,
        false => None,
    };
    Ok(Ok(Abilities {
        multi,
        pexpiretime,
        time: asking.clock.is_servers,
        eviction,
    }))
}

/// SCAN, PEXPIRETIME, PTTL, DUMP, and MULTI with EXEC.
fn tries(facts: &Facts) -> Vec<Command> {
    // The name is one that nobody uses: -2 says that the command works, whatever the key.
    let on_absent = |name: &str| cmd(name).arg(ABSENT_KEY).to_owned();
    let scan = cmd("SCAN").arg(0).arg("COUNT").arg(1).to_owned();
    let mut commands = vec![
        scan,
        on_absent("PEXPIRETIME"),
        on_absent("PTTL"),
        on_absent("DUMP"),
    ];
    // In a cluster the keys of a MULTI must lie in one slot, so that each would need its own, which
    // costs more than asking for the expiry a second time.
    if !facts.cluster {
        commands.extend([cmd("MULTI"), cmd("EXEC")]);
    }
    commands
}

/// That SCAN or DUMP is refused.
fn needed_to_read(conn: &Conn, facts: &Facts, name: &str, text: &str) -> ServerError {
    match facts.came_too_early_for(Feature::Scan, "SCAN") {
        Some(reason) => ServerError::Refused {
            address: conn.address().to_owned(),
            command: "SCAN".to_owned(),
            reason,
        },
        None => conn.refusal(name, text.to_owned()),
    }
}

/// Whether commands that only read are queued in a MULTI: Redis up to 7.0 refuses that where it is
/// full (server.c, processCommand: "queuing may consume an unlimited amount of memory"); 8.0 and
/// Valkey do not.
fn queues(conn: &mut Conn, asking: &Asking<'_>) -> Result<bool> {
    if asking.facts.memory.max == Some(0) {
        return Ok(true);
    }
    let full = transaction::refused_when_full(conn)?;
    if let Some(text) = &full {
        asking.observer.warn(&format!(
            "the source is out of memory, and queues nothing in a MULTI ({text}): keys are read \
             without it"
        ));
    }
    Ok(full.is_none())
}

/// Whether a refusal is about the database: Valkey from 9.1 on has users who may go to some only,
/// and every connection begins in database 0.
fn is_about_database(text: &str) -> bool {
    text.starts_with("NOPERM") && text.contains("database") && !text.contains("command")
}

/// By what idle times or frequencies are asked for, where that is allowed.
fn eviction(
    conn: &mut Conn,
    facts: &Facts,
    observer: &Observer,
) -> Result<Option<EvictionCommand>, ServerError> {
    let (command, sub) = match facts.memory.policy.as_deref() {
        Some(policy) if policy.contains("lfu") => (EvictionCommand::Freq, "FREQ"),
        _ => (EvictionCommand::IdleTime, "IDLETIME"),
    };
    let mut object = cmd("OBJECT");
    object.arg(sub).arg(ABSENT_KEY);
    // In a cluster nobody may serve that slot.
    let answer = match facts.cluster {
        true => conn.try_query(&object)?,
        false => conn.ask(&object)?,
    };
    Ok(match answer {
        Ok(_) => Some(command),
        Err(text) if text.contains("no such key") || !is_refusal(&text) => Some(command),
        Err(text) => {
            observer.warn(&format!(
                "the source refuses OBJECT {sub} ({text}); idle times and frequencies are not \
                 exported"
            ));
            None
        }
    })
}
