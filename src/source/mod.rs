//! Where records come from. A source is read by whoever calls it: the pipe, or a test. Only
//! [`prefetch`] and the listener to a server's changes have threads of their own. A source that
//! consists of several ([`Source::parts`]) is read by as many threads of the pipe, in stages: between
//! two of them nothing is under way, and it may look at all of its parts.

pub mod archive;
pub mod cluster;
pub(crate) mod open;
mod prefetch;
pub mod rdb;
pub mod reading;
pub mod replica;
pub mod server;
pub(crate) mod standing;

use std::sync::Arc;

use anyhow::Result;

use crate::ledger::SourceReport;
pub use crate::observer::Estimate;
use crate::pace::Pace;
use crate::record::Batch;

/// Gives records, a batch at a time.
pub trait Source: Send {
    /// Fills `batch`, which is empty, and returns `true`; or returns `false` when the end was
    /// reached *and proved* (trailer seen, every cursor back at 0), leaving `batch` empty.
    ///
    /// # Errors
    /// Anything that makes the rest unreadable. What was given before stays given.
    fn read(&mut self, batch: &mut Batch) -> Result<bool>;

    /// Asks for no more at once than `pace` says. For those who read what is already there, the
    /// pipe's own waiting is enough.
    fn keep_pace(&mut self, _pace: &Arc<Pace>) {}

    /// What was given so far, by database.
    fn report(&self) -> SourceReport;

    /// What to expect.
    fn estimate(&self) -> Estimate;

    /// The sources that this one consists of at present (the shards of a cluster): they are read
    /// instead of it, at the same time, each until its end, and then [`Self::next_stage`] is asked.
    /// None, if it is read by itself.
    fn parts(&mut self) -> Vec<&mut dyn Source> {
        Vec::new()
    }

    /// Everything that this source, or each of its parts, had to give was given: `true` if there is
    /// more after all. Whatever comes then is newer than all that came before.
    ///
    /// # Errors
    /// Anything that makes the rest unreadable.
    fn next_stage(&mut self) -> Result<bool> {
        Ok(false)
    }
}
