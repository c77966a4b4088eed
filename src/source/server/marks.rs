//! A mark on keys that can be set and removed, in bounded memory however many keys bear it.
//!
//! [`OwnWrites`] can only add. So each change of a key's mark is added as a step of its own: the mark
//! is set after an odd number of steps.

use anyhow::{Context as _, Result};

use crate::own_writes::{Fingerprint, OwnWrites};

const WHAT: &str = "cannot remember a key in a temporary file";

/// Keys that bear a mark.
#[derive(Default)]
pub(super) struct Marks {
    steps: OwnWrites,
    is_used: bool,
}

impl Marks {
    fn step(print: Fingerprint, number: u64) -> Fingerprint {
        print.wrapping_add(u128::from(number)).max(1)
    }

    fn took(&mut self, print: Fingerprint, number: u64) -> Result<bool> {
        self.steps
            .contains(Self::step(print, number))
            .context("cannot look up a key in a temporary file")
    }

    /// How many steps the key has taken.
    fn count(&mut self, print: Fingerprint) -> Result<u64> {
        if !self.is_used {
            return Ok(0);
        }
        // No step is left out, so the last one is found by doubling and halving.
        let mut not_taken = 1;
        while self.took(print, not_taken)? {
            not_taken *= 2;
        }
        let mut taken = not_taken / 2;
        while not_taken - taken > 1 {
            let middle = taken + (not_taken - taken) / 2;
            match self.took(print, middle)? {
                true => taken = middle,
                false => not_taken = middle,
            }
        }
        Ok(taken)
    }

    /// Whether the key bears the mark.
    pub fn has(&mut self, db: u32, key: &[u8]) -> Result<bool> {
        if !self.is_used {
            return Ok(false);
        }
        let print = self.steps.fingerprint(db, key);
        Ok(self.count(print)? % 2 == 1)
    }

    /// Sets or removes the mark; whether that changed anything.
    pub fn put(&mut self, db: u32, key: &[u8], set: bool) -> Result<bool> {
        // Asked of every key, and few runs ever set one.
        if !set && !self.is_used {
            return Ok(false);
        }
        let print = self.steps.fingerprint(db, key);
        let count = self.count(print)?;
        if (count % 2 == 1) == set {
            return Ok(false);
        }
        self.is_used = true;
        let step = Self::step(print, count + 1);
        self.steps.insert(step).context(WHAT)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_of_one_key_of_one_database_and_comes_and_goes() {
        let mut marks = Marks::default();
        assert!(!marks.has(0, b"x").unwrap());
        assert!(!marks.put(0, b"x", false).unwrap());
        for round in 0..50 {
            assert!(marks.put(1, b"x", true).unwrap(), "{round}");
            assert!(!marks.put(1, b"x", true).unwrap(), "{round}");
            assert!(marks.has(1, b"x").unwrap(), "{round}");
            assert!(!marks.has(0, b"x").unwrap() && !marks.has(1, b"y").unwrap());
            assert!(marks.put(1, b"x", false).unwrap(), "{round}");
            assert!(!marks.put(1, b"x", false).unwrap(), "{round}");
            assert!(!marks.has(1, b"x").unwrap(), "{round}");
        }
    }
}
