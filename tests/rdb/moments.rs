//! Of what moment a file is, whether it is all of its source, and what is said of it later.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis_migrate_format::header::{
    ArchiveOrigin, ConsistencyReached, EndFacts, Header, Node, SelectionFacts, SourceCounts,
};
use redis_migrate_format::record::{Context, Family, KeyRecord, Record, Value};
use redis_migrate_format::{Writer, WriterOptions};

use crate::rdb::odd::{file, key};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, run};

/// When the archive was begun, Unix ms.
const BEGUN_MS: u64 = 1_700_000_000_000;

fn record(name: &str, value: &str) -> Record {
    body(name, &[&[0, value.len() as u8], value.as_bytes()].concat())
}

fn body(name: &str, body: &[u8]) -> Record {
    Record::Key(KeyRecord {
        db: 0,
        key: name.as_bytes().to_vec(),
        value: Value::Compact(body.to_vec()),
        expire_at_ms: None,
        eviction: None,
    })
}

/// The beginning of an archive of everything.
fn header() -> Header {
    let mut header = Header {
        source_time_ms: BEGUN_MS,
        functions: true,
        ..Header::default()
    };
    header.source.nodes.push(Node {
        version: "7.0.15".to_owned(),
        ..Node::default()
    });
    header
}

/// An archive whose end says that, whatever its records are.
fn archive(
    header: &Header,
    records: &[Record],
    reached: ConsistencyReached,
    duplicates_possible: bool,
) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), header, WriterOptions::default()).expect("begun");
    let context = Context {
        source_time_ms: BEGUN_MS,
        family: Family::Redis,
        rdb_version: 10,
        node: 0,
    };
    writer.set_context(context).expect("context");
    for record in records {
        writer.write(record).expect("written");
    }
    let written = records.len() as u64;
    let facts = EndFacts {
        reached,
        counts: vec![SourceCounts {
            db: 0,
            scanned: written,
            written,
            ..SourceCounts::default()
        }],
        duplicates_possible,
        started_ms: BEGUN_MS,
        finished_ms: BEGUN_MS + 9_000,
    };
    writer.finish(facts).expect("finished").inner
}

fn exact(at_ms: u64) -> ConsistencyReached {
    ConsistencyReached::Exact(vec![(0, at_ms)])
}

fn scan(from_ms: u64, to_ms: u64) -> ConsistencyReached {
    ConsistencyReached::Scan { from_ms, to_ms }
}

/// A directory, and the archive in it.
fn saved(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("in.rmz");
    std::fs::write(&path, bytes).expect("written");
    (directory, path)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// `convert FROM TO` with more arguments.
fn convert(from: &Path, to: &Path, more: &[&str]) -> Output {
    run(&[&["convert", text(from), text(to)], more].concat(), b"")
}

/// What an export of the file says of it, in words and in its end.
fn exported(file: &Path) -> (String, ConsistencyReached) {
    let output = run(&["export", text(file)], b"").success();
    let reached = crate::rdb::read(&output.stdout).end.facts.reached;
    (output.stderr, reached)
}

/// An RDB file of an archive is of the archive's moment or window, to the millisecond, and so is an
/// RDB file of that RDB file.
#[test]
fn the_moment_of_an_archive_goes_along() {
    let shards = ConsistencyReached::Exact(vec![(0, BEGUN_MS + 3_003), (1, BEGUN_MS + 2_002)]);
    let per_key = ConsistencyReached::PerKey {
        from_ms: BEGUN_MS + 1,
        to_ms: BEGUN_MS + 7_777,
    };
    for (reached, expected, said) in [
        (
            exact(BEGUN_MS + 5_170),
            exact(BEGUN_MS + 5_170),
            "exact as of 2023-11-14T22:13:25.170Z",
        ),
        (
            scan(BEGUN_MS + 4, BEGUN_MS + 8_004),
            scan(BEGUN_MS + 4, BEGUN_MS + 8_004),
            "not one point in time: each key as it was at some time from",
        ),
        (
            per_key,
            scan(BEGUN_MS + 1, BEGUN_MS + 7_777),
            "not one point in time",
        ),
        (
            shards,
            scan(BEGUN_MS + 2_002, BEGUN_MS + 3_003),
            "not one point in time",
        ),
    ] {
        let bytes = archive(&header(), &[record("k", "v")], reached, true);
        let (directory, from) = saved(&bytes);
        let [rdb, again] = ["a.rdb", "b.rdb"].map(|name| directory.path().join(name));
        convert(&from, &rdb, &[]).success();
        convert(&rdb, &again, &[]).success();
        for file in [&rdb, &again] {
            let (stderr, found) = exported(file);
            assert_eq!(found, expected, "{file:?}: {stderr}");
            assert!(stderr.contains(said), "{file:?}: {stderr}");
        }
    }
}

/// What a file lacks, whoever left it out and when that was known, it is not exact without.
#[test]
fn a_file_that_lacks_something_says_so() {
    let library = b"\xf5\x0d#!lua name=l\n".to_vec();
    let inner = |libraries: &[u8]| {
        [
            b"\xfa\x09redis-ver\x067.0.15\xfa\x05ctime\x0a1700000000",
            libraries,
            b"\xfe\x00",
            &key(0, "k", b"\x02v1"),
            &key(0, "long", b"\x40\xc8"),
            &[b'x'; 200],
        ]
        .concat()
    };
    let directory = tempfile::tempdir().expect("tempdir");
    let from = file(directory.path(), b"REDIS0010", &inner(&library));
    let [rdb, again, back] = ["a.rdb", "b.rdb", "c.rmz"].map(|name| directory.path().join(name));
    // By itself it is exact.
    let (stderr, reached) = exported(&from);
    assert_eq!(reached, exact(BEGUN_MS), "{stderr}");
    for (more, code) in [
        (&["--max-value", "100"][..], 3),
        (&["--match", "k"], 0),
        (&["--max-size", "100"], 0),
        (&["--no-functions"], 0),
        (&["--for", "redis-6.2"], 3),
        (&["--for", "redis-6.2", "--allow-loss", "functions"], 0),
        (&[], 0),
    ] {
        convert(&from, &rdb, &[more, &["--overwrite"]].concat()).expect_code(code);
        // Also of a file that is made of that file, and of an archive in between.
        convert(&rdb, &again, &["--overwrite"]).success();
        let rdb_name = text(&rdb);
        run(&["export", rdb_name, "-o", text(&back)], b"").success();
        let third = directory.path().join("d.rdb");
        convert(&back, &third, &["--overwrite"]).success();
        for file in [&rdb, &again, &third] {
            let (stderr, reached) = exported(file);
            let is_exact = more.is_empty();
            // What was left out was left out of one instant.
            let word = if is_exact { "exact as of" } else { "as of" };
            let moment = format!("{word} 2023-11-14T22:13:20");
            assert!(stderr.contains(&moment), "{more:?}: {stderr}");
            assert!(!stderr.contains("written after"), "{more:?}: {stderr}");
            assert_eq!(reached == exact(BEGUN_MS), is_exact, "{more:?} {file:?}");
            assert_eq!(stderr.contains("exact"), is_exact, "{more:?}: {stderr}");
            let lacks = stderr.contains("without what was left out when the file was made");
            assert_eq!(lacks, !is_exact, "{more:?}: {stderr}");
        }
    }
    // What the export of an archive left out is missing from the file as well.
    let partial = Header {
        selection: SelectionFacts {
            matches: vec![b"k*".to_vec()],
            ..SelectionFacts::default()
        },
        ..header()
    };
    let bytes = archive(&partial, &[record("k", "v")], exact(BEGUN_MS), false);
    let (_directory, archive) = saved(&bytes);
    convert(&archive, &rdb, &["--overwrite"]).success();
    let (stderr, reached) = exported(&rdb);
    assert_eq!(reached, scan(BEGUN_MS, BEGUN_MS), "{stderr}");
}

/// Salvage that found everything leaves nothing out; what it lost, or what the archive was only a part
/// of, the file lacks.
#[test]
fn a_file_of_a_salvaged_archive_lacks_what_was_lost() {
    let whole = archive(&header(), &[record("k", "v")], exact(BEGUN_MS), false);
    let part = Header {
        origin: ArchiveOrigin::Split { part: 1, of: 2 },
        ..header()
    };
    let part = archive(&part, &[record("k", "v")], exact(BEGUN_MS), false);
    // Without its trailer and END.
    let cut = whole[..whole.len() - 60].to_vec();
    for (bytes, code, lacks) in [(&whole, 0, false), (&cut, 3, true), (&part, 0, true)] {
        let (directory, broken) = saved(bytes);
        let [good, rdb] = ["good.rmz", "a.rdb"].map(|name| directory.path().join(name));
        run(&["salvage", text(&broken), "-o", text(&good)], b"").expect_code(code);
        convert(&good, &rdb, &[]).success();
        let (stderr, reached) = exported(&rdb);
        let says_so = stderr.contains("without what was left out when the file was made");
        assert_eq!(says_so, lacks, "{stderr}");
        assert_eq!(reached == exact(BEGUN_MS), !lacks, "{stderr}");
    }
}

/// Files before version 7 do not say when they were made, and nobody makes it up.
#[test]
fn a_file_without_a_moment_gets_none() {
    let directory = tempfile::tempdir().expect("tempdir");
    let inner = [&b"\xfe\x00"[..], &key(0, "k", b"\x01v")].concat();
    let from = file(directory.path(), b"REDIS0006", &inner);
    let changed_ms = 1_420_070_400_000;
    let changed: SystemTime = UNIX_EPOCH + Duration::from_millis(changed_ms);
    std::fs::File::options()
        .write(true)
        .open(&from)
        .and_then(|file| file.set_modified(changed))
        .expect("set");
    let [rdb, again] = ["a.rdb", "b.rdb"].map(|name| directory.path().join(name));
    convert(&from, &rdb, &["--for", "redis-7.0"]).success();
    convert(&rdb, &again, &["--for", "redis-7.0"]).success();
    for file in [&from, &rdb, &again] {
        let (stderr, reached) = exported(file);
        assert_eq!(reached, scan(0, changed_ms), "{file:?}: {stderr}");
        assert!(!stderr.contains("exact"), "{file:?}: {stderr}");
        assert!(
            stderr.contains("as of an unknown time"),
            "{file:?}: {stderr}"
        );
        let archive = run(&["export", text(file)], b"").success().stdout;
        let shown = run(&["inspect", "-"], &archive).success().stdout;
        let shown = String::from_utf8(shown).expect("UTF-8");
        assert!(shown.contains("as of an unknown time"), "{shown}");
        assert!(!shown.contains("1970"), "{shown}");
    }
}

/// The bytes of an RDB file that holds `k` twice, which every server refuses to load.
fn doubled(directory: &Path) -> PathBuf {
    let inner = [
        b"\xfa\x09redis-ver\x057.0.0\xfa\x05ctime\x0a1700000000\xfe\x00".to_vec(),
        key(0, "k", b"\x03one"),
        key(0, "j", b"\x01x"),
        key(0, "k", b"\x03two"),
    ]
    .concat();
    file(directory, b"REDIS0010", &inner)
}

#[test]
fn a_key_that_an_rdb_file_holds_twice_is_named() {
    let directory = tempfile::tempdir().expect("tempdir");
    let from = doubled(directory.path());
    let named = "db 0 key \"k\": the RDB data hold this key twice";
    let export = run(&["export", text(&from)], b"").expect_code(3);
    let export = export.expect_stderr(named);
    assert!(!export.stderr.contains("exact"), "{}", export.stderr);
    let held = crate::rdb::read(&export.stdout);
    assert_eq!(held.records, [record("j", "x"), record("k", "one")]);
    assert!(!held.end.facts.duplicates_possible);
    assert_eq!(held.end.facts.reached, scan(BEGUN_MS, BEGUN_MS));
    // It is what it says it is.
    run(&["verify", "-"], &export.stdout).success();

    let lines = run(&["convert", text(&from), "--to", "jsonl"], b"").expect_code(3);
    let lines = lines.expect_stderr(named);
    assert_eq!(
        lines.stdout.iter().filter(|&&byte| byte == b'\n').count(),
        2
    );

    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let copy = run(&["copy", text(&from), &server.url()], b"").expect_code(3);
    let copy = copy.expect_stderr(named);
    assert!(!copy.stderr.contains("exact"), "{}", copy.stderr);
    let value: String = redis::cmd("GET")
        .arg("k")
        .query(&mut server.client())
        .expect("GET");
    assert_eq!(value, "one");
}

/// An archive that says that no key comes twice, and holds one twice.
#[test]
fn what_an_archive_claims_of_its_keys_is_looked_at() {
    let records = [record("k", "older"), record("j", "x"), record("k", "newer")];
    let (_directory, from) = saved(&archive(&header(), &records, exact(BEGUN_MS), false));
    for level in ["values", "records"] {
        let verify = run(&["verify", text(&from), "--level", level], b"").expect_code(3);
        verify.expect_stderr("says that no key comes twice, but its 3 records are of 2 keys");
    }
    let convert = ["convert", text(&from), "--to", "jsonl", "--min-size", "1"];
    let lines = run(&convert, b"").success().stdout;
    let lines = String::from_utf8(lines).expect("UTF-8");
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(
        lines.contains("newer") && !lines.contains("older"),
        "{lines}"
    );
}

/// The last line of a key counts, also where its last value is left out.
#[test]
fn json_lines_take_back_what_does_not_stand() {
    let long = [&[0, 0x40, 0xc8][..], &[b'x'; 200]].concat();
    let records = [
        record("damaged", "older"),
        record("large", "older"),
        record("sound", "older"),
        // A set that holds a member twice.
        body("damaged", b"\x02\x02\x01a\x01a"),
        body("large", &long),
        record("sound", "newer"),
        // Was never written.
        body("new", b"\x02\x02\x01a\x01a"),
    ];
    let (_directory, from) = saved(&archive(&header(), &records, exact(BEGUN_MS), true));
    let convert = [
        "convert",
        text(&from),
        "--to",
        "jsonl",
        "--max-value",
        "100",
    ];
    let output = run(&convert, b"").expect_code(3);
    for key in ["damaged", "large", "new"] {
        assert!(output.stderr.contains(&format!("key \"{key}\"")), "{key}");
    }
    let mut last = std::collections::BTreeMap::new();
    for line in output.stdout.split(|&byte| byte == b'\n') {
        if line.is_empty() {
            continue;
        }
        let line: serde_json::Value = serde_json::from_slice(line).expect("JSON");
        last.insert(line["key"].as_str().expect("a key").to_owned(), line);
    }
    let deleted = |key: &str| serde_json::json!({ "db": 0, "key": key, "deleted": true });
    assert_eq!(last["damaged"], deleted("damaged"));
    assert_eq!(last["large"], deleted("large"));
    assert_eq!(last["sound"]["value"], "newer");
    assert_eq!(last.len(), 3);
}
