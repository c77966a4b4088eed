//! Shared by the tests: a small archive with every kind of frame, reading to a verdict, canonical
//! lines. Each test binary uses a part of it.
#![allow(dead_code)]

pub mod forge;
pub mod mutation;
pub mod vectors;

use std::fmt::Write as _;
use std::io::Read;

use sha2::{Digest, Sha256};

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
    /// A canonical line for each record, as `rmz_read.py` prints it.
    pub lines: Vec<String>,
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

    /// SHA-256 of the canonical lines, each with its line feed.
    pub fn released_sha256(&self) -> String {
        let mut hasher = Sha256::new();
        for line in &self.lines {
            hasher.update(line);
            hasher.update("\n");
        }
        hex(&hasher.finalize())
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub fn canonical_line(context: &Context, record: &Record) -> String {
    let family = match context.family {
        Family::Redis => 0,
        Family::Valkey => 1,
        Family::Other => 2,
    };
    let context = format!(
        "[{},{family},{},{}]",
        context.source_time_ms, context.rdb_version, context.node
    );
    let option = |value: Option<u64>| value.map_or("null".to_owned(), |value| value.to_string());
    match record {
        Record::Key(record) => {
            let (idle, freq) = match record.eviction {
                None => (None, None),
                Some(Eviction::IdleSecs(secs)) => (Some(secs), None),
                Some(Eviction::Freq(freq)) => (None, Some(u64::from(freq))),
            };
            format!(
                "{{\"kind\":{},\"db\":{},\"key\":\"{}\",\"value\":\"{}\",\"expire_at_ms\":{},\"idle_s\":{},\"freq\":{},\"context\":{context}}}",
                if matches!(record.value, Value::Compact(_)) {
                    1
                } else {
                    2
                },
                record.db,
                hex(&record.key),
                hex(record.value.bytes()),
                option(record.expire_at_ms),
                option(idle),
                option(freq),
            )
        }
        Record::Functions(payload) => {
            format!(
                "{{\"kind\":3,\"value\":\"{}\",\"context\":{context}}}",
                hex(payload)
            )
        }
        Record::Deleted { db, key } => {
            format!(
                "{{\"kind\":4,\"db\":{db},\"key\":\"{}\",\"context\":{context}}}",
                hex(key)
            )
        }
        // It stands for bytes that are not there.
        Record::WithheldFunctions(len) => format!("{{\"kind\":3,\"withheld\":{len}}}"),
        other => panic!("no canonical line for {other:?}"),
    }
}

pub fn read_all(reader: impl Read) -> Outcome {
    read_limited(reader, Limits::default())
}

pub fn read_limited(reader: impl Read, limits: Limits) -> Outcome {
    let mut outcome = Outcome {
        records: Vec::new(),
        lines: Vec::new(),
        end: None,
        error: None,
    };
    let mut reader = match Reader::new(reader, limits) {
        Ok(reader) => reader,
        Err(error) => {
            return Outcome {
                error: Some(error),
                ..outcome
            };
        }
    };
    loop {
        match reader.next_frame() {
            Ok(Some(frame)) => {
                for record in frame.records {
                    outcome.lines.push(canonical_line(&frame.context, &record));
                    outcome.records.push(record);
                }
            }
            Ok(None) => {
                outcome.end = reader.end().cloned();
                return outcome;
            }
            Err(error) => {
                outcome.end = reader.end().cloned();
                outcome.error = Some(error);
                return outcome;
            }
        }
    }
}
