//! Commands for streams.

use super::super::Server;
use super::super::process::Cx;
use super::super::release::Since;
use super::super::reply::Reply;
use super::super::table::{CONTAINER, FIRST, Keys, NEEDS_MEMORY, Row, WRITE, row};
use super::super::value::{Entry, Stream, StreamEntry, StreamId, Value};
use super::words::{
    NO_KEY, NOT_INTEGER, SYNTAX, WRONG_TYPE, error, integer, is, natural, wrong_count,
};

const ADD: u16 = WRITE | NEEDS_MEMORY;
const ALWAYS: Since = Since::Always;
const SECOND: Keys = Keys::At(2, 2, 1);

pub(super) const ROWS: &[Row] = &[
    row("xadd", -5, ADD, FIRST, ALWAYS, xadd),
    row("xlen", 2, 0, FIRST, ALWAYS, xlen),
    row("xrange", -4, 0, FIRST, ALWAYS, |server, cx, args| {
        ranged(server, cx, args, false)
    }),
    row("xrevrange", -4, 0, FIRST, ALWAYS, |server, cx, args| {
        ranged(server, cx, args, true)
    }),
    row("xdel", -3, WRITE, FIRST, ALWAYS, xdel),
    row("xtrim", -4, WRITE, FIRST, ALWAYS, xtrim),
    row("xsetid", -3, ADD, FIRST, ALWAYS, xsetid),
    row("xread", -4, 0, Keys::Streams, ALWAYS, xread),
    row("xinfo", -2, CONTAINER, Keys::None, ALWAYS, super::container),
    row("xinfo|stream", -3, 0, SECOND, ALWAYS, xinfo_stream),
    row(
        "xinfo|groups",
        3,
        0,
        SECOND,
        ALWAYS,
        super::groups::xinfo_groups,
    ),
    row(
        "xinfo|consumers",
        4,
        0,
        SECOND,
        ALWAYS,
        super::groups::xinfo_consumers,
    ),
    row("xcfgset", -2, WRITE, FIRST, Since::R86, xcfgset),
    row("xidmprecord", 5, WRITE, FIRST, Since::R86, xidmprecord),
];

const INVALID_ID: Reply = error("ERR Invalid stream ID specified as stream command argument");

/// The stream at a key; the error if it is none.
pub(super) fn stream<'a>(
    server: &'a mut Server,
    cx: &Cx,
    key: &[u8],
) -> Result<Option<&'a mut Stream>, Reply> {
    match server.read(cx, key).map(|entry| &mut entry.value) {
        None => Ok(None),
        Some(Value::Stream(stream)) => Ok(Some(stream)),
        Some(_) => Err(WRONG_TYPE),
    }
}

/// An id as servers read it; `seq` is taken if the word gives none.
pub(super) fn id(word: &[u8], seq: u64) -> Option<StreamId> {
    let text = std::str::from_utf8(word).ok()?;
    let number = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| text.parse().ok())?
    };
    match text.split_once('-') {
        Some((ms, seq)) => Some((number(ms)?, number(seq)?)),
        None => Some((number(text)?, seq)),
    }
}

pub(super) fn id_reply((ms, seq): StreamId) -> Reply {
    Reply::Bulk(format!("{ms}-{seq}").into_bytes())
}

pub(super) fn entry_reply(id: StreamId, entry: &StreamEntry) -> Reply {
    Reply::Array(vec![id_reply(id), Reply::bulks(entry)])
}

/// How a stream is trimmed.
enum Trim {
    MaxLen(u64),
    MinId(StreamId),
}

impl Trim {
    /// How many entries go.
    fn apply(&self, stream: &mut Stream) -> usize {
        let before = stream.entries.len();
        match self {
            Self::MaxLen(length) => {
                while stream.entries.len() as u64 > *length {
                    stream.entries.pop_first();
                }
            }
            Self::MinId(least) => stream.entries = stream.entries.split_off(least),
        }
        before - stream.entries.len()
    }
}

/// The words `MAXLEN|MINID [=|~] n [LIMIT n]` at a place, and where they end.
fn trim(server: &Server, args: &[&[u8]], at: usize) -> Result<(Trim, usize), Reply> {
    let is_id = is(args[at], "minid");
    let is_known = is(args[at], "maxlen") || (is_id && server.release().has(Since::R62));
    if !is_known {
        return Err(SYNTAX);
    }
    let mut at = at + 1;
    let is_about = args.get(at).is_some_and(|word| *word == b"~");
    if is_about || args.get(at).is_some_and(|word| *word == b"=") {
        at += 1;
    }
    let word = args.get(at).ok_or(SYNTAX)?;
    let trim = match is_id {
        true => Trim::MinId(id(word, 0).ok_or(INVALID_ID)?),
        false => {
            let length = integer(word).ok_or(NOT_INTEGER)?;
            let Ok(length) = u64::try_from(length) else {
                return Err(error("ERR The MAXLEN argument must be >= 0."));
            };
            Trim::MaxLen(length)
        }
    };
    Ok((trim, at + 1))
}

/// The id that XADD is to give.
#[derive(Clone, Copy)]
enum NewId {
    Any,
    InMs(u64),
    This(StreamId),
}

fn new_id(server: &Server, word: &[u8]) -> Result<NewId, Reply> {
    if word == b"*" {
        return Ok(NewId::Any);
    }
    if let Some(ms) = word
        .strip_suffix(b"-*")
        .filter(|_| server.release().has(Since::R70))
    {
        return natural(ms).map(NewId::InMs).ok_or(INVALID_ID);
    }
    id(word, 0).map(NewId::This).ok_or(INVALID_ID)
}

/// XADD without a field and a value.
fn miscounted(server: &Server) -> Reply {
    match server.release().has(Since::R70) {
        true => wrong_count("xadd"),
        false => error("ERR wrong number of arguments for XADD"),
    }
}

fn xadd(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let mut at = 2;
    let mut makes = true;
    let mut trimmed = None;
    loop {
        match args.get(at) {
            Some(word) if is(word, "nomkstream") && server.release().has(Since::R62) => {
                makes = false;
                at += 1;
            }
            Some(word) if is(word, "maxlen") || is(word, "minid") => match trim(server, args, at) {
                Ok((trim, end)) => (trimmed, at) = (Some(trim), end),
                Err(error) => return error,
            },
            _ => break,
        }
    }
    let Some(word) = args.get(at) else {
        return miscounted(server);
    };
    let wanted = match new_id(server, word) {
        Ok(wanted) => wanted,
        Err(error) => return error,
    };
    let fields = &args[at + 1..];
    if fields.is_empty() || !fields.len().is_multiple_of(2) {
        return miscounted(server);
    }
    if matches!(wanted, NewId::This((0, 0))) && server.release().has(Since::R60) {
        return error("ERR The ID specified in XADD must be greater than 0-0");
    }
    match stream(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) if !makes => return Reply::Nil,
        Ok(None) => {
            let entry = Entry::new(Value::Stream(Box::default()), None, cx.now);
            server.keyspace.put(cx.db, args[1], entry);
        }
        Ok(Some(_)) => {}
    }
    let Ok(Some(found)) = stream(server, cx, args[1]) else {
        return WRONG_TYPE;
    };
    let (ms, seq) = found.last;
    let given = match wanted {
        NewId::Any if cx.now > ms => (cx.now, 0),
        NewId::Any => (ms, seq + 1),
        NewId::InMs(wanted) if wanted == ms => (ms, seq + 1),
        NewId::InMs(wanted) => (wanted, 0),
        NewId::This(id) => id,
    };
    if given <= found.last {
        return error(
            "ERR The ID specified in XADD is equal or smaller than the target stream top item",
        );
    }
    found
        .entries
        .insert(given, fields.iter().map(|word| word.to_vec()).collect());
    found.last = given;
    found.added += 1;
    if let Some(trim) = trimmed {
        trim.apply(found);
    }
    server.signal(cx, args[1]);
    id_reply(given)
}

fn xlen(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    stream(server, cx, args[1]).map_or_else(
        |error| error,
        |found| Reply::count(found.map_or(0, |found| found.entries.len())),
    )
}

/// A bound of a range: `-`, `+`, an id, or `(` and an id that is left out.
fn bound(word: &[u8], is_low: bool) -> Option<StreamId> {
    let (word, excluded) = match word.strip_prefix(b"(") {
        Some(word) => (word, true),
        None => (word, false),
    };
    let id = match word {
        b"-" => (0, 0),
        b"+" => (u64::MAX, u64::MAX),
        word => id(word, if is_low { 0 } else { u64::MAX })?,
    };
    match (excluded, is_low, id) {
        (false, _, id) => Some(id),
        (true, true, (ms, seq)) => match seq.checked_add(1) {
            Some(seq) => Some((ms, seq)),
            None => Some((ms.checked_add(1)?, 0)),
        },
        (true, false, (ms, seq)) => match seq.checked_sub(1) {
            Some(seq) => Some((ms, seq)),
            None => Some((ms.checked_sub(1)?, u64::MAX)),
        },
    }
}

fn ranged(server: &mut Server, cx: &Cx, args: &[&[u8]], backwards: bool) -> Reply {
    let (low, high) = if backwards {
        (args[3], args[2])
    } else {
        (args[2], args[3])
    };
    let (Some(low), Some(high)) = (bound(low, true), bound(high, false)) else {
        return INVALID_ID;
    };
    let most = match &args[4..] {
        [] => usize::MAX,
        [word, count] if is(word, "count") => match integer(count) {
            None => return NOT_INTEGER,
            Some(count) => count.max(0) as usize,
        },
        _ => return SYNTAX,
    };
    let found = match stream(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) => return Reply::Array(Vec::new()),
        Ok(Some(_)) if args.len() > 4 && most == 0 => return Reply::NilArray,
        Ok(Some(found)) => found,
    };
    if low > high {
        return Reply::Array(Vec::new());
    }
    let rows = found.entries.range(low..=high);
    let row = |(id, entry): (&StreamId, &StreamEntry)| entry_reply(*id, entry);
    Reply::Array(match backwards {
        false => rows.take(most).map(row).collect(),
        true => rows.rev().take(most).map(row).collect(),
    })
}

fn xdel(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let is_7 = server.release().has(Since::R70);
    let found = match stream(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) => return Reply::Int(0),
        Ok(Some(found)) => found,
    };
    let ids: Option<Vec<StreamId>> = args[2..].iter().map(|word| id(word, 0)).collect();
    let Some(ids) = ids else { return INVALID_ID };
    let mut removed = 0;
    for id in ids {
        if found.entries.remove(&id).is_some() {
            removed += 1;
            if is_7 {
                found.max_deleted = found.max_deleted.max(id);
            }
        }
    }
    if removed > 0 {
        server.signal(cx, args[1]);
    }
    Reply::Int(removed)
}

fn xtrim(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    // Before 6.2 the key comes first.
    let stands = matches!(stream(server, cx, args[1]), Ok(Some(_)));
    if !stands && !server.release().has(Since::R62) {
        return stream(server, cx, args[1]).map_or_else(|error| error, |_| Reply::Int(0));
    }
    let trim = match trim(server, args, 2) {
        Ok((trim, end)) if end == args.len() => trim,
        Ok(_) => return SYNTAX,
        Err(error) => return error,
    };
    let removed = match stream(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) => 0,
        Ok(Some(found)) => trim.apply(found),
    };
    if removed > 0 {
        server.signal(cx, args[1]);
    }
    Reply::count(removed)
}

fn xsetid(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let is_7 = server.release().has(Since::R70);
    let has_7_2 = server.release().has(Since::R72);
    if args.len() != 3 && !is_7 {
        return wrong_count("xsetid");
    }
    if !is_7 {
        match stream(server, cx, args[1]) {
            Err(error) => return error,
            Ok(None) => return NO_KEY,
            Ok(Some(_)) => {}
        }
    }
    let (mut added, mut deleted) = (None, None);
    let wanted = match id(args[2], 0) {
        Some(wanted) => wanted,
        None => return INVALID_ID,
    };
    for pair in args[3..].chunks(2) {
        match pair {
            [word, number] if is(word, "entriesadded") => match integer(number) {
                None => return NOT_INTEGER,
                Some(number) if number < 0 => return error("ERR entries_added must be positive"),
                Some(number) => added = Some(number as u64),
            },
            [word, last] if is(word, "maxdeletedid") => match id(last, 0) {
                None => return INVALID_ID,
                Some(last) if wanted < last => {
                    return error(
                        "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                    );
                }
                Some(last) => deleted = Some(last),
            },
            _ => return SYNTAX,
        }
    }
    let found = match stream(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) => return NO_KEY,
        Ok(Some(found)) => found,
    };
    // Redis 7.0 does not look at it.
    if has_7_2 && wanted < found.max_deleted {
        return error(
            "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id",
        );
    }
    if let Some((top, _)) = found.entries.last_key_value() {
        if wanted < *top {
            return error(
                "ERR The ID specified in XSETID is smaller than the target stream top item",
            );
        }
        if added.is_some_and(|added| added < found.entries.len() as u64) {
            return error(
                "ERR The entries_added specified in XSETID is smaller than the target stream length",
            );
        }
    }
    found.last = wanted;
    found.added = added.unwrap_or(found.added);
    found.max_deleted = deleted
        .filter(|deleted| *deleted != (0, 0))
        .unwrap_or(found.max_deleted);
    server.unsignalled(cx, args[1]);
    Reply::OK
}

fn xread(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let Some(at) = args.iter().position(|word| is(word, "streams")) else {
        return SYNTAX;
    };
    let most = match &args[1..at] {
        [] => usize::MAX,
        [word, count] if is(word, "count") => {
            integer(count).map_or(usize::MAX, |count| count.max(0) as usize)
        }
        _ => return SYNTAX,
    };
    let rest = &args[at + 1..];
    if rest.is_empty() || !rest.len().is_multiple_of(2) {
        return error(match server.release() {
            release if release.at_least((8, 0), (u16::MAX, 0)) => {
                "ERR Unbalanced 'xread' list of streams: for each stream key an ID, '+', or '$' must be specified."
            }
            release if release.has(Since::R72) => {
                "ERR Unbalanced 'xread' list of streams: for each stream key an ID or '$' must be specified."
            }
            _ => {
                "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified."
            }
        });
    }
    // Redis 5.0 goes by the last id, also where no entry has it.
    let goes_by_last = !server.release().has(Since::R60);
    let (keys, ids) = rest.split_at(rest.len() / 2);
    let mut rows = Vec::new();
    for (key, word) in keys.iter().zip(ids) {
        let known = stream(server, cx, key).map(drop);
        if let Err(error) = known {
            return error;
        }
        let after = match *word {
            b"$" => (u64::MAX, u64::MAX),
            word => match id(word, 0) {
                Some(id) => id,
                None => return INVALID_ID,
            },
        };
        let found = match stream(server, cx, key) {
            Err(error) => return error,
            Ok(None) => continue,
            Ok(Some(found)) => found,
        };
        let later = found
            .entries
            .range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded));
        let entries: Vec<Reply> = later
            .take(most)
            .map(|(id, entry)| entry_reply(*id, entry))
            .collect();
        let is_served = goes_by_last && !found.entries.is_empty() && found.last > after;
        if !entries.is_empty() || is_served {
            rows.push((Reply::bulk(key), Reply::Array(entries)));
        }
    }
    streams_reply(server, cx, rows)
}

/// Streams and their entries: a map in RESP3, pairs in RESP2.
pub(super) fn streams_reply(server: &Server, cx: &Cx, rows: Vec<(Reply, Reply)>) -> Reply {
    if rows.is_empty() {
        return Reply::NilArray;
    }
    let is_3 = server
        .client(cx.client)
        .is_some_and(|client| client.session.protocol == 3);
    match is_3 {
        true => Reply::Map(rows),
        false => Reply::Array(
            rows.into_iter()
                .map(|(key, rows)| Reply::Array(vec![key, rows]))
                .collect(),
        ),
    }
}

fn xinfo_stream(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let release = server.release();
    if args.len() > 3 {
        return SYNTAX;
    }
    let found = match stream(server, cx, args[2]) {
        Err(error) => return error,
        Ok(None) => return NO_KEY,
        Ok(Some(found)) => found,
    };
    let edge = |row: Option<(&StreamId, &StreamEntry)>| {
        row.map_or(Reply::Nil, |(id, entry)| entry_reply(*id, entry))
    };
    let nodes = found.entries.len().div_ceil(100);
    let mut rows = vec![
        ("length", Reply::count(found.entries.len())),
        ("radix-tree-keys", Reply::count(nodes)),
        ("radix-tree-nodes", Reply::count(nodes + 1)),
    ];
    rows.push(("last-generated-id", id_reply(found.last)));
    if release.has(Since::R70) {
        rows.push(("max-deleted-entry-id", id_reply(found.max_deleted)));
        rows.push(("entries-added", Reply::unsigned(found.added)));
        rows.push(("recorded-first-entry-id", id_reply(found.first())));
    }
    if release.has(Since::R86) {
        let memory = &found.memory;
        let ids = memory.producers.values().map(Vec::len).sum();
        rows.push(("idmp-duration", Reply::unsigned(memory.duration)));
        rows.push(("idmp-maxsize", Reply::unsigned(memory.max_ids)));
        rows.push(("pids-tracked", Reply::count(memory.producers.len())));
        rows.push(("iids-tracked", Reply::count(ids)));
        rows.push(("iids-added", Reply::unsigned(memory.added)));
        rows.push(("iids-duplicates", Reply::unsigned(memory.duplicates)));
    }
    let groups = ("groups", Reply::count(found.groups.len()));
    match release.has(Since::R60) {
        true => rows.push(groups),
        false => rows.insert(3, groups),
    }
    rows.push(("first-entry", edge(found.entries.first_key_value())));
    rows.push(("last-entry", edge(found.entries.last_key_value())));
    Reply::Map(
        rows.into_iter()
            .map(|(name, value)| (Reply::bulk(name), value))
            .collect(),
    )
}

fn xcfgset(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    match stream(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) => return NO_KEY,
        Ok(Some(_)) => {}
    }
    let (mut duration, mut max_ids) = (None, None);
    if args
        .iter()
        .skip(3)
        .step_by(2)
        .any(|word| integer(word).is_none())
    {
        return NOT_INTEGER;
    }
    for pair in args[2..].chunks(2) {
        match pair {
            [word, number] if is(word, "idmp-duration") => {
                match natural(number).filter(|number| (1..=86400).contains(number)) {
                    None => return error("ERR IDMP-DURATION must be between 1 and 86400 seconds"),
                    number => duration = number,
                }
            }
            [word, number] if is(word, "idmp-maxsize") => {
                match natural(number).filter(|number| (1..=10000).contains(number)) {
                    None => return error("ERR IDMP-MAXSIZE must be between 1 and 10000 entries"),
                    number => max_ids = number,
                }
            }
            _ => return SYNTAX,
        }
    }
    if duration.is_none() && max_ids.is_none() {
        return error("ERR At least one parameter must be specified");
    }
    let found = match stream(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) => return NO_KEY,
        Ok(Some(found)) => found,
    };
    let memory = &mut found.memory;
    let wanted = (
        duration.unwrap_or(memory.duration),
        max_ids.unwrap_or(memory.max_ids),
    );
    if wanted != (memory.duration, memory.max_ids) {
        (memory.duration, memory.max_ids) = wanted;
        memory.producers.clear();
        server.signal(cx, args[1]);
    }
    Reply::OK
}

fn xidmprecord(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    let Some(wanted) = id(args[4], 0) else {
        return INVALID_ID;
    };
    let found = match stream(server, cx, args[1]) {
        Err(error) => return error,
        Ok(None) => return NO_KEY,
        Ok(Some(found)) => found,
    };
    if !found.entries.contains_key(&wanted) {
        return error("ERR No such message in stream");
    }
    let ids = found.memory.producers.entry(args[2].to_vec()).or_default();
    match ids.iter().find(|(name, _)| name == args[3]) {
        Some((_, standing)) if *standing != wanted => {
            return error("ERR idempotent ID already exists with a different stream ID");
        }
        Some(_) => {}
        None => {
            ids.push((args[3].to_vec(), wanted));
            found.memory.added += 1;
        }
    }
    server.signal(cx, args[1]);
    Reply::OK
}
