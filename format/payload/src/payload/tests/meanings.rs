//! Equal and different by meaning.

use redis_migrate_format::record::Family::{self, Other, Redis, Valkey};

use super::handmade::body;
use super::meaning::{Lenience, difference, same, same_but};
use super::pack;
use super::*;

fn told(left: (Family, &str), right: (Family, &str)) -> String {
    let difference = same(left.0, &body(left.1), right.0, &body(right.1)).expect("sound values");
    difference.map_or("same".to_owned(), |difference| difference.to_string())
}

#[test]
fn form_and_order_do_not_count() {
    for (left, right) in [
        ("00 c005", "00 0135"),
        (
            "01 02 0161 0131",
            "12 01 02 0c 0c000000 0200 8161 02 01 01 ff",
        ),
        ("02 02 0131 0132", "0b 0c 02000000 02000000 0100 0200"),
        ("02 02 0132 0131", "02 02 0131 0132"),
        (
            "03 02 0161 0131 0162 fe",
            "05 02 0162 000000000000f07f 0161 000000000000f03f",
        ),
        // Zero and minus zero.
        ("05 01 0161 0000000000000000", "05 01 0161 0000000000000080"),
        (
            "04 02 0161 0162 0163 0164",
            "10 13 13000000 0400 8163 02 8164 02 8161 02 8162 02 ff",
        ),
    ] {
        assert_eq!(told((Redis, left), (Redis, right)), "same");
        assert_eq!(told((Redis, left), (Valkey, right)), "same");
    }
    let redis = "18 6400000000000000 02 01 0161 0162 00 0163 0164";
    let valkey = "16 02 0163 0164 ffffffffffffffff 0161 0162 6400000000000000";
    assert_eq!(told((Redis, redis), (Valkey, valkey)), "same");
}

#[test]
fn differences_in_words() {
    for (left, right, expected) in [
        ("00 0161", "00 0162", r#""a" here, "b" there"#),
        ("00 0100", "00 00", r#""\x00" here, "" there"#),
        ("00 0161", "01 01 0161", "string here, list there"),
        (
            "01 02 0161 0162",
            "01 02 0162 0161",
            r#"element 0: "a" here, "b" there"#,
        ),
        (
            "01 02 0161 0162",
            "01 01 0161",
            "number of elements: 2 here, 1 there",
        ),
        (
            "02 01 0161",
            "02 01 0162",
            r#"member "a": present here, missing there"#,
        ),
        (
            "02 01 0161",
            "02 02 0162 0161",
            r#"member "b": missing here, present there"#,
        ),
        (
            "05 01 0161 000000000000f03f",
            "05 01 0161 000000000000f0ff",
            r#"member "a": 1.0 here, -inf there"#,
        ),
        (
            "04 01 0161 0162",
            "04 01 0161 0163",
            r#"field "a": "b" here, "c" there"#,
        ),
        (
            "04 01 0161 0162",
            "18 6400000000000000 01 01 0161 0162",
            r#"field "a", expiry: none here, 100 there"#,
        ),
    ] {
        assert_eq!(told((Redis, left), (Redis, right)), expected);
    }
    let long = |last: &str| ["00 4050", &"78".repeat(79), last].concat();
    assert_eq!(
        told((Redis, &long("79")), (Redis, &long("7a"))),
        r#"from byte 79: "y" here, "z" there"#
    );
    let ttl = body("18 6400000000000000 01 01 0161 0162");
    let lenience = Lenience {
        ignore_field_ttls: true,
        ..Lenience::default()
    };
    let plain = body("04 01 0161 0162");
    assert_eq!(same_but(Redis, &ttl, Redis, &plain, lenience), Ok(None));
}

#[test]
fn fields_past_their_time_count_for_nothing_on_either_side() {
    // a goes at 100, b at 200, c stays.
    let all = body("18 6400000000000000 03 01 0161 0162 4065 0162 0162 00 0163 0162");
    let left = body("18 c800000000000000 02 01 0162 0162 00 0163 0162");
    let last = body("04 01 0163 0162");
    let by = |at_ms: u64| Lenience {
        fields_gone_by_ms: at_ms,
        ..Lenience::default()
    };
    let is_same = |one: &[u8], other: &[u8], at_ms| {
        let found = [(one, other), (other, one)]
            .map(|(one, other)| same_but(Redis, one, Redis, other, by(at_ms)));
        assert_eq!(found[0] == Ok(None), found[1] == Ok(None));
        found[0] == Ok(None)
    };
    assert!(!is_same(&all, &left, 99) && is_same(&all, &left, 100));
    assert!(!is_same(&all, &last, 199) && is_same(&all, &last, 200));
    assert!(is_same(&left, &last, 200) && is_same(&all, &all, 150));
    let other = body("04 01 0163 0163");
    assert!(!is_same(&all, &other, 200));
    // One that goes on one side only is another field.
    let b_stays = body("04 02 0162 0162 0163 0162");
    assert!(!is_same(&all, &b_stays, 200));
}

/// Where the other side has no expiry of fields, or counted it from an earlier moment.
#[test]
fn a_field_past_its_time_on_one_side_is_compared_with_what_stands_on_the_other() {
    let goes = body("18 6400000000000000 02 01 0161 0162 00 0163 0162");
    let stays = body("04 02 0161 0162 0163 0162");
    let other = body("04 02 0161 0163 0163 0162");
    let later = body("18 8200000000000000 02 01 0161 0162 00 0163 0162");
    let is_same = |one: &[u8], other: &[u8], lenience| {
        same_but(Redis, one, Redis, other, lenience) == Ok(None)
    };
    let none_go = Lenience {
        fields_gone_by_ms: 100,
        ignore_field_ttls: true,
        ..Lenience::default()
    };
    assert!(is_same(&goes, &stays, none_go) && !is_same(&goes, &other, none_go));
    let rebased = Lenience {
        fields_gone_by_ms: 100,
        earlier_by_ms: 30,
        ..Lenience::default()
    };
    assert!(is_same(&later, &goes, rebased) && !is_same(&later, &stays, rebased));
}

#[test]
fn what_cannot_be_read_is_compared_by_its_bytes() {
    let module = body("07 81 0000000000000400 00");
    assert_eq!(same(Redis, &module, Redis, &module), Ok(None));
    let other = body("07 81 0000000000000800 00");
    assert!(
        same(Redis, &module, Redis, &other)
            .expect_err("unreadable")
            .is_opaque()
    );
    let string = body("00 0161");
    assert!(
        same(Redis, &module, Redis, &string)
            .expect("readable")
            .is_some()
    );
    assert!(
        same(Redis, &string, Redis, &module)
            .expect("readable")
            .is_some()
    );
    // The same bytes mean two things.
    let hash = body("16 01 0161 0162 ffffffffffffffff");
    assert!(same(Valkey, &hash, Redis, &hash).is_err());
    assert!(
        same(Valkey, &hash, Other, &hash)
            .expect("readable")
            .is_some()
    );
    // Equal bytes are not read, so damage that is the same on both sides is the same.
    assert_eq!(same(Redis, b"\x02\x00", Redis, b"\x02\x00"), Ok(None));
}

fn stream(form: StreamForm) -> Stream<'static> {
    let entries = [pack::entry(1, 0, b"f", b"v"), pack::entry(2, 0, b"g", b"w")];
    let more = form >= StreamForm::V2;
    let id = |ms| StreamId { ms, seq: 0 };
    Stream {
        form,
        nodes: pack::nodes(&entries, 1),
        length: 2,
        counter: 2,
        last_id: id(2),
        first_id: id(u64::from(more)),
        max_deleted_id: StreamId::default(),
        entries_added: if more { 7 } else { 0 },
        groups: vec![Group {
            name: b"g"[..].into(),
            last_id: id(1),
            entries_read: if more { ENTRIES_READ_UNKNOWN } else { 0 },
            pending: vec![
                Pending {
                    id: id(1),
                    delivered_ms: 1000,
                    deliveries: 2,
                },
                Pending {
                    id: id(2),
                    delivered_ms: 1000,
                    deliveries: 1,
                },
            ],
            consumers: vec![
                Consumer {
                    name: b"a"[..].into(),
                    seen_ms: 5,
                    active_ms: if form >= StreamForm::V3 { -1 } else { 0 },
                    pending: vec![id(1), id(2)],
                },
                Consumer {
                    name: b"b"[..].into(),
                    seen_ms: 5,
                    active_ms: 0,
                    pending: Vec::new(),
                },
            ],
            given_back: Vec::new(),
        }],
        idempotency: Idempotency::default(),
    }
}

fn streams(
    left: Stream<'static>,
    form: StreamForm,
    change: impl FnOnce(&mut Stream<'static>),
) -> String {
    let mut right = stream(form);
    change(&mut right);
    let difference = difference(&Object::Stream(left), &Object::Stream(right));
    difference.map_or("same".to_owned(), |difference| difference.to_string())
}

#[test]
fn streams_of_different_forms() {
    use StreamForm::{V1, V2, V3, V4, V5};
    for left in StreamForm::ALL {
        for right in StreamForm::ALL {
            assert_eq!(streams(stream(left), right, |_| {}), "same");
            // Packed otherwise.
            let repacked = streams(stream(left), right, |stream| {
                let entries = [pack::entry(1, 0, b"f", b"v"), pack::entry(2, 0, b"g", b"w")];
                stream.nodes = pack::nodes(&entries, 2);
            });
            assert_eq!(repacked, "same");
            let added = streams(stream(left), right, |stream| stream.entries_added = 8);
            let expected = match left.min(right) {
                V1 => "same",
                _ => "entries added: 7 here, 8 there",
            };
            assert_eq!(added, expected);
            let active = streams(stream(left), right, |s| {
                s.groups[0].consumers[0].active_ms = 6
            });
            let expected = match left.min(right) {
                V1 | V2 => "same",
                V3 | V4 | V5 => r#"group "g", consumer "a", active: -1 here, 6 there"#,
            };
            assert_eq!(active, expected);
            for (change, expected) in IDEMPOTENCY {
                let told = streams(stream(left), right, |stream| {
                    change(&mut stream.idempotency)
                });
                let expected = match left.min(right) {
                    V1 | V2 | V3 => "same",
                    V4 | V5 => expected,
                };
                assert_eq!(told, *expected, "{left:?} {right:?}");
            }
        }
    }
}

/// A change of what a stream remembers, and what is told of it.
type Remembered = (fn(&mut Idempotency<'static>), &'static str);

/// The settings count. The ids do not: they are forgotten while time goes by.
const IDEMPOTENCY: &[Remembered] = &[
    (
        |state| state.duration_secs = 7,
        "idempotency duration: 100 here, 7 there",
    ),
    (
        |state| state.max_ids = 7,
        "most idempotency ids: 100 here, 7 there",
    ),
    (
        |state| {
            state.producers.push(Producer {
                name: b"p"[..].into(),
                ids: Vec::new(),
            });
        },
        "same",
    ),
    (|state| state.ids_added = 7, "same"),
    (|state| state.duplicates = 7, "same"),
];

/// Entries that were given back belong to nobody (27). Where there is no such thing they are a
/// consumer's, and count as the same.
#[test]
fn entries_given_back() {
    let give = |stream: &mut Stream<'static>, ids: &[u64]| {
        let group = &mut stream.groups[0];
        for consumer in &mut group.consumers {
            consumer.pending.retain(|id| !ids.contains(&id.ms));
        }
        let ids = ids.iter().map(|&ms| StreamId { ms, seq: 0 });
        group.given_back = ids.collect();
    };
    let mut left = stream(StreamForm::V5);
    give(&mut left, &[2, 1]);
    let told =
        |ids: &'static [u64]| streams(left.clone(), StreamForm::V5, |stream| give(stream, ids));
    assert_eq!(told(&[2, 1]), "same");
    let place = r#"group "g", "#;
    let order = format!("{place}next entry given back: 2-0 here, 1-0 there");
    assert_eq!(told(&[1, 2]), order);
    assert!(!told(&[2]).contains("given back") && told(&[2]).starts_with(place));

    let mut written = Vec::new();
    let left = Object::Stream(left);
    for form in [StreamForm::V4, StreamForm::V3, StreamForm::V1] {
        written.clear();
        let forms = Forms {
            stream: form,
            field_ttl: FieldTtlForm::Redis,
            back_lengths: BackLengths::Early,
            packing: Packing::None,
            intsets: false,
        };
        assert_eq!(encode(&left, forms, &mut written).given_back, 2);
        let right = decode(Redis, &written).expect("sound");
        assert_eq!(difference(&left, &right), None);
        let Object::Stream(right) = right else {
            panic!("a stream")
        };
        let group = &right.groups[0];
        // Everything is idle for as long as can be, and delivered as often as before.
        let pending: Vec<_> = group
            .pending
            .iter()
            .map(|one| (one.delivered_ms, one.deliveries))
            .collect();
        assert_eq!(pending, [(0, 2), (0, 1)]);
        let owner = group.consumers.last().expect("a consumer");
        assert_eq!((&*owner.name, group.consumers.len()), (GIVEN_BACK, 3));
        assert_eq!(owner.pending, [1, 2].map(|ms| StreamId { ms, seq: 0 }));
    }
    // A consumer of that name, of an earlier migration, gets them with what it has.
    let Ok(Object::Stream(mut again)) = decode(Redis, &written) else {
        panic!("a stream")
    };
    again.form = StreamForm::V5;
    again.groups[0].consumers[2].pending = vec![StreamId { ms: 2, seq: 0 }];
    again.groups[0].given_back = vec![StreamId { ms: 1, seq: 0 }];
    let owned = with_owners(&again.groups[0]).expect("a change");
    assert_eq!(owned.consumers.len(), 3);
    assert_eq!(
        owned.consumers[2].pending,
        [1, 2].map(|ms| StreamId { ms, seq: 0 })
    );
}

#[test]
fn streams_that_differ() {
    let v3 =
        |change: fn(&mut Stream<'static>)| streams(stream(StreamForm::V3), StreamForm::V3, change);
    let changed_entry = v3(|stream| {
        let entries = [pack::entry(1, 0, b"f", b"v"), pack::entry(2, 0, b"g", b"x")];
        stream.nodes = pack::nodes(&entries, 2);
    });
    assert_eq!(changed_entry, r#"entry 2-0: "g"="w" here, "g"="x" there"#);
    let fewer = v3(|stream| drop(stream.nodes.pop()));
    assert_eq!(fewer, "next entry: 2-0 here, none there");
    assert_eq!(
        v3(|stream| stream.last_id.seq = 1),
        "last id: 2-0 here, 2-1 there"
    );
    assert_eq!(
        v3(|stream| stream.max_deleted_id.ms = 1),
        "highest deleted id: 0-0 here, 1-0 there"
    );
    assert_eq!(
        v3(|stream| stream.groups[0].entries_read = 1),
        r#"group "g", entries read: 18446744073709551615 here, 1 there"#
    );
    assert_eq!(
        v3(|stream| stream.groups.clear()),
        r#"group "g": present here, missing there"#
    );
    assert_eq!(
        v3(|stream| stream.groups[0].pending[0].deliveries = 3),
        r#"group "g", pending entry 1-0, deliveries: 2 here, 3 there"#
    );
    let moved = v3(|stream| {
        let id = stream.groups[0].consumers[0].pending.remove(0);
        stream.groups[0].consumers[1].pending.push(id);
    });
    assert_eq!(
        moved,
        r#"group "g", consumer "a", next pending entry: 1-0 here, 2-0 there"#
    );
    // In another order.
    assert_eq!(v3(|stream| stream.groups[0].consumers.reverse()), "same");
    assert_eq!(v3(|stream| stream.groups[0].pending.reverse()), "same");

    let mut later = stream(StreamForm::V3);
    later.groups[0].pending[0].delivered_ms += 1;
    later.groups[0].consumers[0].seen_ms += 1;
    let (left, right) = (
        Object::Stream(stream(StreamForm::V3)),
        Object::Stream(later),
    );
    assert!(difference(&left, &right).is_some());
    let lenience = Lenience {
        ignore_delivery_times: true,
        ..Lenience::default()
    };
    assert_eq!(meaning::difference_but(&left, &right, lenience), None);
}
