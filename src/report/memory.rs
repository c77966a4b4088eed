//! What a key may take in a server's memory: an estimate from its size and its layout.
//!
//! It counts what Redis 7 with jemalloc on 64 bits allocates:
//!
//! ```text
//! each key     entry and bucket 36, object 16, name
//! with expiry  36
//! string       its bytes; a number needs none
//! packed       one allocation: listpack, ziplist, intset
//! hash table   each field 36 and about 10 for each of its two texts, and their bytes
//! set table    each member 36 and about 10, and its bytes
//! skip list    each member 36, 45 and about 10, and its bytes
//! list         each node 40, and its bytes
//! stream       80, each node 504, and its bytes: MEMORY USAGE counts them so, which is generous
//! array        each index 8, and its bytes: a guess, no server was there to measure
//! module       its bytes as stored
//! ```
//!
//! Other versions, allocators and thresholds differ; expect it to be right within a third for most
//! data. A value is not walked for it, only its first bytes are looked at.

use crate::dialect::{Counted, Each, Memory};
use crate::payload::plain;
use crate::payload::walk::length;
use crate::payload::{Encoding, Slice};
use crate::record::{Context, KeyRecord};
use crate::size::MOST_EXPANDED;

const OBJECT: u64 = 16;
/// A dictionary's entry, and its share of the buckets, which are half used to fully used.
const ENTRY: u64 = 24 + 12;
/// Header, terminator and rounding of a text.
const TEXT: u64 = 10;
/// A skip list's node without its member.
const SKIP_NODE: u64 = 45;
const LIST_NODE: u64 = 40;
const POINTER: u64 = 8;
const STREAM: u64 = 80;
/// Two nodes of a radix tree and what MEMORY USAGE adds for each.
const STREAM_NODE: u64 = 504;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    pub memory_bytes: u64,
    /// Fields, members or elements, where the value's beginning says how many.
    pub elements: Option<u64>,
}

/// Estimates a key's memory. Its value is `value_len` bytes long; only the first may be there.
pub fn estimate(key: &KeyRecord, context: &Context, value_len: u64) -> MemoryEstimate {
    let stored = key.value.bytes();
    let value = plain(context.family, stored);
    // Of key metadata nobody knows what their module keeps for them.
    let before = (stored.len() - value.len()) as u64;
    let len = value_len.saturating_sub(before).saturating_sub(1);
    let (value_bytes, elements) = match value.split_first() {
        Some((type_byte, body)) => match Encoding::of(context.family, *type_byte) {
            Some(encoding) => of_value(encoding, body, len),
            None => (len, None),
        },
        None => (0, None),
    };
    let expiry = if key.expire_at_ms.is_some() { ENTRY } else { 0 };
    let name = allocated(key.key.len() as u64 + 4);
    MemoryEstimate {
        memory_bytes: ENTRY + OBJECT + expiry + name + value_bytes,
        elements,
    }
}

fn of_value(encoding: Encoding, body: &[u8], len: u64) -> (u64, Option<u64>) {
    let count = |skip: usize| {
        let rest = body.get(skip..).unwrap_or_default();
        length(&mut Slice::new(rest)).unwrap_or(0).min(len)
    };
    match encoding.memory() {
        Memory::String => (of_string(body, len), None),
        Memory::Table(each, at) => {
            let elements = count(at);
            (elements * of_each(each) + len, Some(elements))
        }
        Memory::List => (LIST_NODE + allocated(len), Some(count(0))),
        Memory::Quicklist => (LIST_NODE + count(0) * LIST_NODE + len, None),
        Memory::Packed(counted) => (allocated(len), packed_elements(counted, body)),
        Memory::Stream => (of_stream(body, len), None),
        Memory::AsStored => (len, None),
    }
}

/// What an element takes beside its bytes.
fn of_each(each: Each) -> u64 {
    match each {
        Each::Field => ENTRY + 2 * TEXT,
        Each::Member => ENTRY + TEXT,
        Each::Scored => ENTRY + SKIP_NODE + TEXT,
        Each::Index => POINTER,
    }
}

/// A string: small ones lie in their object, numbers in its pointer.
fn of_string(body: &[u8], len: u64) -> u64 {
    let len = match body {
        [0xC0..=0xC2, ..] => return 0,
        // Compressed: the length of what is there, then the length it has unpacked.
        [0xC3, rest @ ..] => {
            let mut rest = Slice::new(rest);
            let _ = length(&mut rest);
            // What it claims to unpack to, as far as its bytes can.
            let most = len.saturating_mul(MOST_EXPANDED);
            length(&mut rest).unwrap_or(len).min(most)
        }
        _ => len,
    };
    allocated(len.saturating_add(4))
}

/// A stream: its entries are packed in nodes, and each of them is compressed if that helps. The first
/// node tells how much it did.
fn of_stream(body: &[u8], len: u64) -> u64 {
    let mut rest = Slice::new(body);
    let nodes = length(&mut rest).unwrap_or(0).min(len);
    // The id of a node is a text of 16 bytes.
    let bytes = match rest.rest().get(17..) {
        Some([0xC3, first @ ..]) => {
            let mut first = Slice::new(first);
            let stored = length(&mut first).unwrap_or(1).max(1);
            let unpacked = length(&mut first).unwrap_or(stored);
            (len.saturating_mul(unpacked) / stored).clamp(len, len.saturating_mul(MOST_EXPANDED))
        }
        _ => len,
    };
    STREAM + nodes * STREAM_NODE + bytes
}

/// How many things a packed value says it has, in what its users count: a hash's fields, not its
/// texts.
fn packed_elements(counted: Counted, body: &[u8]) -> Option<u64> {
    let mut source = Slice::new(body);
    let _ = length(&mut source).ok()?;
    let packed = source.rest();
    let u16_at = |at: usize| {
        let bytes = packed.get(at..at + 2)?;
        let count = u16::from_le_bytes([bytes[0], bytes[1]]);
        // More than can be written there.
        (count != u16::MAX).then_some(u64::from(count))
    };
    match counted {
        Counted::Intset => {
            let bytes: [u8; 4] = packed.get(4..8)?.try_into().ok()?;
            Some(u32::from_le_bytes(bytes).into())
        }
        Counted::Ziplist(each) => Some(u16_at(8)? / each),
        Counted::Listpack(each) => Some(u16_at(4)? / each),
        Counted::Unknown => None,
    }
}

/// What jemalloc gives for so many bytes: multiples of 16 up to 128, then four sizes a doubling.
fn allocated(bytes: u64) -> u64 {
    if bytes <= 8 {
        return 8;
    }
    if bytes <= 128 {
        return bytes.next_multiple_of(16);
    }
    let doubling = (bytes - 1).ilog2();
    bytes.next_multiple_of(1 << (doubling - 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_come_in_the_sizes_that_jemalloc_has() {
        for (asked, given) in [
            (1, 8),
            (9, 16),
            (17, 32),
            (128, 128),
            (129, 160),
            (256, 256),
            (257, 320),
            (1_025, 1_280),
            (5_000, 5_120),
        ] {
            assert_eq!(allocated(asked), given, "{asked}");
        }
    }
}
