//! Any records: written, read, the same.
#![no_main]

#[path = "../../tests/support/mutation.rs"]
#[allow(dead_code)]
mod mutation;

use redis_migrate_format::header::ConsistencyReached;
use redis_migrate_format::record::Eviction;
use redis_migrate_format::{
    Context, EndFacts, Header, KeyRecord, Record, Value, Writer, WriterOptions,
};

/// Kind, database, key, value, expiry, frequency.
type Input = (u8, u32, Vec<u8>, Vec<u8>, Option<u64>, Option<u8>);

fn record((kind, db, key, mut value, expire_at_ms, freq): Input) -> Record {
    match kind % 4 {
        0 => Record::Deleted { db, key },
        1 => Record::Functions(value),
        form => {
            value.push(0);
            let value = if form == 2 {
                Value::Compact(value)
            } else {
                Value::Verbatim(value)
            };
            let eviction = freq.map(Eviction::Freq);
            Record::Key(KeyRecord {
                db,
                key,
                value,
                expire_at_ms,
                eviction,
            })
        }
    }
}

libfuzzer_sys::fuzz_target!(|input: (u16, u16, i8, Vec<Input>)| {
    let (target, part, level, inputs) = input;
    let options = WriterOptions {
        level: i32::from(level % 4),
        frame_target_bytes: u32::from(target),
        fragment_bytes: u32::from(part),
        ..WriterOptions::default()
    };
    let records: Vec<Record> = inputs.into_iter().map(record).collect();
    let mut writer = Writer::new(Vec::new(), &Header::default(), options).expect("HEADER");
    writer.set_context(Context::default()).expect("context");
    for record in &records {
        writer.write(record).expect("record");
    }
    let reached = ConsistencyReached::Scan {
        from_ms: 0,
        to_ms: 0,
    };
    let finished = writer.finish(EndFacts::new(reached)).expect("END");
    let (released, complete) = mutation::check_any_bytes(&finished.inner);
    assert!(complete);
    assert_eq!(released.len(), records.len());
    // Order is kept across frames only, so the records are compared as a bag.
    let sorted = |records: Vec<Record>| {
        let mut texts: Vec<String> = records.iter().map(|record| format!("{record:?}")).collect();
        texts.sort();
        texts
    };
    assert_eq!(
        sorted(released.into_iter().map(|(_, record)| record).collect()),
        sorted(records)
    );
});
