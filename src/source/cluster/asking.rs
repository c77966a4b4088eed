//! What a node did not answer for: slots that have to be read again, and keys of slots that are being
//! moved, which are read from the node that they go to, with ASKING.
//!
//! That node may refuse ASKING, or answer with something other than the key. Such keys are asked for
//! again a few times. A key that is still not answered for has failed, by name, unless its slot is no
//! longer being moved: then the whole slot is read again.

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

/// What was not answered for since slots were last reassigned.
#[derive(Default)]
pub(super) struct Astray {
    /// Slots to be read again, from whoever has them.
    again: SlotSet,
    /// Slots to be read again once they are no longer being moved.
    on_their_way: SlotSet,
    /// Keys of slots that are being moved (database, name).
    names: Vec<(u32, Vec<u8>)>,
    /// Why not, in a node's words.
    reason: Option<String>,
    /// Keys that came from a node that imports their slots and may be leftovers there, by node id.
    leftovers: BTreeMap<String, Leftovers>,
}

impl Astray {
    /// Collects from all parts what they did not answer for.
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

    /// Slots were reassigned by this view. `on_their_way` are still being moved: they have to be read
    /// again here if their move is called off.
    pub fn reassigned(&mut self, view: &View, on_their_way: SlotSet) {
        self.again = SlotSet::default();
        self.on_their_way = on_their_way;
        self.reason = None;
        let is_open = |name: &[u8]| view.open.contains_key(&slot_of(name));
        self.names.retain(|(_, name)| is_open(name));
    }

    /// Begins to read from the nodes that these slots go to, by node id.
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
                "slots {} are migrating to another node; keys that their owner does not have are \
                 read there",
                slots.show()
            ));
            let names = asked.extract_if(.., |(_, name)| slots.has_key(name));
            let part = opener.open_asking(view, &node, slots, names.collect())?;
            parts.push(part);
        }
        Ok(())
    }

    /// Collects what the nodes that slots go to did not answer for.
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
            // If the move is called off for good, the owner is asked again.
            insert_all(&mut self.on_their_way, &part.leftovers().slots);
        }
        Ok(())
    }

    /// Stops reading from the nodes that slots go to. Whoever begins again reads everything there.
    ///
    /// # Errors
    /// Errors of the file of names that were given.
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

    /// A line for each node with keys that may be leftovers. Nobody knows whether those belong to the
    /// dataset, so it is called neither exact nor current.
    pub fn take_leftovers(&mut self, view: &View) -> Vec<String> {
        let leftovers = std::mem::take(&mut self.leftovers);
        let line = |(id, Leftovers { keys, slots }): (String, Leftovers)| {
            let node = view.node(&id);
            let name = node.map_or(id, |node| node.announced.to_string());
            format!(
                "{} of slots {} came from {name}, which imports these slots: their owner has no \
                 such key and does not redirect clients there, so they may be leftovers of a \
                 migration that was cancelled (redis-cli --cluster check, then fix, ends such a \
                 migration)",
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

/// Counts keys as failed that were not answered for and not read elsewhere since. `true` if there is
/// such a key: then its failure is still to be passed on.
///
/// # Errors
/// The list of failed keys.
pub(super) fn fail_unserved(parts: &mut Parts, view: &View) -> Result<bool> {
    of_unserved(parts, view, ServerSource::fail_unserved)
}

/// Calls `then` for each node with the keys that it did not answer for, if any. Only slots that are
/// still being moved count: all others were reassigned and are read again as a whole.
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
