//! A small writer of listpacks and stream nodes, to make streams from entries.

use std::borrow::Cow;

use crate::payload::{BackLengths, Entry, StreamId, StreamNode};

/// An element of a listpack.
pub(super) enum Element<'a> {
    Text(&'a [u8]),
    Int(i64),
}

/// A listpack of these elements.
pub(super) fn listpack(elements: &[Element<'_>]) -> Vec<u8> {
    let mut out = vec![0; 6];
    for element in elements {
        let start = out.len();
        match element {
            Element::Int(number @ 0..128) => out.push(*number as u8),
            Element::Int(number @ -4096..4096) => {
                let bits = (number & 0x1fff) as u16 | 0xc000;
                out.extend_from_slice(&bits.to_be_bytes());
            }
            Element::Int(number) => {
                out.push(0xf4);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Element::Text(text) => {
                match text.len() {
                    len @ 0..64 => out.push(0x80 | len as u8),
                    len @ 64..4096 => out.extend_from_slice(&(0xe000 | len as u16).to_be_bytes()),
                    len => {
                        out.push(0xf0);
                        out.extend_from_slice(&(len as u32).to_le_bytes());
                    }
                }
                out.extend_from_slice(text);
            }
        }
        let (back, size) = BackLengths::Early.bytes(out.len() - start);
        out.extend_from_slice(&back[..size]);
    }
    out.push(0xff);
    let total = (out.len() as u32).to_le_bytes();
    out[..4].copy_from_slice(&total);
    let count = u16::try_from(elements.len())
        .unwrap_or(u16::MAX)
        .to_le_bytes();
    out[4..6].copy_from_slice(&count);
    out
}

/// A node of these entries and, before the first of them, a deleted one of the same fields.
pub(super) fn node(entries: &[Entry<'_>], with_deleted: bool) -> StreamNode<'static> {
    use Element::{Int, Text};
    let first = entries.first().expect("an entry");
    let id = first.id;
    let master: Vec<&[u8]> = first.fields.iter().map(|(name, _)| &**name).collect();
    let mut elements = vec![
        Int(entries.len() as i64),
        Int(i64::from(with_deleted)),
        Int(master.len() as i64),
    ];
    elements.extend(master.iter().map(|name| Text(name)));
    elements.push(Int(0));
    let deleted = with_deleted.then_some((1, first));
    for (flag, entry) in deleted
        .into_iter()
        .chain(entries.iter().map(|entry| (0, entry)))
    {
        let names = entry.fields.iter().map(|(name, _)| &**name);
        let same = names.eq(master.iter().copied());
        elements.push(Int(flag | if same { 2 } else { 0 }));
        elements.push(Int(entry.id.ms.wrapping_sub(id.ms) as i64));
        elements.push(Int(entry.id.seq.wrapping_sub(id.seq) as i64));
        let start = elements.len() - 3;
        if !same {
            elements.push(Int(entry.fields.len() as i64));
        }
        for (name, value) in &entry.fields {
            if !same {
                elements.push(Text(name));
            }
            elements.push(Text(value));
        }
        elements.push(Int((elements.len() - start) as i64));
    }
    StreamNode {
        id,
        listpack: Cow::Owned(listpack(&elements)),
    }
}

/// Entries in nodes of at most `per_node`.
pub(super) fn nodes(entries: &[Entry<'_>], per_node: usize) -> Vec<StreamNode<'static>> {
    let chunks = entries.chunks(per_node.max(1)).enumerate();
    chunks
        .map(|(n, entries)| node(entries, n % 2 == 1))
        .collect()
}

/// An entry of one field.
pub(super) fn entry(
    ms: u64,
    seq: u64,
    name: &'static [u8],
    value: &'static [u8],
) -> Entry<'static> {
    Entry {
        id: StreamId { ms, seq },
        fields: vec![(Cow::Borrowed(name), Cow::Borrowed(value))],
    }
}
