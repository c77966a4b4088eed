//! Kinds of values that cannot be read here, of which the destination took one.

use std::collections::BTreeSet;

use super::OpaqueKind;

/// Names of modules' types are anything an archive says.
const MAX_KINDS: usize = 1024;

/// Kinds of which the destination took one; a bounded number.
#[derive(Debug, Default)]
pub(super) struct Taken(BTreeSet<OpaqueKind>);

impl Taken {
    pub(super) fn has(&self, kind: &OpaqueKind) -> bool {
        self.0.contains(kind)
    }

    pub(super) fn note(&mut self, kind: OpaqueKind) {
        if self.0.len() < MAX_KINDS {
            self.0.insert(kind);
        }
    }
}
