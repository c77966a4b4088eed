//! Keys that were acknowledged, as the state keeps them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::compare::hashing::{Print, Prints};
use crate::compare::meaning::Reading;
use crate::own_writes::{Fingerprint, FingerprintSet};
use crate::record::{Family, Value};
use crate::sink::server::witness::{Acknowledged, Holds};

/// Keys that are looked at, unless there are more databases.
const LOOKED_AT: usize = 512;

/// Of these, so many of the last.
const LAST: usize = 64;

/// Of these, so many are shared equally by the databases.
const OF_DATABASES: usize = 224;

/// A key as it was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Of the key.
    pub print: Fingerprint,
    /// Its database.
    pub db: u32,
    /// Its name.
    pub key: Vec<u8>,
    /// When it expires, Unix ms.
    pub expire_at_ms: Option<u64>,
    /// What is known of what it holds.
    pub meaning: Meaning,
}

/// What is known of what a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// It is not to be looked at any more.
    Unknown,
    /// It stands, with whatever value.
    Something,
    /// What its value means.
    Value(Print),
}

/// How values are read to be compared with what was noted under these keys.
pub fn reading(hash_keys: (u64, u64)) -> Reading {
    Reading {
        prints: Prints::with_keys(hash_keys),
        from_ms: 0,
    }
}

/// What a value means, for comparison with another of the same keys.
pub fn meaning_of(reading: &Reading, family: Family, value: &Value) -> Print {
    let (_, meaning) = reading.value(family, value);
    meaning.body.wrapping_add(Print::from(meaning.count))
}

impl Witness {
    /// Of what a sink has acknowledged.
    pub fn of(acknowledged: Acknowledged, reading: &Reading) -> Self {
        let family = acknowledged.family;
        Self {
            print: acknowledged.print,
            db: acknowledged.db,
            key: acknowledged.key,
            expire_at_ms: acknowledged.expire_at_ms,
            meaning: match &acknowledged.holds {
                Holds::Value(value) => Meaning::Value(meaning_of(reading, family, value)),
                Holds::Something => Meaning::Something,
                Holds::Unknown => Meaning::Unknown,
            },
        }
    }

    /// Appends it as bytes: fingerprint, database, expiry (0 for none), what is known of its value
    /// (0 nothing, 1 its meaning, 2 that it stands) and what that means, then the name with its length (little-endian).
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.print.to_le_bytes());
        out.extend_from_slice(&self.db.to_le_bytes());
        out.extend_from_slice(&self.expire_at_ms.unwrap_or(0).to_le_bytes());
        let (what, meaning) = match self.meaning {
            Meaning::Unknown => (0, 0),
            Meaning::Value(meaning) => (1, meaning),
            Meaning::Something => (2, 0),
        };
        out.push(what);
        out.extend_from_slice(&meaning.to_le_bytes());
        out.extend_from_slice(&(self.key.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.key);
    }

    /// Reads the next one off `bytes`; `None` at their end.
    pub fn take(bytes: &mut &[u8]) -> Option<Self> {
        let (print, rest) = bytes.split_first_chunk()?;
        let (db, rest) = rest.split_first_chunk()?;
        let (expiry, rest) = rest.split_first_chunk()?;
        let (what, rest) = rest.split_first()?;
        let (meaning, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        *bytes = rest;
        Some(Self {
            print: Fingerprint::from_le_bytes(*print),
            db: u32::from_le_bytes(*db),
            key: key.to_vec(),
            expire_at_ms: Some(u64::from_le_bytes(*expiry)).filter(|at_ms| *at_ms > 0),
            meaning: match what {
                0 => Meaning::Unknown,
                1 => Meaning::Value(Print::from_le_bytes(*meaning)),
                _ => Meaning::Something,
            },
        })
    }
}

/// All that were noted, in their order, each as it was noted last.
#[derive(Debug, Default)]
pub struct Noted(HashMap<Fingerprint, (usize, Witness)>);

impl Noted {
    /// Adds one, or replaces what was noted of the same key.
    pub fn add(&mut self, witness: Witness) {
        let at = self.0.len();
        let order = self.0.get(&witness.print).map_or(at, |(at, _)| *at);
        self.0.insert(witness.print, (order, witness));
    }

    /// Their fingerprints.
    pub fn prints(&self) -> FingerprintSet {
        self.0.keys().copied().collect()
    }

    /// Databases in which something was noted.
    pub fn databases(&self) -> BTreeSet<u32> {
        self.0.values().map(|(_, witness)| witness.db).collect()
    }

    /// The last ones, some of each database, and some spread over all that were noted; by database.
    pub fn chosen(&self) -> Vec<&Witness> {
        let mut all: Vec<&(usize, Witness)> = self.0.values().collect();
        all.retain(|(_, witness)| witness.meaning != Meaning::Unknown);
        all.sort_unstable_by_key(|(at, _)| *at);
        let mut dbs: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, (_, witness)) in all.iter().enumerate() {
            dbs.entry(witness.db).or_default().push(at);
        }
        let last = all.len().saturating_sub(LAST);
        let mut chosen: BTreeSet<usize> = (last..all.len()).collect();
        chosen.extend(spread(last, LOOKED_AT - LAST - OF_DATABASES));
        let share = (OF_DATABASES / dbs.len().max(1)).max(1);
        for of_db in dbs.values() {
            chosen.extend(spread(of_db.len(), share).map(|at| of_db[at]));
        }
        let mut chosen: Vec<&Witness> = chosen.into_iter().map(|at| &all[at].1).collect();
        chosen.sort_by_key(|one| one.db);
        chosen
    }
}

/// At most `count` places of `len`, at equal distances, the last one among them.
fn spread(len: usize, count: usize) -> impl Iterator<Item = usize> {
    let step = len.div_ceil(count).max(1);
    (0..len).rev().step_by(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness(n: u32) -> Witness {
        Witness {
            print: u128::from(n) + 1,
            db: u32::from(n >= 5_000),
            key: n.to_string().into_bytes(),
            expire_at_ms: n.is_multiple_of(2).then_some(7),
            meaning: Meaning::Value(u128::from(n)),
        }
    }

    #[test]
    fn witnesses_are_read_as_they_were_put() {
        let gone = Witness {
            meaning: Meaning::Unknown,
            ..witness(3)
        };
        let large = Witness {
            meaning: Meaning::Something,
            ..witness(4)
        };
        let all = [witness(1), witness(2), gone, large];
        let mut bytes = Vec::new();
        all.iter().for_each(|one| one.put(&mut bytes));
        let mut rest = &bytes[..];
        let read: Vec<Witness> = std::iter::from_fn(|| Witness::take(&mut rest)).collect();
        assert_eq!(read, all);
        let mut cut = &bytes[..20];
        assert_eq!(Witness::take(&mut cut), None);
    }

    #[test]
    fn the_last_ones_are_chosen_and_every_database_and_nothing_that_is_gone() {
        let mut noted = Noted::default();
        (0..20_000).for_each(|n| noted.add(witness(n)));
        noted.add(Witness {
            meaning: Meaning::Unknown,
            ..witness(19_999)
        });
        noted.add(Witness {
            db: 9,
            ..witness(7)
        });
        let chosen = noted.chosen();
        assert!(chosen.len() <= LOOKED_AT, "{}", chosen.len());
        assert!((19_936..19_999).all(|n| chosen.contains(&&witness(n))));
        assert!(!chosen.iter().any(|one| one.key == b"19999"));
        assert!(
            [0, 1, 9]
                .iter()
                .all(|db| chosen.iter().any(|one| one.db == *db))
        );
        // A small database among large ones is looked at as often as they are.
        let of_first = chosen.iter().filter(|one| one.db == 0).count();
        assert!(of_first >= 128, "{of_first}");
    }
}
