//! Keys that a server knows and does not give: they are neither equal, nor different, nor missing.
//! They could not be read, and that is said by name.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde_json::Value;

use crate::diff::found::{diff, found, objects, send, summary};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, run};

/// Keys that the limited user may read, and those that he may not.
const OPEN: [&str; 3] = ["k:1", "k:2", "k:3"];
const CLOSED: [&str; 2] = ["secret:1", "secret:2"];

/// A server with these keys, and users that may read `k*` only.
fn guarded(version: Version) -> TestServer {
    let server = TestServer::start(version);
    let mut client = server.client();
    for key in OPEN.iter().chain(&CLOSED) {
        send(&mut client, &["SET", key, key]);
    }
    for (user, keys) in [("reader", "%R~k*"), ("plain", "~k*")] {
        send(
            &mut client,
            &["ACL", "SETUSER", user, "on", ">pw", "+@all", keys],
        );
    }
    // May write everything, and read `k*`.
    let writer = [
        "ACL", "SETUSER", "writer", "on", ">pw", "+@all", "%W~*", "%R~k*",
    ];
    send(&mut client, &writer);
    server
}

fn url(server: &TestServer, user: &str) -> String {
    format!("redis://{user}:pw@{}", server.addr())
}

fn unread(output: &Output) -> Vec<Value> {
    let mut objects = objects(output);
    objects.retain(|object| object["event"] == "unread");
    objects.sort_by_key(|object| object["key"].to_string());
    objects
}

#[track_caller]
fn expect_counts(said: &Value, compared: u64, different: u64, unread: u64) {
    let counts = ["compared", "different", "unread"].map(|name| said[name].as_u64());
    assert_eq!(counts, [compared, different, unread].map(Some), "{said}");
    assert_eq!(said["missing"], 0, "{said}");
    assert_eq!(said["extra"], 0, "{said}");
    assert_eq!(said["incomparable"], 0, "{said}");
}

#[test]
fn what_a_user_may_not_read_is_neither_equal_nor_missing() {
    for version in [Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let (a, b) = (guarded(version), guarded(version));
        let (left, right) = (a.url(), b.url());
        let sides = [
            (url(&a, "reader"), right.clone(), "left"),
            (url(&a, "plain"), right.clone(), "left"),
            (left.clone(), url(&b, "reader"), "right"),
            (url(&a, "plain"), url(&b, "reader"), "both"),
        ];
        for (left, right, which) in &sides {
            for recheck in ["0", "1"] {
                let output = diff(left, right, &["--recheck", recheck]).expect_code(3);
                assert!(found(&output).is_empty(), "{version} {which}");
                expect_counts(&summary(&output), 3, 0, 2);
                let named = unread(&output);
                assert_eq!(named.len(), 2, "{version} {which}: {named:?}");
                for (object, key) in named.iter().zip(CLOSED) {
                    assert_eq!(object["key"], key);
                    for side in ["left", "right"] {
                        let reason = object[side]["unread"].as_str();
                        let is_refused = which == &side || which == &"both";
                        assert_eq!(reason.is_some(), is_refused, "{object}");
                        assert!(reason.is_none_or(|reason| reason.starts_with("NOPERM")));
                    }
                }
            }
        }
        says_so_in_words(&sides[0].0, &right);

        send(&mut b.client(), &["SET", "k:1", "other"]);
        let output = diff(&sides[0].0, &right, &["--recheck", "0"]).expect_code(5);
        assert_eq!(found(&output).len(), 1);
        expect_counts(&summary(&output), 3, 1, 2);
        let output = run(&["diff", &sides[0].0, &right, "--recheck", "0"], b"").expect_code(5);
        let text = String::from_utf8(output.stdout).unwrap();
        let both = "different: 1 of 3 differ: 1 with another value; 2 could not be read";
        assert!(text.contains(both), "{text}");
    }
}

fn says_so_in_words(left: &str, right: &str) {
    let output = run(&["diff", left, right, "--recheck", "0"], b"").expect_code(3);
    let text = String::from_utf8(output.stdout).unwrap();
    for key in CLOSED {
        let line = text.lines().find(|line| line.contains(key));
        let line = line.unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains("could not be read in A: NOPERM"), "{line}");
        assert!(!line.contains("in B"), "{line}");
    }
    let verdict = "not all could be compared: 3 compared, no difference; 2 could not be read";
    assert!(text.contains(verdict), "{text}");
    // Without a result they are errors all the same.
    let output = run(&["diff", left, right, "--recheck", "0", "-q"], b"").expect_code(3);
    assert!(output.stdout.is_empty());
    for key in CLOSED {
        assert_eq!(output.stderr.matches(key).count(), 1, "{}", output.stderr);
    }
}

/// Under other names and in another database, the key is the one that it becomes.
#[test]
fn what_cannot_be_read_is_paired_with_what_it_becomes() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (a, b) = (guarded(version), TestServer::start(version));
    let moved = ["--add-prefix", "p:", "--map-db", "0:3"];
    run(&[&["copy", &a.url(), &b.url()][..], &moved].concat(), b"").success();
    let flags = [&moved[..], &["--recheck", "0"]].concat();
    let output = diff(&url(&a, "plain"), &b.url(), &flags).expect_code(3);
    expect_counts(&summary(&output), 3, 0, 2);
    let named: Vec<_> = unread(&output)
        .iter()
        .map(|object| (object["db"].clone(), object["key"].clone()))
        .collect();
    let there = |key: &str| (3.into(), format!("p:{key}").into());
    assert_eq!(named, CLOSED.map(there));
}

#[test]
fn an_archive_is_verified_against_what_can_be_read() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    let server = guarded(version);
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("a.rmz");
    let archive = archive.to_str().unwrap();
    run(&["export", &server.url(), "-o", archive], b"").success();
    let against = url(&server, "plain");
    let verify = ["verify", archive, "--against", &against, "--json"];
    let output = run(&verify, b"").expect_code(3);
    assert!(found(&output).is_empty());
    assert_eq!(unread(&output).len(), 2);
    expect_counts(&summary(&output), 3, 0, 2);
}

#[test]
fn what_cannot_be_read_back_is_not_verified() {
    for version in [Version::Redis70, Version::Valkey91] {
        let Some(version) = require(version) else {
            continue;
        };
        let (source, destination) = (guarded(version), guarded(version));
        let (from, to) = (source.url(), url(&destination, "writer"));
        let archive = run(&["export", &from], b"").success().stdout;
        let directory = tempfile::tempdir().unwrap();
        let errors = directory.path().join("errors");
        let moves: [(&[&str], &[u8]); 2] =
            [(&["import", &to], &archive), (&["copy", &from, &to], b"")];
        for (verb, input) in moves {
            let errors = errors.to_str().unwrap();
            let flags = ["--verify", "--json", "--replace", "--errors-to", errors];
            let output = run(&[verb, &flags].concat(), input).expect_code(3);
            let verified = &output.summary()["verified"];
            expect_verified(verified, 3, 0);
            let journal = std::fs::read_to_string(errors).unwrap();
            let named: BTreeSet<String> = journal
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap())
                .map(|line| format!("{} {}", line["kind"].as_str().unwrap(), line["key"]))
                .collect();
            let expected = CLOSED.map(|key| format!("unread \"{key}\""));
            assert_eq!(named, BTreeSet::from(expected), "{journal}");
            assert_eq!(journal.lines().count(), 2, "{journal}");

            // Somebody else writes there: that is a difference, and both are said.
            let output = run_beside_a_writer(&destination, &[verb, &flags].concat(), input);
            let output = output.expect_code(5);
            expect_verified(&output.summary()["verified"], 2, 1);
            assert!(output.summary()["problems"].to_string().contains("2 keys"));
        }
        let text = run(&["copy", &from, &to, "--verify", "--replace"], b"").expect_code(3);
        text.expect_stderr("verified: 3 of 5 as written, 2 could not be read");
    }
}

#[track_caller]
fn expect_verified(verified: &Value, equal: u64, different: u64) {
    assert_eq!(verified["compared"], 3, "{verified}");
    assert_eq!(verified["equal"], equal, "{verified}");
    assert_eq!(verified["different"], different, "{verified}");
    assert_eq!(verified["unread"], 2, "{verified}");
    assert_eq!(verified["incomparable"], 0, "{verified}");
}

fn run_beside_a_writer(server: &TestServer, arguments: &[&str], input: &[u8]) -> Output {
    let ended = Arc::new(AtomicBool::new(false));
    let (other, mut client) = (Arc::clone(&ended), server.client());
    let writer = std::thread::spawn(move || {
        while !other.load(Relaxed) {
            send(&mut client, &["SET", "k:1", "mine"]);
        }
    });
    let output = run(arguments, input);
    ended.store(true, Relaxed);
    writer.join().unwrap();
    output
}

/// What an export could not read is not in its archive: who compares the archive, or asks what an
/// import of it would need, is told.
#[test]
fn what_the_export_could_not_read_is_said_of_its_archive() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = guarded(version);
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("a.rmz");
    let archive = archive.to_str().unwrap();
    run(&["export", &url(&server, "plain"), "-o", archive], b"").expect_code(3);
    let said = "the export left out 2 keys (db 0: 2)";
    for (left, right, side) in [
        (archive, &server.url()[..], "left_side"),
        (&server.url(), archive, "right_side"),
    ] {
        let output = run(&["diff", left, right, "--recheck", "0"], b"").expect_code(5);
        assert_eq!(output.stderr.matches(said).count(), 1, "{}", output.stderr);
        let last = summary(&diff(left, right, &["--recheck", "0"]));
        assert_eq!(last[side]["export_failed"]["keys"], 2, "{last}");
    }
    let against = ["verify", archive, "--against", &server.url()];
    let output = run(&against, b"").expect_code(5);
    assert_eq!(output.stderr.matches(said).count(), 1, "{}", output.stderr);
    let bytes = std::fs::read(archive).unwrap();
    let output = run(&["verify", "--against", &server.url()], &bytes).expect_code(5);
    assert_eq!(output.stderr.matches(said).count(), 1, "{}", output.stderr);
    let doctor = ["doctor", &server.url(), archive];
    let output = run(&doctor, b"").success();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(said), "{text}");
    let output = run(&[&doctor[..], &["--json"]].concat(), b"").success();
    let last = output.summary();
    assert_eq!(last["archive"]["export_failed"]["keys"], 2, "{last}");
}
