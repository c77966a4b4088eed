//! Keys of this run that it did not put there: they stood as one of their records says.
//!
//! What comes for such a key later applies, because an earlier run of the same import may have left
//! it. Until something is written, the key is not one that this run restored, and a record that says
//! what stands already changes nothing.

use anyhow::{Context as _, Result};

use crate::own_writes::{Fingerprint, OwnWrites};

const WHAT: &str = "cannot remember a key in a temporary file";

/// Which keys stood, and which of them this run wrote or removed since. The memory moves to a
/// temporary file as it grows.
#[derive(Default)]
pub(super) struct Stood {
    /// Whether there are any: most runs have none, and then nothing is looked up.
    any: bool,
    before: OwnWrites,
    touched: OwnWrites,
}

impl Stood {
    /// The key stands as its record says.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn note(&mut self, print: Fingerprint) -> Result<()> {
        self.any = true;
        match self.before.contains(print).context(WHAT)? {
            true => Ok(()),
            false => self.before.insert(print).context(WHAT),
        }
    }

    /// This run writes or removes it; whether it stood before and this is the first time.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn touch(&mut self, print: Fingerprint) -> Result<bool> {
        let is_first = self.is_untouched(print)?;
        if is_first {
            self.touched.insert(print).context(WHAT)?;
        }
        Ok(is_first)
    }

    /// Whether it stood before this run and was not written or removed since.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn is_untouched(&mut self, print: Fingerprint) -> Result<bool> {
        Ok(self.any
            && self.before.contains(print).context(WHAT)?
            && !self.touched.contains(print).context(WHAT)?)
    }
}
