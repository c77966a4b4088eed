//! What is inside an archive, gathered in one pass: totals by database and type, prefixes that were
//! found by themselves, when keys expire, how large values are, and the largest keys.
//!
//! Memory does not grow with the archive: histograms are fixed, the tree of prefixes is bounded
//! (`prefixes`), and of keys only the largest are kept.

mod data;
mod memory;
mod page;
mod prefixes;
mod treemap;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use serde::Serialize;

use crate::describe::tally::{ByDbAndType, ToldDb, type_name};
use crate::record::{Context, KeyRecord, Record};

pub use self::data::{About, json};
pub use self::memory::{MemoryEstimate, estimate};
pub use self::page::page;
pub use self::prefixes::{PrefixGroup, Prefixes};

/// How many of the largest keys are kept, unless asked otherwise.
pub const LARGEST: usize = 50;

/// Bytes of a large key's name that are kept.
const SHOWN_KEY_BYTES: usize = 512;

/// Sums over a number of keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Weight {
    pub keys: u64,
    /// Bytes of names and values as stored, before compression.
    pub bytes: u64,
    /// Memory they may take in a server; an estimate.
    #[serde(rename = "memory_bytes_estimated")]
    pub memory_bytes: u64,
    /// Of the keys, those with expiry.
    pub with_ttl: u64,
}

impl Weight {
    fn add(&mut self, other: &Weight) {
        self.keys += other.keys;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.memory_bytes = self.memory_bytes.saturating_add(other.memory_bytes);
        self.with_ttl += other.with_ttl;
    }
}

/// One of the largest keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LargeKey {
    /// Memory it may take.
    #[serde(rename = "memory_bytes_estimated")]
    pub memory_bytes: u64,
    /// Bytes of its value as stored.
    pub value_bytes: u64,
    pub db: u32,
    /// Its name, or the beginning of it. In JSON text or hex.
    #[serde(skip)]
    pub key: Vec<u8>,
    /// Length of its name.
    pub key_bytes: u64,
    #[serde(rename = "type")]
    pub type_name: &'static str,
    /// Fields, members or elements, where the value says so at its beginning.
    pub elements: Option<u64>,
    pub expire_at_ms: Option<u64>,
}

/// A row of a histogram: from here up to the next row.
pub type Bucket = (&'static str, Weight);

/// Names of the remaining lives, and the longest of each.
const LIVES: [(&str, u64); 8] = [
    ("past its time", 0),
    ("under a minute", 60_000),
    ("under an hour", 3_600_000),
    ("under a day", 86_400_000),
    ("under a week", 7 * 86_400_000),
    ("under 30 days", 30 * 86_400_000),
    ("under a year", 365 * 86_400_000),
    ("a year and more", u64::MAX),
];

/// Names of the sizes of values, and the largest of each.
const SIZES: [(&str, u64); 10] = [
    ("under 64 B", 63),
    ("64 B to 256 B", 255),
    ("256 B to 1 KiB", 1_023),
    ("1 to 4 KiB", 4_095),
    ("4 to 16 KiB", 16_383),
    ("16 to 64 KiB", 65_535),
    ("64 KiB to 1 MiB", (1 << 20) - 1),
    ("1 to 16 MiB", (16 << 20) - 1),
    ("16 to 256 MiB", (256 << 20) - 1),
    ("256 MiB and more", u64::MAX),
];

#[derive(Debug)]
pub struct Report {
    pub by_db_and_type: ByDbAndType<Weight>,
    pub without_ttl: Weight,
    /// Keys with expiry, by the life that remained when they were read.
    pub lives: Vec<Bucket>,
    /// By the size of the value.
    pub sizes: Vec<Bucket>,
    pub prefixes: Prefixes,
    largest: BinaryHeap<Reverse<LargeKey>>,
    largest_len: usize,
    pub tombstones: u64,
    /// Records of keys that later ones supersede; they are in no other figure.
    pub superseded: u64,
    /// Payloads of function libraries.
    pub functions: u64,
}

impl Report {
    /// An empty one that keeps so many of the largest keys.
    pub fn new(largest_len: usize) -> Self {
        let rows = |names: &[(&'static str, u64)]| -> Vec<Bucket> {
            let row = |(name, _): &(&'static str, u64)| (*name, Weight::default());
            names.iter().map(row).collect()
        };
        Self {
            by_db_and_type: ByDbAndType::default(),
            without_ttl: Weight::default(),
            lives: rows(&LIVES),
            sizes: rows(&SIZES),
            prefixes: Prefixes::default(),
            largest: BinaryHeap::new(),
            largest_len,
            tombstones: 0,
            superseded: 0,
            functions: 0,
        }
    }

    /// Counts a record that no later one supersedes. Its value is `value_bytes` long; only the first may be there.
    pub fn add(&mut self, record: &Record, context: &Context, value_bytes: u64) {
        match record {
            Record::Key(key) => self.add_key(key, context, value_bytes),
            Record::Deleted { .. } => self.tombstones += 1,
            Record::Functions(_) => self.functions += 1,
            _ => {}
        }
    }

    fn add_key(&mut self, key: &KeyRecord, context: &Context, value_bytes: u64) {
        let MemoryEstimate {
            memory_bytes,
            elements,
        } = estimate(key, context, value_bytes);
        let weight = Weight {
            keys: 1,
            bytes: value_bytes + key.key.len() as u64,
            memory_bytes,
            with_ttl: key.expire_at_ms.is_some().into(),
        };
        let type_name = type_name(key, context);
        self.by_db_and_type.of(key.db, type_name).add(&weight);
        match key.expire_at_ms {
            None => self.without_ttl.add(&weight),
            Some(at_ms) => {
                // At the very moment it is past its time already.
                let left_ms = at_ms.saturating_sub(context.source_time_ms);
                let row = LIVES.iter().position(|(_, longest)| {
                    left_ms == 0 || (*longest > 0 && left_ms < *longest) || *longest == u64::MAX
                });
                self.lives[row.unwrap_or(LIVES.len() - 1)].1.add(&weight);
            }
        }
        let row = SIZES
            .iter()
            .position(|(_, largest)| value_bytes <= *largest);
        self.sizes[row.unwrap_or(SIZES.len() - 1)].1.add(&weight);
        self.prefixes.add(&key.key, &weight);
        self.keep_if_large(key, memory_bytes, value_bytes, elements, type_name);
    }

    fn keep_if_large(
        &mut self,
        key: &KeyRecord,
        memory_bytes: u64,
        value_bytes: u64,
        elements: Option<u64>,
        type_name: &'static str,
    ) {
        let is_full = self.largest.len() >= self.largest_len;
        let smallest = self.largest.peek();
        if is_full && smallest.is_none_or(|Reverse(least)| memory_bytes <= least.memory_bytes) {
            return;
        }
        self.largest.push(Reverse(LargeKey {
            memory_bytes,
            value_bytes,
            db: key.db,
            key: key.key[..key.key.len().min(SHOWN_KEY_BYTES)].to_vec(),
            key_bytes: key.key.len() as u64,
            type_name,
            elements,
            expire_at_ms: key.expire_at_ms,
        }));
        if is_full {
            self.largest.pop();
        }
    }

    pub fn total(&self) -> Weight {
        sum(self.by_db_and_type.iter().map(|(_, _, weight)| weight))
    }

    /// By type, largest first.
    pub fn by_type(&self) -> Vec<(&'static str, Weight)> {
        let mut types: BTreeMap<&'static str, Weight> = BTreeMap::new();
        for (_, name, weight) in self.by_db_and_type.iter() {
            types.entry(name).or_default().add(weight);
        }
        let mut types: Vec<_> = types.into_iter().collect();
        types.sort_by_key(|(_, weight)| Reverse(weight.bytes));
        types
    }

    pub fn by_db(&self) -> Vec<(ToldDb, Weight)> {
        let mut dbs: BTreeMap<ToldDb, Weight> = BTreeMap::new();
        for (db, _, weight) in self.by_db_and_type.iter() {
            dbs.entry(db).or_default().add(weight);
        }
        dbs.into_iter().collect()
    }

    /// The largest keys, largest first.
    pub fn largest(&self) -> Vec<&LargeKey> {
        let mut keys: Vec<&LargeKey> = self.largest.iter().map(|Reverse(key)| key).collect();
        keys.sort_by_key(|key| (Reverse(key.memory_bytes), key.db, key.key.clone()));
        keys
    }
}

fn sum<'a>(weights: impl Iterator<Item = &'a Weight>) -> Weight {
    let mut total = Weight::default();
    for weight in weights {
        total.add(weight);
    }
    total
}

#[cfg(test)]
mod tests;
