//! A slot that stays half moved: its keys lie on two nodes. What a run cannot see of it, or cannot
//! read there, it says.

use std::time::Duration;

use crate::support::answers::Answer;
use crate::support::cluster::{TestCluster, node_id, slot_of};
use crate::support::resp_proxy::{RespProxy, Rule};
use crate::support::servers::{TestServer, Version, require};
use crate::support::tool::run;

use super::place::{Place, dbsize, export, fill, imported};

/// Keys of the slot, half of which are moved.
const KEYS: u64 = 40;

/// Puts keys into a slot of this node, and moves half of them.
fn move_half(from: &TestServer, to: &TestServer) {
    let slot = slot_of(b"{here}");
    let (mut at_source, mut at_target) = (from.client(), to.client());
    let (source, target) = (node_id(&mut at_source), node_id(&mut at_target));
    let names: Vec<String> = (0..KEYS).map(|i| format!("{{here}}{i}")).collect();
    for name in &names {
        let mut set = redis::cmd("SET");
        set.arg(name).arg(name).exec(&mut at_source).expect("SET");
    }
    let set = |client: &mut redis::Connection, state: &str, id: &str| {
        let mut command = redis::cmd("CLUSTER");
        command.arg("SETSLOT").arg(slot).arg(state).arg(id);
        command.exec(client).expect("CLUSTER SETSLOT");
    };
    set(&mut at_target, "IMPORTING", &source);
    set(&mut at_source, "MIGRATING", &target);
    let mut migrate = redis::cmd("MIGRATE");
    migrate
        .arg("127.0.0.1")
        .arg(to.port())
        .arg("")
        .arg(0)
        .arg(5000);
    migrate
        .arg("KEYS")
        .arg(&names[..names.len() / 2])
        .exec(&mut at_source)
        .expect("MIGRATE");
}

fn holder(cluster: &TestCluster) -> usize {
    cluster.client().owners[usize::from(slot_of(b"{here}"))]
}

/// The cluster's URL for a user with this rule.
fn user(cluster: &TestCluster, rule: &str) -> String {
    for node in &cluster.nodes {
        let mut set = redis::cmd("ACL");
        set.arg("SETUSER").arg("some").arg(&["reset", "on", ">pw"]);
        set.arg(rule.split(' ').collect::<Vec<_>>());
        set.exec(&mut node.client()).expect("ACL SETUSER");
    }
    cluster.url().replacen("://", "://some:pw@", 1)
}

#[test]
fn keys_of_a_half_moved_slot_are_read_or_named() {
    let Some(version) = require(Version::Redis70) else {
        return;
    };
    let cluster = TestCluster::start(version, 2, 0);
    fill(&cluster, 300);
    let from = holder(&cluster);
    let target = &cluster.nodes[1 - from];
    move_half(&cluster.nodes[from], target);
    let total: u64 = cluster
        .nodes
        .iter()
        .map(|node| dbsize(&mut node.client()))
        .sum();
    let place = Place::new();
    let file = place.file("all");

    // Who may not say ASKING is told which keys that costs.
    let forbidden = user(&cluster, "~* &* +@all -asking");
    for how in ["scan", "auto"] {
        let more = ["--consistency", how, "--max-wait", "1s"];
        let output = export(&forbidden, &place.file(how), &more).expect_code(3);
        assert_eq!(output.summary()["source"]["failed"], KEYS / 2, "{how}");
        for i in 0..KEYS / 2 {
            let name = format!("{{here}}{i}\"");
            assert!(output.stderr.contains(&name), "{how}: {}", output.stderr);
        }
        assert!(output.stderr.contains("+asking"), "{}", output.stderr);
        let server = imported(version, &[place.file(how)]);
        assert_eq!(dbsize(&mut server.client()), total - KEYS / 2, "{how}");
    }

    // One that is refused once is asked for again.
    let proxy = RespProxy::start(target.addr());
    let (at, through) = (target.addr(), proxy.url());
    let map = format!("{at}={}", through.trim_start_matches("redis://"));
    for answer in [Answer::Unknown, Answer::Nil] {
        let rule = Rule {
            command: "ASKING".to_owned(),
            from: 2,
            times: 3,
            answer,
            executed: false,
            in_exec: false,
            delay: Duration::ZERO,
        };
        proxy.begin(vec![rule]);
        let more = ["--consistency", "scan", "--node-map", &map];
        export(&cluster.url(), &file, &more).success();
        assert_eq!(proxy.fired(), 3);
        let server = imported(version, std::slice::from_ref(&file));
        assert_eq!(dbsize(&mut server.client()), total);
    }
    let output = run(&["diff", &file, &forbidden], b"");
    assert_ne!(output.code(), Some(0), "{}", output.stderr);
}
