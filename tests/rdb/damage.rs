//! Damaged files: a clear error, exit code 10, and no archive that looks complete.

use std::path::Path;

use crate::rdb::{filled, saved};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::run;
use redis_migrate_payload::rdb::{Form, RdbReader};

fn walk(bytes: &[u8]) -> Result<u64, redis_migrate_payload::rdb::RdbError> {
    let mut reader = RdbReader::new(bytes, Form::Compact)?;
    let mut events = 0;
    while reader.next_event()?.is_some() {
        events += 1;
    }
    reader.expect_end()?;
    Ok(events)
}

#[test]
fn every_truncation_of_a_small_file_is_an_error() {
    for version in [Version::Redis60, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let server = TestServer::start(version);
        let mut client = server.client();
        for command in [
            &["SET", "string", "value"][..],
            &["SET", "packed", &"abc".repeat(200)],
            &["RPUSH", "list", "a", "b", "3"],
            &["SADD", "set", "1", "2", "x"],
            &["ZADD", "zset", "1.5", "a", "2", "b"],
            &["HSET", "hash", "f", "v"],
            &["XADD", "stream", "1-1", "f", "v"],
            &["XGROUP", "CREATE", "stream", "g", "0"],
            &["SETEX", "ttl", "1000", "v"],
        ] {
            redis::cmd(command[0])
                .arg(&command[1..])
                .exec(&mut client)
                .unwrap();
        }
        let bytes = std::fs::read(saved(&server)).unwrap();
        assert!(walk(&bytes).unwrap() > 8);
        for len in 0..bytes.len() {
            let error = walk(&bytes[..len]).unwrap_err();
            assert!(error.is_damage(), "{len}: {error}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(walk(&bad).is_err(), "bit {bit}");
        }
    }
}

/// Needs no server.
#[test]
fn every_truncation_of_the_sample_is_an_error() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/rdb/sample.rdb");
    let bytes = std::fs::read(sample).unwrap();
    walk(&bytes).unwrap();
    for len in 0..bytes.len() {
        assert!(walk(&bytes[..len]).unwrap_err().is_damage(), "{len}");
    }
}

#[test]
fn a_damaged_file_leaves_no_archive() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = filled(TestServer::builder(version));
    let mut bytes = std::fs::read(saved(&server)).unwrap();
    let (damaged, output) = (server.path().join("bad.rdb"), server.path().join("out.rmz"));
    let export = |bytes: &[u8], expected: &str| {
        std::fs::write(&damaged, bytes).unwrap();
        let (from, to) = (damaged.to_str().unwrap(), output.to_str().unwrap());
        run(&["export", from, "-o", to], b"")
            .expect_code(10)
            .expect_stderr(expected)
            .expect_stderr("redis-check-rdb");
        assert!(!Path::new(&output).exists());
    };
    export(&bytes[..bytes.len() / 2], "cut short");
    export(&bytes[..bytes.len() / 2], "the last good key is");
    export(&bytes[..bytes.len() - 1], "cut short");
    export(
        &[&bytes[..], b"*2\r\n"].concat(),
        "goes on after its end mark",
    );
    let at = bytes.len() - 3;
    bytes[at] ^= 1;
    export(&bytes, "checksum");
}

#[test]
fn a_file_without_a_checksum_is_read_and_that_is_said() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = filled(TestServer::builder(version).option("--rdbchecksum", "no"));
    let file = saved(&server);
    run(&["export", file.to_str().unwrap()], b"")
        .success()
        .expect_stderr("has no checksum");
}
