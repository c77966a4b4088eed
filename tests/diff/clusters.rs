//! Clusters on either side.

use crate::found::{expect, send, summary};
use crate::support::cluster::TestCluster;
use crate::support::many::fill_many;
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::run;

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
