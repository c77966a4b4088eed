//! Files that are sound and odd, and files that a server would refuse whole.

use std::path::{Path, PathBuf};

use redis_migrate_payload::payload::crc64::crc64;
use redis_migrate_payload::payload::{self};

use crate::rdb::writing::{check_rdb, loaded};
use crate::support::servers::{TestServer, Version, available, require};
use crate::support::tool::{Output, run};

/// An RDB file: what stands between magic and end mark.
pub fn file(directory: &Path, magic: &[u8; 9], inner: &[u8]) -> PathBuf {
    let mut bytes = [&magic[..], inner, b"\xff"].concat();
    if magic[5..] >= b"0005"[..] {
        let crc = crc64(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
    }
    let path = directory.join("in.rdb");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A key of database 0.
pub fn key(type_byte: u8, name: &str, body: &[u8]) -> Vec<u8> {
    [&[type_byte, name.len() as u8], name.as_bytes(), body].concat()
}

/// The file written anew for a server, what was said, and the server that loaded it.
fn converted(from: &Path, version: Version, code: i32) -> (Output, TestServer) {
    let out = from.with_extension("out.rdb");
    let arguments = [
        "convert",
        from.to_str().unwrap(),
        out.to_str().unwrap(),
        "--for",
        version.name(),
    ];
    let output = run(&arguments, b"").expect_code(code);
    check_rdb(version, &out);
    (output, loaded(version, &out))
}

fn ask<T: redis::FromRedisValue>(server: &TestServer, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    let reply = command.arg(&words[1..]).query(&mut server.client());
    reply.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// Servers take a plain node of nothing for an empty list, and refuse the file.
#[test]
fn a_list_node_that_is_an_empty_string_is_written_in_another_form() {
    let directory = tempfile::tempdir().unwrap();
    let list = key(18, "l", b"\x03\x01\x01a\x01\x00\x01\x01b");
    let from = file(
        directory.path(),
        b"REDIS0010",
        &[&b"\xfe\x00"[..], &list].concat(),
    );
    for version in available() {
        let (_, server) = converted(&from, version, 0);
        let rows: Vec<String> = ask(&server, &["LRANGE", "l", "0", "-1"]);
        assert_eq!(rows, ["a", "", "b"], "{version}");
        // The same by RESTORE.
        let destination = TestServer::start(version);
        run(
            &[
                "copy",
                from.to_str().unwrap(),
                &destination.url(),
                "--verify",
            ],
            b"",
        )
        .success();
        let rows: Vec<String> = ask(&destination, &["LRANGE", "l", "0", "-1"]);
        assert_eq!(rows, ["a", "", "b"], "{version}");
    }
}

#[test]
fn vector_sets_go_only_where_there_are_any() {
    let Some(version) = require(Version::Redis80) else {
        return;
    };
    let source = TestServer::start(version);
    let _: i64 = ask(&source, &["VADD", "v", "VALUES", "2", "1", "2", "element"]);
    let _: String = ask(&source, &["SET", "k", "v"]);
    let from = crate::rdb::saved(&source);
    for to in available() {
        let has_them = to == Version::Redis80;
        let (output, server) = converted(&from, to, if has_them { 0 } else { 3 });
        assert_eq!(ask::<String>(&server, &["GET", "k"]), "v");
        assert_eq!(ask::<i64>(&server, &["EXISTS", "v"]), i64::from(has_them));
        let refused = output.stderr.contains("key \"v\"");
        assert_eq!(refused, !has_them, "{to}: {}", output.stderr);
    }
}

#[test]
fn what_comes_twice_is_written_once() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let library = |name: &str, function: &str| {
        let code = format!(
            "#!lua name={name}\nredis.register_function('{function}', function() return 1 end)"
        );
        [
            &[0xf5, 0x40 | (code.len() >> 8) as u8, code.len() as u8],
            code.as_bytes(),
        ]
        .concat()
    };
    let directory = tempfile::tempdir().unwrap();
    let inner = [
        library("a", "f"),
        library("b", "g"),
        library("a", "h"),
        b"\xfe\x00".to_vec(),
        key(0, "k", b"\x05first"),
        key(0, "other", b"\x01v"),
        key(0, "k", b"\x06second"),
        // The first is no listpack and cannot be written.
        b"\x10\x01d\x02ab".to_vec(),
        key(0, "d", b"\x06second"),
        b"\xfe\x01".to_vec(),
        key(0, "k", b"\x05other"),
    ]
    .concat();
    let from = file(directory.path(), b"REDIS0010", &inner);
    let (output, server) = converted(&from, version, 3);
    let output = output.expect_stderr("db 0 key \"k\": the RDB data hold this key twice");
    output.expect_stderr("the function library \"a\" twice");
    assert_eq!(ask::<String>(&server, &["GET", "k"]), "first");
    assert_eq!(ask::<u8>(&server, &["EXISTS", "d"]), 0);
    let other: String = redis::cmd("GET")
        .arg("k")
        .query(&mut server.client_db(1))
        .unwrap();
    assert_eq!(other, "other");
    let functions = format!("{:?}", ask::<redis::Value>(&server, &["FUNCTION", "LIST"]));
    for (name, is_there) in [("'f'", true), ("'g'", true), ("'h'", false)] {
        let name = name.trim_matches('\'');
        let shown = format!("bulk-string('\"{name}\"')");
        assert_eq!(functions.contains(&shown), is_there, "{name}: {functions}");
    }
}

#[test]
fn zipmaps_that_no_server_loads_are_refused_by_name() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let inner = [
        b"\xfe\x00".to_vec(),
        key(9, "field", b"\x0b\x01\xfe\x01\0\0\0f\x01\0v\xff"),
        key(9, "value", b"\x0b\x01\x01f\xfe\x01\0\0\0\0v\xff"),
        key(9, "sound", b"\x07\x01\x01f\x01\0v\xff"),
    ]
    .concat();
    let from = file(directory.path(), b"REDIS0003", &inner);
    let (output, server) = converted(&from, version, 3);
    let output = output.expect_stderr("key \"field\": its value is damaged");
    output.expect_stderr("key \"value\": its value is damaged");
    assert_eq!(ask::<Vec<String>>(&server, &["KEYS", "*"]), ["sound"]);
    assert_eq!(ask::<String>(&server, &["HGET", "sound", "f"]), "v");
}

/// Beyond 2^48 − 1 ms, in the year 10889, Redis refuses the whole file.
#[test]
fn field_expiries_beyond_the_latest_are_moved_and_counted() {
    let (Some(redis), Some(_)) = (require(Version::Redis80), require(Version::Valkey91)) else {
        return;
    };
    let latest: i64 = (1 << 48) - 1;
    let directory = tempfile::tempdir().unwrap();
    for (at, moved) in [((1_i64 << 46) + 5, false), (latest, false), (1 << 50, true)] {
        let ttl = [&b"\x01\x01f\x01v"[..], &at.to_le_bytes()].concat();
        let valkey = [
            b"\xfa\x0avalkey-ver\x059.1.0\xfe\x00".to_vec(),
            key(22, "h", &ttl),
        ]
        .concat();
        // The lowest expiry, and the field's as a distance from it.
        let own = [&at.to_le_bytes()[..], b"\x01\x01\x01f\x01v"].concat();
        let own = [b"\xfe\x00".to_vec(), key(24, "h", &own)].concat();
        for (magic, inner) in [(b"VALKEY080", &valkey), (b"REDIS0012", &own)] {
            let from = file(directory.path(), magic, inner);
            let (output, server) = converted(&from, redis, 0);
            let counted = output
                .stderr
                .contains("field expiries moved to the latest possible 1");
            assert_eq!(counted, moved, "{at}: {}", output.stderr);
            let found: Vec<i64> = ask(&server, &["HPEXPIRETIME", "h", "FIELDS", "1", "f"]);
            assert_eq!(found, [at.min(latest)], "{at}");
            let destination = TestServer::start(redis);
            let copy = ["copy", from.to_str().unwrap(), &destination.url()];
            let copied = run(&copy, b"").success();
            let counted = copied
                .stderr
                .contains("field expiries moved to the latest possible 1");
            assert_eq!(counted, moved, "{at}: {}", copied.stderr);
            let found: Vec<i64> = ask(&destination, &["HPEXPIRETIME", "h", "FIELDS", "1", "f"]);
            assert_eq!(found, [at.min(latest)], "{at}");
        }
    }
}

/// `redis-cli --rdb -` leaves the end mark of the replication protocol behind the file.
#[test]
fn an_end_mark_and_a_line_end_may_follow() {
    for version in available() {
        let source = TestServer::start(version);
        let _: String = ask(&source, &["SET", "k", "v"]);
        let saved = std::fs::read(crate::rdb::saved(&source)).unwrap();
        let bytes = source.cli(&["--rdb", "-"]).stdout;
        let has_mark = bytes.len() > 40 && bytes[bytes.len() - 49] == 0xff;
        assert!(has_mark || bytes[bytes.len() - 9] == 0xff, "{version}");
        let path = source.path().join("cli.rdb");
        let mark = "0123456789abcdef".repeat(3).into_bytes();
        for (bytes, said) in [
            (bytes, has_mark.then_some("40 bytes by which")),
            (
                [&saved[..], &mark[..40]].concat(),
                Some("40 bytes by which"),
            ),
            ([&saved[..], b"\n"].concat(), Some("a line end")),
        ] {
            std::fs::write(&path, &bytes).unwrap();
            // A real server loads it.
            let server = loaded(version, &path);
            assert_eq!(ask::<String>(&server, &["GET", "k"]), "v");
            let export = run(&["export", path.to_str().unwrap()], b"").success();
            if let Some(said) = said {
                export.expect_stderr(said);
            }
        }
        for more in [&mark[..39], &mark[..41], b"\n\n", b"*1\r\n"] {
            std::fs::write(&path, [&saved[..], more].concat()).unwrap();
            run(&["export", path.to_str().unwrap()], b"").expect_code(10);
        }
    }
}

/// Opcode 246, which release candidates of 7.0 wrote, and 7.0 loads.
#[test]
fn libraries_of_release_candidates_come_along() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let code = "redis.register_function('f', function() return 1 end)";
    let inner = [
        &b"\xf6\x05mylib\x03LUA\x00"[..],
        &[code.len() as u8],
        code.as_bytes(),
        b"\xfe\x00",
        &key(0, "k", b"\x01v"),
    ]
    .concat();
    let from = file(directory.path(), b"REDIS0010", &inner);
    let name = from.to_str().unwrap();
    let theirs = loaded(version, &from);
    let ours = TestServer::start(version);
    run(&["copy", name, &ours.url()], b"").success();
    let list = ["FUNCTION", "LIST", "WITHCODE"];
    let shown = |server: &TestServer| format!("{:?}", ask::<redis::Value>(server, &list));
    assert_eq!(shown(&ours), shown(&theirs));
    assert_eq!(ask::<String>(&ours, &["GET", "k"]), "v");
    let (_, server) = converted(&from, version, 0);
    assert_eq!(shown(&server), shown(&theirs));
    let export = run(&["export", name, "--no-functions"], b"").success();
    assert!(crate::rdb::read(&export.stdout).records.len() == 1);
}

/// One library for which a server refuses the whole file does not cost the rest.
#[test]
fn libraries_that_no_server_loads_are_refused_by_name() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let library = |code: &str| {
        let len = [0x40 | (code.len() >> 8) as u8, code.len() as u8];
        [&[0xf5], &len[..], code.as_bytes()].concat()
    };
    let good = "#!lua name=good\nredis.register_function('f', function() return 1 end)";
    let nameless = "redis.register_function('g', function() return 1 end)";
    // Its name is libB.
    let quoted = "#!lua name=\"lib\\x42\"\nredis.register_function('h', function() return 2 end)";
    let inner = [
        library(good),
        library(nameless),
        // LZF: 3 bytes that would be 9, and refer to what was never there.
        b"\xf5\xc3\x03\x09\xe0\x00\x05".to_vec(),
        library(quoted),
        b"\xfe\x00".to_vec(),
        key(0, "k", b"\x01v"),
    ]
    .concat();
    let directory = tempfile::tempdir().unwrap();
    let from = file(directory.path(), b"REDIS0010", &inner);
    let titles = ["function library number 2", "function library number 3"];
    let named = |output: Output| {
        for title in titles {
            assert_eq!(output.stderr.matches(title).count(), 1, "{}", output.stderr);
        }
        output
    };
    let (output, server) = converted(&from, version, 3);
    named(output);
    assert_eq!(ask::<String>(&server, &["GET", "k"]), "v");
    assert_eq!(ask::<i64>(&server, &["FCALL", "f", "0"]), 1);
    assert_eq!(ask::<i64>(&server, &["FCALL", "h", "0"]), 2);

    // An archive keeps them, and is not called sound.
    let (name, archive) = (from.to_str().unwrap(), from.with_extension("rmz"));
    let archive = archive.to_str().unwrap();
    let output = run(&["export", name, "-o", archive, "--json"], b"").expect_code(3);
    assert_eq!(named(output).summary()["sink"]["damaged"], 2);
    let output = named(run(&["verify", archive, "--json"], b"").expect_code(3));
    assert_eq!(output.summary()["values"]["bad_function_payloads"], 2);
    run(&["export", name, "--no-check"], b"").success();
}

/// The base of an append-only file in parts: what was written since stands beside it.
#[test]
fn the_base_of_an_append_only_file_is_not_exact() {
    for version in available() {
        let source = TestServer::builder(version)
            .option("--appendonly", "yes")
            .start();
        let _: String = ask(&source, &["SET", "k", "v"]);
        let directory = source.path().join("appendonlydir");
        if !directory.exists() {
            // 6.0 and 6.2 have one file.
            continue;
        }
        let base = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.to_string_lossy().ends_with(".base.rdb"))
            .unwrap();
        let destination = TestServer::start(version);
        let copy = ["copy", base.to_str().unwrap(), &destination.url()];
        let copied = run(&copy, b"").success();
        let copied = copied.expect_stderr("the base of an append-only file");
        let copied = copied.expect_stderr("appendonly.aof.1.incr.aof");
        assert!(!copied.stderr.contains("exact"), "{}", copied.stderr);
        let export = run(&["export", base.to_str().unwrap()], b"").success();
        let export = export.expect_stderr("without what was written after 2");
        assert!(!export.stderr.contains("exact"), "{}", export.stderr);
        let reached = crate::rdb::read(&export.stdout).end.facts.reached;
        assert!(
            !matches!(
                reached,
                redis_migrate_format::header::ConsistencyReached::Exact(_)
            ),
            "{reached:?}"
        );
    }
}

/// A compressed string that claims 2.1 GB, out of 24 MiB of nothing.
#[test]
fn what_a_file_claims_is_not_allocated() {
    let directory = tempfile::tempdir().unwrap();
    let n: u32 = 24 << 20;
    let mut inner = b"\xfe\x00\x00\x01k\xc3\x80".to_vec();
    inner.extend_from_slice(&n.to_be_bytes());
    inner.push(0x81);
    inner.extend_from_slice(&(u64::from(n) * 88).to_be_bytes());
    inner.resize(inner.len() + n as usize, 0xff);
    let path = file(directory.path(), b"REDIS0011", &inner);
    let output = run(&["export", path.to_str().unwrap()], b"").expect_code(10);
    let output = output.expect_stderr("copies from before its start");
    let peak = output.peak_memory_kib;
    assert!(peak < 100 << 10, "{peak} KiB");
    // One that is true needs its memory, but not beyond --max-value.
    let mut inner = b"\xfe\x00\x00\x01k\xc3".to_vec();
    let mut packed = b"\x00x".to_vec();
    while packed.len() < 2 << 20 {
        packed.extend_from_slice(b"\xe0\xff\x00");
    }
    let plain = 1 + (packed.len() - 2) / 3 * 264;
    payload::write::length(&mut inner, packed.len() as u64);
    payload::write::length(&mut inner, plain as u64);
    inner.extend_from_slice(&packed);
    inner.extend_from_slice(&key(0, "small", b"\x01v"));
    let path = file(directory.path(), b"REDIS0011", &inner);
    let export = ["export", path.to_str().unwrap(), "--max-value", "1MiB"];
    let output = run(&export, b"").expect_code(3).expect_stderr("key \"k\"");
    let peak = output.peak_memory_kib;
    assert!(peak < 64 << 10, "{peak} KiB");
    assert_eq!(crate::rdb::read(&output.stdout).records.len(), 1);
}
