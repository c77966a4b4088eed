//! Slots that are on their way: what is there already is read where they go, with ASKING.
//!
//! A node may answer ASKING, or the key after it, with something else than the key. Such keys are
//! asked for again a few times. What is not answered for then has failed, by name, unless its slot
//! is no longer on its way: then all of the slot is read again.

use anyhow::{Result, anyhow};

use super::reassign::ASK_EVERY;
use super::*;
use crate::source::server::{Leftovers, ServerSource, Unserved};
use crate::units::plural;

/// How often a key is asked for that the node does not answer for.
const ASK_TIMES: u32 = 3;

impl ClusterSource {
    /// Keys of slots that are on their way are read where they go.
    pub(super) fn begin_asking(&mut self, open: &BTreeMap<String, SlotSet>) -> Result<()> {
        self.retire_asking()?;
        let mut asked = std::mem::take(&mut self.asked);
        for (id, slots) in open {
            let node = self.view.node(id);
            let node = node.ok_or_else(|| anyhow!("a node without an address"))?;
            self.observer.notice(&format!(
                "slots {} are on their way to another node; keys that their owner does not have are \
                 read there",
                slots.show()
            ));
            let names = asked
                .extract_if(.., |(_, name)| slots.has_key(name))
                .collect();
            let part = self.open_asking(&node, slots, names)?;
            self.parts.push(part);
        }
        self.times_asked = 1;
        Ok(())
    }

    /// What was read there was read; what was not answered for is known from here on.
    pub(super) fn end_asking(&mut self) -> Result<()> {
        for part in self.parts.iter_mut().filter(|part| part.asking) {
            if let Some(reason) = part.lost.take() {
                return Err(anyhow!("{reason}; run again"));
            }
            let of_part = part.take_disturbed();
            for slot in of_part.astray.iter() {
                self.unanswered.insert(slot);
            }
            for slot in of_part.slots.iter() {
                self.came_back.insert(slot);
            }
            // If its move is called off for good, the owner is asked again.
            for slot in part.leftovers().slots.iter() {
                self.unanswered.insert(slot);
            }
        }
        Ok(())
    }

    /// Asks again for keys that were not answered for; `false` if there are none, or they were asked
    /// for often enough.
    pub(super) fn asks_again(&mut self) -> Result<bool> {
        if self.times_asked >= ASK_TIMES || !self.of_unserved(ServerSource::read_unserved)? {
            return Ok(false);
        }
        self.times_asked += 1;
        self.rest(ASK_EVERY)?;
        Ok(true)
    }

    /// At the end: what was not answered for, and not read by anybody else since, has failed. `true`
    /// if there is such a key: then there is something left to give.
    pub(super) fn fail_unserved(&mut self) -> Result<bool> {
        self.of_unserved(ServerSource::fail_unserved)
    }

    /// Hands what the nodes did not answer for to each, if there is something. Only of slots that are
    /// still on their way: others were handed out, and all of their keys are read again.
    fn of_unserved(
        &mut self,
        mut then: impl FnMut(&mut ServerSource, Vec<Unserved>) -> Result<()>,
    ) -> Result<bool> {
        let open = SlotSet::of(self.view.open.keys().copied());
        let mut any = false;
        for part in self.parts.iter_mut().filter(|part| part.asking) {
            let Some(scan) = part.scan() else { continue };
            let unserved = scan.take_unserved(&open);
            if !unserved.is_empty() {
                any = true;
                then(scan, unserved)?;
            }
        }
        Ok(any)
    }

    /// Nothing more is read where slots went. Whoever begins again reads all of it.
    pub(super) fn retire_asking(&mut self) -> Result<()> {
        for part in &mut self.parts {
            if part.asking && part.is_live() {
                let here = part.leftovers();
                if here.keys > 0 {
                    let known = self.leftovers.entry(part.primary.clone()).or_default();
                    known.keys = known.keys.max(here.keys);
                    for slot in here.slots.iter() {
                        known.slots.insert(slot);
                    }
                }
                part.retire()?;
            }
        }
        Ok(())
    }

    /// Of keys that may be leftovers nobody knows whether they belong to the dataset: what came is
    /// not called exact or current, and they are counted.
    pub(super) fn tell_leftovers(&mut self) {
        for (id, Leftovers { keys, slots }) in std::mem::take(&mut self.leftovers) {
            let node = self.view.node(&id);
            let name = node.map_or(id, |node| node.announced.to_string());
            let reason = format!(
                "{} of slots {} came from {name}, which imports these slots: their owner has no such \
                 key and does not send clients there, so they may be leftovers of a move that was \
                 called off (redis-cli --cluster check, then fix, ends such a move)",
                plural(keys, "key"),
                slots.show()
            );
            self.has_leftovers = true;
            self.not_had.push(reason);
        }
    }
}
