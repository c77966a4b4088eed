//! Which keys this run wrote: at a destination, so that a later record of the same key replaces our
//! own earlier one and nothing else; into an archive, so that only a key that stands there gets a
//! tombstone.
//!
//! A key is remembered by 128 keyed bits, so that no archive can be made whose keys collide. The
//! newest are in a table of a fixed size; when that is full it is written, sorted, to a temporary
//! file as a run, of which only every 1024th entry stays in memory. Runs are merged when they
//! become many. Look-ups are rare: only a key that was found standing is looked up.

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;

/// A key as it is remembered. Never 0, which marks an empty slot.
pub type Fingerprint = u128;

const SLOT_BYTES: usize = size_of::<Fingerprint>();

/// Slots of the table: 16 MiB. Together with the index of the runs below the 24 MiB that are
/// allowed for five hundred million keys.
const TABLE_SLOTS: usize = 1 << 20;

/// Entries of a run between two that are indexed.
const INDEX_EVERY: usize = 1024;

/// Runs that are merged into one when there are so many.
const MAX_RUNS: usize = 8;

/// The memory of own writes.
pub struct OwnWrites {
    hashers: [RandomState; 2],
    table: Vec<Fingerprint>,
    used: usize,
    full_at: usize,
    runs: Vec<Run>,
}

struct Run {
    file: File,
    len: usize,
    /// Every [`INDEX_EVERY`]th entry, from the first.
    index: Vec<Fingerprint>,
}

impl Default for OwnWrites {
    fn default() -> Self {
        Self::with_slots(TABLE_SLOTS)
    }
}

impl OwnWrites {
    fn with_slots(slots: usize) -> Self {
        Self {
            hashers: [RandomState::new(), RandomState::new()],
            // Grown on first use: most runs with few keys should not pay for it.
            table: vec![0; slots],
            used: 0,
            full_at: slots / 8 * 7,
            runs: Vec::new(),
        }
    }

    /// The fingerprint of a key.
    pub fn fingerprint(&self, db: u32, key: &[u8]) -> Fingerprint {
        let half = |state: &RandomState| {
            let mut hasher = state.build_hasher();
            hasher.write_u32(db);
            hasher.write(key);
            u128::from(hasher.finish())
        };
        (half(&self.hashers[0]) << 64 | half(&self.hashers[1])).max(1)
    }

    /// Remembers a key.
    ///
    /// # Errors
    /// The temporary file cannot be written.
    pub fn insert(&mut self, print: Fingerprint) -> io::Result<()> {
        let slot = self.slot_of(print);
        if self.table[slot] == 0 {
            self.table[slot] = print;
            self.used += 1;
            if self.used >= self.full_at {
                self.spill()?;
            }
        }
        Ok(())
    }

    /// Whether the key was remembered.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub fn contains(&self, print: Fingerprint) -> io::Result<bool> {
        if self.table[self.slot_of(print)] != 0 {
            return Ok(true);
        }
        for run in &self.runs {
            if run.contains(print)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The slot that holds `print`, or the empty one where it belongs.
    fn slot_of(&self, print: Fingerprint) -> usize {
        let mask = self.table.len() - 1;
        let mut slot = print as usize & mask;
        while self.table[slot] != 0 && self.table[slot] != print {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn spill(&mut self) -> io::Result<()> {
        // Sorted in place: zeros, the empty slots, come first.
        self.table.sort_unstable();
        let empty = self.table.partition_point(|&print| print == 0);
        let run = Run::write(self.table[empty..].iter().copied().map(Ok))?;
        self.runs.push(run);
        self.table.fill(0);
        self.used = 0;
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
    readers: Vec<(BufReader<Cursor<'a>>, Option<Fingerprint>)>,
    last: Fingerprint,
}

/// Reads a file from its start without moving the file's own position.
struct Cursor<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Cursor<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(out, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl<'a> Merge<'a> {
    fn new(runs: &'a [Run]) -> io::Result<Self> {
        let mut readers = Vec::with_capacity(runs.len());
        for run in runs {
            let mut reader = BufReader::new(Cursor {
                file: &run.file,
                at: 0,
            });
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
        let mut own = OwnWrites::with_slots(1 << 8);
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
