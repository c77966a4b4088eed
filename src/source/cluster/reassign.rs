//! Hands slots to the parts whose nodes have them now.
//!
//! Names that were copied before and are not found there are asked for by name, so that a key that
//! was deleted meanwhile gets its tombstone.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};

use super::SlotSet;
use super::loss::look_for_loss;
use super::open::Opener;
use super::part::is_lost;
use super::parts::Parts;
use super::plan::Plan;
use super::view::View;

/// Carries out `plan`. The inner `Err` says which node could not be reached; then a new view has to
/// be taken.
///
/// # Errors
/// What a node refuses.
pub(super) fn reassign(
    parts: &mut Parts,
    opener: &mut Opener,
    view: &View,
    plan: &Plan,
) -> Result<Result<(), String>> {
    let targets = match open_targets(parts, opener, view, plan)? {
        Ok(targets) => targets,
        Err(reason) => return Ok(Err(reason)),
    };
    for (id, slots) in &plan.moves {
        let Some(&target) = targets.get(id) else {
            continue;
        };
        say_moved(opener, slots, plan);
        if let Err(error) = hand_over(parts, opener, slots, target) {
            let reason = format!("{error:#}");
            parts.lose(target, error)?;
            return Ok(Err(reason));
        }
    }
    Ok(Ok(()))
}

/// The parts of the nodes that have the slots now, opened where they are not read yet.
fn open_targets(
    parts: &mut Parts,
    opener: &mut Opener,
    view: &View,
    plan: &Plan,
) -> Result<Result<BTreeMap<String, usize>, String>> {
    let mut targets = BTreeMap::new();
    for id in plan.moves.keys() {
        let target = match parts.of_primary(id) {
            Some(at) => at,
            None => {
                let mut shards = view.topology.shards.iter();
                let shard = shards.find(|shard| shard.primary.id == *id);
                let shard = shard.ok_or_else(|| anyhow!("node {id} has no address"))?;
                match opener.open_part(shard, &SlotSet::default()) {
                    Ok(part) => parts.push(part),
                    Err(error) if is_lost(&error) => return Ok(Err(format!("{error:#}"))),
                    Err(error) => return Err(error),
                }
            }
        };
        targets.insert(id.clone(), target);
    }
    Ok(Ok(targets))
}

fn say_moved(opener: &Opener, slots: &SlotSet, plan: &Plan) {
    let said = SlotSet::of(slots.iter().filter(|&slot| plan.moved.contains(slot)));
    if !said.is_empty() {
        opener.observer.notice(&format!(
            "slots {} moved to another node, or may have been away; their keys are read again",
            said.show()
        ));
    }
}

/// One part takes slots over from the parts that had them.
fn hand_over(parts: &mut Parts, opener: &Opener, slots: &SlotSet, target: usize) -> Result<()> {
    let takes_back = opener.options.scan.takes_back;
    let logs = match look_for_loss(parts, slots, target, takes_back)? {
        true => Vec::new(),
        false => parts.logs_but(target)?,
    };
    parts.release_but(target, slots);
    match parts.get_mut(target) {
        Some(part) => part.adopt(slots, logs),
        None => Ok(()),
    }
}
