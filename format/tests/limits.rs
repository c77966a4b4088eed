//! The limits of the format and of the reader's caller, and what a writer refuses to write.
//! Memory under hostile input is measured in `memory.rs`.

mod support;

use redis_migrate_format::header::SourceCounts;
use redis_migrate_format::limits::{MAX_DATABASES, MAX_ENTRIES, MAX_KEY_LEN};
use redis_migrate_format::record::{Context, KeyRecord, Record, Value};
use redis_migrate_format::{Class, EndFacts, Error, Header, Limits, Reader, Writer, WriterOptions};
use support::forge::{Forged, mark_digest, run_of_zeros};
use support::vectors::two_keys;
use support::*;

fn refused_by(limits: Limits, bytes: &[u8]) -> String {
    let outcome = read_limited(bytes, limits);
    assert_eq!(
        outcome.class(),
        Some(Class::LimitExceeded),
        "{:?}",
        outcome.error
    );
    outcome.error.unwrap().to_string()
}

#[test]
fn a_value_beyond_the_limit_is_refused_in_a_frame_and_in_a_run() {
    let bytes = small_archive();
    let largest = 317;
    let limits = |max_value_bytes| Limits {
        max_value_bytes,
        ..Limits::default()
    };
    assert!(read_limited(&bytes[..], limits(largest)).is_complete());
    refused_by(limits(largest - 1), &bytes);
    refused_by(limits(50), &bytes);
    // A claim beyond the limit is refused before the value is buffered: here at its first part.
    let large = write_all(
        &[key(0, b"large", &vec![1; 5 << 20])],
        WriterOptions {
            level: 0,
            ..options()
        },
    );
    let first_parts = &large[..2_000];
    let says = refused_by(limits(1 << 20), first_parts);
    assert!(says.contains("524"), "{says}");
}

/// Values of more than a mebibyte are stored in several frames.
fn in_parts() -> WriterOptions {
    WriterOptions {
        fragment_bytes: 1 << 20,
        ..WriterOptions::default()
    }
}

/// What is left of each value: all of it, or its length and first bytes.
fn kept(bytes: &[u8], kept_value_bytes: u64) -> Vec<Record> {
    let limits = Limits {
        kept_value_bytes,
        ..Limits::default()
    };
    let outcome = read_limited(bytes, limits);
    assert!(outcome.is_complete(), "{:?}", outcome.error);
    outcome.records
}

#[test]
fn a_value_that_is_not_to_be_kept_comes_with_its_key_type_and_length() {
    let name = vec![b'n'; 100_000];
    let value = [&[4][..], &vec![7; 3 << 20]].concat();
    let len = value.len() as u64;
    let records = [
        key(0, b"a", b"\x00\x01x"),
        key(3, &name, &value),
        key(0, b"z", b"\x00\x01y"),
    ];
    let bytes = write_all(&records, in_parts());
    // The run is longer than the limit, the value is not.
    assert!(kept(&bytes, len) == records);
    let found = kept(&bytes, len - 1);
    assert_eq!((&found[0], &found[2]), (&records[0], &records[2]));
    let Record::Key(large) = &found[1] else {
        panic!("{:?}", found[1]);
    };
    assert_eq!(large.db, 3);
    assert!(large.key == name);
    assert_eq!(
        (large.value.stored_len(), large.value.type_byte()),
        (len, Some(4))
    );
    assert!(large.value.bytes().is_empty());
    assert_eq!(large.value.head(), &value[..10]);
    let Value::Withheld(_) = &large.value else {
        panic!("{:?}", large.value);
    };
    // Nothing can be made of it.
    let mut writer = Writer::new(Vec::new(), &header(), options()).unwrap();
    writer.set_context(Context::default()).unwrap();
    let refused = writer.write(&found[1]).unwrap_err();
    assert!(refused.to_string().contains("not kept"), "{refused}");
}

/// Behind key metadata the type is to be seen, too.
#[test]
fn more_is_kept_of_the_beginning_where_key_metadata_stand_there() {
    let value = [&[0xf3][..], &vec![7; 3 << 20]].concat();
    let bytes = write_all(&[key(0, b"large", &value)], in_parts());
    let found = kept(&bytes, 1_000);
    let [Record::Key(large)] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(large.value.head(), &value[..4096]);
    assert!(large.value.bytes().is_empty());
}

#[test]
fn what_is_not_kept_is_checked_all_the_same() {
    let records = [key(0, b"large", &vec![1; 5 << 20])];
    let stored = WriterOptions {
        level: 0,
        ..in_parts()
    };
    let mut bytes = write_all(&records, stored);
    bytes[3 << 20] ^= 1;
    let limits = Limits {
        kept_value_bytes: 1_000,
        ..Limits::default()
    };
    let outcome = read_limited(&bytes[..], limits);
    assert_eq!(outcome.class(), Some(Class::Damaged));
    assert!(outcome.records.is_empty());
}

#[test]
fn function_libraries_are_kept_or_withheld() {
    let small = Record::Functions(vec![1; 3 << 20]);
    let bytes = write_all(std::slice::from_ref(&small), in_parts());
    assert!(kept(&bytes, 1_000) == [small]);
    let len = 17 << 20;
    let records = [
        key(0, b"a", b"\x00\x01x"),
        Record::Functions(vec![1; len]),
        key(0, b"z", b"\x00\x01y"),
    ];
    let bytes = write_all(&records, in_parts());
    let found = kept(&bytes, 1_000);
    assert_eq!((&found[0], &found[2]), (&records[0], &records[2]));
    assert_eq!(found[1], Record::WithheldFunctions(len as u64));
    assert!(kept(&bytes, len as u64) == records);
    // Nothing can be made of it.
    let mut writer = Writer::new(Vec::new(), &header(), options()).unwrap();
    writer.set_context(Context::default()).unwrap();
    let refused = writer.write(&found[1]).unwrap_err();
    assert!(refused.to_string().contains("not kept"), "{refused}");
}

/// An archive whose only key has a name of so many bytes, and its records.
fn long_key(len: usize, is_gone: bool) -> (Vec<u8>, Record) {
    let name = vec![b'n'; len];
    let record = match is_gone {
        true => Record::Deleted { db: 3, key: name },
        false => key(3, &name, b"\x00\x01x"),
    };
    (write_all(std::slice::from_ref(&record), in_parts()), record)
}

#[test]
fn a_key_has_one_limit_for_writers_and_for_readers_of_every_kind() {
    for is_gone in [false, true] {
        let (bytes, record) = long_key(MAX_KEY_LEN, is_gone);
        let read = |bytes: &[u8], heads: bool, kept_value_bytes: u64| {
            let limits = Limits {
                kept_value_bytes,
                ..Limits::default()
            };
            let mut reader = Reader::new(bytes, limits).unwrap();
            if heads {
                reader = reader.heads_only();
            }
            reader.next_frame().map(|frame| frame.unwrap().records)
        };
        let kinds = [(false, u64::MAX), (false, 1_000), (true, u64::MAX)];
        for (heads, kept) in kinds {
            assert!(read(&bytes, heads, kept).unwrap() == [record.clone()]);
        }
        let bytes = too_long_key(is_gone);
        let mut said = Vec::new();
        for (heads, kept) in kinds {
            let error = read(&bytes, heads, kept).unwrap_err();
            assert_eq!(error.class(), Class::Damaged, "{error}");
            said.push(error.to_string());
        }
        assert!(said[0].contains("a key of 16777217 bytes"), "{said:?}");
        assert!(said.iter().all(|one| *one == said[0]), "{said:?}");
    }
    let mut writer = Writer::new(Vec::new(), &header(), options()).unwrap();
    writer.set_context(context()).unwrap();
    let refused = writer.write(&key(0, &vec![0; MAX_KEY_LEN + 1], b"\x00\x00"));
    assert!(matches!(refused, Err(Error::Unwritable(_))), "{refused:?}");
}

/// A run whose key is a byte longer than is allowed.
fn too_long_key(is_gone: bool) -> Vec<u8> {
    let number = |n: usize| [&[0xFC][..], &(n as u32).to_le_bytes()].concat();
    let len = MAX_KEY_LEN + 1;
    // Database 0; of KEY also no expiry, no idle time, no frequency, and a value of one byte.
    let (kind, before, after) = match is_gone {
        true => (4, &[0][..], &[][..]),
        false => (1, &[0, 0, 0, 0][..], &[1, 0][..]),
    };
    let entry = before.len() + 5 + len + after.len();
    let context = [5, 4, 0, 0, 10, 0];
    let begin = [&context[..], &[kind], &number(entry), before, &number(len)].concat();
    let end = [&[0], after].concat();
    run_of_zeros(&two_keys(), &begin, MAX_KEY_LEN >> 20, &end)
}

#[test]
fn records_and_expanded_bytes_can_be_limited() {
    let bytes = small_archive();
    let count = records().len() as u64;
    assert!(
        read_limited(
            &bytes[..],
            Limits {
                max_records: count,
                ..Limits::default()
            }
        )
        .is_complete()
    );
    refused_by(
        Limits {
            max_records: count - 1,
            ..Limits::default()
        },
        &bytes,
    );
    let bomb = write_all(
        &[key(0, b"zeros", &vec![0; 10 << 20])],
        WriterOptions::default(),
    );
    assert!(bomb.len() < 20_000);
    refused_by(
        Limits {
            max_raw_bytes: 5 << 20,
            ..Limits::default()
        },
        &bomb,
    );
    assert!(read_all(&bomb[..]).is_complete());
}

#[test]
fn a_frame_with_too_many_entries_is_damaged_and_the_writer_makes_none() {
    let with_entries = |count: usize| {
        let mut forged = Forged::parse(&two_keys());
        mark_digest(&mut forged);
        forged.set_body(2, |body| {
            for _ in 2..count {
                body.extend([0x03, 1, 0]); // An empty function payload.
            }
        });
        read_all(&forged.build()[..])
    };
    // One entry too many is refused at the frame; at the limit only END's totals are wrong.
    assert_eq!(with_entries(MAX_ENTRIES + 1).records.len(), 0);
    assert!(with_entries(MAX_ENTRIES).records.len() > MAX_ENTRIES - 2);

    let options = WriterOptions {
        frame_target_bytes: 16 << 20,
        fragment_bytes: 16 << 20,
        ..WriterOptions::default()
    };
    let many: Vec<Record> = (0..MAX_ENTRIES as u32 + 10)
        .map(|n| Record::Deleted {
            db: 0,
            key: n.to_le_bytes().to_vec(),
        })
        .collect();
    let outcome = read_all(&write_all(&many, options)[..]);
    assert!(outcome.is_complete(), "{:?}", outcome.error);
    assert_eq!(outcome.records.len(), many.len());
}

#[test]
fn there_are_not_more_databases_than_the_format_allows() {
    let mut writer = Writer::new(Vec::new(), &header(), WriterOptions::default()).unwrap();
    writer.set_context(context()).unwrap();
    for db in 0..MAX_DATABASES as u32 {
        writer.write(&Record::Deleted { db, key: vec![] }).unwrap();
    }
    let one_more = Record::Deleted {
        db: u32::MAX,
        key: vec![],
    };
    assert!(matches!(writer.write(&one_more), Err(Error::Unwritable(_))));
}

#[test]
fn what_no_archive_can_hold_is_refused() {
    let mut writer = Writer::new(Vec::new(), &header(), options()).unwrap();
    let unwritable = |result: Result<(), Error>| {
        assert!(matches!(result, Err(Error::Unwritable(_))), "{result:?}")
    };
    unwritable(writer.write(&key(0, b"a", b"\x00\x00")));
    writer.set_context(context()).unwrap();
    unwritable(writer.write(&key(0, b"a", b"")));
    unwritable(writer.note(&"x".repeat(65_536)));
    // None of these has touched the archive.
    writer.note(&"x".repeat(65_000)).unwrap();
    writer.write(&key(0, b"a", b"\x00\x00")).unwrap();
    assert!(read_all(&writer.finish(facts()).unwrap().inner[..]).is_complete());

    let huge = Header {
        extra: vec![("x".into(), "y".repeat(1 << 20))],
        ..header()
    };
    unwritable(Writer::new(Vec::new(), &huge, options()).map(|_| ()));
    let level = WriterOptions {
        level: 99,
        ..options()
    };
    unwritable(Writer::new(Vec::new(), &header(), level).map(|_| ()));
}

#[test]
fn an_exporter_that_counted_other_records_cannot_finish() {
    for (db, written, fits) in [
        (0, 5, true),
        (0, 4, false),
        (3, 1, true),
        (3, 2, false),
        (7, 0, true),
        (7, 1, false),
    ] {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, &header(), options()).unwrap();
        writer.set_context(context()).unwrap();
        for record in records() {
            writer.write(&record).unwrap();
        }
        let counts = vec![SourceCounts {
            db,
            scanned: written,
            written,
            ..SourceCounts::default()
        }];
        let result = writer.finish(EndFacts { counts, ..facts() });
        assert_eq!(result.is_ok(), fits, "database {db}, {written} written");
        drop(result);
        assert_eq!(read_all(&bytes[..]).is_complete(), fits);
    }
}

#[test]
fn frames_and_values_keep_their_lengths() {
    let value = Value::Compact(vec![0; 1000]);
    let record = Record::Key(KeyRecord {
        db: 0,
        key: b"k".to_vec(),
        value,
        expire_at_ms: None,
        eviction: None,
    });
    let bytes = write_all(std::slice::from_ref(&record), options());
    let mut reader = redis_migrate_format::Reader::new(&bytes[..], Limits::default()).unwrap();
    let frame = reader.next_frame().unwrap().unwrap();
    assert_eq!(frame.records, [record]);
    assert!(frame.raw_len > 1000 && frame.raw_len < 1050);
    assert!(frame.stored_len < 1200);
    assert_eq!(frame.seq, 2);
}

#[test]
fn counts_that_are_not_in_order_of_databases_cannot_finish() {
    for dbs in [[3, 0], [0, 0]] {
        let mut writer = Writer::new(Vec::new(), &header(), options()).unwrap();
        writer.set_context(context()).unwrap();
        let counts = dbs
            .map(|db| SourceCounts {
                db,
                ..SourceCounts::default()
            })
            .to_vec();
        assert!(matches!(
            writer.finish(EndFacts { counts, ..facts() }),
            Err(Error::Unwritable(_))
        ));
    }
}
