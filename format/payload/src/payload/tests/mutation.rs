//! Damage of every kind: nothing panics, nothing is read beyond what is there, and the ways to read
//! a value always agree.

use std::time::{Duration, Instant};

use redis_migrate_format::record::Family;

use super::meaning::difference;
use super::vectors::vectors;
use super::*;

const FORMS: Forms = Forms {
    stream: StreamForm::V5,
    field_ttl: FieldTtlForm::Redis,
    back_lengths: BackLengths::Early,
    packing: Packing::None,
    intsets: false,
};

/// Reads a value in every way there is.
fn agrees(family: Family, value: &[u8]) -> bool {
    let object = decode(family, value);
    let checked = check(family, value);
    assert_eq!(object.as_ref().err(), checked.as_ref().err());
    let mut compacted = Vec::new();
    let walked = compact(value, family, &mut compacted);
    let mut recoded = Vec::new();
    let written = recode(family, value, FORMS, &mut recoded);
    match object {
        Ok(object) => {
            assert_eq!(walked, Ok(()));
            assert_eq!(decode(family, &compacted).as_ref(), Ok(&object));
            let losses = written.expect("what can be read can be written");
            // All forms are those of Redis; what only Valkey has is Valkey's.
            let written_for = match object.kind() {
                Kind::PathHash => Family::Valkey,
                _ => Family::Redis,
            };
            let again = decode(written_for, &recoded).expect("what was written can be read");
            if losses.is_none() {
                assert_eq!(difference(&object, &again), None);
            }
            let longer = [value, &[0]].concat();
            assert!(decode(family, &longer).is_err());
            true
        }
        Err(error) => {
            assert!(error.offset <= value.len() as u64, "{error}");
            assert!(written.is_err() && recoded.is_empty());
            if walked.is_ok() {
                assert!(compacted.len() <= value.len() * 88);
                assert!(decode(family, &compacted).is_err());
            }
            false
        }
    }
}

#[test]
fn cut_anywhere() {
    for vector in vectors() {
        let body = vector.body();
        for len in 0..body.len() {
            assert!(
                !agrees(vector.family, &body[..len]),
                "{vector} cut to {len}"
            );
        }
    }
}

#[test]
fn any_bit_flipped() {
    for vector in vectors() {
        let mut body = vector.body().to_vec();
        assert!(agrees(vector.family, &body), "{vector}");
        for bit in 0..body.len() * 8 {
            body[bit / 8] ^= 1 << (bit % 8);
            agrees(vector.family, &body);
            body[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

/// Marsaglia's xorshift: repeatable, and good enough to break things.
pub(crate) struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

pub(crate) fn mutate(random: &mut Random, value: &mut Vec<u8>, other: &[u8]) {
    const TELLING: [u8; 12] = [
        0, 1, 2, 0x3f, 0x40, 0x7f, 0x80, 0x81, 0xc3, 0xf0, 0xfe, 0xff,
    ];
    for _ in 0..=random.below(3) {
        let at = random.below(value.len());
        match random.below(8) {
            0 if !value.is_empty() => drop(value.remove(at)),
            1 => value.insert(at, random.next() as u8),
            2 => value.truncate(at),
            3 => {
                // A piece of another value.
                let from = random.below(other.len());
                let len = random.below(other.len() - from).min(40);
                value.splice(at..at, other[from..from + len].iter().copied());
            }
            4 if !value.is_empty() => value[at] = value[at].wrapping_add(1),
            5 if !value.is_empty() => value[at] = value[at].wrapping_sub(1),
            6 if !value.is_empty() => value[at] = TELLING[random.below(TELLING.len())],
            _ if !value.is_empty() => value[at] = random.next() as u8,
            _ => {}
        }
    }
}

/// Runs for `FUZZ_SECONDS`, 3 unless it says otherwise, from `FUZZ_SEED`.
#[test]
fn mutation_loop() {
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let seed = number("FUZZ_SEED", 0x9e37_79b9_7f4a_7c15);
    let until = Instant::now() + Duration::from_secs(number("FUZZ_SECONDS", 3));
    let mut random = Random(seed | 1);
    // Compressed strings hide what is in them, so each value is also there without.
    let mut values = Vec::new();
    for vector in vectors() {
        let mut compacted = Vec::new();
        compact(vector.body(), vector.family, &mut compacted).expect("a sound value");
        values.push((vector.family, vector.body().to_vec()));
        values.push((vector.family, compacted));
    }
    for (family, text) in super::later::VALUES {
        values.push((*family, super::handmade::body(text)));
    }
    for family in [Family::Redis, Family::Valkey] {
        for (_, payload) in probe::type_probes(family, 9) {
            values.push((family, split(&payload).expect("a good footer").0.to_vec()));
        }
    }
    let (mut rounds, mut sound) = (0u64, 0u64);
    while Instant::now() < until {
        for _ in 0..100 {
            let (family, value) = &values[random.below(values.len())];
            let other = &values[random.below(values.len())].1;
            let mut value = value.clone();
            mutate(&mut random, &mut value, other);
            sound += u64::from(agrees(*family, &value));
            rounds += 1;
        }
    }
    println!("{rounds} mutations from seed {seed:#x}, {sound} of them sound");
    assert!(sound < rounds);
}
