//! Walks any bytes as a value: from memory and from a reader the same, and nothing is read or
//! written that is not there. The first byte chooses the family.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_migrate_payload::payload::{Recorder, Source, compact_within, walk};
use redis_migrate_payload::Family;

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

    let mut recorded = Vec::new();
    let mut recorder = Recorder::compact(value, &mut recorded).within(limit);
    let walked = walk::walk(&mut recorder, family);
    let position = recorder.position();
    assert!(position <= value.len() as u64);
    if compacted.is_ok() {
        assert!(walked.is_ok());
        assert_eq!(position, value.len() as u64);
        assert_eq!(recorded, out);
        let mut again = Vec::new();
        assert_eq!(compact_within(&out, family, limit, &mut again), Ok(()));
        assert_eq!(again, out);
    }
});
