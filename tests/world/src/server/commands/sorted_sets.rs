//! Commands for sorted sets.

use std::collections::BTreeMap;

use super::super::Server;
use super::super::process::Cx;
use super::super::release::Since;
use super::super::reply::Reply;
use super::super::table::{FIRST, NEEDS_MEMORY, Row, WRITE, row};
use super::super::value::{Entry, Value};
use super::words::{NOT_FLOAT, NOT_INTEGER, SYNTAX, WRONG_TYPE, error, float, integer, is, range};

const ADD: u16 = WRITE | NEEDS_MEMORY;
const ALWAYS: Since = Since::Always;

pub(super) const ROWS: &[Row] = &[
    row("zadd", -4, ADD, FIRST, ALWAYS, zadd),
    row("zincrby", 4, ADD, FIRST, ALWAYS, zincrby),
    row("zrem", -3, WRITE, FIRST, ALWAYS, zrem),
    row("zcard", 2, 0, FIRST, ALWAYS, zcard),
    row("zscore", 3, 0, FIRST, ALWAYS, zscore),
    row("zrange", -4, 0, FIRST, ALWAYS, zrange),
    row("zpopmin", -2, WRITE, FIRST, ALWAYS, zpopmin),
];

type Members = BTreeMap<Vec<u8>, f64>;

/// The sorted set at a key; the error if it is none.
fn members<'a>(
    server: &'a mut Server,
    cx: &Cx,
    key: &[u8],
) -> Result<Option<&'a mut Members>, Reply> {
    match server.read(cx, key).map(|entry| &mut entry.value) {
        None => Ok(None),
        Some(Value::ZSet(rows)) => Ok(Some(rows)),
        Some(_) => Err(WRONG_TYPE),
    }
}

#[derive(Default)]
struct Options {
    only_new: bool,
    only_standing: bool,
    only_greater: bool,
    only_less: bool,
    counts_changed: bool,
    increments: bool,
}

fn options(server: &Server, args: &[&[u8]]) -> (Options, usize) {
    let is_6_2 = server.release().has(Since::R62);
    let mut options = Options::default();
    let mut at = 2;
    while let Some(word) = args.get(at) {
        match word {
            _ if is(word, "nx") => options.only_new = true,
            _ if is(word, "xx") => options.only_standing = true,
            _ if is(word, "gt") && is_6_2 => options.only_greater = true,
            _ if is(word, "lt") && is_6_2 => options.only_less = true,
            _ if is(word, "ch") => options.counts_changed = true,
            _ if is(word, "incr") => options.increments = true,
            _ => break,
        }
        at += 1;
    }
    (options, at)
}

fn zadd(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let (options, at) = options(server, args);
    let rows = &args[at.min(args.len())..];
    if rows.is_empty() || !rows.len().is_multiple_of(2) {
        return SYNTAX;
    }
    if options.only_new && options.only_standing {
        return error("ERR XX and NX options at the same time are not compatible");
    }
    if (options.only_greater && (options.only_less || options.only_new))
        || (options.only_less && options.only_new)
    {
        return error("ERR GT, LT, and/or NX options at the same time are not compatible");
    }
    if options.increments && rows.len() > 2 {
        return error("ERR INCR option supports a single increment-element pair");
    }
    let scores: Option<Vec<f64>> = rows.iter().step_by(2).map(|word| float(word)).collect();
    let Some(scores) = scores else {
        return NOT_FLOAT;
    };
    let is_new = match members(server, cx, args[1]) {
        Err(error) => return error,
        Ok(found) => found.is_none(),
    };
    if is_new {
        if options.only_standing {
            return if options.increments {
                Reply::Nil
            } else {
                Reply::Int(0)
            };
        }
        let entry = Entry::new(Value::ZSet(BTreeMap::new()), None, cx.now);
        server.keyspace.put(cx.db, args[1], entry);
    }
    let Ok(Some(found)) = members(server, cx, args[1]) else {
        return WRONG_TYPE;
    };
    let (mut added, mut changed, mut result) = (0, 0, Reply::Nil);
    for (name, score) in rows.iter().skip(1).step_by(2).zip(scores) {
        match put(found, name, score, &options) {
            Put::NotANumber => {
                result = error("ERR resulting score is not a number (NaN)");
                break;
            }
            Put::Nothing => {}
            Put::Same(score) => result = Reply::Double(score),
            Put::Changed(score) => {
                changed += 1;
                result = Reply::Double(score);
            }
            Put::Added(score) => {
                added += 1;
                result = Reply::Double(score);
            }
        }
    }
    if added + changed > 0 {
        server.signal(cx, args[1]);
    } else if is_new {
        server.keyspace.remove(cx.db, args[1]);
    }
    match options.increments || result.as_error().is_some() {
        true => result,
        false => Reply::Int(added + if options.counts_changed { changed } else { 0 }),
    }
}

enum Put {
    Nothing,
    Same(f64),
    Changed(f64),
    Added(f64),
    NotANumber,
}

fn put(found: &mut Members, name: &[u8], score: f64, options: &Options) -> Put {
    let Some(standing) = found.get_mut(name) else {
        if options.only_standing {
            return Put::Nothing;
        }
        found.insert(name.to_vec(), score);
        return Put::Added(score);
    };
    if options.only_new {
        return Put::Nothing;
    }
    let score = if options.increments {
        *standing + score
    } else {
        score
    };
    if score.is_nan() {
        return Put::NotANumber;
    }
    if (options.only_greater && score <= *standing) || (options.only_less && score >= *standing) {
        return Put::Nothing;
    }
    if score == *standing {
        return Put::Same(score);
    }
    *standing = score;
    Put::Changed(score)
}

fn zincrby(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    zadd(server, cx, &[args[0], args[1], b"incr", args[2], args[3]])
}

fn zrem(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let removed = match members(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) => 0,
        Ok(Some(rows)) => args[2..]
            .iter()
            .filter(|row| rows.remove(**row).is_some())
            .count(),
    };
    if removed > 0 {
        server.changed(cx, args[1]);
    }
    Reply::count(removed)
}

fn zcard(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    members(server, cx, args[1]).map_or_else(
        |error| error,
        |rows| Reply::count(rows.map_or(0, |rows| rows.len())),
    )
}

fn zscore(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    match members(server, cx, args[1]) {
        Err(error) => error,
        Ok(rows) => rows
            .and_then(|rows| rows.get(args[2]))
            .map_or(Reply::Nil, |score| Reply::Double(*score)),
    }
}

/// Names and scores, lowest score first.
fn sorted(rows: Option<&mut Members>) -> Vec<(Vec<u8>, f64)> {
    let rows = rows.into_iter().flat_map(|rows| rows.iter());
    let mut rows: Vec<_> = rows.map(|(name, score)| (name.clone(), *score)).collect();
    rows.sort_by(|one, next| one.1.total_cmp(&next.1).then_with(|| one.0.cmp(&next.0)));
    rows
}

fn zrange(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let with_scores = match &args[4..] {
        [] => false,
        [word] if is(word, "withscores") => true,
        _ => return SYNTAX,
    };
    let (Some(start), Some(end)) = (integer(args[2]), integer(args[3])) else {
        return NOT_INTEGER;
    };
    let rows = match members(server, cx, args[1]) {
        Err(error) => return error,
        Ok(rows) => sorted(rows),
    };
    let part = &rows[range(start, end, rows.len())];
    scored(server, cx, part, with_scores)
}

/// Names, with their scores beside them, or in pairs in RESP3.
fn scored(server: &Server, cx: &Cx, rows: &[(Vec<u8>, f64)], with_scores: bool) -> Reply {
    let is_3 = server
        .client(cx.client)
        .is_some_and(|client| client.session.protocol == 3);
    let row = |(name, score): &(Vec<u8>, f64)| match (with_scores, is_3) {
        (false, _) => vec![Reply::bulk(name)],
        (true, false) => vec![Reply::bulk(name), Reply::Double(*score)],
        (true, true) => vec![Reply::Array(vec![Reply::bulk(name), Reply::Double(*score)])],
    };
    Reply::Array(rows.iter().flat_map(row).collect())
}

fn zpopmin(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    if args.len() > 3 {
        return SYNTAX;
    }
    let count = match args.get(2).map(|word| integer(word)) {
        None => 1,
        Some(Some(count)) if count > 0 || (count == 0 && server.release().has(Since::R70)) => {
            count as usize
        }
        Some(_) if server.release().has(Since::R70) => {
            return error("ERR value is out of range, must be positive");
        }
        Some(None) => return NOT_INTEGER,
        Some(Some(_)) => return Reply::Array(Vec::new()),
    };
    let rows = match members(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) => return Reply::Array(Vec::new()),
        Ok(Some(rows)) => rows,
    };
    let taken: Vec<_> = sorted(Some(rows)).into_iter().take(count).collect();
    for (name, _) in &taken {
        rows.remove(name);
    }
    if !taken.is_empty() {
        server.changed(cx, args[1]);
    }
    match args.len() {
        2 => {
            let row = |(name, score)| [Reply::Bulk(name), Reply::Double(score)];
            Reply::Array(taken.into_iter().flat_map(row).collect())
        }
        _ => scored(server, cx, &taken, true),
    }
}
