//! Streams: nodes of entries, ids, and consumer groups with what they have not acknowledged.

use std::borrow::Cow;

use super::node::NodeEntries;
use super::packed::Blob;
use super::text::{blob, text};
use super::unique::Unique;
use crate::payload::error::{ErrorKind, PayloadError};
use crate::payload::object::{
    Consumer, Entry, Group, Idempotency, IdempotentId, Pending, Producer, Stream, StreamForm,
    StreamId, StreamNode,
};
use crate::payload::source::{Slice, Source};
use crate::payload::walk::length;

type Result<T> = std::result::Result<T, PayloadError>;

/// Reads and checks a whole stream.
pub(super) fn stream<'a>(mut source: Slice<'a>, form: StreamForm) -> Result<Stream<'a>> {
    let source = &mut source;
    let (nodes, entries) = nodes(source)?;
    let at = source.position();
    let bad = |what| Err(PayloadError::new(at, ErrorKind::Stream(what)));
    // The servers' own counter. In real files it is off now and then; no server minds.
    let counter = length(source)?;
    let last_id = id(source)?;
    // Deleted entries may be beyond it: XSETID only looks at those that live.
    if entries.last.is_some_and(|last| last > last_id) {
        return bad("last id is before the last entry");
    }
    let mut stream = Stream {
        form,
        nodes,
        length: entries.count,
        counter,
        last_id,
        first_id: StreamId::default(),
        max_deleted_id: StreamId::default(),
        entries_added: 0,
        groups: Vec::new(),
        idempotency: Idempotency::default(),
    };
    if form >= StreamForm::V2 {
        stream.first_id = id(source)?;
        stream.max_deleted_id = id(source)?;
        stream.entries_added = self::length(source)?;
    }
    stream.groups = groups(source, form)?;
    if form >= StreamForm::V4 {
        stream.idempotency = idempotency(source)?;
    }
    source.end()?;
    Ok(stream)
}

/// Two lengths.
fn id(source: &mut Slice<'_>) -> Result<StreamId> {
    Ok(StreamId {
        ms: length(source)?,
        seq: length(source)?,
    })
}

/// What the nodes hold.
#[derive(Default)]
struct Seen {
    count: u64,
    last: Option<StreamId>,
}

fn nodes<'a>(source: &mut Slice<'a>) -> Result<(Vec<StreamNode<'a>>, Seen)> {
    let mut nodes: Vec<StreamNode<'a>> = Vec::new();
    let mut seen = Seen::default();
    for _ in 0..length(source)? {
        let at = source.position();
        let bad = |what| Err(PayloadError::new(at, ErrorKind::Stream(what)));
        let Ok(id) = <[u8; 16]>::try_from(&*text(source)?) else {
            return bad("id of a node is not 16 bytes");
        };
        let id = StreamId::from_bytes(id);
        if nodes.last().is_some_and(|last| last.id >= id) {
            return bad("nodes not in order");
        }
        let listpack = blob(source)?;
        let mut entries = NodeEntries::new(id, listpack.borrowed())?;
        while let Some(entry) = entries.next(None)? {
            if entry < id || seen.last.is_some_and(|last| last >= entry) {
                return bad("entries not in order");
            }
            seen.last = Some(entry);
            seen.count += 1;
        }
        let listpack = listpack.into_bytes();
        nodes.push(StreamNode { id, listpack });
    }
    Ok((nodes, seen))
}

fn groups<'a>(source: &mut Slice<'a>, form: StreamForm) -> Result<Vec<Group<'a>>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut names = Unique::new();
    let at = source.position();
    for _ in 0..length(source)? {
        let name = text(source)?;
        let last_id = id(source)?;
        let entries_read = if form >= StreamForm::V2 {
            length(source)?
        } else {
            0
        };
        let mut pending = Vec::new();
        for _ in 0..length(source)? {
            pending.push(Pending {
                id: StreamId::from_bytes(source.array()?),
                delivered_ms: i64::from_le_bytes(source.array()?),
                deliveries: length(source)?,
            });
        }
        let consumers = consumers(source, form)?;
        let given_back = match form >= StreamForm::V5 {
            true => ids(source)?,
            false => Vec::new(),
        };
        owners(&pending, &consumers, &given_back)
            .map_err(|what| PayloadError::new(source.position(), ErrorKind::Stream(what)))?;
        names.see(&name);
        groups.push(Group {
            name,
            last_id,
            entries_read,
            pending,
            consumers,
            given_back,
        });
    }
    if !names.all_differ(|| groups.iter().map(|group| &group.name)) {
        return Err(PayloadError::new(
            at,
            ErrorKind::Duplicate("consumer group"),
        ));
    }
    Ok(groups)
}

fn consumers<'a>(source: &mut Slice<'a>, form: StreamForm) -> Result<Vec<Consumer<'a>>> {
    let mut consumers: Vec<Consumer<'a>> = Vec::new();
    let mut names = Unique::new();
    let at = source.position();
    for _ in 0..length(source)? {
        let name = text(source)?;
        let seen_ms = i64::from_le_bytes(source.array()?);
        let active_ms = match form >= StreamForm::V3 {
            true => i64::from_le_bytes(source.array()?),
            false => 0,
        };
        let pending = ids(source)?;
        names.see(&name);
        consumers.push(Consumer {
            name,
            seen_ms,
            active_ms,
            pending,
        });
    }
    if !names.all_differ(|| consumers.iter().map(|consumer| &consumer.name)) {
        return Err(PayloadError::new(at, ErrorKind::Duplicate("consumer")));
    }
    Ok(consumers)
}

/// A count, and so many ids of sixteen bytes.
fn ids(source: &mut Slice<'_>) -> Result<Vec<StreamId>> {
    let mut ids = Vec::new();
    for _ in 0..length(source)? {
        ids.push(StreamId::from_bytes(source.array()?));
    }
    Ok(ids)
}

/// Reads what `XADD … IDMP` goes by. RESTORE refuses other settings, and a producer twice; it takes
/// any ids, however many.
fn idempotency<'a>(source: &mut Slice<'a>) -> Result<Idempotency<'a>> {
    let at = source.position();
    let (duration_secs, max_ids) = (length(source)?, length(source)?);
    let bad = |what| Err(PayloadError::new(at, ErrorKind::Stream(what)));
    if !(1..=86_400).contains(&duration_secs) {
        return bad("idempotency duration is not 1 to 86400 seconds");
    }
    if !(1..=10_000).contains(&max_ids) {
        return bad("number of idempotency ids is not 1 to 10000");
    }
    let mut producers: Vec<Producer<'a>> = Vec::new();
    let mut names = Unique::new();
    for _ in 0..length(source)? {
        let name = text(source)?;
        let mut ids = Vec::new();
        for _ in 0..length(source)? {
            ids.push(IdempotentId {
                name: text(source)?,
                entry: id(source)?,
            });
        }
        names.see(&name);
        producers.push(Producer { name, ids });
    }
    if !names.all_differ(|| producers.iter().map(|producer| &producer.name)) {
        return Err(PayloadError::new(at, ErrorKind::Duplicate("producer")));
    }
    Ok(Idempotency {
        duration_secs,
        max_ids,
        producers,
        ids_added: length(source)?,
        duplicates: length(source)?,
    })
}

/// Every pending entry of the group belongs to exactly one consumer, or was given back: without one
/// the server reads through a null pointer, with two it frees twice.
fn owners(
    pending: &[Pending],
    consumers: &[Consumer<'_>],
    given_back: &[StreamId],
) -> std::result::Result<(), &'static str> {
    let mut known: Vec<StreamId> = pending.iter().map(|pending| pending.id).collect();
    known.sort_unstable();
    if known.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("pending entry appears twice");
    }
    let mut owned: Vec<StreamId> = consumers
        .iter()
        .flat_map(|consumer| consumer.pending.iter().copied())
        .chain(given_back.iter().copied())
        .collect();
    owned.sort_unstable();
    if owned == known {
        Ok(())
    } else if given_back.iter().any(|id| known.binary_search(id).is_err()) {
        Err("entry given back is unknown to the group")
    } else if owned.windows(2).any(|pair| pair[0] == pair[1]) {
        Err("pending entry of two consumers")
    } else if owned.iter().any(|id| known.binary_search(id).is_err()) {
        Err("consumer's pending entry is unknown to the group")
    } else {
        Err("pending entry of no consumer")
    }
}

impl Stream<'_> {
    /// The entries, lowest id first, without those that are deleted. There is nothing to go wrong
    /// in a stream that was decoded.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry<'_>>> {
        let mut nodes = self.nodes.iter();
        let mut current: Option<NodeEntries<'_>> = None;
        let mut next = move || loop {
            if let Some(entries) = &mut current {
                let mut fields = Vec::new();
                if let Some(id) = entries.next(Some(&mut fields))? {
                    return Ok(Some(Entry { id, fields }));
                }
            }
            match nodes.next() {
                Some(node) => {
                    let blob = Blob::new(Cow::Borrowed(&node.listpack), 0);
                    current = Some(NodeEntries::new(node.id, blob)?);
                }
                None => return Ok(None),
            }
        };
        std::iter::from_fn(move || next().transpose())
    }
}
