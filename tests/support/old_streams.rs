//! Streams of servers that have no `XINFO STREAM … FULL` (before 6.0), put together from what
//! they do say into the form of that reply.

use redis::Value;

use super::reading::{Side, bytes, elements, facts, number};

/// More than any stream of the tests holds.
const ALL: &[u8] = b"1000000000";

/// What `XINFO STREAM key FULL COUNT 0` would say. Times come from how long ago something was,
/// so they are some milliseconds off.
pub fn whole(side: &mut Side<'_>, key: &[u8]) -> Value {
    let replies = side.pipeline(&[
        vec![b"XINFO", b"STREAM", key],
        vec![b"XRANGE", key, b"-", b"+"],
        vec![b"XINFO", b"GROUPS", key],
    ]);
    let stream = facts(&replies[0]);
    let groups = elements(replies[2].clone());
    let groups = groups.iter().map(|one| group(side, key, one)).collect();
    named(vec![
        ("length", stream[&b"length"[..]].clone()),
        (
            "last-generated-id",
            stream[&b"last-generated-id"[..]].clone(),
        ),
        ("entries", replies[1].clone()),
        ("groups", Value::Array(groups)),
    ])
}

fn group(side: &mut Side<'_>, key: &[u8], said: &Value) -> Value {
    let group = facts(said);
    let name = bytes(group[&b"name"[..]]);
    let replies = side.pipeline(&[
        vec![b"TIME"],
        vec![b"XPENDING", key, &name, b"-", b"+", ALL],
        vec![b"XINFO", b"CONSUMERS", key, &name],
    ]);
    let time = elements(replies[0].clone());
    let now = number(&time[0]) * 1000 + number(&time[1]) / 1000;
    // Id, consumer, how long ago, how often.
    let pending: Vec<Vec<Value>> = elements(replies[1].clone())
        .into_iter()
        .map(|entry| {
            let mut entry = elements(entry);
            entry[2] = Value::Int(now - number(&entry[2]));
            entry
        })
        .collect();
    let consumers = elements(replies[2].clone());
    let consumers = consumers.iter().map(|one| consumer(one, &pending, now));
    named(vec![
        ("name", group[&b"name"[..]].clone()),
        (
            "last-delivered-id",
            group[&b"last-delivered-id"[..]].clone(),
        ),
        ("pel-count", count(pending.len())),
        ("consumers", Value::Array(consumers.collect())),
        (
            "pending",
            Value::Array(pending.iter().cloned().map(Value::Array).collect()),
        ),
    ])
}

fn consumer(said: &Value, pending: &[Vec<Value>], now: i64) -> Value {
    let consumer = facts(said);
    let name = consumer[&b"name"[..]];
    let own = pending.iter().filter(|entry| entry[1] == *name);
    let own: Vec<Value> = own
        .map(|entry| Value::Array([&entry[..1], &entry[2..]].concat()))
        .collect();
    named(vec![
        ("name", name.clone()),
        (
            "seen-time",
            Value::Int(now - number(consumer[&b"idle"[..]])),
        ),
        ("pel-count", count(own.len())),
        ("pending", Value::Array(own)),
    ])
}

fn count(length: usize) -> Value {
    Value::Int(i64::try_from(length).expect("a small number"))
}

fn named(facts: Vec<(&str, Value)>) -> Value {
    let name = |text: &str| Value::BulkString(text.as_bytes().to_vec());
    let flat = facts.into_iter().flat_map(|(n, value)| [name(n), value]);
    Value::Array(flat.collect())
}
