//! No member or field twice. Valkey 9 refuses such hashes, servers from 6.2 on such sets, older
//! ones take them and are wrong from then on.

use std::collections::HashSet;

/// Finds out whether all of many byte strings differ, with eight bytes of memory for each: only
/// where two hashes agree the strings themselves are compared. The hash is a fast one without a key:
/// strings made to collide cost a second look, which is keyed, and nothing else.
pub(super) struct Unique {
    hashes: Vec<u64>,
}

/// From the decimals of pi: odd, and without a pattern.
const FACTOR: u64 = 0x517c_c1b7_2722_0a95;

#[inline]
fn hash(bytes: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| (hash.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    let mut hash = mix(0, bytes.len() as u64);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = mix(hash, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(hash, u64::from_le_bytes(last))
}

impl Unique {
    /// Nothing seen yet.
    pub(super) fn new() -> Self {
        Self {
            hashes: Vec::with_capacity(16),
        }
    }

    /// Takes note of a string.
    #[inline]
    pub(super) fn see(&mut self, bytes: &[u8]) {
        self.hashes.push(hash(bytes));
    }

    /// How many strings were seen.
    pub(super) fn seen(&self) -> usize {
        self.hashes.len()
    }

    /// Whether all strings seen differ. `again` gives them all once more, and is asked only in
    /// doubt.
    pub(super) fn all_differ<T, I>(mut self, again: impl FnOnce() -> I) -> bool
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
            .filter(|bytes| doubtful.binary_search(&hash(bytes.as_ref())).is_ok())
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
    fn zeros_and_lengths_tell_strings_apart() {
        let zeros = [0; 40];
        let strings: Vec<&[u8]> = (0..40).map(|len| &zeros[..len]).collect();
        let mut hashes: Vec<u64> = strings.iter().map(|bytes| hash(bytes)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 40);
        assert!(differ(&strings));
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
