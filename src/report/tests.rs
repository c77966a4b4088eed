use maud::Render as _;

use super::page::Text;
use super::*;
use crate::record::{Family, Value};

const NOW_MS: u64 = 1_700_000_000_000;

fn context() -> Context {
    Context {
        source_time_ms: NOW_MS,
        family: Family::Redis,
        rdb_version: 10,
        node: 0,
    }
}

fn string(key: &[u8], len: usize, expire_at_ms: Option<u64>) -> Record {
    // A 32-bit length.
    let mut value = vec![0, 0x80];
    value.extend_from_slice(&u32::try_from(len).expect("small").to_be_bytes());
    value.resize(value.len() + len, b'x');
    Record::Key(KeyRecord {
        db: 0,
        key: key.to_vec(),
        value: Value::Compact(value),
        expire_at_ms,
        eviction: None,
    })
}

#[test]
fn every_key_is_in_every_sum_once() {
    let mut report = Report::new(3);
    let lives = [
        0,
        1,
        59_999,
        60_000,
        3_600_000,
        86_400_000,
        u64::MAX - NOW_MS,
    ];
    for (n, left_ms) in lives.iter().enumerate() {
        let key = format!("a:{n}");
        report.add(
            &string(key.as_bytes(), n * 100, Some(NOW_MS + left_ms)),
            &context(),
            n as u64 * 100 + 6,
        );
    }
    report.add(&string(b"b", 10, Some(NOW_MS - 5)), &context(), 16);
    report.add(&string(b"c", 10, None), &context(), 16);
    let total = report.total();
    assert_eq!((total.keys, total.with_ttl), (9, 8));
    let lives: Vec<u64> = report.lives.iter().map(|(_, weight)| weight.keys).collect();
    assert_eq!(lives, [2, 2, 1, 1, 1, 0, 0, 1]);
    let mut by_life = sum(report.lives.iter().map(|(_, weight)| weight));
    by_life.add(&report.without_ttl);
    assert_eq!(by_life, total);
    assert_eq!(sum(report.sizes.iter().map(|(_, weight)| weight)), total);
    let groups = report.prefixes.groups(10);
    assert_eq!(sum(groups.iter().map(|group| &group.weight)), total);
    let largest = report.largest();
    let names: Vec<&[u8]> = largest.iter().map(|key| key.key.as_slice()).collect();
    assert_eq!(names, [b"a:6", b"a:5", b"a:4"]);
    assert_eq!(largest[0].value_bytes, 606);
}

#[test]
fn nothing_of_a_name_is_markup() {
    let text = Text("</td><script>alert('1' & \"2\")</script>\u{202e}\u{7}")
        .render()
        .0;
    assert_eq!(
        text,
        "&lt;/td&gt;&lt;script&gt;alert(&#39;1&#39; &amp; &quot;2&quot;)&lt;/script&gt;\\u{202e}\\u{7}"
    );
}

#[test]
fn damaged_values_are_estimated_without_harm() {
    for body in [
        &[][..],
        &[0],
        &[4, 0x81],
        &[2, 0xff],
        &[16, 5, 1, 2],
        &[24, 1],
        &[0, 0xc3, 9],
        // Strings and nodes that claim to unpack to all that a number can say.
        &[b"\x00\xc3\x01\x81".as_slice(), &[0xff; 8], &[0]].concat(),
        &[b"\x00\xc3\x81".as_slice(), &[0xff; 8], &[0x81], &[0xff; 8]].concat(),
        &[
            b"\x0f\x01\x10".as_slice(),
            &[0; 16],
            &[0xc3, 1, 0x81],
            &[0xff; 8],
            &[0],
        ]
        .concat(),
        &[b"\x00\x81".as_slice(), &[0xff; 8]].concat(),
    ] {
        let record = KeyRecord {
            db: 0,
            key: b"k".to_vec(),
            value: Value::Compact(body.to_vec()),
            expire_at_ms: None,
            eviction: None,
        };
        let estimate = estimate(&record, &context(), body.len() as u64);
        assert!(estimate.memory_bytes < 4_096, "{body:?}: {estimate:?}");
    }
}
