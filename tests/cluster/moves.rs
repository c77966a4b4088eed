//! Slots on their way from node to node.

use std::time::Duration;

use redis::Connection;

use crate::support::cluster::{TestCluster, node_id, slot_of};
use crate::support::servers::TestServer;

/// Moves a slot with all its keys, as redis-cli does. `between` is called in the middle.
pub fn move_slot(cluster: &TestCluster, slot: u16, from: usize, to: usize, between: impl FnOnce()) {
    let (source, target) = (&cluster.nodes[from], &cluster.nodes[to]);
    let (mut at_source, mut at_target) = (source.client(), target.client());
    let (source_id, target_id) = (node_id(&mut at_source), node_id(&mut at_target));
    let set = |client: &mut Connection, state: &str, id: &str| {
        let mut command = redis::cmd("CLUSTER");
        command.arg("SETSLOT").arg(slot).arg(state).arg(id);
        command.exec(client).expect("CLUSTER SETSLOT");
    };
    set(&mut at_target, "IMPORTING", &source_id);
    set(&mut at_source, "MIGRATING", &target_id);
    let mut between = Some(between);
    loop {
        let keys: Vec<Vec<u8>> = redis::cmd("CLUSTER")
            .arg("GETKEYSINSLOT")
            .arg(slot)
            .arg(2)
            .query(&mut at_source)
            .expect("CLUSTER GETKEYSINSLOT");
        if keys.is_empty() {
            break;
        }
        let mut migrate = redis::cmd("MIGRATE");
        migrate
            .arg("127.0.0.1")
            .arg(target.port())
            .arg("")
            .arg(0)
            .arg(5000);
        migrate.arg("KEYS").arg(&keys);
        migrate.exec(&mut at_source).expect("MIGRATE");
        if let Some(between) = between.take() {
            between();
        }
    }
    set(&mut at_target, "NODE", &target_id);
    set(&mut at_source, "NODE", &target_id);
    for node in cluster.primaries() {
        let mut client = node.client();
        let id = node_id(&mut client);
        if id != source_id && id != target_id {
            set(&mut client, "NODE", &target_id);
        }
    }
    wait_for_agreement(cluster, slot, to);
}

/// An older message of another node may undo what was set. Then the new owner has to raise its
/// number, which a SETSLOT leaves alone if it was the highest that this node knew.
fn wait_for_agreement(cluster: &TestCluster, slot: u16, owner: usize) {
    let port = cluster.nodes[owner].port();
    let agree = || {
        let mut nodes = cluster.primaries().iter();
        nodes.all(|node| port_of(&mut node.client(), slot) == Some(port))
    };
    let mut calls = 0;
    while !agree() {
        calls += 1;
        assert!(calls < 2000, "the nodes do not agree on slot {slot}");
        if calls % 100 == 0 {
            redis::cmd("CLUSTER")
                .arg("BUMPEPOCH")
                .exec(&mut cluster.nodes[owner].client())
                .expect("CLUSTER BUMPEPOCH");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The port of the primary that serves a slot, in the words of one node.
fn port_of(client: &mut Connection, slot: u16) -> Option<u16> {
    type Row = (u16, u16, (String, u16, String));
    let rows: Vec<Vec<redis::Value>> = redis::cmd("CLUSTER").arg("SLOTS").query(client).ok()?;
    rows.into_iter().find_map(|mut row| {
        row.truncate(3);
        if let Some(redis::Value::Array(node)) = row.last_mut() {
            node.truncate(3);
        }
        let (first, last, (_, port, _)): Row =
            redis::from_redis_value(redis::Value::Array(row)).ok()?;
        (first..=last).contains(&slot).then_some(port)
    })
}

/// The primary that holds a slot, as it says itself.
pub fn holder(cluster: &TestCluster, slot: u16) -> usize {
    let holds = |node: &TestServer| -> bool {
        let client = &mut node.client();
        let found: redis::RedisResult<i64> = redis::cmd("EXISTS")
            .arg(format!("{{{}}}", tag_for(slot)))
            .query(client);
        found.is_ok()
    };
    let nodes = cluster.primaries();
    nodes
        .iter()
        .position(holds)
        .expect("somebody holds the slot")
}

fn tag_for(slot: u16) -> u64 {
    (0..)
        .find(|number: &u64| slot_of(number.to_string().as_bytes()) == slot)
        .expect("a tag")
}
