//! The CLUSTER command, and the states of a connection to a node.

use super::super::Server;
use super::super::cluster::{Cluster, Node};
use super::super::process::Cx;
use super::super::release::Since;
use super::super::reply::Reply;
use super::super::slots::{SLOTS, slot_of};
use super::super::table::{CONTAINER, Handler, Keys, LOADING, Row, STALE, row};
use super::words::{error, integer, is, natural, text};

const ALWAYS: Since = Since::Always;
const FLAGS: u16 = LOADING | STALE;
const NONE: Keys = Keys::None;

pub(super) const ROWS: &[Row] = &[
    row(
        "cluster",
        -2,
        STALE | CONTAINER,
        NONE,
        ALWAYS,
        super::container,
    ),
    row("cluster|slots", 2, FLAGS, NONE, ALWAYS, |server, _, _| {
        enabled(server, slots)
    }),
    row(
        "cluster|shards",
        2,
        FLAGS,
        NONE,
        Since::R70,
        |server, _, _| enabled(server, shards),
    ),
    row("cluster|nodes", 2, STALE, NONE, ALWAYS, |server, _, _| {
        enabled(server, nodes)
    }),
    row("cluster|info", 2, STALE, NONE, ALWAYS, |server, _, _| {
        enabled(server, info)
    }),
    row("cluster|myid", 2, STALE, NONE, ALWAYS, |server, _, _| {
        enabled(server, my_id)
    }),
    row(
        "cluster|keyslot",
        3,
        STALE,
        NONE,
        ALWAYS,
        |server, _, args| {
            with_cluster(server, args, |_, args| {
                Reply::Int(i64::from(slot_of(args[2])))
            })
        },
    ),
    row(
        "cluster|countkeysinslot",
        3,
        STALE,
        NONE,
        ALWAYS,
        count_keys,
    ),
    row(
        "cluster|getkeysinslot",
        4,
        STALE,
        NONE,
        ALWAYS,
        keys_in_slot,
    ),
    row("cluster|setslot", -4, STALE, NONE, ALWAYS, set_slot),
    row("asking", 1, 0, NONE, ALWAYS, asking as Handler),
    row(
        "readonly",
        1,
        LOADING | STALE,
        NONE,
        ALWAYS,
        |server, cx, _| read_only(server, cx, true),
    ),
    row(
        "readwrite",
        1,
        LOADING | STALE,
        NONE,
        ALWAYS,
        |server, cx, _| read_only(server, cx, false),
    ),
];

const DISABLED: Reply = error("ERR This instance has cluster support disabled");

fn enabled(server: &Server, answer: fn(&Server, &Cluster) -> Reply) -> Reply {
    match server.cluster().filter(|_| server.config().cluster) {
        Some(cluster) => answer(server, cluster),
        None => DISABLED,
    }
}

fn with_cluster(
    server: &Server,
    args: &[&[u8]],
    answer: impl Fn(&Server, &[&[u8]]) -> Reply,
) -> Reply {
    match server.config().cluster {
        true => answer(server, args),
        false => DISABLED,
    }
}

fn asking(server: &mut Server, cx: &Cx, _: &[&[u8]]) -> Reply {
    if !server.config().cluster {
        return DISABLED;
    }
    if let Some(client) = server.client_mut(cx.client) {
        client.session.asking = true;
    }
    Reply::OK
}

fn read_only(server: &mut Server, cx: &Cx, on: bool) -> Reply {
    if !server.config().cluster && !server.release().is_valkey() {
        return DISABLED;
    }
    if let Some(client) = server.client_mut(cx.client) {
        client.session.read_only = on;
    }
    Reply::OK
}

fn my_id(_: &Server, cluster: &Cluster) -> Reply {
    Reply::bulk(&cluster.me)
}

fn info(server: &Server, cluster: &Cluster) -> Reply {
    let state = if server.cluster_is_up() { "ok" } else { "fail" };
    let size: std::collections::BTreeSet<&str> = cluster.ranges().map(|(_, id)| id).collect();
    Reply::Text(format!(
        "cluster_state:{state}\r\ncluster_slots_assigned:{0}\r\ncluster_slots_ok:{0}\r\n\
         cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:{1}\r\n\
         cluster_size:{2}\r\ncluster_current_epoch:{3}\r\n",
        cluster.assigned(),
        cluster.nodes.len(),
        size.len(),
        cluster.epoch
    ))
}

fn replicas<'a>(cluster: &'a Cluster, of: &'a str) -> impl Iterator<Item = &'a Node> {
    let nodes = cluster.nodes.iter();
    nodes.filter(move |node| node.replica_of.as_deref() == Some(of) && !node.has_failed)
}

fn slots(server: &Server, cluster: &Cluster) -> Reply {
    let is_7 = server.release().has(Since::R70);
    let node = |node: &Node| {
        let mut parts = vec![
            Reply::bulk(&node.host),
            Reply::Int(i64::from(node.port)),
            Reply::bulk(&node.id),
        ];
        if is_7 {
            parts.push(Reply::Map(Vec::new()));
        }
        Reply::Array(parts)
    };
    let row = |(slots, id): (std::ops::RangeInclusive<u16>, &str)| {
        let mut parts = vec![
            Reply::Int(i64::from(*slots.start())),
            Reply::Int(i64::from(*slots.end())),
        ];
        parts.extend(
            cluster
                .node(id)
                .into_iter()
                .chain(replicas(cluster, id))
                .map(node),
        );
        Reply::Array(parts)
    };
    Reply::Array(cluster.ranges().map(row).collect())
}

fn shards(server: &Server, cluster: &Cluster) -> Reply {
    let map = |rows: Vec<(&'static str, Reply)>| {
        Reply::Map(
            rows.into_iter()
                .map(|(name, value)| (Reply::bulk(name), value))
                .collect(),
        )
    };
    let node = |node: &Node| {
        map(vec![
            ("id", Reply::bulk(&node.id)),
            ("port", Reply::Int(i64::from(node.port))),
            ("ip", Reply::bulk(&node.host)),
            ("endpoint", Reply::bulk(&node.host)),
            (
                "role",
                Reply::bulk(if node.replica_of.is_some() {
                    "replica"
                } else {
                    "master"
                }),
            ),
            (
                "replication-offset",
                Reply::unsigned(server.replication.offset),
            ),
            (
                "health",
                Reply::bulk(if node.has_failed { "fail" } else { "online" }),
            ),
        ])
    };
    let primaries = cluster
        .nodes
        .iter()
        .filter(|node| node.replica_of.is_none());
    let shard = |primary: &Node| {
        let ranges = cluster.ranges().filter(|(_, id)| *id == primary.id);
        let ends = ranges.flat_map(|(slots, _)| [*slots.start(), *slots.end()]);
        let ends = ends.map(|slot| Reply::Int(i64::from(slot))).collect();
        let nodes = std::iter::once(primary).chain(replicas(cluster, &primary.id));
        map(vec![
            ("slots", Reply::Array(ends)),
            ("nodes", Reply::Array(nodes.map(node).collect())),
        ])
    };
    Reply::Array(primaries.map(shard).collect())
}

fn nodes(server: &Server, cluster: &Cluster) -> Reply {
    let is_7 = server.release().has(Since::R70);
    let mut lines = String::new();
    for node in &cluster.nodes {
        let is_me = node.id == cluster.me;
        let mut flags = Vec::new();
        flags.extend(is_me.then_some("myself"));
        flags.push(if node.replica_of.is_some() {
            "slave"
        } else {
            "master"
        });
        flags.extend(node.has_failed.then_some("fail"));
        let mut line = format!(
            "{} {}:{}@{}",
            node.id,
            node.host,
            node.port,
            node.port.wrapping_add(10_000)
        );
        if is_7 {
            line.push(',');
        }
        let primary = node.replica_of.as_deref().unwrap_or("-");
        line.push_str(&format!(
            " {} {primary} 0 0 {} connected",
            flags.join(","),
            node.epoch
        ));
        for (slots, _) in cluster.ranges().filter(|(_, id)| *id == node.id) {
            match slots.start() == slots.end() {
                true => line.push_str(&format!(" {}", slots.start())),
                false => line.push_str(&format!(" {}-{}", slots.start(), slots.end())),
            }
        }
        if is_me {
            for (slot, to) in &cluster.migrating {
                line.push_str(&format!(" [{slot}->-{to}]"));
            }
            for (slot, from) in &cluster.importing {
                line.push_str(&format!(" [{slot}-<-{from}]"));
            }
        }
        lines.push_str(&line);
        lines.push('\n');
    }
    Reply::Text(lines)
}

fn slot(word: &[u8]) -> Option<u16> {
    integer(word)
        .and_then(|slot| u16::try_from(slot).ok())
        .filter(|slot| *slot < SLOTS)
}

fn count_keys(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    if !server.config().cluster {
        return DISABLED;
    }
    match slot(args[2]) {
        Some(slot) => Reply::count(server.keyspace.keys_of_slot(cx.db, slot).len()),
        None if integer(args[2]).is_none() => super::words::NOT_INTEGER,
        None => error("ERR Invalid slot"),
    }
}

fn keys_in_slot(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    if !server.config().cluster {
        return DISABLED;
    }
    let (Some(slot), Some(most)) = (slot(args[2]), natural(args[3])) else {
        return error("ERR Invalid slot or number of keys");
    };
    Reply::bulks(
        server
            .keyspace
            .keys_of_slot(cx.db, slot)
            .into_iter()
            .take(most as usize),
    )
}

fn set_slot(server: &mut Server, cx: &Cx, args: &[&[u8]]) -> Reply {
    if !server.config().cluster {
        return DISABLED;
    }
    let Some(number) = slot(args[2]) else {
        return error("ERR Invalid or out of range slot");
    };
    let keys = server.keyspace.keys_of_slot(cx.db, number).len();
    let Some(cluster) = server.cluster_mut() else {
        return DISABLED;
    };
    let is_mine = cluster.owner(number) == Some(cluster.me.as_str());
    let id = args.get(4).map(|id| text(id));
    let known = id.clone().filter(|id| cluster.node(id).is_some());
    match (args[3], id, known) {
        (word, _, _) if is(word, "stable") => {
            cluster.migrating.remove(&number);
            cluster.importing.remove(&number);
        }
        (word, Some(id), None) if !is(word, "stable") => {
            return Reply::error(match is(word, "node") {
                true => format!("ERR Unknown node {id}"),
                false => format!("ERR I don't know about node {id}"),
            });
        }
        (word, _, Some(id)) if is(word, "migrating") => {
            if !is_mine {
                return Reply::error(format!("ERR I'm not the owner of hash slot {number}"));
            }
            cluster.migrating.insert(number, id);
        }
        (word, _, Some(id)) if is(word, "importing") => {
            if is_mine {
                return Reply::error(format!("ERR I'm already the owner of hash slot {number}"));
            }
            cluster.importing.insert(number, id);
        }
        (word, _, Some(id)) if is(word, "node") => {
            if is_mine && id != cluster.me && keys > 0 {
                return Reply::error(format!(
                    "ERR Can't assign hashslot {number} to a different node while I still hold keys \
                     for this hash slot."
                ));
            }
            if is_mine && keys == 0 {
                cluster.migrating.remove(&number);
            }
            if id == cluster.me && cluster.importing.remove(&number).is_some() {
                cluster.epoch += 1;
                let (me, epoch) = (cluster.me.clone(), cluster.epoch);
                if let Some(node) = cluster.node_mut(&me) {
                    node.epoch = epoch;
                }
            }
            cluster.assign(number..=number, &id);
        }
        _ => {
            return error(
                "ERR Invalid CLUSTER SETSLOT action or number of arguments. Try CLUSTER HELP",
            );
        }
    }
    Reply::OK
}
