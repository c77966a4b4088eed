//! A node of a cluster as a source: it is asked only for the slots that are read from it, and what
//! it answers of others says where to look next.

use super::books::DbKey;
use super::owners::{Leftovers, Owner, Owners};
use super::slot_set::{SharedSlots, SlotSet};
use crate::server::cluster::Redirect;
use crate::server::slots::slot_of;

/// Names that answered ASK, kept by name; of more than so many only the slots are known.
pub(super) const MAX_ASKED: usize = 1_000_000;

/// What of a node of a cluster is read, and how.
#[derive(Debug, Clone, Default)]
pub struct NodeScan {
    /// The slots that are read from it.
    pub slots: SlotSet,
    /// They are on their way to it, and not its own yet.
    pub asking: bool,
    /// It is a replica.
    pub replica: bool,
}

/// A key that the node its slot goes to did not answer for.
#[derive(Debug)]
pub struct Unserved {
    pub(super) db: u32,
    pub(in crate::source) key: Vec<u8>,
    /// For people.
    pub(super) reason: String,
}

impl Unserved {
    /// What can be done about it.
    pub(super) fn hint(&self) -> Option<&'static str> {
        self.reason
            .contains("with NOPERM")
            .then_some("the user needs ASKING (+asking) to read keys of migrating slots")
    }
}

/// What could not be read of a node.
#[derive(Debug, Default)]
pub struct Disturbed {
    /// Slots to be read again, from whoever has them.
    pub slots: SlotSet,
    /// Slots to be read again only if they are no longer on their way: their keys are asked for where
    /// they go.
    pub astray: SlotSet,
    /// Keys of slots that are on their way (database, name).
    pub asked: Vec<(u32, Vec<u8>)>,
    /// In the node's words, the last time.
    pub reason: Option<String>,
}

/// What a source knows of its place in a cluster.
#[derive(Default)]
pub(super) struct Membership {
    /// The slots that are read from this node; whoever listens to its changes sees them, too.
    owned: SharedSlots,
    /// Of those, the ones that the present scan is about.
    reading: SlotSet,
    /// Whether every command for a key is preceded by ASKING: the slots are on their way here.
    asking: bool,
    /// What has to be read elsewhere, or again.
    disturbed: Disturbed,
    /// Of a node that is asked with ASKING: keys that it did not answer for.
    unserved: Vec<Unserved>,
    /// Who has these slots still, where they are on their way here.
    owners: Option<Owners>,
    /// What ASKING was answered with, the last time that it was not OK.
    asking_refused: Option<String>,
}

/// How names are come by that owners are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NamesFrom {
    /// A scan of the node that the slot goes to.
    Scan,
    /// Their owners, who had sent elsewhere for them.
    Owners,
}

impl Membership {
    pub fn new(slots: &SlotSet, asking: bool) -> Self {
        Self {
            owned: SharedSlots::of(slots),
            reading: slots.clone(),
            asking,
            ..Self::default()
        }
    }

    /// Whether every command for a key is preceded by ASKING.
    pub fn asks(&self) -> bool {
        self.asking
    }

    /// The slots that are read from this node, as they change.
    pub fn shared_slots(&self) -> SharedSlots {
        self.owned.clone()
    }

    /// The slots that are read from this node.
    pub fn slots(&self) -> SlotSet {
        self.owned.snapshot()
    }

    /// Of those, the ones that the present scan is about.
    pub fn reading(&self) -> &SlotSet {
        &self.reading
    }

    /// Whether the key is read from this node.
    pub fn owns(&self, key: &[u8]) -> bool {
        self.owned.has_key(key)
    }

    /// Whether the present scan is about the key.
    pub fn reads(&self, key: &[u8]) -> bool {
        self.reading.has_key(key)
    }

    /// These slots belong to it and are to be read; besides those that it was to read before, unless
    /// all of them are read.
    pub fn adopt(&mut self, slots: &SlotSet, is_read: bool) {
        if is_read {
            self.reading = SlotSet::default();
        }
        for slot in slots.iter() {
            self.owned.insert(slot);
            self.reading.insert(slot);
        }
    }

    /// These slots are read elsewhere from now on.
    pub fn release(&mut self, slots: &SlotSet) {
        for slot in slots.iter() {
            self.owned.remove(slot);
            self.reading.remove(slot);
        }
    }

    /// A scan that begins anew is about all of the slots.
    pub fn read_all(&mut self) {
        self.reading = self.owned.snapshot();
    }

    /// ASKING was answered so.
    pub fn asking_was_refused(&mut self, text: String) {
        self.asking_refused = Some(text);
    }

    /// A key that the node does not answer for: it is read again later, wherever it is then. It is
    /// given back where there are too many of them to keep.
    pub fn stray(&mut self, DbKey { db, key }: DbKey, redirect: &Redirect) -> Option<Unserved> {
        let slot = slot_of(&key);
        self.disturbed.reason = Some(redirect.to_string());
        if self.asking {
            self.disturbed.astray.insert(slot);
            let reason = match &self.asking_refused {
                Some(text) => format!("ASKING was answered with {text}"),
                None => format!("it answered {redirect}"),
            };
            let reason =
                format!("the node that its slot is migrating to does not serve it: {reason}");
            let unserved = Unserved { db, key, reason };
            if self.unserved.len() >= MAX_ASKED {
                return Some(unserved);
            }
            self.unserved.push(unserved);
            return None;
        }
        match redirect {
            Redirect::Ask { .. } => {
                self.disturbed.astray.insert(slot);
                if self.disturbed.asked.len() < MAX_ASKED {
                    self.disturbed.asked.push((db, key));
                }
            }
            _ => self.disturbed.slots.insert(slot),
        }
        None
    }

    /// Whether something has to be read elsewhere.
    pub fn is_disturbed(&self) -> bool {
        !self.disturbed.slots.is_empty()
    }

    /// Whether a key was not answered for since that was last taken.
    pub fn has_reason(&self) -> bool {
        self.disturbed.reason.is_some()
    }

    /// What could not be read since this was last asked.
    pub fn take_disturbed(&mut self) -> Disturbed {
        std::mem::take(&mut self.disturbed)
    }

    /// Keys of these slots that the node did not answer for; others are read elsewhere by now.
    pub fn take_unserved(&mut self, slots: &SlotSet) -> Vec<Unserved> {
        let mut unserved = std::mem::take(&mut self.unserved);
        unserved.retain(|row| slots.has_key(&row.key));
        unserved
    }

    /// Of keys of slots that are on their way here, those that their owners have are left to them.
    pub fn heed_owners(&mut self, list: Vec<Owner>) {
        self.owners = Some(Owners::new(list));
    }

    pub fn has_owners(&self) -> bool {
        self.owners.is_some()
    }

    /// Asks the owners about these names of a database by `command`; those that are to be read here.
    pub fn leave_to_owners(
        &mut self,
        command: &[u8],
        db: u32,
        names: Vec<Vec<u8>>,
        from: NamesFrom,
    ) -> Vec<Vec<u8>> {
        let Some(owners) = &mut self.owners else {
            return names;
        };
        let sorted = owners.sort_out(command, db, names);
        for key in sorted.with_owner {
            // It was scanned there, unless it came back since.
            if from == NamesFrom::Owners {
                self.disturbed.slots.insert(slot_of(&key));
            }
        }
        for (key, reason) in sorted.unknown {
            self.disturbed.astray.insert(slot_of(&key));
            let reason = format!(
                "its slot is migrating to another node, and it is not known whether the slot's \
                 owner still has it: {reason}"
            );
            self.unserved.push(Unserved { db, key, reason });
        }
        sorted.here
    }

    /// Takes note that this key's fate is known; whether it may be a leftover.
    pub fn take_doubtful(&mut self, db: u32, key: &[u8]) -> bool {
        self.owners
            .as_mut()
            .is_some_and(|owners| owners.take_doubtful(db, key))
    }

    /// A key of this slot was given that may be a leftover.
    pub fn gave_doubtful(&mut self, slot: u16) {
        if let Some(owners) = &mut self.owners {
            owners.gave_doubtful(slot);
        }
    }

    /// Keys that were given and may be leftovers of a move that was called off.
    pub fn leftovers(&self) -> Leftovers {
        let owners = self.owners.as_ref();
        owners.map(Owners::leftovers).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node is handed slots twice where another one is lost between.
    #[test]
    fn slots_that_are_not_read_yet_stay_to_be_read() {
        let mut node = Membership::new(&SlotSet::of([1]), false);
        node.adopt(&SlotSet::of([2, 3]), true);
        assert_eq!(node.reading().show(), "2-3");
        node.adopt(&SlotSet::of([3, 9]), false);
        assert_eq!(node.reading().show(), "2-3,9");
        assert_eq!(node.slots().show(), "1-3,9");
        node.adopt(&SlotSet::of([1]), true);
        assert_eq!(node.reading().show(), "1");
        node.release(&SlotSet::of([1, 2]));
        assert_eq!(node.slots().show(), "3,9");
        assert!(node.reading().is_empty());
        node.read_all();
        assert_eq!(node.reading().show(), "3,9");
    }

    #[test]
    fn a_key_that_is_not_answered_for_says_what_is_to_be_read_again() {
        let key = || DbKey {
            db: 0,
            key: b"foo".to_vec(),
        };
        let moved = Redirect::parse("MOVED 12182 127.0.0.1:7001").expect("a redirect");
        let ask = Redirect::parse("ASK 12182 127.0.0.1:7001").expect("a redirect");
        let mut node = Membership::new(&SlotSet::of([12_182]), false);
        assert!(!node.is_disturbed() && !node.has_reason());
        assert!(node.stray(key(), &ask).is_none());
        assert!(!node.is_disturbed() && node.has_reason());
        assert!(node.stray(key(), &moved).is_none());
        assert!(node.is_disturbed());
        let disturbed = node.take_disturbed();
        assert_eq!(disturbed.slots.show(), "12182");
        assert_eq!(disturbed.astray.show(), "12182");
        assert_eq!(disturbed.asked, [(0, b"foo".to_vec())]);
        assert!(
            disturbed
                .reason
                .is_some_and(|text| text.starts_with("MOVED"))
        );
        assert!(!node.is_disturbed() && !node.has_reason());

        let mut node = Membership::new(&SlotSet::of([12_182]), true);
        node.asking_was_refused("NOPERM no".to_owned());
        assert!(node.stray(key(), &moved).is_none());
        let others = SlotSet::of([1]);
        assert!(node.take_unserved(&others).is_empty(), "read elsewhere");
        assert!(node.stray(key(), &moved).is_none());
        let unserved = node.take_unserved(&SlotSet::of([12_182]));
        assert!(unserved[0].reason.contains("NOPERM") && unserved[0].hint().is_some());
    }
}
