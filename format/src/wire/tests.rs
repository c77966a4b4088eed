//! The encoding of SPEC.md §6, and the entries that are made by hand in its image.

use super::*;
use crate::entry;
use crate::record::{Eviction, Family, KeyRecord, Record, Value};

/// The encoding of SPEC.md §6, by the struct given there.
#[test]
fn the_test_vector_of_the_specification() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Variant {
        Unit,
        Number(u16),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        a: u32,
        b: Option<u64>,
        s: String,
        v: Vec<(u32, u64)>,
        k: Vec<u8>,
        e: Variant,
        i: i32,
    }
    let sample = Sample {
        a: 70_000,
        b: Some(1_790_000_000_000),
        s: "héllo".into(),
        v: vec![(0, 250), (15, 251)],
        k: vec![0, 0xFF, 0x0A],
        e: Variant::Number(300),
        i: -2,
    };
    let spec = include_str!("../../SPEC.md");
    let hex: String = spec
        .lines()
        .find(|line| line.starts_with("fc7011"))
        .unwrap()
        .split(' ')
        .collect();
    let bytes: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect();
    assert_eq!(encode(&sample), bytes);
    assert_eq!(decode::<Sample>(&bytes), Ok(sample));
    assert_eq!(encode(&Variant::Unit), [0]);
}

#[derive(Serialize)]
struct WireKey {
    db: u32,
    expire_at_ms: Option<u64>,
    idle_s: Option<u64>,
    freq: Option<u8>,
    key: Vec<u8>,
    value: Vec<u8>,
}

#[test]
fn entries_made_by_hand_have_the_bytes_of_bincode() {
    let numbers = [
        0,
        1,
        250,
        251,
        252,
        65_535,
        65_536,
        u64::from(u32::MAX),
        1 << 32,
        u64::MAX,
    ];
    let lengths = [0, 1, 250, 251, 65_535, 65_536];
    let evictions = [
        None,
        Some(Eviction::Freq(0)),
        Some(Eviction::Freq(255)),
        Some(Eviction::IdleSecs(7)),
    ];
    for (n, number) in numbers.into_iter().enumerate() {
        for (m, len) in lengths.into_iter().enumerate() {
            let record = KeyRecord {
                db: number as u32,
                key: vec![7; lengths[(n + m) % lengths.len()]],
                value: Value::Compact(vec![9; len + 1]),
                expire_at_ms: (n % 3 != 0).then_some(number),
                eviction: match m {
                    4 => Some(Eviction::IdleSecs(number)),
                    _ => evictions[m % evictions.len()],
                },
            };
            let body = encode(&WireKey {
                db: record.db,
                expire_at_ms: record.expire_at_ms,
                idle_s: match record.eviction {
                    Some(Eviction::IdleSecs(secs)) => Some(secs),
                    _ => None,
                },
                freq: match record.eviction {
                    Some(Eviction::Freq(freq)) => Some(freq),
                    _ => None,
                },
                key: record.key.clone(),
                value: record.value.bytes().to_vec(),
            });
            check_entry(Record::Key(record), entry::KEY, body);
        }
        let key = vec![1; n];
        let tombstone = Record::Deleted {
            db: number as u32,
            key: key.clone(),
        };
        check_entry(tombstone, entry::TOMBSTONE, encode(&(number as u32, key)));
        check_entry(
            Record::Functions(vec![3; n]),
            entry::FUNCTION_LIBRARY,
            encode(&vec![3_u8; n]),
        );
    }
}

fn check_entry(record: Record, kind: u8, body: Vec<u8>) {
    let mut ours = Vec::new();
    let tail = entry::put_head(&mut ours, &record);
    ours.extend_from_slice(tail);
    let mut theirs = vec![kind];
    theirs.extend(encode(&(body.len() as u64)));
    theirs.extend(body);
    assert_eq!(ours, theirs, "{record:?}");
    assert_eq!(entry::entry_len(&record), ours.len() as u64);
}

#[test]
fn numbers_made_by_hand_have_the_bytes_of_bincode() {
    for shift in 0..64 {
        for number in [1_u64 << shift, (1 << shift) - 1, (1 << shift) + 250] {
            let mut ours = Vec::new();
            entry::put_varint(&mut ours, number);
            assert_eq!(ours, encode(&number));
            assert_eq!(ours.len(), entry::varint_len(number));
        }
    }
}

#[test]
fn a_claimed_count_costs_no_memory_and_is_refused() {
    for claim in [u64::MAX, 1 << 62, 1 << 33] {
        let mut bytes = vec![0xFD];
        bytes.extend(claim.to_le_bytes());
        assert!(each_index_entry(&bytes, 3, |_| {}).is_err());
        assert!(each_index_entry(&bytes, claim, |_| {}).is_err());
        assert!(decode_note(&bytes).is_err());
    }
}

#[test]
fn fields_of_a_later_version_are_ignored() {
    let context = Context {
        source_time_ms: 5,
        family: Family::Valkey,
        rdb_version: 80,
        node: 3,
    };
    let mut bytes = encode_context(&context);
    bytes.extend(b"more");
    assert_eq!(decode_context(&bytes), Ok(context));
}

#[test]
fn lists_are_refused_by_their_count() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Short(#[serde(deserialize_with = "at_most::<3, _, _>")] Vec<u8>);
    assert_eq!(decode::<Short>(&[3, 7, 7, 7]), Ok(Short(vec![7; 3])));
    let refused = |bytes: &[u8]| decode::<Short>(bytes).unwrap_err();
    assert_eq!(
        refused(&[4, 7, 7, 7, 7]),
        "a list of 4 items, allowed are 3"
    );
    // Before it is seen that they are not there.
    assert_eq!(
        refused(&[0xFB, 0xFF, 0xFF]),
        "a list of 65535 items, allowed are 3"
    );
}

#[test]
fn an_end_has_one_form_only() {
    let end = End {
        frames: 2,
        records: 0,
        per_db: vec![],
        functions: 0,
        rdb_versions: (0, 0),
        facts: crate::EndFacts::new(crate::header::ConsistencyReached::Exact(vec![(0, 250)])),
        sha256: [7; 32],
        lacks: Vec::new(),
        outside: Vec::new(),
    };
    let bytes = encode_end(&end);
    assert_eq!(decode_end(&bytes, MINOR), Ok(end.clone()));
    let more = [&bytes[..], b"more"].concat();
    assert!(decode_end(&more, MINOR).is_err());
    // Only a later minor version may have put it there.
    assert_eq!(decode_end(&more, MINOR + 1), Ok(end));
    let place = bytes.iter().position(|byte| *byte == 250).unwrap();
    let mut longer = bytes.clone();
    longer.splice(place..=place, [0xFB, 250, 0]);
    for minor in [MINOR, MINOR + 1] {
        let what = decode_end(&longer, minor).unwrap_err();
        assert!(what.contains("longer than it must be"), "{what}");
    }
}
