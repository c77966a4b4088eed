//! The gate for values before they leave: what a server holds and no destination should be given is
//! named by every verb, and goes nowhere unless that is asked for.

use redis_migrate_format::record::{Record, Value};
use redis_migrate_format::{Limits, Reader};
use redis_migrate_payload::payload;

use crate::support::servers::{TestServer, Version, available, require};
use crate::support::tool::{Output, Tool, run};

/// Damaged values, each with the name it gets. Some servers take some of them.
fn damaged(version: Version) -> Vec<(&'static str, Vec<u8>)> {
    let listpack = |elements: &[&[u8]]| {
        let mut body = vec![0; 6];
        for element in elements {
            body.push(0x80 | element.len() as u8);
            body.extend_from_slice(element);
            body.push(element.len() as u8 + 1);
        }
        body.push(0xff);
        let total = (body.len() as u32).to_le_bytes();
        body[..4].copy_from_slice(&total);
        body[4] = elements.len() as u8;
        [&[body.len() as u8], &body[..]].concat()
    };
    let typed = |kind: u8, body: &[u8]| [&[kind], body].concat();
    // f, v, f, w. All that 6.0 survives until somebody reads it.
    let ziplist = b"\x18\x18\0\0\0\x13\0\0\0\x04\0\0\x01f\x03\x01v\x03\x01f\x03\x01w\xff";
    if version == Version::Redis60 {
        return vec![("packed hash twice", typed(13, ziplist))];
    }
    let mut short = listpack(&[b"a", b"b"]);
    // One element fewer is counted than stands there.
    short[5] = 1;
    vec![
        ("set twice", b"\x02\x02\x01a\x01a".to_vec()),
        (
            "zset nan",
            [&b"\x05\x01\x01a"[..], &f64::NAN.to_le_bytes()].concat(),
        ),
        (
            "zset twice",
            [
                &b"\x05\x02\x01a"[..],
                &1.0_f64.to_le_bytes(),
                b"\x01a",
                &2.0_f64.to_le_bytes(),
            ]
            .concat(),
        ),
        ("hash twice", b"\x04\x02\x01f\x01v\x01f\x01w".to_vec()),
        (
            "packed hash twice",
            typed(16, &listpack(&[b"f", b"v", b"f", b"w"])),
        ),
        (
            "packed zset twice",
            typed(17, &listpack(&[b"a", b"1", b"a", b"2"])),
        ),
        ("packed hash miscounts", typed(16, &short)),
    ]
}

/// A server that holds what it takes of them, and one sound key; the names of what it took.
fn poisoned(version: Version) -> (TestServer, Vec<&'static str>) {
    let server = TestServer::start(version);
    let mut client = server.client();
    // 6.0 has no such option, and checks nothing.
    let _ = redis::cmd("CONFIG")
        .arg(&["SET", "sanitize-dump-payload", "no"])
        .exec(&mut client);
    redis::cmd("SET")
        .arg("sound")
        .arg("v")
        .exec(&mut client)
        .unwrap();
    let mut taken = Vec::new();
    for (name, body) in damaged(version) {
        let dump = payload::sign(&body, version.rdb_version());
        let restore = redis::cmd("RESTORE")
            .arg(name)
            .arg(0)
            .arg(dump)
            .exec(&mut client);
        if restore.is_ok() {
            taken.push(name);
        }
    }
    // Without this, a test of that version would prove nothing. 9.1 checks every value.
    assert!(
        !taken.is_empty() || version == Version::Valkey91,
        "{version} takes nothing of it"
    );
    (server, taken)
}

fn named(output: &Output, kind: &str, names: &[&str]) {
    for name in names {
        let line = format!("{kind}: db 0 key \"{name}\": its value is damaged");
        assert!(output.stderr.contains(&line), "{line}\n{}", output.stderr);
    }
}

fn keys(server: &TestServer) -> Vec<String> {
    let mut keys: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query(&mut server.client())
        .unwrap();
    keys.sort();
    keys
}

/// The values of an archive by name.
fn values(archive: &[u8]) -> Vec<(String, Value)> {
    let mut reader = Reader::new(archive, Limits::default()).unwrap();
    let mut values = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        for record in frame.records {
            if let Record::Key(key) = record {
                values.push((String::from_utf8(key.key).unwrap(), key.value));
            }
        }
    }
    values
}

#[test]
fn copy_between_equal_versions_passes_nothing_damaged() {
    for version in available() {
        let (source, taken) = poisoned(version);
        if taken.is_empty() {
            continue;
        }
        let destination = TestServer::start(version);
        let copied = run(&["copy", &source.url(), &destination.url()], b"").expect_code(3);
        named(&copied, "refused", &taken);
        assert_eq!(keys(&destination), ["sound"], "{version}");

        // The same values from an RDB file.
        redis::cmd("SAVE").exec(&mut source.client()).unwrap();
        let file = source.path().join("dump.rdb");
        redis::cmd("FLUSHALL")
            .exec(&mut destination.client())
            .unwrap();
        let copied = run(&["copy", file.to_str().unwrap(), &destination.url()], b"");
        named(&copied.expect_code(3), "refused", &taken);
        assert_eq!(keys(&destination), ["sound"], "{version}");
    }
}

#[test]
fn no_check_sends_what_can_stay_as_it_is() {
    for version in available() {
        let (source, taken) = poisoned(version);
        let (destination, _) = poisoned(version);
        redis::cmd("FLUSHALL")
            .exec(&mut destination.client())
            .unwrap();
        let copy = ["copy", &source.url(), &destination.url(), "--no-check"];
        run(&copy, b"").success();
        assert_eq!(keys(&destination).len(), taken.len() + 1, "{version}");
        redis::cmd("FLUSHALL")
            .exec(&mut destination.client())
            .unwrap();
        let export = run(&["export", &source.url(), "--no-check"], b"").success();
        let import = ["import", &destination.url(), "--no-check"];
        run(&import, &export.stdout).success();
        assert_eq!(keys(&destination).len(), taken.len() + 1, "{version}");
    }
}

#[test]
fn export_keeps_damaged_values_as_they_are_and_says_so() {
    for version in available() {
        let (source, taken) = poisoned(version);
        if taken.is_empty() {
            continue;
        }
        let url = source.url();
        for flags in [&[][..], &["--verbatim"]] {
            let export = run(&[&["export", &url][..], flags].concat(), b"").expect_code(3);
            named_archived(&export, &taken);
            let archived = values(&export.stdout);
            assert_eq!(archived.len(), taken.len() + 1);
            for name in &taken {
                let (_, value) = archived.iter().find(|(key, _)| key == name).unwrap();
                let dump: Vec<u8> = redis::cmd("DUMP")
                    .arg(name)
                    .query(&mut source.client())
                    .unwrap();
                assert_eq!(*value, Value::Verbatim(dump), "{version} {name}");
            }
            let archive = &export.stdout;
            let verified = run(&["verify"], archive).expect_code(3);
            named(&verified, "damaged", &taken);
            let text = String::from_utf8(verified.stdout).unwrap();
            assert!(
                text.contains("not every value is sound (1 value decoded"),
                "{text}"
            );
            for level in [
                &["--quick"][..],
                &["--level", "frames"],
                &["--level", "records"],
            ] {
                let verified = run(&[&["verify"][..], level].concat(), archive).success();
                let text = String::from_utf8(verified.stdout).unwrap();
                assert!(text.contains("checked: "), "{text}");
            }
            let destination = TestServer::start(version);
            let imported = run(&["import", &destination.url()], archive).expect_code(3);
            named(&imported, "refused", &taken);
            assert_eq!(keys(&destination), ["sound"]);
        }
    }
}

fn named_archived(export: &Output, names: &[&str]) {
    for name in names {
        let line = format!("damaged: db 0 key \"{name}\": its value is damaged and is archived");
        assert!(export.stderr.contains(&line), "{line}\n{}", export.stderr);
    }
    let counted = format!("{} damaged and archived as is", names.len());
    assert!(
        export.stderr.contains(&counted),
        "{counted}\n{}",
        export.stderr
    );
}

#[test]
fn what_is_sound_is_said_to_be_decoded() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    for n in 0..3 {
        redis::cmd("SET")
            .arg(n)
            .arg("v")
            .exec(&mut server.client())
            .unwrap();
    }
    let export = run(&["export", &server.url()], b"").success();
    let verified = run(&["verify"], &export.stdout).success();
    let text = String::from_utf8(verified.stdout).unwrap();
    assert!(
        text.contains("complete and intact (3 values decoded)"),
        "{text}"
    );
    let json = run(&["verify", "--json"], &export.stdout).success();
    let found: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        (&found["level"], &found["values"]["decoded"]),
        (&"values".into(), &3.into())
    );
    let limited = run(&["verify", "--max-value", "1"], &export.stdout).expect_code(3);
    limited.expect_stderr("unread: db 0 key \"0\": its value has more than the");
}

/// Three entries, and a counter that says five: readable, so nobody refuses it.
#[test]
fn a_stream_that_miscounts_its_entries_travels() {
    for version in available() {
        let source = TestServer::start(version);
        // Valkey 9.1 does not take one, so it cannot be a source.
        if !miscount(&source) {
            assert_eq!(version, Version::Valkey91);
            continue;
        }
        assert_eq!(counted(&source), (5, 3), "{version}");
        let note = "the stream holds 3 entries, and its own counter says 5";
        let export = run(&["export", &source.url()], b"").success();
        let archive = export.expect_stderr(note).stdout;
        let verified = run(&["verify"], &archive).success();
        let text = String::from_utf8(verified.stdout).unwrap();
        assert!(text.contains("1 stream with a wrong counter"), "{text}");
        for (flags, is_corrected) in [
            (&[][..], false),
            (&["--sanitize"], true),
            (&["--method", "commands"], true),
        ] {
            for to in available()
                .into_iter()
                .filter(|to| to.is_valkey() || *to == version)
            {
                let destination = TestServer::start(to);
                let (from, url) = (source.url(), destination.url());
                let expected = match is_corrected || to.is_valkey() {
                    true => (3, 3),
                    false => (5, 3),
                };
                let import = [&["import", &url][..], flags].concat();
                run(&import, &archive).success().expect_stderr(note);
                assert_eq!(
                    counted(&destination),
                    expected,
                    "{version} to {to} {flags:?}"
                );
                redis::cmd("FLUSHALL")
                    .exec(&mut destination.client())
                    .unwrap();
                let copy = [&["copy", &from, &url, "--verify"][..], flags].concat();
                run(&copy, b"").success().expect_stderr(note);
                assert_eq!(
                    counted(&destination),
                    expected,
                    "{version} to {to} {flags:?}"
                );
            }
        }
    }
}

/// Puts a stream there that holds three entries and counts five, if the server takes it.
fn miscount(server: &TestServer) -> bool {
    let mut client = server.client();
    for id in ["1-1", "2-1", "3-1"] {
        let add = redis::cmd("XADD")
            .arg(&["s", id, "f", "v"])
            .exec(&mut client);
        add.unwrap();
    }
    let dump: Vec<u8> = redis::cmd("DUMP").arg("s").query(&mut client).unwrap();
    let (body, rdb_version) = payload::split(&dump).unwrap();
    // Length and last id.
    let at = body
        .windows(3)
        .rposition(|three| three == [3, 3, 1])
        .unwrap();
    let mut body = body.to_vec();
    body[at] = 5;
    let mut restore = redis::cmd("RESTORE");
    restore
        .arg("s")
        .arg(0)
        .arg(payload::sign(&body, rdb_version))
        .arg("REPLACE");
    restore.exec(&mut client).is_ok()
}

/// What XLEN says, and what XRANGE gives.
fn counted(server: &TestServer) -> (u64, usize) {
    let mut client = server.client();
    let len = redis::cmd("XLEN").arg("s").query(&mut client).unwrap();
    let range = redis::cmd("XRANGE")
        .arg(&["s", "-", "+"])
        .query::<Vec<redis::Value>>(&mut client);
    (len, range.unwrap().len())
}

/// The same meaning on every verb that reads.
#[test]
fn values_beyond_the_limit_are_named_and_the_others_come() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let mut client = server.client();
    redis::cmd("SET")
        .arg("small")
        .arg("v")
        .exec(&mut client)
        .unwrap();
    // Compressed it is far smaller than the limit.
    redis::cmd("SET")
        .arg("large")
        .arg("x".repeat(5000))
        .exec(&mut client)
        .unwrap();
    redis::cmd("SAVE").exec(&mut client).unwrap();
    let file = server.path().join("dump.rdb");
    let file = file.to_str().unwrap();
    let whole = run(&["export", file], b"").success().stdout;
    let archive = server.path().join("whole.rmz");
    std::fs::write(&archive, &whole).unwrap();
    let archive = archive.to_str().unwrap();
    let limit = ["--max-value", "1k"];
    for from in [file, &server.url()] {
        let export = run(&[&["export", from][..], &limit].concat(), b"").expect_code(3);
        let export = export
            .expect_stderr("key \"large\"")
            .expect_stderr("--max-value");
        assert_eq!(values(&export.stdout).len(), 1);
    }
    let destination = TestServer::start(version);
    for copy in [
        &["copy", file, &destination.url()][..],
        &["import", &destination.url(), archive],
    ] {
        let output = run(&[copy, &limit].concat(), b"").expect_code(3);
        output
            .expect_stderr("key \"large\"")
            .expect_stderr("--max-value");
        assert_eq!(keys(&destination), ["small"]);
        redis::cmd("FLUSHALL")
            .exec(&mut destination.client())
            .unwrap();
    }
    for from in [file, archive] {
        for to in ["rdb", "jsonl"] {
            let output = Tool::new(&["convert", from, "-", "--to", to])
                .args(&limit)
                .run();
            let output = output.expect_code(3);
            output
                .expect_stderr("key \"large\"")
                .expect_stderr("--max-value");
        }
    }
    // Not looked at on one side is neither equal nor different.
    let diff = run(
        &[&["diff", archive, &server.url()][..], &limit].concat(),
        b"",
    )
    .expect_code(3);
    let text = String::from_utf8(diff.stdout).unwrap();
    assert!(text.contains("not all could be compared"), "{text}");
    assert!(text.contains("larger than --max-value"), "{text}");
}
