use proptest::prelude::*;
use redis_migrate_format::record::{Eviction, KeyRecord, Value};

use super::build::everything;
use crate::payload;
use crate::rdb::{Event, Form, Magic, RdbReader, RdbWriter};

fn keys(bytes: &[u8]) -> Option<Vec<KeyRecord>> {
    let mut reader = RdbReader::new(bytes, Form::Compact).ok()?.within(1 << 23);
    let mut keys = Vec::new();
    while let Some(event) = reader.next_event().ok()? {
        if let Event::Key(record) = event {
            keys.push(record);
        }
    }
    Some(keys)
}

fn written(magic: Magic, keys: &[KeyRecord]) -> Vec<u8> {
    let mut writer = RdbWriter::new(Vec::new(), magic);
    writer.aux("redis-bits", "64").unwrap();
    for record in keys {
        let value = match &record.value {
            Value::Compact(body) => body.as_slice(),
            Value::Verbatim(dump) => payload::split(dump).unwrap().0,
            Value::Withheld(_) => panic!("nothing is withheld without a limit"),
        };
        writer
            .key(
                record.db,
                &record.key,
                record.expire_at_ms,
                record.eviction,
                value,
            )
            .unwrap();
    }
    let expected = writer.bytes_written() + 1 + if magic.has_checksum() { 8 } else { 0 };
    let bytes = writer.finish().unwrap();
    assert_eq!(bytes.len() as u64, expected);
    bytes
}

#[test]
fn what_was_read_can_be_written() {
    let read = keys(&everything()).unwrap();
    let bytes = written(Magic::of(12), &read);
    assert_eq!(keys(&bytes).unwrap(), read);
    // Before version 9 there is no place for idle times and frequencies.
    let mut plain = read.clone();
    plain.iter_mut().for_each(|record| record.eviction = None);
    // The footer of the one follows the file's version, and the other has no place in older files.
    plain.retain(|record| record.key != b"module" && record.key != b"ttls");
    assert_eq!(keys(&written(Magic::of(8), &plain)).unwrap(), plain);
    let eight = written(Magic::of(8), &read);
    assert!(eight.starts_with(b"REDIS0008"));
    assert_eq!(
        keys(&written(Magic::of(6), &plain)).unwrap().len(),
        plain.len()
    );
    assert!(written(Magic::of(80), &[]).starts_with(b"VALKEY080"));
}

#[test]
fn large_values_and_late_expiries() {
    let mut body = vec![0];
    payload::write::string(&mut body, &vec![b'x'; 3_000_000]);
    let record = |key: &[u8]| KeyRecord {
        db: 70_000,
        key: key.to_vec(),
        value: Value::Compact(body.clone()),
        expire_at_ms: Some(i64::MAX as u64),
        eviction: Some(Eviction::IdleSecs(1 << 40)),
    };
    let records = [record(b""), record(&[b'k'; 20_000]), record(b"3")];
    assert_eq!(keys(&written(Magic::of(11), &records)).unwrap(), records);
    let mut later = record(b"later");
    later.expire_at_ms = Some(u64::MAX);
    let read = keys(&written(Magic::of(11), &[later])).unwrap();
    assert_eq!(read[0].expire_at_ms, Some(i64::MAX as u64));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Damage without a checksum: never a panic, and what can be read can be written.
    #[test]
    fn damaged_files(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = everything();
        let len = bytes.len();
        bytes[len - 8..].fill(0);
        for (at, byte) in changes {
            bytes[9 + at.index(len - 17)] = byte;
        }
        if let Some(read) = keys(&bytes) {
            prop_assert_eq!(keys(&written(Magic::of(12), &read)).unwrap().len(), read.len());
        }
    }
}

#[test]
fn key_metadata_are_written_before_the_type() {
    let value = b"\xf3\x01\x14\x20\x00\x04\x05\x04text\x00\x00\x05hello";
    let record = KeyRecord {
        db: 0,
        key: b"k".to_vec(),
        value: Value::Compact(value.to_vec()),
        expire_at_ms: Some(1 << 41),
        eviction: Some(Eviction::Freq(7)),
    };
    let bytes = written(Magic::of(13), std::slice::from_ref(&record));
    assert_eq!(keys(&bytes).unwrap(), [record]);
    let due = b"\xf9\x07\xf3\x01\x14\x20\x00\x04\x05\x04text\x00\x00\x01k\x05hello\xff";
    assert!(
        bytes.windows(due.len()).any(|part| part == due),
        "{bytes:x?}"
    );
    let mut writer = RdbWriter::new(Vec::new(), Magic::of(13));
    let cut = writer.key(0, b"k", None, None, &value[..8]);
    assert!(cut.is_err(), "nothing of it may be in the file");
}
