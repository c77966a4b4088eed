//! `convert`: RDB files that real servers load at start.

use std::path::{Path, PathBuf};
use std::process::Command;

use redis_migrate_format::header::{ConsistencyReached, EndFacts, Header, Node, SourceCounts};
use redis_migrate_format::record::{Context, Family, KeyRecord, Record, Value};
use redis_migrate_format::{Writer, WriterOptions};
use redis_migrate_payload::payload;

use crate::rdb::{filled, saved};
use crate::support::equality::{Options, assert_equal_with};
use crate::support::servers::{TestServer, Version, available, require};
use crate::support::tool::run;

/// A server that has loaded this file at its start.
pub fn loaded(version: Version, file: &Path) -> TestServer {
    let mut server = TestServer::start(version);
    server.kill();
    std::fs::copy(file, server.path().join("dump.rdb")).unwrap();
    server.restart();
    server
}

/// The server's own opinion of a file.
pub fn check_rdb(version: Version, file: &Path) {
    let output = Command::new(version.program("check-rdb"))
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{version:?}: {text}");
    assert!(text.contains("RDB looks OK"), "{version:?}: {text}");
}

fn name(version: Version) -> String {
    version.name().to_owned()
}

/// From every server, over an archive, to every server: equal by meaning.
#[test]
fn loaded_by_every_server_that_can_hold_it() {
    let versions = available();
    for &from in &versions {
        let source = filled(TestServer::builder(from));
        let dump = saved(&source);
        let path = |name: &str| -> PathBuf { source.path().join(name) };
        let archive = path("snap.rmz");
        let (dump, archive_name) = (dump.to_str().unwrap(), archive.to_str().unwrap());
        run(&["export", dump, "-o", archive_name], b"").success();
        for &to in &versions {
            let file = path("out.rdb");
            let out = file.to_str().unwrap();
            let mut arguments = vec!["convert", archive_name, out, "--for"];
            let target = name(to);
            arguments.push(&target);
            let lost_ttl = from.has_field_ttl() && !to.has_field_ttl();
            let lost_functions = from.is_at_least_7() && !to.is_at_least_7();
            if lost_ttl || lost_functions {
                // Not without being told.
                run(&arguments, b"")
                    .expect_code(3)
                    .expect_stderr("--allow-loss");
                arguments.extend(["--allow-loss", "hash-field-ttl,functions"]);
            }
            run(&arguments, b"").success();
            check_rdb(to, &file);
            let destination = loaded(to, &file);
            let options = Options {
                ignore_field_ttl: lost_ttl,
                functions: !lost_functions,
                ignore_zero_sign: from != to,
                // A server loads what is left of a life, to the millisecond.
                ..Options::default()
            };
            assert_equal_with(&mut source.client(), &mut destination.client(), &options);
        }
    }
}

/// Without naming a target it is the source itself; and newer servers load what older ones can.
#[test]
fn the_default_is_like_the_source() {
    for version in available() {
        let source = filled(TestServer::builder(version));
        let dump = saved(&source);
        let out = source.path().join("out.rdb");
        run(
            &["convert", dump.to_str().unwrap(), out.to_str().unwrap()],
            b"",
        )
        .success();
        let (ours, theirs) = (std::fs::read(&out).unwrap(), std::fs::read(&dump).unwrap());
        assert_eq!(ours[..9], theirs[..9]);
        check_rdb(version, &out);
        let destination = loaded(version, &out);
        assert_equal_with(
            &mut source.client(),
            &mut destination.client(),
            &Options::default(),
        );
    }
}

#[test]
fn older_files_are_loaded_by_all_newer_servers() {
    let Some(oldest) = require(Version::Redis60) else {
        return;
    };
    let source = filled(TestServer::builder(oldest));
    let dump = saved(&source);
    let out = source.path().join("out.rdb");
    for rdb_version in ["9", "10", "11", "12", "13"] {
        let arguments = ["convert", dump.to_str().unwrap(), out.to_str().unwrap()];
        run(
            &[&arguments[..], &["--rdb-version", rdb_version]].concat(),
            b"",
        )
        .success();
        for version in available() {
            let number: u16 = rdb_version.parse().unwrap();
            // What Redis numbered after 11, Valkey does not read.
            if version.rdb_version() < number || (version.is_valkey() && number > 11) {
                continue;
            }
            check_rdb(version, &out);
            let destination = loaded(version, &out);
            let options = Options {
                ignore_zero_sign: true,
                ..Options::default()
            };
            assert_equal_with(&mut source.client(), &mut destination.client(), &options);
        }
    }
}

fn key(db: u32, name: &str, value: &str) -> Record {
    Record::Key(KeyRecord {
        db,
        key: name.as_bytes().to_vec(),
        value: Value::Compact([&[0, value.len() as u8], value.as_bytes()].concat()),
        expire_at_ms: None,
        eviction: None,
    })
}

fn gone(db: u32, name: &str) -> Record {
    Record::Deleted {
        db,
        key: name.as_bytes().to_vec(),
    }
}

fn archive(records: &[Record]) -> Vec<u8> {
    let mut header = Header::default();
    header.source.family = Family::Redis;
    header.source.nodes.push(Node {
        version: "7.0.15".to_owned(),
        ..Node::default()
    });
    let mut writer = Writer::new(Vec::new(), &header, WriterOptions::default()).unwrap();
    writer
        .set_context(Context {
            source_time_ms: 1_700_000_000_000,
            family: Family::Redis,
            rdb_version: 10,
            node: 0,
        })
        .unwrap();
    let mut counts = std::collections::BTreeMap::<u32, SourceCounts>::new();
    for record in records {
        writer.write(record).unwrap();
        if let Record::Key(KeyRecord { db, .. }) | Record::Deleted { db, .. } = record {
            let row = counts.entry(*db).or_default();
            row.db = *db;
            row.scanned += 1;
            row.written += 1;
        }
    }
    let facts = EndFacts {
        reached: ConsistencyReached::Exact(vec![(0, 1)]),
        counts: counts.into_values().collect(),
        duplicates_possible: true,
        started_ms: 1,
        finished_ms: 2,
    };
    writer.finish(facts).unwrap().inner
}

/// A server refuses a file in which a key comes twice.
#[test]
fn of_each_key_the_last_record_is_written() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let library = |name: &str| {
        let code = format!(
            "#!lua name={name}\nredis.register_function('{name}', function() return 1 end)"
        );
        assert!(code.len() < 16384);
        let mut body = vec![0xf5, 0x40 | (code.len() >> 8) as u8, code.len() as u8];
        body.extend_from_slice(code.as_bytes());
        Record::Functions(payload::sign(&body, 10))
    };
    // A hash with a field that is longer than the hash: refused, and its older record must not
    // come back.
    let damaged = Record::Key(KeyRecord {
        db: 0,
        key: b"damaged".to_vec(),
        value: Value::Compact(b"\x10\x02\xff\xff".to_vec()),
        expire_at_ms: None,
        eviction: None,
    });
    let bytes = archive(&[
        library("old"),
        key(0, "twice", "old"),
        key(1, "twice", "other database"),
        key(0, "deleted", "x"),
        key(0, "back", "x"),
        key(0, "damaged", "older"),
        gone(0, "deleted"),
        gone(0, "back"),
        key(0, "twice", "new"),
        key(0, "back", "again"),
        gone(1, "never was"),
        library("new"),
        damaged,
    ]);
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (
        directory.path().join("a.rmz"),
        directory.path().join("a.rdb"),
    );
    std::fs::write(&from, bytes).unwrap();
    let names = [from.to_str().unwrap(), to.to_str().unwrap()];
    run(&["convert", names[0], names[1]], b"")
        .expect_code(3)
        .expect_stderr("damaged");
    check_rdb(version, &to);
    let server = loaded(version, &to);
    let mut client = server.client();
    let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut client).unwrap();
    keys.sort();
    assert_eq!(keys, ["back", "twice"]);
    let values: Vec<String> = redis::cmd("MGET").arg(&keys).query(&mut client).unwrap();
    assert_eq!(values, ["again", "new"]);
    let other: String = redis::cmd("GET")
        .arg("twice")
        .query(&mut server.client_db(1))
        .unwrap();
    assert_eq!(other, "other database");
    let functions: String = format!(
        "{:?}",
        redis::cmd("FUNCTION")
            .arg("LIST")
            .query::<redis::Value>(&mut client)
    );
    assert!(
        functions.contains("new") && !functions.contains("old"),
        "{functions}"
    );
}

#[test]
fn json_lines_of_every_type() {
    for version in available() {
        let source = filled(TestServer::builder(version));
        let dump = saved(&source);
        let output = run(&["convert", dump.to_str().unwrap(), "--to", "jsonl"], b"").success();
        let mut keys = 0;
        for line in output
            .stdout
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let line: serde_json::Value = serde_json::from_slice(line).unwrap();
            if line.get("functions").is_some() {
                assert_eq!(line["functions"].as_array().unwrap().len(), 2);
                continue;
            }
            keys += 1;
            assert!(line["value"] != serde_json::Value::Null, "{line}");
            if line["key"] == "string:embstr" && line["db"] == 1 {
                assert_eq!(line["value"], "not the one of database 0");
            }
        }
        assert!(keys > 40, "{keys}");
    }
}

#[test]
fn usage() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.rmz");
    std::fs::write(&file, archive(&[key(0, "k", "v")])).unwrap();
    let name = file.to_str().unwrap();
    let out = directory.path().join("out.rdb");
    let out = out.to_str().unwrap();
    for arguments in [
        &["convert", name, "out.rmz"][..],
        &["convert", name, "out"],
        &["convert", name, out, "--for", "redis-3.0"],
        &["convert", name, out, "--rdb-version", "16"],
        &["convert", name, "--to", "jsonl", "--for", "redis-7.0"],
        &["convert", "-", out],
        &["convert", "/no/such/file.rmz", out],
    ] {
        run(arguments, &std::fs::read(&file).unwrap()).expect_code(2);
    }
    run(&["convert", name, out, "--dry-run"], b"").success();
    assert!(!Path::new(out).exists());
    run(&["convert", name, out], b"").success();
    // Damage is found before anything is written.
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    std::fs::remove_file(out).unwrap();
    run(&["convert", name, out], b"").expect_code(10);
    assert!(!Path::new(out).exists());
}

/// What an archive does not say of its data is not said of the file that is made of it.
#[test]
fn what_is_not_of_one_instant_does_not_become_so() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (server, empty) = (TestServer::start(version), TestServer::start(version));
    crate::rdb::fill_every_type(&mut server.client(), version);
    let directory = tempfile::tempdir().expect("tempdir");
    let path = |name: &str| {
        directory
            .path()
            .join(name)
            .to_str()
            .expect("UTF-8")
            .to_owned()
    };
    for (consistency, is_exact) in [("scan", false), ("converge", true)] {
        let [archive, rdb, again] =
            ["rmz", "rdb", "2.rdb"].map(|end| path(&format!("{consistency}.{end}")));
        run(
            &[
                "export",
                &server.url(),
                "-o",
                &archive,
                "--consistency",
                consistency,
            ],
            b"",
        )
        .success();
        run(&["convert", &archive, &rdb, "--for", "redis-7.0"], b"").success();
        // Also of a file that is made of that file.
        run(&["convert", &rdb, &again, "--for", "redis-7.0"], b"").success();
        for file in [&rdb, &again] {
            let said = run(&["copy", file, &empty.url(), "--replace"], b"").success();
            assert_eq!(
                said.stderr.contains("exact as of"),
                is_exact,
                "{file}: {}",
                said.stderr
            );
        }
        let text = std::fs::read(&rdb).expect("read");
        let marked = text
            .windows(32)
            .any(|some| some == b"redis-migrate-not-of-one-instant");
        assert_eq!(marked, !is_exact);
    }
}
