//! How the server stands among others, in words and as JSON.

use serde_json::{Value as Json, json};

use crate::describe::family_name;
use crate::describe::table::{Align, Table};
use crate::doctor::layout::{Layout, Shards};
use crate::doctor::{Findings, not_known};
use crate::escape::clean;
use crate::units::{bytes_text, count_text, plural};

/// How it stands among others.
pub(super) fn role(found: &Findings) -> String {
    let facts = &found.facts;
    match &found.layout {
        Layout::Cluster(Ok(shards)) => {
            let count = plural(shards.topology.shards.len() as u64, "shard");
            format!("a node of a cluster of {count}")
        }
        Layout::Cluster(Err(_)) => "a node of a cluster".to_owned(),
        Layout::Single {
            primary: Some((address, is_up)),
            ..
        } => {
            let link = if *is_up { "up" } else { "down" };
            format!("a replica of {address}, link {link}")
        }
        Layout::Single { .. } if facts.replica => "a replica".to_owned(),
        Layout::Single { .. } if !facts.info && found.rights.later(&["INFO"]).is_some() => {
            not_known(found.rights.later(&["INFO"]).unwrap_or_default())
        }
        Layout::Single { .. } if !facts.info => "unknown: INFO is refused".to_owned(),
        Layout::Single { replicas, .. } => match replicas.as_slice() {
            [] => "standalone, primary".to_owned(),
            replicas => {
                let list: Vec<String> = replicas.iter().map(ToString::to_string).collect();
                format!("standalone, primary of {}", list.join(", "))
            }
        },
    }
}

fn ranges_text(slots: &[std::ops::RangeInclusive<u16>]) -> String {
    let range = |range: &std::ops::RangeInclusive<u16>| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    let list: Vec<String> = slots.iter().map(range).collect();
    list.join(",")
}

/// The shards, a row each.
pub(super) fn shards_table(shards: &Shards) -> Table {
    let mut table = Table::new(&[
        ("slots", Align::Left),
        ("primary", Align::Left),
        ("version", Align::Left),
        ("keys", Align::Right),
        ("memory", Align::Right),
        ("replicas", Align::Left),
    ]);
    let unknown = || "unknown".to_owned();
    for (shard, node) in shards.topology.shards.iter().zip(&shards.primaries) {
        let node = node.as_ref().ok();
        let used = node.and_then(|node| node.facts.used_memory);
        let keys = node.and_then(|node| node.keys);
        let replicas = shard.replicas.iter().map(|node| node.announced.to_string());
        let replicas: Vec<String> = replicas.collect();
        table.row(vec![
            ranges_text(&shard.slots),
            clean(&shard.primary.announced.to_string()).into_owned(),
            match node {
                Some(node) => clean(&node.facts.title()).into_owned(),
                None => "not reached".to_owned(),
            },
            keys.map_or_else(unknown, count_text),
            used.map_or_else(unknown, bytes_text),
            clean(&replicas.join(" ")).into_owned(),
        ]);
    }
    table
}

/// How it stands among others, for machines.
pub(super) fn layout_json(found: &Findings) -> Json {
    match &found.layout {
        Layout::Single { primary, replicas } => json!({
            "kind": if found.facts.replica { "replica" } else { "standalone" },
            "primary": primary.as_ref().map(|(address, is_up)| {
                json!({ "address": address.to_string(), "link_up": is_up })
            }),
            "replicas": replicas.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
        Layout::Cluster(Err(reason)) => json!({ "kind": "cluster", "error": reason }),
        Layout::Cluster(Ok(shards)) => {
            let rows: Vec<Json> = shards
                .topology
                .shards
                .iter()
                .zip(&shards.primaries)
                .map(|(shard, node)| {
                    let facts = node.as_ref().ok().map(|node| &node.facts);
                    let replicas = shard.replicas.iter();
                    json!({
                        "slots": ranges_text(&shard.slots),
                        "primary": shard.primary.announced.to_string(),
                        "hostname": shard.primary.hostname,
                        "error": node.as_ref().err(),
                        "family": facts.map(|facts| family_name(facts.family)),
                        "version": facts.map(|facts| &facts.version),
                        "keys": node.as_ref().ok().and_then(|node| node.keys),
                        "used_memory": facts.and_then(|facts| facts.used_memory),
                        "maxmemory": facts.and_then(|facts| facts.maxmemory),
                        "maxmemory_policy": facts.and_then(|facts| facts.policy.as_ref()),
                        "replicas": replicas
                            .map(|node| node.announced.to_string())
                            .collect::<Vec<_>>(),
                    })
                })
                .collect();
            json!({
                "kind": "cluster",
                "keys": shards.keys(),
                "slots_not_served": shards.gap().map_or(0, |(_, slots)| slots),
                "shards": rows,
            })
        }
    }
}
