//! Commands for sets.

use std::collections::BTreeSet;

use super::super::Server;
use super::super::process::Cx;
use super::super::release::Since;
use super::super::reply::Reply;
use super::super::table::{FIRST, Keys, NEEDS_MEMORY, Row, WRITE, row};
use super::super::value::{Entry, Value};
use super::words::{WRONG_TYPE, error, integer};

const ADD: u16 = WRITE | NEEDS_MEMORY;
const ALWAYS: Since = Since::Always;

pub(super) const ROWS: &[Row] = &[
    row("sadd", -3, ADD, FIRST, ALWAYS, sadd),
    row("srem", -3, WRITE, FIRST, ALWAYS, srem),
    row("scard", 2, 0, FIRST, ALWAYS, scard),
    row("smembers", 2, 0, FIRST, ALWAYS, smembers),
    row("sismember", 3, 0, FIRST, ALWAYS, sismember),
    row("spop", -2, WRITE, FIRST, ALWAYS, spop),
    row("smove", 4, WRITE, Keys::At(1, 2, 1), ALWAYS, smove),
    row("sscan", -3, 0, FIRST, ALWAYS, sscan),
];

/// The set at a key; the error if it is none.
fn set<'a>(
    server: &'a mut Server,
    cx: &Cx,
    key: &[u8],
) -> Result<Option<&'a mut BTreeSet<Vec<u8>>>, Reply> {
    match server.read(cx, key).map(|entry| &mut entry.value) {
        None => Ok(None),
        Some(Value::Set(rows)) => Ok(Some(rows)),
        Some(_) => Err(WRONG_TYPE),
    }
}

fn sadd(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let more = args[2..].iter().map(|row| row.to_vec());
    let added = match set(server, cx, args[1]) {
        Err(error) => return error,
        Ok(Some(rows)) => more.filter(|row| rows.insert(row.clone())).count(),
        Ok(None) => {
            let rows: BTreeSet<Vec<u8>> = more.collect();
            let added = rows.len();
            server
                .keyspace
                .put(cx.db, args[1], Entry::new(Value::Set(rows), None, cx.now));
            added
        }
    };
    if added > 0 {
        server.signal(cx, args[1]);
    }
    Reply::count(added)
}

fn srem(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let removed = match set(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) => 0,
        Ok(Some(rows)) => args[2..].iter().filter(|row| rows.remove(**row)).count(),
    };
    if removed > 0 {
        server.changed(cx, args[1]);
    }
    Reply::count(removed)
}

fn scard(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    set(server, cx, args[1]).map_or_else(
        |error| error,
        |rows| Reply::count(rows.map_or(0, |rows| rows.len())),
    )
}

fn smembers(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let all = |rows: Option<&mut BTreeSet<Vec<u8>>>| {
        Reply::Set(
            rows.into_iter()
                .flat_map(|rows| rows.iter().map(Reply::bulk))
                .collect(),
        )
    };
    set(server, cx, args[1]).map_or_else(|error| error, all)
}

fn sismember(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let holds = |rows: Option<&mut BTreeSet<Vec<u8>>>| {
        Reply::flag(rows.is_some_and(|rows| rows.contains(args[2])))
    };
    set(server, cx, args[1]).map_or_else(|error| error, holds)
}

fn spop(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    if args.len() > 3 {
        return super::words::SYNTAX;
    }
    let count = match args.get(2).map(|word| integer(word)) {
        None => None,
        Some(Some(count)) if count >= 0 => Some(count as usize),
        Some(_) => return error("ERR value is out of range, must be positive"),
    };
    let mut random = server.random.clone();
    server.random.next_u64();
    let rows = match set(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) if count.is_some() => return Reply::Set(Vec::new()),
        Ok(None) => return Reply::Nil,
        Ok(Some(rows)) => rows,
    };
    let mut taken = Vec::new();
    while taken.len() < count.unwrap_or(1) && !rows.is_empty() {
        let at = random.below(rows.len() as u64) as usize;
        let Some(row) = rows.iter().nth(at).cloned() else {
            break;
        };
        rows.remove(&row);
        taken.push(row);
    }
    if !taken.is_empty() {
        server.changed(cx, args[1]);
    }
    match count {
        None => Reply::or_nil(taken.pop()),
        Some(_) => Reply::Set(taken.into_iter().map(Reply::Bulk).collect()),
    }
}

fn smove(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let holds = match set(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) => return Reply::Int(0),
        Ok(Some(rows)) => rows.contains(args[3]),
    };
    match set(server, cx, args[2]) {
        Err(error) => return error,
        Ok(_) if !holds => return Reply::Int(0),
        Ok(_) if args[1] == args[2] => return Reply::Int(1),
        Ok(_) => {}
    }
    srem(server, cx, &[b"", args[1], args[3]]);
    sadd(server, cx, &[b"", args[2], args[3]]);
    Reply::Int(1)
}

/// Everything at once: what a client sees of a small set.
fn sscan(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    if super::words::natural(args[2]).is_none() {
        return error("ERR invalid cursor");
    }
    let rows = match set(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) => Vec::new(),
        Ok(Some(_)) if args.len().is_multiple_of(2) => return super::words::SYNTAX,
        Ok(Some(rows)) => rows.iter().map(Reply::bulk).collect(),
    };
    Reply::Array(vec![Reply::bulk("0"), Reply::Array(rows)])
}
