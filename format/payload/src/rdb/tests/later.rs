//! Files of Redis 8.8 and 8.10 and of Valkey 9.2: made by hand from the layout, no server confirmed.

use redis_migrate_format::record::{Family, Value};

use super::build::Rdb;
use super::reading::{keys, read_all};
use crate::payload::{self, Encoding};
use crate::rdb::{Event, Form, RdbReader};

/// The template of the fields a and bb.
const TEMPLATE: &[u8] = b"\xf2\x00\x02\x01a\x02bb";
/// Its values x and y, in a listpack with the number, and behind the number.
const PACKED_REF: &[u8] = b"\x0f\x0f\0\0\0\x03\0\x00\x01\x81x\x02\x81y\x02\xff";
const TABLE_REF: &[u8] = b"\x00\x01x\x01y";
/// The names in a listpack, behind their form.
const NAMES: &[u8] = b"\x00\x0e\x0e\0\0\0\x02\0\x81a\x02\x82bb\x03\xff";
const PLAIN: &[u8] = b"\x04\x02\x01a\x01x\x02bb\x01y";

fn redis() -> Rdb {
    Rdb::new(b"REDIS0015").bytes(b"\xfe\x00")
}

/// Everything that 8.10 is said to write into a file.
pub(super) fn of_redis() -> Vec<u8> {
    redis()
        .bytes(TEMPLATE)
        .bytes(b"\xf2\x07\x01\x00")
        .key(32, "table", TABLE_REF)
        .bytes(b"\xfc\x00\x10\x00\x00\x00\x01\x00\x00")
        .key(30, "packed", PACKED_REF)
        .key(
            28,
            "array",
            b"\x02\x01\x05\x00\x01*\0\0\0\0\0\0\0\x05\x03\x03abc",
        )
        .bytes(b"\xfe\x05")
        .key(31, "own", &[NAMES, b"\x01x\x01y"].concat())
        .key(29, "ownpacked", &[NAMES, PACKED_REF].concat())
        .key(
            32,
            "compressed",
            b"\x07\xc3\x09\x40\x64\x01aa\xe0\x57\x00\x01aa",
        )
        .end()
}

pub(super) fn of_valkey() -> Vec<u8> {
    Rdb::new(b"VALKEY081")
        .bytes(b"\xfe\x00\xfe\x01\xfe\x00")
        .key(23, "paths", b"\x01\x02/p\x01\x01f\x01v")
        .bytes(b"\xfe\x01")
        .key(0, "string", b"\x01v")
        .end()
}

fn fails(file: Rdb) -> String {
    let bytes = file.end();
    for form in [Form::Compact, Form::Verbatim] {
        assert!(read_all(bytes.as_slice(), form).is_err());
    }
    let error = read_all(bytes.as_slice(), Form::Compact).unwrap_err();
    assert!(error.is_damage());
    error.to_string()
}

#[test]
fn hashes_are_given_with_the_names_of_their_fields() {
    let bytes = of_redis();
    for form in [Form::Compact, Form::Verbatim] {
        let (events, _) = read_all(bytes.as_slice(), form).unwrap();
        let found = keys(&events);
        assert_eq!(found.len(), 6);
        for record in found {
            let body = match &record.value {
                Value::Compact(body) => body.as_slice(),
                Value::Verbatim(dump) => {
                    let (body, version) = payload::split(dump).unwrap();
                    assert_eq!(version, 15);
                    body
                }
                Value::Withheld(_) => panic!("nothing is withheld without a limit"),
            };
            assert!(payload::check(Family::Redis, body).is_ok());
            match record.key.as_slice() {
                b"array" => assert_eq!(body[0], Encoding::RedisArray.type_byte()),
                b"compressed" => assert_eq!(body.len(), 1 + 1 + 1 + 2 + 100),
                _ => assert_eq!(body, PLAIN),
            }
            assert_eq!(record.expire_at_ms.is_some(), record.key == b"packed");
            let is_late = ["own", "ownpacked", "compressed"].map(str::as_bytes);
            assert_eq!(record.db == 5, is_late.contains(&record.key.as_slice()));
        }
    }
    let mut reader = RdbReader::new(bytes.as_slice(), Form::Compact).unwrap();
    while reader.next_event().unwrap().is_some() {}
    assert_eq!(reader.facts().templated_hashes, 5);
}

#[test]
fn what_is_not_wanted_or_too_large_is_passed_over() {
    let bytes = of_redis();
    let mut reader = RdbReader::new(bytes.as_slice(), Form::Compact).unwrap();
    let (mut given, mut passed) = (0, 0);
    while let Some(event) = reader.next_wanted(|_, key, _| key == b"own").unwrap() {
        given += usize::from(matches!(event, Event::Key(_)));
        passed += usize::from(matches!(event, Event::Unwanted { .. }));
    }
    assert_eq!((given, passed), (1, 5));
    for most in [10, 19, 104, 105] {
        let reader = RdbReader::new(bytes.as_slice(), Form::Compact).unwrap();
        let mut reader = reader.within(most);
        let mut large = Vec::new();
        while let Some(event) = reader.next_event().unwrap() {
            match event {
                Event::TooLarge { key, .. } => large.push(key.unwrap()),
                Event::Key(record) => assert!(record.value.bytes().len() as u64 <= most),
                _ => {}
            }
        }
        let due = match most {
            10 => 6,
            19 => 2,
            104 => 1,
            _ => 0,
        };
        assert_eq!(large.len(), due, "within {most}");
    }
}

#[test]
fn templates_that_cannot_be_are_refused() {
    let with = |record: &[u8]| redis().bytes(record);
    for (file, said) in [
        (with(b"\xf2\x00\x02\x02bb\x01a"), "out of order"),
        (with(b"\xf2\x00\x02\x01a\x01a"), "out of order"),
        (with(b"\xf2\x00\x00"), "no fields"),
        (with(TEMPLATE).bytes(TEMPLATE), "number 0 appears twice"),
        (
            with(b"\xf2\x80\x00\x20\x00\x00\x01\x01a"),
            "number 2097152 is too high",
        ),
        (
            with(b"").key(32, "k", TABLE_REF),
            "number 0 was not defined before",
        ),
        (
            with(b"").key(30, "k", PACKED_REF),
            "number 0 was not defined before",
        ),
        (
            with(b"\xf2\x00\x01\x01a").key(30, "k", PACKED_REF),
            "2 values for its 1 fields",
        ),
        (
            with(TEMPLATE).key(30, "k", b"\x0a\x0a\0\0\0\x01\0\x81x\x02\xff"),
            "names none",
        ),
        (
            with(b"").key(31, "k", b"\x02\x01\x01a\x01x"),
            "unknown form 2",
        ),
        (with(TEMPLATE).key(30, "k", b"\x03abc"), "listpack"),
    ] {
        let message = fails(file);
        assert!(message.contains(said), "{message}");
        assert!(message.contains("at byte"), "{message}");
    }
    // Whoever claims more than is there costs nothing.
    let lies = with(b"\xf2\x00\x81\x7f\xff\xff\xff\xff\xff\xff\xff\x01a").0;
    assert!(read_all(lies.as_slice(), Form::Compact).is_err());
}

#[test]
fn paths_and_commands_of_valkey() {
    let (events, _) = read_all(of_valkey().as_slice(), Form::Compact).unwrap();
    let found = keys(&events);
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].db, found[0].value.bytes()[0]), (0, 23));
    assert_eq!(found[1].db, 1);

    let update = b"\xf2*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
    let file = Rdb::new(b"VALKEY081")
        .bytes(b"\xfe\x00")
        .key(0, "a", b"\x01v");
    let message = fails(file.bytes(update));
    for said in [
        "opcode F2",
        "forkless-infrastructure-enabled no",
        "at byte 16",
        "\"a\"",
    ] {
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn a_template_that_cannot_fit_is_not_copied() {
    let name = [b'n'; 60];
    let template = [&b"\xf2\x00\x01\x3c"[..], &name].concat();
    let file = redis().bytes(&template).key(32, "k", b"\x00\x01v").end();
    for (most, fits) in [(40, false), (64, false), (65, true)] {
        let reader = RdbReader::new(file.as_slice(), Form::Compact).unwrap();
        // The template is larger than the limit, and is kept all the same.
        let mut reader = reader.within(most);
        let mut found = Vec::new();
        while let Some(event) = reader.next_event().unwrap() {
            found.extend(match event {
                Event::Key(record) => Some(record.value.bytes().len()),
                Event::TooLarge { .. } => Some(0),
                _ => None,
            });
        }
        assert_eq!(found, [if fits { 65 } else { 0 }], "within {most}");
    }
}

#[test]
fn many_small_templates_are_counted_by_their_number() {
    let mut file = redis();
    for number in 0..400_000_u32 {
        file.0.extend_from_slice(b"\xf2\x80");
        file.0.extend_from_slice(&number.to_be_bytes());
        file.0.extend_from_slice(b"\x01\x01f");
    }
    let bytes = file.end();
    let mut reader = RdbReader::new(bytes.as_slice(), Form::Compact)
        .unwrap()
        .within(1 << 20);
    let error = loop {
        match reader.next_event() {
            Ok(event) => assert!(event.is_some(), "all were kept"),
            Err(error) => break error,
        }
    };
    assert!(
        error.to_string().contains("names of fields take more"),
        "{error}"
    );
}

#[test]
fn a_byte_of_a_later_version_means_nothing_in_an_older_file() {
    let own = [NAMES, b"\x01x\x01y"].concat();
    for (magic, file_byte, body) in [
        (b"REDIS0009", 31, own.as_slice()),
        (b"REDIS0014", 31, own.as_slice()),
        (b"REDIS0011", 24, &b"\x01"[..]),
        (b"REDIS0014", 0xf2, &b""[..]),
        (b"REDIS0012", 0xf3, &b""[..]),
        (b"VALKEY080", 23, &b"\x00"[..]),
        (b"VALKEY080", 0xf2, &b""[..]),
    ] {
        let message = fails(Rdb::new(magic).bytes(b"\xfe\x00").key(file_byte, "k", body));
        let said = format!("byte {file_byte} is neither");
        assert!(
            message.contains(&said) && message.contains("at byte 11"),
            "{message}"
        );
    }
    // Those that both families have are read in files that understate their version.
    let file = Rdb::new(b"REDIS0009").key(20, "k", b"\x0b\x0b\0\0\0\x02\0\x01\x01\x02\x01\xff");
    assert!(read_all(file.end().as_slice(), Form::Verbatim).is_ok());
}
