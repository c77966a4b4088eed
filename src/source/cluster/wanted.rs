//! Which slots of a cluster are read: all, those of some nodes, or one of several equal shares.

use std::ops::Range;

use anyhow::Result;

use super::view::View;
use super::{ClusterOptions, SlotSet};
use crate::exit::usage;
use crate::server::cluster::Shard;
use crate::server::slots::SLOTS;

/// The slots that these shards serve.
pub(super) fn slots_of(shards: &[Shard]) -> impl Iterator<Item = u16> + '_ {
    shards
        .iter()
        .flat_map(|shard| shard.slots.iter().cloned().flatten())
}

/// The slots that are to be read.
pub(super) fn wanted_slots(view: &View, options: &ClusterOptions) -> Result<SlotSet> {
    let share = options.shard.map_or(0..SLOTS, share_of_slots);
    if !options.nodes.is_empty() {
        let chosen = choose(&view.topology.shards, options)?;
        let wanted = SlotSet::of(slots_of(&chosen).filter(|slot| share.contains(slot)));
        if wanted.is_empty() {
            return Err(usage(
                "the nodes of --node serve none of the slots of --shard; nothing was read",
            ));
        }
        return Ok(wanted);
    }
    if let Some(slot) = share.clone().find(|&slot| view.owner(slot).is_none()) {
        return Err(usage(format!(
            "no node of the cluster serves slot {slot}: what is in it cannot be read; nothing was \
             read (--node reads single shards)"
        )));
    }
    Ok(SlotSet::of(share))
}

/// The slots of one of several equal shares. They do not depend on who serves them, which may change
/// between two processes. The boundaries are those that `redis-cli --cluster create` makes.
fn share_of_slots((which, of): (u32, u32)) -> Range<u16> {
    let of = u64::from(of.max(1));
    let boundary = |shares: u64| (2 * shares * u64::from(SLOTS) + of) / (2 * of);
    let slot = |shares: u64| u16::try_from(boundary(shares)).unwrap_or(SLOTS).min(SLOTS);
    slot(u64::from(which.saturating_sub(1)))..slot(u64::from(which))
}

/// The shards of the nodes that were named, in the order of their slots.
fn choose(shards: &[Shard], options: &ClusterOptions) -> Result<Vec<Shard>> {
    for name in &options.nodes {
        if !shards.iter().any(|shard| has_node(shard, name, options)) {
            return Err(usage(format!(
                "--node {name} is not a node of the cluster that has slots; the cluster announces \
                 {}",
                shards
                    .iter()
                    .map(|shard| shard.primary.announced.to_string())
                    .collect::<Vec<_>>()
                    .join(", ")
            )));
        }
    }
    let names = |shard: &&Shard| {
        let mut names = options.nodes.iter();
        names.any(|name| has_node(shard, name, options))
    };
    Ok(shards.iter().filter(names).cloned().collect())
}

fn has_node(shard: &Shard, name: &str, options: &ClusterOptions) -> bool {
    std::iter::once(&shard.primary)
        .chain(&shard.replicas)
        .any(|node| {
            let reached = options.connect.node_map.reach(&node.announced);
            node.id == name || node.announced.to_string() == name || reached.to_string() == name
        })
}

pub(super) fn left_out(options: &ClusterOptions, wanted: &SlotSet) -> Option<String> {
    if options.shard.is_none() && options.nodes.is_empty() {
        return None;
    }
    let what = match options.shard {
        Some((which, of)) => format!("shard {which} of {of} of a cluster"),
        None => "some nodes of a cluster".to_owned(),
    };
    Some(format!("only {what}: slots {}", wanted.show()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_slots_meet_and_leave_none_out() {
        for of in [1, 2, 3, 5, 7, 100, 16_383, 16_384] {
            let all = (1..=of).flat_map(|which| share_of_slots((which, of)));
            assert!(all.eq(0..SLOTS), "{of}");
            assert!((1..=of).all(|which| !share_of_slots((which, of)).is_empty()));
        }
        assert_eq!(share_of_slots((2, 3)), 5_461..10_923);
    }
}
