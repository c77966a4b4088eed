//! Primaries that are dead and that nothing is read from.

use std::time::Duration;

use crate::support::cluster::{TestCluster, node_id};
use crate::support::servers::{TestServer, Version, require};

use super::place::{Place, export, fill};

/// CLUSTER NODES of this node, about another one.
fn line_about(node: &TestServer, id: &str) -> String {
    let mut nodes = redis::cmd("CLUSTER");
    let text: String = nodes
        .arg("NODES")
        .query(&mut node.client())
        .expect("CLUSTER NODES");
    let line = text.lines().find(|line| line.starts_with(id));
    line.unwrap_or_default().to_owned()
}

#[track_caller]
fn wait_until_failed(nodes: &[TestServer], id: &str) {
    for _ in 0..600 {
        let knows = |node: &TestServer| line_about(node, id).contains("master,fail ");
        if nodes.iter().all(knows) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the dead node does not count as failed within a minute");
}

/// Single shards are read where others died: that is what --node is for then.
#[test]
fn a_live_shard_is_read_while_another_primary_is_dead() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let mut cluster = TestCluster::start_with(version, 3, 0, |_, builder| {
        builder.option("--cluster-require-full-coverage", "no")
    });
    fill(&cluster, 300);
    let mut dead = cluster.nodes.pop().expect("three nodes");
    let id = node_id(&mut dead.client());
    let at = dead.addr().to_string();
    dead.kill();

    // Until the others agree that it is dead it may yet tell.
    let place = Place::new();
    let node = cluster.nodes[0].addr().to_string();
    let one = ["--node", &node, "--max-wait", "1s"];
    let patient = ["--node", &node, "--max-wait", "60s"];
    let output = export(&cluster.url(), &place.file("early"), &patient).success();
    let kind = &output.summary()["source"]["consistency"]["kind"];
    assert_eq!(kind, "exact", "{}", output.stderr);
    assert!(
        !output.stderr.contains("may be missing"),
        "{}",
        output.stderr
    );
    wait_until_failed(&cluster.nodes, &id);
    let share = ["--shard", "1/3", "--max-wait", "1s"];
    for more in [&one, &share] {
        let output = export(&cluster.url(), &place.file("live"), more).success();
        let kind = &output.summary()["source"]["consistency"]["kind"];
        assert_eq!(kind, "exact", "{more:?}: {}", output.stderr);
        let told = format!("node {at} counts as failed");
        assert!(output.stderr.contains(&told), "{}", output.stderr);
        std::fs::remove_file(place.file("live")).expect("the archive");
    }

    // A slot that is read is on its way to the dead one: what went there already is missing.
    let mut setslot = redis::cmd("CLUSTER");
    let setslot = setslot.arg("SETSLOT").arg(0).arg("MIGRATING").arg(&id);
    setslot
        .exec(&mut cluster.nodes[0].client())
        .expect("CLUSTER SETSLOT");
    let output = export(&cluster.url(), &place.file("moving"), &one);
    assert_ne!(output.code(), Some(0), "{}", output.stderr);
}
