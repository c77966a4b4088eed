//! Keys by which a later run can see that the destination still holds what it acknowledged.
//!
//! Whenever an import notes how far it has come, it also notes, with what they hold, the last key
//! that each node acknowledged in each database, and a sample of all the others. A memory that was
//! replaced lacks the last ones; FLUSHDB, SWAPDB and a node that came back empty take those of
//! their database or slots.

use crate::own_writes::Fingerprint;
use crate::record::{Family, Value};

/// What a later run can look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holds {
    /// The value.
    Value(Value),
    /// The key, whatever it holds: its value is large, or changes by itself. A hash whose fields
    /// all expire goes with the last of them, which is when the key counts as expired.
    Something,
    /// Nothing: the key is not to be looked at, or not any more.
    Unknown,
}

/// A key as it was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// Of the key.
    pub print: Fingerprint,
    /// Its database.
    pub db: u32,
    /// Its name.
    pub key: Vec<u8>,
    /// When it expires, Unix ms.
    pub expire_at_ms: Option<u64>,
    /// Whose type byte the value has.
    pub family: Family,
    /// What it holds.
    pub holds: Holds,
}
