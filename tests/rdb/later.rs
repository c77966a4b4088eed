//! Files of Redis 8.8 and 8.10 and of Valkey 9.2: made by hand from the layout, no server confirmed.

use std::io::Write as _;

use crate::rdb::odd::{file, key};
use crate::support::tool::{pipe, run};

/// The file in Valkey's envelope, with Zstandard.
fn wrapped(inside: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(inside).unwrap();
    [&b"VCS\x01\x02\x00\x01"[..], &encoder.finish().unwrap()].concat()
}

/// Wherever a file is read, its envelope is opened.
#[test]
fn a_compressed_file_is_read_as_what_is_in_it() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/rdb/sample.rdb");
    let directory = tempfile::tempdir().unwrap();
    let inside = std::fs::read(sample).unwrap();
    let bytes = wrapped(&inside);
    let path = directory.path().join("compressed.rdb");
    std::fs::write(&path, &bytes).unwrap();
    let name = path.to_str().unwrap();
    run(&["diff", sample, name], b"").success();
    run(&["diff", sample, "-"], &bytes).success();
    let (one, other) = (
        run(&["convert", sample, "--to", "jsonl"], b"").success(),
        run(&["convert", "-", "--to", "jsonl"], &bytes).success(),
    );
    assert_eq!(one.stdout, other.stdout);
    let (export, _) = pipe(&["export", name], &["inspect", "--json"]);
    export.success();
    // Where an archive is due, as any RDB file.
    run(&["verify", name], b"")
        .expect_code(10)
        .expect_stderr("redis-migrate copy FILE DEST");
    // Cut anywhere it is damaged, not shorter.
    run(
        &["export", "-", "-o", "/dev/null"],
        &bytes[..bytes.len() - 1],
    )
    .expect_code(10)
    .expect_stderr("cut short");
}

const ARRAY: &[u8] = b"\x02\x01\x05\x00\x01*\0\0\0\0\0\0\0\x05\x03\x03abc";

/// Hashes with templates go everywhere, arrays only where they are known; both are called unproven.
#[test]
fn arrays_and_templates_become_what_a_target_has() {
    let directory = tempfile::tempdir().unwrap();
    let inner = [
        &b"\xfe\x00\xf2\x00\x02\x01a\x02bb"[..],
        &key(32, "h", b"\x00\x01x\x01y"),
        &key(28, "sparse", ARRAY),
    ]
    .concat();
    let from = file(directory.path(), b"REDIS0015", &inner);
    let from = from.to_str().unwrap();
    let lines = run(&["convert", from, "--to", "jsonl"], b"")
        .success()
        .expect_stderr("1 array of Redis 8.8")
        .expect_stderr("1 hash with templates of Redis 8.10")
        .expect_stderr("not tested with a server");
    let text = String::from_utf8(lines.stdout).unwrap();
    for due in [
        r#""type":"hash","value":[["a","x"],["bb","y"]]"#,
        r#""type":"array","value":{"cursor":5,"elements":[[0,"42"],[5,"abc"]]}"#,
    ] {
        assert!(text.contains(due), "{text}");
    }
    let out = directory.path().join("out.rdb");
    let out = out.to_str().unwrap();
    for (target, code) in [
        ("redis-8.10", 0),
        ("redis-8.8", 0),
        ("redis-8.6", 3),
        ("valkey-9.2", 3),
    ] {
        let said = run(&["convert", from, out, "--for", target], b"").expect_code(code);
        let is_tried = target == "redis-8.6";
        let text = said.stderr.clone();
        assert_eq!(text.contains("is written by published layouts"), !is_tried);
        if code == 3 {
            said.expect_stderr("\"sparse\"")
                .expect_stderr("it is an array of Redis 8.8")
                .expect_stderr("has nothing equal to it");
        }
        let lines = run(&["convert", out, "--to", "jsonl"], b"").success();
        let text = String::from_utf8(lines.stdout).unwrap();
        assert_eq!(
            text.lines().count(),
            if code == 3 { 1 } else { 2 },
            "{target}"
        );
        assert!(
            text.contains(r#"[["a","x"],["bb","y"]]"#),
            "{target}: {text}"
        );
    }
    // Another run finds them equal, also as an archive.
    let archive = directory.path().join("snap.rmz");
    let archive = archive.to_str().unwrap();
    run(&["export", from, "-o", archive], b"").success();
    run(&["verify", archive], b"").success();
    run(&["diff", from, archive], b"").success();
    run(&["list", archive, "--type", "array"], b"").success();
}

#[test]
fn commands_between_the_keys_end_the_reading() {
    let directory = tempfile::tempdir().unwrap();
    let update = b"\xf2*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
    let inner = [&b"\xfe\x00"[..], &key(0, "good", b"\x01v"), update].concat();
    let from = file(directory.path(), b"VALKEY081", &inner);
    run(&["export", from.to_str().unwrap(), "-o", "/dev/null"], b"")
        .expect_code(10)
        .expect_stderr("opcode F2, which Valkey 9.2")
        .expect_stderr("forkless-infrastructure-enabled no")
        .expect_stderr("the last good key is \"good\"");
}
