//! Commands for consumer groups.

use std::ops::Bound;

use super::super::Server;
use super::super::process::Cx;
use super::super::release::{Release, Since};
use super::super::reply::Reply;
use super::super::table::{CONTAINER, FIRST, Keys, NEEDS_MEMORY, Row, WRITE, row};
use super::super::value::{Consumer, Entry, Group, Pending, Stream, StreamId, Value};
use super::streams::{entry_reply, id, id_reply, stream, streams_reply};
use super::words::{NO_KEY, NOT_INTEGER, SYNTAX, WRONG_TYPE, error, integer, is, natural, text};

const ADD: u16 = WRITE | NEEDS_MEMORY;
const ALWAYS: Since = Since::Always;
const SECOND: Keys = Keys::At(2, 2, 1);

pub(super) const ROWS: &[Row] = &[
    row(
        "xgroup",
        -2,
        CONTAINER,
        Keys::None,
        ALWAYS,
        super::container,
    ),
    row("xgroup|create", -5, ADD, SECOND, ALWAYS, create),
    row("xgroup|setid", -5, WRITE, SECOND, ALWAYS, set_id),
    row("xgroup|destroy", 4, WRITE, SECOND, ALWAYS, destroy),
    row(
        "xgroup|createconsumer",
        5,
        ADD,
        SECOND,
        Since::R62,
        create_consumer,
    ),
    row(
        "xgroup|delconsumer",
        5,
        WRITE,
        SECOND,
        ALWAYS,
        delete_consumer,
    ),
    row("xreadgroup", -7, WRITE, Keys::Streams, ALWAYS, read_group),
    row("xack", -4, WRITE, FIRST, ALWAYS, ack),
    row("xclaim", -6, WRITE, FIRST, ALWAYS, claim),
    row("xpending", -3, 0, FIRST, ALWAYS, pending),
];

const INVALID_ID: Reply = error("ERR Invalid stream ID specified as stream command argument");

fn no_group(group: &[u8], key: &[u8]) -> Reply {
    Reply::error(format!(
        "NOGROUP No such consumer group '{}' for key name '{}'",
        text(group),
        text(key)
    ))
}

/// After which entry the count of read ones can be known, by Redis' own estimate.
pub(super) fn entries_read(stream: &Stream, at: StreamId) -> Option<u64> {
    let length = stream.entries.len() as u64;
    if stream.added == 0 {
        return Some(0);
    }
    if length == 0 && at <= stream.last {
        return Some(stream.added);
    }
    if at != (0, 0) && at < stream.max_deleted {
        return None;
    }
    if at >= stream.last {
        return (at == stream.last).then_some(stream.added);
    }
    let first = stream.first();
    if stream.max_deleted == (0, 0) || stream.max_deleted < first {
        if at < first {
            return Some(stream.added - length);
        }
        if at == first {
            return Some(stream.added - length + 1);
        }
    }
    None
}

/// The id of XGROUP: `$` is the last.
fn group_id(word: &[u8], stream: &Stream) -> Option<StreamId> {
    match word {
        b"$" => Some(stream.last),
        b"-" => Some((0, 0)),
        b"+" => Some((u64::MAX, u64::MAX)),
        word => id(word, 0),
    }
}

/// The options MKSTREAM and ENTRIESREAD.
fn group_options(server: &Server, words: &[&[u8]]) -> Result<(bool, Option<u64>), Reply> {
    let (mut makes, mut read) = (false, None);
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match word {
            _ if is(word, "mkstream") => makes = true,
            _ if is(word, "entriesread") && server.release().has(Since::R70) => {
                let number = integer(rest.next().ok_or(SYNTAX)?).ok_or(NOT_INTEGER)?;
                match number {
                    -1 => read = None,
                    0.. => read = Some(number as u64),
                    _ => return Err(error("ERR value for ENTRIESREAD must be positive or -1")),
                }
            }
            _ => return Err(SYNTAX),
        }
    }
    Ok((makes, read))
}

fn unknown_or_syntax(server: &Server, args: &[&[u8]], error: Reply) -> Reply {
    match server.release().has(Since::R70) {
        true if error == SYNTAX => Reply::error(format!(
            "ERR unknown subcommand or wrong number of arguments for '{}'. Try XGROUP HELP.",
            text(args[1])
        )),
        true => error,
        false => Reply::error(format!(
            "ERR Unknown subcommand or wrong number of arguments for '{}'. Try XGROUP HELP.",
            text(args[1])
        )),
    }
}

const NEEDS_KEY: Reply = error(
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use \
     the MKSTREAM option to create an empty stream automatically.",
);

/// From 8.2 on a group cannot have read more than was ever added.
fn clamped(release: &Release, read: Option<u64>, stream: &Stream) -> Option<u64> {
    match release.has(Since::R82) {
        true => read.map(|read| read.min(stream.added)),
        false => read,
    }
}

fn create(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let (makes, read) = match group_options(server, &args[5..]) {
        Ok(options) => options,
        Err(error) => return unknown_or_syntax(server, args, error),
    };
    let key = args[2];
    let standing = match stream(server, cx, key) {
        Err(error) => return error,
        Ok(None) if !makes => return NEEDS_KEY,
        Ok(found) => found.is_some(),
    };
    let empty = Stream::default();
    let known = match stream(server, cx, key) {
        Ok(Some(found)) => group_id(args[4], found),
        _ => group_id(args[4], &empty),
    };
    let Some(last) = known else { return INVALID_ID };
    if !standing {
        let entry = Entry::new(Value::Stream(Box::default()), None, cx.now);
        server.put(cx, key, entry);
    }
    let release = server.release();
    let Ok(Some(found)) = stream(server, cx, key) else {
        return WRONG_TYPE;
    };
    if found.groups.contains_key(args[3]) {
        return error("BUSYGROUP Consumer Group name already exists");
    }
    let read = clamped(release, read, found);
    let group = Group {
        last,
        read,
        ..Group::default()
    };
    found.groups.insert(args[3].to_vec(), group);
    server.unsignalled(cx, key);
    Reply::OK
}

/// The stream of XGROUP, which has the group.
fn with_group<'a>(
    server: &'a mut Server,
    cx: &Cx,
    args: &[&[u8]],
) -> Result<&'a mut Stream, Reply> {
    let found = stream(server, cx, args[2])?.ok_or(NEEDS_KEY)?;
    match found.groups.contains_key(args[3]) {
        true => Ok(found),
        false => Err(no_group(args[3], args[2])),
    }
}

fn set_id(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let read = match group_options(server, &args[5..]) {
        Ok((false, read)) => read,
        Ok(_) => return unknown_or_syntax(server, args, SYNTAX),
        Err(error) => return unknown_or_syntax(server, args, error),
    };
    let release = server.release();
    match with_group(server, cx, args) {
        Err(error) => error,
        Ok(found) => {
            let Some(last) = group_id(args[4], found) else {
                return INVALID_ID;
            };
            let read = clamped(release, read, found);
            if let Some(group) = found.groups.get_mut(args[3]) {
                (group.last, group.read) = (last, read);
            }
            server.unsignalled(cx, args[2]);
            Reply::OK
        }
    }
}

fn destroy(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    match stream(server, cx, args[2]) {
        Err(error) => error,
        Ok(None) => NEEDS_KEY,
        Ok(Some(found)) => {
            let removed = found.groups.remove(args[3]).is_some();
            if removed {
                server.unsignalled(cx, args[2]);
            }
            Reply::flag(removed)
        }
    }
}

/// The consumer, made if it is not there; whether it was.
fn consumer<'a>(group: &'a mut Group, name: &[u8], now: u64) -> &'a mut Consumer {
    let made = || Consumer {
        seen: now,
        active: None,
    };
    group.consumers.entry(name.to_vec()).or_insert_with(made)
}

fn create_consumer(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    match with_group(server, cx, args) {
        Err(error) => error,
        Ok(found) => {
            let Some(group) = found.groups.get_mut(args[3]) else {
                return SYNTAX;
            };
            let is_new = !group.consumers.contains_key(args[4]);
            consumer(group, args[4], cx.now);
            if is_new {
                server.unsignalled(cx, args[2]);
            }
            Reply::flag(is_new)
        }
    }
}

fn delete_consumer(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    match with_group(server, cx, args) {
        Err(error) => error,
        Ok(found) => {
            let Some(group) = found.groups.get_mut(args[3]) else {
                return SYNTAX;
            };
            let before = group.pending.len();
            group
                .pending
                .retain(|_, pending| pending.consumer != args[4]);
            let gone = before - group.pending.len();
            group.consumers.remove(args[4]);
            server.unsignalled(cx, args[2]);
            Reply::count(gone)
        }
    }
}

struct ReadOptions {
    most: usize,
    acks: bool,
    streams: usize,
}

fn read_options(args: &[&[u8]]) -> Result<ReadOptions, Reply> {
    let mut options = ReadOptions {
        most: usize::MAX,
        acks: true,
        streams: 0,
    };
    let mut at = 4;
    while let Some(word) = args.get(at) {
        match word {
            _ if is(word, "count") => {
                at += 1;
                let count = integer(args.get(at).ok_or(SYNTAX)?).ok_or(NOT_INTEGER)?;
                options.most = if count > 0 {
                    count as usize
                } else {
                    usize::MAX
                };
            }
            _ if is(word, "block") => at += 1,
            _ if is(word, "noack") => options.acks = false,
            _ if is(word, "streams") => {
                options.streams = at + 1;
                break;
            }
            _ => return Err(SYNTAX),
        }
        at += 1;
    }
    match options.streams {
        0 => Err(SYNTAX),
        _ => Ok(options),
    }
}

fn read_group(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    if !is(args[1], "group") {
        return SYNTAX;
    }
    let options = match read_options(args) {
        Ok(options) => options,
        Err(error) => return error,
    };
    let rest = &args[options.streams..];
    if rest.is_empty() || !rest.len().is_multiple_of(2) {
        return Reply::error(match server.release().has(Since::R72) {
            true => {
                "ERR Unbalanced 'xreadgroup' list of streams: for each stream key an ID, '>' must be specified."
            }
            false => {
                "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified."
            }
        });
    }
    let (keys, ids) = rest.split_at(rest.len() / 2);
    for key in keys {
        let stands = match stream(server, cx, key) {
            Err(error) => return error,
            Ok(found) => found.is_some_and(|found| found.groups.contains_key(args[2])),
        };
        if !stands {
            return Reply::error(format!(
                "NOGROUP No such key '{}' or consumer group '{}' in XREADGROUP with GROUP option",
                text(key),
                text(args[2])
            ));
        }
    }
    let mut rows = Vec::new();
    for (key, word) in keys.iter().zip(ids) {
        let entries = match *word {
            b">" => read_new(server, cx, key, [args[2], args[3]], &options),
            word => match id(word, 0) {
                None => return INVALID_ID,
                Some(after) => Some(read_again(
                    server,
                    cx,
                    key,
                    [args[2], args[3]],
                    after,
                    options.most,
                )),
            },
        };
        if let Some(entries) = entries {
            rows.push((Reply::bulk(key), Reply::Array(entries)));
        }
    }
    streams_reply(server, cx, rows)
}

/// Entries that no consumer of the group has got yet.
fn read_new(
    server: &mut Server,
    cx: &Cx,
    key: &[u8],
    [group, name]: [&[u8]; 2],
    options: &ReadOptions,
) -> Option<Vec<Reply>> {
    let has_active = server.release().has(Since::R72);
    let has_read = server.release().has(Since::R70);
    let found = stream(server, cx, key).ok()??;
    let last = found.groups.get(group)?.last;
    let later = found
        .entries
        .range((Bound::Excluded(last), Bound::Unbounded))
        .take(options.most);
    let rows: Vec<_> = later
        .map(|(id, entry)| (*id, entry_reply(*id, entry)))
        .collect();
    let read_at_last = has_read.then(|| rows.last().map(|(id, _)| entries_read(found, *id)));
    let tombstones = found.max_deleted > last;
    let group = found.groups.get_mut(group)?;
    let consumer = consumer(group, name, cx.now);
    consumer.seen = cx.now;
    if has_active && !rows.is_empty() {
        consumer.active = Some(cx.now);
    }
    let before = group.read;
    for (id, _) in &rows {
        group.last = *id;
        if options.acks {
            let pending = Pending {
                consumer: name.to_vec(),
                delivered_at: cx.now,
                count: 1,
            };
            group.pending.insert(*id, pending);
        }
    }
    if let (Some(Some(estimate)), true) = (read_at_last, !rows.is_empty()) {
        group.read = match before.filter(|_| !tombstones) {
            Some(read) => Some(read + rows.len() as u64),
            None => estimate,
        };
    }
    server.unsignalled(cx, key);
    (!rows.is_empty()).then(|| rows.into_iter().map(|(_, row)| row).collect())
}

/// Entries that this consumer has got and not acknowledged.
fn read_again(
    server: &mut Server,
    cx: &Cx,
    key: &[u8],
    [group, name]: [&[u8]; 2],
    after: StreamId,
    most: usize,
) -> Vec<Reply> {
    let Ok(Some(found)) = stream(server, cx, key) else {
        return Vec::new();
    };
    let Stream {
        entries, groups, ..
    } = found;
    let Some(group) = groups.get_mut(group) else {
        return Vec::new();
    };
    consumer(group, name, cx.now).seen = cx.now;
    let range = group
        .pending
        .range_mut((Bound::Excluded(after), Bound::Unbounded));
    let own = range
        .filter(|(_, pending)| pending.consumer == name)
        .take(most);
    let rows = own.map(|(id, pending)| match entries.get(id) {
        None => Reply::Array(vec![id_reply(*id), Reply::NilArray]),
        Some(entry) => {
            pending.delivered_at = cx.now;
            pending.count += 1;
            entry_reply(*id, entry)
        }
    });
    let rows = rows.collect();
    server.unsignalled(cx, key);
    rows
}

fn ack(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let found = match stream(server, cx, args[1]) {
        Err(error) => return error,
        Ok(found) => found,
    };
    let Some(group) = found.and_then(|found| found.groups.get_mut(args[2])) else {
        return Reply::Int(0);
    };
    let ids: Option<Vec<StreamId>> = args[3..].iter().map(|word| id(word, 0)).collect();
    let Some(ids) = ids else { return INVALID_ID };
    let count = ids
        .iter()
        .filter(|id| group.pending.remove(id).is_some())
        .count();
    server.unsignalled(cx, args[1]);
    Reply::count(count)
}

#[derive(Default)]
struct ClaimOptions {
    delivered_at: Option<u64>,
    count: Option<u64>,
    forces: bool,
    only_ids: bool,
    last: Option<StreamId>,
}

fn claim_options(args: &[&[u8]], at: usize, now: u64) -> Result<ClaimOptions, Reply> {
    let mut options = ClaimOptions::default();
    let mut rest = args[at..].iter();
    while let Some(word) = rest.next() {
        let mut number = |what: &str| {
            let number = integer(rest.next()?);
            number
                .ok_or(format!("ERR Invalid {what} option argument for XCLAIM"))
                .into()
        };
        let told = |number: Option<Result<i64, String>>| match number {
            Some(Ok(number)) => Ok(number),
            Some(Err(text)) => Err(Reply::error(text)),
            None => Err(Reply::error(format!(
                "ERR Unrecognized XCLAIM option '{}'",
                text(word)
            ))),
        };
        match word {
            _ if is(word, "force") => options.forces = true,
            _ if is(word, "justid") => options.only_ids = true,
            _ if is(word, "idle") => {
                let idle = told(number("IDLE"))?;
                options.delivered_at = Some(now.saturating_sub(idle.max(0) as u64));
            }
            _ if is(word, "time") => {
                options.delivered_at = Some(told(number("TIME"))?.max(0) as u64)
            }
            _ if is(word, "retrycount") => {
                options.count = Some(told(number("RETRYCOUNT"))?.max(0) as u64)
            }
            _ if is(word, "lastid") => match rest.next().and_then(|word| id(word, 0)) {
                Some(last) => options.last = Some(last),
                None => return Err(INVALID_ID),
            },
            _ => {
                return Err(Reply::error(format!(
                    "ERR Unrecognized XCLAIM option '{}'",
                    text(word)
                )));
            }
        }
    }
    options.delivered_at = options.delivered_at.map(|at| at.min(now));
    Ok(options)
}

fn claim(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let is_7 = server.release().has(Since::R70);
    let has_active = server.release().has(Since::R72);
    let is_5 = !server.release().has(Since::R60);
    let found = match stream(server, cx, args[1]) {
        Err(error) => return error,
        Ok(found) => found,
    };
    if !found.is_some_and(|found| found.groups.contains_key(args[2])) {
        return Reply::error(format!(
            "NOGROUP No such key '{}' or consumer group '{}'",
            text(args[1]),
            text(args[2])
        ));
    }
    let Some(min_idle) = integer(args[4]) else {
        return error("ERR Invalid min-idle-time argument for XCLAIM");
    };
    let ids: Vec<StreamId> = args[5..].iter().map_while(|word| id(word, 0)).collect();
    let options = match claim_options(args, 5 + ids.len(), cx.now) {
        Ok(options) => options,
        Err(error) => return error,
    };
    let Ok(Some(Stream {
        entries, groups, ..
    })) = stream(server, cx, args[1])
    else {
        return WRONG_TYPE;
    };
    let Some(group) = groups.get_mut(args[2]) else {
        return SYNTAX;
    };
    if let Some(last) = options.last {
        group.last = group.last.max(last);
    }
    let mut rows = Vec::new();
    let mut is_made = false;
    for wanted in ids {
        let entry = entries.get(&wanted);
        if entry.is_none() && is_7 {
            group.pending.remove(&wanted);
            continue;
        }
        let is_pending = group.pending.contains_key(&wanted);
        if !is_pending && (!options.forces || entry.is_none()) {
            continue;
        }
        let fresh = Pending {
            consumer: Vec::new(),
            delivered_at: 0,
            count: 0,
        };
        let pending = group.pending.entry(wanted).or_insert(fresh);
        let idle = cx.now.saturating_sub(pending.delivered_at);
        if !pending.consumer.is_empty() && min_idle > 0 && idle < min_idle as u64 {
            continue;
        }
        pending.consumer = args[3].to_vec();
        pending.delivered_at = options.delivered_at.unwrap_or(cx.now);
        pending.count = match options.count {
            Some(count) => count,
            None => pending.count + u64::from(!options.only_ids),
        };
        is_made = true;
        rows.push(match (options.only_ids, entry) {
            (true, _) => id_reply(wanted),
            (false, Some(entry)) => entry_reply(wanted, entry),
            (false, None) => Reply::Nil,
        });
    }
    if is_made || has_active || is_5 {
        let consumer = consumer(group, args[3], cx.now);
        consumer.seen = cx.now;
        if is_made && has_active {
            consumer.active = Some(cx.now);
        }
    }
    server.unsignalled(cx, args[1]);
    Reply::Array(rows)
}

fn pending(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let found = match stream(server, cx, args[1]) {
        Err(error) => return error,
        Ok(found) => found,
    };
    let Some(group) = found.and_then(|found| found.groups.get(args[2])) else {
        return Reply::error(format!(
            "NOGROUP No such key '{}' or consumer group '{}'",
            text(args[1]),
            text(args[2])
        ));
    };
    match &args[3..] {
        [] => summary(group),
        [low, high, count, rest @ ..] => {
            let low = if *low == b"-" {
                Some((0, 0))
            } else {
                id(low, 0)
            };
            let high = if *high == b"+" {
                Some((u64::MAX, u64::MAX))
            } else {
                id(high, u64::MAX)
            };
            let (Some(low), Some(high)) = (low, high) else {
                return INVALID_ID;
            };
            let Some(count) = natural(count) else {
                return NOT_INTEGER;
            };
            let rows = group.pending.range(low..=high.max(low));
            let rows = rows
                .filter(|(_, pending)| rest.first().is_none_or(|name| pending.consumer == *name));
            let row = |(id, pending): (&StreamId, &Pending)| {
                Reply::Array(vec![
                    id_reply(*id),
                    Reply::bulk(&pending.consumer),
                    Reply::unsigned(cx.now.saturating_sub(pending.delivered_at)),
                    Reply::unsigned(pending.count),
                ])
            };
            Reply::Array(rows.take(count as usize).map(row).collect())
        }
        _ => SYNTAX,
    }
}

fn summary(group: &Group) -> Reply {
    let (Some(first), Some(last)) = (
        group.pending.first_key_value(),
        group.pending.last_key_value(),
    ) else {
        return Reply::Array(vec![Reply::Int(0), Reply::Nil, Reply::Nil, Reply::NilArray]);
    };
    let of = |name: &[u8]| {
        group
            .pending
            .values()
            .filter(|pending| pending.consumer == name)
            .count()
    };
    let row = |name: &Vec<u8>| match of(name) {
        0 => None,
        count => Some(Reply::Array(vec![
            Reply::bulk(name),
            Reply::bulk(count.to_string()),
        ])),
    };
    Reply::Array(vec![
        Reply::count(group.pending.len()),
        id_reply(*first.0),
        id_reply(*last.0),
        Reply::Array(group.consumers.keys().filter_map(row).collect()),
    ])
}

/// How far the group is behind; `None` if that cannot be known.
fn lag(release: &Release, stream: &Stream, group: &Group) -> Option<i64> {
    if stream.added == 0 {
        return Some(0);
    }
    // Who has read nothing of what stands has all of it before them.
    if release.at_least((8, 0), (u16::MAX, 0)) && group.last < stream.first() {
        return Some(stream.entries.len() as i64);
    }
    let tombstones = !stream.entries.is_empty()
        && stream.max_deleted != (0, 0)
        && stream.first() <= stream.max_deleted
        && group.last <= stream.max_deleted;
    let read = group.read.filter(|_| !tombstones);
    let read = read.or_else(|| entries_read(stream, group.last));
    // From 8.0 on nobody is behind a stream without entries.
    let is_level = release.at_least((8, 0), (u16::MAX, 0)) && stream.entries.is_empty();
    let read = read.or(is_level.then_some(stream.added))?;
    Some(stream.added.wrapping_sub(read) as i64)
}

pub(super) fn xinfo_groups(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let release = server.release();
    let is_7 = server.release().has(Since::R70);
    let found = match stream(server, cx, args[2]) {
        Err(error) => return error,
        Ok(None) => return NO_KEY,
        Ok(Some(found)) => found,
    };
    let row = |(name, group): (&Vec<u8>, &Group)| {
        let mut rows = vec![
            ("name", Reply::bulk(name)),
            ("consumers", Reply::count(group.consumers.len())),
            ("pending", Reply::count(group.pending.len())),
            ("last-delivered-id", id_reply(group.last)),
        ];
        if is_7 {
            rows.push((
                "entries-read",
                group.read.map_or(Reply::Nil, Reply::unsigned),
            ));
            rows.push((
                "lag",
                lag(release, found, group).map_or(Reply::Nil, Reply::Int),
            ));
        }
        named(rows)
    };
    Reply::Array(found.groups.iter().map(row).collect())
}

pub(super) fn xinfo_consumers(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let has_active = server.release().has(Since::R72);
    let found = match stream(server, cx, args[2]) {
        Err(error) => return error,
        Ok(None) => return NO_KEY,
        Ok(Some(found)) => found,
    };
    let Some(group) = found.groups.get(args[3]) else {
        return no_group(args[3], args[2]);
    };
    let row = |(name, consumer): (&Vec<u8>, &Consumer)| {
        let own = group
            .pending
            .values()
            .filter(|pending| pending.consumer == *name);
        let mut rows = vec![
            ("name", Reply::bulk(name)),
            ("pending", Reply::count(own.count())),
            (
                "idle",
                Reply::unsigned(cx.now.saturating_sub(consumer.seen)),
            ),
        ];
        if has_active {
            let since = consumer
                .active
                .map_or(-1, |at| cx.now.saturating_sub(at) as i64);
            rows.push(("inactive", Reply::Int(since)));
        }
        named(rows)
    };
    Reply::Array(group.consumers.iter().map(row).collect())
}

fn named(rows: Vec<(&'static str, Reply)>) -> Reply {
    Reply::Map(
        rows.into_iter()
            .map(|(name, value)| (Reply::bulk(name), value))
            .collect(),
    )
}
