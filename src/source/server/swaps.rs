//! Databases that are swapped under a scan: each half of a database is then read under another
//! number, and keys that stood all the time may be in neither half.

use anyhow::Result;

use super::ServerSource;
use crate::record::Checkpoint;
use crate::server::counts::{CommandCounts, Since};

impl ServerSource {
    /// Looks, once at the end of a scan, whether databases were swapped meanwhile.
    ///
    /// # Errors
    /// The connection's.
    pub(super) fn look_for_swaps(&mut self) -> Result<()> {
        let Some(before) = self.counts_before.take() else {
            return Ok(());
        };
        let now = self.ask(|conn| Ok(CommandCounts::ask(conn)?))?;
        if self.process_changed {
            // What another process has counted tells nothing. What it has lost was said.
            return Ok(());
        }
        match now.map(|now| now.since(&before)) {
            Some(Since::Quiet) => {}
            Some(Since::Swapped) => self.swapped_meanwhile(),
            Some(Since::Reset) | None => self.observer.warn(
                "the source no longer tells how often databases were swapped (CONFIG RESETSTAT, or \
                 INFO is refused): had they been, keys would be missing",
            ),
        }
        Ok(())
    }

    /// Databases were swapped, and are not read again for it: in the ledger, and exit code 3.
    pub(super) fn swapped_meanwhile(&mut self) {
        let text = "databases were swapped during this run (SWAPDB; which ones is not told): keys may \
                    be missing, or stand under the number of another database; run again";
        if !self.unread.iter().any(|known| known == text) {
            self.observer.warn(text);
            self.unread.push(text.to_owned());
        }
    }

    /// Why a cursor of `at` says nothing any more, where databases were swapped since.
    pub(super) fn swapped_since(&self, at: &Checkpoint) -> Option<&'static str> {
        let before = at.swaps?;
        match &self.counts_before {
            Some(now) if now.swaps() == before => None,
            Some(_) => {
                Some("databases were swapped since (SWAPDB), or the count of that was reset")
            }
            None => Some("the source no longer tells whether databases were swapped (INFO)"),
        }
    }
}
