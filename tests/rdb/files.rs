//! `export dump.rdb` and `copy dump.rdb DEST`.

use redis_migrate_format::header::{ConsistencyAsked, ConsistencyReached, Mode};
use redis_migrate_format::record::{Family, Record};

use crate::rdb::{assert_same, by_scan, filled, for_each_version, read, saved};
use crate::support::dataset::now_ms;
use crate::support::equality::assert_equal;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Tool, pipe, run};

mod there_and_back {
    super::for_each_version!(super::exported_and_copied);
}

fn exported_and_copied(version: Version) {
    let source = filled(TestServer::builder(version));
    let before = now_ms();
    let file = saved(&source);
    let name = file.to_str().unwrap();

    let destination = TestServer::start(version);
    let export = run(&["export", name], b"").success();
    run(&["import", &destination.url()], &export.stdout).success();
    assert_equal(&mut source.client(), &mut destination.client());

    let archive = read(&export.stdout);
    let facts = &archive.header.source;
    assert_eq!(facts.mode, Mode::RdbFile);
    assert_eq!(facts.family == Family::Valkey, version.is_valkey());
    assert_eq!(facts.nodes[0].version, version.exact());
    assert_eq!(facts.nodes[0].rdb_version, version.rdb_version());
    assert_eq!(archive.context.rdb_version, version.rdb_version());
    assert_eq!(archive.header.consistency, ConsistencyAsked::Snapshot);
    let ConsistencyReached::Exact(at) = &archive.end.facts.reached else {
        panic!("{:?}", archive.end.facts.reached);
    };
    assert!(at[0].1.abs_diff(before) < 10_000, "{at:?} {before}");
    assert!(!archive.end.facts.duplicates_possible);

    // From standard input, and without an archive in between.
    let piped = Tool::new(&["export", "-"])
        .stdin_file(&file)
        .run()
        .success();
    assert_same(&read(&piped.stdout).records, &archive.records);
    let copied = TestServer::start(version);
    run(&["copy", name, &copied.url()], b"").success();
    assert_equal(&mut source.client(), &mut copied.client());

    // The same bytes as DUMP gives.
    let from_file = run(&["export", name, "--verbatim"], b"").success();
    let from_server = run(&by_scan(&source.url(), &["--verbatim"]), b"").success();
    let (from_file, from_server) = (read(&from_file.stdout), read(&from_server.stdout));
    assert_same(&from_file.records, &from_server.records);
}

#[test]
fn selection_means_the_same_as_at_a_server() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = filled(TestServer::builder(version));
    let file = saved(&source);
    for flags in [
        &["--match", "h*"][..],
        &["--exclude", "*:*"],
        &["--type", "hash,stream"],
        &["--db", "1,9", "--no-functions"],
        &["--with-ttl"],
        &["--min-ttl", "1h"],
        &["--min-size", "200", "--max-size", "5k"],
    ] {
        let flags = [flags, &["--verbatim"]].concat();
        let server = run(&by_scan(&source.url(), &flags), b"").success();
        let file = run(
            &[&["export", file.to_str().unwrap()], &flags[..]].concat(),
            b"",
        )
        .success();
        let (server, file) = (read(&server.stdout), read(&file.stdout));
        assert_same(&server.records, &file.records);
        let filtered = |archive: &crate::rdb::Archive| -> u64 {
            let rows = &archive.end.facts.counts;
            rows.iter()
                .map(|row| row.scanned - row.written - row.filtered)
                .sum()
        };
        assert_eq!((filtered(&server), filtered(&file)), (0, 0));
        let functions = file
            .records
            .iter()
            .any(|record| matches!(record, Record::Functions(_)));
        assert_eq!(functions, !flags.contains(&"--no-functions"));
    }
}

#[test]
fn idle_times_and_frequencies_come_along() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    for (policy, object) in [("allkeys-lru", "IDLETIME"), ("allkeys-lfu", "FREQ")] {
        let server = |version| {
            TestServer::builder(version)
                .option("--maxmemory", "100mb")
                .option("--maxmemory-policy", policy)
                .start()
        };
        let (source, destination) = (server(version), server(version));
        let mut client = source.client();
        redis::cmd("SET")
            .arg("k")
            .arg("v")
            .exec(&mut client)
            .unwrap();
        let dump: Vec<u8> = redis::cmd("DUMP").arg("k").query(&mut client).unwrap();
        let wanted = if object == "FREQ" { "FREQ" } else { "IDLETIME" };
        redis::cmd("RESTORE")
            .arg("k")
            .arg(0)
            .arg(dump)
            .arg("REPLACE")
            .arg(wanted)
            .arg(200)
            .exec(&mut client)
            .unwrap();
        let file = saved(&source);
        run(&["copy", file.to_str().unwrap(), &destination.url()], b"").success();
        let got: u64 = redis::cmd("OBJECT")
            .arg(object)
            .arg("k")
            .query(&mut destination.client())
            .unwrap();
        assert!((199..=210).contains(&got), "{object} {got}");
    }
}

/// The name says nothing of what a file is.
#[test]
fn data_called_like_an_archive_are_copied_and_an_archive_called_like_data_is_imported() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = filled(TestServer::builder(version));
    let file = saved(&source);
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (data, archive) = (at("data.rmz"), at("archive.rdb"));
    std::fs::copy(&file, &data).unwrap();
    run(&["export", &data, "-o", &archive], b"").success();
    for arguments in [["copy", &data], ["import", &archive]] {
        let destination = TestServer::start(version);
        let url = destination.url();
        let [verb, file] = arguments;
        let arguments = match verb {
            "copy" => [verb, file, &url],
            _ => [verb, &url, file],
        };
        run(&arguments, b"").success();
        assert_equal(&mut source.client(), &mut destination.client());
        run(&["diff", file, &url], b"").success();
        run(&["copy", &archive, &url], b"")
            .expect_code(2)
            .expect_stderr("is an archive, and not an RDB file");
        run(&["import", &url, &data], b"")
            .expect_code(10)
            .expect_stderr("redis-migrate copy FILE DEST");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    run(&["export", "/no/such/file.rdb"], b"").expect_code(2);
    run(&["export", "localhost:6379"], b"").expect_code(2);
    run(&["export", "-", "--via", "replica"], b"").expect_code(2);
    run(&["export", "-"], b"REDIS0099")
        .expect_code(10)
        .expect_stderr("RDB version 99");
    run(&["export", "-"], b"\x89RMZ")
        .expect_code(10)
        .expect_stderr("neither an archive nor an RDB file");
    // An archive where an RDB file is due, and an RDB file where an archive is.
    let archive = b"\x89RMZ\r\n\x1a\n and more";
    run(&["export", "-"], archive)
        .expect_code(2)
        .expect_stderr("is an archive")
        .expect_stderr("import DEST FILE");
    for verb in ["verify", "list"] {
        run(&[verb, "-"], b"REDIS0011\xfa\x09redis-ver")
            .expect_code(10)
            .expect_stderr("redis-migrate copy FILE DEST");
    }
}

/// What the README begins with; no server is needed.
#[test]
fn the_sample_file_can_be_looked_at() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/rdb/sample.rdb");
    let (export, inspect) = pipe(&["export", sample], &["inspect", "--json"]);
    export.success();
    let inspect = inspect.success();
    let found: serde_json::Value = serde_json::from_slice(&inspect.stdout).unwrap();
    assert!(!found.is_null());
    let export = run(&["export", sample], b"").success();
    let archive = read(&export.stdout);
    let keys = archive
        .records
        .iter()
        .filter(|record| matches!(record, Record::Key(_)));
    assert_eq!((keys.count(), archive.records.len()), (18, 19));
}
