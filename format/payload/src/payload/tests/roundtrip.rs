//! What is written is what is read, whatever it is.

use proptest::prelude::*;
use redis_migrate_format::record::Family;

use super::generate::object;
use super::meaning::{Lenience, difference, difference_but};
use super::*;

/// Each family with the forms it can read.
const FORMS: [(Family, FieldTtlForm); 3] = [
    (Family::Redis, FieldTtlForm::Redis),
    (Family::Valkey, FieldTtlForm::Valkey),
    (Family::Other, FieldTtlForm::Dropped),
];

/// The forms of streams that it can read.
fn streams(family: Family) -> impl Iterator<Item = StreamForm> {
    let known = move |form: &StreamForm| {
        let encoding = form.encoding();
        Encoding::of(family, encoding.type_byte()) == Some(encoding)
    };
    StreamForm::ALL.into_iter().filter(known)
}

fn packing() -> impl Strategy<Value = Packing> {
    prop_oneof![
        Just(Packing::None),
        Just(Packing::Ziplist),
        Just(Packing::Listpack { sets: false }),
        Just(Packing::Listpack { sets: true }),
    ]
}

fn encoded(object: &Object<'_>, forms: Forms) -> (Vec<u8>, Losses) {
    let mut out = b"kept".to_vec();
    let losses = encode(object, forms, &mut out);
    assert_eq!(&out[..4], b"kept");
    (out.split_off(4), losses)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn decode_reads_what_encode_wrote(object in object(), packing in packing()) {
        for (family, field_ttl) in FORMS {
            for stream in streams(family) {
                let forms = Forms {
                    stream,
                    field_ttl,
                    back_lengths: BackLengths::Early,
                    packing,
                    intsets: packing != Packing::None,
                };
                let (value, losses) = encoded(&object, forms);
                let read = decode(family, &value).expect("a sound value");
                let lenience = Lenience {
                    ignore_field_ttls: losses.field_ttls > 0,
                    ..Lenience::default()
                };
                prop_assert_eq!(difference_but(&object, &read, lenience), None);
                prop_assert_eq!(check(family, &value).map(|_| ()), Ok(()));
                let lossless = match &object {
                    Object::Stream(own) => {
                        let at_risk = own.form > stream;
                        let given_back = own.groups.iter().map(|group| group.given_back.len());
                        let given_back = given_back.sum::<usize>() as u64;
                        let lost = if at_risk { given_back } else { 0 };
                        prop_assert_eq!(losses.given_back, lost);
                        let idempotency = stream < StreamForm::V4 && !own.idempotency.is_default();
                        prop_assert_eq!(losses.idempotency, idempotency);
                        !at_risk
                    }
                    Object::Hash(fields) => {
                        let expiring = fields.iter().filter(|f| f.expire_at_ms.is_some()).count();
                        prop_assert!([0, expiring as u64].contains(&losses.field_ttls));
                        field_ttl != FieldTtlForm::Dropped || expiring == 0
                    }
                    _ => true,
                };
                // A stream without groups loses nothing by its consumers' active times.
                prop_assert!(losses.is_none() || !lossless, "{losses:?}");
                prop_assert_eq!(losses.field_ttls_clamped, 0);
                if let (Object::ZSet(before), Object::ZSet(after)) = (&object, &read) {
                    let bits = |rows: &[Member<'_>]| {
                        let mut bits: Vec<_> = rows
                            .iter()
                            .map(|row| (row.member.to_vec(), row.score.to_bits()))
                            .collect();
                        bits.sort();
                        bits
                    };
                    prop_assert_eq!(bits(before), bits(after));
                    let packed = [12, 17].contains(&value[0]);
                    let in_order = after.windows(2).all(|pair| match packed {
                        true => pair[0].score <= pair[1].score,
                        false => pair[0].score >= pair[1].score,
                    });
                    prop_assert!(in_order);
                } else if lossless && !matches!(object, Object::Stream(_)) && value[0] != 11 {
                    prop_assert_eq!(&object, &read);
                }

                // Without an object in between it is the same.
                let mut again = Vec::new();
                let more = recode(family, &value, forms, &mut again).expect("a sound value");
                prop_assert!(more.is_none());
                prop_assert_eq!(&again, &value);

                let mut compacted = Vec::new();
                compact(&value, family, &mut compacted).expect("a sound value");
                prop_assert_eq!(&compacted, &value);
            }
        }
    }

    #[test]
    fn an_object_differs_from_another(left in object(), right in object()) {
        prop_assert_eq!(difference(&left, &left), None);
        let forward = difference(&left, &right);
        let backward = difference(&right, &left);
        prop_assert_eq!(forward.is_some(), backward.is_some());
        if left.kind() != right.kind() {
            prop_assert!(forward.is_some());
        }
        if let Some(difference) = forward {
            prop_assert!(difference.to_string().chars().all(|c| !c.is_control()));
        }
    }
}

#[test]
fn late_expiries_are_clamped() {
    let field = |name: &'static [u8], expire_at_ms| Field {
        name: name.into(),
        value: b"v"[..].into(),
        expire_at_ms,
    };
    let object = Object::Hash(vec![
        field(b"a", Some(1 << 50)),
        field(b"b", Some(0)),
        field(b"c", None),
        field(b"d", Some(i64::MAX as u64)),
    ]);
    let forms = |field_ttl| Forms {
        stream: StreamForm::V5,
        field_ttl,
        back_lengths: BackLengths::Early,
        packing: Packing::None,
        intsets: false,
    };
    let (value, losses) = encoded(&object, forms(FieldTtlForm::Redis));
    assert_eq!(losses.field_ttls_clamped, 3);
    let Ok(Object::Hash(fields)) = decode(Family::Redis, &value) else {
        panic!("a hash")
    };
    let expiries: Vec<_> = fields.iter().map(|field| field.expire_at_ms).collect();
    assert_eq!(
        expiries,
        [Some((1 << 48) - 1), Some(1), None, Some((1 << 48) - 1)]
    );

    let (value, losses) = encoded(&object, forms(FieldTtlForm::Valkey));
    assert_eq!(losses.field_ttls_clamped, 1);
    let Ok(Object::Hash(fields)) = decode(Family::Valkey, &value) else {
        panic!("a hash")
    };
    let expiries: Vec<_> = fields.iter().map(|field| field.expire_at_ms).collect();
    assert_eq!(expiries, [Some(1 << 50), Some(0), None, Some(1 << 62)]);

    let (value, losses) = encoded(&object, forms(FieldTtlForm::Dropped));
    assert_eq!((value[0], losses.field_ttls), (4, 3));
}
