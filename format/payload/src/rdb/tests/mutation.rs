//! Damage of every kind, under a checksum that is right or absent: nothing panics, no more is held
//! than the bytes can expand to, both forms agree, and what was read can be written and read again.
//! The same is asked of any bytes by `fuzz/fuzz_targets/rdb.rs`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redis_migrate_format::record::{KeyRecord, Value};

use super::build::everything;
use super::later;
use crate::payload;
use crate::payload::crc64::crc64;
use crate::payload::tests::mutation::{Random, mutate};
use crate::payload::tests::vectors::vectors;
use crate::rdb::{Event, Form, Magic, RdbReader, RdbWriter};

/// Room for a value; compressed strings expand.
const LIMIT: u64 = 1 << 20;

const VERSIONS: [u16; 13] = [3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 80, 81];

/// The keys up to the end or the first fault, and whether it was the end.
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
            Ok(Some(_)) => {}
            Ok(None) => return (keys, true),
            Err(error) => {
                assert!(error.offset <= bytes.len() as u64, "{error}");
                return (keys, false);
            }
        }
    }
}

fn body(value: &Value) -> &[u8] {
    match value {
        Value::Compact(body) => body,
        Value::Verbatim(dump) => payload::split(dump).expect("signed by the reader").0,
        Value::Withheld(_) => panic!("nothing is withheld without a limit"),
    }
}

/// Reads a file in both forms, and writes it anew; whether it was whole.
fn holds(bytes: &[u8]) -> bool {
    let (compact, whole) = keys(bytes, Form::Compact);
    let (verbatim, _) = keys(bytes, Form::Verbatim);
    for (one, other) in compact.iter().zip(&verbatim) {
        assert_eq!((one.db, &one.key), (other.db, &other.key));
        assert_eq!(one.value.type_byte(), other.value.type_byte());
        assert_eq!(one.expire_at_ms, other.expire_at_ms);
        assert_eq!(one.eviction, other.eviction);
    }
    // Nobody who passes keys over may read other keys than who takes them.
    if let Ok(mut reader) = RdbReader::new(bytes, Form::Compact) {
        let mut passed = 0;
        while let Ok(Some(event)) = reader.next_wanted(|_, _, _| false) {
            passed += usize::from(matches!(event, Event::Unwanted { .. }));
        }
        assert!(passed >= compact.len());
    }
    if !whole {
        return false;
    }
    let magic = Magic::parse(bytes.first_chunk().expect("a magic")).expect("it was read");
    let mut writer = RdbWriter::new(Vec::new(), magic);
    for record in &compact {
        let (key, value) = (&record.key, body(&record.value));
        writer
            .key(record.db, key, record.expire_at_ms, record.eviction, value)
            .expect("memory takes everything");
    }
    let again = writer.finish().expect("memory takes everything");
    let (read, whole) = keys(&again, Form::Compact);
    assert!(whole);
    assert_eq!(read.len(), compact.len());
    true
}

/// Files without magic and end, to be broken: one of everything, the sample, and each value of each
/// server by itself and together with the others of its server.
fn seeds() -> Vec<Vec<u8>> {
    const END_BYTES: usize = 9;
    let sample: &[u8] = include_bytes!("../../../../../fixtures/rdb/sample.rdb");
    let mut seeds = Vec::new();
    let (redis, valkey) = (later::of_redis(), later::of_valkey());
    for whole in [everything().as_slice(), sample, &redis, &valkey] {
        seeds.push(whole[9..whole.len() - END_BYTES].to_vec());
    }
    let mut together: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for vector in vectors() {
        let mut key = vec![0xfc, 0, 0x10, 0, 0, 0, 1, 0, 0, vector.type_byte, 1, b'k'];
        key.extend_from_slice(&vector.body()[1..]);
        let all = together.entry(vector.server).or_default();
        all.extend_from_slice(&key);
        seeds.push(key);
    }
    seeds.extend(together.into_values());
    seeds
}

/// Puts a magic before it and an end behind it.
fn file(version: u16, inside: &[u8], checksum: Option<u64>) -> Vec<u8> {
    let magic = Magic::of(version);
    let mut bytes = [&magic.bytes()[..], inside, &[0xff]].concat();
    if magic.has_checksum() {
        let checksum = checksum.unwrap_or_else(|| crc64(&bytes));
        bytes.extend_from_slice(&checksum.to_le_bytes());
    }
    bytes
}

/// Runs for `FUZZ_SECONDS`, 3 unless it says otherwise, from `FUZZ_SEED`.
#[test]
fn mutation_loop() {
    let number = |name: &str, default: u64| {
        let text = std::env::var(name).ok();
        text.and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let seed = number("FUZZ_SEED", 0x9e37_79b9_7f4a_7c15);
    let until = Instant::now() + Duration::from_secs(number("FUZZ_SECONDS", 3));
    let mut random = Random(seed | 1);
    let seeds = seeds();
    let (mut rounds, mut whole) = (0u64, 0u64);
    while Instant::now() < until || rounds < 1000 {
        let mut inside = seeds[random.below(seeds.len())].clone();
        let other = &seeds[random.below(seeds.len())];
        mutate(&mut random, &mut inside, other);
        let version = VERSIONS[random.below(VERSIONS.len())];
        // Right, or not computed by the server.
        let checksum = [None, Some(0)][random.below(2)];
        whole += u64::from(holds(&file(version, &inside, checksum)));
        rounds += 1;
    }
    println!("{rounds} mutations from seed {seed:#x}, {whole} of them whole files");
    assert!(whole > 0 && whole < rounds);
}

/// Whatever is in it: cut anywhere, it is not whole.
#[test]
fn every_truncation_of_every_seed_is_an_error() {
    for inside in seeds().iter().filter(|inside| inside.len() < 2_000) {
        for version in [9, 12, 15, 80, 81] {
            let bytes = file(version, inside, None);
            for len in 0..bytes.len() {
                assert!(!keys(&bytes[..len], Form::Compact).1, "cut to {len}");
            }
        }
    }
}
