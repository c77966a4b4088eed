//! A node that no longer tells what changes, or that tells of it when exactness was given up: the
//! export says only what it knows.

use std::time::{Duration, Instant};

use super::moves::{holder, move_slot};
use super::place::{Place, assert_same, fill, imported};
use crate::support::cluster::{TestCluster, slot_of};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::Tool;

/// The clients of a node, but for the one that asks: their ids, and whether they listen for changes.
fn clients(node: &TestServer) -> Vec<(String, bool)> {
    let mut client = node.client();
    let own: u64 = redis::cmd("CLIENT")
        .arg("ID")
        .query(&mut client)
        .expect("CLIENT ID");
    let own = own.to_string();
    let list: String = redis::cmd("CLIENT")
        .arg("LIST")
        .query(&mut client)
        .expect("CLIENT LIST");
    let field = |line: &str, name: &str| {
        let mut fields = line.split(' ');
        fields.find_map(|field| Some(field.strip_prefix(name)?.to_owned()))
    };
    list.lines()
        .filter_map(|line| {
            let flags = field(line, "flags=")?;
            let id = field(line, "id=").filter(|id| *id != own)?;
            Some((id, flags.contains('t')))
        })
        .collect()
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "never {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn listens(node: &TestServer) -> bool {
    clients(node).iter().any(|(_, listens)| *listens)
}

fn export(cluster: &TestCluster, file: &str, more: &[&str]) -> Tool {
    let url = cluster.url();
    let all = ["export", &url, "-o", file, "--json", "--scan-count", "1"];
    Tool::new(&all).args(more)
}

fn kind(summary: &serde_json::Value) -> &serde_json::Value {
    &summary["source"]["consistency"]["kind"]
}

#[test]
fn every_key_is_read_where_a_node_refuses_to_tell_of_changes_in_the_middle() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let cluster = TestCluster::start(version, 3, 0);
    fill(&cluster, 30_000);
    let place = Place::new();
    let file = place.file("refused");
    let tool = export(&cluster, &file, &[]).spawn();
    let node = &cluster.nodes[1];
    wait_until("listened to", || listens(node));
    let mut client = node.client();
    redis::cmd("ACL")
        .arg(&["SETUSER", "default", "-client|tracking"])
        .exec(&mut client)
        .expect("ACL SETUSER");
    for (id, listens) in clients(node) {
        if listens {
            redis::cmd("CLIENT")
                .arg(&["KILL", "ID", &id])
                .exec(&mut client)
                .expect("CLIENT KILL");
        }
    }
    let output = tool.wait().success();
    let words = "changes can no longer be listened to";
    assert!(output.stderr.contains(words), "{}", output.stderr);
    assert_eq!(kind(&output.summary()), "scan");
    let server = imported(version, &[file]);
    assert_same(&cluster, &mut server.client(), version);
}

/// Exactness is given up for a slot that stays half moved. What its other half holds is read then,
/// and meanwhile a node is flushed.
#[test]
fn a_flush_after_exactness_was_given_up_is_not_called_per_key() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let cluster = TestCluster::start(version, 3, 0);
    fill(&cluster, 30_000);
    let slot = slot_of(b"{here}");
    let from = holder(&cluster, slot);
    let to = (from + 1) % 3;
    let flushed = &cluster.nodes[(from + 2) % 3];
    for i in 0..40 {
        redis::cmd("SET")
            .arg(format!("{{here}}{i}"))
            .arg(i)
            .exec(&mut cluster.nodes[from].client())
            .expect("SET");
    }
    let place = Place::new();
    let file = place.file("flushed");
    move_slot(&cluster, slot, from, to, || {
        let how = ["--consistency", "converge", "--max-wait", "1s"];
        let tool = export(&cluster, &file, &how).spawn();
        let target = &cluster.nodes[to];
        wait_until("listened to", || listens(target));
        let known = clients(target);
        // The connection that reads what is on its way there.
        wait_until("asked", || {
            clients(target).iter().any(|one| !known.contains(one))
        });
        redis::cmd("FLUSHALL")
            .exec(&mut flushed.client())
            .expect("FLUSHALL");
        let output = tool.wait().expect_code(4);
        assert!(output.stderr.contains("(--max-wait)"), "{}", output.stderr);
        assert_eq!(kind(&output.summary()), "scan", "{}", output.stderr);
    });
}
