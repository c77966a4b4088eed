//! Equality: what was moved is equal to itself, and every planted difference is found.

use std::collections::BTreeSet;

use redis::{Commands as _, Connection, Value};

use crate::support::dataset::{self, Entry};
use crate::support::equality::{self, Kind, Options};
use crate::support::servers::{self, TestServer, Version};

/// Moves the entries with DUMP and RESTORE, and the libraries with FUNCTION DUMP.
fn transfer(entries: &[Entry], version: Version, from: &mut Connection, into: &mut Connection) {
    for entry in entries {
        for side in [&mut *from, &mut *into] {
            redis::cmd("SELECT")
                .arg(entry.db)
                .exec(side)
                .expect("SELECT");
        }
        let payload: Vec<u8> = redis::cmd("DUMP")
            .arg(&entry.key)
            .query(from)
            .expect("DUMP");
        let ttl: i64 = if version.is_at_least_7() {
            let ask = redis::cmd("PEXPIRETIME").arg(&entry.key).query::<i64>(from);
            ask.expect("PEXPIRETIME")
        } else {
            let left: i64 = redis::cmd("PTTL")
                .arg(&entry.key)
                .query(from)
                .expect("PTTL");
            left + if left > 0 {
                i64::try_from(dataset::now_ms()).expect("a date")
            } else {
                0
            }
        };
        let mut restore = redis::cmd("RESTORE");
        restore
            .arg(&entry.key)
            .arg(ttl.max(0))
            .arg(payload)
            .arg("ABSTTL");
        restore.exec(into).expect("RESTORE");
    }
    if version.is_at_least_7() {
        let libraries: Vec<u8> = redis::cmd("FUNCTION")
            .arg("DUMP")
            .query(from)
            .expect("DUMP");
        let mut restore = redis::cmd("FUNCTION");
        restore
            .arg("RESTORE")
            .arg(libraries)
            .exec(into)
            .expect("RESTORE");
    }
    for side in [from, into] {
        redis::cmd("SELECT").arg(0).exec(side).expect("SELECT");
    }
}

/// Two servers of a version with the same in them.
fn twins(version: Version) -> (TestServer, TestServer, Vec<Entry>) {
    let (left, right) = (TestServer::start(version), TestServer::start(version));
    let entries = dataset::fill_every_type(&mut left.client(), version);
    transfer(&entries, version, &mut left.client(), &mut right.client());
    (left, right, entries)
}

#[test]
fn data_moved_by_dump_and_restore_is_equal_to_itself() {
    for version in Version::DESTINATIONS
        .into_iter()
        .filter_map(servers::require)
    {
        let (left, right, entries) = twins(version);
        assert!(
            entries.len() >= 45,
            "{version} has only {} keys",
            entries.len()
        );
        let distinct: BTreeSet<_> = entries.iter().map(|e| (e.db, &e.key)).collect();
        assert_eq!(distinct.len(), entries.len(), "{version} lists a key twice");
        let total: usize = [0, 1, 3, 9, 15]
            .map(|db| {
                redis::cmd("DBSIZE")
                    .query::<usize>(&mut left.client_db(db))
                    .expect("DBSIZE")
            })
            .iter()
            .sum();
        assert_eq!(
            total,
            entries.len(),
            "{version} holds keys that are not listed"
        );
        equality::assert_equal(&mut left.client(), &mut right.client());
    }
}

#[test]
fn equality_finds_every_kind_of_planted_difference() {
    type Plant = (&'static [&'static str], &'static str, Kind);
    let plants: &[Plant] = &[
        (&["DEL", "hash:small"], "hash:small", Kind::Missing),
        (
            &["SET", "not on the left", "v"],
            "not on the left",
            Kind::Extra,
        ),
        (
            &["SET", "string:embstr", "hellp"],
            "string:embstr",
            Kind::Value,
        ),
        (
            &["SETRANGE", "string:100k", "99999", "\u{1}"],
            "string:100k",
            Kind::Value,
        ),
        (
            &["LSET", "list:3000", "1500", "x"],
            "list:3000",
            Kind::Value,
        ),
        (
            &["RPUSH", "list:small", "one more"],
            "list:small",
            Kind::Value,
        ),
        (&["SREM", "set:intset64", "1"], "set:intset64", Kind::Value),
        (&["SADD", "set:table", "one more"], "set:table", Kind::Value),
        (
            &["HSET", "hash:table", "field 7", "other"],
            "hash:table",
            Kind::Value,
        ),
        (
            &["HDEL", "hash:long-value", "short"],
            "hash:long-value",
            Kind::Value,
        ),
        (
            &["ZADD", "zset:denormal", "0", "least"],
            "zset:denormal",
            Kind::Value,
        ),
        (
            &["ZREM", "zset:skiplist", "member 999"],
            "zset:skiplist",
            Kind::Value,
        ),
        (
            &["XADD", "stream:plain", "1700000000001-0", "f", "v"],
            "stream:plain",
            Kind::Value,
        ),
        (
            &["XDEL", "stream:1000", "1200-600"],
            "stream:1000",
            Kind::Value,
        ),
        (
            &["XACK", "stream:groups", "workers", "1-0"],
            "stream:groups",
            Kind::Value,
        ),
        (
            &["XGROUP", "DESTROY", "stream:empty", "g"],
            "stream:empty",
            Kind::Value,
        ),
        (
            &["XGROUP", "SETID", "stream:trimmed", "late", "1-1"],
            "stream:trimmed",
            Kind::Value,
        ),
        (
            &["XSETID", "stream:xsetid", "9000-2"],
            "stream:xsetid",
            Kind::Value,
        ),
        (&["PERSIST", "ttl:days"], "ttl:days", Kind::Ttl),
        (&["PEXPIRE", "ttl:hash", "3000000"], "ttl:hash", Kind::Ttl),
        (&["EXPIRE", "set:small", "1000"], "set:small", Kind::Ttl),
    ];
    for version in Version::DESTINATIONS
        .into_iter()
        .filter_map(servers::require)
    {
        let (left, right, _) = twins(version);
        let mut client = right.client();
        let mut expected = BTreeSet::new();
        let mut plant = |parts: &[&str], key: &str, kind: Kind| {
            let mut command = redis::cmd(parts[0]);
            for part in &parts[1..] {
                command.arg(part);
            }
            let reply: Value = command.query(&mut client).expect("a planted difference");
            assert_ne!(reply, Value::Nil, "{parts:?} did nothing");
            expected.insert((kind, 0, key.as_bytes().to_vec()));
        };
        for (parts, key, kind) in plants {
            plant(parts, key, *kind);
        }
        plant(&["DEL", "string:raw"], "string:raw", Kind::Type);
        plant(
            &["RPUSH", "string:raw", "now a list"],
            "string:raw",
            Kind::Type,
        );
        // To the server, 0 and -0 are the same score: an update would do nothing.
        for parts in [
            &["ZREM", "zset:skiplist-of-odd-scores", "z"][..],
            &["ZADD", "zset:skiplist-of-odd-scores", "0", "z"],
        ] {
            plant(parts, "zset:skiplist-of-odd-scores", Kind::Value);
        }
        if version.has_field_ttl() {
            let persist = ["HPERSIST", "hash:field-ttl", "FIELDS", "1", "a"];
            plant(&persist, "hash:field-ttl", Kind::FieldTtl);
        }
        if version.is_at_least_7() {
            plant(&["FUNCTION", "DELETE", "first"], "first", Kind::Functions);
        }
        redis::cmd("SELECT")
            .arg(15)
            .exec(&mut client)
            .expect("SELECT");
        let _: () = client.set("string:int16", 16).expect("SET");
        expected.insert((Kind::Value, 15, b"string:int16".to_vec()));
        let found =
            equality::differences(&mut left.client(), &mut right.client(), &Options::default());
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        let found: BTreeSet<_> = found.into_iter().map(|d| (d.kind, d.db, d.key)).collect();
        assert_eq!(found, expected, "{version}\n{}", lines.join("\n"));
    }
}

#[test]
fn equality_follows_database_maps_and_prefixes() {
    let Some(version) = servers::require(Version::Redis70) else {
        return;
    };
    let (left, right) = (TestServer::start(version), TestServer::start(version));
    let put = |server: &TestServer, db, key: &str| {
        let _: () = server.client_db(db).set(key, key.len()).expect("SET");
    };
    put(&left, 0, "old:a");
    put(&left, 2, "plain");
    let mut wrong = left.client_db(5);
    let _: () = wrong.set("not looked at", 1).expect("SET");
    let _: () = right.client_db(7).set("new:a", 5).expect("SET");
    let _: () = right.client_db(2).set("new:plain", 5).expect("SET");
    let options = Options {
        db_map: vec![(0, 7)],
        only_dbs: Some(vec![0, 2]),
        strip_prefix: b"old:".to_vec(),
        add_prefix: b"new:".to_vec(),
        ..Options::default()
    };
    equality::assert_equal_with(&mut left.client(), &mut right.client(), &options);
    put(&right, 7, "without the prefix");
    put(&right, 3, "new:in another database");
    let (mut l, mut r) = (left.client(), right.client());
    let found = equality::differences(&mut l, &mut r, &options);
    let found: Vec<_> = found.iter().map(|d| (d.kind, d.db)).collect();
    assert_eq!(found, [(Kind::Extra, 3), (Kind::Extra, 7)]);
    let options = Options {
        allow_extra: true,
        ..options
    };
    equality::assert_equal_with(&mut l, &mut r, &options);
}

#[test]
fn the_sign_of_a_zero_score_counts_unless_it_is_ignored() {
    let Some(version) = servers::require(Version::Redis70) else {
        return;
    };
    let [left, right] = [("-0", "1"), ("0", "1")].map(|(zero, one)| {
        let server = TestServer::start(version);
        let long = "a member too long for the compact encoding ".repeat(3);
        let mut add = redis::cmd("ZADD");
        add.arg("z").arg(one).arg(&long).arg(zero).arg("zero");
        add.exec(&mut server.client()).expect("ZADD");
        server
    });
    let find = |ignore_zero_sign| {
        let options = Options {
            ignore_zero_sign,
            ..Options::default()
        };
        equality::differences(&mut left.client(), &mut right.client(), &options).len()
    };
    assert_eq!((find(false), find(true)), (1, 0));
}
