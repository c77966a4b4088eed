//! DUMP payloads: an encoder of what a version writes, and a decoder of what a destination is sent.

mod decode;
mod encode;
mod listpack;
mod lzf;
mod packed;
mod stream;

use super::release::Release;
use super::value::Value;

const CHARACTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The nine characters of a module's type.
pub(super) fn module_type_name(id: u64) -> String {
    let character = |at: u64| CHARACTERS[(id >> (10 + 6 * (8 - at)) & 63) as usize] as char;
    (0..9).map(character).collect()
}

/// The id of a module's type with this name and version of its encoding.
pub fn module_id(type_name: &str, version: u64) -> u64 {
    let place = |byte: u8| {
        CHARACTERS
            .iter()
            .position(|&known| known == byte)
            .unwrap_or(0) as u64
    };
    let id = type_name
        .bytes()
        .take(9)
        .fold(0, |id, byte| id << 6 | place(byte));
    id << 10 | version & 1023
}

/// Why a payload is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadError {
    /// Version or checksum.
    Footer,
    /// The server does not know the type, or the value is damaged.
    BadData,
    /// It holds a module's value, and before 6.2 a server without the module exits.
    KillsServer,
}

/// The payload of a value, as DUMP gives it. With `compact`, small values have the packed forms that
/// the version keeps them in; without, the plain ones that all versions read.
pub fn dump(release: &Release, value: &Value, compact: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    encode::value(release, value, compact, &mut out);
    seal(release.rdb, &mut out);
    out
}

/// The value of a payload, as RESTORE reads it. `modules` are the names of the types that are known.
///
/// # Errors
/// Why it is not taken.
pub fn restore(release: &Release, payload: &[u8], modules: &[&str]) -> Result<Value, PayloadError> {
    let body = open(release, payload)?;
    decode::value(release, body, modules)
}

/// Appends a key's value as RDB files have it: type, key, value.
pub(super) fn put_keyed(release: &Release, key: &[u8], value: &Value, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    encode::value(release, value, true, &mut body);
    out.push(body[0]);
    put_string(out, key);
    out.extend_from_slice(&body[1..]);
}

/// The codes of libraries in a payload of functions; `None` if it is none.
pub(super) fn library_codes(body: &[u8], opcode: u8) -> Option<Vec<Vec<u8>>> {
    let mut input = decode::Input(body);
    let mut codes = Vec::new();
    while !input.0.is_empty() {
        if input.byte()? != opcode {
            return None;
        }
        codes.push(input.string()?);
    }
    Some(codes)
}

/// Appends version and checksum.
pub(super) fn seal(version: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&version.to_le_bytes());
    let crc = crc64(out);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// What stands before version and checksum, if the version may be read and the checksum is right.
pub(super) fn open<'a>(release: &Release, payload: &'a [u8]) -> Result<&'a [u8], PayloadError> {
    let at = payload.len().checked_sub(10).ok_or(PayloadError::Footer)?;
    let (body, footer) = payload.split_at(at);
    let version = u16::from_le_bytes([footer[0], footer[1]]);
    let mut crc = [0; 8];
    crc.copy_from_slice(&footer[2..]);
    let is_right = u64::from_le_bytes(crc) == crc64(&payload[..at + 2]);
    match is_right && release.accepts_footer(version) {
        true => Ok(body),
        false => Err(PayloadError::Footer),
    }
}

const TABLE: [u64; 256] = table();

const fn table() -> [u64; 256] {
    let mut table = [0u64; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            // Jones' polynomial 0xad93d23594c935a9, its bits in reverse.
            crc = if crc & 1 != 0 {
                crc >> 1 ^ 0x95ac_9329_ac4b_c9b5
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// CRC-64/Jones, as payloads and files end with.
pub fn crc64(bytes: &[u8]) -> u64 {
    crc64_from(0, bytes)
}

fn crc64_from(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |crc, byte| {
        TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8
    })
}

/// Appends a length.
pub(super) fn put_length(out: &mut Vec<u8>, length: u64) {
    match length {
        0..=63 => out.push(length as u8),
        64..=16383 => out.extend_from_slice(&(0x4000 | length as u16).to_be_bytes()),
        16384..=0xffff_ffff => {
            out.push(0x80);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
        _ => {
            out.push(0x81);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
}

/// Appends a string.
pub(super) fn put_string(out: &mut Vec<u8>, string: &[u8]) {
    put_length(out, string.len() as u64);
    out.extend_from_slice(string);
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::super::release::{RELEASES, Release};
    use super::super::value::*;
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_servers() {
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        let hello = Value::String(b"hello".to_vec());
        let payload = dump(Release::named("redis-6.0").unwrap(), &hello, true);
        let expected = [
            0x00, 0x05, b'h', b'e', b'l', b'l', b'o', 0x09, 0x00, 0xb3, 0x80, 0x8e, 0xba, 0x31,
            0xb2, 0x43, 0xbb,
        ];
        assert_eq!(payload, expected);
    }

    fn text(random: &mut Random) -> Vec<u8> {
        match random.below(6) {
            0 => random.below(100).to_string().into_bytes(),
            1 => format!("-{}", random.next_u64() >> (1 + random.below(60))).into_bytes(),
            2 => vec![b'x'; random.below(80) as usize],
            3 => (random.next_u64() >> random.below(60))
                .to_string()
                .into_bytes(),
            4 => random.next_u64().to_le_bytes().to_vec(),
            _ => format!("field:{}", random.below(1000)).into_bytes(),
        }
    }

    fn stream(random: &mut Random) -> Value {
        let mut stream = Stream::default();
        let mut id = (random.below(5), 1);
        for _ in 0..random.below(230) {
            id = (id.0 + random.below(3), id.1 + 1);
            let fields = match random.chance(70) {
                true => vec![b"a".to_vec(), text(random), b"b".to_vec(), text(random)],
                false => vec![text(random), text(random)],
            };
            stream.entries.insert(id, fields);
        }
        stream.last = id;
        stream.added = stream.entries.len() as u64;
        if random.chance(50) {
            let mut group = Group {
                last: id,
                read: Some(3),
                ..Group::default()
            };
            let consumer = Consumer {
                seen: 17,
                active: Some(17),
            };
            group.consumers.insert(b"c".to_vec(), consumer);
            let pending = Pending {
                consumer: b"c".to_vec(),
                delivered_at: 12,
                count: 2,
            };
            group.pending.insert((1, 1), pending);
            stream.groups.insert(b"g".to_vec(), group);
        }
        Value::Stream(Box::new(stream))
    }

    pub(super) fn any(random: &mut Random) -> Value {
        let count = 1 + match random.below(4) {
            0 => random.below(300),
            _ => random.below(9),
        };
        let integers = random.chance(30);
        let mut rows: Vec<Vec<u8>> = (0..count).map(|_| text(random)).collect();
        if integers {
            rows = (0..count)
                .map(|n| (n * 77).to_string().into_bytes())
                .collect();
        }
        match random.below(7) {
            0 => Value::String(text(random)),
            1 => Value::List(rows.into()),
            2 => Value::Set(rows.into_iter().collect()),
            3 => {
                let score = |n: usize| n as f64 / 7.0 - 3.0;
                Value::ZSet(
                    rows.into_iter()
                        .enumerate()
                        .map(|(n, row)| (row, score(n)))
                        .collect(),
                )
            }
            4 => stream(random),
            5 => Value::Module(Module {
                id: module_id("ReJSON-RL", 3),
                data: vec![5, 2, b'{', b'}'],
            }),
            _ => {
                let field = |value: Vec<u8>| Field {
                    value,
                    expire_at: None,
                };
                Value::Hash(
                    rows.into_iter()
                        .map(|row| (row.clone(), field(row)))
                        .collect(),
                )
            }
        }
    }

    /// Whatever is dumped is restored as the same value by the same version.
    #[test]
    fn payloads_are_read_as_they_were_written() {
        let mut random = Random::new(3);
        for n in 0..3000 {
            let release = &RELEASES[n % RELEASES.len()];
            let mut value = any(&mut random);
            if let (Value::Hash(fields), true) =
                (&mut value, release.has(super::super::Since::FieldTtl))
            {
                for field in fields.values_mut().take(2) {
                    field.expire_at = Some(1_000_000 + random.below(9));
                }
            }
            if let Value::Stream(stream) = &mut value {
                let is_7 = release.has(super::super::Since::R70);
                for group in stream.groups.values_mut() {
                    group.read = group.read.filter(|_| is_7);
                    for consumer in group.consumers.values_mut() {
                        consumer.active = consumer
                            .active
                            .filter(|_| release.has(super::super::Since::R72));
                    }
                }
            }
            let payload = dump(release, &value, random.chance(50));
            let read = restore(release, &payload, &["ReJSON-RL"]);
            assert_eq!(read, Ok(value), "{n} {}", release.name);
        }
    }

    #[test]
    fn damage_is_found() {
        let mut random = Random::new(4);
        let release = Release::named("redis-8.0").unwrap();
        for _ in 0..500 {
            let mut payload = dump(release, &any(&mut random), true);
            let at = random.below(payload.len() as u64) as usize;
            payload[at] ^= 1 << random.below(8);
            assert_eq!(
                restore(release, &payload, &["ReJSON-RL"]),
                Err(PayloadError::Footer)
            );
            // Signed anew it must not make the decoder fall over.
            payload.truncate(payload.len() - 10);
            seal(release.rdb, &mut payload);
            let _ = restore(release, &payload, &["ReJSON-RL"]);
        }
    }
}
