//! Shared by the tests: a small archive with every kind of frame, reading to a verdict, canonical
//! lines. Each test binary uses a part of it.
#![allow(dead_code)]

use std::io::Read;

use redis_migrate_format::header::*;
use redis_migrate_format::record::{Context, Eviction, Family, KeyRecord, Record, Value};
use redis_migrate_format::{
    Class, End, EndFacts, Error, Header, Limits, Reader, Writer, WriterOptions,
};

pub fn key(db: u32, key: &[u8], value: &[u8]) -> Record {
    Record::Key(KeyRecord {
        db,
        key: key.to_vec(),
        value: Value::Compact(value.to_vec()),
        expire_at_ms: None,
        eviction: None,
    })
}

pub fn context() -> Context {
    Context {
        source_time_ms: 1_790_000_000_000,
        family: Family::Redis,
        rdb_version: 10,
        node: 0,
    }
}

pub fn header() -> Header {
    Header {
        tool: Tool {
            name: "redis-migrate".into(),
            version: "0.1.0".into(),
            git: String::new(),
        },
        created_ms: 1_790_000_000_500,
        source_time_ms: 1_790_000_000_000,
        source: SourceFacts {
            family: Family::Redis,
            mode: Mode::Standalone,
            nodes: vec![Node {
                version: "7.0.15".into(),
                run_id: "abc".into(),
                rdb_version: 10,
            }],
            label: Some("test".into()),
        },
        consistency: ConsistencyAsked::Scan,
        expected: vec![Expected {
            db: 0,
            keys: 4,
            expires: 1,
        }],
        functions: true,
        ..Header::default()
    }
}

pub fn facts() -> EndFacts {
    EndFacts {
        reached: ConsistencyReached::Scan {
            from_ms: 1_790_000_000_000,
            to_ms: 1_790_000_001_000,
        },
        counts: vec![],
        duplicates_possible: true,
        started_ms: 1_790_000_000_500,
        finished_ms: 1_790_000_001_500,
    }
}

pub fn options() -> WriterOptions {
    WriterOptions {
        level: 3,
        frame_target_bytes: 120,
        fragment_bytes: 120,
        archive_id: Some(0x0123_4567_89AB_CDEF),
        index: true,
    }
}

/// Records of every kind: small ones, one that compresses, one that needs a FRAGMENT run.
pub fn records() -> Vec<Record> {
    vec![
        Record::Functions(b"\xf5function dump".to_vec()),
        Record::Key(KeyRecord {
            db: 0,
            key: b"user:1".to_vec(),
            value: Value::Compact(b"\x00\x05hello".to_vec()),
            expire_at_ms: Some(1_800_000_000_000),
            eviction: Some(Eviction::IdleSecs(300)),
        }),
        Record::Key(KeyRecord {
            db: 3,
            key: vec![],
            value: Value::Verbatim(b"\x00\x01a\x0a\x0012345678".to_vec()),
            expire_at_ms: Some(0),
            eviction: Some(Eviction::Freq(7)),
        }),
        key(0, b"\xff\x00\r\n", &[0x41; 100]),
        Record::Deleted {
            db: 0,
            key: b"user:1".to_vec(),
        },
        key(0, b"large", &(0..=255).chain(0..=60).collect::<Vec<u8>>()),
        key(0, b"user:1", b"\x00\x05again"),
    ]
}

/// An archive with every kind of frame that a complete one can have.
pub fn small_archive() -> Vec<u8> {
    write_all(&records(), options())
}

pub fn write_all(records: &[Record], options: WriterOptions) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &header(), options).unwrap();
    writer.set_context(context()).unwrap();
    writer.note("ticket 42").unwrap();
    for record in records {
        writer.write(record).unwrap();
    }
    writer.finish(facts()).unwrap().inner
}

/// What reading came to.
pub struct Outcome {
    pub records: Vec<Record>,
    pub end: Option<End>,
    pub error: Option<Error>,
}

impl Outcome {
    pub fn is_complete(&self) -> bool {
        self.error.is_none()
    }

    pub fn verdict(&self) -> &'static str {
        self.error
            .as_ref()
            .map_or("complete", |error| error.class().as_str())
    }

    pub fn class(&self) -> Option<Class> {
        self.error.as_ref().map(Error::class)
    }
}

pub fn read_all(reader: impl Read) -> Outcome {
    read_limited(reader, Limits::default())
}

pub fn read_limited(reader: impl Read, limits: Limits) -> Outcome {
    let mut records = Vec::new();
    let mut reader = match Reader::new(reader, limits) {
        Ok(reader) => reader,
        Err(error) => {
            return Outcome {
                records,
                end: None,
                error: Some(error),
            };
        }
    };
    loop {
        match reader.next_frame() {
            Ok(Some(frame)) => records.extend(frame.records),
            Ok(None) => {
                return Outcome {
                    records,
                    end: reader.end().cloned(),
                    error: None,
                };
            }
            Err(error) => {
                return Outcome {
                    records,
                    end: reader.end().cloned(),
                    error: Some(error),
                };
            }
        }
    }
}
