//! From a script to a world.

use std::rc::Rc;

use crate::net::{BEGAN_MS, Node, State, World};
use crate::script::{NodeSetup, Script, Side};
use crate::server::{Config, RELEASES, Random, Release, Server, User};

/// The first node's port; the others follow.
pub(crate) const FIRST_PORT: u16 = 7001;

/// The name and password of the tool's user where it may not do everything.
pub(crate) const TOOL: &str = "tool";

pub(super) fn world(script: &Script) -> Rc<World> {
    let mut random = Random::new(script.seed ^ 0x5e7);
    let mut nodes = Vec::new();
    for (at, setup) in script.nodes.iter().enumerate() {
        let port = FIRST_PORT + at as u16;
        let server = Server::new(config(setup, port), random.next_u64());
        nodes.push(Node::new(
            server,
            setup.side,
            setup.skew_ms,
            setup.max_memory,
        ));
    }
    for fill in &script.fill {
        let words: Vec<&[u8]> = fill.words.iter().map(|word| &word.0[..]).collect();
        let ms = |node: &Node| BEGAN_MS.saturating_add_signed(node.skew_ms);
        let of_side = |node: &&mut Node| node.side == fill.side;
        if let Some(node) = nodes.iter_mut().find(of_side) {
            let now = ms(node);
            node.server.execute(fill.db, &words, now);
        }
    }
    World::new(State::new(script.net.clone(), nodes, script.seed))
}

/// The version of this name, or the newest.
pub(super) fn release(name: &str) -> &'static Release {
    Release::named(name).unwrap_or(&RELEASES[0])
}

pub(super) fn release_of(script: &Script, side: Side) -> &'static Release {
    let node = script.nodes.iter().find(|node| node.side == side);
    node.map_or(&RELEASES[0], |node| release(&node.release))
}

fn config(setup: &NodeSetup, port: u16) -> Config {
    let release = release(&setup.release);
    let mut config = match setup.slots {
        Some(_) => Config::cluster_node(release, "127.0.0.1", port),
        None => Config::new(release),
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
