//! Why keys were kept at the source.

use crate::observer::Observer;
use crate::units::plural;

/// Why a key that had been accepted is kept, other than that it was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// A stream with consumer groups.
    Grouped,
    /// A module value, where scripts are refused.
    Module,
    /// A stream that may remember ids, where scripts are refused.
    Stream,
    /// WATCH does not guard it against SWAPDB, and scripts are refused.
    Swappable,
    /// This user may not watch or delete it.
    Forbidden,
    /// The source may have the only copy of its key metadata.
    Poorer,
}

/// How many keys of those that had been accepted were kept for a reason other than a change.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kept {
    grouped: u64,
    modules: u64,
    streams: u64,
    swappable: u64,
    forbidden: u64,
    poorer: u64,
}

impl Kept {
    /// So many keys are kept for this reason.
    pub(super) fn count(&mut self, why: Why, keys: u64) {
        *match why {
            Why::Grouped => &mut self.grouped,
            Why::Module => &mut self.modules,
            Why::Stream => &mut self.streams,
            Why::Swappable => &mut self.swappable,
            Why::Forbidden => &mut self.forbidden,
            Why::Poorer => &mut self.poorer,
        } += keys;
    }

    /// All of them.
    pub(super) fn total(self) -> u64 {
        self.grouped + self.modules + self.streams + self.swappable + self.forbidden + self.poorer
    }

    /// The reasons, each with its name for machines. `changed`: how many were changed.
    pub(super) fn because(self, changed: u64) -> Vec<(&'static str, u64)> {
        vec![
            ("changed", changed),
            ("consumer_groups", self.grouped),
            (
                "scripts_refused",
                self.modules + self.streams + self.swappable,
            ),
            ("not_permitted", self.forbidden),
            ("key_metadata", self.poorer),
        ]
    }

    /// Says why keys were kept.
    /// `changed`: how many were changed; `forbidden`: what the source answered for the first key that
    /// this user may not delete.
    pub(super) fn tell(self, changed: u64, forbidden: Option<&str>, observer: &Observer) {
        let kept = self;
        if kept.grouped > 0 {
            observer.notice(&format!(
                "kept at the source: {} with consumer groups, because what consumers do cannot be \
                 watched",
                plural(kept.grouped, "stream")
            ));
        }
        if kept.forbidden > 0 {
            observer.warn(&format!(
                "kept at the source: {}, which this user may not delete there ({})",
                plural(kept.forbidden, "key"),
                forbidden.unwrap_or_default()
            ));
        }
        if kept.poorer > 0 {
            observer.warn(&format!(
                "kept at the source: {}, because the destination is not known to keep all that \
                 modules keep beside them (key metadata); --allow-loss key-meta deletes them all the \
                 same",
                plural(kept.poorer, "key")
            ));
        }
        if kept.modules > 0 {
            observer.notice(&format!(
                "kept at the source: {}, because not every change of them can be watched, and the \
                 source refuses EVAL, which would compare them at the moment of the deletion",
                plural(kept.modules, "module value")
            ));
        }
        if kept.streams > 0 {
            observer.notice(&format!(
                "kept at the source: {}, because changes of their settings (XCFGSET) cannot be \
                 watched, and the source refuses EVAL or XINFO STREAM, which would compare them at \
                 the moment of the deletion",
                plural(kept.streams, "stream")
            ));
        }
        if kept.swappable > 0 {
            observer.notice(&format!(
                "kept at the source: {}, because this version does not see that a watched key went to \
                 another database (SWAPDB), and the source refuses EVAL, which would compare it at the \
                 moment of the deletion, or the value is too large for that",
                plural(kept.swappable, "key")
            ));
        }
        if changed > 0 {
            observer.notice(&format!(
                "kept at the source: {}, because the value or expiry there is no longer what was \
                 read; run again to move what is there now",
                plural(changed, "key")
            ));
        }
    }
}
