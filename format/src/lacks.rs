//! What an archive says of its source beyond single keys: NOTE frames of fixed forms (SPEC.md, §7.4),
//! behind the last record.

use crate::limits::MAX_NOTES_KEPT;

/// How a NOTE begins that says what the source may hold and the archive has not.
pub const LACKS: &str = "lacks: ";

/// How a NOTE begins that says what the source holds outside keys. The rest is an object of JSON.
pub const OUTSIDE: &str = "outside: ";

/// What the NOTEs of these forms said so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub(crate) lacks: Vec<String>,
    pub(crate) outside: Vec<String>,
}

impl Told {
    /// Keeps what a NOTE says of this, up to the limit of notes that are kept.
    pub(crate) fn learn(&mut self, note: &str) {
        for (form, told) in [(LACKS, &mut self.lacks), (OUTSIDE, &mut self.outside)] {
            if let Some(text) = note.strip_prefix(form)
                && told.len() < MAX_NOTES_KEPT
            {
                told.push(text.to_owned());
            }
        }
    }
}
