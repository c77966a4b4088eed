//! Every class of difference, planted one at a time on a copy that was equal.

use crate::diff::found::{diff, expect, found, objects, send, summary};
use crate::support::dataset::now_ms;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::run;

/// Two servers with the same keys: one of each type, some with expiry.
fn twins(version: Version) -> (TestServer, TestServer) {
    let (left, right) = (TestServer::start(version), TestServer::start(version));
    let mut client = left.client();
    let later = (now_ms() + 3_600_000).to_string();
    for words in [
        &["SET", "string", "value"][..],
        &["SET", "expiring", "value"],
        &["PEXPIREAT", "expiring", &later],
        &["RPUSH", "list", "a", "b", "c"],
        &["SADD", "set", "1", "2", "3"],
        &["SADD", "words", "one", "two"],
        &["ZADD", "zset", "1", "one", "2.5", "two", "inf", "top"],
        &["HSET", "hash", "a", "1", "b", "2"],
        &["XADD", "stream", "1-1", "f", "v"],
        &["XADD", "stream", "2-1", "f", "v"],
        &["XADD", "stream", "3-1", "f", "v"],
        &["XGROUP", "CREATE", "stream", "g", "0"],
        &[
            "XREADGROUP",
            "GROUP",
            "g",
            "ada",
            "COUNT",
            "2",
            "STREAMS",
            "stream",
            ">",
        ],
    ] {
        send(&mut client, words);
    }
    if version.is_at_least_7() {
        for name in ["one", "two"] {
            let code = format!(
                "#!lua name={name}\nredis.register_function('f_{name}', function() return 1 end)"
            );
            send(&mut client, &["FUNCTION", "LOAD", &code]);
        }
    }
    if version.has_field_ttl() {
        send(&mut client, &["HSET", "fields", "a", "1", "b", "2"]);
        send(
            &mut client,
            &["HPEXPIREAT", "fields", &later, "FIELDS", "1", "a"],
        );
    }
    run(&["copy", &left.url(), &right.url()], b"").success();
    (left, right)
}

/// A change, and under which key and class it is found.
type Plant = (&'static [&'static str], &'static str, &'static str);

const PLANTS: [Plant; 26] = [
    (&["DEL", "string"], "string", "missing"),
    (&["SET", "new", "1"], "new", "extra"),
    (&["SET", "string", "valuf"], "string", "value"),
    (&["APPEND", "string", "\0"], "string", "value"),
    (&["SET", "hash", "1"], "hash", "type"),
    (&["LSET", "list", "1", "B"], "list", "value"),
    (&["RPUSH", "list", "c"], "list", "value"),
    (&["RPOPLPUSH", "list", "list"], "list", "value"),
    (&["SADD", "set", "4"], "set", "value"),
    (&["SREM", "set", "1"], "set", "value"),
    (&["SADD", "words", "three"], "words", "value"),
    (
        &["ZADD", "zset", "1.0000000000000002", "one"],
        "zset",
        "value",
    ),
    (&["ZADD", "zset", "-inf", "top"], "zset", "value"),
    (&["ZADD", "zset", "1", "other"], "zset", "value"),
    (&["HSET", "hash", "a", "2"], "hash", "value"),
    (&["HSET", "hash", "c", ""], "hash", "value"),
    (&["HDEL", "hash", "a"], "hash", "value"),
    (&["XADD", "stream", "4-1", "f", "v"], "stream", "value"),
    (&["XDEL", "stream", "3-1"], "stream", "value"),
    (&["XGROUP", "CREATE", "stream", "h", "0"], "stream", "value"),
    (
        &["XGROUP", "SETID", "stream", "g", "1-1"],
        "stream",
        "value",
    ),
    (&["XACK", "stream", "g", "1-1"], "stream", "value"),
    (
        &["XCLAIM", "stream", "g", "bob", "0", "1-1"],
        "stream",
        "value",
    ),
    (&["EXPIRE", "string", "1000"], "string", "ttl"),
    (&["EXPIRE", "expiring", "1000"], "expiring", "ttl"),
    (&["PERSIST", "expiring"], "expiring", "ttl"),
];

fn every_class(version: Version) {
    let Some(version) = require(version) else {
        return;
    };
    let (left, right) = twins(version);
    let (left_url, url) = (left.url(), right.url());
    expect(&left_url, &url, &[], &[]);
    for (words, key, class) in PLANTS {
        send(&mut right.client(), words);
        expect(&left_url, &url, &["--recheck", "0"], &[("0", key, class)]);
        if class == "ttl" {
            expect(&left_url, &url, &["--ignore-ttl"], &[]);
        }
        send(&mut right.client(), &["FLUSHALL"]);
        run(&["copy", &left_url, &url, "--functions", "skip"], b"").success();
    }
    expect(&left_url, &url, &[], &[]);
    if version.has_field_ttl() {
        let plants: [(&[&str], &str); 3] = [
            (&["HPERSIST", "fields", "FIELDS", "1", "a"], "field-ttl"),
            (
                &["HEXPIRE", "fields", "5000", "FIELDS", "1", "b"],
                "field-ttl",
            ),
            (&["HSET", "fields", "a", "2"], "value"),
        ];
        for (words, class) in plants {
            send(&mut right.client(), words);
            let output = expect(
                &left_url,
                &url,
                &["--recheck", "0"],
                &[("0", "fields", class)],
            );
            assert_eq!(objects(&output)[0]["left"]["count"], 2);
            if class == "field-ttl" {
                expect(&left_url, &url, &["--ignore-ttl"], &[]);
            }
            send(&mut right.client(), &["DEL", "fields"]);
            run(&["copy", &left_url, &url, "--match", "fields"], b"").success();
        }
    }
    if version.is_at_least_7() {
        let code = "#!lua name=two\nredis.register_function('f_two', function() return 2 end)";
        send(&mut right.client(), &["FUNCTION", "LOAD", "REPLACE", code]);
        send(&mut right.client(), &["FUNCTION", "DELETE", "one"]);
        let code = "#!lua name=three\nredis.register_function('f_3', function() return 3 end)";
        send(&mut right.client(), &["FUNCTION", "LOAD", code]);
        expect(
            &left_url,
            &url,
            &["--recheck", "0"],
            &[
                ("library", "one", "missing"),
                ("library", "two", "value"),
                ("library", "three", "extra"),
            ],
        );
        expect(&left_url, &url, &["--no-functions"], &[]);
    }
}

#[test]
fn every_class_on_redis_6_0() {
    every_class(Version::Redis60);
}

#[test]
fn every_class_on_redis_7_0() {
    every_class(Version::Redis70);
}

#[test]
fn every_class_on_redis_8_0() {
    every_class(Version::Redis80);
}

#[test]
fn every_class_on_valkey_8_1() {
    every_class(Version::Valkey81);
}

#[test]
fn every_class_on_valkey_9_1() {
    every_class(Version::Valkey91);
}

/// What has no order is found equal in any, in any encoding; what has one is not.
#[test]
fn order_and_encoding_do_not_matter_where_there_is_none() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (left, right) = (TestServer::start(version), TestServer::start(version));
    for server in [&left, &right] {
        let mut client = server.client();
        let is_left = std::ptr::eq(server, &left);
        if !is_left {
            // As tables and not as listpacks.
            for name in ["hash-max-listpack-entries", "zset-max-listpack-entries"] {
                send(&mut client, &["CONFIG", "SET", name, "0"]);
            }
            send(
                &mut client,
                &["CONFIG", "SET", "set-max-intset-entries", "0"],
            );
        }
        let mut order: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        if !is_left {
            order.reverse();
        }
        for n in &order {
            send(&mut client, &["SADD", "set", n]);
            send(&mut client, &["HSET", "hash", n, "v"]);
            send(&mut client, &["ZADD", "zset", n, n]);
            send(&mut client, &["RPUSH", "list", n]);
        }
        let zero = if is_left { "0" } else { "-0" };
        send(&mut client, &["ZADD", "zero", zero, "m"]);
    }
    expect(
        &left.url(),
        &right.url(),
        &["--recheck", "0"],
        &[("0", "list", "value")],
    );
}

#[test]
fn expiries_may_lie_as_far_apart_as_is_said() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (left, right) = (TestServer::start(version), TestServer::start(version));
    let at = now_ms() + 1_000_000;
    for (server, at) in [(&left, at), (&right, at + 3_000)] {
        send(&mut server.client(), &["SET", "k", "v"]);
        send(&mut server.client(), &["PEXPIREAT", "k", &at.to_string()]);
    }
    let (left, right) = (left.url(), right.url());
    let ttl = [("0", "k", "ttl")];
    expect(&left, &right, &["--recheck", "0"], &ttl);
    expect(
        &left,
        &right,
        &["--recheck", "0", "--ttl-tolerance", "2999ms"],
        &ttl,
    );
    expect(&left, &right, &["--ttl-tolerance", "3s"], &[]);
    expect(&left, &right, &["--ignore-ttl"], &[]);
}

/// A key, a field, and all fields of a hash, gone by the time the right side is read.
#[test]
fn what_expired_meanwhile_is_no_difference() {
    let Some(version) = require(Version::Redis80) else {
        return;
    };
    let (left, right) = (TestServer::start(version), TestServer::start(version));
    let mut client = left.client();
    send(&mut client, &["SET", "key", "v"]);
    send(&mut client, &["PEXPIRE", "key", "1500"]);
    send(&mut client, &["HSET", "some", "a", "1", "b", "2"]);
    send(
        &mut client,
        &["HPEXPIRE", "some", "1500", "FIELDS", "1", "a"],
    );
    send(&mut client, &["HSET", "all", "a", "1"]);
    send(
        &mut client,
        &["HPEXPIRE", "all", "1500", "FIELDS", "1", "a"],
    );
    send(&mut client, &["SET", "stays", "v"]);
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("a.rmz");
    let archive = archive.to_str().unwrap();
    run(&["export", &left.url(), "-o", archive], b"").success();
    run(&["copy", &left.url(), &right.url()], b"").success();
    std::thread::sleep(std::time::Duration::from_millis(1600));
    let output = expect(archive, &right.url(), &["--recheck", "0"], &[]);
    let said = summary(&output);
    // The hash with a field left is compared with what is left of it.
    assert_eq!(said["equal"], 2, "{said}");
    assert_eq!(said["expired"], 2, "{said}");
    // A field that should still be there is missed all the same.
    send(&mut right.client(), &["HDEL", "some", "b"]);
    let output = diff(archive, &right.url(), &["--recheck", "0"]);
    let kinds: Vec<_> = found(&output).into_iter().map(|(_, key, _)| key).collect();
    // An empty hash is no key.
    assert_eq!(kinds, ["some"], "{}", summary(&output));
}

/// A vector set that was restored is stored in another order: what counts are its elements, their
/// vectors and attributes.
#[test]
fn vector_sets_are_compared_by_their_elements() {
    let Some(version) = require(Version::Redis80) else {
        return;
    };
    let (server, other) = (TestServer::start(version), TestServer::start(version));
    if crate::support::dataset::fill_vector_sets(&mut server.client(), version).is_empty() {
        crate::support::servers::skipped("vector sets: this Redis 8 has none");
        return;
    }
    let change = |server: &TestServer, command: &str| {
        let words: Vec<&str> = command.split(' ').collect();
        send(&mut server.client(), &words);
    };
    change(&server, "VSETATTR vectorset a {\"year\":1984}");
    for (name, x) in [("a", "1"), ("b", "-2"), ("c", "0.5")] {
        for (key, more) in [("exact", " NOQUANT"), ("bits", " BIN")] {
            change(
                &server,
                &format!("VADD {key} VALUES 3 {x} 2 3 {name}{more}"),
            );
        }
        change(
            &server,
            &format!("VADD small REDUCE 2 VALUES 3 {x} 2 3 {name}"),
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("a.rmz");
    let archive = archive.to_str().unwrap();
    run(&["export", &server.url(), "-o", archive], b"").success();
    run(&["import", &other.url(), archive, "--verify"], b"").success();
    for side in [archive, &server.url()] {
        expect(side, &other.url(), &["--recheck", "0"], &[]);
    }
    // Each in a set of its own, so that each is found: another element, another attribute, a vector
    // of another direction, of another length, and one element less.
    for command in [
        "VADD small REDUCE 2 VALUES 3 9 9 9 new",
        "VSETATTR vectorset a {\"year\":1985}",
        "VADD bits VALUES 3 -1 -2 3 a BIN",
        "VADD exact VALUES 3 2 4 6 a NOQUANT",
    ] {
        change(&other, command);
    }
    let differences = ["bits", "exact", "small", "vectorset"].map(|key| ("0", key, "value"));
    let output = expect(archive, &other.url(), &["--recheck", "0"], &differences);
    for object in &objects(&output)[..differences.len()] {
        assert_eq!(object["differs"][0], "value", "{object}");
    }
    change(&other, "DEL vectorset");
    change(&other, "SET vectorset v");
    let differences = [
        ("0", "bits", "value"),
        ("0", "exact", "value"),
        ("0", "small", "value"),
        ("0", "vectorset", "type"),
    ];
    expect(archive, &other.url(), &["--recheck", "0"], &differences);
}
