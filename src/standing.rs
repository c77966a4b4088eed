//! How many keys stand at the end of a run. A key may come in several records, and may go away
//! again: its last record counts, and which one that is shows only at the end.
//!
//! Records are noted by 127 keyed bits of their key and one bit for what they do, in the order in
//! which they took effect. When there are many, the last one of each key is written to a temporary
//! file in the order of the keys; at the end, and when there are several files, the files are
//! merged, and newer entries win over older ones.

use std::fs::File;
use std::hash::Hasher as _;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::memory::{Fingerprint, random_hash_keys};

/// Entries that are kept in memory: 4 MiB.
const RECENT_ENTRIES: usize = 1 << 18;

/// Files that are merged into one when there are so many.
const MAX_RUNS: usize = 8;

/// The lowest bit of an entry: the key stands.
const STANDS: u128 = 1;

/// Counts the keys that stand.
pub struct Standing {
    hasher: SipHasher13,
    recent: Vec<u128>,
    max_recent: usize,
    /// Oldest first.
    runs: Vec<File>,
    /// A temporary file failed: nothing is known any more.
    lost: bool,
}

impl Default for Standing {
    fn default() -> Self {
        Self::with_entries(RECENT_ENTRIES)
    }
}

impl Standing {
    fn with_entries(max_recent: usize) -> Self {
        let (left, right) = random_hash_keys();
        Self {
            hasher: SipHasher13::new_with_keys(left, right),
            recent: Vec::new(),
            max_recent,
            runs: Vec::new(),
            lost: false,
        }
    }

    /// A record took effect: from now on the key stands, or it does not.
    pub fn note(&mut self, db: u32, key: &[u8], stands: bool) {
        let mut hasher = self.hasher;
        hasher.write_u32(db);
        hasher.write(key);
        self.note_print(hasher.finish128().as_u128(), stands);
    }

    /// The same, of a key whose fingerprint is known. The other method must not be used then.
    pub fn note_print(&mut self, print: Fingerprint, stands: bool) {
        if self.recent.len() >= self.max_recent && !self.lost {
            // The run itself does not depend on this number.
            self.lost = self.spill().is_err();
        }
        if !self.lost {
            self.recent.push(print & !STANDS | u128::from(stands));
        }
    }

    /// How many keys stand; `None` if a temporary file failed.
    pub fn count(mut self) -> Option<u64> {
        if self.lost {
            return None;
        }
        newest_of_each(&mut self.recent);
        let recent = std::mem::take(&mut self.recent);
        let mut merge = Merge::new(&mut self.runs, recent).ok()?;
        let mut keys = 0;
        while let Some(entry) = merge.next_entry().ok()? {
            keys += u64::from(entry & STANDS == STANDS);
        }
        Some(keys)
    }

    fn spill(&mut self) -> io::Result<()> {
        newest_of_each(&mut self.recent);
        let recent = std::mem::take(&mut self.recent);
        let run = saved(&mut Merge::new(&mut [], recent)?)?;
        self.runs.push(run);
        if self.runs.len() >= MAX_RUNS {
            let merged = saved(&mut Merge::new(&mut self.runs, Vec::new())?)?;
            self.runs = vec![merged];
        }
        Ok(())
    }
}

fn key_of(entry: u128) -> u128 {
    entry & !STANDS
}

/// Sorts by key, and keeps the last entry of each.
fn newest_of_each(entries: &mut Vec<u128>) {
    // Equal keys stay in their order.
    entries.sort_by_key(|entry| key_of(*entry));
    entries.dedup_by(|later, earlier| {
        let same = key_of(*later) == key_of(*earlier);
        if same {
            *earlier = *later;
        }
        same
    });
}

fn saved(merge: &mut Merge<'_>) -> io::Result<File> {
    // Unlinked from the start: it goes away with us, however we end.
    let mut out = BufWriter::new(tempfile::tempfile()?);
    while let Some(entry) = merge.next_entry()? {
        out.write_all(&entry.to_le_bytes())?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)
}

/// Several sorted lists as one; of a key, the entry of the newest list.
struct Merge<'a> {
    /// Oldest first, each with its next entry.
    lists: Vec<(List<'a>, Option<u128>)>,
}

enum List<'a> {
    File(BufReader<&'a mut File>),
    Memory(std::vec::IntoIter<u128>),
}

impl<'a> Merge<'a> {
    fn new(runs: &'a mut [File], recent: Vec<u128>) -> io::Result<Self> {
        let mut lists = Vec::with_capacity(runs.len() + 1);
        for run in runs {
            run.rewind()?;
            lists.push(List::File(BufReader::new(run)));
        }
        lists.push(List::Memory(recent.into_iter()));
        let heads = lists.into_iter().map(|mut list| {
            let head = list.next_entry()?;
            Ok((list, head))
        });
        Ok(Self {
            lists: heads.collect::<io::Result<_>>()?,
        })
    }

    fn next_entry(&mut self) -> io::Result<Option<u128>> {
        let heads = self.lists.iter().filter_map(|(_, head)| *head);
        let Some(key) = heads.map(key_of).min() else {
            return Ok(None);
        };
        let mut newest = None;
        for (list, head) in &mut self.lists {
            if head.map(key_of) == Some(key) {
                newest = *head;
                *head = list.next_entry()?;
            }
        }
        Ok(newest)
    }
}

impl List<'_> {
    fn next_entry(&mut self) -> io::Result<Option<u128>> {
        let file = match self {
            Self::Memory(entries) => return Ok(entries.next()),
            Self::File(file) => file,
        };
        let mut bytes = [0; size_of::<u128>()];
        match file.read_exact(&mut bytes) {
            Ok(()) => Ok(Some(u128::from_le_bytes(bytes))),
            // Files hold whole entries.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_last_record_of_a_key_counts_however_often_it_spills() {
        for max_recent in [1, 7, 100, 100_000] {
            let mut standing = Standing::with_entries(max_recent);
            let mut expected: HashMap<(u32, u64), bool> = HashMap::new();
            let mut state = 1u64;
            for _ in 0..3000 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let (db, key) = ((state >> 60) as u32 % 2, (state >> 40) % 400);
                let stands = !(state >> 20).is_multiple_of(3);
                standing.note(db, &key.to_le_bytes(), stands);
                expected.insert((db, key), stands);
            }
            let wanted = expected.values().filter(|stands| **stands).count() as u64;
            assert_eq!(standing.count(), Some(wanted), "{max_recent}");
        }
        assert_eq!(Standing::default().count(), Some(0));
    }
}
