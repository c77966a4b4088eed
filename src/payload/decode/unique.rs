//! No member or field twice. Valkey 9 refuses such hashes, servers from 6.2 on such sets, older
//! ones take them and are wrong from then on.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// Finds out whether all of many byte strings differ, with eight bytes of memory for each: only
/// where two hashes agree the strings themselves are compared.
pub struct Unique {
    state: RandomState,
    hashes: Vec<u64>,
}

impl Unique {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self {
            state: RandomState::new(),
            hashes: Vec::with_capacity(16),
        }
    }

    /// Takes note of a string.
    #[inline]
    pub fn see(&mut self, bytes: &[u8]) {
        self.hashes.push(self.state.hash_one(bytes));
    }

    /// How many strings were seen.
    pub fn seen(&self) -> usize {
        self.hashes.len()
    }

    /// Whether all strings seen differ. `again` gives them all once more, and is asked only in
    /// doubt.
    pub fn all_differ<T, I>(mut self, again: impl FnOnce() -> I) -> bool
    where
        T: AsRef<[u8]> + Eq + std::hash::Hash,
        I: Iterator<Item = T>,
    {
        self.hashes.sort_unstable();
        let mut doubtful: Vec<u64> = self
            .hashes
            .windows(2)
            .filter(|pair| pair[0] == pair[1])
            .map(|pair| pair[0])
            .collect();
        if doubtful.is_empty() {
            return true;
        }
        doubtful.dedup();
        let mut seen = HashSet::new();
        again()
            .filter(|bytes| {
                doubtful
                    .binary_search(&self.state.hash_one(bytes.as_ref()))
                    .is_ok()
            })
            .all(|bytes| seen.insert(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differ(strings: &[&[u8]]) -> bool {
        let mut unique = Unique::new();
        strings.iter().for_each(|bytes| unique.see(bytes));
        unique.all_differ(|| strings.iter())
    }

    #[test]
    fn twice_is_seen() {
        assert!(differ(&[]));
        assert!(differ(&[b"a", b"b", b""]));
        assert!(!differ(&[b"a", b"b", b"a"]));
        assert!(!differ(&[b"", b"b", b""]));
    }

    #[test]
    fn equal_hashes_of_different_strings_are_no_harm() {
        let mut unique = Unique::new();
        unique.see(b"a");
        unique.see(b"b");
        unique.hashes = vec![unique.hashes[0]; 2];
        let again = [b"a", b"b"];
        assert!(unique.all_differ(|| again.iter()));
    }
}
