//! What could not be read of a node: slots to be read again, and keys of slots that are on their way,
//! which are read where they go, with ASKING.
//!
//! A node may answer ASKING, or the key after it, with something else than the key. Such keys are
//! asked for again a few times. What is not answered for then has failed, by name, unless its slot
//! is no longer on its way: then all of the slot is read again.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};

use super::SlotSet;
use super::open::Opener;
use super::parts::Parts;
use super::plan::Unread;
use super::view::View;
use crate::server::slots::slot_of;
use crate::source::server::{Leftovers, ServerSource, Unserved};
use crate::units::plural;

/// What could not be read since slots were last reassigned.
#[derive(Default)]
pub(super) struct Astray {
    /// Slots to be read again, from whoever has them.
    again: SlotSet,
    /// Slots to be read again only if they are no longer on their way.
    on_their_way: SlotSet,
    /// Keys of slots that are on their way (database, name).
    names: Vec<(u32, Vec<u8>)>,
    /// Why not, in a node's words.
    reason: Option<String>,
    /// Keys that were read where slots go and may be leftovers there, by the node's id.
    leftovers: BTreeMap<String, Leftovers>,
}

impl Astray {
    /// Takes from all parts what they did not answer for.
    pub fn collect(&mut self, parts: &mut Parts) {
        for part in parts.iter_mut() {
            let of_part = part.take_disturbed();
            insert_all(&mut self.again, &of_part.slots);
            insert_all(&mut self.on_their_way, &of_part.astray);
            self.names.extend(of_part.asked);
            self.reason = of_part.reason.or(self.reason.take());
        }
    }

    /// What the plan needs to know of it.
    pub fn unread(&self, unsteady: SlotSet) -> Unread<'_> {
        Unread {
            again: Some(&self.again),
            astray: Some(&self.on_their_way),
            unsteady,
        }
    }

    /// Why a key was not answered for, in a node's words.
    pub fn reason(&self) -> &str {
        self.reason.as_deref().unwrap_or_default()
    }

    /// Slots were reassigned by this view. Of those that are still on their way something may be left
    /// to be read here, if their move is called off.
    pub fn reassigned(&mut self, view: &View, on_their_way: SlotSet) {
        self.again = SlotSet::default();
        self.on_their_way = on_their_way;
        self.reason = None;
        let is_open = |name: &[u8]| view.open.contains_key(&slot_of(name));
        self.names.retain(|(_, name)| is_open(name));
    }

    /// Begins to read where these slots go, by the id of the node.
    ///
    /// # Errors
    /// What a node refuses, and connections.
    pub fn begin_asking(
        &mut self,
        parts: &mut Parts,
        opener: &mut Opener,
        view: &View,
        open: &BTreeMap<String, SlotSet>,
    ) -> Result<()> {
        self.stop_asking(parts)?;
        let mut asked = std::mem::take(&mut self.names);
        for (id, slots) in open {
            let node = view.node(id);
            let node = node.ok_or_else(|| anyhow!("node {id} has no address"))?;
            opener.observer.notice(&format!(
                "slots {} are on their way to another node; keys that their owner does not have are \
                 read there",
                slots.show()
            ));
            let names = asked.extract_if(.., |(_, name)| slots.has_key(name));
            let part = opener.open_asking(view, &node, slots, names.collect())?;
            parts.push(part);
        }
        Ok(())
    }

    /// What was read there was read; what was not answered for is known from here on.
    ///
    /// # Errors
    /// A node that was lost.
    pub fn end_asking(&mut self, parts: &mut Parts) -> Result<()> {
        for part in parts.asking() {
            if let Some(reason) = part.lost.take() {
                return Err(anyhow!("{reason}; run again"));
            }
            let of_part = part.take_disturbed();
            insert_all(&mut self.on_their_way, &of_part.astray);
            insert_all(&mut self.again, &of_part.slots);
            // If its move is called off for good, the owner is asked again.
            insert_all(&mut self.on_their_way, &part.leftovers().slots);
        }
        Ok(())
    }

    /// Nothing more is read where slots went. Whoever begins again reads all of it.
    ///
    /// # Errors
    /// The file of names that were given.
    pub fn stop_asking(&mut self, parts: &mut Parts) -> Result<()> {
        for part in parts.asking().filter(|part| part.is_live()) {
            let here = part.leftovers();
            if here.keys > 0 {
                let known = self.leftovers.entry(part.primary.clone()).or_default();
                known.keys = known.keys.max(here.keys);
                insert_all(&mut known.slots, &here.slots);
            }
            part.retire()?;
        }
        Ok(())
    }

    /// Of keys that may be leftovers nobody knows whether they belong to the dataset: what came is
    /// not called exact or current, and they are counted. A line for each node.
    pub fn take_leftovers(&mut self, view: &View) -> Vec<String> {
        let leftovers = std::mem::take(&mut self.leftovers);
        let line = |(id, Leftovers { keys, slots }): (String, Leftovers)| {
            let node = view.node(&id);
            let name = node.map_or(id, |node| node.announced.to_string());
            format!(
                "{} of slots {} came from {name}, which imports these slots: their owner has no such \
                 key and does not send clients there, so they may be leftovers of a move that was \
                 called off (redis-cli --cluster check, then fix, ends such a move)",
                plural(keys, "key"),
                slots.show()
            )
        };
        leftovers.into_iter().map(line).collect()
    }
}

/// Asks again for keys that were not answered for; `false` if there are none.
///
/// # Errors
/// The file of names that were given.
pub(super) fn ask_again(parts: &mut Parts, view: &View) -> Result<bool> {
    of_unserved(parts, view, ServerSource::read_unserved)
}

/// At the end: what was not answered for, and not read by anybody else since, has failed. `true` if
/// there is such a key: then there is something left to give.
///
/// # Errors
/// The list of failed keys.
pub(super) fn fail_unserved(parts: &mut Parts, view: &View) -> Result<bool> {
    of_unserved(parts, view, ServerSource::fail_unserved)
}

/// Hands what the nodes did not answer for to each, if there is something. Only of slots that are
/// still on their way: others were reassigned, and all of their keys are read again.
fn of_unserved(
    parts: &mut Parts,
    view: &View,
    mut then: impl FnMut(&mut ServerSource, Vec<Unserved>) -> Result<()>,
) -> Result<bool> {
    let open = SlotSet::of(view.open.keys().copied());
    let mut any = false;
    for part in parts.asking() {
        let Some(scan) = part.scan() else { continue };
        let unserved = scan.take_unserved(&open);
        if !unserved.is_empty() {
            any = true;
            then(scan, unserved)?;
        }
    }
    Ok(any)
}

fn insert_all(set: &mut SlotSet, slots: &SlotSet) {
    for slot in slots.iter() {
        set.insert(slot);
    }
}
