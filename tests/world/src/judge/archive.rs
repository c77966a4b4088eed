//! What an archive holds, by the format's reader and a model server: nothing of the tool is asked.

use std::collections::BTreeMap;
use std::path::Path;

use redis_migrate_format::header::ConsistencyReached;
use redis_migrate_format::{Limits, Reader, Record, Value};

use crate::net::{Held, Place};
use crate::server::{Config, Release, Server};

/// What an archive holds, and what it says of itself.
#[derive(Debug)]
pub struct Content {
    /// The keys; later records of a key stand for earlier ones.
    pub keys: BTreeMap<Place, Held>,
    /// Records of keys that later ones stand for; a run that ends early may have written them.
    pub former: BTreeMap<Place, Vec<Held>>,
    /// What its end claims.
    pub reached: ConsistencyReached,
}

/// Reads an archive; `release` is the version of its source.
///
/// # Errors
/// What is wrong with it.
pub fn read(path: &Path, release: &'static Release) -> Result<Content, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut reader =
        Reader::new(&bytes[..], Limits::default()).map_err(|error| error.to_string())?;
    let mut server = Server::new(Config::new(release), 1);
    let mut keys = BTreeMap::new();
    let mut former: BTreeMap<Place, Vec<Held>> = BTreeMap::new();
    while let Some(frame) = reader.next_frame().map_err(|error| error.to_string())? {
        for record in &frame.records {
            match record {
                Record::Key(record) => {
                    let payload = match &record.value {
                        Value::Compact(body) => with_footer(body, frame.context.rdb_version),
                        other => other.bytes().to_vec(),
                    };
                    let expiry = record.expire_at_ms.unwrap_or(0).to_string();
                    let words: [&[u8]; 6] = [
                        b"RESTORE",
                        b"k",
                        expiry.as_bytes(),
                        &payload,
                        b"REPLACE",
                        b"ABSTTL",
                    ];
                    let reply = server.execute(0, &words, 1);
                    if let Some(error) = reply.as_error() {
                        return Err(format!("a payload that nobody takes: {error}"));
                    }
                    let entry = server
                        .keyspace()
                        .get(0, b"k")
                        .ok_or("a payload of nothing")?;
                    let place = (record.db, record.key.clone());
                    let known = keys.insert(place.clone(), Held::of(entry, release));
                    former.entry(place).or_default().extend(known);
                }
                Record::Deleted { db, key } => {
                    let place = (*db, key.clone());
                    let known = keys.remove(&place);
                    former.entry(place).or_default().extend(known);
                }
                _ => {}
            }
        }
    }
    let end = reader.end().ok_or("no end")?;
    Ok(Content {
        keys,
        former,
        reached: end.facts.reached.clone(),
    })
}

fn with_footer(body: &[u8], rdb_version: u16) -> Vec<u8> {
    let mut payload = body.to_vec();
    payload.extend_from_slice(&rdb_version.to_le_bytes());
    let crc = crc64(&payload);
    payload.extend_from_slice(&crc.to_le_bytes());
    payload
}

/// CRC-64/Jones, bit by bit.
fn crc64(bytes: &[u8]) -> u64 {
    const TABLE: [u64; 256] = {
        let mut table = [0u64; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = byte as u64;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 {
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
    };
    let step = |crc: u64, byte: &u8| TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8;
    bytes.iter().fold(0, step)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_that_of_the_specification() {
        assert_eq!(super::crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }
}
