//! Where the writer of an archive notes how far it has come, so that a later run can go on.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::errors_file::ErrorsPlace;
use crate::record::Checkpoint;
use crate::undecoded::Undecoded;

/// Keeps what is noted.
pub trait Journal: Send {
    /// Everything up to here is in the file.
    ///
    /// # Errors
    /// The system's.
    fn note(&mut self, noted: &Noted) -> Result<()>;
}

/// What the archive's writer had taken.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Taken {
    /// Records taken.
    pub taken: u64,
    /// Of those in the archive.
    pub archived: u64,
    /// Of those not fit for it.
    pub refused: u64,
    /// Of those in the archive, the ones that no destination should be given.
    #[serde(default)]
    pub unsound: u64,
    /// Function payloads.
    pub functions: u64,
    /// Those not fit for it by database.
    pub damaged: Vec<(u32, u64)>,
    /// Those that cannot be looked into.
    #[serde(default)]
    pub undecoded: Undecoded,
}

/// A place to go on from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// Length of the partial file there.
    pub bytes: u64,
    /// Its archive id.
    pub archive_id: u64,
    /// Where the scan was.
    pub checkpoint: Checkpoint,
    /// What was written.
    pub taken: Taken,
    /// Where in the `--errors-to` file the keys are named that had failed, if there was one.
    #[serde(default)]
    pub errors: Option<ErrorsPlace>,
}

impl Noted {
    /// Keys that had failed: not read, not fit for the archive, or not sound.
    pub fn failed(&self) -> u64 {
        let unread = self.checkpoint.counts.iter();
        let unread = unread.map(|(_, [.., failed])| *failed).sum::<u64>();
        unread + self.taken.refused + self.taken.unsound
    }
}
