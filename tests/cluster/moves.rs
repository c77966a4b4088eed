//! Slots on their way from node to node.

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
