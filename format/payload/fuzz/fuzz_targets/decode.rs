//! Decodes any bytes as a value. What can be decoded can be written, and read again with the same
//! meaning; every way to read it agrees. The first byte chooses the family and the forms.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_migrate_payload::payload::meaning::{Lenience, difference_but};
use redis_migrate_payload::payload::{
    BackLengths, FieldTtlForm, Forms, Packing, StreamForm, check, decode, encode, recode,
};
use redis_migrate_payload::Family;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, value)) = input.split_first() else {
        return;
    };
    let families = [Family::Redis, Family::Valkey, Family::Other];
    let family = families[usize::from(choice % 3)];
    let (target, field_ttl) = [
        (Family::Redis, FieldTtlForm::Redis),
        (Family::Valkey, FieldTtlForm::Valkey),
        (Family::Other, FieldTtlForm::Dropped),
    ][usize::from(choice / 3 % 3)];
    // Only Redis has the two highest.
    let known = if target == Family::Redis { 5 } else { 3 };
    let stream = StreamForm::ALL[usize::from(choice / 9) % known];
    let forms = Forms {
        stream,
        field_ttl,
        back_lengths: BackLengths::Early,
        packing: Packing::None,
        intsets: false,
    };

    let object = decode(family, value);
    assert_eq!(object.as_ref().err(), check(family, value).as_ref().err());
    let mut out = Vec::new();
    let written = recode(family, value, forms, &mut out);
    match object {
        Err(error) => {
            assert!(error.offset <= value.len() as u64);
            assert_eq!(written.err(), Some(error));
            assert!(out.is_empty());
        }
        Ok(object) => {
            let losses = written.expect("what can be read can be written");
            let mut encoded = Vec::new();
            assert_eq!(encode(&object, forms, &mut encoded), losses);
            let again = decode(target, &out).expect("what was written can be read");
            let lenience = Lenience {
                ignore_field_ttls: losses.field_ttls + losses.field_ttls_clamped > 0,
                ..Lenience::default()
            };
            assert_eq!(difference_but(&object, &again, lenience), None);
        }
    }
});
