//! Commands for strings.

use super::super::Server;
use super::super::process::Cx;
use super::super::release::Since;
use super::super::reply::{Reply, number_text};
use super::super::table::{FIRST, Keys, NEEDS_MEMORY, Row, WRITE, row};
use super::super::value::{Entry, Value};
use super::expiry::{self, Unit};
use super::words::{self, NOT_FLOAT, NOT_INTEGER, SYNTAX, WRONG_TYPE, error, integer, is};

const ADD: u16 = WRITE | NEEDS_MEMORY;
const ALWAYS: Since = Since::Always;

pub(super) const ROWS: &[Row] = &[
    row("get", 2, 0, FIRST, ALWAYS, get),
    row("set", -3, ADD, FIRST, ALWAYS, set),
    row("setnx", 3, ADD, FIRST, ALWAYS, setnx),
    row("setex", 4, ADD, FIRST, ALWAYS, |server, cx, args| {
        set_for(server, cx, args, Unit::SECONDS)
    }),
    row("psetex", 4, ADD, FIRST, ALWAYS, |server, cx, args| {
        set_for(server, cx, args, Unit::MILLIS)
    }),
    row("getset", 3, ADD, FIRST, ALWAYS, getset),
    row("getdel", 2, WRITE, FIRST, Since::R62, getdel),
    row("getex", -2, WRITE, FIRST, Since::R62, getex),
    row("append", 3, ADD, FIRST, ALWAYS, append),
    row("strlen", 2, 0, FIRST, ALWAYS, strlen),
    row("incr", 2, ADD, FIRST, ALWAYS, |server, cx, args| {
        add(server, cx, args[1], Some(1))
    }),
    row("decr", 2, ADD, FIRST, ALWAYS, |server, cx, args| {
        add(server, cx, args[1], Some(-1))
    }),
    row("incrby", 3, ADD, FIRST, ALWAYS, |server, cx, args| {
        add(server, cx, args[1], integer(args[2]))
    }),
    row("decrby", 3, ADD, FIRST, ALWAYS, decrby),
    row("incrbyfloat", 3, ADD, FIRST, ALWAYS, incrbyfloat),
    row("mget", -2, 0, Keys::At(1, -1, 1), ALWAYS, mget),
    row("mset", -3, ADD, Keys::At(1, -1, 2), ALWAYS, mset),
    row("msetnx", -3, ADD, Keys::At(1, -1, 2), ALWAYS, msetnx),
    row("setrange", 4, ADD, FIRST, ALWAYS, setrange),
    row("getrange", 4, 0, FIRST, ALWAYS, getrange),
];

/// The string at the key; the error if it is no string.
fn string(server: &mut Server, cx: &Cx, key: &[u8]) -> Result<Option<Vec<u8>>, Reply> {
    match server.read(cx, key).map(|entry| &entry.value) {
        None => Ok(None),
        Some(Value::String(bytes)) => Ok(Some(bytes.clone())),
        Some(_) => Err(WRONG_TYPE),
    }
}

/// Puts a string in place of the one that stands there, and leaves the expiry as it is.
fn replace(server: &mut Server, cx: &Cx, key: &[u8], string: Vec<u8>) {
    match server.keyspace.entry(cx.db, key) {
        Some(entry) => {
            entry.value = Value::String(string);
            server.signal(cx, key);
        }
        None => server.put(cx, key, Entry::new(Value::String(string), None, cx.now)),
    }
}

fn get(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    string(server, cx, args[1]).map_or_else(|error| error, Reply::or_nil)
}

/// The options of SET.
#[derive(Default)]
struct SetOptions {
    only_if: Option<bool>,
    get: bool,
    keep: bool,
    expire_at: Option<u64>,
}

fn set_options(server: &Server, cx: &Cx, args: &[&[u8]]) -> Result<SetOptions, Reply> {
    let is_6_2 = server.release().has(Since::R62);
    let mut options = SetOptions::default();
    let mut time = None;
    let mut at = 3;
    while let Some(word) = args.get(at) {
        let unit = Unit::of_option(word).filter(|unit| is_6_2 || !unit.is_absolute);
        match unit {
            _ if is(word, "nx") && options.only_if != Some(true) => options.only_if = Some(false),
            _ if is(word, "xx") && options.only_if != Some(false) => options.only_if = Some(true),
            _ if is(word, "get") && is_6_2 => options.get = true,
            _ if is(word, "keepttl") && server.release().has(Since::R60) && time.is_none() => {
                options.keep = true;
            }
            Some(unit) if !options.keep && time.is_none() && at + 1 < args.len() => {
                at += 1;
                time = Some((unit, args[at]));
            }
            _ => return Err(SYNTAX),
        }
        at += 1;
    }
    if options.get && options.only_if == Some(false) && !server.release().has(Since::R70) {
        return Err(SYNTAX);
    }
    if let Some((unit, word)) = time {
        options.expire_at = Some(expiry::of_word(server, cx, "set", word, unit)?);
    }
    Ok(options)
}

fn set(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let options = match set_options(server, cx, args) {
        Ok(options) => options,
        Err(error) => return error,
    };
    let key = args[1];
    let mut former = Reply::Nil;
    if options.get {
        match string(server, cx, key) {
            Ok(string) => former = Reply::or_nil(string),
            Err(error) => return error,
        }
    }
    let standing = server.look(cx, key).map(|entry| entry.expire_at);
    if options
        .only_if
        .is_some_and(|must_stand| must_stand != standing.is_some())
    {
        return former;
    }
    let expire_at = match options.keep {
        true => standing.flatten(),
        false => options.expire_at,
    };
    if expire_at.is_some_and(|at| at <= cx.now) && server.release().is_valkey() {
        server.delete(cx, key);
    } else {
        server.put(
            cx,
            key,
            Entry::new(Value::String(args[2].to_vec()), expire_at, cx.now),
        );
    }
    if options.get { former } else { Reply::OK }
}

fn setnx(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let is_new = server.look(cx, args[1]).is_none();
    if is_new {
        server.put(
            cx,
            args[1],
            Entry::new(Value::String(args[2].to_vec()), None, cx.now),
        );
    }
    Reply::flag(is_new)
}

fn set_for(server: &mut Server, cx: &Cx, args: &[&[u8]], unit: Unit) -> Reply {
    let name = if unit.is_seconds { "setex" } else { "psetex" };
    match expiry::of_word(server, cx, name, args[2], unit) {
        Err(error) => error,
        Ok(at) => {
            let entry = Entry::new(Value::String(args[3].to_vec()), Some(at), cx.now);
            server.put(cx, args[1], entry);
            Reply::OK
        }
    }
}

fn getset(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    match string(server, cx, args[1]) {
        Err(error) => error,
        Ok(former) => {
            server.put(
                cx,
                args[1],
                Entry::new(Value::String(args[2].to_vec()), None, cx.now),
            );
            Reply::or_nil(former)
        }
    }
}

fn getdel(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    match string(server, cx, args[1]) {
        Err(error) => error,
        Ok(former) => {
            server.delete(cx, args[1]);
            Reply::or_nil(former)
        }
    }
}

fn getex(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let key = args[1];
    let wanted = match &args[2..] {
        [] => Ok(None),
        [word] if is(word, "persist") => Ok(Some(None)),
        [word, time] => match Unit::of_option(word) {
            None => Err(SYNTAX),
            Some(unit) => expiry::of_word(server, cx, "getex", time, unit).map(|at| Some(Some(at))),
        },
        _ => Err(SYNTAX),
    };
    // Valkey looks at the time first, the others at the key, and all at the syntax.
    let comes_first = |error: &Reply| *error == SYNTAX || server.release().has(Since::V91);
    if let Some(refusal) = wanted.as_ref().err().filter(|refusal| comes_first(refusal)) {
        return refusal.clone();
    }
    let found = match string(server, cx, key) {
        Err(error) => return error,
        Ok(None) => return Reply::Nil,
        Ok(Some(found)) => found,
    };
    match wanted {
        Err(refusal) => return refusal,
        Ok(None) => {}
        Ok(Some(Some(at))) => expiry::set(server, cx, key, at),
        Ok(Some(None)) => {
            let expires = server
                .look(cx, key)
                .is_some_and(|entry| entry.expire_at.is_some());
            if expires {
                server.keyspace.set_expiry(cx.db, key, None);
                server.signal(cx, key);
            }
        }
    }
    Reply::Bulk(found)
}

fn append(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    match string(server, cx, args[1]) {
        Err(error) => error,
        Ok(former) => {
            let mut string = former.unwrap_or_default();
            string.extend_from_slice(args[2]);
            let length = string.len();
            replace(server, cx, args[1], string);
            Reply::count(length)
        }
    }
}

fn strlen(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let length = |string: Option<Vec<u8>>| Reply::count(string.map_or(0, |string| string.len()));
    string(server, cx, args[1]).map_or_else(|error| error, length)
}

fn add(server: &mut Server, cx: &Cx, key: &[u8], by: Option<i64>) -> Reply {
    if by.is_none() {
        return NOT_INTEGER;
    }
    let standing = match string(server, cx, key) {
        Err(error) => return error,
        Ok(standing) => standing,
    };
    let standing = standing.map_or(Some(0), |string| integer(&string));
    let (Some(standing), Some(by)) = (standing, by) else {
        return NOT_INTEGER;
    };
    let Some(sum) = standing.checked_add(by) else {
        return error("ERR increment or decrement would overflow");
    };
    replace(server, cx, key, sum.to_string().into_bytes());
    Reply::Int(sum)
}

fn decrby(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    match integer(args[2]) {
        Some(i64::MIN) => error("ERR decrement would overflow"),
        by => add(server, cx, args[1], by.map(|by| -by)),
    }
}

fn incrbyfloat(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let standing = match string(server, cx, args[1]) {
        Err(error) => return error,
        Ok(standing) => standing,
    };
    let standing = standing.map_or(Some(0.0), |string| words::float(&string));
    let (Some(standing), Some(by)) = (standing, words::float(args[2])) else {
        return NOT_FLOAT;
    };
    let sum = number_text(standing + by).into_bytes();
    replace(server, cx, args[1], sum.clone());
    Reply::Bulk(sum)
}

fn mget(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let one = |key: &&[u8]| string(server, cx, key).map_or(Reply::Nil, Reply::or_nil);
    Reply::Array(args[1..].iter().map(one).collect())
}

/// A key without a value.
fn miscounted(server: &Server, name: &str) -> Reply {
    match server.release().has(Since::R62) {
        true if server.release().has(Since::R70) => words::wrong_count(name),
        _ => error("ERR wrong number of arguments for MSET"),
    }
}

fn mset(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    if args.len().is_multiple_of(2) {
        return miscounted(server, "mset");
    }
    for pair in args[1..].chunks(2) {
        server.put(
            cx,
            pair[0],
            Entry::new(Value::String(pair[1].to_vec()), None, cx.now),
        );
    }
    Reply::OK
}

fn msetnx(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    if args.len().is_multiple_of(2) {
        return miscounted(server, "msetnx");
    }
    if args[1..]
        .chunks(2)
        .any(|pair| server.look(cx, pair[0]).is_some())
    {
        return Reply::Int(0);
    }
    mset(server, cx, args);
    Reply::Int(1)
}

fn setrange(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let Some(offset) = integer(args[2]) else {
        return NOT_INTEGER;
    };
    let Ok(offset) = usize::try_from(offset) else {
        return error("ERR offset is out of range");
    };
    let standing = match string(server, cx, args[1]) {
        Err(error) => return error,
        Ok(standing) => standing,
    };
    let mut string = standing.unwrap_or_default();
    if args[3].is_empty() {
        return Reply::count(string.len());
    }
    let end = offset.saturating_add(args[3].len());
    if end > 512 << 20 {
        return error("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    }
    string.resize(string.len().max(end), 0);
    string[offset..end].copy_from_slice(args[3]);
    let length = string.len();
    replace(server, cx, args[1], string);
    Reply::count(length)
}

fn getrange(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let (Some(start), Some(end)) = (integer(args[2]), integer(args[3])) else {
        return NOT_INTEGER;
    };
    match string(server, cx, args[1]) {
        Err(error) => error,
        Ok(string) => {
            let string = string.unwrap_or_default();
            // Unlike a list's, both ends are drawn to the string's own.
            let length = string.len() as i64;
            let inside = |index: i64| {
                if index < 0 {
                    (index + length).max(0)
                } else {
                    index
                }
            };
            match start < 0 && end < 0 && start > end {
                true => Reply::bulk(""),
                false => {
                    Reply::bulk(&string[words::range(inside(start), inside(end), string.len())])
                }
            }
        }
    }
}
