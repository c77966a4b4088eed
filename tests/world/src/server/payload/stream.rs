//! Streams in payloads: nodes of up to a hundred entries, ids, groups, and what 8.6 remembers.

use super::super::release::{Release, Since};
use super::super::value::{Consumer, Group, Idempotency, Pending, Stream, StreamEntry, StreamId};
use super::decode::Input;
use super::listpack::{self, Element};
use super::{put_length, put_string};

const NODE_ENTRIES: usize = 100;
const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;

/// The type that a version writes streams as.
fn kind(release: &Release) -> u8 {
    match () {
        () if release.has(Since::R86) => 26,
        () if release.has(Since::R72) => 21,
        () if release.has(Since::R70) => 19,
        () => 15,
    }
}

pub(super) fn put(release: &Release, stream: &Stream, out: &mut Vec<u8>) {
    let kind = kind(release);
    out.push(kind);
    let entries: Vec<(&StreamId, &StreamEntry)> = stream.entries.iter().collect();
    let nodes = entries.chunks(NODE_ENTRIES);
    put_length(out, nodes.len() as u64);
    for node in nodes {
        put_string(out, &raw_id(*node[0].0));
        put_string(out, &put_node(node));
    }
    put_length(out, stream.entries.len() as u64);
    put_id(out, stream.last);
    if kind >= 19 {
        put_id(out, stream.first());
        put_id(out, stream.max_deleted);
        put_length(out, stream.added);
    }
    put_length(out, stream.groups.len() as u64);
    for (name, group) in &stream.groups {
        put_string(out, name);
        put_group(out, kind, group);
    }
    if kind == 26 {
        put_memory(out, &stream.memory);
    }
}

fn raw_id((ms, seq): StreamId) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[..8].copy_from_slice(&ms.to_be_bytes());
    raw[8..].copy_from_slice(&seq.to_be_bytes());
    raw
}

fn put_id(out: &mut Vec<u8>, (ms, seq): StreamId) {
    put_length(out, ms);
    put_length(out, seq);
}

fn put_node(node: &[(&StreamId, &StreamEntry)]) -> Vec<u8> {
    let mut pack = listpack::Writer::new();
    let (first_id, first) = node[0];
    let names = |entry: &StreamEntry| entry.iter().step_by(2).cloned().collect::<Vec<_>>();
    let master = names(first);
    pack.number(node.len() as i64);
    pack.number(0);
    pack.number(master.len() as i64);
    for name in &master {
        pack.text(name);
    }
    pack.number(0);
    for (id, entry) in node {
        let is_same = names(entry) == master;
        pack.number(if is_same { SAME_FIELDS } else { 0 });
        pack.number(id.0.wrapping_sub(first_id.0) as i64);
        pack.number(id.1.wrapping_sub(first_id.1) as i64);
        let count = entry.len() as i64 / 2;
        if is_same {
            for value in entry.iter().skip(1).step_by(2) {
                pack.text(value);
            }
            pack.number(count + 3);
        } else {
            pack.number(count);
            for text in entry.iter() {
                pack.text(text);
            }
            pack.number(2 * count + 4);
        }
    }
    pack.finish()
}

fn put_group(out: &mut Vec<u8>, kind: u8, group: &Group) {
    put_id(out, group.last);
    if kind >= 19 {
        put_length(out, group.read.unwrap_or(u64::MAX));
    }
    put_length(out, group.pending.len() as u64);
    for (id, pending) in &group.pending {
        out.extend_from_slice(&raw_id(*id));
        out.extend_from_slice(&pending.delivered_at.to_le_bytes());
        put_length(out, pending.count);
    }
    put_length(out, group.consumers.len() as u64);
    for (name, consumer) in &group.consumers {
        put_string(out, name);
        out.extend_from_slice(&consumer.seen.to_le_bytes());
        if kind >= 21 {
            let active = consumer.active.map_or(-1, |at| at as i64);
            out.extend_from_slice(&active.to_le_bytes());
        }
        let own = group
            .pending
            .iter()
            .filter(|(_, pending)| pending.consumer == *name);
        let own: Vec<_> = own.map(|(id, _)| raw_id(*id)).collect();
        put_length(out, own.len() as u64);
        for id in own {
            out.extend_from_slice(&id);
        }
    }
}

fn put_memory(out: &mut Vec<u8>, memory: &Idempotency) {
    put_length(out, memory.duration);
    put_length(out, memory.max_ids);
    put_length(out, memory.producers.len() as u64);
    for (name, ids) in &memory.producers {
        put_string(out, name);
        put_length(out, ids.len() as u64);
        for (name, id) in ids {
            put_string(out, name);
            put_id(out, *id);
        }
    }
    put_length(out, memory.added);
    put_length(out, memory.duplicates);
}

fn id(input: &mut Input<'_>) -> Option<StreamId> {
    Some((input.length()?, input.length()?))
}

fn read_raw_id(input: &mut Input<'_>) -> Option<StreamId> {
    from_raw(input.take(16)?)
}

fn from_raw(raw: &[u8]) -> Option<StreamId> {
    let (ms, seq) = raw.split_at_checked(8)?;
    Some((
        u64::from_be_bytes(ms.try_into().ok()?),
        u64::from_be_bytes(seq.try_into().ok()?),
    ))
}

pub(super) fn read(input: &mut Input<'_>, kind: u8) -> Option<Stream> {
    let mut stream = Stream::default();
    for _ in 0..input.length()? {
        let master = input.string().filter(|raw| raw.len() == 16)?;
        let pack = input.string()?;
        read_node(&mut stream, from_raw(&master)?, &pack)?;
    }
    let length = input.length()?;
    stream.last = id(input)?;
    stream.added = length;
    if kind >= 19 {
        id(input)?;
        stream.max_deleted = id(input)?;
        stream.added = input.length()?;
    }
    if length != stream.entries.len() as u64 {
        return None;
    }
    for _ in 0..input.length()? {
        let name = input.string()?;
        let group = read_group(input, kind)?;
        if stream.groups.insert(name, group).is_some() {
            return None;
        }
    }
    if kind == 26 {
        stream.memory = read_memory(input)?;
    }
    Some(stream)
}

fn read_node(stream: &mut Stream, first: StreamId, pack: &[u8]) -> Option<()> {
    let mut rows = listpack::read(pack)?.into_iter();
    let mut next = || rows.next();
    let number = |element: Option<Element>| element?.number();
    let valid = number(next())?;
    let deleted = number(next())?;
    let count = number(next())?;
    let master: Vec<Vec<u8>> = (0..count)
        .map(|_| Some(next()?.into_text()))
        .collect::<Option<_>>()?;
    number(next())?;
    for _ in 0..valid.checked_add(deleted)? {
        let flags = number(next())?;
        let ms = first.0.wrapping_add(number(next())? as u64);
        let seq = first.1.wrapping_add(number(next())? as u64);
        let mut entry = Vec::new();
        if flags & SAME_FIELDS != 0 {
            for name in &master {
                entry.push(name.clone());
                entry.push(next()?.into_text());
            }
        } else {
            for _ in 0..2 * number(next())? {
                entry.push(next()?.into_text());
            }
        }
        number(next())?;
        if flags & DELETED == 0 && stream.entries.insert((ms, seq), entry).is_some() {
            return None;
        }
    }
    next().is_none().then_some(())
}

fn read_group(input: &mut Input<'_>, kind: u8) -> Option<Group> {
    let mut group = Group {
        last: id(input)?,
        ..Group::default()
    };
    if kind >= 19 {
        group.read = Some(input.length()?).filter(|read| *read != u64::MAX);
    }
    for _ in 0..input.length()? {
        let id = read_raw_id(input)?;
        let pending = Pending {
            consumer: Vec::new(),
            delivered_at: input.u64_le()?,
            count: input.length()?,
        };
        group.pending.insert(id, pending);
    }
    let mut owned = 0;
    for _ in 0..input.length()? {
        let name = input.string()?;
        let seen = input.u64_le()?;
        let active = match kind {
            21.. => u64::try_from(input.u64_le()? as i64).ok(),
            _ => None,
        };
        for _ in 0..input.length()? {
            let pending = group.pending.get_mut(&read_raw_id(input)?)?;
            pending.consumer.clone_from(&name);
            owned += 1;
        }
        if group
            .consumers
            .insert(name, Consumer { seen, active })
            .is_some()
        {
            return None;
        }
    }
    (owned == group.pending.len()).then_some(group)
}

fn read_memory(input: &mut Input<'_>) -> Option<Idempotency> {
    let mut memory = Idempotency {
        duration: input
            .length()
            .filter(|duration| (1..=86400).contains(duration))?,
        max_ids: input.length().filter(|count| (1..=10000).contains(count))?,
        ..Idempotency::default()
    };
    for _ in 0..input.length()? {
        let producer = input.string()?;
        let row = |input: &mut Input<'_>| Some((input.string()?, id(input)?));
        let ids = (0..input.length()?)
            .map(|_| row(input))
            .collect::<Option<Vec<_>>>()?;
        if memory.producers.insert(producer, ids).is_some() {
            return None;
        }
    }
    memory.added = input.length()?;
    memory.duplicates = input.length()?;
    Some(memory)
}
