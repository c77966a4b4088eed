//! Commands for hashes, and for the expiry of their fields.

use std::collections::BTreeMap;

use super::super::Server;
use super::super::process::Cx;
use super::super::release::Since;
use super::super::reply::Reply;
use super::super::table::{FIRST, NEEDS_MEMORY, Row, WRITE, row};
use super::super::value::{Entry, Field, Value};
use super::expiry::Unit;
use super::words::{NOT_INTEGER, SYNTAX, WRONG_TYPE, error, integer, is, text, wrong_count};

const ADD: u16 = WRITE | NEEDS_MEMORY;
const ALWAYS: Since = Since::Always;
const TTL: Since = Since::FieldTtl;
const SECONDS: Unit = Unit::SECONDS;
const MILLIS: Unit = Unit::MILLIS;

pub(super) const ROWS: &[Row] = &[
    row("hset", -4, ADD, FIRST, ALWAYS, hset),
    row("hmset", -4, ADD, FIRST, ALWAYS, hmset),
    row("hsetnx", 4, ADD, FIRST, ALWAYS, hsetnx),
    row("hget", 3, 0, FIRST, ALWAYS, hget),
    row("hmget", -3, 0, FIRST, ALWAYS, hmget),
    row("hdel", -3, WRITE, FIRST, ALWAYS, hdel),
    row("hlen", 2, 0, FIRST, ALWAYS, hlen),
    row("hstrlen", 3, 0, FIRST, ALWAYS, hstrlen),
    row("hexists", 3, 0, FIRST, ALWAYS, hexists),
    row("hgetall", 2, 0, FIRST, ALWAYS, hgetall),
    row("hkeys", 2, 0, FIRST, ALWAYS, hkeys),
    row("hvals", 2, 0, FIRST, ALWAYS, hvals),
    row("hincrby", 4, ADD, FIRST, ALWAYS, hincrby),
    row("hexpire", -6, ADD, FIRST, TTL, |server, cx, args| {
        expire(server, cx, args, SECONDS)
    }),
    row("hpexpire", -6, ADD, FIRST, TTL, |server, cx, args| {
        expire(server, cx, args, MILLIS)
    }),
    row("hexpireat", -6, ADD, FIRST, TTL, |server, cx, args| {
        expire(server, cx, args, SECONDS.absolute())
    }),
    row("hpexpireat", -6, ADD, FIRST, TTL, |server, cx, args| {
        expire(server, cx, args, MILLIS.absolute())
    }),
    row("httl", -5, 0, FIRST, TTL, |server, cx, args| {
        told(server, cx, args, SECONDS)
    }),
    row("hpttl", -5, 0, FIRST, TTL, |server, cx, args| {
        told(server, cx, args, MILLIS)
    }),
    row("hexpiretime", -5, 0, FIRST, TTL, |server, cx, args| {
        told(server, cx, args, SECONDS.absolute())
    }),
    row("hpexpiretime", -5, 0, FIRST, TTL, |server, cx, args| {
        told(server, cx, args, MILLIS.absolute())
    }),
    row("hpersist", -5, WRITE, FIRST, TTL, persist),
];

type Pair = (Vec<u8>, Vec<u8>);
type Fields = BTreeMap<Vec<u8>, Field>;

/// The fields of the hash at a key; the error if it is none.
fn fields<'a>(
    server: &'a mut Server,
    cx: &Cx,
    key: &[u8],
) -> Result<Option<&'a mut Fields>, Reply> {
    match server.read(cx, key).map(|entry| &mut entry.value) {
        None => Ok(None),
        Some(Value::Hash(rows)) => Ok(Some(rows)),
        Some(_) => Err(WRONG_TYPE),
    }
}

/// Whether a field is over, though nobody has removed it yet, as on a replica.
fn stands(field: &Field, now: u64) -> bool {
    field.expire_at.is_none_or(|at| at >= now)
}

/// Sets fields; how many are new.
fn put(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Result<i64, Reply> {
    let rows = args[2..].chunks(2);
    let field = |value: &[u8]| Field {
        value: value.to_vec(),
        expire_at: None,
    };
    let added = match fields(server, cx, args[1])? {
        Some(found) => rows
            .filter(|row| found.insert(row[0].to_vec(), field(row[1])).is_none())
            .count(),
        None => {
            let made: Fields = rows.map(|row| (row[0].to_vec(), field(row[1]))).collect();
            let added = made.len();
            server
                .keyspace
                .put(cx.db, args[1], Entry::new(Value::Hash(made), None, cx.now));
            added
        }
    };
    server.changed(cx, args[1]);
    Ok(added as i64)
}

fn hset(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    if !args.len().is_multiple_of(2) {
        return match server.release().has(Since::R60) {
            true => wrong_count("hset"),
            false => error("ERR wrong number of arguments for HMSET"),
        };
    }
    put(server, cx, args).map_or_else(|error| error, Reply::Int)
}

fn hmset(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    if !args.len().is_multiple_of(2) {
        return match server.release().has(Since::R60) {
            true => wrong_count("hmset"),
            false => error("ERR wrong number of arguments for HMSET"),
        };
    }
    put(server, cx, args).map_or_else(|error| error, |_| Reply::OK)
}

fn hsetnx(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    match fields(server, cx, args[1]) {
        Err(error) => error,
        Ok(Some(found)) if found.contains_key(args[2]) => Reply::Int(0),
        Ok(_) => put(server, cx, args).map_or_else(|error| error, Reply::Int),
    }
}

fn value_of(found: Option<&mut Fields>, name: &[u8], now: u64) -> Option<Vec<u8>> {
    let field = found?.get(name).filter(|field| stands(field, now))?;
    Some(field.value.clone())
}

/// Redis removes a field that is over when it is asked for; Valkey leaves that to its cron.
fn forget(server: &mut Server, cx: &Cx, key: &[u8], names: &[&[u8]]) {
    if server.release().is_valkey() || server.is_replica() || server.time.pause(cx.now).is_some() {
        return;
    }
    let Ok(Some(found)) = fields(server, cx, key) else {
        return;
    };
    let before = found.len();
    for name in names {
        if found.get(*name).is_some_and(|field| !stands(field, cx.now)) {
            found.remove(*name);
        }
    }
    if found.len() < before {
        server.changed(cx, key);
    }
}

fn hget(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    forget(server, cx, args[1], &args[2..]);
    fields(server, cx, args[1]).map_or_else(
        |error| error,
        |found| Reply::or_nil(value_of(found, args[2], cx.now)),
    )
}

fn hmget(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    forget(server, cx, args[1], &args[2..]);
    if let Err(error) = fields(server, cx, args[1]) {
        return error;
    }
    let one = |name: &&[u8]| {
        let found = fields(server, cx, args[1]).ok().flatten();
        Reply::or_nil(value_of(found, name, cx.now))
    };
    Reply::Array(args[2..].iter().map(one).collect())
}

fn hdel(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let removed = match fields(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) => 0,
        Ok(Some(found)) => args[2..]
            .iter()
            .filter(|name| found.remove(**name).is_some())
            .count(),
    };
    if removed > 0 {
        server.changed(cx, args[1]);
    }
    Reply::count(removed)
}

/// It counts fields that are past their time as long as nobody has removed them.
fn hlen(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let count = |found: Option<&mut Fields>| found.map_or(0, |found| found.len());
    fields(server, cx, args[1]).map_or_else(|error| error, |found| Reply::count(count(found)))
}

fn hstrlen(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    forget(server, cx, args[1], &args[2..]);
    let length = |found: Option<&mut Fields>| {
        Reply::count(value_of(found, args[2], cx.now).map_or(0, |value| value.len()))
    };
    fields(server, cx, args[1]).map_or_else(|error| error, length)
}

fn hexists(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    forget(server, cx, args[1], &args[2..]);
    let is_there = |found| Reply::flag(value_of(found, args[2], cx.now).is_some());
    fields(server, cx, args[1]).map_or_else(|error| error, is_there)
}

/// Names and values of the fields that are not over.
fn rows(server: &mut Server, cx: &Cx, key: &[u8]) -> Result<Vec<Pair>, Reply> {
    let found = fields(server, cx, key)?
        .into_iter()
        .flat_map(|found| found.iter());
    let found = found.filter(|(_, field)| stands(field, cx.now));
    Ok(found
        .map(|(name, field)| (name.clone(), field.value.clone()))
        .collect())
}

fn hgetall(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let pair = |(name, value)| (Reply::Bulk(name), Reply::Bulk(value));
    rows(server, cx, args[1]).map_or_else(
        |error| error,
        |rows| Reply::Map(rows.into_iter().map(pair).collect()),
    )
}

fn hkeys(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    rows(server, cx, args[1]).map_or_else(
        |error| error,
        |rows| Reply::bulks(rows.into_iter().map(|(name, _)| name)),
    )
}

fn hvals(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    rows(server, cx, args[1]).map_or_else(
        |error| error,
        |rows| Reply::bulks(rows.into_iter().map(|(_, value)| value)),
    )
}

fn hincrby(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let Some(by) = integer(args[3]) else {
        return NOT_INTEGER;
    };
    let standing = match fields(server, cx, args[1]) {
        Err(error) => return error,
        Ok(found) => value_of(found, args[2], cx.now),
    };
    let Some(standing) = standing.map_or(Some(0), |value| integer(&value)) else {
        return error("ERR hash value is not an integer");
    };
    let Some(sum) = standing.checked_add(by) else {
        return error("ERR increment or decrement would overflow");
    };
    let value = sum.to_string().into_bytes();
    match fields(server, cx, args[1]) {
        Ok(Some(found)) if found.contains_key(args[2]) => {
            if let Some(field) = found.get_mut(args[2]) {
                field.value = value;
            }
            server.changed(cx, args[1]);
        }
        _ => drop(put(server, cx, &[b"", args[1], args[2], &value])),
    }
    Reply::Int(sum)
}

/// Which command wants the names behind `FIELDS count`: versions word their refusals by it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    Expire,
    Told,
    Persist,
}

/// The names behind `FIELDS count`.
fn named<'a>(
    server: &Server,
    args: &[&'a [u8]],
    at: usize,
    wants: Wants,
) -> Result<Vec<&'a [u8]>, Reply> {
    let release = server.release();
    let word = args.get(at).copied().unwrap_or_default();
    let count = args.get(at + 1).and_then(|word| integer(word));
    let is_newest = release.has(Since::R86) && wants == Wants::Expire;
    let count = count.filter(|count| !is_newest || i32::try_from(*count).is_ok());
    let names = &args[(at + 2).min(args.len())..];
    let is_right = is(word, "fields");
    if is_right && count.is_some_and(|count| count > 0 && count as u64 == names.len() as u64) {
        return Ok(names.to_vec());
    }
    Err(match (release.is_valkey(), is_right, count) {
        (true, _, _) if wants == Wants::Told => SYNTAX,
        (true, false, _) if wants == Wants::Persist => SYNTAX,
        (true, _, None) if !is_right => {
            Reply::error(format!("ERR Unsupported option {}", text(word)))
        }
        (true, _, None) => NOT_INTEGER,
        (true, ..) => {
            error("ERR numfields should be greater than 0 and match the provided number of fields")
        }
        (false, false, _) if is_newest => {
            Reply::error(format!("ERR unknown argument: {}", text(word)))
        }
        (false, false, _) => {
            error("ERR Mandatory argument FIELDS is missing or not at the right position")
        }
        (false, true, None | Some(..=0)) if wants == Wants::Expire => {
            error("ERR Parameter `numFields` should be greater than 0")
        }
        (false, true, None | Some(..=0)) => {
            error("ERR Number of fields must be a positive integer")
        }
        (false, true, Some(count)) if is_newest => match names.get(count as usize) {
            Some(extra) => Reply::error(format!("ERR unknown argument: {}", text(extra))),
            None => error("ERR wrong number of arguments"),
        },
        (false, true, Some(_)) => {
            error("ERR The `numfields` parameter must match the number of arguments")
        }
    })
}

/// The latest time of a field: Redis keeps 46 bits of it.
fn latest(server: &Server) -> u64 {
    match server.release().is_valkey() {
        true => i64::MAX as u64,
        false => (1 << 46) - 1,
    }
}

/// The time of HEXPIRE and its like, in Unix ms.
fn field_time(server: &Server, cx: &Cx, name: &str, word: &[u8], unit: Unit) -> Result<u64, Reply> {
    let invalid = || Reply::error(format!("ERR invalid expire time in '{name}' command"));
    let number = integer(word).ok_or(NOT_INTEGER)?;
    if number < 0 {
        return Err(match server.release().is_valkey() {
            true => invalid(),
            false => error("ERR invalid expire time, must be >= 0"),
        });
    }
    let scaled = if unit.is_seconds {
        number.checked_mul(1000)
    } else {
        Some(number)
    };
    let at = match unit.is_absolute {
        true => scaled,
        false => scaled.and_then(|ms| ms.checked_add(cx.now as i64)),
    };
    at.map(|at| at as u64)
        .filter(|at| *at <= latest(server))
        .ok_or_else(invalid)
}

fn expire(server: &mut Server, cx: &Cx, args: &[&[u8]], unit: Unit) -> Reply {
    let name = super::words::text(args[0]).to_lowercase();
    let is_valkey = server.release().is_valkey();
    let condition = ["nx", "xx", "gt", "lt"]
        .into_iter()
        .find(|option| is(args[3], option));
    let at = 3 + usize::from(condition.is_some());
    // Redis looks at the key, then at the time, then at the names; Valkey the other way round.
    let (names, time) = if is_valkey {
        let names = named(server, args, at, Wants::Expire);
        let time = field_time(server, cx, &name, args[2], unit);
        match (names, time, fields(server, cx, args[1])) {
            (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => return error,
            (Ok(names), Ok(time), Ok(_)) => (names, time),
        }
    } else {
        let found = fields(server, cx, args[1]).map(drop);
        let time = field_time(server, cx, &name, args[2], unit);
        let names = named(server, args, at, Wants::Expire);
        match (found, time, names) {
            (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => return error,
            (Ok(()), Ok(time), Ok(names)) => (names, time),
        }
    };
    let at = time;
    let Ok(Some(found)) = fields(server, cx, args[1]) else {
        return Reply::Array(names.iter().map(|_| Reply::Int(-2)).collect());
    };
    let mut changed = false;
    let mut one = |name: &&[u8]| {
        let Some(field) = found.get_mut(*name) else {
            return Reply::Int(-2);
        };
        let fits = match (condition, field.expire_at) {
            (None, _) | (Some("nx" | "lt"), None) => true,
            (Some("xx"), standing) => standing.is_some(),
            (Some("gt"), Some(standing)) => at > standing,
            (Some("lt"), Some(standing)) => at < standing,
            _ => false,
        };
        if !fits {
            return Reply::Int(0);
        }
        changed = true;
        if at <= cx.now {
            found.remove(*name);
            return Reply::Int(2);
        }
        field.expire_at = Some(at);
        Reply::Int(1)
    };
    let reply = Reply::Array(names.iter().map(&mut one).collect());
    if changed {
        server.changed(cx, args[1]);
    }
    reply
}

/// The names, of a key that is a hash or not there.
fn names_of_hash<'a>(
    server: &mut Server,
    cx: &Cx,
    args: &[&'a [u8]],
    wants: Wants,
) -> Result<Vec<&'a [u8]>, Reply> {
    let found = fields(server, cx, args[1]).map(drop);
    let names = named(server, args, 2, wants);
    match server.release().is_valkey() {
        true => names.and_then(|names| found.map(|()| names)),
        false => found.and(names),
    }
}

fn told(server: &mut Server, cx: &Cx, args: &[&[u8]], unit: Unit) -> Reply {
    let names = match names_of_hash(server, cx, args, Wants::Told) {
        Ok(names) => names,
        Err(error) => return error,
    };
    let is_valkey = server.release().is_valkey();
    let found = fields(server, cx, args[1]).ok().flatten();
    let one = |name: &&[u8]| {
        let field = found.as_ref().and_then(|found| found.get(*name));
        match field
            .filter(|field| stands(field, cx.now))
            .map(|field| field.expire_at)
        {
            None => Reply::Int(-2),
            Some(None) => Reply::Int(-1),
            Some(Some(at)) => {
                let ms = if unit.is_absolute {
                    at
                } else {
                    at.saturating_sub(cx.now)
                };
                Reply::unsigned(match unit.is_seconds {
                    true if is_valkey => (ms + 500) / 1000,
                    true => ms.div_ceil(1000),
                    false => ms,
                })
            }
        }
    };
    Reply::Array(names.iter().map(one).collect())
}

fn persist(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let names = match names_of_hash(server, cx, args, Wants::Persist) {
        Ok(names) => names,
        Err(error) => return error,
    };
    let mut changed = false;
    let mut found = fields(server, cx, args[1]).ok().flatten();
    let mut one = |name: &&[u8]| {
        let field = found.as_mut().and_then(|found| found.get_mut(*name));
        match field.map(|field| field.expire_at.take()) {
            None => Reply::Int(-2),
            Some(None) => Reply::Int(-1),
            Some(Some(_)) => {
                changed = true;
                Reply::Int(1)
            }
        }
    };
    let reply = Reply::Array(names.iter().map(&mut one).collect());
    if changed {
        server.changed(cx, args[1]);
    }
    reply
}
