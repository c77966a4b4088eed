//! Archives made by hand, record by record, for what no export would produce at will.

use std::collections::BTreeMap;

use redis_migrate_format::header::{ConsistencyReached, EndFacts, Header, SourceCounts};
use redis_migrate_format::record::{Context, Family, KeyRecord, Record, Value};
use redis_migrate_format::{Writer, WriterOptions};

use crate::support::dataset::now_ms;

/// Each inner list becomes one frame, so that the same key may come again in the next.
pub fn archive(frames: &[Vec<Record>]) -> Vec<u8> {
    let frames: Vec<_> = frames
        .iter()
        .map(|frame| (context(), frame.clone()))
        .collect();
    archive_of(&frames)
}

/// The same, for records of several servers.
pub fn archive_of(frames: &[(Context, Vec<Record>)]) -> Vec<u8> {
    let header = Header {
        functions: true,
        ..Header::default()
    };
    let mut writer = Writer::new(Vec::new(), &header, WriterOptions::default()).unwrap();
    let mut written: BTreeMap<u32, u64> = BTreeMap::new();
    for (context, frame) in frames {
        writer.set_context(*context).unwrap();
        for record in frame {
            writer.write(record).unwrap();
            if let Record::Key(KeyRecord { db, .. }) | Record::Deleted { db, .. } = record {
                *written.entry(*db).or_default() += 1;
            }
        }
        writer.flush_frame().unwrap();
    }
    let row = |(&db, &written): (&u32, &u64)| SourceCounts {
        db,
        scanned: written,
        written,
        ..SourceCounts::default()
    };
    writer
        .finish(EndFacts {
            reached: ConsistencyReached::Scan {
                from_ms: 1,
                to_ms: 2,
            },
            counts: written.iter().map(row).collect(),
            duplicates_possible: true,
            started_ms: 1,
            finished_ms: 2,
        })
        .unwrap()
        .inner
}

/// RDB version 9: every server of the matrix takes it.
pub fn context() -> Context {
    Context {
        source_time_ms: now_ms(),
        family: Family::Redis,
        rdb_version: 9,
        node: 0,
    }
}

/// A string key in database 0.
pub fn string(key: &str, value: &str) -> Record {
    string_until(key, value, None)
}

/// A string key with expiry.
pub fn string_until(key: &str, value: &str, expire_at_ms: Option<u64>) -> Record {
    assert!(value.len() < 64, "one length byte");
    let body = [&[0, value.len() as u8], value.as_bytes()].concat();
    Record::Key(KeyRecord {
        db: 0,
        key: key.as_bytes().to_vec(),
        value: Value::Compact(body),
        expire_at_ms,
        eviction: None,
    })
}

/// A tombstone in database 0.
pub fn tombstone(key: &str) -> Record {
    Record::Deleted {
        db: 0,
        key: key.as_bytes().to_vec(),
    }
}
