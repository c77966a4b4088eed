//! Which record of a key is its last.
//!
//! An archive may hold the same key several times, and later records supersede earlier ones. A
//! server replaces what it has; an RDB file cannot, and a key that comes twice makes the whole file
//! unreadable. So the archive is read twice: once for the names only, then without the records that
//! are not the last of their key.
//!
//! A key is remembered by 128 keyed bits, so that no archive can be made whose keys collide, and by
//! its place in the order of reading. When many have come, they are dealt out to temporary files by
//! their first bits; each file is then sorted for itself. In memory there are at most
//! `ENTRIES_KEPT` entries, later one file's, and one bit for each record.

use crate::host::HashKeys;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};

use crate::record::Record;

/// Entries in memory before they are dealt out: 8 MiB.
const ENTRIES_KEPT: usize = 1 << 18;

/// Files that entries are dealt out to.
const FILES: usize = 128;

/// Bytes of an entry in a file.
const ENTRY_BYTES: usize = 24;

/// A key and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    key: u128,
    ordinal: u64,
}

/// Takes in the records of an archive, in order.
pub struct Latest {
    hashers: [HashKeys; 2],
    kept: Vec<Entry>,
    limit: usize,
    files: Vec<BufWriter<File>>,
    records: u64,
    functions: u64,
}

impl Default for Latest {
    fn default() -> Self {
        Self::with_limit(ENTRIES_KEPT)
    }
}

impl Latest {
    fn with_limit(limit: usize) -> Self {
        Self {
            hashers: [HashKeys::default(), HashKeys::default()],
            kept: Vec::new(),
            limit,
            files: Vec::new(),
            records: 0,
            functions: 0,
        }
    }

    /// The next record.
    ///
    /// # Errors
    /// A temporary file's.
    pub fn take(&mut self, record: &Record) -> io::Result<()> {
        let (db, key) = match record {
            Record::Key(record) => (record.db, &record.key),
            Record::Deleted { db, key } => (*db, key),
            Record::Functions(_) => {
                self.functions += 1;
                return Ok(());
            }
            _ => return Ok(()),
        };
        let half = |state: &HashKeys| {
            let mut hasher = state.build_hasher();
            hasher.write_u32(db);
            hasher.write(key);
            u128::from(hasher.finish())
        };
        self.kept.push(Entry {
            key: half(&self.hashers[0]) << 64 | half(&self.hashers[1]),
            ordinal: self.records,
        });
        self.records += 1;
        if self.kept.len() >= self.limit {
            self.deal_out()?;
        }
        Ok(())
    }

    fn deal_out(&mut self) -> io::Result<()> {
        while self.files.len() < FILES {
            self.files.push(BufWriter::new(tempfile::tempfile()?));
        }
        for entry in self.kept.drain(..) {
            let file = &mut self.files[(entry.key >> 121) as usize];
            file.write_all(&entry.key.to_le_bytes())?;
            file.write_all(&entry.ordinal.to_le_bytes())?;
        }
        Ok(())
    }

    /// The end: which records are superseded.
    ///
    /// # Errors
    /// A temporary file's.
    pub fn finish(mut self) -> io::Result<Superseded> {
        let words = usize::try_from(self.records.div_ceil(64)).unwrap_or(usize::MAX);
        let mut superseded = Superseded {
            bits: vec![0; words],
            records: Some(self.records),
            functions: self.functions,
        };
        if self.files.is_empty() {
            superseded.mark(&mut self.kept);
            return Ok(superseded);
        }
        self.deal_out()?;
        for file in self.files {
            let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.seek(SeekFrom::Start(0))?;
            superseded.mark(&mut entries(file)?);
        }
        Ok(superseded)
    }
}

fn entries(file: File) -> io::Result<Vec<Entry>> {
    let count = file.metadata()?.len() / ENTRY_BYTES as u64;
    let mut entries = Vec::new();
    let mut file = BufReader::new(file);
    for _ in 0..count {
        let mut key = [0; 16];
        let mut ordinal = [0; 8];
        file.read_exact(&mut key)?;
        file.read_exact(&mut ordinal)?;
        entries.push(Entry {
            key: u128::from_le_bytes(key),
            ordinal: u64::from_le_bytes(ordinal),
        });
    }
    Ok(entries)
}

/// Which records, by their place in the order of reading, a later one of the same key supersedes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Superseded {
    bits: Vec<u64>,
    /// Key records and tombstones that were read; `None` where nothing was, because no key comes
    /// twice.
    pub records: Option<u64>,
    /// Function payloads that were read; each holds all libraries, so the last counts.
    pub functions: u64,
}

impl Superseded {
    /// Whether this record is not the last of its key.
    pub fn contains(&self, ordinal: u64) -> bool {
        let word = usize::try_from(ordinal / 64).ok();
        word.and_then(|word| self.bits.get(word))
            .is_some_and(|bits| bits >> (ordinal % 64) & 1 == 1)
    }

    fn mark(&mut self, entries: &mut [Entry]) {
        entries.sort_unstable();
        for pair in entries.windows(2) {
            let [one, next] = pair else { continue };
            if one.key == next.key {
                self.bits[(one.ordinal / 64) as usize] |= 1 << (one.ordinal % 64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superseded(limit: usize, records: &[(u32, &str)]) -> Vec<u64> {
        let mut latest = Latest::with_limit(limit);
        for (db, key) in records {
            let record = Record::Deleted {
                db: *db,
                key: key.as_bytes().to_vec(),
            };
            latest.take(&record).unwrap();
        }
        let superseded = latest.finish().unwrap();
        assert_eq!(superseded.records, Some(records.len() as u64));
        (0..records.len() as u64 + 100)
            .filter(|&ordinal| superseded.contains(ordinal))
            .collect()
    }

    #[test]
    fn all_but_the_last_of_each_key() {
        let records = [
            (0, "a"),
            (0, "b"),
            (1, "a"),
            (0, "a"),
            (0, "c"),
            (0, "a"),
            (1, "a"),
        ];
        for limit in [100, 7, 3, 1] {
            assert_eq!(superseded(limit, &records), [0, 2, 3], "{limit}");
        }
        assert_eq!(superseded(10, &[]), [0; 0]);
    }

    #[test]
    fn many() {
        let names: Vec<String> = (0..5000).map(|n| (n % 1999).to_string()).collect();
        let records: Vec<(u32, &str)> = names.iter().map(|name| (0, name.as_str())).collect();
        let expected: Vec<u64> = (0..5000 - 1999).collect();
        assert_eq!(superseded(1 << 20, &records), expected);
        assert_eq!(superseded(100, &records), expected);
    }
}
