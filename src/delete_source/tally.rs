//! How many keys were deleted at the source, and how many were not.

use super::kept::Kept;
use crate::ledger::Deletions;
use crate::observer::Observer;
use crate::units::plural;

/// What became of a group of keys; the rest of it was kept.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Settled {
    pub deleted: u64,
    /// See [`Deletions::unknown`].
    pub unknown: u64,
}

/// What became of all keys.
#[derive(Default)]
pub(super) struct Tally {
    deleted: u64,
    /// See [`Deletions::unknown`].
    pub unknown: u64,
    pub kept: u64,
    /// Of those that were kept, the ones that were changed.
    changed: u64,
    /// Of those, the ones that were kept for other reasons.
    pub kept_for: Kept,
    /// What the source answered for the first key that this user may not delete.
    pub forbidden: Option<String>,
}

impl Tally {
    /// Counts what became of so many keys. `before`: what had been kept until then.
    pub fn count(&mut self, keys: usize, settled: Settled, before: Kept) {
        let kept = keys as u64 - settled.deleted - settled.unknown;
        let told = self.kept_for.total() - before.total();
        self.deleted += settled.deleted;
        self.unknown += settled.unknown;
        self.kept += kept;
        self.changed += kept.saturating_sub(told);
    }

    /// Counts keys of which `in_doubt` may have been deleted, when the run ends before that is known.
    pub fn give_up(&mut self, keys: usize, in_doubt: usize) {
        self.unknown += in_doubt as u64;
        self.kept += (keys - in_doubt) as u64;
    }

    pub fn deletions(&self) -> Deletions {
        Deletions {
            deleted: self.deleted,
            unknown: self.unknown,
            kept: self.kept,
            kept_because: self.kept_for.because(self.changed),
            ..Deletions::default()
        }
    }

    pub fn may_have_deleted(&self) -> u64 {
        self.deleted + self.unknown
    }

    /// What is gone at the source, where it may be gone at the destination, too. `in_doubt`: keys that
    /// are not counted yet, of which an EXEC may have been carried out.
    pub fn already(&self, in_doubt: u64) -> String {
        let unknown = self.unknown + in_doubt;
        let deleted = match (self.deleted, unknown) {
            (0, 0) => return "no key was deleted at the source".to_owned(),
            (1, 0) => "1 key was deleted at the source already, and".to_owned(),
            (more, 0) => format!(
                "{} were deleted at the source already, and",
                plural(more, "key")
            ),
            (deleted, unknown) => format!(
                "{} were deleted at the source already, and perhaps {unknown} more, of which the \
                 answer was lost; they",
                plural(deleted, "key")
            ),
        };
        format!(
            "{deleted} may be gone from both ends: before anything else, look for them in the \
             destination's own files and backups"
        )
    }

    /// Says why keys were kept, and of which nobody knows.
    pub fn tell(&self, observer: &Observer) {
        if self.unknown > 0 {
            observer.warn(&format!(
                "of {} it is not known whether this run deleted them at the source: the answer to the \
                 deletion was lost, and they no longer stand there as they were read",
                plural(self.unknown, "key")
            ));
        }
        self.kept_for
            .tell(self.changed, self.forbidden.as_deref(), observer);
    }
}
