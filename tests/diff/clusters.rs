//! Clusters on either side.

use std::time::Duration;

use crate::diff::found::{diff, expect, found, send, summary};
use crate::support::cluster::TestCluster;
use crate::support::many::fill_many;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::{Tool, run};

#[test]
fn a_cluster_is_a_side_like_any_other() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, cluster) = (
        TestServer::start(version),
        TestCluster::start(version, 3, 0),
    );
    fill_many(&mut source.client(), 2_000, 4);
    let code = "#!lua name=one\nredis.register_function('f_one', function() return 1 end)";
    send(&mut source.client(), &["FUNCTION", "LOAD", code]);
    let (left, right) = (source.url(), cluster.url());
    let archive = run(&["export", &left], b"").success().stdout;
    let output = run(&["import", &right, "--verify", "--json"], &archive).success();
    let last: serde_json::Value = output.summary();
    assert_eq!(last["verified"]["equal"], 2_001, "{last}");
    for (left, right) in [(&left, &right), (&right, &left)] {
        assert_eq!(summary(&expect(left, right, &[], &[]))["equal"], 2_001);
    }
    // One key of each primary.
    let mut gone = Vec::new();
    for primary in cluster.primaries() {
        let key: String = redis::cmd("RANDOMKEY")
            .query(&mut primary.client())
            .expect("a key");
        send(&mut primary.client(), &["DEL", &key]);
        gone.push(key);
    }
    let missing: Vec<_> = gone
        .iter()
        .map(|key| ("0", key.as_str(), "missing"))
        .collect();
    expect(&left, &right, &["--recheck", "1"], &missing);
    let extra: Vec<_> = gone
        .iter()
        .map(|key| ("0", key.as_str(), "extra"))
        .collect();
    expect(&right, &left, &["--recheck", "0"], &extra);
    let output = run(&["diff", "-", &right, "--recheck", "0"], &archive).expect_code(5);
    assert!(String::from_utf8_lossy(&output.stdout).contains("3 missing"));
}

const ONE: &str = "#!lua name=one\nredis.register_function('f_one', function() return 1 end)";
const OTHER: &str = "#!lua name=one\nredis.register_function('f_one', function() return 2 end)";

fn has_libraries(server: &TestServer) -> bool {
    let rows: Vec<redis::Value> = redis::cmd("FUNCTION")
        .arg("LIST")
        .query(&mut server.client())
        .expect("FUNCTION LIST");
    !rows.is_empty()
}

/// Every primary keeps its own libraries: what only some have is a difference, and is not verified,
/// and an export takes it and says so.
#[test]
fn libraries_that_are_not_on_every_primary_are_seen() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let (source, cluster) = (
        TestServer::start(version),
        TestCluster::start(version, 2, 0),
    );
    fill_many(&mut source.client(), 60, 4);
    send(&mut source.client(), &["FUNCTION", "LOAD", ONE]);
    let (left, right) = (source.url(), cluster.url());
    let export = ["export", "--consistency", "scan"];
    let archive = run(&[&export[..], &[&left]].concat(), b"").success().stdout;
    let [first, second] = cluster.primaries() else {
        panic!("two primaries");
    };

    // They are gone from one primary before the run ends.
    let import = ["import", &right, "--verify", "--rate-limit", "30", "--json"];
    let running = Tool::new(&import).stdin_bytes(archive).spawn();
    while !has_libraries(second) {
        std::thread::sleep(Duration::from_millis(5));
    }
    send(&mut second.client(), &["FUNCTION", "FLUSH"]);
    let said = running.wait().expect_code(5).summary();
    assert_eq!(said["verified"]["different"], 1, "{said}");
    assert_eq!(said["verified"]["equal"], 60, "{said}");

    // Whichever of the primaries has them.
    for (one, other) in [(first, second), (second, first)] {
        send(&mut other.client(), &["FUNCTION", "FLUSH"]);
        send(&mut one.client(), &["FUNCTION", "LOAD", "REPLACE", ONE]);
        let here = [("library", "one", "value")];
        expect(&left, &right, &["--recheck", "0"], &here);
        let output = expect(&right, &left, &["--recheck", "0"], &here);
        assert!(!output.stderr.contains("primaries"), "{}", output.stderr);
        let text = run(&["diff", &left, &right, "--recheck", "0"], b"").expect_code(5);
        let text = String::from_utf8(text.stdout).unwrap();
        assert!(text.contains("on 1 of 2 primaries in B"), "{text}");
        for consistency in ["scan", "converge"] {
            let export = ["export", &right, "--json", "--consistency", consistency];
            let output = run(&export, b"").success();
            assert_eq!(output.summary()["source"]["functions"], 1);
            let named = output
                .stderr
                .matches("library \\\"one\\\" is only on 1 of 2 primaries");
            assert_eq!(named.count(), 1, "{}", output.stderr);
        }
    }

    // Two codes: one of them is left out.
    send(
        &mut second.client(),
        &["FUNCTION", "LOAD", "REPLACE", OTHER],
    );
    send(&mut first.client(), &["FUNCTION", "LOAD", "REPLACE", ONE]);
    let output = diff(&left, &right, &["--recheck", "0"]).expect_code(5);
    assert_eq!(found(&output).len(), 1);
    let output = run(&["export", &right, "--json"], b"").expect_code(3);
    let said = output.summary();
    let not_had = said["source"]["not_had"].to_string();
    assert!(not_had.contains("2 different codes"), "{said}");

    // The same everywhere.
    send(&mut second.client(), &["FUNCTION", "LOAD", "REPLACE", ONE]);
    expect(&left, &right, &["--recheck", "0"], &[]);
    run(&["export", &right], b"").success();
}
