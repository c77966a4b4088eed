//! What stood at the destination before, and what this run wrote itself.

use redis_migrate_format::record::Record;

use super::archives::{archive, string, tombstone};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::run;

fn get(server: &TestServer, key: &str) -> Option<String> {
    redis::cmd("GET")
        .arg(key)
        .query(&mut server.client())
        .unwrap()
}

fn set(server: &TestServer, key: &str, value: &str) {
    redis::cmd("SET")
        .arg(key)
        .arg(value)
        .exec(&mut server.client())
        .unwrap();
}

fn server() -> Option<TestServer> {
    Some(TestServer::start(require(Version::Redis70)?))
}

/// K, K′, TOMBSTONE, K″: what the key is after each prefix of that, for each policy, with and
/// without K standing before.
#[test]
fn later_records_of_a_key_follow_the_runs_own_earlier_ones() {
    let Some(server) = server() else { return };
    let steps: Vec<Vec<Record>> = vec![
        vec![string("k", "first")],
        vec![string("k", "second")],
        vec![tombstone("k")],
        vec![string("k", "third")],
    ];
    let after = [Some("first"), Some("second"), None, Some("third")];
    for (policy, standing_wins) in [("fail", true), ("skip", true), ("replace", false)] {
        for count in 1..=steps.len() {
            let input = archive(&steps[..count]);
            for standing in [false, true] {
                redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
                if standing {
                    set(&server, "k", "standing");
                }
                let output = run(&["import", &server.url(), "--on-conflict", policy], &input);
                let what = format!(
                    "{policy}, {count} records, standing {standing}:\n{}",
                    output.stderr
                );
                let kept = standing && standing_wins;
                let want = if kept {
                    Some("standing")
                } else {
                    after[count - 1]
                };
                assert_eq!(get(&server, "k").as_deref(), want, "{what}");
                let conflict = kept && policy == "fail";
                assert_eq!(output.code(), Some(if conflict { 3 } else { 0 }), "{what}");
            }
        }
    }
}

/// The same without frames between them to wait for: one frame, many keys, every key again in the
/// next frame.
#[test]
fn a_thousand_keys_twice_are_a_thousand_keys_once() {
    let Some(server) = server() else { return };
    let frame = |value: &str| (0..1000).map(|n| string(&format!("k{n}"), value)).collect();
    let input = archive(&[frame("old"), frame("new")]);
    let output = run(&["import", &server.url(), "--json"], &input).success();
    for n in 0..1000 {
        assert_eq!(get(&server, &format!("k{n}")).as_deref(), Some("new"));
    }
    let summary: serde_json::Value = output.summary();
    let text = summary.to_string();
    assert!(
        text.contains("\"restored\":1000") && text.contains("\"replaced_own\":1000"),
        "{text}"
    );
}

#[test]
fn a_tombstone_spares_what_this_run_did_not_write() {
    let Some(server) = server() else { return };
    let input = archive(&[vec![tombstone("k")]]);
    for (policy, stays, code) in [("fail", true, 3), ("skip", true, 0), ("replace", false, 0)] {
        set(&server, "k", "standing");
        run(&["import", &server.url(), "--on-conflict", policy], &input).expect_code(code);
        assert_eq!(get(&server, "k").is_some(), stays, "{policy}");
    }
}

#[test]
fn a_key_that_stands_there_equal_is_no_conflict() {
    for version in Version::MATRIX {
        let Some(version) = require(version) else {
            continue;
        };
        let server = TestServer::start(version);
        let far = crate::support::dataset::now_ms() + 86_400_000;
        let input = archive(&[vec![
            string("plain", "v"),
            super::archives::string_until("expiring", "v", Some(far)),
        ]]);
        run(&["import", &server.url()], &input).success();
        run(&["import", &server.url()], &input)
            .success()
            .expect_stderr("unchanged");
        // Another expiry is another key.
        redis::cmd("PEXPIREAT")
            .arg("expiring")
            .arg(far + 5000)
            .exec(&mut server.client())
            .unwrap();
        run(&["import", &server.url()], &input)
            .expect_code(3)
            .expect_stderr("\"expiring\"")
            .expect_stderr("another expiry");
    }
}

#[test]
fn conflicts_are_listed_and_the_others_go_on() {
    let Some(server) = server() else { return };
    set(&server, "b", "standing");
    let input = archive(&[vec![string("a", "1"), string("b", "2"), string("c", "3")]]);
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("errors.jsonl");
    let journal_text = journal.to_str().unwrap();
    run(
        &["import", &server.url(), "--errors-to", journal_text],
        &input,
    )
    .expect_code(3)
    .expect_stderr("\"b\"");
    assert_eq!(get(&server, "a").as_deref(), Some("1"));
    assert_eq!(get(&server, "b").as_deref(), Some("standing"));
    assert_eq!(get(&server, "c").as_deref(), Some("3"));
    let lines = std::fs::read_to_string(&journal).unwrap();
    let line: serde_json::Value = serde_json::from_str(lines.trim()).unwrap();
    assert_eq!(
        (line["key"].as_str(), line["kind"].as_str()),
        (Some("b"), Some("conflict"))
    );
}

#[test]
fn too_many_failures_end_the_run() {
    let Some(server) = server() else { return };
    for n in 0..50 {
        set(&server, &format!("k{n}"), "standing");
    }
    let records = (0..50).map(|n| string(&format!("k{n}"), "other")).collect();
    run(
        &["import", &server.url(), "--max-errors", "5"],
        &archive(&[records]),
    )
    .expect_code(3)
    .expect_stderr("--max-errors 5")
    .expect_stderr("conflicts 50")
    // Six were named.
    .expect_stderr("44 keys more already existed at the destination");
}

#[test]
fn a_dry_run_says_what_would_happen_and_changes_nothing() {
    let Some(server) = server() else { return };
    set(&server, "same", "v");
    set(&server, "other", "standing");
    let input = archive(&[vec![
        string("same", "v"),
        string("other", "v"),
        string("new", "v"),
    ]]);
    run(&["import", &server.url(), "--dry-run"], &input)
        .expect_code(3)
        .expect_stderr("\"other\"");
    let (export, _) = (
        run(&["export", &server.url(), "--dry-run"], b"").success(),
        (),
    );
    assert!(export.stdout.is_empty(), "a dry run writes no archive");
    let keys: u64 = redis::cmd("DBSIZE").query(&mut server.client()).unwrap();
    assert_eq!(keys, 2);
    assert_eq!(get(&server, "other").as_deref(), Some("standing"));
}

/// Two keys of the source come under one name, and what stands there already is the value of one of
/// them: the other is not at the destination, and that is said.
#[test]
fn a_key_that_stands_equal_does_not_hide_another_of_the_same_name() {
    let Some(server) = server() else { return };
    let (long, short) = (string("p:x", "long"), string("x", "short"));
    let archives = [
        archive(&[vec![long.clone(), short.clone()]]),
        archive(&[vec![long], vec![short]]),
    ];
    for input in &archives {
        for standing in ["long", "short"] {
            for flags in [
                &["--on-conflict", "fail"][..],
                &["--on-conflict", "skip"],
                &["--on-conflict", "fail", "--dry-run"],
                &["--on-conflict", "skip", "--dry-run"],
            ] {
                set(&server, "x", standing);
                let url = server.url();
                let import = ["import", &url, "--strip-prefix", "p:"];
                run(&[&import[..], flags].concat(), input)
                    .expect_code(3)
                    .expect_stderr("another key of the source");
                assert_eq!(get(&server, "x").as_deref(), Some(standing));
            }
        }
    }
    // The same key twice is no other key.
    let again = archive(&[vec![string("p:x", "one")], vec![string("p:x", "two")]]);
    for policy in ["fail", "skip"] {
        set(&server, "x", "two");
        let (url, policy) = (server.url(), ["--on-conflict", policy]);
        let import = ["import", &url, "--strip-prefix", "p:"];
        run(&[&import[..], &policy[..]].concat(), &again)
            .success()
            .expect_stderr("unchanged");
    }
}

/// A key that cannot have its name at the destination is named once, however often it comes.
#[test]
fn a_key_that_falls_on_another_is_named_once() {
    let Some(server) = server() else { return };
    let file = |first: &str| {
        archive(&[
            vec![string(first, "1"), string("p:x", "2")],
            vec![string("p:x", "3")],
            vec![string("p:x", "4")],
        ])
    };
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("errors.jsonl");
    let url = server.url();
    let import = ["import", &url, "--strip-prefix", "p:", "--errors-to"];
    let output = run(
        &[&import[..], &[journal.to_str().unwrap()]].concat(),
        &file("x"),
    );
    output.expect_code(3).expect_stderr("conflicts 3");
    let lines = std::fs::read_to_string(&journal).unwrap();
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert_eq!(get(&server, "x").as_deref(), Some("1"));
}

/// What stood there before the run, and what the run then says of two keys with several records
/// each: how many of them it wrote, and as what each record counts.
#[test]
fn the_summary_counts_only_keys_that_this_run_wrote() {
    let Some(server) = server() else { return };
    let twice = |first: &str, second: &str| {
        let frame = |value: &str| vec![string("a", value), string("b", value)];
        archive(&[frame(first), frame(second)])
    };
    let removed = [tombstone("a"), tombstone("b")].to_vec();
    let with_removal = archive(&[
        vec![string("a", "v"), string("b", "v")],
        removed,
        vec![string("a", "v"), string("b", "v")],
    ]);
    // Input, what stands, and (keys, restored, replaced_own, unchanged, left alone).
    let cases = [
        (
            "same, nothing stands",
            twice("v", "v"),
            None,
            [2, 2, 2, 0, 0],
        ),
        (
            "same, it stands",
            twice("v", "v"),
            Some("v"),
            [0, 0, 0, 4, 0],
        ),
        ("first stands", twice("v", "w"), Some("v"), [2, 2, 0, 2, 0]),
        ("second stands", twice("v", "w"), Some("w"), [0, 0, 0, 4, 0]),
        (
            "another stands",
            twice("v", "w"),
            Some("x"),
            [0, 0, 0, 0, 4],
        ),
        ("removed between", with_removal, Some("v"), [2, 2, 0, 2, 0]),
    ];
    for (what, input, standing, want) in &cases {
        for policy in ["fail", "skip"] {
            for dry_run in [true, false] {
                redis::cmd("FLUSHALL").exec(&mut server.client()).unwrap();
                for key in ["a", "b"] {
                    standing.inspect(|value| set(&server, key, value));
                }
                let url = server.url();
                let mut import = vec!["import", &url, "--on-conflict", policy, "--json"];
                import.extend(dry_run.then_some("--dry-run"));
                let output = run(&import, input);
                let code = i32::from(want[4] > 0 && policy == "fail") * 3;
                let sink = output.expect_code(code).summary()["sink"].clone();
                let count = |name: &str| sink[name].as_u64().unwrap();
                // Nothing was removed in a dry run, so what comes then seems to replace.
                let again = match dry_run && *what == "removed between" {
                    true => 2,
                    false => 0,
                };
                let found = [
                    count("keys"),
                    count("restored") + again,
                    count("replaced_own") - again,
                    count("unchanged"),
                    count("skipped") + count("conflicts"),
                ];
                assert_eq!(found, *want, "{what}, {policy}, dry run {dry_run}: {sink}");
            }
        }
    }
}

/// What had to be changed is told of the values that were written: of three alike, two of which stand
/// with something else and stay, it is a third of what it is where none stands.
#[test]
fn changes_are_counted_of_what_was_written() {
    let far = (crate::support::dataset::now_ms() + 86_400_000).to_string();
    let stream = ["XADD", "KEY", "1-1", "f", "v"].as_slice();
    let set = ["SET", "KEY", "some text"].as_slice();
    let hash = ["HSET", "KEY", "f", "v", "g", "w"].as_slice();
    let expiry = ["HPEXPIREAT", "KEY", &far, "FIELDS", "1", "f"];
    let cases: [(_, &[&[&str]], _); 3] = [
        (Version::Redis62, &[stream], "streams_filled_in"),
        (Version::Valkey91, &[set], "restamped"),
        (Version::Redis80, &[hash, &expiry], "field_ttls_lost"),
    ];
    let Some(destination) = server() else { return };
    for (version, commands, name) in cases {
        let Some(version) = require(version) else {
            continue;
        };
        let source = TestServer::start(version);
        for key in ["a", "b", "c"] {
            for command in commands {
                let words = command.iter().map(|word| match *word {
                    "KEY" => key,
                    word => word,
                });
                let mut command = redis::Cmd::new();
                words.for_each(|word| _ = command.arg(word));
                command.exec(&mut source.client()).unwrap();
            }
        }
        let input = run(&["export", &source.url()], b"").success().stdout;
        for (policy, code) in [("skip", 0), ("fail", 3)] {
            for dry_run in [false, true] {
                redis::cmd("FLUSHALL")
                    .exec(&mut destination.client())
                    .unwrap();
                let url = destination.url();
                let mut import = vec!["import", &url, "--on-conflict", policy, "--json"];
                import.extend(["--allow-loss", "hash-field-ttl"]);
                import.extend(dry_run.then_some("--dry-run"));
                let changes = |output: crate::support::tool::Output| {
                    let changes = output.summary()["sink"]["changes"].clone();
                    changes.as_object().unwrap().clone()
                };
                let all = changes(run(&import, &input).success());
                assert_eq!(all[name], 3, "{all:?}");
                redis::cmd("FLUSHALL")
                    .exec(&mut destination.client())
                    .unwrap();
                self::set(&destination, "a", "standing");
                self::set(&destination, "c", "standing");
                let some = changes(run(&import, &input).expect_code(code));
                for (field, count) in &all {
                    let third = count.as_u64().unwrap() / 3;
                    let what = format!("{field} of {name}, {policy}, dry run {dry_run}");
                    assert_eq!(some[field].as_u64(), Some(third), "{what}: {some:?}");
                }
            }
        }
    }
}
