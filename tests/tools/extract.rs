//! One value of an archive.

use redis_migrate_format::record::{KeyRecord, Record, Value};

use crate::support::hostile_archives::{End, Maker, context, key_entry, varint};
use crate::support::servers::{TestServer, available};
use crate::support::tool::{Tool, run};
use crate::tools::archives::{archive, contents, deleted, options, records, string};

#[test]
fn the_last_record_of_a_key_counts_in_files_and_in_pipes() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = directory.path().join("snap.rmz");
    for level in [0, 3] {
        let records = records(150, 5);
        let bytes = archive(&records, options(level));
        std::fs::write(&file, &bytes).expect("written");
        for ((db, key), value) in contents(&records).iter().step_by(7) {
            let (db, key) = (
                db.to_string(),
                String::from_utf8(key.clone()).expect("text"),
            );
            let arguments = ["extract", "--key", &key, "--db", &db];
            let by_pipe = run(&arguments, &bytes);
            let from_file = Tool::new(&arguments).arg(&file).run();
            for output in [by_pipe, from_file] {
                match value {
                    // Type byte and length are not part of the text.
                    Some(value) => assert_eq!(output.success().stdout, value[6..]),
                    None => drop(output.expect_code(1).expect_stderr("was deleted")),
                }
            }
        }
    }
}

#[test]
fn keys_are_found_as_list_shows_them() {
    let odd = b"a\xff\n\"\\'".to_vec();
    let bytes = archive(
        &[
            string(3, &odd, b"odd"),
            string(3, b"", b"empty"),
            string(3, b"\"q\"", b"quoted"),
        ],
        options(3),
    );
    let listed = run(&["list"], &bytes).success();
    let text = String::from_utf8(listed.stdout).expect("text");
    let mut found = 0;
    for line in text.lines().skip(1) {
        let (_, key) = line.split_once('"').expect("a key");
        let value = run(&["extract", "--key", &format!("\"{key}")], &bytes).success();
        assert!(
            ["odd", "empty", "quoted"]
                .iter()
                .any(|due| due.as_bytes() == value.stdout)
        );
        found += 1;
    }
    assert_eq!(found, 3);
    run(&["extract", "--key", "\"\\x4\""], &bytes).expect_code(2);
}

#[test]
fn a_key_that_is_not_there_is_told_and_a_damaged_archive_too() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = directory.path().join("snap.rmz");
    let records: Vec<Record> = vec![
        string(0, b"a", b"1"),
        string(2, b"b", b"2"),
        deleted(0, b"a"),
    ];
    let mut bytes = archive(&records, options(3));
    std::fs::write(&file, &bytes).expect("written");
    let extract = |arguments: &[&str]| Tool::new(arguments).arg(&file).run();
    extract(&["extract", "-k", "b"])
        .expect_code(1)
        .expect_stderr("in database 0");
    extract(&["extract", "-k", "b", "--db", "2"]).success();
    bytes.truncate(bytes.len() - 1);
    std::fs::write(&file, &bytes).expect("written");
    extract(&["extract", "-k", "b", "--db", "2"]).expect_code(10);
}

/// In a run of several frames other entries may stand before the key, and its name may be cut.
#[test]
fn a_key_is_found_wherever_its_name_stands_in_a_run() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = directory.path().join("snap.rmz");
    const MIB: u64 = 1 << 20;
    // The parts are of a MiB. CONTEXT and the heads of both entries come to less than 64 bytes.
    for skipped in [0, 100, MIB - 64, MIB - 45, MIB - 40, MIB - 32, 3 * MIB + 7] {
        let mut archive = Maker::new();
        let mut head = context();
        head.push(0x99);
        head.extend(varint(skipped));
        let key = key_entry(0, b"a name that may be cut", b"\x00\x05value");
        archive.run_with_tail(&head, skipped, &key);
        let bytes = archive.finish(&End::of(1, &[(0, 1, 7, 22)]).body());
        std::fs::write(&file, &bytes).expect("written");
        let arguments = ["extract", "--key", "a name that may be cut"];
        for output in [
            run(&arguments, &bytes),
            Tool::new(&arguments).arg(&file).run(),
        ] {
            assert_eq!(output.success().stdout, b"value", "{skipped}");
        }
        for other in [
            ["--key", "a name", "--db=0"],
            ["--key", arguments[2], "--db=1"],
        ] {
            let output = Tool::new(&["extract"]).args(&other).arg(&file).run();
            output.expect_code(1).expect_stderr("no key");
        }
    }
}

#[test]
fn every_type_is_readable_and_its_payload_restores() {
    for version in available() {
        let server = TestServer::start(version);
        let mut client = server.client();
        for line in [
            "SET s text",
            "RPUSH l a b",
            "SADD t x",
            "ZADD z 1.5 m",
            "HSET h f v",
            "XADD x 1-1 f v",
        ] {
            let mut words = line.split(' ');
            let mut command = redis::cmd(words.next().expect("a command"));
            command.arg(words.collect::<Vec<_>>());
            command.query::<redis::Value>(&mut client).expect("written");
        }
        let directory = tempfile::tempdir().expect("tempdir");
        let file = directory.path().join("snap.rmz");
        Tool::new(&["export", &server.url(), "-o"])
            .arg(&file)
            .run()
            .success();
        let extract = |key: &str, how: &str| {
            let mut arguments = vec!["extract", "--key", key];
            arguments.extend(Some(how).filter(|how| !how.is_empty()));
            Tool::new(&arguments).arg(&file).run().success().stdout
        };
        let text = |key: &str| String::from_utf8(extract(key, "")).expect("text");
        assert_eq!(text("s"), "text");
        assert_eq!(text("l"), "[\"a\",\"b\"]\n");
        assert_eq!(text("t"), "[\"x\"]\n");
        assert_eq!(text("z"), "[[\"m\",1.5]]\n");
        assert_eq!(text("h"), "[[\"f\",\"v\"]]\n");
        assert!(text("x").contains("\"1-1\""));
        let json: serde_json::Value =
            serde_json::from_slice(&extract("l", "--json")).expect("JSON");
        assert_eq!((&json["type"], &json["key"]), (&"list".into(), &"l".into()));
        for key in ["s", "l", "t", "z", "h", "x"] {
            let payload = extract(key, "--payload");
            let restored: String = redis::cmd("RESTORE")
                .arg(format!("copy:{key}"))
                .arg(0)
                .arg(payload)
                .query(&mut client)
                .expect("restored");
            assert_eq!(restored, "OK");
        }
    }
}

/// A right checksum would make a server take it.
#[test]
fn a_damaged_value_gets_no_checksum_of_its_own() {
    let of = |value| {
        Record::Key(KeyRecord {
            db: 0,
            key: b"h".to_vec(),
            value,
            expire_at_ms: None,
            eviction: None,
        })
    };
    // Five fields are announced, and half of one is there.
    let body = b"\x04\x05\x01f".to_vec();
    // As it came; its checksum, of zeros, is one that servers do not look at.
    let dump = [&body[..], b"\x09\x00", &[0; 8]].concat();
    let extract = |value| {
        run(
            &["extract", "-k", "h", "--payload"],
            &archive(&[of(value)], options(3)),
        )
    };
    let signed = extract(Value::Compact(body)).expect_code(1);
    assert!(signed.stdout.is_empty());
    signed.expect_stderr("is damaged");
    let kept = extract(Value::Verbatim(dump.clone())).expect_code(3);
    assert_eq!(kept.stdout, dump);
    kept.expect_stderr("is damaged");
}
