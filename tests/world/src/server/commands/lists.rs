//! Commands for lists.

use std::collections::VecDeque;

use super::super::Server;
use super::super::process::Cx;
use super::super::release::Since;
use super::super::reply::Reply;
use super::super::table::{FIRST, Keys, NEEDS_MEMORY, Row, WRITE, row};
use super::super::value::{Entry, Value};
use super::words::{
    NO_KEY, NOT_INTEGER, OUT_OF_RANGE, SYNTAX, WRONG_TYPE, error, integer, is, range,
};

const ADD: u16 = WRITE | NEEDS_MEMORY;
const ALWAYS: Since = Since::Always;

pub(super) const ROWS: &[Row] = &[
    row("rpush", -3, ADD, FIRST, ALWAYS, |server, cx, args| {
        push(server, cx, args, End::Right, true)
    }),
    row("lpush", -3, ADD, FIRST, ALWAYS, |server, cx, args| {
        push(server, cx, args, End::Left, true)
    }),
    row("rpushx", -3, ADD, FIRST, ALWAYS, |server, cx, args| {
        push(server, cx, args, End::Right, false)
    }),
    row("lpushx", -3, ADD, FIRST, ALWAYS, |server, cx, args| {
        push(server, cx, args, End::Left, false)
    }),
    row("lpop", -2, WRITE, FIRST, ALWAYS, |server, cx, args| {
        pop(server, cx, args, End::Left)
    }),
    row("rpop", -2, WRITE, FIRST, ALWAYS, |server, cx, args| {
        pop(server, cx, args, End::Right)
    }),
    row("llen", 2, 0, FIRST, ALWAYS, llen),
    row("lrange", 4, 0, FIRST, ALWAYS, lrange),
    row("lindex", 3, 0, FIRST, ALWAYS, lindex),
    row("lset", 4, ADD, FIRST, ALWAYS, lset),
    row("lrem", 4, WRITE, FIRST, ALWAYS, lrem),
    row("ltrim", 4, WRITE, FIRST, ALWAYS, ltrim),
    row("linsert", 5, ADD, FIRST, ALWAYS, linsert),
    row(
        "rpoplpush",
        3,
        ADD,
        Keys::At(1, 2, 1),
        ALWAYS,
        |server, cx, args| carry(server, cx, args, End::Right, End::Left),
    ),
    row("lmove", 5, ADD, Keys::At(1, 2, 1), Since::R62, lmove),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Left,
    Right,
}

/// The list at a key; the error if it is none.
fn list<'a>(
    server: &'a mut Server,
    cx: &Cx,
    key: &[u8],
) -> Result<Option<&'a mut VecDeque<Vec<u8>>>, Reply> {
    match server.read(cx, key).map(|entry| &mut entry.value) {
        None => Ok(None),
        Some(Value::List(rows)) => Ok(Some(rows)),
        Some(_) => Err(WRONG_TYPE),
    }
}

fn push(server: &mut Server, cx: &Cx, args: &[&[u8]], end: End, makes: bool) -> Reply {
    let length = match list(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) if !makes => return Reply::Int(0),
        Ok(None) => {
            let mut rows = VecDeque::new();
            extend(&mut rows, &args[2..], end);
            let length = rows.len();
            server
                .keyspace
                .put(cx.db, args[1], Entry::new(Value::List(rows), None, cx.now));
            length
        }
        Ok(Some(rows)) => {
            extend(rows, &args[2..], end);
            rows.len()
        }
    };
    server.signal(cx, args[1]);
    Reply::count(length)
}

fn extend(rows: &mut VecDeque<Vec<u8>>, more: &[&[u8]], end: End) {
    for row in more {
        match end {
            End::Left => rows.push_front(row.to_vec()),
            End::Right => rows.push_back(row.to_vec()),
        }
    }
}

fn take(rows: &mut VecDeque<Vec<u8>>, end: End) -> Option<Vec<u8>> {
    match end {
        End::Left => rows.pop_front(),
        End::Right => rows.pop_back(),
    }
}

fn pop(server: &mut Server, cx: &Cx, args: &[&[u8]], end: End) -> Reply {
    let is_6_2 = server.release().has(Since::R62);
    if args.len() > 3 || (args.len() > 2 && !is_6_2) {
        return super::words::wrong_count(if end == End::Left { "lpop" } else { "rpop" });
    }
    let count = match args.get(2).map(|word| integer(word)) {
        None => None,
        Some(Some(count)) if count >= 0 => Some(count as usize),
        Some(_) => return error("ERR value is out of range, must be positive"),
    };
    let rows = match list(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) if count.is_some() => return Reply::NilArray,
        Ok(None) => return Reply::Nil,
        Ok(Some(rows)) => rows,
    };
    let reply = match count {
        None => Reply::or_nil(take(rows, end)),
        Some(0) => return Reply::Array(Vec::new()),
        Some(count) => {
            let taken = (0..count.min(rows.len())).filter_map(|_| take(rows, end));
            Reply::Array(taken.map(Reply::Bulk).collect())
        }
    };
    server.changed(cx, args[1]);
    reply
}

fn llen(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    list(server, cx, args[1]).map_or_else(
        |error| error,
        |rows| Reply::count(rows.map_or(0, |rows| rows.len())),
    )
}

fn lrange(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let (Some(start), Some(end)) = (integer(args[2]), integer(args[3])) else {
        return NOT_INTEGER;
    };
    match list(server, cx, args[1]) {
        Err(error) => error,
        Ok(None) => Reply::Array(Vec::new()),
        Ok(Some(rows)) => Reply::bulks(rows.range(range(start, end, rows.len()))),
    }
}

fn place(index: i64, length: usize) -> Option<usize> {
    let index = if index < 0 {
        index + length as i64
    } else {
        index
    };
    usize::try_from(index).ok().filter(|index| *index < length)
}

fn lindex(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let rows = match list(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) => return Reply::Nil,
        Ok(Some(rows)) => rows,
    };
    let Some(index) = integer(args[2]) else {
        return NOT_INTEGER;
    };
    Reply::or_nil(place(index, rows.len()).and_then(|at| rows.get(at).cloned()))
}

fn lset(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let rows = match list(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) => return NO_KEY,
        Ok(Some(rows)) => rows,
    };
    let Some(index) = integer(args[2]) else {
        return NOT_INTEGER;
    };
    let Some(at) = place(index, rows.len()) else {
        return OUT_OF_RANGE;
    };
    rows[at] = args[3].to_vec();
    server.signal(cx, args[1]);
    Reply::OK
}

fn lrem(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let Some(count) = integer(args[2]) else {
        return NOT_INTEGER;
    };
    let rows = match list(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) => return Reply::Int(0),
        Ok(Some(rows)) => rows,
    };
    let most = if count == 0 {
        usize::MAX
    } else {
        count.unsigned_abs() as usize
    };
    let before = rows.len();
    let mut kept: Vec<Vec<u8>> = rows.drain(..).collect();
    if count < 0 {
        kept.reverse();
    }
    let mut left = most;
    kept.retain(|row| {
        let goes = row == args[3] && left > 0;
        left -= usize::from(goes);
        !goes
    });
    if count < 0 {
        kept.reverse();
    }
    let removed = before - kept.len();
    rows.extend(kept);
    if removed > 0 {
        server.changed(cx, args[1]);
    }
    Reply::count(removed)
}

fn ltrim(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    // Only the newest tells nobody when nothing is trimmed.
    let is_quiet = server.release().has(Since::V91);
    let (Some(start), Some(end)) = (integer(args[2]), integer(args[3])) else {
        return NOT_INTEGER;
    };
    match list(server, cx, args[1]) {
        Err(error) => error,
        Ok(None) => Reply::OK,
        Ok(Some(rows)) => {
            let kept = range(start, end, rows.len());
            if is_quiet && kept.len() == rows.len() {
                return Reply::OK;
            }
            rows.truncate(kept.end);
            rows.drain(..kept.start.min(rows.len()));
            server.changed(cx, args[1]);
            Reply::OK
        }
    }
}

fn linsert(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let after = match args[2] {
        word if is(word, "after") => 1,
        word if is(word, "before") => 0,
        _ => return SYNTAX,
    };
    let rows = match list(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) => return Reply::Int(0),
        Ok(Some(rows)) => rows,
    };
    let Some(at) = rows.iter().position(|row| row == args[3]) else {
        return Reply::Int(-1);
    };
    rows.insert(at + after, args[4].to_vec());
    let length = rows.len();
    server.signal(cx, args[1]);
    Reply::count(length)
}

fn end_named(word: &[u8]) -> Option<End> {
    match word {
        word if is(word, "left") => Some(End::Left),
        word if is(word, "right") => Some(End::Right),
        _ => None,
    }
}

fn lmove(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    match (end_named(args[3]), end_named(args[4])) {
        (Some(from), Some(to)) => carry(server, cx, args, from, to),
        _ => SYNTAX,
    }
}

fn carry(server: &mut Server, cx: &Cx, args: &[&[u8]], from: End, to: End) -> Reply {
    match list(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) => return Reply::Nil,
        Ok(Some(_)) => {}
    }
    if let Err(error) = list(server, cx, args[2]) {
        return error;
    }
    let taken = list(server, cx, args[1])
        .ok()
        .flatten()
        .and_then(|rows| take(rows, from));
    let Some(taken) = taken else {
        return Reply::Nil;
    };
    push(server, cx, &[b"", args[2], &taken], to, true);
    server.changed(cx, args[1]);
    Reply::Bulk(taken)
}
