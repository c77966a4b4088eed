//! Verbs that look into an archive count keys: a key that has several records is one, and one that
//! was deleted is none.

use std::collections::BTreeSet;

use redis_migrate_format::record::Record;
use serde_json::Value;

use crate::support::tool::Tool;
use crate::tools::archives::{archive, contents, deleted, options, records, string};

/// Keys that come again, go away, and come back.
fn busy() -> Vec<Record> {
    let mut all = records(400, 77);
    all.extend([
        string(0, b"twice", b"old"),
        string(0, b"gone", b"old"),
        string(0, b"back", b"old"),
        deleted(0, b"gone"),
        deleted(0, b"back"),
        string(0, b"twice", b"new value"),
        string(0, b"back", b"again"),
        deleted(5, b"never there"),
    ]);
    all
}

fn json(verb: &str, bytes: &[u8]) -> Vec<Value> {
    let output = Tool::new(&[verb, "--json"])
        .stdin_bytes(bytes)
        .run()
        .success();
    let text = String::from_utf8(output.stdout).expect("text");
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn keys_are_counted_and_their_records_beside_them() {
    let records = busy();
    let bytes = archive(&records, options(3));
    let standing = contents(&records);
    let keys = standing.values().flatten().count() as u64;
    let of_keys = |record: &&Record| matches!(record, Record::Key(_));
    let key_records = records.iter().filter(of_keys).count() as u64;
    assert!(key_records > keys);
    for verb in ["verify", "inspect"] {
        let found = json(verb, &bytes).pop().expect("one object");
        assert_eq!(found["keys"], keys, "{verb}");
        assert_eq!(found["key_records"], key_records, "{verb}");
    }
    let said = format!("{keys} keys in {key_records} records");
    for verb in ["verify", "inspect"] {
        let output = Tool::new(&[verb]).stdin_bytes(bytes.clone()).run();
        let text = String::from_utf8(output.success().stdout).expect("text");
        assert!(text.contains(&said), "{verb}: no {said:?} in {text}");
    }
    let report = json("report", &bytes).pop().expect("one object");
    assert_eq!(report["total"]["keys"], keys);
    assert_eq!(report["key_records"], key_records);
    let live: u64 = standing
        .iter()
        .filter_map(|((_, key), value)| Some(key.len() as u64 + value.as_ref()?.len() as u64))
        .sum();
    assert_eq!(report["total"]["bytes"], live);
}

#[test]
fn each_key_is_listed_once_as_its_last_record_has_it() {
    let records = busy();
    let bytes = archive(&records, options(3));
    let standing = contents(&records);
    let directory = tempfile::tempdir().expect("tempdir");
    let file = directory.path().join("busy.rmz");
    std::fs::write(&file, &bytes).expect("written");
    let by_file = Tool::new(&["list", "--json"]).arg(&file).run().success();
    let by_pipe = Tool::new(&["list", "--json"])
        .stdin_bytes(bytes)
        .run()
        .success();
    assert!(by_file.stdout == by_pipe.stdout);
    let (mut keys, mut gone) = (BTreeSet::new(), BTreeSet::new());
    let text = String::from_utf8(by_file.stdout).expect("text");
    let mut last = Value::Null;
    for line in text.lines() {
        last = serde_json::from_str(line).expect("JSON");
        let name = || {
            let db = u32::try_from(last["db"].as_u64().expect("a number")).expect("small");
            (db, last["key"].as_str().expect("text").as_bytes().to_vec())
        };
        match last["event"].as_str() {
            Some("key") => {
                let name = name();
                let value = standing[&name].as_ref().expect("it stands");
                assert_eq!(last["value_bytes"], value.len());
                assert!(keys.insert(name), "{line}: twice");
            }
            Some("deleted") => assert!(gone.insert(name()), "{line}: twice"),
            _ => assert_eq!(last["event"], "summary"),
        }
    }
    let live = standing.iter().filter(|(_, value)| value.is_some());
    assert_eq!(keys, live.map(|(name, _)| name.clone()).collect());
    let dead = standing.iter().filter(|(_, value)| value.is_none());
    assert_eq!(gone, dead.map(|(name, _)| name.clone()).collect());
    assert_eq!(last["keys"], keys.len());
    assert_eq!(last["records"], records.len());
}
