//! Archives made without a server, and what is in them by key.

use std::collections::BTreeMap;

use redis_migrate_format::header::{ConsistencyReached, EndFacts, Header, Node, SourceFacts};
use redis_migrate_format::record::{Context, Family, KeyRecord, Record, Value};
use redis_migrate_format::{Limits, Reader, Writer, WriterOptions};

use crate::support::random::Random;

pub const CONTEXT: Context = Context {
    source_time_ms: 1_700_000_000_000,
    family: Family::Redis,
    rdb_version: 10,
    node: 0,
};

/// A string key, in the form of an RDB.
pub fn string(db: u32, key: &[u8], text: &[u8]) -> Record {
    let mut value = vec![0x00, 0x80];
    value.extend_from_slice(&u32::try_from(text.len()).expect("short").to_be_bytes());
    value.extend_from_slice(text);
    Record::Key(KeyRecord {
        db,
        key: key.to_vec(),
        value: Value::Compact(value),
        expire_at_ms: None,
        eviction: None,
    })
}

pub fn deleted(db: u32, key: &[u8]) -> Record {
    Record::Deleted {
        db,
        key: key.to_vec(),
    }
}

/// An archive of these records, in small frames.
pub fn archive(records: &[Record], options: WriterOptions) -> Vec<u8> {
    let header = Header {
        source_time_ms: CONTEXT.source_time_ms,
        source: SourceFacts {
            nodes: vec![Node {
                version: "7.0.15".to_owned(),
                rdb_version: 10,
                ..Node::default()
            }],
            label: Some("tools".to_owned()),
            ..SourceFacts::default()
        },
        functions: true,
        ..Header::default()
    };
    let mut writer = Writer::new(Vec::new(), &header, options).expect("begins");
    writer.set_context(CONTEXT).expect("context");
    for record in records {
        writer.write(record).expect("written");
    }
    let facts = EndFacts::new(ConsistencyReached::Exact(vec![(0, CONTEXT.source_time_ms)]));
    writer.finish(facts).expect("finished").inner
}

/// Small frames, and small parts of values.
pub fn options(level: i32) -> WriterOptions {
    WriterOptions {
        level,
        frame_target_bytes: 2_000,
        fragment_bytes: 4_000,
        ..WriterOptions::default()
    }
}

/// Keys of every length, values of several frames among them, superseded keys and tombstones.
pub fn records(count: u64, seed: u64) -> Vec<Record> {
    let mut random = Random::new(seed);
    let mut records = Vec::new();
    for n in 0..count {
        let db = (n % 2) as u32 * 5;
        let key = format!("key:{}", n % (count * 9 / 10)).into_bytes();
        let length = match random.below(40) {
            0 => random.between(9_000, 30_000),
            _ => random.between(1, 300),
        };
        let mut text = format!("{n}:").into_bytes();
        text.extend(random.bytes(length as usize));
        records.push(match random.below(30) {
            0 => deleted(db, &key),
            _ => string(db, &key, &text),
        });
    }
    records
}

/// The frames of an archive: first and last byte (after the last) of a frame or of a whole run, and
/// its records.
pub struct Piece {
    pub from: u64,
    pub to: u64,
    pub records: Vec<Record>,
}

pub fn pieces(archive: &[u8]) -> Vec<Piece> {
    let mut reader = Reader::new(archive, Limits::default()).expect("begins");
    let mut pieces = Vec::new();
    while let Some(frame) = reader.next_frame().expect("intact") {
        pieces.push(Piece {
            from: frame.offset,
            to: reader.offset(),
            records: frame.records,
        });
    }
    pieces
}

/// What the records say in the end, `None` for a key that was deleted.
pub type Contents = BTreeMap<(u32, Vec<u8>), Option<Vec<u8>>>;

pub fn contents<'a>(records: impl IntoIterator<Item = &'a Record>) -> Contents {
    let mut contents = Contents::new();
    for record in records {
        match record {
            Record::Key(key) => {
                let value = key.value.bytes().to_vec();
                contents.insert((key.db, key.key.clone()), Some(value));
            }
            Record::Deleted { db, key } => {
                contents.insert((*db, key.clone()), None);
            }
            _ => {}
        }
    }
    contents
}
