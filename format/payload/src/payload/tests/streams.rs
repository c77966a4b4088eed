//! Streams that no server writes: each rule of t_stream.c broken once.

use redis_migrate_format::record::Family::Redis;

use super::handmade::{body, fails, strings};
use super::pack::Element::{Int, Text};
use super::pack::{self, Element};
use super::*;

/// A stream of one node, with this listpack and nothing else of interest.
fn stream(elements: &[Element<'_>], length: u8, last: u8) -> Vec<u8> {
    let mut value = vec![15, 1, 16];
    value.extend_from_slice(&StreamId { ms: 1, seq: 0 }.to_bytes());
    write::string(&mut value, &pack::listpack(elements));
    value.extend_from_slice(&[length, last, 0, 0]);
    value
}

#[test]
fn stream_nodes() {
    let master = [Int(1), Int(0), Int(1), Text(b"f"), Int(0)];
    let with = |more: &[Element<'_>], length, last| {
        let mut elements = Vec::new();
        for element in master.iter().chain(more) {
            elements.push(match element {
                Int(number) => Int(*number),
                Text(text) => Text(text),
            });
        }
        stream(&elements, length, last)
    };
    let same = [Int(2), Int(0), Int(0), Text(b"v"), Int(4)];
    let own = [
        Int(0),
        Int(0),
        Int(0),
        Int(1),
        Text(b"g"),
        Text(b"v"),
        Int(6),
    ];
    for sound in [with(&same, 1, 1), with(&own, 1, 1)] {
        assert_eq!(strings(decode(Redis, &sound).expect("sound")), ["1-0"]);
    }
    let bad = |value: &[u8], what| fails(Redis, value, ErrorKind::Stream(what));
    // A counter that is off does no harm, and is told.
    let miscounted = with(&same, 2, 1);
    assert_eq!(
        strings(decode(Redis, &miscounted).expect("readable")),
        ["1-0"]
    );
    let checked = check(Redis, &miscounted).expect("readable");
    assert_eq!((checked.count, checked.miscounted), (1, Some(2)));
    assert_eq!(
        check(Redis, &with(&same, 1, 1)).expect("sound").miscounted,
        None
    );
    bad(&with(&same, 1, 0), "last id is before the last entry");
    bad(&with(&[], 0, 1), "fewer entries than the master says");
    let twice = [
        Int(2),
        Int(0),
        Int(0),
        Text(b"v"),
        Int(4),
        Int(2),
        Int(0),
        Int(1),
        Text(b"v"),
        Int(4),
    ];
    bad(&with(&twice, 2, 1), "more entries than the master says");
    bad(
        &with(&[Int(3), Int(0), Int(0), Text(b"v"), Int(4)], 0, 1),
        "more entries than the master says",
    );
    bad(
        &with(&[Int(4), Int(0), Int(0), Text(b"v"), Int(4)], 1, 1),
        "entry with unknown flags",
    );
    bad(
        &with(&[Int(2), Int(-1), Int(0), Text(b"v"), Int(4)], 1, 1),
        "entries not in order",
    );
    bad(
        &with(&[Int(2), Int(0), Int(0), Text(b"v"), Int(5)], 1, 1),
        "entry of another length than it says",
    );
    bad(
        &with(&[Int(2), Int(0), Text(b"x"), Text(b"v"), Int(4)], 1, 1),
        "text where a number is expected",
    );
    bad(
        &with(&[Int(0), Int(0), Int(0), Int(0), Int(4)], 1, 1),
        "entry without fields",
    );
    bad(
        &with(&[Int(2), Int(0), Int(0), Text(b"v")], 1, 1),
        "node ends within an entry",
    );
    bad(
        &stream(&[Int(-1), Int(0), Int(1), Text(b"f"), Int(0)], 0, 1),
        "negative count",
    );
    bad(
        &stream(&[Int(0), Int(0), Int(0), Int(0)], 0, 1),
        "entry without fields",
    );
    bad(
        &stream(&[Int(0), Int(0), Int(1), Text(b"f"), Int(1)], 0, 1),
        "master entry without its end",
    );
    bad(
        &stream(&[Int(0), Int(0), Int(i64::MAX)], 0, 1),
        "entry without fields",
    );
    fails(
        Redis,
        &body("0f 01 00 00 00 00 00 00"),
        ErrorKind::Stream("id of a node is not 16 bytes"),
    );

    let node = with(&same, 1, 1);
    let one = &node[2..node.len() - 4];
    let two = [&[15, 2], one, one, &[2, 1, 0, 0]].concat();
    bad(&two, "nodes not in order");
}

/// A stream without entries, and these groups.
fn groups(text: &str) -> Vec<u8> {
    body(&["0f 00 00 00 00", text].concat())
}

#[test]
fn stream_groups() {
    let pending = "00000000000000010000000000000000 0000000000000000 01";
    let id = "00000000000000010000000000000000";
    let other = "00000000000000020000000000000000";
    let seen = "0000000000000000";
    let sound = groups(&format!(
        "01 0167 00 00 01 {pending} 01 0163 {seen} 01 {id}"
    ));
    assert!(decode(Redis, &sound).is_ok());
    let bad = |text: String, what| fails(Redis, &groups(&text), ErrorKind::Stream(what));
    bad(
        format!("01 0167 00 00 01 {pending} 01 0163 {seen} 01 {other}"),
        "consumer's pending entry is unknown to the group",
    );
    bad(
        format!("01 0167 00 00 01 {pending} 01 0163 {seen} 00"),
        "pending entry of no consumer",
    );
    bad(
        format!("01 0167 00 00 01 {pending} 02 0163 {seen} 01 {id} 0164 {seen} 01 {id}"),
        "pending entry of two consumers",
    );
    bad(
        format!("01 0167 00 00 02 {pending} {pending} 01 0163 {seen} 01 {id}"),
        "pending entry appears twice",
    );
    let twice = groups(&format!(
        "01 0167 00 00 00 02 0163 {seen} 00 0163 {seen} 00"
    ));
    fails(Redis, &twice, ErrorKind::Duplicate("consumer"));
    let twice = groups("02 0167 00 00 00 00 0167 00 00 00 00");
    fails(Redis, &twice, ErrorKind::Duplicate("consumer group"));
    let absurd = groups("01 0167 00 00 81 00ffffffffffffff");
    fails(Redis, &absurd, ErrorKind::Truncated);
}

/// XSETID may set the last id below a tombstone, and entries then follow one of a higher id.
#[test]
fn tombstones_need_no_order() {
    let elements = [
        Int(2),
        Int(1),
        Int(1),
        Text(b"f"),
        Int(0),
        Int(2),
        Int(0),
        Int(0),
        Text(b"v"),
        Int(4),
        Int(3),
        Int(9),
        Int(0),
        Text(b"v"),
        Int(4),
        Int(2),
        Int(3),
        Int(0),
        Text(b"v"),
        Int(4),
    ];
    let value = stream(&elements, 2, 4);
    assert_eq!(
        strings(decode(Redis, &value).expect("sound")),
        ["1-0", "4-0"]
    );
}

/// A stream without entries and groups, and this state of idempotency.
fn remembers(text: &str) -> Vec<u8> {
    body(&["1a 00 00 00 00 00 00 00 00 00 00", text].concat())
}

fn state(value: &[u8]) -> Idempotency<'_> {
    match decode(Redis, value) {
        Ok(Object::Stream(stream)) => stream.idempotency,
        other => panic!("{other:?}"),
    }
}

#[test]
fn idempotency() {
    let plain = remembers("4064 4064 00 00 00");
    assert_eq!(state(&plain), Idempotency::default());
    let largest = remembers("80 00015180 80 00002710 00 00 00");
    let largest = state(&largest);
    assert_eq!((largest.duration_secs, largest.max_ids), (86_400, 10_000));
    assert!(!largest.is_default());
    // Counters alone are nothing that is kept.
    assert!(state(&remembers("4064 4064 00 05 06")).is_default());
    // Servers take an id without a name, one that comes twice, and more than the settings say.
    let odd = remembers("01 01 01 0170 03 00 01 00 0161 02 00 0161 03 00 03 00");
    let odd = state(&odd);
    assert_eq!(odd.producers[0].ids.len(), 3);
    assert!(!odd.is_default());

    let bad = |text: &str, kind| fails(Redis, &remembers(text), kind);
    let duration = ErrorKind::Stream("idempotency duration is not 1 to 86400 seconds");
    let ids = ErrorKind::Stream("number of idempotency ids is not 1 to 10000");
    bad("00 4064 00 00 00", duration.clone());
    bad("80 00015181 4064 00 00 00", duration);
    bad("4064 00 00 00 00", ids.clone());
    bad("4064 80 00002711 00 00 00", ids);
    bad(
        "4064 4064 02 0170 00 0170 00 00 00",
        ErrorKind::Duplicate("producer"),
    );
    // Counts that lie.
    bad("4064 4064 81 00ffffffffffffff", ErrorKind::Truncated);
    bad(
        "4064 4064 01 0170 81 00ffffffffffffff",
        ErrorKind::Truncated,
    );
    bad("4064 4064 00 00", ErrorKind::Truncated);
    bad("4064 4064 00 00 00 00", ErrorKind::Trailing(1));
    // 21 ends before it.
    fails(
        Redis,
        &[&[21][..], &remembers("4064 4064 00 00 00")[1..]].concat(),
        ErrorKind::Trailing(7),
    );
}

/// By the layout as it is published: no server of the tests writes 27.
#[test]
fn entries_given_back() {
    let id = |n: u8| format!("00000000000000{n:02x}0000000000000000");
    let pending = |n: u8| format!("{} 0000000000000000 01", id(n));
    let seen = "0000000000000000 ffffffffffffffff";
    let value = |groups: &str| {
        body(
            &[
                "1b 00 00 00 00 00 00 00 00 00",
                groups,
                "4064 4064 00 00 00",
            ]
            .concat(),
        )
    };
    let group = |rest: String| value(&format!("01 0167 00 00 00 {rest}"));
    let (one, two) = (pending(1), pending(2));
    let (first, second) = (id(1), id(2));
    let sound = group(format!(
        "02 {one} {two} 01 0163 {seen} 01 {first} 01 {second}"
    ));
    let Ok(Object::Stream(stream)) = decode(Redis, &sound) else {
        panic!("a sound stream")
    };
    assert_eq!(stream.groups[0].given_back, [StreamId { ms: 2, seq: 0 }]);
    assert_eq!(stream.groups[0].consumers.len(), 1);
    // In a group without consumers too, in any order, and none at all.
    for sound in [
        group(format!("02 {one} {two} 00 02 {second} {first}")),
        group("00 00 00".to_owned()),
        value("00"),
    ] {
        assert!(decode(Redis, &sound).is_ok());
    }
    let bad = |rest: String, kind| fails(Redis, &group(rest), kind);
    bad(
        format!("01 {one} 00 01 {second}"),
        ErrorKind::Stream("entry given back is unknown to the group"),
    );
    bad(
        format!("01 {one} 01 0163 {seen} 01 {first} 01 {first}"),
        ErrorKind::Stream("pending entry of two consumers"),
    );
    bad(
        format!("01 {one} 00 02 {first} {first}"),
        ErrorKind::Stream("pending entry of two consumers"),
    );
    bad(
        format!("01 {one} 00 00"),
        ErrorKind::Stream("pending entry of no consumer"),
    );
    bad("00 00 81 00ffffffffffffff".to_owned(), ErrorKind::Truncated);
}
