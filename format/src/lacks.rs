//! What an archive says that it may not have of its source, beyond single keys: NOTE frames of one
//! form (SPEC.md, §7.4), behind the last record.

use crate::limits::MAX_NOTES_KEPT;

/// How such a NOTE begins.
pub const LACKS: &str = "lacks: ";

/// Keeps what a NOTE says of this, up to the limit of notes that are kept.
pub(crate) fn learn(lacks: &mut Vec<String>, note: &str) {
    if let Some(text) = note.strip_prefix(LACKS)
        && lacks.len() < MAX_NOTES_KEPT
    {
        lacks.push(text.to_owned());
    }
}
