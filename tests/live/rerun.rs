//! An import that was interrupted anywhere and is run again leaves what one clean run would have
//! left, under every policy, though the archive holds a key several times.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use redis_migrate_format::record::Record;
use serde_json::Value;

use super::archives::{archive, string, tombstone};
use crate::support::equality::assert_equal;
use crate::support::proxy::{Direction, Proxy, Rules};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Tool, run};

/// Keys of each kind.
const EACH: usize = 40;

/// What happens to a key in the archive, one step a frame.
const HISTORIES: [&[Option<&str>]; 6] = [
    &[Some("one")],
    &[Some("one"), Some("two")],
    &[Some("one"), None],
    &[Some("one"), Some("two"), None],
    &[Some("one"), None, Some("two")],
    &[None, Some("one"), Some("two")],
];

/// What stands before: nothing, something else, or what one of the records says.
const STANDING: [Option<&str>; 4] = [None, Some("stranger"), Some("one"), Some("two")];

fn key(history: usize, standing: usize, n: usize) -> String {
    format!("k:{history}:{standing}:{n}")
}

fn each_key() -> impl Iterator<Item = (usize, usize, String)> {
    let all =
        (0..HISTORIES.len()).flat_map(|history| (0..STANDING.len()).map(move |s| (history, s)));
    // Most keys are new, as in life.
    let count = |standing: usize| if standing == 0 { EACH } else { 3 };
    all.flat_map(move |(h, s)| (0..count(s)).map(move |n| (h, s, key(h, s, n))))
}

fn repeating() -> Vec<u8> {
    let frame = |step: usize| -> Vec<Record> {
        each_key()
            .filter_map(|(history, _, key)| {
                Some(match HISTORIES[history].get(step)? {
                    Some(value) => string(&key, value),
                    None => tombstone(&key),
                })
            })
            .collect()
    };
    archive(&[frame(0), frame(1), frame(2)])
}

fn prepare(server: &TestServer) {
    let mut client = server.client();
    redis::cmd("FLUSHALL").exec(&mut client).unwrap();
    let mut pipe = redis::pipe();
    for (_, standing, key) in each_key() {
        if let Some(value) = STANDING[standing] {
            pipe.cmd("SET").arg(key).arg(value).ignore();
        }
    }
    pipe.exec(&mut client).unwrap();
}

fn import(url: &str, policy: &str) -> Tool {
    Tool::new(&["import", url, "--on-conflict", policy, "--json"])
}

/// Runs an import; the names of the keys that failed, each of which may be named once.
fn import_named(url: &str, policy: &str, input: &[u8]) -> (Output, BTreeSet<String>) {
    let journal = tempfile::NamedTempFile::new().expect("a file");
    let output = import(url, policy)
        .arg("--errors-to")
        .arg(journal.path())
        .stdin_bytes(input.to_vec())
        .run();
    let text = std::fs::read_to_string(journal.path()).expect("a journal");
    let names: BTreeSet<String> = text
        .lines()
        .map(|line| {
            let object: Value = serde_json::from_str(line).expect("an object");
            object["key"].as_str().expect("a name").to_owned()
        })
        .collect();
    assert_eq!(names.len(), text.lines().count(), "a key is named once");
    (output, names)
}

/// The last object of `--json`.
fn summary(output: &Output) -> Value {
    let text = [&output.stderr, &*String::from_utf8_lossy(&output.stdout)].concat();
    let mut objects = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    objects
        .find(|object: &Value| object["event"] == "summary")
        .expect("a summary")
}

/// Runs the tool through a proxy that passes on `bytes` and no more, and kills it there. `false` if
/// it was done before.
fn killed_after(bytes: u64, server: &TestServer, policy: &str, input: &[u8]) -> bool {
    let rules = Rules {
        to_server: Direction {
            stall_after: Some(bytes),
            ..Direction::default()
        },
        ..Rules::default()
    };
    let proxy = Proxy::start(server.addr(), rules);
    let mut running = import(&proxy.url(), policy)
        .stdin_bytes(input.to_vec())
        .spawn();
    let (mut seen, mut since) = (0, Instant::now());
    while !running.has_ended() && (seen < bytes || since.elapsed() < Duration::from_millis(60)) {
        let now = proxy.bytes_to_server();
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let was_running = !running.has_ended();
    running.kill();
    running.wait();
    proxy.cut_all();
    was_running
}

#[test]
fn interrupted_anywhere_and_run_again_it_ends_as_one_clean_run() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (clean, server) = (TestServer::start(version), TestServer::start(version));
    let input = repeating();
    for policy in ["fail", "skip", "replace"] {
        prepare(&clean);
        let (done, conflicts) = import_named(&clean.url(), policy, &input);
        assert_eq!(done.code(), Some(if policy == "fail" { 3 } else { 0 }));
        let mut interrupted = 0;
        for step in 1.. {
            prepare(&server);
            if !killed_after(step * 2_500, &server, policy, &input) {
                break;
            }
            interrupted += 1;
            let (again, named) = import_named(&server.url(), policy, &input);
            assert_equal(&mut clean.client(), &mut server.client());
            assert_eq!(named, conflicts, "{policy}, cut {step}");
            assert_eq!(again.code(), done.code(), "{policy}, cut {step}");
        }
        assert!(interrupted >= 10, "{policy}: {interrupted}");
    }
}

/// What stands with a value of nobody's stays, and is named or counted, each key once.
#[test]
fn what_stands_and_is_no_record_of_the_archive_is_named_or_counted() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let strangers: BTreeSet<String> = each_key()
        .filter(|(history, standing, _)| {
            let standing = STANDING[*standing];
            standing.is_some() && !HISTORIES[*history].contains(&standing)
        })
        .map(|(_, _, key)| key)
        .collect();
    for policy in ["fail", "skip"] {
        prepare(&server);
        let (output, named) = import_named(&server.url(), policy, &repeating());
        let sink = summary(&output)["sink"].clone();
        assert_eq!(sink["left_standing"], strangers.len(), "{sink}");
        let mut left = 0;
        for name in &strangers {
            let value: Option<String> = redis::cmd("GET")
                .arg(name)
                .query(&mut server.client())
                .unwrap();
            left += usize::from(value.is_some());
        }
        assert_eq!(left, strangers.len());
        match policy {
            "fail" => assert_eq!(named, strangers),
            _ => assert!(named.is_empty() && output.code() == Some(0)),
        }
    }
}

/// `deleted` is what a DEL removed; the rest is told apart.
#[test]
fn only_what_was_deleted_counts_as_deleted() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let set = |key: &str| {
        redis::cmd("SET")
            .arg(key)
            .arg("stranger")
            .exec(&mut server.client())
            .unwrap();
    };
    let input = archive(&[
        vec![string("mine", "v")],
        vec![tombstone("mine"), tombstone("absent"), tombstone("theirs")],
    ]);
    for (policy, deleted, gone, conflicts, skipped, code) in [
        ("fail", 1, 1, 1, 0, 3),
        ("skip", 1, 1, 0, 1, 0),
        ("replace", 2, 1, 0, 0, 0),
    ] {
        for dry_run in [true, false] {
            redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
            set("theirs");
            let mut tool = import(&server.url(), policy);
            if dry_run {
                tool = tool.arg("--dry-run");
            }
            let output = tool.stdin_bytes(input.clone()).run().expect_code(code);
            let sink = summary(&output)["sink"].clone();
            let counts = [
                "deleted",
                "already_gone",
                "conflicts",
                "skipped",
                "restored",
            ]
            .map(|name| sink[name].as_u64().expect("a count"));
            // A dry run sees that "mine" would stand by then.
            assert_eq!(
                counts,
                [deleted, gone, conflicts, skipped, 1],
                "{policy} {dry_run}"
            );
        }
        let standing: BTreeMap<String, bool> = ["mine", "absent", "theirs"]
            .map(|key| {
                let stands = redis::cmd("EXISTS").arg(key).query(&mut server.client());
                (key.to_owned(), stands.unwrap())
            })
            .into();
        assert!(!standing["mine"] && !standing["absent"]);
        assert_eq!(standing["theirs"], policy != "replace");
    }
}

/// A user who may not ask whether a key stands is told so, and nothing is passed over in silence.
#[test]
fn a_tombstone_whose_key_cannot_be_looked_for_is_named() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::builder(version)
        .user("few on >pw ~* &* +@all -exists")
        .start();
    let url = format!("redis://few:pw@127.0.0.1:{}", server.port());
    let input = archive(&[vec![tombstone("theirs"), string("mine", "v")]]);
    run(&["import", &url], &input)
        .expect_code(3)
        .expect_stderr("cannot tell whether it exists")
        .expect_stderr("\"theirs\"");
}

/// Expiries that count from now are later in the second run, and the keys are the same.
#[test]
fn rebased_expiries_of_an_earlier_run_are_known_again() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let server = TestServer::start(version);
    let far = crate::support::dataset::now_ms() + 3_600_000;
    let until = |value: &str| super::archives::string_until("k", value, Some(far));
    let first = vec![until("one")];
    let input = archive(&[first, vec![until("two")], vec![string("other", "v")]]);
    for policy in ["fail", "skip"] {
        redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
        for _ in 0..3 {
            let arguments = [
                "import",
                &server.url(),
                "--ttl",
                "rebase",
                "--on-conflict",
                policy,
            ];
            run(&arguments, &input).success();
            let value: String = redis::cmd("GET")
                .arg("k")
                .query(&mut server.client())
                .unwrap();
            assert_eq!(value, "two", "{policy}");
        }
        // An older record stands, as an interrupted run would have left it.
        redis::cmd("SET")
            .arg("k")
            .arg("one")
            .arg("KEEPTTL")
            .exec(&mut server.client())
            .unwrap();
        run(
            &[
                "import",
                &server.url(),
                "--ttl",
                "rebase",
                "--on-conflict",
                policy,
            ],
            &input,
        )
        .success();
        let value: String = redis::cmd("GET")
            .arg("k")
            .query(&mut server.client())
            .unwrap();
        assert_eq!(value, "two", "{policy}");
    }
}

/// A source whose keys an earlier copy has brought over; then some changed at the source.
fn copied_and_changed() -> Option<(TestServer, TestServer)> {
    let version = require(Version::Redis70)?;
    let (from, to) = (TestServer::start(version), TestServer::start(version));
    fill(&from, 0..200, "first");
    run(&["copy", &from.url(), &to.url()], b"").success();
    fill(&from, 0..20, "changed since");
    Some((from, to))
}

fn fill(server: &TestServer, keys: std::ops::Range<usize>, value: &str) {
    let mut pipe = redis::pipe();
    for n in keys {
        pipe.cmd("SET").arg(format!("k{n}")).arg(value).ignore();
    }
    pipe.exec(&mut server.client()).unwrap();
}

fn get(server: &TestServer, key: &str) -> Option<String> {
    redis::cmd("GET")
        .arg(key)
        .query(&mut server.client())
        .unwrap()
}

/// What stands with older values is not the source as of an instant.
#[test]
fn a_copy_over_an_earlier_one_is_not_called_exact() {
    let Some((from, to)) = copied_and_changed() else {
        return;
    };
    for how in ["auto", "pause"] {
        let output = run(
            &[
                "copy",
                &from.url(),
                &to.url(),
                "--on-conflict",
                "skip",
                "--consistency",
                how,
            ],
            b"",
        )
        .success()
        .expect_stderr("not exact at the destination: 20 keys");
        assert!(!output.stderr.contains("exact as of"), "{}", output.stderr);
    }
    run(&["copy", &from.url(), &to.url()], b"")
        .expect_code(3)
        .expect_stderr("not exact at the destination: 20 keys");
    // Where nothing is left as it stood it is.
    run(
        &["copy", &from.url(), &to.url(), "--on-conflict", "replace"],
        b"",
    )
    .success()
    .expect_stderr("exact as of");
    run(
        &["copy", &from.url(), &to.url(), "--on-conflict", "skip"],
        b"",
    )
    .success()
    .expect_stderr("exact as of");
}

/// What an earlier copy brought over and is equal is followed from there on; what is not stays, is
/// counted or named, and so are those of it that are deleted at the source.
#[test]
fn following_over_an_earlier_copy_applies_changes_to_what_is_equal() {
    for (policy, code) in [("skip", 0), ("fail", 3)] {
        let Some((from, to)) = copied_and_changed() else {
            return;
        };
        let journal = tempfile::NamedTempFile::new().expect("a file");
        let running = Tool::new(&["copy", &from.url(), &to.url(), "--on-conflict", policy])
            .args(&["--follow", "--until-idle", "2s", "--errors-to"])
            .arg(journal.path())
            .spawn();
        let until = |key: &str, value: Option<&str>| {
            let began = Instant::now();
            while get(&to, key).as_deref() != value {
                assert!(began.elapsed() < Duration::from_secs(15), "{key} {policy}");
                std::thread::sleep(Duration::from_millis(20));
                if value == Some("begun") {
                    fill(&from, 500..501, "begun");
                }
            }
        };
        until("k500", Some("begun"));
        fill(&from, 5..20, "changed once more");
        fill(&from, 100..120, "changed later");
        let mut pipe = redis::pipe();
        for n in (0..5).chain(120..140) {
            pipe.cmd("DEL").arg(format!("k{n}")).ignore();
        }
        pipe.exec(&mut from.client()).unwrap();
        until("k119", Some("changed later"));
        until("k139", None);
        let output = running.wait().expect_code(code);
        let stderr = &output.stderr;
        assert!(!stderr.contains("exact as of"), "{policy}: {stderr}");
        for n in 0..200 {
            let due = match n {
                100..120 => Some("changed later"),
                120..140 => None,
                _ => Some("first"),
            };
            assert_eq!(get(&to, &format!("k{n}")).as_deref(), due, "k{n} {policy}");
        }
        let named = std::fs::read_to_string(journal.path()).expect("a journal");
        match policy {
            "skip" => assert!(stderr.contains("20 keys already existed there"), "{stderr}"),
            _ => {
                for n in 0..5 {
                    let of_key = named
                        .lines()
                        .filter(|line| line.contains(&format!("\"k{n}\"")));
                    let deleted = of_key.filter(|line| line.contains("deleted at the source"));
                    assert_eq!(deleted.count(), 1, "k{n}: {named}");
                }
                // Each key is named once, however often it changed, and counted once.
                let differing = named
                    .lines()
                    .filter(|line| !line.contains("deleted at the source"));
                let keys: Vec<String> = differing
                    .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
                    .map(|line| line["key"].to_string())
                    .collect();
                let distinct: std::collections::BTreeSet<&String> = keys.iter().collect();
                assert_eq!(keys.len(), distinct.len(), "{named}");
                let said = format!("{} keys already existed there", distinct.len());
                assert!(stderr.contains(&said), "{said}: {stderr}");
            }
        }
    }
}
