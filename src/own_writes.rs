//! Which keys this run wrote: at a destination, so that a later record of the same key replaces our
//! own earlier one and nothing else; into an archive, so that only a key that stands there gets a
//! tombstone.
//!
//! A key is remembered by 128 keyed bits, so that no archive can be made whose keys collide. The
//! newest are simply appended; an index over them is only built when somebody asks, because most
//! runs never do, and a table would cost them a cache miss a key. When there are many they are
//! sorted and written to a temporary file as a run, of which only every 1024th entry stays in
//! memory. Runs are merged when they become many.

use crate::host;
use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;

use crate::place::store::Positioned;
use siphasher::sip128::{Hasher128, SipHasher13};

/// A key as it is remembered. Never 0, which no merge would give.
pub(crate) type Fingerprint = u128;

/// A set of fingerprints: they are hashes already, and need not be hashed again.
pub(crate) type FingerprintSet = HashSet<Fingerprint, BuildHasherDefault<Already>>;

/// Takes a fingerprint as its own hash.
#[derive(Default)]
pub struct Already(u64);

impl Hasher for Already {
    fn write(&mut self, bytes: &[u8]) {
        // Only fingerprints come here, and those by the method below.
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_ne_bytes(word);
        }
    }

    fn write_u128(&mut self, print: u128) {
        self.0 = print as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

const SLOT_BYTES: usize = size_of::<Fingerprint>();

/// Entries that are kept in memory: 16 MiB. Together with their index and that of the runs below
/// the 24 MiB that are allowed, for five hundred million keys.
const RECENT_ENTRIES: usize = 1 << 20;

/// Slots of the index for each entry that may be in memory: at most seven eighths full.
const SLOTS_PER_8_ENTRIES: usize = 10;

/// Entries of a run between two that are indexed.
const INDEX_EVERY: usize = 1024;

/// Runs that are merged into one when there are so many.
const MAX_RUNS: usize = 8;

/// The memory of own writes.
pub struct OwnWrites {
    hasher: SipHasher13,
    /// What was added and not taken by [`OwnWrites::take_unsaved`]; `None` if nobody will.
    unsaved: Option<Vec<Fingerprint>>,
    recent: Vec<Fingerprint>,
    max_recent: usize,
    /// Positions in `recent`, plus 1, by fingerprint; 0 for none. Empty until somebody asks.
    index: Vec<u32>,
    /// How many of `recent` the index knows.
    indexed: usize,
    runs: Vec<Run>,
}

struct Run {
    file: File,
    len: usize,
    /// Every [`INDEX_EVERY`]th entry, from the first.
    index: Vec<Fingerprint>,
}

/// Keys of fingerprints that nobody can guess.
pub(crate) fn random_hash_keys() -> (u64, u64) {
    (host::random(), host::random())
}

impl Default for OwnWrites {
    fn default() -> Self {
        Self::with_entries(RECENT_ENTRIES, random_hash_keys())
    }
}

impl OwnWrites {
    fn with_entries(max_recent: usize, hash_keys: (u64, u64)) -> Self {
        Self {
            hasher: SipHasher13::new_with_keys(hash_keys.0, hash_keys.1),
            unsaved: None,
            recent: Vec::new(),
            max_recent,
            index: Vec::new(),
            indexed: 0,
            runs: Vec::new(),
        }
    }

    /// With keys of the fingerprints that are given, for fingerprints that were saved.
    pub fn with_hash_keys(hash_keys: (u64, u64)) -> Self {
        Self::with_entries(RECENT_ENTRIES, hash_keys)
    }

    /// From now on, keeps what is added for [`Self::take_unsaved`].
    pub fn keep_unsaved(&mut self) {
        self.unsaved = Some(Vec::new());
    }

    /// What was added since the last time.
    pub fn take_unsaved(&mut self) -> Vec<Fingerprint> {
        self.unsaved
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// The fingerprint of a key.
    pub fn fingerprint(&self, db: u32, key: &[u8]) -> Fingerprint {
        let mut hasher = self.hasher;
        hasher.write_u32(db);
        hasher.write(key);
        hasher.finish128().as_u128().max(1)
    }

    /// Remembers a key.
    ///
    /// # Errors
    /// The temporary file cannot be written.
    pub fn insert(&mut self, print: Fingerprint) -> io::Result<()> {
        if self.recent.len() >= self.max_recent {
            self.spill()?;
        }
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.push(print);
        }
        if self.recent.is_empty() {
            // Room that is not used costs nothing; growing would copy all of it several times.
            self.recent.reserve_exact(self.max_recent);
        }
        self.recent.push(print);
        Ok(())
    }

    /// Whether the key was remembered.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub fn contains(&mut self, print: Fingerprint) -> io::Result<bool> {
        if self.is_recent(print) {
            return Ok(true);
        }
        for run in &self.runs {
            if run.contains(print)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_recent(&mut self, print: Fingerprint) -> bool {
        if self.recent.is_empty() {
            return false;
        }
        if self.index.is_empty() {
            let slots = self.max_recent.div_ceil(8) * SLOTS_PER_8_ENTRIES;
            self.index = vec![0; slots];
        }
        while self.indexed < self.recent.len() {
            let slot = self.slot_of(self.recent[self.indexed]);
            self.indexed += 1;
            // Positions fit: there are at most a million.
            self.index[slot] = self.indexed as u32;
        }
        self.index[self.slot_of(print)] != 0
    }

    /// The slot of the index that leads to `print`, or the empty one where it belongs.
    fn slot_of(&self, print: Fingerprint) -> usize {
        let slots = self.index.len();
        let mut slot = (print as u64 % slots as u64) as usize;
        loop {
            match self.index[slot] {
                0 => return slot,
                position if self.recent[position as usize - 1] == print => return slot,
                _ => slot = (slot + 1) % slots,
            }
        }
    }

    fn spill(&mut self) -> io::Result<()> {
        self.recent.sort_unstable();
        let run = Run::write(self.recent.iter().copied().map(Ok))?;
        self.runs.push(run);
        self.recent.clear();
        self.index.fill(0);
        self.indexed = 0;
        if self.runs.len() >= MAX_RUNS {
            let merged = Run::write(Merge::new(&self.runs)?)?;
            self.runs = vec![merged];
        }
        Ok(())
    }
}

impl Run {
    fn write(sorted: impl Iterator<Item = io::Result<Fingerprint>>) -> io::Result<Self> {
        // Unlinked from the start: it goes away with us, however we end.
        let file = tempfile::tempfile()?;
        let mut out = BufWriter::new(&file);
        let (mut len, mut index) = (0, Vec::new());
        for print in sorted {
            let print = print?;
            if len % INDEX_EVERY == 0 {
                index.push(print);
            }
            out.write_all(&print.to_be_bytes())?;
            len += 1;
        }
        out.flush()?;
        drop(out);
        Ok(Self { file, len, index })
    }

    fn contains(&self, print: Fingerprint) -> io::Result<bool> {
        let Some(block) = self
            .index
            .partition_point(|&first| first <= print)
            .checked_sub(1)
        else {
            return Ok(false);
        };
        let from = block * INDEX_EVERY;
        let entries = INDEX_EVERY.min(self.len - from);
        let mut bytes = [0u8; INDEX_EVERY * SLOT_BYTES];
        let bytes = &mut bytes[..entries * SLOT_BYTES];
        self.file.read_exact_at(bytes, (from * SLOT_BYTES) as u64)?;
        let wanted = print.to_be_bytes();
        let (entries, _) = bytes.as_chunks::<SLOT_BYTES>();
        Ok(entries.binary_search(&wanted).is_ok())
    }
}

/// Several sorted runs as one sorted, without doubles.
struct Merge<'a> {
    readers: Vec<(BufReader<Positioned<&'a File>>, Option<Fingerprint>)>,
    last: Fingerprint,
}

impl<'a> Merge<'a> {
    fn new(runs: &'a [Run]) -> io::Result<Self> {
        let mut readers = Vec::with_capacity(runs.len());
        for run in runs {
            let mut reader = BufReader::new(Positioned::new(&run.file, 0));
            let first = next_of(&mut reader)?;
            readers.push((reader, first));
        }
        Ok(Self { readers, last: 0 })
    }
}

fn next_of(reader: &mut impl Read) -> io::Result<Option<Fingerprint>> {
    let mut bytes = [0; SLOT_BYTES];
    match reader.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(Fingerprint::from_be_bytes(bytes))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

impl Iterator for Merge<'_> {
    type Item = io::Result<Fingerprint>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (reader, head) = self
                .readers
                .iter_mut()
                .filter(|(_, head)| head.is_some())
                .min_by_key(|(_, head)| *head)?;
            let print = (*head)?;
            match next_of(reader) {
                Ok(next) => *head = next,
                Err(error) => return Some(Err(error)),
            }
            if print != self.last {
                self.last = print;
                return Some(Ok(print));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_known_however_often_it_spills() {
        let mut own = OwnWrites::with_entries(1 << 8, (1, 2));
        let key = |n: u32| n.to_be_bytes();
        for n in 0..20_000 {
            let print = own.fingerprint(3, &key(n));
            assert!(!own.contains(print).unwrap(), "{n}");
            own.insert(print).unwrap();
            own.insert(print).unwrap();
        }
        assert!((1..MAX_RUNS).contains(&own.runs.len()));
        for n in 0..20_000 {
            assert!(own.contains(own.fingerprint(3, &key(n))).unwrap(), "{n}");
            assert!(!own.contains(own.fingerprint(4, &key(n))).unwrap(), "{n}");
        }
        assert!(!own.contains(1).unwrap() && !own.contains(u128::MAX).unwrap());
    }
}
