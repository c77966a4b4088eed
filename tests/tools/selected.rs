//! A selection that looks at values goes by the last record of each key, as in a live copy: one that
//! does not match replaces an earlier one that did.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use redis::cmd;
use redis_migrate_format::WriterOptions;
use redis_migrate_format::record::{KeyRecord, Record, Value};
use serde_json::Value as Json;

use crate::support::random::Random;
use crate::support::servers::{TestServer, available};
use crate::support::tool::Tool;
use crate::tools::archives::{archive, deleted, string};
use crate::tools::resume::{import_with_kills, many, read_all, small_frames};

fn with_value(key: &[u8], value: Value, expire_at_ms: Option<u64>) -> Record {
    let Record::Key(mut record) = string(0, key, b"") else {
        unreachable!()
    };
    (record.value, record.expire_at_ms) = (value, expire_at_ms);
    Record::Key(record)
}

fn hash(key: &[u8]) -> Record {
    with_value(key, Value::Compact(b"\x04\x01\x01f\x01v".to_vec()), None)
}

/// In the year 2100.
const LATER_MS: u64 = 4_102_444_800_000;

fn expiring(key: &[u8], text: &[u8]) -> Record {
    let Record::Key(record) = string(0, key, text) else {
        unreachable!()
    };
    with_value(key, record.value, Some(LATER_MS))
}

/// Each record in a frame of its own.
fn single() -> WriterOptions {
    WriterOptions {
        frame_target_bytes: 1,
        ..WriterOptions::default()
    }
}

/// Keys whose records do not all match `--type string --without-ttl --max-size 100`.
fn changing() -> Vec<Record> {
    vec![
        string(0, b"becomes a hash", b"old"),
        string(0, b"gets an expiry", b"old"),
        string(0, b"grows", b"old"),
        string(0, b"stays", b"old"),
        hash(b"becomes a string"),
        hash(b"was never one"),
        string(0, b"comes back", b"old"),
        string(0, b"goes away", b"old"),
        hash(b"becomes a hash"),
        expiring(b"gets an expiry", b"new"),
        string(0, b"grows", &[b'x'; 200]),
        string(0, b"stays", b"new"),
        string(0, b"becomes a string", b"new"),
        deleted(0, b"was never one"),
        hash(b"comes back"),
        deleted(0, b"goes away"),
        string(0, b"comes back", b"new"),
    ]
}

const SELECTING: [&str; 5] = ["--type", "string", "--without-ttl", "--max-size", "100"];

const MATCHING: [&str; 3] = ["becomes a string", "comes back", "stays"];

fn due() -> BTreeMap<String, String> {
    let row = |key: &&str| ((*key).to_owned(), "new".to_owned());
    MATCHING.iter().map(row).collect()
}

fn save(directory: &Path, name: &str, records: &[Record]) -> PathBuf {
    let file = directory.join(name);
    std::fs::write(&file, archive(records, single())).expect("written");
    file
}

fn standing(server: &TestServer) -> BTreeMap<String, String> {
    let mut client = server.client();
    let keys: Vec<String> = cmd("KEYS").arg("*").query(&mut client).expect("KEYS");
    let mut get = |key: String| {
        let value = cmd("GET").arg(&key).query(&mut client);
        (key, value.unwrap_or_else(|_| "no string".to_owned()))
    };
    keys.into_iter().map(&mut get).collect()
}

fn set(server: &TestServer, key: &str) {
    let () = cmd("SET")
        .arg(key)
        .arg("stranger")
        .query(&mut server.client())
        .expect("SET");
}

fn summary(tool: Tool) -> Json {
    tool.args(&["--json"]).run().success().summary()
}

#[test]
fn an_import_goes_by_the_last_record_of_each_key() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = save(directory.path(), "a.rmz", &changing());
    let records = changing();
    let (first, second) = records.split_at(8);
    let parts = [
        save(directory.path(), "1.rmz", first),
        save(directory.path(), "2.rmz", second),
    ];
    let version = available()[0];
    for way in ["file", "pipe", "parts", "jobs", "resume", "dry run"] {
        let server = TestServer::start(version);
        let mut tool = Tool::new(&["import", &server.url()]).args(&SELECTING);
        tool = match way {
            "pipe" => tool.stdin_file(&file).arg("-"),
            "parts" => tool.arg(&parts[0]).arg(&parts[1]),
            "jobs" => tool.args(&["--jobs", "3"]).arg(&file),
            "resume" => tool
                .args(&[&format!(
                    "--resume={}",
                    directory.path().join("state").display()
                )])
                .arg(&file),
            "dry run" => tool.args(&["--dry-run"]).arg(&file),
            _ => tool.arg(&file),
        };
        let summary = summary(tool);
        assert_eq!(summary["sink"]["keys"], 3, "{way}: {summary}");
        if way != "dry run" {
            assert_eq!(standing(&server), due(), "{way}");
        }
    }
}

/// What an earlier run wrote goes away, too, if what comes then does not match.
#[test]
fn a_resumed_import_goes_by_the_last_record_of_each_key() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (file, state) = (
        directory.path().join("snap.rmz"),
        directory.path().join("state"),
    );
    let mut random = Random::new(31);
    let mut records = many(60_000, 32);
    for record in &mut records {
        if let Record::Key(record) = record
            && random.below(10) == 0
        {
            record.expire_at_ms = Some(LATER_MS);
        }
    }
    let mut last = BTreeMap::new();
    for record in &records {
        match record {
            Record::Key(record) if record.expire_at_ms.is_none() => {
                last.insert(record.key.clone(), record.value.bytes()[6..].to_vec());
            }
            Record::Key(KeyRecord { key, .. }) | Record::Deleted { key, .. } => {
                last.remove(key);
            }
            _ => {}
        }
    }
    std::fs::write(&file, archive(&records, small_frames())).expect("written");
    for (flags, by_pipe) in [
        (["--without-ttl", "--jobs", "1"], false),
        (["--without-ttl", "--on-conflict", "skip"], false),
        (["--without-ttl", "--on-conflict", "replace"], true),
    ] {
        let server = TestServer::start(available()[0]);
        import_with_kills(
            &server.url(),
            &mut [server.client()],
            &file,
            &state,
            &flags,
            4,
            by_pipe,
            &mut random,
        );
        assert!(read_all(&mut server.client()) == last, "{flags:?}");
    }
}

/// A key of somebody else stands or falls as with the tombstones of a live copy.
#[test]
fn a_strangers_key_is_left_alone() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = save(directory.path(), "a.rmz", &changing());
    for policy in ["skip", "replace"] {
        let server = TestServer::start(available()[0]);
        set(&server, "was never one");
        set(&server, "becomes a hash");
        let output = Tool::new(&["import", &server.url(), "--on-conflict", policy])
            .args(&SELECTING)
            .arg(&file)
            .run();
        output.success();
        let mut due = due();
        due.insert("was never one".to_owned(), "stranger".to_owned());
        if policy == "skip" {
            due.insert("becomes a hash".to_owned(), "stranger".to_owned());
        }
        assert_eq!(standing(&server), due, "{policy}");
    }
}

#[test]
fn what_is_converted_goes_by_the_last_record_of_each_key() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = save(directory.path(), "a.rmz", &changing());
    let listed = |keys: &[Json]| {
        let mut names: Vec<String> = keys
            .iter()
            .map(|line| line["key"].as_str().expect("text").to_owned())
            .collect();
        names.sort_unstable();
        names
    };
    let lines = |bytes: Vec<u8>| -> Vec<Json> {
        let text = String::from_utf8(bytes).expect("text");
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    };
    let rdb = directory.path().join("a.rdb");
    Tool::new(&["convert", "--for", "redis-7.0"])
        .args(&SELECTING)
        .arg(&file)
        .arg(&rdb)
        .run()
        .success();
    let convert = |input: &Path, flags: &[&str]| {
        let tool = Tool::new(&["convert", "--to", "jsonl"]).args(flags);
        lines(tool.arg(input).arg("-").run().success().stdout)
    };
    assert_eq!(listed(&convert(&rdb, &[])), MATCHING, "RDB");
    let found = convert(&file, &SELECTING);
    assert_eq!(listed(&found), MATCHING, "JSON Lines");
    assert!(found.iter().all(|line| line["value"] == "new"), "{found:?}");

    // Of a pipe the last line of each key counts, and tells that it went away.
    let piped = Tool::new(&["convert", "--to", "jsonl"])
        .args(&SELECTING)
        .args(&["-", "-"])
        .stdin_file(&file)
        .run()
        .success();
    let mut last = BTreeMap::new();
    for line in lines(piped.stdout) {
        last.insert(line["key"].as_str().expect("text").to_owned(), line);
    }
    last.retain(|_, line| line["deleted"] != true);
    let keys: Vec<&str> = last.keys().map(String::as_str).collect();
    assert_eq!(keys, MATCHING, "pipe");
}
