//! `--map-db` and `--strip-prefix` can give several keys of A one name: nobody knows which of them
//! is meant, so none of them is called equal.

use serde_json::{Value, json};

use crate::diff::found::{diff, found, objects, send, summary};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, run};

fn servers() -> Option<(TestServer, TestServer)> {
    let version = require(Version::Valkey81)?;
    Some((TestServer::start(version), TestServer::start(version)))
}

/// What several keys of A are called, and which keys they are.
fn collisions(output: &Output) -> Vec<(Value, Value)> {
    let mut met: Vec<(Value, Value)> = objects(output)
        .into_iter()
        .filter(|object| object["event"] == "collision")
        .map(|mut object| {
            assert_eq!(object["class"], "collision", "{object}");
            assert_eq!(object["differs"], json!(["collision"]), "{object}");
            (object["key"].take(), object["left"]["collision"].take())
        })
        .collect();
    met.sort_by_key(|(key, _)| key.to_string());
    met
}

#[test]
fn keys_of_two_databases_that_meet_in_one_are_not_equal() {
    let Some((left, right)) = servers() else {
        return;
    };
    send(&mut left.client(), &["SET", "k", "a"]);
    send(&mut left.client(), &["SET", "only in 0", "v"]);
    send(&mut left.client_db(5), &["SET", "k", "b"]);
    send(&mut right.client_db(5), &["SET", "k", "b"]);
    send(&mut right.client_db(5), &["SET", "only in 0", "v"]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("left.rmz");
    let file = file.to_str().unwrap();
    run(&["export", &left.url(), "-o", file], b"").success();
    for map in ["0:5", "*:5"] {
        for side in [&left.url(), file] {
            let output = diff(side, &right.url(), &["--map-db", map]).expect_code(3);
            let met = collisions(&output);
            assert_eq!(met, [(json!("k"), json!("db 0 \"k\", db 5 \"k\""))]);
            let said = summary(&output);
            assert_eq!((&said["compared"], &said["equal"]), (&json!(1), &json!(1)));
            assert_eq!(
                (&said["collided"], &said["different"]),
                (&json!(1), &json!(0))
            );
        }
    }
    let text = run(&["diff", file, &right.url(), "--map-db", "0:5"], b"").expect_code(3);
    let text = String::from_utf8(text.stdout).unwrap();
    let line = "collision  db 5  \"k\": not compared: several keys of A get this name: \
                db 0 \"k\", db 5 \"k\"";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("not all could be compared"), "{text}");
    assert!(
        text.contains("1 name of several keys of A not compared"),
        "{text}"
    );
    // A difference elsewhere is one all the same.
    send(&mut right.client_db(5), &["SET", "only in 0", "w"]);
    let flags = ["--map-db", "0:5", "--recheck", "0"];
    let output = diff(file, &right.url(), &flags).expect_code(5);
    assert_eq!((collisions(&output).len(), found(&output).len()), (1, 1));
    // Databases that only change places give no two keys one name.
    send(&mut right.client(), &["SET", "k", "b"]);
    send(&mut right.client_db(5), &["SET", "k", "a"]);
    let swap = ["--map-db", "0:5", "--map-db", "5:0", "--recheck", "0"];
    let output = diff(file, &right.url(), &swap).expect_code(5);
    assert_eq!(summary(&output)["equal"], 2);
    assert_eq!(collisions(&output), []);
}

#[test]
fn keys_that_meet_without_their_prefix_are_not_equal() {
    let Some((left, right)) = servers() else {
        return;
    };
    for n in 0..20 {
        send(&mut left.client(), &["SET", &format!("k{n}"), "a"]);
        send(&mut left.client(), &["SET", &format!("old:k{n}"), "b"]);
        send(&mut right.client(), &["SET", &format!("k{n}"), "b"]);
    }
    send(&mut left.client(), &["SADD", "typed", "a"]);
    send(&mut left.client(), &["SET", "old:typed", "v"]);
    send(&mut right.client(), &["SET", "typed", "v"]);
    let flags = ["--strip-prefix", "old:", "--recheck", "0"];
    let output = diff(&left.url(), &right.url(), &flags).expect_code(3);
    assert_eq!(collisions(&output).len(), 21);
    assert_eq!(summary(&output)["equal"], 0);
    // What does not take part meets nobody.
    let strings = [&flags[..], &["--type", "string", "--exclude", "old:k*"]].concat();
    let output = diff(&left.url(), &right.url(), &strings).expect_code(5);
    let said = summary(&output);
    assert_eq!((&said["equal"], &said["collided"]), (&json!(1), &json!(0)));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("left.rmz");
    let file = file.to_str().unwrap();
    run(&["export", &left.url(), "-o", file], b"").success();
    let against = ["verify", file, "--against", &right.url(), "--json"];
    let output = run(&[&against[..], &flags].concat(), b"").expect_code(3);
    assert_eq!(collisions(&output).len(), 21);
    assert_eq!(summary(&output)["collided"], 21);
}
