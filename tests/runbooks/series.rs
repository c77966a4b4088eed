//! Time series with compaction rules: an RDB file and a replica's snapshot have them, DUMP does not.

use redis::Value;
use serde_json::json;

use crate::modules::{send, stack, stdout, text};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::Tool;

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
        said.contains("3 without what only one side keeps"),
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
