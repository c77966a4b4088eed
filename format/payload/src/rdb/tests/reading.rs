use std::io::{self, Read};

use redis_migrate_format::record::{Eviction, Family, KeyRecord, Value};

use super::build::{Rdb, everything};
use crate::payload;
use crate::rdb::{Checksum, Event, Form, RdbError, RdbErrorKind, RdbReader, Tail};

pub(super) fn read_all(bytes: impl Read, form: Form) -> Result<(Vec<Event>, Checksum), RdbError> {
    let mut reader = RdbReader::new(bytes, form)?;
    let mut events = Vec::new();
    while let Some(event) = reader.next_event()? {
        events.push(event);
    }
    reader.expect_end()?;
    Ok((events, reader.checksum().expect("the end was reached")))
}

pub(super) fn keys(events: &[Event]) -> Vec<&KeyRecord> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Key(record) => Some(record),
            _ => None,
        })
        .collect()
}

/// Gives one byte a call.
pub(super) struct Drip<'a>(pub &'a [u8]);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(1);
        self.0.read(&mut buffer[..len])
    }
}

#[test]
fn one_of_everything() {
    let bytes = everything();
    let (events, checksum) = read_all(bytes.as_slice(), Form::Compact).unwrap();
    assert_eq!(checksum, Checksum::Verified);
    assert_eq!(read_all(Drip(&bytes), Form::Compact).unwrap().0, events);

    let others: Vec<_> = events
        .iter()
        .filter(|event| !matches!(event, Event::Key(_) | Event::Aux { .. }))
        .collect();
    assert!(matches!(others[0], Event::Function(bytes) if bytes == b"\xf5\x09#!lua x=1"));
    let Event::ModuleAux(aux) = others[1] else {
        panic!("{:?}", others[1]);
    };
    let behind_the_opcode = b"\x81\x01\x02\x03\x04\x05\x06\x07\x08\x02\x02\x05\x03abc\x00";
    assert_eq!(aux.data, behind_the_opcode);
    assert!(aux.after_keys && aux.module.len() == 9);
    assert_eq!((aux.family, aux.rdb_version), (Family::Redis, 12));
    assert_eq!(*others[2], Event::Database(0));
    assert_eq!(
        *others[3],
        Event::Sizes {
            keys: 3,
            expires: 1
        }
    );
    assert_eq!(*others[4], Event::Database(15));

    let records = keys(&events);
    assert_eq!(records.len(), 12);
    assert_eq!(records[0].expire_at_ms, Some(0x100_0000_1000));
    assert_eq!(records[0].eviction, Some(Eviction::Freq(7)));
    assert_eq!(records[0].value, Value::Compact(b"\x00\x05hello".to_vec()));
    assert_eq!((records[1].expire_at_ms, records[1].eviction), (None, None));
    assert_eq!(records[2].eviction, Some(Eviction::IdleSecs(255)));
    let expanded = [&b"\x00\x40\x64"[..], &[b'a'; 100]].concat();
    assert_eq!(records[2].value, Value::Compact(expanded));
    let module = records
        .iter()
        .find(|record| record.key == b"module")
        .unwrap();
    let Value::Verbatim(dump) = &module.value else {
        panic!("a module's value must travel verbatim");
    };
    assert_eq!(payload::split(dump).unwrap().1, 12);
    assert_eq!(
        (records[11].db, records[11].expire_at_ms),
        (15, Some(1_709_979_136_000))
    );

    // The other form is the DUMP payload; what it holds compacts to the same.
    let (events, _) = read_all(bytes.as_slice(), Form::Verbatim).unwrap();
    for (verbatim, compact) in keys(&events).iter().zip(&records) {
        let (body, version) = payload::split(verbatim.value.bytes()).unwrap();
        assert_eq!(version, 12);
        if let Value::Compact(expected) = &compact.value {
            let mut out = Vec::new();
            payload::compact(body, Family::Redis, &mut out).unwrap();
            assert_eq!(&out, expected);
        }
    }
}

#[test]
fn what_a_file_says_of_itself() {
    let bytes = everything();
    let mut reader = RdbReader::new(bytes.as_slice(), Form::Compact).unwrap();
    while reader.next_event().unwrap().is_some() {}
    let facts = reader.facts();
    assert_eq!(facts.server_version, "8.0.2");
    assert_eq!(facts.created_ms, Some(1_709_979_136_000));
    assert_eq!(facts.used_memory, Some(1000));
    assert_eq!(facts.module_aux.len(), 1);
    assert_eq!(reader.offset(), bytes.len() as u64);
    assert_eq!(reader.next_event().unwrap(), None);

    // Valkey before 9.0 calls its files REDIS.
    let valkey = Rdb::new(b"REDIS0011").aux("valkey-ver", "8.1.1").end();
    let mut reader = RdbReader::new(valkey.as_slice(), Form::Compact).unwrap();
    while reader.next_event().unwrap().is_some() {}
    assert_eq!(reader.facts().family, Family::Valkey);
    assert_eq!(reader.context().rdb_version, 11);
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = everything();
    for len in 0..bytes.len() {
        let error = read_all(&bytes[..len], Form::Compact).unwrap_err();
        assert!(
            matches!(error.kind, RdbErrorKind::Truncated),
            "{len}: {error}"
        );
        assert_eq!(error.offset, len as u64);
        assert!(error.is_damage());
    }
}

#[test]
fn every_flipped_bit_is_an_error() {
    let bytes = everything();
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(
            read_all(bad.as_slice(), Form::Compact).is_err(),
            "bit {bit}"
        );
    }
}

#[test]
fn without_a_checksum_no_flipped_bit_is_a_panic_or_a_flood() {
    let mut bytes = everything();
    let len = bytes.len();
    bytes[len - 8..].fill(0);
    assert_eq!(
        read_all(bytes.as_slice(), Form::Compact).unwrap().1,
        Checksum::Disabled
    );
    for bit in 0..(len - 8) * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        if let Ok((events, _)) = read_all(bad.as_slice(), Form::Compact) {
            let held: usize = keys(&events)
                .iter()
                .map(|key| key.value.bytes().len())
                .sum();
            assert!(held < 100 * len, "bit {bit}: {held} bytes");
        }
    }
}

#[test]
fn the_last_good_key_is_named() {
    let bytes = Rdb::new(b"REDIS0009")
        .bytes(b"\xfe\x03")
        .key(0, "good\n", b"\x01a")
        .key(4, "bad", b"\x01\x01f\x82")
        .end();
    let error = read_all(bytes.as_slice(), Form::Compact).unwrap_err();
    assert_eq!(error.last_key, Some((3, b"good\n".to_vec())));
    assert_eq!(
        error.to_string(),
        "length of unknown form 0x82 at byte 29 of the RDB data; \
         the last good key is \"good\\n\" (db 3)"
    );
}

#[test]
fn files_of_old_servers() {
    // Version 6 (2.6 to 3.0): zipmap, ziplists, intset, scores as text, expiry in seconds; no AUX.
    let v6 = Rdb::new(b"REDIS0006")
        .bytes(b"\xfe\x00")
        .key(9, "zipmap", b"\x0a\x01\x01f\x01\x00v\x00\x00\x00\xff")
        .key(10, "ziplist", b"\x0e\x0e\0\0\0\x0a\0\0\0\x01\0\0\x01a\xff")
        .key(11, "intset", b"\x0a\x02\0\0\0\x01\0\0\0\x07\0")
        .bytes(b"\xfd\xff\xff\xff\x7f")
        .key(12, "zset", b"\x01\xff")
        .key(13, "hash", b"\x01\xff")
        .end();
    let (events, checksum) = read_all(v6.as_slice(), Form::Compact).unwrap();
    let records = keys(&events);
    assert_eq!((records.len(), checksum), (5, Checksum::Verified));
    assert_eq!(records[3].expire_at_ms, Some(i32::MAX as u64 * 1000));

    // Version 3: milliseconds, no checksum.
    let v3 = Rdb::new(b"REDIS0003")
        .bytes(b"\xfe\x00")
        .key(0, "k", b"\x01v\xff")
        .0;
    let (events, checksum) = read_all(v3.as_slice(), Form::Compact).unwrap();
    assert_eq!((keys(&events).len(), checksum), (1, Checksum::None));
    // Before SELECTDB, as in the very first version.
    let v1 = Rdb::new(b"REDIS0001").key(0, "k", b"\x01v\xff").0;
    assert_eq!(
        keys(&read_all(v1.as_slice(), Form::Compact).unwrap().0)[0].db,
        0
    );
}

#[test]
fn expiries_before_their_time() {
    let at = |ms: i64| {
        let bytes = Rdb::new(b"REDIS0009")
            .bytes(&[0xfc])
            .bytes(&ms.to_le_bytes())
            .key(0, "k", b"\x01v")
            .end();
        keys(&read_all(bytes.as_slice(), Form::Compact).unwrap().0)[0].expire_at_ms
    };
    assert_eq!(at(-1), None);
    assert_eq!([at(0), at(-2), at(i64::MIN)], [Some(1); 3]);
    assert_eq!(at(i64::MAX), Some(i64::MAX as u64));
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let refused = |bytes: Vec<u8>| {
        let error = read_all(bytes.as_slice(), Form::Compact).unwrap_err();
        assert!(error.is_damage());
        error.to_string()
    };
    for (magic, text) in [
        (&b"REDIS0016"[..], "RDB version 16 is not supported"),
        (b"VALKEY082", "Valkey RDB version 82 is not supported"),
        (b"*2\r\n$6\r\n", "not an RDB file"),
        (b"\x89RMZ", "not an RDB file"),
        (b"", "cut short"),
    ] {
        let message = refused(magic.to_vec());
        assert!(message.contains(text), "{message}");
    }
    let file = || Rdb::new(b"REDIS0012").bytes(b"\xfe\x00");
    for (bytes, text) in [
        (file().key(99, "k", b"\0"), "byte 99 is neither"),
        (file().bytes(b"\xf3"), "byte 243 is neither"),
        (
            file().bytes(b"\x06\x01k"),
            "a module's value as only a release candidate",
        ),
        (
            file().bytes(b"\xfe\x81\x7f\xff\xff\xff\xff\xff\xff\xff"),
            "database 9223372036854775807",
        ),
        (
            file().bytes(b"\xf7\x01\x03"),
            "module data that begins with 3",
        ),
    ] {
        let message = refused(bytes.end());
        assert!(message.contains(text), "{message}");
    }
    let mut trailing = file().end();
    trailing.push(b'*');
    assert!(refused(trailing).contains("goes on after its end mark"));
}

#[test]
fn slots_on_their_way_are_passed_over_in_valkey_only() {
    let bytes = Rdb::new(b"VALKEY080")
        .bytes(b"\xf3\x280123456789abcdef0123456789abcdef01234567")
        .bytes(b"\x02\x01\x02\x40\x80\x40\x90")
        .key(
            22,
            "ttls",
            b"\x01\x01f\x01v\xff\xff\xff\xff\xff\xff\xff\xff",
        )
        .end();
    let (events, _) = read_all(bytes.as_slice(), Form::Compact).unwrap();
    assert_eq!(keys(&events).len(), 1);
}

#[test]
fn lengths_that_lie_cost_nothing() {
    for lie in [
        &b"\x00\x01k\x81\x7f\xff\xff\xff\xff\xff\xff\xff"[..],
        b"\x01\x01k\x81\x7f\xff\xff\xff\xff\xff\xff\xff\x01a",
        b"\x00\x81\x7f\xff\xff\xff\xff\xff\xff\xffk",
        b"\x00\x01k\xc3\x04\x81\x7f\xff\xff\xff\xff\xff\xff\xffabcd",
        b"\xfa\x81\x7f\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let bytes = Rdb::new(b"REDIS0009").bytes(lie).0;
        for form in [Form::Compact, Form::Verbatim] {
            assert!(read_all(bytes.as_slice(), form).is_err());
        }
    }
}

#[test]
fn what_is_too_large_is_named_and_the_rest_goes_on() {
    let bytes = everything();
    let (all, _) = read_all(bytes.as_slice(), Form::Compact).unwrap();
    let mut reader = RdbReader::new(bytes.as_slice(), Form::Compact)
        .unwrap()
        .within(99);
    let (mut given, mut too_large) = (Vec::new(), Vec::new());
    while let Some(event) = reader.next_event().unwrap() {
        match event {
            Event::Key(record) => given.push(record),
            Event::TooLarge { db, key } => too_large.push((db, key)),
            _ => {}
        }
    }
    // One hundred bytes, compressed.
    assert_eq!(too_large, [(0, Some(b"packed".to_vec()))]);
    let mut expected: Vec<KeyRecord> = keys(&all).into_iter().cloned().collect();
    expected.retain(|record| record.key != b"packed");
    assert_eq!(given, expected);
    assert_eq!(reader.checksum(), Some(Checksum::Verified));

    // A name that is too large, plain and compressed, and a library.
    let long = Rdb::new(b"REDIS0009")
        .bytes(b"\xf5\x40\x64")
        .bytes(&[b'x'; 100])
        .bytes(b"\xfe\x00\x00\x40\x64")
        .bytes(&[b'x'; 100])
        .bytes(b"\x01v\x00\xc3\x09\x40\x64\x01aa\xe0\x57\x00\x01aa\x01v")
        .key(0, "k", b"\x01v")
        .end();
    let mut reader = RdbReader::new(long.as_slice(), Form::Compact)
        .unwrap()
        .within(99);
    let mut events = Vec::new();
    while let Some(event) = reader.next_event().unwrap() {
        events.push(event);
    }
    let unnamed = Event::TooLarge { db: 0, key: None };
    assert_eq!(events[0], Event::FunctionTooLarge);
    assert_eq!(events[2..4], [unnamed.clone(), unnamed]);
    assert!(matches!(&events[4], Event::Key(record) if record.key == b"k"));
}

/// The bytes of a public report: a claim that could be true, for 24 MiB of nothing.
#[test]
fn a_compressed_claim_is_not_allocated() {
    let n: u32 = 24 << 20;
    let mut bytes = b"REDIS0011\xfe\x00\x00\x01k\xc3\x80".to_vec();
    bytes.extend_from_slice(&n.to_be_bytes());
    bytes.push(0x81);
    bytes.extend_from_slice(&(u64::from(n) * 88).to_be_bytes());
    bytes.resize(bytes.len() + n as usize, 0xff);
    bytes.extend_from_slice(b"\xff\0\0\0\0\0\0\0\0");
    let error = read_all(bytes.as_slice(), Form::Compact).unwrap_err();
    assert!(error.is_damage(), "{error}");
    assert!(
        error.to_string().contains("copies from before its start"),
        "{error}"
    );
}

#[test]
fn what_may_follow_the_end_of_a_file() {
    let file = Rdb::new(b"REDIS0011")
        .bytes(b"\xfe\x00\x00\x01k\x01v")
        .end();
    let tail = |more: &[u8]| {
        let bytes = [&file[..], more].concat();
        let mut reader = RdbReader::new(bytes.as_slice(), Form::Compact).unwrap();
        while reader.next_event().unwrap().is_some() {}
        reader.expect_end_of_file()
    };
    let mark = b"0123456789abcdef0123456789abcdef01234567";
    assert_eq!(tail(b"").unwrap(), None);
    assert_eq!(tail(b"\n").unwrap(), Some(Tail::LineEnd));
    assert_eq!(tail(b"\r\n").unwrap(), Some(Tail::LineEnd));
    assert_eq!(tail(mark).unwrap(), Some(Tail::EndMark));
    for bad in [
        &mark[..39],
        &[&mark[..], b"0"].concat(),
        &[&mark[..39], b"g"].concat(),
        &[&mark[..39], b"A"].concat(),
        &[&mark[..], b"\n"].concat(),
        b"\n\n",
        b"*2\r\n",
        b"\0",
    ] {
        let error = tail(bad).unwrap_err();
        assert!(matches!(error.kind, RdbErrorKind::Trailing), "{error}");
        assert_eq!(error.offset, file.len() as u64);
    }
}

/// Opcode 246: with and without a description.
#[test]
fn a_library_of_a_release_candidate_is_read_as_redis_7_does() {
    for described in [&b"\x00"[..], b"\x01\x04text"] {
        let bytes = Rdb::new(b"REDIS0010")
            .bytes(b"\xf6\x05mylib\x03LUA")
            .bytes(described)
            .text("redis.call('PING')")
            .bytes(b"\xfe\x00\x00\x01k\x01v")
            .end();
        let (events, _) = read_all(bytes.as_slice(), Form::Compact).unwrap();
        let expected = b"\xf5\x23#!LUA name=mylib\nredis.call('PING')";
        assert_eq!(events[0], Event::Function(expected.to_vec()));
        assert_eq!(keys(&events).len(), 1);
    }
}

#[test]
fn a_file_without_a_checksum_is_cut_nowhere_unseen() {
    let mut bytes = Rdb::new(b"REDIS0011")
        .aux("redis-ver", "7.2.4")
        .bytes(b"\xfe\x00\x00\x01k\x01v\xff")
        .0;
    bytes.extend_from_slice(&[0; 8]);
    let (_, checksum) = read_all(bytes.as_slice(), Form::Compact).unwrap();
    assert_eq!(checksum, Checksum::Disabled);
    for len in 0..bytes.len() {
        let error = read_all(&bytes[..len], Form::Compact).unwrap_err();
        assert!(
            matches!(error.kind, RdbErrorKind::Truncated),
            "{len}: {error}"
        );
    }
}

#[test]
fn values_that_nobody_wants_are_passed_over() {
    let bytes = everything();
    let mut reader = RdbReader::new(bytes.as_slice(), Form::Compact).unwrap();
    let mut given = Vec::new();
    let mut unwanted = 0;
    while let Some(event) = reader.next_wanted(|_, key, _| key == b"hash").unwrap() {
        match event {
            Event::Key(record) => given.push(record.key),
            Event::Unwanted { .. } => unwanted += 1,
            _ => {}
        }
    }
    assert_eq!((given, unwanted), (vec![b"hash".to_vec()], 11));
    assert_eq!(reader.checksum(), Some(Checksum::Verified));
}

#[test]
fn a_large_value_bypasses_the_buffer() {
    let value: Vec<u8> = (0..5_000_000u32).map(|n| ((n * 31) >> 3) as u8).collect();
    let mut body = vec![0x80];
    body.extend_from_slice(&(value.len() as u32).to_be_bytes());
    body.extend_from_slice(&value);
    let bytes = Rdb::new(b"REDIS0009")
        .key(0, "large", &body)
        .key(0, "next", b"\x01v")
        .end();
    let (events, checksum) = read_all(bytes.as_slice(), Form::Compact).unwrap();
    assert_eq!(checksum, Checksum::Verified);
    assert_eq!(keys(&events)[0].value.bytes()[1..], body);
    for len in [300_000, 1_400_000, 4_999_999] {
        assert!(read_all(&bytes[..len], Form::Compact).is_err());
    }
}

#[test]
fn a_reader_that_fails_is_not_called_damaged() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let bytes = everything();
    let error = read_all(bytes[..100].chain(Broken), Form::Compact).unwrap_err();
    assert!(!error.is_damage());
}

/// Redis 8.6: a key with metadata in front of it, whole or too large, wanted or not, and the next
/// one has none.
#[test]
fn key_metadata_belong_to_the_next_key_only() {
    let beside = b"\xf3\x01\x14\x20\x00\x04\x05\x04text\x00";
    let file = |magic: &[u8]| {
        Rdb::new(magic)
            .bytes(b"\xfe\x00")
            .bytes(b"\xfc\x00\x10\x00\x00\x00\x01\x00\x00")
            .bytes(beside)
            .key(0, "a", b"\x05hello")
            .key(0, "b", b"\x05hello")
            .bytes(beside)
            .key(7, "m", b"\x81\x01\x02\x03\x04\x05\x06\x07\x08\x02\x05\x00")
            .end()
    };
    let bytes = file(b"REDIS0013");
    let read = |max: u64, name: Option<&[u8]>| {
        let mut reader = RdbReader::new(&bytes[..], Form::Compact)
            .unwrap()
            .within(max);
        let mut found = Vec::new();
        let wants = |_, key: &[u8], _| name.is_none_or(|name| name == key);
        while let Some(event) = reader.next_wanted(wants).unwrap() {
            match event {
                Event::Key(key) => found.push((key.key, Some(key.value.bytes().to_vec()))),
                Event::TooLarge { key, .. } => found.push((key.unwrap(), None)),
                _ => {}
            }
        }
        found
    };
    let name = |text: &str| text.as_bytes().to_vec();
    let hello = b"\x00\x05hello".to_vec();
    let with = [&beside[..], &hello].concat();
    let all = read(1 << 20, None);
    assert_eq!(
        all[..2],
        [(name("a"), Some(with)), (name("b"), Some(hello.clone()))]
    );
    let module = all[2].1.as_ref().unwrap();
    let (body, version) = payload::split(module).unwrap();
    assert_eq!(
        (version, payload::kind(Family::Redis, body)),
        (13, payload::Kind::Module)
    );
    assert_eq!(body[..beside.len()], beside[..]);
    assert_eq!(
        read(1 << 20, Some(b"b")),
        [(name("b"), Some(hello.clone()))]
    );
    // They count with the value.
    let some = read(11, None);
    assert_eq!(some[..2], [(name("a"), None), (name("b"), Some(hello))]);
    // What they are not followed by, and where they do not stand.
    let refused = |bytes: Vec<u8>| {
        let error = read_all(bytes.as_slice(), Form::Compact).unwrap_err();
        error.to_string()
    };
    let begun = || Rdb::new(b"REDIS0013").bytes(b"\xfe\x00").bytes(beside);
    for (bytes, text) in [
        (begun().bytes(b"\xfc"), "byte 252 is neither"),
        (begun(), "byte 255 is neither"),
        (begun().bytes(beside), "byte 243 is neither"),
    ] {
        let message = refused(bytes.end());
        assert!(message.contains(text), "{message}");
    }
    let message = refused(file(b"REDIS0012"));
    assert!(message.contains("byte 243 is neither"), "{message}");
}

#[test]
fn the_name_of_a_slot_import_has_one_length() {
    for job in [
        &b"\x03job"[..],
        b"\x27123456789abcdef0123456789abcdef01234567",
        b"\x2900123456789abcdef0123456789abcdef01234567",
        // A name that claims gigabytes is not kept until its end comes.
        b"\x81\0\0\0\x01\0\0\0\0abc",
    ] {
        let file = Rdb::new(b"VALKEY080")
            .bytes(b"\xf3")
            .bytes(job)
            .bytes(b"\0");
        let error = read_all(file.end().as_slice(), Form::Compact).unwrap_err();
        assert!(error.is_damage());
        let is_cut = matches!(error.kind, RdbErrorKind::Truncated);
        assert!(is_cut == (job[0] == 0x81), "{error}");
        if !is_cut {
            assert!(
                error.to_string().contains("is not 40 bytes long"),
                "{error}"
            );
            assert_eq!(error.offset, 10);
        }
    }
}

#[test]
fn compressed_bytes_that_are_more_than_any_for_the_value_are_not_kept() {
    // 41 bytes that claim to be 20.
    let file = Rdb::new(b"REDIS0011")
        .bytes(b"\x00\xc3\x29\x14")
        .bytes(&[0; 41])
        .bytes(b"\x01v");
    let error = read_all(file.end().as_slice(), Form::Compact).unwrap_err();
    assert!(
        error.to_string().contains("claims 20 bytes out of 41"),
        "{error}"
    );
}
