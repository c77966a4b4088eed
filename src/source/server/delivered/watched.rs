//! Values that may change without anybody being told, as far as they can be kept in mind.

use std::collections::BTreeMap;

use crate::source::server::SlotSet;
use crate::source::server::unheard::{Module, Unheard};

/// Bytes of names of such values; with more of them exactness cannot be promised.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// What one costs beside its name.
const OVERHEAD_BYTES: usize = 128;

/// A value that may change without anybody being told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source::server) struct Watched {
    /// How it is kept current.
    pub how: Unheard,
    /// Of the payload.
    pub bytes: usize,
}

/// Those that are kept in mind, by database and name.
#[derive(Debug, Default)]
pub(super) struct WatchList {
    values: BTreeMap<(u32, Vec<u8>), Watched>,
    bytes: usize,
    /// Types of modules of which there are too many to be listed. Their changes are announced, which
    /// the counts of their commands have to confirm.
    unlisted: Vec<&'static Module>,
    /// More values than can be kept in mind.
    too_many: bool,
}

fn cost(name: &[u8]) -> usize {
    name.len() + OVERHEAD_BYTES
}

impl WatchList {
    /// Keeps it in mind, as it is now.
    pub fn note(&mut self, db: u32, key: &[u8], watched: Watched) {
        if matches!(&watched.how, Unheard::Counts(module) if self.unlisted.contains(module)) {
            return self.forget(db, key);
        }
        if self.values.insert((db, key.to_vec()), watched).is_none() {
            self.bytes += cost(key);
            if self.bytes > MAX_BYTES {
                self.unlist();
            }
        }
    }

    /// There are too many: what can be known by counts of commands goes first.
    fn unlist(&mut self) {
        let unlisted = &mut self.unlisted;
        let bytes = &mut self.bytes;
        self.values.retain(|(_, name), watched| {
            let Unheard::Counts(module) = watched.how else {
                return true;
            };
            if !unlisted.contains(&module) {
                unlisted.push(module);
            }
            *bytes -= cost(name);
            false
        });
        if self.bytes > MAX_BYTES {
            self.too_many = true;
            self.values.clear();
            self.bytes = 0;
        }
    }

    /// A key is there no more, or is something else now.
    pub fn forget(&mut self, db: u32, key: &[u8]) {
        if !self.values.is_empty() && self.values.remove(&(db, key.to_vec())).is_some() {
            self.bytes -= cost(key);
        }
    }

    /// Values of slots that are read elsewhere now are none of ours.
    pub fn keep_of(&mut self, slots: &SlotSet) {
        let bytes = &mut self.bytes;
        self.values.retain(|(_, name), _| {
            let keep = slots.has_key(name);
            if !keep {
                *bytes -= cost(name);
            }
            keep
        });
    }

    pub fn get(&self, key: &(u32, Vec<u8>)) -> Option<&Watched> {
        self.values.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&(u32, Vec<u8>), &Watched)> {
        self.values.iter()
    }

    pub fn unlisted(&self) -> &[&'static Module] {
        &self.unlisted
    }

    pub fn has_too_many(&self) -> bool {
        self.too_many
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::server::unheard::modules;

    fn reads(bytes: usize) -> Watched {
        Watched {
            how: Unheard::Reads,
            bytes,
        }
    }

    #[test]
    fn what_counts_vouch_for_is_unlisted_first_and_then_all_is_given_up() {
        let module = modules().next().expect("there is one");
        let counted = || Watched {
            how: Unheard::Counts(module),
            bytes: 1,
        };
        let mut list = WatchList::default();
        list.note(0, b"a", reads(1));
        list.note(0, b"a", reads(2));
        assert_eq!(list.bytes, cost(b"a"));
        let half = vec![b'x'; MAX_BYTES / 2];
        list.note(0, &half, counted());
        assert!(list.unlisted().is_empty());
        list.note(1, &half, reads(1));
        assert_eq!(list.unlisted(), [module]);
        assert!(!list.has_too_many());
        assert_eq!(list.iter().count(), 2);
        // From now on none of them is listed, and one that was something else is forgotten.
        list.note(0, b"a", counted());
        assert!(list.get(&(0, b"a".to_vec())).is_none());
        list.note(0, &half, reads(1));
        assert!(list.has_too_many());
        assert_eq!((list.iter().count(), list.bytes), (0, 0));
    }

    #[test]
    fn values_of_other_slots_are_forgotten() {
        let mut list = WatchList::default();
        list.note(0, b"foo", reads(1));
        list.note(0, b"bar", reads(1));
        list.keep_of(&SlotSet::of([12_182]));
        assert_eq!(list.iter().count(), 1);
        assert_eq!(list.bytes, cost(b"foo"));
        list.forget(0, b"foo");
        list.forget(0, b"foo");
        assert_eq!(list.bytes, 0);
    }
}
