//! Which (database, key) pairs a DATA body already has.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use crate::record::Record;

/// A set of keyed hashes, so that nobody outside can make two keys collide on purpose. It holds no
/// keys: a pair that is new may look known (once in 10^13 frames), a known pair never looks new.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    keyed: RandomState,
    seen: HashSet<u64, BuildHasherDefault<Identity>>,
}

impl KeySet {
    /// Hash of the record's pair; `None` for a record without a key.
    pub(crate) fn hash(&self, record: &Record) -> Option<u64> {
        let (db, key) = pair(record)?;
        Some(self.hash_of(db, key))
    }

    /// Hash of a pair.
    pub(crate) fn hash_of(&self, db: u32, key: &[u8]) -> u64 {
        let mut hasher = self.keyed.build_hasher();
        hasher.write_u32(db);
        hasher.write(key);
        hasher.finish()
    }

    pub(crate) fn contains(&self, hash: u64) -> bool {
        self.seen.contains(&hash)
    }

    /// Adds a hash; false if it was there.
    pub(crate) fn insert(&mut self, hash: u64) -> bool {
        self.seen.insert(hash)
    }

    pub(crate) fn clear(&mut self) {
        self.seen.clear();
    }
}

/// Database and key of a record that has them.
pub(crate) fn pair(record: &Record) -> Option<(u32, &[u8])> {
    match record {
        Record::Key(key) => Some((key.db, &key.key)),
        Record::Deleted { db, key } => Some((*db, key)),
        Record::Functions(_) | Record::WithheldFunctions(_) => None,
    }
}

/// Passes a hash through: what is stored was hashed with a key already.
#[derive(Debug, Default)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only u64 is ever hashed; anything else would still be right, only slow.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
