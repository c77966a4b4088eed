//! `import --verify` and `copy --verify`: what this run wrote is there, and it is said if not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde_json::Value;

use crate::diff::found::send;
use crate::support::dataset::fill_every_type;
use crate::support::many::fill_many;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Tool, run};

fn top(output: &Output) -> Value {
    output.summary()
}

#[test]
fn what_arrived_is_verified_between_all_kinds_of_servers() {
    for (from, to) in [
        (Version::Redis60, Version::Valkey91),
        (Version::Redis70, Version::Redis60),
        (Version::Redis80, Version::Redis80),
        (Version::Redis80, Version::Redis70),
        (Version::Valkey91, Version::Redis80),
    ] {
        let (Some(from), Some(to)) = (require(from), require(to)) else {
            continue;
        };
        let (source, destination) = (TestServer::start(from), TestServer::start(to));
        fill_every_type(&mut source.client(), from);
        let (left, url) = (source.url(), destination.url());
        let archive = run(&["export", &left], b"").success().stdout;
        let allowed = [
            "--verify",
            "--json",
            "--replace",
            "--allow-loss",
            "hash-field-ttl,functions",
        ];
        let moves: [(&[&str], &[u8]); 5] = [
            (&["import", &url], &archive),
            (&["copy", &left, &url], b""),
            (&["copy", &left, &url, "--method", "commands"], b""),
            (
                &["import", &url, "--ttl", "drop", "--add-prefix", "p:"],
                &archive,
            ),
            (
                &[
                    "import", &url, "--ttl", "rebase", "--map-db", "*:7", "--db", "0",
                ],
                &archive,
            ),
        ];
        for (verb, input) in moves {
            send(&mut destination.client(), &["FLUSHALL"]);
            let output = run(&[verb, &allowed].concat(), input);
            let output = match verb.contains(&"commands") {
                // What no command can bring back is refused, and is not expected.
                true => output,
                false => output.success(),
            };
            let found = &top(&output)["verified"];
            let compared = found["compared"].as_u64().unwrap_or(0);
            assert!(
                compared >= 30,
                "{from} to {to}, {verb:?}: {}",
                output.stderr
            );
            assert_eq!(found["equal"], found["compared"], "{}", output.stderr);
            assert_eq!(found["different"], 0);
        }
    }
}

/// Somebody else writes there all the time: said, listed, exit 5.
#[test]
fn what_is_not_as_it_was_written_is_found() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    fill_many(&mut source.client(), 5_000, 1);
    for key in ["tampered", "deleted", "quiet"] {
        send(&mut source.client(), &["SET", key, "v"]);
    }
    let (left, url) = (source.url(), destination.url());
    let archive = run(&["export", &left], b"").success().stdout;
    let moves: [(&[&str], &[u8]); 2] =
        [(&["import", &url], &archive), (&["copy", &left, &url], b"")];
    for (verb, input) in moves {
        let ended = Arc::new(AtomicBool::new(false));
        let (other, mut client) = (Arc::clone(&ended), destination.client());
        let writer = std::thread::spawn(move || {
            while !other.load(Relaxed) {
                send(&mut client, &["SET", "tampered", "mine"]);
                send(&mut client, &["DEL", "deleted"]);
                send(&mut client, &["SET", "somebody else's", "v"]);
            }
        });
        let flags = ["--verify", "--json", "--replace"];
        let output = run(&[verb, &flags].concat(), input);
        ended.store(true, Relaxed);
        writer.join().unwrap();
        let output = output.expect_code(5);
        let found = &top(&output)["verified"];
        assert_eq!(found["different"], 2, "{}", output.stderr);
        assert_eq!(
            found["compared"].as_u64().unwrap() - 2,
            found["equal"].as_u64().unwrap()
        );
        for key in ["tampered", "deleted"] {
            assert!(output.stderr.contains(key), "{}", output.stderr);
        }
        assert!(
            !output.stderr.contains("somebody else's"),
            "{}",
            output.stderr
        );
    }
}

/// Keys that were skipped, refused, filtered or past their time are not expected.
#[test]
fn only_what_was_written_is_expected() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    let mut client = source.client();
    for key in ["new", "standing", "filtered", "large", "gone"] {
        send(&mut client, &["SET", key, "v"]);
    }
    send(&mut client, &["APPEND", "large", &"x".repeat(5_000)]);
    send(&mut client, &["PEXPIRE", "gone", "300"]);
    let archive = run(&["export", &source.url()], b"").success().stdout;
    std::thread::sleep(std::time::Duration::from_millis(400));
    send(&mut destination.client(), &["SET", "standing", "mine"]);
    let url = destination.url();
    let flags = [
        "--verify",
        "--json",
        "--exclude",
        "filtered",
        "--max-value",
        "1k",
    ];
    for policy in ["skip", "fail"] {
        send(&mut destination.client(), &["DEL", "new"]);
        let import = [&["import", &url, "--on-conflict", policy][..], &flags].concat();
        // Refused keys make it a 3, and what was written is verified all the same.
        let output = run(&import, &archive).expect_code(3);
        let found = &top(&output)["verified"];
        assert_eq!(
            (&found["compared"], &found["equal"]),
            (&1.into(), &1.into())
        );
    }
    run(&["import", &url, "--verify", "--dry-run"], &archive).expect_code(2);
    // Where nothing was written, nothing is verified, and that is all that is said.
    let none = ["import", &url, "--verify", "--match", "no such key"];
    let output = run(&none, &archive).success();
    assert!(
        output.stderr.contains(", nothing to verify"),
        "{}",
        output.stderr
    );
    assert!(!output.stderr.contains("verified"), "{}", output.stderr);
}

/// Under writes: compared with what was sent, the last of it, with what was deleted.
#[test]
fn a_copy_under_writes_is_verified_against_what_was_sent() {
    let Some(version) = require(Version::Valkey91) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    fill_many(&mut source.client(), 5_000, 7);
    let copy = [
        "copy",
        &source.url(),
        &destination.url(),
        "--verify",
        "--json",
        "--follow",
        "--until-idle",
        "1500ms",
    ];
    let running = Tool::new(&copy).spawn();
    let mut client = source.client();
    for n in 0..3_000 {
        send(
            &mut client,
            &["SET", &format!("w:{}", n % 500), &n.to_string()],
        );
        if n % 3 == 0 {
            send(&mut client, &["DEL", &format!("w:{}", (n + 250) % 500)]);
        }
    }
    let output = running.wait().success();
    let found = &top(&output)["verified"];
    assert_eq!(found["different"], 0, "{}", output.stderr);
    let size: u64 = redis::cmd("DBSIZE")
        .query(&mut destination.client())
        .unwrap();
    let counted = found["equal"].as_u64().unwrap() + found["expired"].as_u64().unwrap();
    assert!(counted >= size, "{found}, {size} there");
}

/// With `--delete-source` both are told of what was accepted.
#[test]
fn a_move_is_verified_too() {
    let Some(version) = require(Version::Redis80) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    fill_many(&mut source.client(), 3_000, 2);
    let copy = [
        "copy",
        &source.url(),
        &destination.url(),
        "--verify",
        "--delete-source",
        "--json",
    ];
    let output = run(&copy, b"").success();
    assert_eq!(
        top(&output)["verified"]["equal"],
        3_000,
        "{}",
        output.stderr
    );
    let size: u64 = redis::cmd("DBSIZE").query(&mut source.client()).unwrap();
    assert_eq!(size, 0);
}

/// Who may write and not read is told so before the first key.
#[test]
fn what_may_not_be_verified_is_not_begun() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, destination) = (TestServer::start(version), TestServer::start(version));
    send(&mut source.client(), &["SET", "k", "v"]);
    let archive = run(&["export", &source.url()], b"").success().stdout;
    let mut client = destination.client();
    let user = |client: &mut redis::Connection, rule: &str| {
        let all = [
            "ACL", "SETUSER", "some", "reset", "on", ">pw", "~*", "&*", "+@all",
        ];
        send(client, &[&all[..], &[rule]].concat());
        destination.url().replacen("://", "://some:pw@", 1)
    };
    for rule in ["-scan", "-dump"] {
        let url = user(&mut client, rule);
        for verb in [&["import", &url][..], &["copy", &source.url(), &url]] {
            let output = run(&[verb, &["--verify"]].concat(), &archive);
            output
                .expect_code(13)
                .expect_stderr("--verify reads the destination")
                .expect_stderr(&rule.replacen('-', "+", 1));
            let keys: u64 = redis::cmd("DBSIZE").query(&mut client).expect("DBSIZE");
            assert_eq!(keys, 0, "{rule} {verb:?}");
        }
    }
    // What is said of the destination does not call it the source.
    let url = user(&mut client, "-@dangerous");
    let output = run(&["import", &url, "--verify"], &archive).success();
    assert!(
        output.stderr.contains("verified: 1 of 1"),
        "{}",
        output.stderr
    );
    assert!(!output.stderr.contains("the source"), "{}", output.stderr);
}
