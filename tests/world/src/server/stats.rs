//! What INFO counts.

use std::collections::BTreeMap;

use super::table::Row;

/// What INFO counts.
#[derive(Debug, Default)]
pub(super) struct Stats {
    /// Calls by command; with the subcommand from 7.0 on.
    pub calls: BTreeMap<&'static str, u64>,
    /// Error replies by their first word.
    pub errors: BTreeMap<String, u64>,
    pub expired: u64,
    pub evicted: u64,
    /// Changes of keys.
    pub dirty: u64,
}

impl Stats {
    pub fn count(&mut self, row: &Row, with_subcommand: bool) {
        let name = match row.name.split_once('|') {
            Some((command, _)) if !with_subcommand => command,
            _ => row.name,
        };
        *self.calls.entry(name).or_default() += 1;
    }

    pub fn count_error(&mut self, text: &str) {
        let code = text.split(' ').next().unwrap_or_default();
        match self.errors.get_mut(code) {
            Some(count) => *count += 1,
            None => drop(self.errors.insert(code.to_owned(), 1)),
        }
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&mut self) {
        self.calls.clear();
        self.errors.clear();
        self.expired = 0;
        self.evicted = 0;
    }
}
