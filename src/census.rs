//! Which records stand in the end: of an archive that is read, or of what a run has written. A key
//! may come several times, and go away: the last record of it counts, and that is known only when
//! everything was seen.
//!
//! A record is remembered as one number: 87 keyed bits of its key, so that nobody can make keys that
//! meet; its own number; and a bit that says whether the key went away.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::io;

use redis_migrate_format::Record;
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::own_writes::{Already, Fingerprint, random_hash_keys};
use crate::partitions::{self, Partitions, Visitor};
use crate::sorter::{self, Sorted, Sorter};

/// Bits of a record's number: enough for a trillion.
const NUMBER_BITS: u32 = 40;

/// More records are counted by two threads: whoever asks has nothing else to do then.
const WITH_TWO_THREADS: u64 = 100_000;

/// The lowest bit: the key went away.
const GONE: u128 = 1;

/// Looks at records, one after the other.
#[derive(Debug)]
pub(crate) struct Census {
    hasher: SipHasher13,
    seen: Partitions,
    records: u64,
}

/// What stands.
pub(crate) struct Standing {
    /// Keys.
    pub keys: u64,
    /// Records of keys, tombstones included.
    pub records: u64,
    /// Numbers of the records that later ones supersede, in order.
    superseded: Sorted,
    next: Option<u128>,
}

impl Default for Census {
    fn default() -> Self {
        Self::with_items(partitions::IN_MEMORY)
    }
}

impl Census {
    fn with_items(most: usize) -> Self {
        let (left, right) = random_hash_keys();
        Self {
            hasher: SipHasher13::new_with_keys(left, right),
            seen: Partitions::new(most),
            records: 0,
        }
    }

    /// Takes the next record. Function libraries are no keys.
    pub(crate) fn add(&mut self, record: &Record) {
        match record {
            Record::Key(key) => self.add_key(key.db, &key.key, false),
            Record::Deleted { db, key } => self.add_key(*db, key, true),
            _ => {}
        }
    }

    /// The same, of a key or of its going away.
    pub(crate) fn add_key(&mut self, db: u32, key: &[u8], is_gone: bool) {
        let mut hasher = self.hasher;
        hasher.write_u32(db);
        hasher.write(key);
        self.add_print(hasher.finish128().as_u128(), is_gone);
    }

    /// The same, of a key whose fingerprint is known. The other methods must not be used then.
    pub(crate) fn add_print(&mut self, print: Fingerprint, is_gone: bool) {
        let key = print >> (NUMBER_BITS + 1) << (NUMBER_BITS + 1);
        let number = u128::from(self.records) << 1;
        self.seen.push(key | number | u128::from(is_gone));
        self.records += 1;
    }

    /// What stands, when all were seen.
    ///
    /// # Errors
    /// Those of a temporary file.
    pub(crate) fn finish(self) -> io::Result<Standing> {
        let mut superseded = Sorter::new(sorter::IN_MEMORY);
        let mut tally = Tally::telling(|number| superseded.push(number));
        self.seen.read(std::slice::from_mut(&mut tally))?;
        let keys = tally.keys;
        let mut superseded = superseded.finish()?;
        Ok(Standing {
            keys,
            records: self.records,
            next: superseded.next_number()?,
            superseded,
        })
    }

    /// How many keys stand, when all were seen; `None` where a temporary file failed.
    pub(crate) fn keys(self) -> Option<u64> {
        let threads = if self.records > WITH_TWO_THREADS {
            2
        } else {
            1
        };
        let mut tallies: Vec<_> = (0..threads).map(|_| Tally::telling(|_| ())).collect();
        self.seen.read(&mut tallies).ok()?;
        Some(tallies.iter().map(|tally| tally.keys).sum())
    }
}

/// Finds the last record of each key, and tells the numbers of the others.
struct Tally<T> {
    last: HashSet<Remembered, BuildHasherDefault<Already>>,
    /// Keys that stand, of the parts that were seen.
    keys: u64,
    tell: T,
}

impl<T: FnMut(u128)> Tally<T> {
    fn telling(tell: T) -> Self {
        Self {
            last: HashSet::default(),
            keys: 0,
            tell,
        }
    }
}

impl<T: FnMut(u128) + Send> Visitor for Tally<T> {
    fn see(&mut self, record: u128) {
        let Some(Remembered(other)) = self.last.replace(Remembered(record)) else {
            return;
        };
        if other > record {
            self.last.replace(Remembered(other));
        }
        (self.tell)(number_of(other.min(record)));
    }

    /// A key has all its records in one part.
    fn end_part(&mut self) {
        let stand = |record: &Remembered| record.0 & GONE == 0;
        self.keys += self.last.drain().filter(stand).count() as u64;
    }
}

/// A record as the one of its key.
#[derive(Debug, Clone, Copy)]
struct Remembered(u128);

impl PartialEq for Remembered {
    fn eq(&self, other: &Self) -> bool {
        key_of(self.0) == key_of(other.0)
    }
}

impl Eq for Remembered {}

impl Hash for Remembered {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(key_of(self.0));
    }
}

fn key_of(record: u128) -> u128 {
    record >> (NUMBER_BITS + 1)
}

fn number_of(record: u128) -> u128 {
    record >> 1 & ((1 << NUMBER_BITS) - 1)
}

impl Standing {
    /// Whether record `number`, counted from 0 without function libraries, is superseded by a later
    /// one. To be asked in order, of each record once.
    ///
    /// # Errors
    /// Those of a temporary file.
    pub(crate) fn is_superseded(&mut self, number: u64) -> io::Result<bool> {
        if self.next != Some(number.into()) {
            return Ok(false);
        }
        self.next = self.superseded.next_number()?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Every so many items in memory, also so few that runs are merged again and again.
    #[test]
    fn the_last_record_of_a_key_stands() {
        for most in [1, 3, 100, 10_000] {
            let mut census = Census::with_items(most);
            let mut counted = Census::with_items(most);
            let mut state = 7_u64;
            let mut last: BTreeMap<(u32, u64), (u64, bool)> = BTreeMap::new();
            for number in 0..700 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let (db, key) = ((state >> 40) as u32 % 3, (state >> 50) % 90);
                let is_gone = (state >> 20).is_multiple_of(4);
                census.add_key(db, &key.to_le_bytes(), is_gone);
                counted.add_key(db, &key.to_le_bytes(), is_gone);
                last.insert((db, key), (number, is_gone));
            }
            let mut standing = census.finish().expect("finished");
            assert_eq!(standing.records, 700);
            let keys = last.values().filter(|(_, is_gone)| !is_gone).count();
            assert_eq!(standing.keys, keys as u64, "{most}");
            assert_eq!(counted.keys(), Some(keys as u64), "{most}");
            let due: Vec<u64> = last.values().map(|(number, _)| *number).collect();
            for number in 0..700 {
                let is_superseded = standing.is_superseded(number).expect("read");
                assert_eq!(is_superseded, !due.contains(&number), "{most}: {number}");
            }
        }
    }
}
