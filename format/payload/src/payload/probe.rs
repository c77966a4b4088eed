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
    let own = Encoding::ALL
        .iter()
        .filter(|encoding| encoding.family().is_none_or(|theirs| theirs == family))
        .filter(|encoding| encoding.is_probed())
        .map(|encoding| (encoding.type_byte(), encoding.sample()));
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
