//! What a comparison could not read beyond single keys, and what was never there to be read.

use crate::ledger::SourceReport;
use crate::select::TEMP_KEY_PREFIX;
use crate::units::plural;

/// What could not be compared beyond single keys, because it could not be read.
#[derive(Default)]
pub(super) struct Unread {
    /// What is more than single keys, a line each.
    pub lines: Vec<String>,
    /// What the database that a URL names leaves out of each side, and temporary keys of this tool.
    /// That is no failure.
    pub left_out: Vec<String>,
    /// Of archives, on the left and on the right: the keys that their exports could not read, by
    /// database.
    pub by_exports: [Vec<(u32, u64)>; 2],
}

impl Unread {
    pub fn of(name: &str, report: &SourceReport) -> Self {
        // A function library that was not read is no less missing from the comparison than a
        // database that was not.
        let lines = report.lacks.lines();
        // Nor is it there to be compared where an export did not have it.
        let lines = lines.chain(&report.export.lines);
        Self {
            lines: lines.map(|line| format!("{line} ({name})")).collect(),
            left_out: report
                .lacks
                .by_choice
                .iter()
                .map(|line| format!("{line} ({name})"))
                .collect(),
            by_exports: Default::default(),
        }
    }

    pub fn is_any(&self) -> bool {
        !self.lines.is_empty()
    }

    pub fn learn(&mut self, lines: Vec<String>) {
        for line in lines {
            if !self.lines.contains(&line) {
                self.lines.push(line);
            }
        }
    }
}

/// Temporary keys of this tool that a side holds; they are no data.
pub(super) fn temporary_keys(count: u64, name: &str) -> Option<String> {
    let were = if count == 1 { "was" } else { "were" };
    (count > 0).then(|| {
        format!(
            "{} of this tool ({}*) {were} not compared ({name})",
            plural(count, "temporary key"),
            String::from_utf8_lossy(TEMP_KEY_PREFIX)
        )
    })
}

/// What a file holds in other databases than the one that the other side's URL names.
pub(super) fn left_out_of_file(db: u32, report: &SourceReport) -> Option<String> {
    let others = report
        .counts
        .iter()
        .filter(|row| row.db != db && row.filtered > 0);
    let (count, records) = others.fold((0u64, 0u64), |(count, records), row| {
        (count + 1, records.saturating_add(row.filtered))
    });
    // Of a key with several records each was counted.
    let what = match report.duplicates_possible {
        true => "record",
        false => "key",
    };
    let were = if records == 1 { "was" } else { "were" };
    (count > 0).then(|| {
        format!(
            "database {db} only, as the URL says; {} in {} {were} not compared",
            plural(records, what),
            plural(count, "other database")
        )
    })
}
