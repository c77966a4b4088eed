//! Which slots have to be read anew, and from whom: a comparison of how the cluster lies with what
//! was read from where. No I/O.
//!
//! A node that is gone, a failover and a slot that moved are one and the same here: slots whose keys
//! were read from one node are from now on read from another, all of them anew.

use std::collections::BTreeMap;

use super::SlotSet;
use super::view::View;

/// How a slot is read at present.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holder<'a> {
    /// The id of the primary that it is read from, if that can still be read.
    pub primary: Option<&'a str>,
    /// By a plain scan, which does not hear of changes.
    pub is_scan: bool,
}

/// What the nodes did not answer for.
#[derive(Debug, Default)]
pub(super) struct Unread<'a> {
    /// Slots to be read again, from whoever has them.
    pub again: Option<&'a SlotSet>,
    /// Slots to be read again only if they are no longer on their way: their keys are asked for
    /// where they go.
    pub astray: Option<&'a SlotSet>,
    /// Slots that may have been away and come back unnoticed.
    pub unsteady: SlotSet,
}

/// What is to be reassigned.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Slots that are to be read anew, by the id of the primary that has them.
    pub moves: BTreeMap<String, SlotSet>,
    /// Those of them that lie elsewhere than before, or may have been away.
    pub moved: SlotSet,
    /// Those of them whose keys their node did not answer for.
    pub unanswered: SlotSet,
    /// Slots on their way that stay with their node for now: to be read again there if their move is
    /// called off.
    pub on_their_way: SlotSet,
}

/// What is to become of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It stays as it is.
    Stays,
    /// All of its keys are read anew: it moved.
    Moved,
    /// All of its keys are read anew: some were not answered for.
    Unanswered,
}

/// What is known of one slot.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// It is read from the node that has it.
    is_held: bool,
    is_unsteady: bool,
    /// It is on its way to another node.
    is_open: bool,
    is_astray: bool,
    /// It is to be read again in any case.
    again: bool,
}

impl Slot {
    /// Of a slot on its way the keys that are astray are asked for where it goes. If it stays where it
    /// is, they are asked for here again. What the node did not answer for, for any other reason, is
    /// asked for here in any case.
    fn fate(self) -> Fate {
        if !self.is_held || self.is_unsteady {
            Fate::Moved
        } else if self.again || (self.is_astray && !self.is_open) {
            Fate::Unanswered
        } else {
            Fate::Stays
        }
    }
}

impl Plan {
    /// Of the slots in `wanted`; `holder` says how each is read.
    pub(super) fn new<'a>(
        wanted: &SlotSet,
        view: &View,
        unread: &Unread<'_>,
        holder: impl Fn(u16) -> Option<Holder<'a>>,
    ) -> Self {
        let mut plan = Self::default();
        let has = |set: Option<&SlotSet>, slot| set.is_some_and(|set| set.contains(slot));
        for slot in wanted.iter() {
            let Some(owner) = view.owner(slot) else {
                continue;
            };
            let holder = holder(slot);
            let known = Slot {
                is_held: holder.is_some_and(|holder| holder.primary == Some(owner)),
                is_unsteady: unread.unsteady.contains(slot),
                is_open: view.open.contains_key(&slot),
                is_astray: has(unread.astray, slot),
                again: has(unread.again, slot),
            };
            // A plain scan does not hear of keys that come back.
            let is_deaf = holder.is_some_and(|holder| holder.is_scan);
            if known.is_open && known.is_held && (known.is_astray || is_deaf) {
                plan.on_their_way.insert(slot);
            }
            match known.fate() {
                Fate::Stays => continue,
                Fate::Moved => plan.moved.insert(slot),
                Fate::Unanswered => plan.unanswered.insert(slot),
            }
            plan.moves.entry(owner.to_owned()).or_default().insert(slot);
        }
        plan
    }
}

/// A plain scan hears of no change: a slot that went away and came back in between may have had keys
/// elsewhere when they were to be read. The number of the node that took it back tells. The slots of
/// `primary` of which that may be so.
pub(super) fn unsteady(before: &View, now: &View, wanted: &SlotSet, primary: &str) -> SlotSet {
    let slots = |view: &View| {
        SlotSet::of(
            wanted
                .iter()
                .filter(|&slot| view.owner(slot) == Some(primary)),
        )
    };
    let (slots_before, slots_now) = (slots(before), slots(now));
    let has_new_epoch = before.epochs.get(primary) != now.epochs.get(primary);
    match has_new_epoch && slots_before == slots_now {
        true => slots_now,
        false => SlotSet::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::{lies, moving};
    use super::*;

    /// All that can be known of a slot, in every combination.
    #[test]
    fn every_kind_of_slot() {
        let bits = |number: u32| [0, 1, 2, 3, 4].map(|bit| number & (1 << bit) != 0);
        for number in 0..32 {
            let [is_held, is_unsteady, is_open, is_astray, again] = bits(number);
            let slot = Slot {
                is_held,
                is_unsteady,
                is_open,
                is_astray,
                again,
            };
            let expected = match slot {
                Slot { is_held: false, .. } => Fate::Moved,
                Slot {
                    is_unsteady: true, ..
                } => Fate::Moved,
                Slot { again: true, .. } => Fate::Unanswered,
                Slot {
                    is_astray: true,
                    is_open: false,
                    ..
                } => Fate::Unanswered,
                _ => Fate::Stays,
            };
            assert_eq!(slot.fate(), expected, "{slot:?}");
        }
    }

    #[test]
    fn slots_go_to_whoever_has_them_now() {
        // Slots 0 to 2 belong to a, and 3 to b.
        let view = lies(&[("a", 0..=2), ("b", 3..=3)]);
        let wanted = SlotSet::of(0..=3);
        let again = SlotSet::of([1]);
        let unread = Unread {
            again: Some(&again),
            ..Unread::default()
        };
        let plan = Plan::new(&wanted, &view, &unread, |slot| match slot {
            // Its node is lost.
            0 => Some(Holder {
                primary: None,
                is_scan: false,
            }),
            // It moved from a to b.
            _ => Some(Holder {
                primary: Some("a"),
                is_scan: false,
            }),
        });
        let moves = [("a", SlotSet::of([0, 1])), ("b", SlotSet::of([3]))];
        let moves = moves.map(|(id, slots)| (id.to_owned(), slots));
        assert_eq!(plan.moves, BTreeMap::from(moves));
        assert_eq!(plan.moved, SlotSet::of([0, 3]));
        assert_eq!(plan.unanswered, SlotSet::of([1]));
        assert!(plan.on_their_way.is_empty());

        // What nobody reads yet, and what nobody serves or wants.
        let plan = Plan::new(&SlotSet::of([3, 9]), &view, &Unread::default(), |_| None);
        assert_eq!(plan.moved, SlotSet::of([3]));
    }

    #[test]
    fn slots_on_their_way_are_kept_in_mind() {
        let view = moving(lies(&[("a", 0..=3)]), &[(0, "b"), (1, "b"), (2, "b")]);
        let wanted = SlotSet::of(0..=3);
        let (astray, again) = (SlotSet::of([0, 3]), SlotSet::of([2]));
        let plan_for = |is_scan| {
            let unread = Unread {
                again: Some(&again),
                astray: Some(&astray),
                unsteady: SlotSet::default(),
            };
            let holder = Holder {
                primary: Some("a"),
                is_scan,
            };
            Plan::new(&wanted, &view, &unread, |_| Some(holder))
        };
        let plan = plan_for(false);
        // 0 is asked for where it goes; 3 stays, so that its keys are asked for here again.
        assert_eq!(plan.unanswered, SlotSet::of([2, 3]));
        assert!(plan.moved.is_empty());
        assert_eq!(plan.on_their_way, SlotSet::of([0]));
        assert_eq!(plan_for(true).on_their_way, SlotSet::of([0, 1, 2]));
    }

    #[test]
    fn a_new_number_of_the_same_slots_tells_that_they_were_away() {
        let wanted = SlotSet::of(0..=3);
        let at = |epoch, slots| {
            let mut view = lies(&[("a", slots)]);
            view.epochs.insert("a".to_owned(), epoch);
            view
        };
        let none = SlotSet::default();
        assert_eq!(unsteady(&at(1, 0..=1), &at(1, 0..=1), &wanted, "a"), none);
        assert_eq!(
            unsteady(&at(1, 0..=1), &at(2, 0..=1), &wanted, "a").show(),
            "0-1"
        );
        // It took others: these are seen to have moved.
        assert_eq!(unsteady(&at(1, 0..=1), &at(2, 0..=2), &wanted, "a"), none);
        // Others that nobody wants do not matter.
        assert_eq!(
            unsteady(&at(1, 3..=4), &at(2, 3..=5), &wanted, "a").show(),
            "3"
        );
        assert_eq!(unsteady(&at(1, 0..=1), &at(2, 0..=1), &wanted, "b"), none);
    }
}
