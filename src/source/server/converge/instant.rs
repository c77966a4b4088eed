//! Reads everything of a plan at one instant: by one EXEC; in a cluster by one script, or while writes
//! are paused.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::Result;

use super::ConvergingSource;
use crate::record::Eviction;
use crate::server::counts::CommandCounts;
use crate::server::facts::{Keyspace, keyspace, unix_ms};
use crate::server::reply::{Reply, cmd, from_reply};
use crate::server::resp::Item;
use crate::server::transaction::DISCARDED;
use crate::server::{Conn, ServerError, stands_by_expiry};
use crate::source::server::probe::EvictionCommand;
use crate::source::server::unheard::{Module, StreamFacts};

/// What a server dumps in a millisecond, and what a command costs; to guess how long an EXEC takes.
const DUMP_BYTES_PER_MS: usize = 200_000;
const COMMANDS_PER_MS: usize = 200;

/// Bytes of values that one EXEC may hold, on both sides.
const MAX_EXEC_BYTES: usize = 32 * 1024 * 1024;

/// One key as the EXEC showed it.
pub(super) struct Shown {
    pub db: u32,
    pub key: Vec<u8>,
    pub had: Had,
    pub expire_at_ms: Option<u64>,
    pub eviction: Option<Eviction>,
}

/// What DUMP answered.
pub(super) enum Had {
    Payload(Vec<u8>),
    /// So many bytes, more than is taken.
    TooLong(u64),
    Nothing,
    /// Nothing, though the key's expiry, of the same moment, says that it stands.
    Withheld,
}

impl Had {
    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Payload(payload) => payload.len(),
            Self::TooLong(_) | Self::Nothing | Self::Withheld => 0,
        }
    }
}

/// What the EXEC showed.
pub(super) struct Shot {
    pub at_ms: u64,
    pub keys: Vec<Shown>,
    /// The inner error: what is wrong with the answer.
    pub functions: Result<Option<Vec<u8>>, String>,
    /// How often each command was called by then.
    pub counts: Option<CommandCounts>,
    /// The databases that hold keys; `None` where they were not asked for.
    pub databases: Option<Vec<Keyspace>>,
    /// Streams that are no longer what was given, though nothing was heard.
    pub changed_streams: Vec<(u32, Vec<u8>)>,
}

/// What of the last round the server refuses.
pub(super) enum Refused {
    /// XINFO STREAM.
    Looks,
    /// Its answer: the values have grown, and are together more than one EXEC may hold.
    TooMuch,
    /// Its answer: a key was changed in the middle of it, so that writes were not held up.
    Torn,
    /// A key, or perhaps a command for keys.
    Keys(String),
    /// All of it.
    Everything(String),
}

/// What one EXEC asks for.
#[derive(Default)]
pub(super) struct Plan {
    pub dump: HashMap<u32, Vec<Vec<u8>>>,
    pub look: HashMap<u32, Vec<(Vec<u8>, StreamFacts)>>,
    pub bytes: usize,
    /// Types of modules whose values are not read again: the counts of commands vouch for them.
    pub counted: Vec<&'static Module>,
    /// Why they do not vouch for others.
    pub doubt: Option<String>,
}

impl Plan {
    /// Why it would hold up the server, or us, for too long.
    pub fn too_much(&self, max_pause: Duration) -> Option<String> {
        let dumps: usize = self.dump.values().map(Vec::len).sum();
        let looks: usize = self.look.values().map(Vec::len).sum();
        let ms = self.bytes / DUMP_BYTES_PER_MS + (3 * dumps + looks) / COMMANDS_PER_MS;
        if self.bytes > MAX_EXEC_BYTES || ms as u128 > max_pause.as_millis() {
            return Some(format!(
                "the last round would read {dumps} keys of about {} at once, and hold the source up \
                 for about {ms} ms (--max-pause {} ms)",
                crate::units::bytes_text(self.bytes as u64),
                max_pause.as_millis()
            ));
        }
        None
    }
}

/// By what everything is read at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// MULTI/EXEC.
    Multi,
    /// One EVAL: in a cluster the keys of a MULTI must lie in one slot. This is its text.
    Script(&'static str),
    /// Command by command, because writes are paused.
    Plain,
}

/// Carries out each command that stands in ARGV, preceded by the number of its words.
pub(super) const SCRIPT: &str = "local out, at = {}, 1 \
    while at <= #ARGV do \
    local count = tonumber(ARGV[at]) \
    out[#out + 1] = redis.pcall(unpack(ARGV, at + 1, at + count)) \
    at = at + count + 1 end return out";

/// The same, saying of itself what servers from 7.0 on want to know: keys of several slots that are
/// not declared, and nothing is written.
pub(super) const SCRIPT_WITH_FLAGS: &str = "#!lua flags=allow-cross-slot-keys,no-writes\n\
    local out, at = {}, 1 \
    while at <= #ARGV do \
    local count = tonumber(ARGV[at]) \
    out[#out + 1] = redis.pcall(unpack(ARGV, at + 1, at + count)) \
    at = at + count + 1 end return out";

/// The script that this server takes, if any.
///
/// # Errors
/// The connection.
pub(super) fn script_for(conn: &mut Conn) -> Result<Option<&'static str>, ServerError> {
    for script in [SCRIPT_WITH_FLAGS, SCRIPT] {
        if conn.try_query(cmd("EVAL").arg(script).arg(0))?.is_ok() {
            return Ok(Some(script));
        }
    }
    Ok(None)
}

/// Reads everything of the plan at one instant. The inner `Err` is why the server does not do that.
pub(super) fn read_instant(
    source: &mut ConvergingSource,
    plan: &Plan,
    how: How,
) -> Result<Result<Shot, Refused>> {
    let inner = &mut source.inner;
    let abilities = inner.abilities;
    let max_value = inner.max_value();
    let conn = &mut inner.conn;
    conn.doing("reading the last round");
    let mut dbs: Vec<u32> = plan.dump.keys().chain(plan.look.keys()).copied().collect();
    dbs.sort_unstable();
    dbs.dedup();
    let several = dbs.len() > 1 || dbs.first().is_some_and(|db| conn.database() != Some(*db));
    let mut commands = 0usize;
    // By their number: MULTI's answer is number 0.
    let mut looks: HashSet<usize> = HashSet::new();
    let mut first_of_keys = usize::MAX;
    let mut words: Vec<Vec<u8>> = Vec::new();
    let mut queue = |conn: &mut Conn, args: &[&[u8]]| -> Result<usize, ServerError> {
        commands += 1;
        match how {
            How::Script(_) => {
                words.push(args.len().to_string().into_bytes());
                words.extend(args.iter().map(|word| word.to_vec()));
            }
            How::Multi | How::Plain => conn.queue(args)?,
        }
        Ok(commands)
    };
    if how == How::Multi {
        conn.queue(&[b"MULTI"])?;
    }
    if abilities.time {
        queue(conn, &[b"TIME"])?;
    }
    let asks_time = abilities.asks_time();
    if let Some(by) = source.functions_by {
        queue(conn, by.command())?;
    }
    let asks_counts = source.counts.is_some();
    if asks_counts {
        queue(conn, &[b"INFO", b"commandstats"])?;
    }
    // Where INFO tells which databases hold keys, and all of them are wanted.
    let asks_databases = inner.facts.keyspace.is_some() && inner.options.selection.dbs.is_empty();
    if asks_databases {
        queue(conn, &[b"INFO", b"keyspace"])?;
    }
    let expiry: &[u8] = if abilities.pexpiretime {
        b"PEXPIRETIME"
    } else {
        b"PTTL"
    };
    for db in &dbs {
        if several {
            queue(conn, &[b"SELECT", db.to_string().as_bytes()])?;
        }
        // Right beside the expiries, before any value: dumping a large one takes its time.
        if asks_time {
            queue(conn, &[b"TIME"])?;
        }
        for key in plan.dump.get(db).into_iter().flatten() {
            first_of_keys = first_of_keys.min(queue(conn, &[expiry, key])?);
        }
        for key in plan.dump.get(db).into_iter().flatten() {
            if let Some(command) = abilities.eviction {
                let sub: &[u8] = if command == EvictionCommand::Freq {
                    b"FREQ"
                } else {
                    b"IDLETIME"
                };
                queue(conn, &[b"OBJECT", sub, key])?;
            }
            queue(conn, &[b"DUMP", key])?;
        }
        for (key, _) in plan.look.get(db).into_iter().flatten() {
            looks.insert(queue(conn, &[b"XINFO", b"STREAM", key])?);
        }
    }
    match how {
        How::Multi => conn.queue(&[b"EXEC"])?,
        How::Script(script) => {
            let mut args: Vec<&[u8]> = vec![b"EVAL", script.as_bytes(), b"0"];
            args.extend(words.iter().map(Vec::as_slice));
            conn.queue(&args)?;
        }
        How::Plain => {}
    }
    conn.flush()?;
    // A script's SELECT ends with it; any other is not proved by anybody reading its answer here.
    if several && !matches!(how, How::Script(_)) {
        conn.forget_database();
    }
    let mut refused = None;
    let queued = if how == How::Multi { commands + 1 } else { 0 };
    for number in 0..queued {
        if let Err(text) = conn.reply()? {
            // A key's refusal says less than that of a command which is always asked.
            refused.get_or_insert(match number {
                number if looks.contains(&number) => Refused::Looks,
                number if number >= first_of_keys => Refused::Keys(text),
                _ => Refused::Everything(text),
            });
        }
    }
    let head = match how {
        How::Plain => Item::Array(commands),
        How::Multi | How::Script(_) => conn.item()?,
    };
    match head {
        Item::Array(count) if refused.is_some() => {
            // Somebody in between refused a command, and the server never heard of it.
            for _ in 0..count {
                conn.reply()?.ok();
            }
            let unknown = || Refused::Everything("a command was refused".to_owned());
            return Ok(Err(refused.unwrap_or_else(unknown)));
        }
        Item::Array(count) if count == commands => {}
        Item::Array(_) => return Err(conn.confused("not every command was answered").into()),
        Item::Error(text) => {
            let text = String::from_utf8_lossy(&text).into_owned();
            if how == How::Multi && !text.starts_with(DISCARDED) {
                // The transaction may still be open.
                return Err(conn.spoilt(format!("EXEC was answered with {text}")).into());
            }
            return Ok(Err(refused.unwrap_or(Refused::Everything(text))));
        }
        _ => {
            return Ok(Err(Refused::Everything(
                "the transaction was discarded".to_owned(),
            )));
        }
    }
    // Values may have grown since the plan was made by what they were.
    let mut room = 2 * MAX_EXEC_BYTES;
    // One at a time: what XINFO says of twenty thousand streams is much larger than what is kept.
    let at_ms = match abilities.time {
        true => time_of(next(conn)?).unwrap_or_else(|| inner.clock.now_ms()),
        false => inner.clock.now_ms(),
    };
    let functions = match source.functions_by {
        Some(by) => by.payload(next(conn)?),
        None => Ok(None),
    };
    let counts = match asks_counts.then(|| next(conn)).transpose()? {
        Some(Reply::Bulk(text)) => CommandCounts::parse(&String::from_utf8_lossy(&text)),
        _ => None,
    };
    let databases = match asks_databases.then(|| next(conn)).transpose()? {
        Some(Reply::Bulk(text)) => keyspace(&String::from_utf8_lossy(&text)),
        _ => None,
    };
    // Every reply is read, also after one that spoils all.
    let mut spoilt = (asks_databases && databases.is_none())
        .then(|| Refused::Everything("INFO keyspace did not tell the databases".to_owned()));
    let mut keys = Vec::new();
    let mut changed_streams = Vec::new();
    for db in &dbs {
        if several {
            match next(conn)? {
                Reply::Okay => {}
                // What follows was read from another database.
                other => spoilt = Some(Refused::Everything(format!("SELECT answered {other:?}"))),
            }
        }
        let base_ms = match asks_time {
            true => match time_of(next(conn)?) {
                Some(ms) => ms,
                None => {
                    let text = "TIME gave no time".to_owned();
                    spoilt.get_or_insert(Refused::Keys(text));
                    0
                }
            },
            false if abilities.pexpiretime => 0,
            false => at_ms,
        };
        let keys_here = plan.dump.get(db).into_iter().flatten();
        let mut expiries = Vec::new();
        for _ in keys_here.clone() {
            expiries.push(match next(conn)? {
                Reply::Int(ms @ 0..) => Expires::At(base_ms.saturating_add(ms.unsigned_abs())),
                Reply::Int(-1) => Expires::Never,
                Reply::Int(-2) => Expires::Gone,
                other => {
                    let text = format!("an expiry was answered {other:?}");
                    spoilt.get_or_insert(Refused::Keys(text));
                    Expires::Gone
                }
            });
        }
        for (key, expires) in keys_here.zip(expiries) {
            let eviction = match abilities.eviction {
                Some(command) => eviction_of(command, &next(conn)?),
                None => None,
            };
            let had = match dumped(conn, max_value.min(room))? {
                Ok(had) => had,
                // Not to be taken for a key that went away.
                Err(text) => {
                    spoilt.get_or_insert(Refused::Keys(text));
                    Had::Nothing
                }
            };
            let stands = match expires {
                Expires::Never => stands_by_expiry(None, at_ms),
                Expires::At(ms) => stands_by_expiry(Some(ms), at_ms),
                Expires::Gone => false,
            };
            let had = match had {
                Had::Nothing if stands => Had::Withheld,
                had => had,
            };
            room -= had.bytes().min(room);
            if matches!(had, Had::TooLong(bytes) if bytes <= max_value as u64) {
                spoilt.get_or_insert(Refused::TooMuch);
            }
            let expire_at_ms = match (expires, &had) {
                (Expires::At(ms), _) => Some(ms),
                (Expires::Gone, Had::Payload(_) | Had::TooLong(_)) => {
                    spoilt.get_or_insert(Refused::Torn);
                    None
                }
                (Expires::Never | Expires::Gone, _) => None,
            };
            keys.push(Shown {
                db: *db,
                key: key.clone(),
                had,
                expire_at_ms,
                eviction,
            });
        }
        for (key, facts) in plan.look.get(db).into_iter().flatten() {
            if !is_same_stream(&next(conn)?, facts) {
                changed_streams.push((*db, key.clone()));
            }
        }
    }
    if let Some(refused) = spoilt {
        return Ok(Err(refused));
    }
    Ok(Ok(Shot {
        at_ms,
        keys,
        functions,
        counts,
        databases,
        changed_streams,
    }))
}

fn eviction_of(command: EvictionCommand, reply: &Reply) -> Option<Eviction> {
    match reply {
        Reply::Int(number) => command.told(*number),
        _ => None,
    }
}

/// What is said of when a key expires.
enum Expires {
    At(u64),
    Never,
    /// There is no such key.
    Gone,
}

/// The next reply; an error as a text, which nobody takes for an answer.
fn next(conn: &mut Conn) -> Result<Reply, ServerError> {
    Ok(conn.reply()?.unwrap_or_else(Reply::Status))
}

/// What TIME answered, Unix ms.
fn time_of(reply: Reply) -> Option<u64> {
    let (secs, micros) = from_reply::<(u64, u64)>(reply).ok()?;
    unix_ms(secs, micros)
}

/// The next reply, to DUMP; a value of more than `max` bytes is not kept. The inner error is an
/// answer that is none.
fn dumped(conn: &mut Conn, max: usize) -> Result<Result<Had, String>, ServerError> {
    let text = match conn.item_or_skip(max)? {
        Item::Bulk(payload) => return Ok(Ok(Had::Payload(payload))),
        Item::TooLong(bytes) => return Ok(Ok(Had::TooLong(bytes))),
        Item::Nil => return Ok(Ok(Had::Nothing)),
        Item::Error(text) => String::from_utf8_lossy(&text).into_owned(),
        Item::Simple(text) => String::from_utf8_lossy(text).into_owned(),
        Item::Int(number) => number.to_string(),
        Item::Array(_) | Item::Map(_) | Item::Push(_) => {
            return Err(conn.confused("DUMP gave something else than a payload"));
        }
    };
    Ok(Err(format!("DUMP answered {text:?}")))
}

/// Whether XINFO STREAM says of a stream what its payload said.
fn is_same_stream(reply: &Reply, facts: &StreamFacts) -> bool {
    let Reply::Array(items) = reply else {
        return false;
    };
    let mut fields = HashMap::new();
    for pair in items.chunks_exact(2) {
        if let Reply::Bulk(name) = &pair[0] {
            fields.insert(name.as_slice(), &pair[1]);
        }
    }
    let number = |name: &[u8]| match fields.get(name) {
        Some(Reply::Int(number)) => u64::try_from(*number).ok(),
        _ => None,
    };
    let id = |name: &[u8]| match fields.get(name) {
        Some(Reply::Bulk(text)) => Some(text.clone()),
        _ => None,
    };
    let text = |id: &crate::payload::StreamId| format!("{}-{}", id.ms, id.seq).into_bytes();
    let newer = match (&facts.added, number(b"entries-added")) {
        (Some((added, max_deleted)), Some(now)) => {
            *added == now && id(b"max-deleted-entry-id") == Some(text(max_deleted))
        }
        (None, None) => true,
        _ => false,
    };
    let settings = [&b"idmp-duration"[..], b"idmp-maxsize", b"iids-added"].map(number);
    let idempotency = match facts.idempotency {
        Some(before) => settings == before.map(Some),
        None => settings == [None; 3],
    };
    newer
        && idempotency
        && number(b"groups") == Some(0)
        && number(b"length") == Some(facts.length)
        && id(b"last-generated-id") == Some(text(&facts.last_id))
}
