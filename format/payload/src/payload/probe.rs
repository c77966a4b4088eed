//! Payloads to try a destination with. `RESTORE key 1 payload ABSTTL` checks a payload completely,
//! says OK and creates nothing, because a key that expired at the first millisecond of 1970 is gone
//! already; nothing is replicated either.
//!
//! Versions are to be tried first, with a plain string, then types, with a version that was
//! accepted. Modules (6, 7) are never tried: there are servers that exit.

use redis_migrate_format::record::Family;

use super::decode::BackLengths;
use super::footer::sign;
use super::write;
use crate::dialect::{Encoding, Opcode};

/// The RDB versions that are worth a try: all that any server wrote so far, and a few to come.
pub fn versions() -> impl Iterator<Item = u16> {
    (1..=16).chain(80..=84)
}

/// A payload that is only refused for its version.
pub fn version_probe(version: u16) -> Vec<u8> {
    sign(b"\x00\x01a", version)
}

/// Two payloads that every server refuses that looks at them: a value of a type that nobody has, with
/// a footer of this version; and a string with a footer of a version that nobody writes.
pub fn nonsense(version: u16) -> [Vec<u8>; 2] {
    const NO_TYPE: u8 = 60;
    [sign(&[NO_TYPE, 1, b'a'], version), version_probe(u16::MAX)]
}

/// For every type that a server of this family may know, the type byte and a payload that is only
/// refused for its type; also for the mark of key metadata. The types that release candidates of Redis 7.4 wrote are left out: they
/// are rewritten anyhow.
pub fn type_probes(family: Family, version: u16) -> Vec<(u8, Vec<u8>)> {
    let own = SAMPLES
        .iter()
        .filter(|(encoding, _)| Encoding::of(family, encoding.type_byte()) == Some(*encoding));
    let own = own.map(|(encoding, body)| (encoding.type_byte(), *body));
    // Metadata of no class, before a string.
    let metadata = (family == Family::Redis).then_some((Opcode::KeyMetadata.byte(), METADATA));
    own.chain(metadata)
        .map(|(first, body)| (first, sign(&[&[first], body].concat(), version)))
        .collect()
}

/// A payload that only servers take that expect lengths backwards in this way and check listpacks
/// completely: a set (20) of one member of 16,378 bytes. Valkey 9 always checks; a server that takes
/// both ways does not say which it expects.
pub fn back_length_probe(back_lengths: BackLengths, version: u16) -> Vec<u8> {
    const MEMBER: usize = 16_378;
    let mut entry = vec![0xf0];
    entry.extend_from_slice(&(MEMBER as u32).to_le_bytes());
    entry.resize(entry.len() + MEMBER, b'a');
    let (back, size) = back_lengths.bytes(entry.len());
    let total = 6 + entry.len() + size + 1;
    let mut listpack = (total as u32).to_le_bytes().to_vec();
    listpack.extend_from_slice(&[1, 0]);
    listpack.extend_from_slice(&entry);
    listpack.extend_from_slice(&back[..size]);
    listpack.push(0xff);
    let mut value = vec![Encoding::SetListpack.type_byte()];
    write::string(&mut value, &listpack);
    sign(&value, version)
}

/// What follows the mark of key metadata: no class, and a string.
const METADATA: &[u8] = b"\0\0\x01a";

/// One value of each type, as small as can be. Strings are "a" and "b", numbers 1, expiries in the
/// year 6429.
const SAMPLES: &[(Encoding, &[u8])] = &[
    (Encoding::String, b"\x01a"),
    (Encoding::List, b"\x01\x01a"),
    (Encoding::Set, b"\x01\x01a"),
    (Encoding::ZSetText, b"\x01\x01a\x011"),
    (Encoding::Hash, b"\x01\x01a\x01b"),
    (Encoding::ZSet, b"\x01\x01a\0\0\0\0\0\0\xf0\x3f"),
    (Encoding::HashZipmap, b"\x07\x01\x01a\x01\0b\xff"),
    (
        Encoding::ListZiplist,
        b"\x0e\x0e\0\0\0\x0a\0\0\0\x01\0\0\x01a\xff",
    ),
    (Encoding::SetIntset, b"\x0a\x02\0\0\0\x01\0\0\0\x01\0"),
    (
        Encoding::ZSetZiplist,
        b"\x10\x10\0\0\0\x0d\0\0\0\x02\0\0\x01a\x03\xf2\xff",
    ),
    (
        Encoding::HashZiplist,
        b"\x11\x11\0\0\0\x0d\0\0\0\x02\0\0\x01a\x03\x01b\xff",
    ),
    (
        Encoding::ListQuicklist,
        b"\x01\x0e\x0e\0\0\0\x0a\0\0\0\x01\0\0\x01a\xff",
    ),
    // Streams without entries and groups: those may be empty.
    (Encoding::Stream1, b"\0\0\0\0\0"),
    (
        Encoding::HashListpack,
        b"\x0d\x0d\0\0\0\x02\0\x81a\x02\x81b\x02\xff",
    ),
    (
        Encoding::ZSetListpack,
        b"\x0c\x0c\0\0\0\x02\0\x81a\x02\x01\x01\xff",
    ),
    (
        Encoding::ListQuicklist2,
        b"\x01\x02\x0a\x0a\0\0\0\x01\0\x81a\x02\xff",
    ),
    (Encoding::Stream2, b"\0\0\0\0\0\0\0\0\0\0"),
    (Encoding::SetListpack, b"\x0a\x0a\0\0\0\x01\0\x81a\x02\xff"),
    (Encoding::Stream3, b"\0\0\0\0\0\0\0\0\0\0"),
    (
        Encoding::RedisHashTtl,
        b"\0\0\0\0\0\x80\0\0\x01\x01\x01a\x01b",
    ),
    (
        Encoding::RedisHashListpackTtl,
        b"\0\0\0\0\0\x80\0\0\x17\x17\0\0\0\x03\0\x81a\x02\x81b\x02\xf4\0\0\0\0\0\x80\0\0\x09\xff",
    ),
    (Encoding::ValkeyHashTtl, b"\x01\x01a\x01b\0\0\0\0\0\x80\0\0"),
    // Nothing that is remembered, by the default settings: 100 seconds, 100 ids.
    (
        Encoding::Stream4,
        b"\0\0\0\0\0\0\0\0\0\0\x40\x64\x40\x64\0\0\0",
    ),
    (
        Encoding::Stream5,
        b"\0\0\0\0\0\0\0\0\0\0\x40\x64\x40\x64\0\0\0",
    ),
    (Encoding::RedisArray, b"\x01\0\0\0\x01a"),
    (
        Encoding::RedisTemplateListpack,
        b"\x01\x01\x01a\x0c\x0c\0\0\0\x02\0\0\x01\x81b\x02\xff",
    ),
    (Encoding::RedisTemplateTable, b"\x01\x01\x01a\x01b"),
    (Encoding::ValkeyPathHash, b"\x01\x01p\x01\x01a\x01b"),
];
