//! SCAN: cursors and pages.

use std::collections::BTreeMap;

use redis_migrate_world::server::{Config, Random, Server};

use super::play::now_ms;
use super::real;
use super::resp::Value;

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect()
}

fn page(value: Value) -> (u64, Vec<Vec<u8>>) {
    let Value::Array(parts) = value else {
        panic!("no page: {value:?}")
    };
    let [Value::Bulk(cursor), Value::Array(rows)] = parts.as_slice() else {
        panic!("no page: {parts:?}")
    };
    let cursor = String::from_utf8_lossy(cursor).parse().expect("a cursor");
    let name = |row: &Value| match row {
        Value::Bulk(name) => name.clone(),
        other => panic!("a name that is none: {other:?}"),
    };
    (cursor, rows.iter().map(name).collect())
}

/// One side: it answers a line.
type Side<'a> = Box<dyn FnMut(&str) -> Value + 'a>;

/// A whole scan, cursor by cursor, with writes between. How often each name came, and the cursors.
fn scan(
    side: &mut Side<'_>,
    count: u64,
    mut between: impl FnMut(&mut Side<'_>),
) -> (BTreeMap<Vec<u8>, u64>, Vec<u64>) {
    let (mut seen, mut cursors) = (BTreeMap::new(), Vec::new());
    let mut cursor = 0;
    loop {
        let (next, names) = page(side(&format!("SCAN {cursor} COUNT {count}")));
        for name in names {
            *seen.entry(name).or_insert(0) += 1;
        }
        cursors.push(next);
        cursor = next;
        if cursor == 0 {
            return (seen, cursors);
        }
        between(side);
        assert!(cursors.len() < 100_000, "a scan without an end");
    }
}

/// Whether all cursors of a scan are those of a table of this many buckets, one after the other.
fn buckets(cursors: &[u64]) -> u64 {
    // The first cursor of a table of 2^n buckets is 2^(n-1) if the first bucket held enough.
    cursors
        .iter()
        .copied()
        .max()
        .map_or(1, |max| (max + 1).next_power_of_two())
}

/// Nothing that stands is missed on either side, and the tables of both are of the same size.
#[test]
fn what_stands_is_scanned() {
    for release in real::available() {
        let server = real::Real::start(release, &[]);
        let mut connection = server.connect();
        let mut model = Server::new(Config::new(release), 7);
        let id = model.connect().expect("a client");
        let mut sides: [Side<'_>; 2] = [
            Box::new(|line| connection.ask(&words(line)).expect("an answer")),
            Box::new(|line| {
                model.receive(id, &super::resp::pack(&words(line)), now_ms());
                let out = model.outbox(id);
                super::resp::read(&out).expect("an answer").0
            }),
        ];
        let mut sizes = Vec::new();
        for side in &mut sides {
            let mut random = Random::new(5);
            for n in 0..300 {
                side(&format!("SET standing:{n} 1"));
            }
            // Whatever a table is being moved to is reached by then.
            for _ in 0..600 {
                side("GET standing:1");
            }
            let (seen, cursors) = scan(side, 1, |_| {});
            assert_eq!(seen.len(), 300, "{}", release.name);
            assert!(seen.values().all(|count| *count == 1), "{}", release.name);
            sizes.push(buckets(&cursors));
            for (adds, count) in [(true, 1), (false, 3), (true, 10)] {
                let mut n: u64 = 0;
                let (seen, _) = scan(side, count, |side| {
                    for _ in 0..random.below(40).min(1500u64.saturating_sub(n)) {
                        n += 1;
                        match adds {
                            true => side(&format!("SET more:{n} 1")),
                            false => side(&format!("DEL more:{n}")),
                        };
                    }
                });
                for n in 0..300 {
                    assert!(
                        seen.contains_key(format!("standing:{n}").as_bytes()),
                        "{} misses {n}",
                        release.name
                    );
                }
            }
        }
        assert_eq!(sizes[0], sizes[1], "{}: buckets", release.name);
    }
}

/// With one bucket in a table, or none, the hash does not matter: pages and cursors are the same.
#[test]
fn small_tables_are_scanned_alike() {
    for release in real::available() {
        let server = real::Real::start(release, &[]);
        let mut connection = server.connect();
        let mut model = Server::new(Config::new(release), 7);
        let id = model.connect().expect("a client");
        for line in [
            "SCAN 0",
            "SCAN 17",
            "SET a 1",
            "SCAN 0 COUNT 100",
            "SCAN 0 COUNT 100 MATCH b*",
            "DEL a",
            "SCAN 0",
        ] {
            let real = connection.ask(&words(line)).expect("an answer");
            model.receive(id, &super::resp::pack(&words(line)), now_ms());
            let (model, _) = super::resp::read(&model.outbox(id)).expect("an answer");
            assert_eq!(real, model, "{} {line}", release.name);
        }
    }
}
