//! The DATA body that a writer is filling: entries grouped by type, since bytes of one type next to
//! each other compress a tenth smaller (measured, 52.3 to 47.5 bytes a key).

use crate::entry;
use crate::record::{Context, Record, Value};

/// One group for each type byte of compact values, one for each of verbatim ones, then tombstones
/// and functions.
const GROUPS: usize = 2 * 256 + 2;
const TOMBSTONES: usize = 512;
const FUNCTIONS: usize = 513;

/// Entries so far.
#[derive(Debug)]
pub(crate) struct Pending {
    context_entry: Vec<u8>,
    groups: Vec<Vec<u8>>,
    records: usize,
    len: usize,
}

impl Default for Pending {
    fn default() -> Self {
        Pending {
            context_entry: Vec::new(),
            groups: vec![Vec::new(); GROUPS],
            records: 0,
            len: 0,
        }
    }
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Entries, CONTEXT included.
    pub(crate) fn entries(&self) -> usize {
        self.records + 1
    }

    /// Length of the body.
    pub(crate) fn len(&self) -> usize {
        self.context_entry.len() + self.len
    }

    pub(crate) fn context_entry(&self) -> &[u8] {
        &self.context_entry
    }

    pub(crate) fn set_context(&mut self, context: &Context) {
        self.context_entry.clear();
        entry::put_context(&mut self.context_entry, context);
    }

    pub(crate) fn push(&mut self, record: &Record) {
        let group = &mut self.groups[group_of(record)];
        let before = group.len();
        let tail = entry::put_head(group, record);
        group.extend_from_slice(tail);
        self.len += group.len() - before;
        self.records += 1;
    }

    /// Replaces `body` by the whole body and starts anew; returns the number of records.
    pub(crate) fn take(&mut self, body: &mut Vec<u8>) -> usize {
        body.clear();
        body.reserve(self.len());
        body.extend_from_slice(&self.context_entry);
        for group in &mut self.groups {
            body.extend_from_slice(group);
            group.clear();
        }
        self.len = 0;
        std::mem::take(&mut self.records)
    }
}

fn group_of(record: &Record) -> usize {
    match record {
        Record::Key(key) => {
            let type_byte = usize::from(key.value.type_byte().unwrap_or_default());
            match key.value {
                Value::Compact(_) | Value::Withheld(_) => type_byte,
                Value::Verbatim(_) => 256 + type_byte,
            }
        }
        Record::Deleted { .. } => TOMBSTONES,
        Record::Functions(_) | Record::WithheldFunctions(_) => FUNCTIONS,
    }
}
