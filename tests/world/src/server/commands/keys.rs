//! Commands for keys of any type.

use super::super::Server;
use super::super::process::Cx;
use super::super::release::Since;
use super::super::reply::Reply;
use super::super::table::{CONTAINER, FIRST, Keys, NEEDS_MEMORY, Row, WRITE, row};
use super::super::value::{Entry, Value};
use super::super::{glob, payload, slots};
use super::words::{NO_KEY, NOT_INTEGER, SYNTAX, database, error, integer, is, natural, text};

const ALWAYS: Since = Since::Always;
const ALL: Keys = Keys::At(1, -1, 1);
const TWO: Keys = Keys::At(1, 2, 1);
const SECOND: Keys = Keys::At(2, 2, 1);

pub(super) const ROWS: &[Row] = &[
    row("del", -2, WRITE, ALL, ALWAYS, del),
    row("unlink", -2, WRITE, ALL, ALWAYS, del),
    row("exists", -2, 0, ALL, ALWAYS, exists),
    row("touch", -2, 0, ALL, ALWAYS, touch),
    row("type", 2, 0, FIRST, ALWAYS, type_of),
    row("rename", 3, WRITE, TWO, ALWAYS, rename),
    row("renamenx", 3, WRITE, TWO, ALWAYS, renamenx),
    row("copy", -3, WRITE | NEEDS_MEMORY, TWO, Since::R62, copy),
    row("move", 3, WRITE, FIRST, ALWAYS, move_key),
    row("swapdb", 3, WRITE, Keys::None, ALWAYS, swapdb),
    row("flushdb", -1, WRITE, Keys::None, ALWAYS, flushdb),
    row("flushall", -1, WRITE, Keys::None, ALWAYS, flushall),
    row("dbsize", 1, 0, Keys::None, ALWAYS, dbsize),
    row("randomkey", 1, 0, Keys::None, ALWAYS, randomkey),
    row("keys", 2, 0, Keys::None, ALWAYS, keys),
    row("scan", -2, 0, Keys::None, ALWAYS, scan),
    row("dump", 2, 0, FIRST, ALWAYS, dump),
    row("restore", -4, WRITE | NEEDS_MEMORY, FIRST, ALWAYS, restore),
    row(
        "object",
        -2,
        CONTAINER,
        Keys::None,
        ALWAYS,
        super::container,
    ),
    row("object|encoding", 3, 0, SECOND, ALWAYS, encoding),
    row("object|idletime", 3, 0, SECOND, ALWAYS, idletime),
    row("object|freq", 3, 0, SECOND, ALWAYS, freq),
    row("object|refcount", 3, 0, SECOND, ALWAYS, refcount),
    row(
        "memory",
        -2,
        CONTAINER,
        Keys::None,
        ALWAYS,
        super::container,
    ),
    row("memory|usage", -3, 0, SECOND, ALWAYS, usage),
];

fn del(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    Reply::count(
        args[1..]
            .iter()
            .filter(|key| server.delete(cx, key))
            .count(),
    )
}

fn exists(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    Reply::count(
        args[1..]
            .iter()
            .filter(|key| server.look(cx, key).is_some())
            .count(),
    )
}

fn touch(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let mut count = 0;
    for key in &args[1..] {
        if let Some(entry) = server.look(cx, key) {
            entry.used_at = cx.now;
            count += 1;
        }
    }
    Reply::Int(count)
}

fn type_of(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let Some(entry) = server.look(cx, args[1]) else {
        return Reply::Simple("none");
    };
    match &entry.value {
        Value::String(_) => Reply::Simple("string"),
        Value::List(_) => Reply::Simple("list"),
        Value::Set(_) => Reply::Simple("set"),
        Value::ZSet(_) => Reply::Simple("zset"),
        Value::Hash(_) => Reply::Simple("hash"),
        Value::Stream(_) => Reply::Simple("stream"),
        module @ Value::Module(_) => Reply::Status(module.type_name()),
    }
}

fn rename(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    match moved_name(server, cx, args[1], args[2], true) {
        Ok(_) => Reply::OK,
        Err(error) => error,
    }
}

fn renamenx(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    moved_name(server, cx, args[1], args[2], false).map_or_else(|error| error, Reply::flag)
}

fn moved_name(
    server: &mut Server,
    cx: &Cx,
    from: &[u8],
    to: &[u8],
    replaces: bool,
) -> Result<bool, Reply> {
    if server.look(cx, from).is_none() {
        return Err(NO_KEY);
    }
    if from == to {
        return Ok(replaces);
    }
    if server.look(cx, to).is_some() {
        if !replaces {
            return Ok(false);
        }
        server.keyspace.remove(cx.db, to);
    }
    if let Some(entry) = server.keyspace.remove(cx.db, from) {
        server.keyspace.put(cx.db, to, entry);
    }
    server.signal(cx, from);
    server.signal(cx, to);
    Ok(true)
}

fn copy(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let (mut db, mut replaces) = (cx.db, false);
    let mut rest = args[3..].iter();
    while let Some(word) = rest.next() {
        match word {
            _ if is(word, "replace") => replaces = true,
            _ if is(word, "db") => match rest.next().map(|word| database(server, word)) {
                None => return SYNTAX,
                Some(Err(refusal)) => return refusal,
                Some(Ok(number)) => db = number,
            },
            _ => return SYNTAX,
        }
    }
    if server.config().cluster && db != cx.db {
        return error("ERR Copying to another database is not allowed in cluster mode");
    }
    if db == cx.db && args[1] == args[2] {
        return error("ERR source and destination objects are the same");
    }
    let Some(entry) = server.look(cx, args[1]).map(|entry| entry.clone()) else {
        return Reply::Int(0);
    };
    let there = Cx { db, ..*cx };
    if server.look(&there, args[2]).is_some() && !replaces {
        return Reply::Int(0);
    }
    server.put(&there, args[2], entry);
    Reply::Int(1)
}

fn move_key(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    if server.config().cluster && !server.has_databases_in_clusters() {
        return error("ERR MOVE is not allowed in cluster mode");
    }
    let db = match database(server, args[2]) {
        Ok(db) => db,
        Err(refusal) if server.release().has(Since::R62) => return refusal,
        Err(_) => return error("ERR index out of range"),
    };
    if db == cx.db {
        return error("ERR source and destination objects are the same");
    }
    let there = Cx { db, ..*cx };
    if server.look(cx, args[1]).is_none() || server.look(&there, args[1]).is_some() {
        return Reply::Int(0);
    }
    if let Some(entry) = server.keyspace.remove(cx.db, args[1]) {
        server.keyspace.put(db, args[1], entry);
    }
    server.signal(cx, args[1]);
    server.signal(&there, args[1]);
    Reply::Int(1)
}

fn swapdb(server: &mut Server, _: &Cx, args: &[&[u8]]) -> Reply {
    if server.config().cluster && server.keyspace.databases() == 1 {
        return error("ERR SWAPDB is not allowed in cluster mode");
    }
    let is_number = |word: &[u8]| match server.release().has(Since::R62) {
        true => integer(word).is_some_and(|number| i32::try_from(number).is_ok()),
        false => integer(word).is_some(),
    };
    if !is_number(args[1]) {
        return error("ERR invalid first DB index");
    }
    if !is_number(args[2]) {
        return error("ERR invalid second DB index");
    }
    match (database(server, args[1]), database(server, args[2])) {
        (Ok(one), Ok(other)) => {
            server.swap_databases(one, other);
            Reply::OK
        }
        _ => error("ERR DB index is out of range"),
    }
}

/// Whether the words of FLUSHDB and FLUSHALL are right.
fn flush_words(server: &Server, args: &[&[u8]]) -> bool {
    match &args[1..] {
        [] => true,
        [word] => is(word, "async") || (is(word, "sync") && server.release().has(Since::R62)),
        _ => false,
    }
}

fn flushdb(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    if !flush_words(server, args) {
        return SYNTAX;
    }
    server.flush(cx, &[cx.db]);
    Reply::OK
}

fn flushall(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    if !flush_words(server, args) {
        return SYNTAX;
    }
    let all: Vec<u32> = (0..server.keyspace.databases()).collect();
    server.flush(cx, &all);
    Reply::OK
}

fn dbsize(server: &mut Server, cx: &Cx, _: &[&[u8]]) -> Reply {
    Reply::count(server.keyspace.len(cx.db))
}

fn randomkey(server: &mut Server, cx: &Cx, _: &[&[u8]]) -> Reply {
    for _ in 0..100 {
        let random = server.random.next_u64();
        let Some(key) = server.keyspace.any(cx.db, random).map(<[u8]>::to_vec) else {
            return Reply::Nil;
        };
        if server.look(cx, &key).is_some() {
            return Reply::Bulk(key);
        }
    }
    Reply::Nil
}

fn keys(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let all = server.keyspace.iter(cx.db);
    let fit = all.filter(|(key, entry)| !entry.is_expired(cx.now) && glob::matches(args[1], key));
    let mut found: Vec<Vec<u8>> = fit.map(|(key, _)| key.to_vec()).collect();
    found.sort();
    Reply::bulks(found)
}

const TYPES: [&str; 6] = ["string", "list", "set", "zset", "hash", "stream"];

fn scan(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let cursor = std::str::from_utf8(args[1])
        .ok()
        .and_then(|word| word.parse::<u64>().ok());
    let Some(mut cursor) = cursor else {
        return error("ERR invalid cursor");
    };
    let (mut count, mut pattern, mut kind) = (10, None, None);
    for pair in args[2..].chunks(2) {
        match pair {
            [word, value] if is(word, "count") => match integer(value) {
                None => return NOT_INTEGER,
                Some(number) if number < 1 => return SYNTAX,
                Some(number) => count = number as usize,
            },
            [word, value] if is(word, "match") => pattern = Some(*value),
            [word, value] if is(word, "type") && server.release().has(Since::R60) => {
                let name = text(value).to_lowercase();
                let is_known = TYPES.contains(&name.as_str());
                if !is_known && server.release().is_valkey() {
                    return Reply::error(format!("ERR unknown type name '{}'", text(value)));
                }
                kind = Some(name);
            }
            _ => return SYNTAX,
        }
    }
    let only = pattern
        .filter(|_| server.config().cluster && server.release().has_table_per_slot())
        .and_then(slot_of_pattern);
    let mut found: Vec<(Vec<u8>, String)> = Vec::new();
    let mut steps = count.saturating_mul(10);
    loop {
        cursor = server.keyspace.scan(cx.db, cursor, only, |key, entry| {
            let name = if kind.is_some() {
                entry.value.type_name()
            } else {
                String::new()
            };
            found.push((key.to_vec(), name));
        });
        steps -= 1;
        if cursor == 0 || steps == 0 || found.len() >= count {
            break;
        }
    }
    let mut rows = Vec::with_capacity(found.len());
    for (key, name) in found {
        let fits = pattern.is_none_or(|pattern| glob::matches(pattern, &key));
        if fits && kind.as_ref().is_none_or(|kind| *kind == name) && server.look(cx, &key).is_some()
        {
            rows.push(Reply::Bulk(key));
        }
    }
    Reply::Array(vec![
        Reply::Bulk(cursor.to_string().into_bytes()),
        Reply::Array(rows),
    ])
}

/// The slot that all names of a pattern lie in, if its hash tag says so.
fn slot_of_pattern(pattern: &[u8]) -> Option<u16> {
    let special = |byte: &u8| b"*?[\\".contains(byte);
    let open = pattern
        .iter()
        .position(|byte| *byte == b'{' || special(byte))?;
    if pattern[open] != b'{' {
        return None;
    }
    let rest = &pattern[open + 1..];
    let close = rest
        .iter()
        .position(|byte| *byte == b'}' || special(byte))?;
    (rest[close] == b'}' && close > 0).then(|| slots::slot_of(&rest[..close]))
}

fn dump(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let release = server.release();
    match server.read(cx, args[1]) {
        None => Reply::Nil,
        Some(entry) => Reply::Bulk(payload::dump(release, &entry.value, true)),
    }
}

#[derive(Default)]
struct RestoreOptions {
    replaces: bool,
    is_absolute: bool,
    idle_secs: Option<u64>,
    frequency: Option<u8>,
}

fn restore_options(args: &[&[u8]]) -> Result<RestoreOptions, Reply> {
    let mut options = RestoreOptions::default();
    let mut rest = args[4..].iter();
    while let Some(word) = rest.next() {
        match word {
            _ if is(word, "replace") => options.replaces = true,
            _ if is(word, "absttl") => options.is_absolute = true,
            _ if is(word, "idletime") && options.frequency.is_none() => {
                let number = integer(rest.next().ok_or(SYNTAX)?).ok_or(NOT_INTEGER)?;
                let Ok(number) = u64::try_from(number) else {
                    return Err(error("ERR Invalid IDLETIME value, must be >= 0"));
                };
                options.idle_secs = Some(number);
            }
            _ if is(word, "freq") && options.idle_secs.is_none() => {
                let number = integer(rest.next().ok_or(SYNTAX)?).ok_or(NOT_INTEGER)?;
                let Ok(number) = u8::try_from(number) else {
                    return Err(error("ERR Invalid FREQ value, must be >= 0 and <= 255"));
                };
                options.frequency = Some(number);
            }
            _ => return Err(SYNTAX),
        }
    }
    Ok(options)
}

fn restore(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let options = match restore_options(args) {
        Ok(options) => options,
        Err(error) => return error,
    };
    let key = args[1];
    if !options.replaces && server.look(cx, key).is_some() {
        return error("BUSYKEY Target key name already exists.");
    }
    let Some(ttl) = integer(args[2]) else {
        return NOT_INTEGER;
    };
    let Ok(ttl) = u64::try_from(ttl) else {
        return error("ERR Invalid TTL value, must be >= 0");
    };
    let release = server.release();
    let modules: Vec<&str> = server
        .config()
        .modules
        .iter()
        .map(|module| module.type_name.as_str())
        .collect();
    let value = match payload::restore(release, args[3], &modules) {
        Ok(value) => value,
        Err(payload::PayloadError::Footer) => {
            return error("ERR DUMP payload version or checksum are wrong");
        }
        Err(payload::PayloadError::BadData) => return error("ERR Bad data format"),
        Err(payload::PayloadError::KillsServer) => {
            server.die();
            return Reply::Nothing;
        }
    };
    let stood = options.replaces && server.delete(cx, key);
    let expire_at = match options.is_absolute {
        _ if ttl == 0 => None,
        true => Some(ttl),
        false => Some(ttl.wrapping_add(cx.clock)),
    };
    let is_over = expire_at.is_some_and(|at| at < cx.clock || at > i64::MAX as u64);
    if is_over && !server.is_replica() {
        if stood {
            server.unsignalled(cx, key);
        }
        return Reply::OK;
    }
    let mut entry = Entry::new(value, expire_at, cx.now);
    if let Some(secs) = options.idle_secs {
        entry.used_at = cx.now.saturating_sub(secs.saturating_mul(1000));
    }
    if let Some(frequency) = options.frequency {
        entry.frequency = frequency;
    }
    server.put(cx, key, entry);
    Reply::OK
}

/// The entry that OBJECT asks for; the answer if there is none.
fn object<'a>(server: &'a mut Server, cx: &Cx, key: &[u8]) -> Result<&'a Entry, Reply> {
    match server.look(cx, key) {
        None => Err(Reply::Nil),
        Some(entry) => Ok(entry),
    }
}

fn is_lfu(server: &Server) -> bool {
    server.config().limits.policy.contains("lfu")
}

fn idletime(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let is_lfu = is_lfu(server);
    match object(server, cx, args[2]) {
        Err(reply) => reply,
        Ok(_) if is_lfu => error(
            "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when \
             switching between policies at runtime LRU and LFU data will take some time to adjust.",
        ),
        Ok(entry) => Reply::unsigned(cx.now.saturating_sub(entry.used_at) / 1000),
    }
}

fn freq(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let is_lfu = is_lfu(server);
    match object(server, cx, args[2]) {
        Err(reply) => reply,
        Ok(_) if !is_lfu => error(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please \
             note that when switching between policies at runtime LRU and LFU data will take some \
             time to adjust.",
        ),
        Ok(entry) => Reply::Int(i64::from(entry.frequency)),
    }
}

fn refcount(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    object(server, cx, args[2]).map_or_else(|reply| reply, |_| Reply::Int(1))
}

fn encoding(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let name = |entry: &Entry| match &entry.value {
        Value::String(string) if integer(string).is_some() => "int",
        Value::String(string) if string.len() <= 44 => "embstr",
        Value::String(_) | Value::Module(_) => "raw",
        Value::List(_) => "quicklist",
        Value::Set(_) => "hashtable",
        Value::ZSet(_) => "skiplist",
        Value::Hash(_) => "hashtable",
        Value::Stream(_) => "stream",
    };
    object(server, cx, args[2]).map_or_else(|reply| reply, |entry| Reply::bulk(name(entry)))
}

fn usage(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    match &args[3..] {
        [] => {}
        [word, count] if is(word, "samples") => {
            if natural(count).is_none() {
                return NOT_INTEGER;
            }
        }
        _ => return SYNTAX,
    }
    match server.look(cx, args[2]) {
        None => Reply::Nil,
        Some(entry) => Reply::count(args[2].len() + 64 + entry.value.bytes()),
    }
}
