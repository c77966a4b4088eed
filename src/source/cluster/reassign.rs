//! What concerns several nodes: who has which slots now, and what has to be read anew because of it.
//!
//! A node that is gone, a failover and a slot that moved are one and the same here: slots whose keys
//! were read from one node are from now on read from another, all of them anew. Names that were
//! given before and are not met there are asked for by name, so that a key that was deleted on the
//! way gets its tombstone.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::part::is_lost;
use super::view::{Look, View};
use super::*;
use crate::exit::Interrupted;
use crate::host;
use crate::server::Conn;
use crate::server::cluster::{ClusterNode, options_for};
use crate::server::patience::Patience;
use crate::server::slots::slot_of;
use crate::source::server::delivered::GivenLog;

/// How long a node that is only asked for what it knows may load its dataset.
pub(super) const LOOK_FOR: Duration = Duration::from_secs(2);

/// How often it is asked.
pub(super) const ASK_EVERY: Duration = Duration::from_millis(200);

impl ClusterSource {
    /// Looks at the cluster and hands out what has to be read anew: `true` if there is something.
    pub(super) fn settle(&mut self) -> Result<bool> {
        let mut disturbed = Disturbed {
            astray: std::mem::take(&mut self.unanswered),
            slots: std::mem::take(&mut self.came_back),
            ..Disturbed::default()
        };
        for part in &mut self.parts {
            let of_part = part.take_disturbed();
            for slot in of_part.slots.iter() {
                disturbed.slots.insert(slot);
            }
            for slot in of_part.astray.iter() {
                disturbed.astray.insert(slot);
            }
            self.asked.extend(of_part.asked);
            disturbed.reason = of_part.reason.or(disturbed.reason);
        }
        // A failover needs the time after which a node counts as dead (15 s by default), an election,
        // and some seconds.
        let mut patience = Patience::new(self.options.connect.retry_for);
        loop {
            self.retire_lost()?;
            let reason = match self.look()? {
                Ok(view) => match self.hand_out(view, &disturbed)? {
                    Ok(work) => return Ok(work),
                    Err(reason) => reason,
                },
                Err(reason) => reason,
            };
            if !patience.lasts() {
                return Err(anyhow!(
                    "not every slot of the cluster can be read: {reason} ({}); run again when it can",
                    patience.told()
                ));
            }
            self.rest(ASK_EVERY)?;
        }
    }

    /// Waits, unless the user wants to stop. Who follows and is stopped ends properly.
    pub(super) fn rest(&self, time: Duration) -> Result<()> {
        if self.options.stop.is_set() && self.options.follow.is_none() {
            return Err(Interrupted.into());
        }
        host::sleep(time);
        Ok(())
    }

    fn retire_lost(&mut self) -> Result<()> {
        for part in &mut self.parts {
            if let Some(reason) = &part.lost
                && !matches!(part.reader, Reader::Gone(_))
            {
                self.observer.notice(&format!(
                    "{reason}; the slots of that node are read again, from whoever has them"
                ));
                part.retire()?;
            }
        }
        Ok(())
    }

    /// Asks every node that is read, or else any that is known; the inner `Err` says why there is
    /// nothing to go by yet.
    pub(super) fn look(&mut self) -> Result<Result<View, String>> {
        let mut looks = Vec::new();
        for part in &mut self.parts {
            if !part.is_live() || part.asking {
                continue;
            }
            let Some(conn) = part.conn() else { continue };
            match Look::ask(conn) {
                Ok(look) => looks.push(look),
                Err(error) if error.is_passing() => part.lost = Some(error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
        self.retire_lost()?;
        if looks.is_empty() {
            match self.look_anywhere() {
                Ok(look) => looks.push(look),
                Err(error) => return Ok(Err(error)),
            }
        }
        let Some(mut view) = View::of(looks) else {
            return Ok(Err(
                "the nodes do not agree on who serves which slots".to_owned()
            ));
        };
        let gap = self.wanted.iter().find(|&slot| view.owner(slot).is_none());
        if let Some(slot) = gap {
            return Ok(Err(format!("nobody serves slot {slot}")));
        }
        self.ask_bystanders(&mut view);
        Ok(Ok(view))
    }

    pub(super) fn look_anywhere(&self) -> Result<Look, String> {
        let mut last = "no node is known".to_owned();
        let shards = &self.view.topology.shards;
        let known = shards
            .iter()
            .flat_map(|shard| std::iter::once(&shard.primary).chain(&shard.replicas))
            .map(|node| options_for(&self.options.connect, node));
        for mut options in std::iter::once(self.options.connect.clone()).chain(known) {
            options.retry_for = options.retry_for.min(LOOK_FOR);
            match Conn::open(&options).and_then(|mut conn| Look::ask(&mut conn)) {
                Ok(look) => return Ok(look),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    /// Gives slots to those who have them now; the inner `Err` says who could not be reached.
    fn hand_out(&mut self, view: View, disturbed: &Disturbed) -> Result<Result<bool, String>> {
        let mut moves: BTreeMap<String, SlotSet> = BTreeMap::new();
        let (mut moved, mut unanswered) = (SlotSet::default(), SlotSet::default());
        let mut on_their_way = SlotSet::default();
        let unsteady = self.unsteady(&view);
        for slot in self.wanted.iter() {
            let Some(owner) = view.owner(slot) else {
                continue;
            };
            let holder = self.holders.get(&slot).and_then(|&at| self.parts.get(at));
            let is_held = holder.is_some_and(|part| part.is_live() && part.primary == owner);
            // Of a slot on its way the keys that are astray are asked for where it goes. If it stays
            // where it is, they are asked for here again. What the node did not answer for, for any
            // other reason, is asked for here in any case.
            let is_open = view.open.contains_key(&slot);
            let is_astray = disturbed.astray.contains(slot);
            let again = disturbed.slots.contains(slot) || (is_astray && !is_open);
            // A plain scan does not hear of keys that come back.
            let is_deaf = holder.is_some_and(|part| matches!(part.reader, Reader::Scan(_)));
            if is_open && is_held && (is_astray || is_deaf) {
                on_their_way.insert(slot);
            }
            if !is_held || unsteady.contains(slot) {
                moved.insert(slot);
            } else if again {
                unanswered.insert(slot);
            } else {
                continue;
            }
            moves.entry(owner.to_owned()).or_default().insert(slot);
        }
        if let Some(reason) = self.stalls(&moved, &unanswered, disturbed)? {
            return Ok(Err(reason));
        }
        let mut targets = BTreeMap::new();
        for id in moves.keys() {
            let target = match self.part_of(id) {
                Some(at) => at,
                None => {
                    let node = view.node(id);
                    let node = node.ok_or_else(|| anyhow!("a node without an address"))?;
                    match self.open_late(&view, &node) {
                        Ok(at) => at,
                        Err(error) if is_lost(&error) => return Ok(Err(format!("{error:#}"))),
                        Err(error) => return Err(error),
                    }
                }
            };
            targets.insert(id.clone(), target);
        }
        for (id, slots) in &moves {
            let target = targets[id];
            if !moved.is_empty() {
                self.say_moved(slots, &moved);
            }
            let logs = match self.look_for_loss(slots, target) {
                Ok(true) => Vec::new(),
                Ok(false) => self.logs_but(target)?,
                Err(error) if is_lost(&error) => {
                    let reason = format!("{error:#}");
                    if let Some(part) = self.parts.get_mut(target) {
                        part.lost = Some(reason.clone());
                    }
                    return Ok(Err(reason));
                }
                Err(error) => return Err(error),
            };
            for (at, part) in self.parts.iter_mut().enumerate() {
                if at != target {
                    part.release(slots);
                }
            }
            for slot in slots.iter() {
                self.holders.insert(slot, target);
            }
            let Some(part) = self.parts.get_mut(target) else {
                continue;
            };
            if let Err(error) = part.adopt(slots, logs) {
                if !is_lost(&error) {
                    return Err(error);
                }
                part.lost = Some(format!("{error:#}"));
                return Ok(Err(format!("{error:#}")));
            }
        }
        self.unanswered = on_their_way;
        self.asked
            .retain(|(_, name)| view.open.contains_key(&slot_of(name)));
        self.together.settled(view.topology.clone());
        self.view = view;
        Ok(Ok(!moves.is_empty()))
    }

    fn say_moved(&self, slots: &SlotSet, moved: &SlotSet) {
        let said = SlotSet::of(slots.iter().filter(|&slot| moved.contains(slot)));
        if !said.is_empty() {
            self.observer.notice(&format!(
                "slots {} lie elsewhere than before, or may have been away; their keys are read again",
                said.show()
            ));
        }
    }

    /// A plain scan hears of no change: a slot that went away and came back in between may have had
    /// keys elsewhere when they were to be read. The number of the node that took it back tells.
    fn unsteady(&mut self, view: &View) -> SlotSet {
        let mut unsteady = SlotSet::default();
        for part in &mut self.parts {
            if !part.is_live() || !matches!(part.reader, Reader::Scan(_)) || part.asking {
                continue;
            }
            let epochs = |view: &View| view.epochs.get(&part.primary).copied();
            let slots = |view: &View| -> Vec<u16> {
                let of_part = |slot: &u16| view.owner(*slot) == Some(part.primary.as_str());
                self.wanted.iter().filter(of_part).collect()
            };
            if epochs(view) != epochs(&self.view) && slots(view) == slots(&self.view) {
                for slot in slots(view) {
                    unsteady.insert(slot);
                }
            }
        }
        unsteady
    }

    /// Nothing moved, and still keys are not answered for (CLUSTERDOWN): that must have an end.
    fn stalls(
        &mut self,
        moved: &SlotSet,
        unanswered: &SlotSet,
        disturbed: &Disturbed,
    ) -> Result<Option<String>> {
        if unanswered.is_empty() || !moved.is_empty() {
            self.stalled.progress();
            return Ok(None);
        }
        let reason = disturbed.reason.clone().unwrap_or_default();
        if !self.stalled.lasts() {
            return Err(anyhow!(
                "keys of slots {} are not answered for: {reason} ({}); run again when they are",
                unanswered.show(),
                self.stalled.told()
            ));
        }
        self.rest(ASK_EVERY)?;
        Ok(None)
    }

    fn part_of(&self, primary: &str) -> Option<usize> {
        self.parts
            .iter()
            .position(|part| part.is_live() && !part.asking && part.primary == primary)
    }

    /// What all the others gave.
    fn logs_but(&mut self, target: usize) -> Result<Vec<GivenLog>> {
        let mut logs = Vec::new();
        for (at, part) in self.parts.iter_mut().enumerate() {
            if at != target {
                logs.extend(part.log()?);
            }
        }
        Ok(logs)
    }

    fn open_late(&mut self, view: &View, node: &ClusterNode) -> Result<usize> {
        let shards = view.topology.shards.iter();
        let replicas = shards
            .filter(|shard| shard.primary.id == node.id)
            .flat_map(|shard| shard.replicas.clone())
            .collect::<Vec<_>>();
        let part = self.open_part(node, &replicas, &SlotSet::default())?;
        self.parts.push(part);
        Ok(self.parts.len() - 1)
    }
}
