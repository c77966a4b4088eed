//! Names whose turn is in the final round.

use crate::host::{HashMap, HashSet};
/// From so many reads on, a large value waits for the final round.
const READS: u8 = 3;

/// Where values are about this large.
const LARGE_BYTES: usize = 1024 * 1024;

/// Names that wait for the final round, because their values are large and change all the time.
#[derive(Debug, Default)]
pub(super) struct Postponed {
    names: HashSet<Vec<u8>>,
    /// How often a name was read again.
    rereads: HashMap<Vec<u8>, u8>,
}

impl Postponed {
    /// Of names to be read again, those whose turn is now, sorted. `guess_bytes` is what a value is
    /// likely to take, where names may wait.
    pub fn choose(&mut self, names: HashSet<Vec<u8>>, guess_bytes: Option<usize>) -> Vec<Vec<u8>> {
        let may_wait = guess_bytes.is_some_and(|bytes| bytes >= LARGE_BYTES);
        let mut now = Vec::with_capacity(names.len());
        for name in names {
            if may_wait {
                let reads = self.rereads.entry(name.clone()).or_default();
                *reads = reads.saturating_add(1);
                if *reads > READS {
                    self.names.insert(name);
                    continue;
                }
            }
            now.push(name);
        }
        // Names that came one after the other are often neighbours then, at the server and in memory.
        // With an order by chance, and without the copies that are made for each job, 200,000 changes
        // at once took a third more time of a processor, though fewer instructions.
        now.sort_unstable();
        now
    }

    /// These wait, too.
    pub fn extend(&mut self, names: impl IntoIterator<Item = Vec<u8>>) {
        self.names.extend(names);
    }

    /// All that wait; they wait no more.
    pub fn take(&mut self) -> HashSet<Vec<u8>> {
        std::mem::take(&mut self.names)
    }

    pub fn retain(&mut self, keeps: impl Fn(&[u8]) -> bool) {
        self.names.retain(|name| keeps(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> HashSet<Vec<u8>> {
        names.iter().map(|name| name.as_bytes().to_vec()).collect()
    }

    #[test]
    fn large_values_that_change_all_the_time_wait() {
        let mut postponed = Postponed::default();
        for _ in 0..10 {
            let small = postponed.choose(names(&["b", "a"]), Some(LARGE_BYTES - 1));
            assert_eq!(small, [b"a".to_vec(), b"b".to_vec()]);
            let must = postponed.choose(names(&["a"]), None);
            assert_eq!(must.len(), 1);
        }
        for _ in 0..READS {
            let large = postponed.choose(names(&["a"]), Some(LARGE_BYTES));
            assert_eq!(large.len(), 1);
        }
        let large = postponed.choose(names(&["a", "c"]), Some(LARGE_BYTES));
        assert_eq!(large, [b"c".to_vec()]);
        postponed.extend(names(&["d"]));
        postponed.retain(|name| name != b"d");
        assert_eq!(postponed.take(), names(&["a"]));
        assert!(postponed.take().is_empty());
    }
}
