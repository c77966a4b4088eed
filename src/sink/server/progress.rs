//! How far this sink has come, for whoever wants to go on there later.

use anyhow::{Context as _, Result};

use super::ServerSink;
use super::lane::Lane;
use crate::own_writes::{Fingerprint, OwnWrites};

impl ServerSink {
    /// How many batches, from the first, have every record answered.
    pub fn settled_batches(&self) -> u64 {
        let on_lanes = self.lanes.iter().flat_map(Lane::unanswered);
        let open = on_lanes
            .chain(&self.again)
            .map(|sent| sent.batch)
            .filter(|batch| *batch > 0);
        open.min().map_or(self.batches, |oldest| oldest - 1)
    }

    /// Keys that failed so far.
    pub fn failed(&self) -> u64 {
        self.report.failed()
    }

    /// A record that is carried out already: the key stands, or was deleted.
    pub fn take_as_done(&mut self, db: u32, key: &[u8], stands: bool) {
        self.report.taken += 1;
        match stands {
            true => self.report.restored += 1,
            false => self.report.deleted += 1,
        }
        let print = self.own.fingerprint(db, key);
        self.census.add_print(print, !stands);
    }

    /// Takes over what an earlier run has written.
    pub fn set_own(&mut self, own: OwnWrites) {
        self.own = own;
    }

    /// This key was written by this import.
    ///
    /// # Errors
    /// The temporary file's.
    pub fn remember_own(&mut self, db: u32, key: &[u8]) -> Result<()> {
        let print = self.own.fingerprint(db, key);
        self.own
            .insert(print)
            .context("remember a key in a temporary file")
    }

    /// Fingerprints of keys written since the last time.
    pub fn take_unsaved(&mut self) -> Vec<Fingerprint> {
        self.own.take_unsaved()
    }
}
