//! From a script to a world.

use std::rc::Rc;

use crate::net::{BEGAN_MS, Node, State, World};
use crate::script::{Act, NodeSetup, Script, Side};
use crate::server::{
    Cluster, ClusterNode, Config, RELEASES, Random, Release, SLOTS, Sentinel, Server, Since, User,
    slot_of,
};

/// The first node's port; the others follow.
pub(crate) const FIRST_PORT: u16 = 7001;

/// What sentinels call the primary.
pub(crate) const PRIMARY: &str = "mymaster";

/// The name and password of the tool's user where it may not do everything.
pub(crate) const TOOL: &str = "tool";

pub(super) fn world(script: &Script) -> Rc<World> {
    let mut random = Random::new(script.seed ^ 0x5e7);
    let mut nodes = Vec::new();
    let mut ids = Vec::new();
    for (at, setup) in script.nodes.iter().enumerate() {
        let server = Server::new(config(setup, port_of(at)), random.next_u64());
        let mut node = Node::new(server, setup.side, setup.skew_ms, setup.max_memory);
        node.replica_of = setup.replica_of;
        node.holds_back = held_back(script, setup.side);
        nodes.push(node);
        ids.push(random.hex40());
    }
    for (at, node) in nodes.iter_mut().enumerate() {
        if script.nodes[at].is_cluster {
            node.server.set_cluster(view(script, at, &ids));
        }
    }
    for fill in &script.fill {
        let words: Vec<&[u8]> = fill.words.iter().map(|word| &word.0[..]).collect();
        let slot = words.get(1).map_or(0, |key| slot_of(key));
        let is_meant = |node: &&mut Node| {
            node.side == fill.side && node.replica_of.is_none() && node.owns(slot)
        };
        if let Some(node) = nodes.iter_mut().find(is_meant) {
            let now = BEGAN_MS.saturating_add_signed(node.skew_ms);
            node.server.execute(fill.db, &words, now);
        }
    }
    let mut sentinels = Vec::new();
    for side in &script.sentinels {
        let primary = script.nodes.iter().position(|node| node.side == *side);
        let port = port_of(primary.unwrap_or(0));
        sentinels.push((*side, Sentinel::of(PRIMARY, "127.0.0.1", port)));
    }
    World::new(State::new(
        script.net.clone(),
        nodes,
        sentinels,
        script.seed,
    ))
}

pub(crate) fn port_of(node: usize) -> u16 {
    FIRST_PORT + node as u16
}

/// What failovers of the script lose has to be missing at the replica all the time.
fn held_back(script: &Script, side: Side) -> usize {
    let events = script.phases.iter().flat_map(|phase| &phase.events);
    let lost = events.filter_map(|event| match event.act {
        Act::Failover(of, _, lose) if of == side => Some(lose as usize),
        _ => None,
    });
    lost.max().unwrap_or(0)
}

/// The cluster of a side as one of its nodes sees it at first.
fn view(script: &Script, me: usize, ids: &[String]) -> Cluster {
    let side = script.nodes[me].side;
    let of_side: Vec<usize> = (0..ids.len())
        .filter(|at| script.nodes[*at].side == side)
        .collect();
    let nodes = of_side.iter().map(|at| ClusterNode {
        id: ids[*at].clone(),
        host: "127.0.0.1".to_owned(),
        port: port_of(*at),
        replica_of: script.nodes[*at].replica_of.map(|of| ids[of].clone()),
        epoch: *at as u64 + 1,
        has_failed: false,
    });
    let mut cluster = Cluster::new(&ids[me], nodes.collect());
    let primaries = of_side
        .iter()
        .filter(|at| script.nodes[**at].replica_of.is_none());
    let primaries: Vec<usize> = primaries.copied().collect();
    let share = u32::from(SLOTS) / primaries.len().max(1) as u32;
    for (which, at) in primaries.iter().enumerate() {
        let first = share * which as u32;
        let last = match which + 1 == primaries.len() {
            true => u32::from(SLOTS) - 1,
            false => first + share - 1,
        };
        cluster.assign(first as u16..=last as u16, &ids[*at]);
    }
    cluster
}

/// The version of this name, or the newest.
pub(super) fn release(name: &str) -> &'static Release {
    Release::named(name).unwrap_or(&RELEASES[0])
}

/// Whether a source tells only what remains of a key's time, and not when it ends.
pub(super) fn tells_what_remains(script: &Script) -> bool {
    let mut sources = script.nodes.iter().filter(|node| node.side == Side::Source);
    sources.any(|node| {
        !release(&node.release).has(Since::R70)
            || node.refused.iter().any(|name| name == "pexpiretime")
    })
}

pub(super) fn release_of(script: &Script, side: Side) -> &'static Release {
    let node = script.nodes.iter().find(|node| node.side == side);
    node.map_or(&RELEASES[0], |node| release(&node.release))
}

fn config(setup: &NodeSetup, port: u16) -> Config {
    let release = release(&setup.release);
    let mut config = match setup.is_cluster {
        true => Config::cluster_node(release, "127.0.0.1", port),
        false => Config::new(release),
    };
    config.port = port;
    config.limits.max_memory = setup.max_memory;
    if setup.evicts {
        config.limits.policy = "allkeys-random".to_owned();
    }
    if setup.max_clients > 0 {
        config.limits.max_clients = setup.max_clients;
    }
    if !setup.refused.is_empty() || !setup.forbidden_dbs.is_empty() {
        let mut user = User::new(TOOL, Some(TOOL));
        user.commands = crate::server::Commands::AllBut(setup.refused.clone());
        if !setup.forbidden_dbs.is_empty() {
            let all = 0..config.databases;
            let may = all.filter(|db| !setup.forbidden_dbs.contains(db)).collect();
            user.databases = Some(may);
        }
        config.users.push(user);
    }
    config
}
