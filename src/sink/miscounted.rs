//! Streams whose own counter is not the number of their entries. Some servers wrote such streams, and
//! every server reads them; XLEN tells the counter.

use crate::ledger::Changes;
use crate::observer::Observer;
use crate::record::show_key;
use crate::units::count_text;

/// Streams that are named; the rest is only counted.
const NAMED: u64 = 20;

/// A stream that miscounts its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Miscounted {
    /// What its counter says.
    pub said: u64,
    /// How many entries it holds.
    pub held: u64,
    /// Whether it is written with the right count.
    pub corrected: bool,
}

impl Miscounted {
    /// Counts it, and says which stream it is.
    pub fn note(self, observer: &Observer, changes: &mut Changes, db: u32, key: &[u8]) {
        if let Some(text) = self.count(changes, db, key) {
            observer.notice(&text);
        }
    }

    /// Counts it; which stream it is, in words, as long as it is one of the first.
    pub fn count(self, changes: &mut Changes, db: u32, key: &[u8]) -> Option<String> {
        changes.streams_miscounted += 1;
        if changes.streams_miscounted > NAMED {
            return None;
        }
        let becomes = match self.corrected {
            true => "it is written with the right count",
            false => "it is kept as it is (--sanitize writes the right count)",
        };
        let held = match self.held {
            1 => "1 entry".to_owned(),
            held => format!("{} entries", count_text(held)),
        };
        Some(format!(
            "db {db}, {}: the stream holds {held}, and its own counter says {}; {becomes}",
            show_key(key),
            count_text(self.said),
        ))
    }
}
