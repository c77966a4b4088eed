//! Selections that cannot be meant are refused, and those that match nothing are told of.

use redis_migrate_format::record::{KeyRecord, Record, Value as Payload};

use crate::cli::archives::{archive, small, string};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Tool, run};

#[test]
fn a_type_that_is_none_is_a_usage_error() {
    for verb in [
        &["export", "redis://127.0.0.1:1"][..],
        &["import", "redis://127.0.0.1:1", "none.rmz"],
        &["copy", "redis://127.0.0.1:1", "redis://127.0.0.1:1"],
        &["convert", "none.rmz", "out.rdb"],
        &["diff", "none.rmz", "none.rmz"],
        &["verify", "none.rmz", "--against", "redis://127.0.0.1:1"],
        &["list", "none.rmz"],
    ] {
        for (types, word) in [
            ("hashes,strings", "did you mean hash?"),
            ("hash,strings", "did you mean string?"),
            ("ReJSON-RL", "module:ReJSON-RL"),
            ("bloom", "module:MBbloom--"),
            ("x", "string, list, set, zset, hash, stream"),
        ] {
            let arguments = [verb, &["--type", types]].concat();
            Tool::new(&arguments)
                .run()
                .expect_code(2)
                .expect_stderr(word);
        }
    }
}

/// A value of a module's type: its id behind the type byte, and two bytes that end it.
fn of_module(key: &str, name: &str) -> Record {
    const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let id = name.chars().fold(0u64, |id, letter| {
        id << 6 | LETTERS.find(letter).expect("a letter of such names") as u64
    }) << 10;
    let mut value = vec![7, 0x81];
    value.extend(id.to_be_bytes());
    value.push(0);
    Record::Key(KeyRecord {
        db: 0,
        key: key.as_bytes().to_vec(),
        value: Payload::Compact(value),
        expire_at_ms: None,
        eviction: None,
    })
}

#[test]
fn types_of_modules_are_selected_by_their_names() {
    let bytes = archive(
        &[
            of_module("json", "ReJSON-RL"),
            of_module("series", "TSDB-TYPE"),
            of_module("vectors", "vectorset"),
            string(0, b"string", b"v", None),
        ],
        None,
    );
    for (types, expected) in [
        ("module", &["json", "series", "vectors"][..]),
        ("module:ReJSON-RL", &["json"]),
        ("module:TSDB-TYPE,string", &["series", "string"]),
        ("vectorset", &["vectors"]),
        ("STRING", &["string"]),
    ] {
        let output = run(&["list", "--type", types], &bytes).success();
        let text = String::from_utf8_lossy(&output.stdout);
        for key in ["json", "series", "vectors", "string"] {
            let shown = text.contains(&format!("\"{key}\""));
            assert_eq!(shown, expected.contains(&key), "{types}: {key}: {text}");
        }
        let output = run(&["convert", "-", "--to", "jsonl", "--type", types], &bytes).success();
        let lines = String::from_utf8_lossy(&output.stdout).lines().count();
        assert_eq!(lines, expected.len(), "{types}");
    }
}

#[test]
fn a_selection_that_matches_nothing_is_told_of_on_every_verb() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    redis::cmd("SET")
        .arg("feature:1")
        .arg("on")
        .exec(&mut server.client())
        .expect("OK");
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| {
        directory
            .path()
            .join(name)
            .to_str()
            .expect("text")
            .to_owned()
    };
    let (file, url) = (place("a.rmz"), server.url());
    std::fs::write(&file, small()).expect("written");
    let (out, rdb) = (place("out.rmz"), place("out.rdb"));
    for verb in [
        &["export", &url, "-o", &out][..],
        &["import", &url, &file],
        &["copy", &url, &url, "--map-db", "0:1"],
        &["convert", &file, &rdb],
        &["list", &file],
        &["diff", &file, &url],
        &["verify", &file, "--against", &url],
    ] {
        let matched = match verb[0] {
            "export" | "copy" => "feature:*",
            _ => "plain",
        };
        let words = "no key matched the selection (--match featuer:*)";
        let output = Tool::new(verb).args(&["--match", "featuer:*"]).run();
        assert!(output.stderr.contains(words), "{verb:?}: {}", output.stderr);
        let output = Tool::new(verb)
            .args(&["--match", "featuer:*", "--json"])
            .run();
        let line = format!("\"event\":\"warning\",\"schema_version\":1,\"text\":\"{words}\"");
        assert!(output.stderr.contains(&line), "{verb:?}: {}", output.stderr);
        // Without it, or with one that matches, there is nothing to say.
        let output = Tool::new(verb).args(&["--match", matched]).run();
        assert!(
            !output.stderr.contains("matched"),
            "{verb:?}: {}",
            output.stderr
        );
    }
    // An empty source is no selection that matched nothing.
    redis::cmd("FLUSHALL")
        .exec(&mut server.client())
        .expect("OK");
    let output = Tool::new(&["export", &url, "-o", &out]).run().success();
    assert!(!output.stderr.contains("matched"), "{}", output.stderr);
}
