//! Archives made without a server.

use redis_migrate_format::header::{
    ConsistencyReached, EndFacts, Header, Node, SourceCounts, SourceFacts, Tool,
};
use redis_migrate_format::record::{Context, Eviction, Family, KeyRecord, Record, Value};
use redis_migrate_format::{Writer, WriterOptions};

/// When the keys of these archives were read.
pub const SOURCE_TIME_MS: u64 = 1_700_000_000_000;

/// A string key; its value is what a server of any version would accept.
pub fn string(db: u32, key: &[u8], text: &[u8], expire_at_ms: Option<u64>) -> Record {
    let mut value = vec![0, u8::try_from(text.len()).expect("short")];
    assert!(text.len() < 64, "the length is one byte");
    value.extend_from_slice(text);
    Record::Key(KeyRecord {
        db,
        key: key.to_vec(),
        value: Value::Compact(value),
        expire_at_ms,
        eviction: None,
    })
}

/// An archive of these records.
pub fn archive(records: &[Record], label: Option<&str>) -> Vec<u8> {
    let reached = ConsistencyReached::Scan {
        from_ms: SOURCE_TIME_MS,
        to_ms: SOURCE_TIME_MS + 1_000,
    };
    archive_lacking(records, label, reached, &[])
}

/// An archive whose export could not read as many keys of each of these databases.
pub fn archive_lacking(
    records: &[Record],
    label: Option<&str>,
    reached: ConsistencyReached,
    lacking: &[(u32, u64)],
) -> Vec<u8> {
    let header = Header {
        tool: Tool {
            name: "redis-migrate".to_owned(),
            version: "0.1.0".to_owned(),
            git: String::new(),
        },
        source_time_ms: SOURCE_TIME_MS,
        source: SourceFacts {
            family: Family::Redis,
            nodes: vec![Node {
                version: "7.0.15".to_owned(),
                run_id: String::new(),
                rdb_version: 10,
            }],
            label: label.map(str::to_owned),
            ..SourceFacts::default()
        },
        functions: true,
        ..Header::default()
    };
    let options = WriterOptions {
        frame_target_bytes: 64 * 1024,
        ..WriterOptions::default()
    };
    let mut writer = Writer::new(Vec::new(), &header, options).expect("begins");
    let context = Context {
        source_time_ms: SOURCE_TIME_MS,
        family: Family::Redis,
        rdb_version: 10,
        node: 0,
    };
    writer.set_context(context).expect("context");
    let mut counts = std::collections::BTreeMap::<u32, u64>::new();
    for record in records {
        match record {
            Record::Key(key) => *counts.entry(key.db).or_default() += 1,
            Record::Deleted { db, .. } => *counts.entry(*db).or_default() += 1,
            _ => {}
        }
        writer.write(record).expect("written");
    }
    let failed: std::collections::BTreeMap<u32, u64> = lacking.iter().copied().collect();
    for db in failed.keys() {
        counts.entry(*db).or_default();
    }
    let counts = counts
        .into_iter()
        .map(|(db, written)| {
            let failed = failed.get(&db).copied().unwrap_or(0);
            SourceCounts {
                db,
                scanned: written + failed,
                written,
                failed,
                ..SourceCounts::default()
            }
        })
        .collect();
    let facts = EndFacts {
        reached,
        counts,
        duplicates_possible: false,
        started_ms: SOURCE_TIME_MS,
        finished_ms: SOURCE_TIME_MS + 1_000,
    };
    writer.finish(facts).expect("finished").inner
}

/// A small archive with keys that are hard to show.
pub fn small() -> Vec<u8> {
    let mut with_idle = string(3, b"idle", b"v", None);
    if let Record::Key(key) = &mut with_idle {
        key.eviction = Some(Eviction::IdleSecs(7));
    }
    let records = [
        string(0, b"plain", b"value", None),
        string(0, b"soon", b"value", Some(SOURCE_TIME_MS + 90_000)),
        string(0, b"esc\x1b[31m\n", b"", None),
        string(0, b"\xff\xfe", b"v", None),
        string(0, b"", b"v", None),
        with_idle,
        Record::Deleted {
            db: 0,
            key: b"gone".to_vec(),
        },
    ];
    archive(&records, Some("evil \x1b[2J label"))
}

/// An archive of so many keys, larger than any pipe's buffer.
pub fn large(keys: u32) -> Vec<u8> {
    let records: Vec<Record> = (0..keys)
        .map(|n| {
            let key = format!("user:{n}:{:08x}", n.wrapping_mul(2_654_435_761));
            string(0, key.as_bytes(), key.as_bytes(), None)
        })
        .collect();
    archive(&records, None)
}
