//! Decoding the payloads of real servers.

use std::collections::BTreeMap;

use redis_migrate_format::record::Family;

use super::meaning::{Lenience, difference_but, same, same_but};
use super::vectors::{Vector, vectors};
use super::*;

fn decoded(vector: &Vector) -> Object<'_> {
    decode(vector.family, vector.body()).unwrap_or_else(|error| panic!("{vector}: {error}"))
}

#[test]
fn every_vector_in_every_form() {
    for vector in vectors() {
        let body = vector.body();
        let object = decoded(&vector);
        let checked = check(vector.family, body).expect("a sound value");
        assert!(
            checked.count > 0 || object.kind() == Kind::Stream,
            "{vector}"
        );

        let mut compacted = Vec::new();
        compact(body, vector.family, &mut compacted).expect("a sound value");
        assert_eq!(
            decode(vector.family, &compacted).as_ref(),
            Ok(&object),
            "{vector}"
        );
        assert_eq!(
            same(vector.family, body, vector.family, &compacted),
            Ok(None),
            "{vector}"
        );

        for (family, field_ttl) in [
            (Family::Redis, FieldTtlForm::Redis),
            (Family::Valkey, FieldTtlForm::Valkey),
            (Family::Other, FieldTtlForm::Dropped),
        ] {
            let known = |form: &StreamForm| {
                let encoding = form.encoding();
                Encoding::of(family, encoding.type_byte()) == Some(encoding)
            };
            for stream in StreamForm::ALL.into_iter().filter(known) {
                let forms = Forms {
                    stream,
                    field_ttl,
                    back_lengths: BackLengths::Early,
                    packing: Packing::None,
                    intsets: false,
                };
                let mut recoded = Vec::new();
                let losses =
                    recode(vector.family, body, forms, &mut recoded).expect("a sound value");
                let mut encoded = Vec::new();
                assert_eq!(encode(&object, forms, &mut encoded), losses, "{vector}");
                assert_eq!(recoded, encoded, "{vector}");
                let lenience = Lenience {
                    ignore_field_ttls: losses.field_ttls > 0,
                    ..Lenience::default()
                };
                let difference = same_but(vector.family, body, family, &recoded, lenience);
                assert_eq!(difference, Ok(None), "{vector}");
                assert!([0, 1, 2, 4, 5, 15, 19, 21, 22, 24, 26].contains(&recoded[0]));
                let unexpired = checked.expiring_fields == 0;
                assert_eq!(losses.field_ttls == 0, unexpired || family != Family::Other);
            }
        }
    }
}

/// The keys were filled alike on every server. Only what the clock has a hand in differs.
#[test]
fn the_servers_agree() {
    let vectors = vectors();
    let mut by_key: BTreeMap<&str, Vec<&Vector>> = BTreeMap::new();
    // Servers before 7.0 have no plain list nodes and were given a shorter list, 6.0 cannot make a
    // consumer that has nothing.
    let comparable = |vector: &&Vector| match vector.key.as_str() {
        "list:plain" => !vector.server.starts_with("redis-6"),
        "stream:grp" => vector.server != "redis-6.0",
        _ => true,
    };
    for vector in vectors.iter().filter(comparable) {
        by_key.entry(&vector.key).or_default().push(vector);
    }
    let lenience = Lenience {
        ignore_delivery_times: true,
        ignore_field_ttls: true,
        ..Lenience::default()
    };
    let mut compared = 0;
    for vectors in by_key.values() {
        let (first, rest) = vectors.split_first().expect("a vector");
        for other in rest {
            let difference = difference_but(&decoded(first), &decoded(other), lenience);
            assert_eq!(difference, None, "{first} and {other}");
            compared += 1;
        }
    }
    assert!(compared > 150, "{compared}");
}

/// The value of a key, in words.
fn words(server: &str, key: &str) -> String {
    let vectors = vectors();
    let vector = vectors
        .iter()
        .find(|vector| vector.server == server && vector.key == key)
        .unwrap_or_else(|| panic!("{key} of {server}"));
    let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
    match decoded(vector) {
        Object::String(string) => show(&string),
        Object::List(rows) | Object::Set(rows) => rows
            .iter()
            .map(|row| show(row))
            .collect::<Vec<_>>()
            .join(" "),
        Object::ZSet(mut rows) => {
            rows.sort_by(|a, b| a.score.total_cmp(&b.score).then(a.member.cmp(&b.member)));
            let rows = rows
                .iter()
                .map(|row| format!("{}:{:?}", show(&row.member), row.score));
            rows.collect::<Vec<_>>().join(" ")
        }
        Object::Hash(rows) => {
            let rows = rows.iter().map(|row| {
                let ttl = row
                    .expire_at_ms
                    .map_or(String::new(), |ms| format!("@{ms}"));
                let value: &[u8] = if row.value.len() > 20 {
                    b"long"
                } else {
                    &row.value[..]
                };
                format!("{}={}{ttl}", show(&row.name), show(value))
            });
            rows.collect::<Vec<_>>().join(" ")
        }
        Object::Stream(stream) => {
            let entries = stream.entries().map(|entry| {
                let entry = entry.expect("a sound stream");
                let pairs = entry
                    .fields
                    .iter()
                    .map(|(f, v)| format!(" {}={}", show(f), show(v)));
                format!("{}{}", entry.id, pairs.collect::<String>())
            });
            entries.collect::<Vec<_>>().join("; ")
        }
        other => panic!("no server wrote {other:?}"),
    }
}

#[test]
fn known_values() {
    let entries: Vec<String> = (1..=5).map(|n| format!("{n}-1 f={}", n - 1)).collect();
    let plain: Vec<String> = (1..=5)
        .map(|n| format!("{n}-0 f={} g={}", n - 1, "x".repeat(n - 1)))
        .collect();
    let (entries, plain) = (entries.join("; "), plain.join("; "));
    let list = format!(
        "a 1 -5 100000 9999999999 {} {}",
        "x".repeat(70),
        "y".repeat(5000)
    );
    let list = &list[..80];
    for server in [
        "redis-6.0",
        "redis-6.2",
        "redis-7.0",
        "redis-8.0",
        "valkey-8.1",
        "valkey-9.1",
    ] {
        for (key, expected) in [
            ("str:i8", "12"),
            ("str:i8n", "-128"),
            ("str:i16", "1234"),
            ("str:i16n", "-32768"),
            ("str:i32", "123456789"),
            ("str:i32n", "-2147483648"),
            ("str:i64", "12345678901234"),
            ("str:leadzero", "007"),
            ("str:float", "3.140"),
            ("str:empty", ""),
            ("str:zero", "0"),
            ("str:raw", "hello"),
            ("set:intset64", "-1152921504606846976 1 2 1099511627776"),
            (
                "zset:small",
                "e:-inf c:-1e300 f:0.1 a:1.0 b:2.5 5:5.0 g:123456789012345.0 d:inf",
            ),
            (
                "zset:geo",
                "Palermo:3479099956230698.0 Catania:3479447370796909.0",
            ),
            (
                "hash:small",
                r"f1=v1 f2=2 f3=-300 e= b=\x00\xfe u=12345678901234567",
            ),
            ("stream:setid", &entries),
            ("stream:plain", &plain),
            ("stream:empty", ""),
            ("stream:emptied", ""),
        ] {
            assert_eq!(words(server, key), expected, "{key} of {server}");
        }
        assert!(words(server, "list:small").starts_with(list), "{server}");
        assert_eq!(words(server, "str:lzf").replace("abc", ""), "", "{server}");
    }
    // Fields as they expire, and as they were set.
    assert_eq!(
        words("redis-8.0", "hfe:small"),
        "c=3@1805334445961 a=1@1805334445961 d=long@1805334450961 b=2"
    );
    assert_eq!(
        words("valkey-9.1", "hfe:small"),
        "a=1@1805334446964 b=2 c=3@1805334446964 d=long@1805334451964"
    );
    for server in ["redis-8.0", "valkey-9.1"] {
        let mut words: Vec<_> = words(server, "hfe:persisted")
            .split(' ')
            .map(str::to_owned)
            .collect();
        words.sort();
        assert_eq!(words, ["a=1", "b=2"]);
    }
}

#[test]
fn a_stream_with_everything() {
    for vector in vectors().iter().filter(|vector| vector.key == "stream:grp") {
        let Object::Stream(stream) = decoded(vector) else {
            panic!("{vector}")
        };
        let pending: usize = stream.groups.iter().map(|group| group.pending.len()).sum();
        let owned: usize = stream
            .groups
            .iter()
            .flat_map(|group| &group.consumers)
            .map(|consumer| consumer.pending.len())
            .sum();
        assert!(stream.groups.len() > 1 && pending > 0, "{vector}");
        assert_eq!(pending, owned, "{vector}");
        assert_eq!(stream.entries().count() as u64, stream.length, "{vector}");
        if stream.form >= StreamForm::V2 {
            assert!(stream.entries_added >= stream.length, "{vector}");
        }
    }
}

/// XADD IDMP and XCFGSET, as Redis 8.6.3 keeps them.
#[test]
fn idempotency_of_real_streams() {
    let vectors = vectors();
    let of = |key: &str| {
        let vector = vectors.iter().find(|vector| vector.key == key);
        match decoded(vector.expect("a vector")) {
            Object::Stream(stream) => stream,
            other => panic!("{key}: {other:?}"),
        }
    };
    let words = |key: &str| {
        let state = of(key).idempotency;
        let producers = state.producers.iter().map(|producer| {
            let names = producer.ids.iter().map(|id| id.name.escape_ascii());
            let names: Vec<String> = names.map(|name| name.to_string()).collect();
            let last = producer.ids.last().expect("an id").entry;
            let name = producer.name.escape_ascii().to_string();
            format!("{name}: {} {}", names.join(" "), last.ms < 1 << 20)
        });
        let producers: Vec<String> = producers.collect();
        (
            (state.duration_secs, state.max_ids),
            producers.join(", "),
            (state.ids_added, state.duplicates),
        )
    };
    let (settings, producers, counts) = words("stream:idmp");
    assert_eq!((settings, counts), ((100, 100), (3, 1)));
    // The server keeps them by name. An id that IDMPAUTO makes is a hash of the entry.
    assert!(producers.starts_with("auto: "), "{producers}");
    assert!(
        producers.ends_with(" false, p1: i1 17 false"),
        "{producers}"
    );
    let (long, iid) = ("b".repeat(70), "z".repeat(200));
    let expected = format!("a: one 2 true, {long}: three {iid} true");
    assert_eq!(
        words("stream:idmpgrp"),
        ((86_400, 10_000), expected, (4, 0))
    );
    assert_eq!(words("stream:idmpset"), ((1, 1), String::new(), (0, 0)));
    assert!(!of("stream:idmpset").idempotency.is_default());
    assert!(of("stream:grp").groups.len() > 1);
    for vector in vectors.iter().filter(|vector| vector.type_byte == 26) {
        let Object::Stream(stream) = decoded(vector) else {
            panic!("{vector}")
        };
        let is_default = !vector.key.contains("idmp");
        assert_eq!(stream.idempotency.is_default(), is_default, "{vector}");
        let mut written = Vec::new();
        let forms = Forms {
            stream: StreamForm::V5,
            field_ttl: FieldTtlForm::Redis,
            back_lengths: BackLengths::Early,
            packing: Packing::None,
            intsets: false,
        };
        let object = Object::Stream(stream);
        assert!(encode(&object, forms, &mut written).is_none());
        assert_eq!(decode(Family::Redis, &written), Ok(object), "{vector}");
    }
}
