//! The layout that the server is part of, in words.

use crate::describe::table::Table;
use crate::doctor::layout::{Layout, Shards};
use crate::doctor::server::Told;
use crate::doctor::{Findings, not_known};
use crate::escape::clean;
use crate::units::{bytes_text, count_text, plural};

/// What the server is part of.
pub(super) fn role(found: &Findings) -> String {
    let facts = &found.facts;
    match &found.layout {
        Layout::Cluster(Told::Known(shards)) => {
            let count = plural(shards.topology.shards.len() as u64, "shard");
            format!("a node of a cluster of {count}")
        }
        Layout::Cluster(_) => "a node of a cluster".to_owned(),
        Layout::Single {
            primary: Some((address, is_up)),
            ..
        } => {
            let link = if *is_up { "up" } else { "down" };
            format!("a replica of {address}, link {link}")
        }
        Layout::Single { .. } if facts.role.replica => "a replica".to_owned(),
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

/// Slots: `0-5461,5470`.
pub(super) fn ranges_text(slots: &[std::ops::RangeInclusive<u16>]) -> String {
    let range = |range: &std::ops::RangeInclusive<u16>| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    let list: Vec<String> = slots.iter().map(range).collect();
    list.join(",")
}

/// The shards, a row each.
pub(super) fn shards_table(shards: &Shards) -> Table {
    let mut table = Table::new("slots | primary | version | >keys | >memory | replicas");
    let unknown = || "unknown".to_owned();
    for (shard, node) in shards.topology.shards.iter().zip(&shards.primaries) {
        let node = node.known();
        let used = node.and_then(|node| node.facts.memory.used);
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
