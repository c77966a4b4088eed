//! Walks any bytes as a value: from memory and in an RDB file the same, and nothing is read or
//! written that is not there. The first byte chooses the family.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_migrate_payload::payload::{Slice, Source as _, compact_within, walk};
use redis_migrate_payload::rdb::{Event, Form, Magic, RdbReader, RdbWriter};
use redis_migrate_payload::{Family, Value};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, value)) = input.split_first() else {
        return;
    };
    let family = [Family::Redis, Family::Valkey, Family::Other][usize::from(choice % 3)];
    let limit = 1 << 20;
    let mut out = Vec::new();
    let compacted = compact_within(value, family, limit, &mut out);
    assert!(out.len() as u64 <= limit);
    assert!(compacted.is_ok() || out.is_empty());
    if compacted.is_err() {
        return;
    }

    let mut again = Vec::new();
    assert_eq!(compact_within(&out, family, limit, &mut again), Ok(()));
    assert_eq!(again, out);
    let mut slice = Slice::new(value);
    if walk::walk(&mut slice, family).is_ok() {
        assert_eq!(slice.position(), value.len() as u64);
    }

    let newest = match family {
        Family::Redis => 15,
        Family::Valkey => 81,
        _ => return,
    };
    let mut writer = RdbWriter::new(Vec::new(), Magic::of(newest));
    writer.key(0, b"key", None, None, value).expect("memory");
    let file = writer.finish().expect("memory");
    let reader = RdbReader::new(&file[..], Form::Compact);
    let mut reader = reader.expect("a magic").within(limit);
    while let Some(event) = reader.next_event().expect("a whole file") {
        if let Event::Key(record) = event {
            assert_eq!(record.value, Value::Compact(out.clone()));
        }
    }
});
