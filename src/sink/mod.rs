//! Where records go.

pub mod archive;
pub mod journal;
pub mod jsonl;
mod lacks;
pub mod metadata;
mod miscounted;
pub mod rdb;
pub mod server;

use anyhow::Result;

pub use self::miscounted::Miscounted;
use crate::ledger::{Deletions, SinkReport, SourceReport};
use crate::record::{Batch, Family, KeyRecord, Origin, Value};

/// Takes records, a batch at a time.
pub trait Sink: Send {
    /// Takes a batch, in order. It owns the batch, so that a large value moves through the pipe
    /// without a copy.
    ///
    /// # Errors
    /// Anything after which no further record can be taken. A refused key is journalled instead.
    fn write(&mut self, batch: Batch) -> Result<()>;

    /// Nothing came for a while: whoever follows a source should not have to wait for more before
    /// what came takes effect.
    ///
    /// # Errors
    /// As for [`Self::write`].
    fn idle(&mut self) -> Result<()> {
        Ok(())
    }

    /// The source ended well: completes the work and says what became of every record; beside the
    /// report, why the work could not be completed, if so.
    fn finish(self: Box<Self>, source: &SourceReport) -> (SinkReport, Result<()>);

    /// The run failed for `reason`: leaves things visibly incomplete, says what was done so far.
    fn abort(self: Box<Self>, reason: &str) -> SinkReport;
}

/// In what an accepted key stands at the destination otherwise than its record says.
#[derive(Debug, Clone, Default)]
pub struct Landed {
    /// What became of the expiry of its fields.
    pub field_ttls: FieldTtls,
    /// What was seen there, where that need not be the record: an earlier run of the same import
    /// counted expiries from an earlier moment (`--ttl rebase`).
    pub seen: Option<Seen>,
    /// Whether the server that wrote the record keeps key metadata of modules.
    pub keeps_metadata: bool,
    /// Classes of key metadata ([`Class::id`](crate::payload::metadata::Class::id)) that were left
    /// out, because they cannot stand there.
    pub classes_left_out: Vec<u32>,
    /// The source may have the only copy of some of its key metadata: they were left out though
    /// nobody allowed that loss by name, or nobody knows whether the destination keeps them.
    pub is_poorer: bool,
}

/// What becomes of the expiry of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldTtls {
    /// They are as they were.
    #[default]
    Kept,
    /// Those that are later (Unix ms) were moved there: the destination takes none.
    AtMost(u64),
    /// The destination has no expiry of fields.
    Lost,
}

/// A key as the destination gave it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The destination.
    pub family: Family,
    /// The value.
    pub value: Value,
    /// Absolute expiry, Unix ms.
    pub expire_at_ms: Option<u64>,
}

/// Told of every key that the destination accepted: goes back to the source (`--delete-source`), or
/// remembers it (`--verify`).
pub trait Accepted: Send {
    /// `record` was accepted; at the source it stood as `origin`, and at the destination it stands
    /// as `landed` says.
    ///
    /// # Errors
    /// The connection to the source.
    fn accepted(&mut self, origin: Origin, record: KeyRecord, landed: Landed) -> Result<()>;

    /// A key stood there already as `record` says, apart from what `landed` says, and was left as it
    /// is; at the source it stood as `origin`.
    ///
    /// # Errors
    /// As for [`Self::accepted`].
    fn stands(&mut self, origin: Origin, record: KeyRecord, landed: Landed) -> Result<()> {
        let _ = (origin, record, landed);
        Ok(())
    }

    /// Whether it has to be told of every key that stands already, so that each of them is compared.
    fn compares(&self) -> bool {
        false
    }

    /// So many keys were neither accepted nor seen to stand: skipped, conflicts, refused. Comes once,
    /// before the end.
    fn left(&mut self, keys: u64) {
        let _ = keys;
    }

    /// A key was deleted there, for a tombstone or because its record is past its time.
    ///
    /// # Errors
    /// As for [`Self::accepted`].
    fn deleted(&mut self, db: u32, key: &[u8]) -> Result<()> {
        let _ = (db, key);
        Ok(())
    }

    /// A function library was accepted.
    ///
    /// # Errors
    /// As for [`Self::accepted`].
    fn library(&mut self, name: &str, code: &[u8]) -> Result<()> {
        let _ = (name, code);
        Ok(())
    }

    /// The destination lost what it had acknowledged, in words that follow its address: nothing of
    /// that may count as being there.
    ///
    /// # Errors
    /// Why the run cannot go on.
    fn halt(&mut self, why: &str) -> Result<()> {
        let _ = why;
        Ok(())
    }

    /// The end: does what is left to do.
    ///
    /// # Errors
    /// The connection to the source.
    fn finish(&mut self) -> Result<()>;

    /// How many keys of the source were deleted, and how many kept and why, also where something
    /// failed.
    fn counts(&self) -> Deletions {
        Deletions::default()
    }
}
