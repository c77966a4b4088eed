//! Which records of an archive stand in the end. A key may come several times, and go away: the last
//! record of it counts, and that is known only when everything was seen.
//!
//! A key is remembered by 128 keyed bits. What does not fit into memory is sorted and written to
//! temporary files, so that no archive is too large.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::hash::Hasher;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

use redis_migrate_format::Record;
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::memory::random_hash_keys;

/// Items that are sorted in memory: 3 MiB of records.
const IN_MEMORY: usize = 128 * 1024;

/// Sorted files that are read at once.
const MAX_RUNS: usize = 32;

/// Looks at the records of an archive, one after the other.
#[derive(Debug)]
pub struct Census {
    hasher: SipHasher13,
    /// Key, in two halves, and number of the record; its lowest bit says that the key went away.
    seen: Sorter<3>,
    records: u64,
}

/// What stands.
pub struct Standing {
    /// Keys.
    pub keys: u64,
    /// Records of keys, tombstones included.
    pub records: u64,
    /// Numbers of the records that later ones supersede, in order.
    superseded: Sorted<1>,
    next: Option<u64>,
}

impl Default for Census {
    fn default() -> Self {
        Self::with_items(IN_MEMORY)
    }
}

impl Census {
    fn with_items(most: usize) -> Self {
        let (left, right) = random_hash_keys();
        Self {
            hasher: SipHasher13::new_with_keys(left, right),
            seen: Sorter::new(most),
            records: 0,
        }
    }

    /// Takes the next record. Function libraries are no keys.
    ///
    /// # Errors
    /// Those of a temporary file.
    pub fn add(&mut self, record: &Record) -> io::Result<()> {
        match record {
            Record::Key(key) => self.add_key(key.db, &key.key, false),
            Record::Deleted { db, key } => self.add_key(*db, key, true),
            _ => Ok(()),
        }
    }

    /// The same, of a key or of its going away.
    ///
    /// # Errors
    /// As of [`Census::add`].
    pub fn add_key(&mut self, db: u32, key: &[u8], is_gone: bool) -> io::Result<()> {
        let mut hasher = self.hasher;
        hasher.write(&db.to_le_bytes());
        hasher.write(key);
        let print = hasher.finish128();
        let number = self.records << 1 | u64::from(is_gone);
        self.records += 1;
        self.seen.push([print.h1, print.h2, number])
    }

    /// What stands, when all were seen.
    ///
    /// # Errors
    /// Those of a temporary file.
    pub fn finish(self) -> io::Result<Standing> {
        let most = self.seen.most;
        let mut superseded = Sorter::new(most);
        let mut keys = 0;
        let mut last: Option<[u64; 3]> = None;
        let mut sorted = self.seen.into_sorted()?;
        loop {
            let next = sorted.next_item()?;
            if let Some(last) = last {
                let is_superseded = next.is_some_and(|next| next[..2] == last[..2]);
                if is_superseded {
                    superseded.push([last[2] >> 1])?;
                } else {
                    keys += u64::from(last[2] & 1 == 0);
                }
            }
            if next.is_none() {
                break;
            }
            last = next;
        }
        let mut superseded = superseded.into_sorted()?;
        Ok(Standing {
            keys,
            records: self.records,
            next: superseded.next_item()?.map(|[number]| number),
            superseded,
        })
    }
}

impl Standing {
    /// Whether record `number`, counted from 0 without function libraries, is superseded by a later
    /// one. To be asked in order, of each record once.
    ///
    /// # Errors
    /// Those of a temporary file.
    pub fn is_superseded(&mut self, number: u64) -> io::Result<bool> {
        if self.next != Some(number) {
            return Ok(false);
        }
        self.next = self.superseded.next_item()?.map(|[number]| number);
        Ok(true)
    }
}

/// Sorts more than fits into memory.
#[derive(Debug)]
struct Sorter<const N: usize> {
    recent: Vec<[u64; N]>,
    most: usize,
    runs: Vec<File>,
}

/// The items in order.
struct Sorted<const N: usize> {
    runs: Vec<Run<N>>,
    /// The next item of each run.
    next: BinaryHeap<Reverse<([u64; N], usize)>>,
}

enum Run<const N: usize> {
    Memory(std::vec::IntoIter<[u64; N]>),
    File(BufReader<File>),
}

impl<const N: usize> Sorter<N> {
    fn new(most: usize) -> Self {
        Self {
            recent: Vec::new(),
            most,
            runs: Vec::new(),
        }
    }

    fn push(&mut self, item: [u64; N]) -> io::Result<()> {
        if self.recent.len() >= self.most {
            self.recent.sort_unstable();
            let recent = std::mem::take(&mut self.recent).into_iter();
            let mut run: Sorted<N> = Sorted::new(vec![Run::Memory(recent)])?;
            self.runs.push(saved(&mut run)?);
            if self.runs.len() >= MAX_RUNS {
                let runs: Vec<Run<N>> = self.runs.drain(..).map(Run::file).collect();
                self.runs = vec![saved(&mut Sorted::new(runs)?)?];
            }
        }
        self.recent.push(item);
        Ok(())
    }

    fn into_sorted(mut self) -> io::Result<Sorted<N>> {
        self.recent.sort_unstable();
        let mut runs: Vec<Run<N>> = self.runs.into_iter().map(Run::file).collect();
        runs.push(Run::Memory(self.recent.into_iter()));
        Sorted::new(runs)
    }
}

/// All items in a temporary file, which stands at its start.
fn saved<const N: usize>(items: &mut Sorted<N>) -> io::Result<File> {
    let mut out = BufWriter::with_capacity(64 * 1024, tempfile::tempfile()?);
    while let Some(item) = items.next_item()? {
        for word in item {
            out.write_all(&word.to_le_bytes())?;
        }
    }
    let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(file)
}

impl<const N: usize> Sorted<N> {
    fn new(runs: Vec<Run<N>>) -> io::Result<Self> {
        let mut sorted = Self {
            next: BinaryHeap::with_capacity(runs.len()),
            runs,
        };
        for at in 0..sorted.runs.len() {
            sorted.refill(at)?;
        }
        Ok(sorted)
    }

    fn refill(&mut self, at: usize) -> io::Result<()> {
        if let Some(item) = self.runs[at].next_item()? {
            self.next.push(Reverse((item, at)));
        }
        Ok(())
    }

    fn next_item(&mut self) -> io::Result<Option<[u64; N]>> {
        let Some(Reverse((item, at))) = self.next.pop() else {
            return Ok(None);
        };
        self.refill(at)?;
        Ok(Some(item))
    }
}

impl<const N: usize> Run<N> {
    fn file(file: File) -> Self {
        Self::File(BufReader::with_capacity(64 * 1024, file))
    }

    fn next_item(&mut self) -> io::Result<Option<[u64; N]>> {
        let file = match self {
            Self::Memory(items) => return Ok(items.next()),
            Self::File(file) => file,
        };
        let mut item = [0; N];
        for (at, word) in item.iter_mut().enumerate() {
            let mut bytes = [0; 8];
            match file.read_exact(&mut bytes) {
                Ok(()) => *word = u64::from_le_bytes(bytes),
                Err(error) if at == 0 && error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(item))
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
            let mut state = 7_u64;
            let mut last: BTreeMap<(u32, u64), (u64, bool)> = BTreeMap::new();
            for number in 0..700 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let (db, key) = ((state >> 40) as u32 % 3, (state >> 50) % 90);
                let is_gone = (state >> 20).is_multiple_of(4);
                census
                    .add_key(db, &key.to_le_bytes(), is_gone)
                    .expect("added");
                last.insert((db, key), (number, is_gone));
            }
            let mut standing = census.finish().expect("finished");
            assert_eq!(standing.records, 700);
            let keys = last.values().filter(|(_, is_gone)| !is_gone).count();
            assert_eq!(standing.keys, keys as u64, "{most}");
            let due: Vec<u64> = last.values().map(|(number, _)| *number).collect();
            for number in 0..700 {
                let is_superseded = standing.is_superseded(number).expect("read");
                assert_eq!(is_superseded, !due.contains(&number), "{most}: {number}");
            }
        }
    }
}
