//! Archives and RDB files on either side, told apart by their bytes; damaged ones; standard input.

use std::path::{Path, PathBuf};

use redis_migrate_payload::payload;

use crate::diff::found::{diff, expect, found, send, summary};
use crate::support::dataset::fill_every_type;
use crate::support::random::Random;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::run;

struct Files {
    directory: tempfile::TempDir,
    server: TestServer,
}

impl Files {
    /// A server with every type, its archive and its RDB file, under names that say nothing.
    fn of(version: Version) -> Option<Self> {
        let server = TestServer::start(require(version)?);
        fill_every_type(&mut server.client(), version);
        send(&mut server.client(), &["SAVE"]);
        let files = Self {
            directory: tempfile::tempdir().unwrap(),
            server,
        };
        std::fs::copy(files.server.path().join("dump.rdb"), files.path("one")).unwrap();
        run(
            &["export", &files.server.url(), "-o", &files.name("two")],
            b"",
        )
        .success();
        Some(files)
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.directory.path()).join(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

#[test]
fn files_are_known_by_their_bytes() {
    for version in [Version::Redis60, Version::Redis80, Version::Valkey91] {
        let Some(files) = Files::of(version) else {
            continue;
        };
        let (rdb, archive, url) = (files.name("one"), files.name("two"), files.server.url());
        for (left, right) in [
            (&rdb, &archive),
            (&archive, &rdb),
            (&rdb, &url),
            (&url, &archive),
            (&archive, &archive),
        ] {
            let said = summary(&expect(left, right, &[], &[]));
            assert!(said["equal"].as_u64().unwrap() >= 45, "{said}");
        }
        let said = summary(&expect(&rdb, &archive, &[], &[]));
        assert_eq!(said["left_side"]["what"], "RDB file");
        assert_eq!(said["right_side"]["what"], "archive");
        for (file, other) in [("one", &archive), ("two", &rdb)] {
            let bytes = std::fs::read(files.path(file)).unwrap();
            run(&["diff", "-", other], &bytes).success();
            run(&["diff", other, "-"], &bytes).success();
        }
        send(&mut files.server.client(), &["DEL", "list:small"]);
        send(&mut files.server.client(), &["SET", "hash:small", "1"]);
        let expected = [("0", "list:small", "missing"), ("0", "hash:small", "type")];
        expect(&rdb, &url, &["--recheck", "0"], &expected);
        expect(&archive, &url, &["--recheck", "0"], &expected);
    }
}

/// The last record of a key counts, and a tombstone takes it back.
#[test]
fn an_archive_says_what_holds_at_its_end() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let source = TestServer::start(version);
    for n in 0..2_000 {
        send(&mut source.client(), &["SET", &format!("k:{n}"), "v"]);
    }
    let mut export = crate::support::tool::Tool::new(&[
        "export",
        &source.url(),
        "--follow",
        "--until-idle",
        "1500ms",
    ])
    .stdout_piped()
    .spawn();
    let mut stdout = export.stdout();
    let reader = std::thread::spawn(move || {
        let mut archive = Vec::new();
        std::io::Read::read_to_end(&mut stdout, &mut archive).unwrap();
        archive
    });
    std::thread::sleep(std::time::Duration::from_millis(700));
    for n in 0..100 {
        send(&mut source.client(), &["SET", &format!("k:{n}"), "changed"]);
        send(&mut source.client(), &["DEL", &format!("k:{}", 1_000 + n)]);
        send(
            &mut source.client(),
            &["SET", &format!("k:{}", 1_500 + n), "once"],
        );
        send(
            &mut source.client(),
            &["SET", &format!("k:{}", 1_500 + n), "twice"],
        );
    }
    export.wait().success();
    let archive = reader.join().unwrap();
    let output = run(&["diff", "-", &source.url(), "--json"], &archive).success();
    assert_eq!(summary(&output)["equal"], 1_900);
}

#[test]
fn a_damaged_file_is_never_equal_nor_different() {
    let Some(files) = Files::of(Version::Redis70) else {
        return;
    };
    let url = files.server.url();
    for name in ["one", "two"] {
        let bytes = std::fs::read(files.path(name)).unwrap();
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 0x10;
        for damaged in [
            &bytes[..bytes.len() - 20],
            &flipped,
            &bytes[..3],
            b"hello, world",
        ] {
            let bad = files.path("bad");
            std::fs::write(&bad, damaged).unwrap();
            let output = diff(bad.to_str().unwrap(), &url, &[]).expect_code(10);
            assert_eq!(found(&output).len(), 0);
            assert!(!output.stderr.is_empty());
            run(&["diff", &url, "-", "--json"], damaged).expect_code(10);
        }
    }
    let bad = files.name("bad");
    run(&["verify", &bad, "--against", &url], b"").expect_code(10);
    // What went wrong is the exit code, not what it was compared with.
    diff(
        &files.name("two"),
        "redis://127.0.0.1:1",
        &["--connect-timeout", "1s"],
    )
    .expect_code(12);
    diff(&files.name("none"), &url, &[]).expect_code(2);
    diff("-", "-", &[]).expect_code(2);
}

#[test]
fn verify_against_a_server_checks_the_file_and_the_server() {
    let Some(files) = Files::of(Version::Redis80) else {
        return;
    };
    let (archive, url) = (files.name("two"), files.server.url());
    let bytes = std::fs::read(&archive).unwrap();
    run(&["verify", &archive, "--against", &url], b"").success();
    run(&["verify", "--against", &url], &bytes).success();
    send(&mut files.server.client(), &["LPUSH", "list:small", "x"]);
    let flags = ["--against", &url, "--json", "--recheck", "0"];
    let output = run(&[&["verify", &archive][..], &flags].concat(), b"").expect_code(5);
    assert_eq!(found(&output).len(), 1);
    assert_eq!(summary(&output)["verb"], "verify");
    let output = run(&[&["verify"][..], &flags].concat(), &bytes).expect_code(5);
    assert_eq!(found(&output).len(), 1);
    run(&["verify", &archive, "--sample", "100"], b"").expect_code(2);
    let output = run(&["verify", &archive, "--against", "dump.rdb"], b"").expect_code(2);
    assert!(output.stderr.contains("diff"), "{}", output.stderr);
}

/// What a server saves that has one key and one function library of some KiB, which compress badly.
fn with_large_library(version: Version, seed: u64, file: &Path) {
    let server = TestServer::start(version);
    let mut client = server.client();
    send(&mut client, &["SET", "k", "v"]);
    let noise = Random::new(seed).bytes(2_000);
    let noise: String = noise.iter().map(|byte| format!("{byte:02x}")).collect();
    let code = format!(
        "#!lua name=lib\n-- {noise}\nredis.register_function('f', function() return {seed} end)"
    );
    send(&mut client, &["FUNCTION", "LOAD", &code]);
    send(&mut client, &["SAVE"]);
    std::fs::copy(server.path().join("dump.rdb"), file).unwrap();
}

/// A function library that `--max-value` leaves out was not compared, in whatever it stands.
#[test]
fn a_library_too_large_to_be_read_is_not_equal() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let name = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    for (seed, rdb, archive) in [(1, "a.rdb", "a.rmz"), (2, "b.rdb", "b.rmz")] {
        with_large_library(version, seed, Path::new(&name(rdb)));
        run(&["export", &name(rdb), "-o", &name(archive)], b"").success();
    }
    for (left, right) in [("a.rdb", "b.rdb"), ("a.rmz", "b.rdb"), ("a.rdb", "b.rmz")] {
        let (left, right) = (name(left), name(right));
        let limit = ["--max-value", "1k"];
        let output = diff(&left, &right, &limit).expect_code(3);
        let said = summary(&output);
        assert_eq!(said["equal"], 1, "{said}");
        let not_had = said["not_had"].as_array().unwrap();
        // In an archive a value of a few KiB is read with its frame.
        for side in [&left, &right]
            .into_iter()
            .filter(|name| name.ends_with(".rdb"))
        {
            let is_named = |line: &serde_json::Value| {
                let line = line.as_str().unwrap();
                line.contains("--max-value") && line.contains(side.as_str())
            };
            assert!(not_had.iter().any(is_named), "{said}");
        }
        let text = run(&[&["diff", &left, &right][..], &limit].concat(), b"").expect_code(3);
        let text = String::from_utf8(text.stdout).unwrap();
        // What stands in an archive is known, and is named.
        let word = match left.ends_with(".rdb") && right.ends_with(".rdb") {
            true => "no difference found, but not everything was compared",
            false => "not all could be compared",
        };
        assert!(text.contains(word), "{text}");
        diff(&left, &right, &["--max-value", "1k", "--no-functions"]).success();
        let found = found(&diff(&left, &right, &[]).expect_code(5));
        assert_eq!(found.len(), 1, "{found:?}");
    }
}

/// The same words and the same end, whether the archive has a name or comes from a pipe.
#[test]
fn a_pipe_is_verified_as_a_file_is() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, other) = (TestServer::start(version), TestServer::start(version));
    for server in [&source, &other] {
        let mut client = server.client();
        send(
            &mut client,
            &["CONFIG", "SET", "sanitize-dump-payload", "no"],
        );
        send(&mut client, &["SET", "sound", "v"]);
        // A hash that has a field twice, under a checksum that is right.
        let hash = b"\x10\x13\x13\0\0\0\x04\0\x81f\x02\x81v\x02\x81f\x02\x81w\x02\xff";
        let dump = payload::sign(hash, version.rdb_version());
        let restore = redis::cmd("RESTORE")
            .arg(&("twice", 0, dump))
            .exec(&mut client);
        restore.unwrap();
    }
    send(&mut other.client(), &["SET", "sound", "another"]);
    let archive = run(&["export", &source.url(), "--no-check"], b"").stdout;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.rmz");
    std::fs::write(&file, &archive).unwrap();
    let file = file.to_str().unwrap();
    for (server, damaged, records) in [(&source, 3, 0), (&other, 5, 5)] {
        let url = server.url();
        for (flags, code) in [
            (&[][..], damaged),
            (&["--json"], damaged),
            (&["--level", "records"], records),
            (&["--quick"], records),
            (&["--max-value", "1"], 3),
        ] {
            let flags = [&["--against", &url, "--recheck", "0"][..], flags].concat();
            let by_name = run(&[&["verify", file][..], &flags].concat(), b"").expect_code(code);
            let piped = run(&[&["verify"][..], &flags].concat(), &archive).expect_code(code);
            let said = |text: &str| text.replace(file, "-").replace("standard input", "-");
            assert_eq!(said(&piped.stderr), said(&by_name.stderr), "{flags:?}");
            // What differs comes in the order of hashes.
            let of = |bytes: &[u8]| {
                let text = said(std::str::from_utf8(bytes).unwrap());
                let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            assert_eq!(of(&piped.stdout), of(&by_name.stdout), "{flags:?}");
            if code != records {
                assert!(piped.stderr.contains("twice"), "{}", piped.stderr);
            }
        }
    }
    // What is cut off or changed ends as a file does.
    let url = source.url();
    for damaged in [&archive[..archive.len() - 20], b"REDIS0011", b""] {
        std::fs::write(file, damaged).unwrap();
        for flags in [&["--against", &url][..], &["--against", &url, "--json"]] {
            let by_name = run(&[&["verify", file][..], flags].concat(), b"").expect_code(10);
            let piped = run(&[&["verify"][..], flags].concat(), damaged).expect_code(10);
            assert_eq!(piped.stderr.replace("standard input", file), by_name.stderr,);
        }
    }
}
