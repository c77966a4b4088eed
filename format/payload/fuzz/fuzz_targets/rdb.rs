//! Reads any bytes as an RDB file, in both forms. What is read in one is read in the other, no more
//! is held than the bytes can expand to, and what was read can be written and read again. The first
//! byte chooses the magic, so that the rest is not spent on guessing it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_migrate_payload::payload;
use redis_migrate_payload::rdb::{Event, Form, Magic, RdbReader, RdbWriter};
use redis_migrate_payload::{KeyRecord, Value};

const LIMIT: u64 = 1 << 20;

fn keys(bytes: &[u8], form: Form) -> (Vec<KeyRecord>, bool) {
    let mut keys = Vec::new();
    let Ok(reader) = RdbReader::new(bytes, form) else {
        return (keys, false);
    };
    let mut reader = reader.within(LIMIT);
    loop {
        match reader.next_event() {
            Ok(Some(Event::Key(record))) => {
                assert!(record.value.bytes().len() as u64 <= LIMIT + payload::FOOTER_LEN as u64);
                keys.push(record);
            }
            // What is too large in one form may fit in the other.
            Ok(Some(Event::TooLarge { .. })) => return (keys, false),
            Ok(Some(_)) => {}
            Ok(None) => return (keys, true),
            Err(error) => {
                assert!(error.offset <= bytes.len() as u64);
                return (keys, false);
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, rest)) = input.split_first() else {
        return;
    };
    let versions = [3, 6, 9, 10, 11, 12, 13, 14, 15, 80, 81];
    let version = versions[usize::from(choice) % versions.len()];
    let magic = Magic::of(version);
    let bytes = [&magic.bytes(), rest].concat();

    let (compact, whole) = keys(&bytes, Form::Compact);
    let (verbatim, _) = keys(&bytes, Form::Verbatim);
    for (one, other) in compact.iter().zip(&verbatim) {
        assert_eq!((one.db, &one.key), (other.db, &other.key));
        assert_eq!(one.value.type_byte(), other.value.type_byte());
    }
    if !whole {
        return;
    }
    let mut writer = RdbWriter::new(Vec::new(), magic);
    for record in &compact {
        let value = match &record.value {
            Value::Compact(body) => body.as_slice(),
            Value::Verbatim(dump) => payload::split(dump).expect("signed by the reader").0,
            Value::Withheld(_) => unreachable!("only an archive's reader keeps none"),
        };
        writer
            .key(
                record.db,
                &record.key,
                record.expire_at_ms,
                record.eviction,
                value,
            )
            .expect("memory takes everything");
    }
    let again = writer.finish().expect("memory takes everything");
    let (read, whole) = keys(&again, Form::Compact);
    assert!(whole);
    assert_eq!(read.len(), compact.len());
});
