//! Time series with compaction rules: an RDB file and a replica's snapshot have them, DUMP does not.

use redis::Value;
use serde_json::json;

use crate::runbooks::modules::{send, stack, stdout, text};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Output, Tool};

/// A series that two others are compacted from, and one that is not compressed.
fn fill(client: &mut redis::Connection) {
    for line in [
        "TS.CREATE ts:raw LABELS of test",
        "TS.CREATE ts:avg",
        "TS.CREATE ts:max",
        "TS.CREATERULE ts:raw ts:avg AGGREGATION avg 60000",
        "TS.CREATERULE ts:raw ts:max AGGREGATION max 60000",
        "TS.CREATE ts:plain UNCOMPRESSED",
        "SET plain text",
    ] {
        send(client, line);
    }
    for n in 1..20 {
        send(client, &format!("TS.ADD ts:raw {} {n}.5", n * 40_000));
        send(client, &format!("TS.ADD ts:plain {n} {n}"));
    }
}

fn rules(server: &TestServer, key: &str) -> usize {
    let Value::Array(info) = send(&mut server.client(), &format!("TS.INFO {key}")) else {
        panic!("no list");
    };
    let at = info
        .iter()
        .position(|name| matches!(name, Value::SimpleString(name) if name == "rules"));
    match &info[at.expect("rules") + 1] {
        Value::Array(rules) => rules.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn series_with_rules_are_compared_without_them() {
    let (Some(from), Some(to)) = (stack(), stack()) else {
        return;
    };
    let mut client = from.client();
    fill(&mut client);
    let work = tempfile::tempdir().expect("a directory");
    let archive = work.path().join("rep.rmz");
    let export = ["export", "--via", "replica", &from.url(), "-o"];
    Tool::new(&export).args(&[text(&archive)]).run().success();
    let diff = Tool::new(&["diff", text(&archive), &from.url()]).run();
    let said = stdout(&diff.success());
    // The series with rules, and the two that are compacted from it.
    assert!(
        said.contains("3 compared without what only one side keeps"),
        "{said}"
    );
    let import = ["import", &to.url(), text(&archive), "--verify", "--json"];
    let verified = Tool::new(&import).run().success().summary()["verified"].clone();
    assert_eq!(
        (&verified["equal"], &verified["different"]),
        (&json!(5), &json!(0))
    );
    assert_eq!(rules(&to, "ts:raw"), 2);
    let again = Tool::new(&import).run().success().summary()["sink"].clone();
    assert_eq!(
        (&again["unchanged"], &again["conflicts"]),
        (&json!(5), &json!(0))
    );
    // Other samples, and other labels, are another value, and so are other rules where both say them.
    send(&mut to.client(), "TS.ADD ts:raw 9000000 1");
    send(&mut to.client(), "TS.ALTER ts:avg LABELS of another");
    let diff = Tool::new(&["diff", text(&archive), &to.url()]).run();
    let said = stdout(&diff.expect_code(5));
    assert!(said.contains("time series of 19 samples"), "{said}");
    for key in ["ts:raw", "ts:avg"] {
        assert!(said.contains(key), "{key}: {said}");
    }
    assert!(!said.contains("ts:plain"), "{said}");
    send(&mut client, "TS.DELETERULE ts:raw ts:max");
    let other = work.path().join("other.rmz");
    Tool::new(&export).args(&[text(&other)]).run().success();
    let diff = Tool::new(&["diff", text(&archive), text(&other)]).run();
    let said = stdout(&diff.expect_code(5));
    assert!(said.contains("1 of 5 differ"), "{said}");
    // Renamed, a series is still itself.
    send(&mut to.client(), "FLUSHALL");
    let renamed = [
        "import",
        &to.url(),
        text(&other),
        "--add-prefix",
        "n:",
        "--verify",
    ];
    Tool::new(&renamed).run().success();
}

#[test]
fn where_modules_cannot_be_listed_the_reason_is_the_module() {
    let (Some(from), Some(version)) = (stack(), require(Version::Redis80)) else {
        return;
    };
    fill(&mut from.client());
    let to = TestServer::builder(version)
        .user("default on nopass ~* &* +@all")
        .user("bob on >secret ~* &* +@all -module -info")
        .start();
    let url = format!("redis://bob:secret@{}", to.addr());
    let copied = Tool::new(&["copy", &from.url(), &url]).run().expect_code(3);
    let said = copied.stderr;
    assert!(
        said.contains("the module of the type TSDB-TYPE is probably not loaded"),
        "{said}"
    );
    assert!(!said.contains("RDB version"), "{said}");
}

/// What a run says of rules that are not at its destination: the names of series.
fn missing(output: &Output) -> serde_json::Value {
    let outside = output.summary()["source"]["outside"].clone();
    let of_rules = |one: &&serde_json::Value| one["kind"] == "series rule missing";
    let all = outside.as_array().expect("a list").clone();
    all.iter()
        .find(of_rules)
        .map_or(json!([]), |one| one["names"].clone())
}

#[test]
fn rules_that_do_not_arrive_are_named() {
    let (Some(from), Some(to)) = (stack(), stack()) else {
        return;
    };
    fill(&mut from.client());
    let work = tempfile::tempdir().expect("a directory");
    let archive = work.path().join("rep.rmz");
    Tool::new(&[
        "export",
        "--via",
        "replica",
        &from.url(),
        "-o",
        text(&archive),
    ])
    .run()
    .success();
    let run = |before: &[&str], options: &[&str]| {
        send(&mut to.client(), "FLUSHALL");
        before.iter().for_each(|line| {
            send(&mut to.client(), line);
        });
        let import = Tool::new(&["import", "--json", &to.url(), text(&archive)]);
        let copy = ["copy", "--json", "--via", "replica", &from.url(), &to.url()];
        let output = import.args(options).run();
        send(&mut to.client(), "FLUSHALL");
        before.iter().for_each(|line| {
            send(&mut to.client(), line);
        });
        let copied = Tool::new(&copy).args(options).run();
        assert_eq!(missing(&copied), missing(&output), "{options:?}");
        output
    };
    for options in [&[][..], &["--map-db", "0:1"]] {
        let output = run(&[], options).success();
        assert_eq!(missing(&output), json!([]));
        assert!(
            !output.stderr.contains("TS.CREATERULE"),
            "{}",
            output.stderr
        );
    }
    let renamed = run(&[], &["--add-prefix", "n:"]).success();
    assert_eq!(missing(&renamed), json!(["n:ts:raw"]));
    assert_eq!(rules(&to, "n:ts:raw"), 0);
    let told = "not at the destination: compaction rules of 1 time series (n:ts:raw)";
    assert!(renamed.stderr.contains(told), "{}", renamed.stderr);
    let standing = ["TS.CREATE ts:raw"];
    let skipped = run(&standing, &["--on-conflict", "skip"]);
    assert_eq!(missing(&skipped), json!(["ts:raw"]));
    assert_eq!(rules(&to, "ts:raw"), 0);
    let chosen = run(&[], &["--match", "ts:raw"]).success();
    let is_there = rules(&to, "ts:raw") == 2;
    assert_eq!(missing(&chosen) == json!([]), is_there);
    // A dry run writes nothing that could be missed.
    let dry = Tool::new(&["import", "--json", "--dry-run", &to.url(), text(&archive)]).run();
    assert_eq!(missing(&dry), json!([]));
}

#[test]
fn doctor_tells_what_is_outside_keys() {
    let (Some(from), Some(version)) = (stack(), require(Version::Redis70)) else {
        return;
    };
    fill(&mut from.client());
    send(
        &mut from.client(),
        "FT.CREATE products PREFIX 1 h: SCHEMA t TEXT",
    );
    let asked = Tool::new(&["doctor", "--source", &from.url()]).run();
    let said = stdout(&asked);
    for wanted in [
        "outside keys, and not in an export over SCAN: 1 search index (products)",
        "compaction rules of time series are outside keys, too",
        "+ft._list +ts.info",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    // The rule lets everything be asked.
    let line = said.lines().find(|line| line.contains("export, full"));
    let (_, rule) = line.and_then(|line| line.split_once("~*")).expect("a rule");
    let user = format!("ACL SETUSER bob on >secret ~* {}", rule.trim());
    send(&mut from.client(), &user);
    let work = tempfile::tempdir().expect("a directory");
    let archive = work.path().join("stack.rmz");
    let url = format!("redis://bob:secret@{}", from.addr());
    let exported = Tool::new(&["export", "--json", &url, "-o", text(&archive)]).run();
    let outside = exported.success().summary()["source"]["outside"].clone();
    assert_eq!(
        outside,
        json!([
            {"kind": "search index", "count": 1, "names": ["products"]},
            {"kind": "series rule", "count": 1, "names": ["ts:raw"]},
        ])
    );
    let plain = TestServer::start(version);
    let doctor = Tool::new(&["doctor", &plain.url(), text(&archive)]).run();
    let said = stdout(&doctor);
    assert!(
        said.contains("outside keys: 1 search index (products), not in the archive"),
        "{said}"
    );
    assert!(!said.contains("an export over SCAN"), "{said}");
}
