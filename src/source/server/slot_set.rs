//! Sets of slots: one that belongs to whoever holds it, and one that a thread which listens to
//! changes looks at while it changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::server::slots::{SLOTS, slot_of};

const WORDS: usize = SLOTS as usize / 64;

/// A set of slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotSet([u64; WORDS]);

impl Default for SlotSet {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

/// The word of a slot, and its bit in that word.
fn place(slot: u16) -> (usize, u64) {
    let slot = slot % SLOTS;
    (usize::from(slot / 64), 1 << (slot % 64))
}

impl SlotSet {
    /// Of these slots.
    pub fn of(slots: impl IntoIterator<Item = u16>) -> Self {
        let mut set = Self::default();
        for slot in slots {
            set.insert(slot);
        }
        set
    }

    /// Whether it has this slot.
    pub fn contains(&self, slot: u16) -> bool {
        let (word, bit) = place(slot);
        self.0[word] & bit != 0
    }

    /// Whether it has the slot of this key.
    pub fn has_key(&self, key: &[u8]) -> bool {
        self.contains(slot_of(key))
    }

    /// Adds a slot.
    pub fn insert(&mut self, slot: u16) {
        let (word, bit) = place(slot);
        self.0[word] |= bit;
    }

    /// Takes a slot out.
    pub fn remove(&mut self, slot: u16) {
        let (word, bit) = place(slot);
        self.0[word] &= !bit;
    }

    /// Its slots, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..SLOTS).filter(|&slot| self.contains(slot))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// `0-5460,9000`, at most a few ranges of it.
    pub fn show(&self) -> String {
        const SHOWN: usize = 8;
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for slot in self.iter() {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == slot => *last = slot,
                _ => ranges.push((slot, slot)),
            }
        }
        let more = if ranges.len() > SHOWN { ",…" } else { "" };
        let shown: Vec<String> = ranges
            .iter()
            .take(SHOWN)
            .map(|(first, last)| match first == last {
                true => first.to_string(),
                false => format!("{first}-{last}"),
            })
            .collect();
        shown.join(",") + more
    }
}

/// A set of slots of which every clone is the same set: what one adds, all others have.
#[derive(Debug, Clone)]
pub(super) struct SharedSlots(Arc<[AtomicU64; WORDS]>);

impl Default for SharedSlots {
    fn default() -> Self {
        Self::of(&SlotSet::default())
    }
}

impl SharedSlots {
    /// A new one, with these slots to begin with.
    pub fn of(slots: &SlotSet) -> Self {
        Self(Arc::new(slots.0.map(AtomicU64::new)))
    }

    /// Whether it has the slot of this key now.
    pub fn has_key(&self, key: &[u8]) -> bool {
        let (word, bit) = place(slot_of(key));
        self.0[word].load(Ordering::Relaxed) & bit != 0
    }

    /// Adds a slot.
    pub fn insert(&self, slot: u16) {
        let (word, bit) = place(slot);
        self.0[word].fetch_or(bit, Ordering::Relaxed);
    }

    /// Takes a slot out.
    pub fn remove(&self, slot: u16) {
        let (word, bit) = place(slot);
        self.0[word].fetch_and(!bit, Ordering::Relaxed);
    }

    /// The slots as they are now.
    pub fn snapshot(&self) -> SlotSet {
        SlotSet(std::array::from_fn(|at| self.0[at].load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_and_go() {
        let mut set = SlotSet::of([0, 1, 2, 64, 16_383]);
        assert_eq!(set.show(), "0-2,64,16383");
        assert_eq!((set.len(), set.is_empty()), (5, false));
        let before = set.clone();
        set.remove(1);
        assert!(!set.contains(1) && set.contains(2));
        assert!(before.contains(1), "a copy is a set of its own");
        assert!(SlotSet::default().is_empty());
        assert_eq!(SlotSet::of(0..SLOTS).show(), "0-16383");
        assert!(SlotSet::of([12_182]).has_key(b"foo"));
    }

    #[test]
    fn a_shared_set_is_one_for_all_and_a_snapshot_is_not() {
        let one = SharedSlots::of(&SlotSet::of([1, 12_182]));
        let other = one.clone();
        let snapshot = one.snapshot();
        one.remove(12_182);
        one.insert(7);
        assert!(!other.has_key(b"foo"));
        assert_eq!(other.snapshot(), SlotSet::of([1, 7]));
        assert_eq!(snapshot, SlotSet::of([1, 12_182]));
    }
}
