//! What is to be said of a reading beside the counts of its keys.

use std::time::Duration;

use crate::host::unix_ms;
use crate::ledger::{ConsistencyReached, Exactness, Lacks, LibrariesRead, SourceReport};

/// What can be done about it that function libraries were not read.
const WITHOUT_LIBRARIES: &str = "; --no-functions leaves them out";

/// That function libraries were not read, and why.
pub(in crate::source) fn libraries_unread(reason: &str) -> String {
    format!("function libraries were not read ({reason}){WITHOUT_LIBRARIES}")
}

/// The same for a verb that has no such option.
pub fn without_hint(line: &str) -> &str {
    line.strip_suffix(WITHOUT_LIBRARIES).unwrap_or(line)
}

/// What was found out on the way.
#[derive(Debug)]
pub(super) struct Findings {
    /// What was not read beyond single keys, a line each.
    unread: Vec<String>,
    /// Something was lost on the way: what was read is not all there was at any one instant.
    incomplete: Option<String>,
    /// Why function libraries that there are, or may be, were not read.
    libraries_unread: Option<String>,
    /// Why no function library is read where there may be some.
    no_libraries: Option<String>,
    /// What the URL's database leaves out, in a line.
    left_out: Option<String>,
    /// More than a scan was asked for, and is not to be had.
    consistency_missed: bool,
    /// This machine's clock, Unix ms.
    started_ms: u64,
    /// The server's clock, Unix ms.
    from_ms: u64,
    /// The longest that writes were paused.
    paused: Duration,
}

impl Findings {
    pub fn new(from_ms: u64, left_out: Option<String>, no_libraries: Option<String>) -> Self {
        Self {
            unread: Vec::new(),
            incomplete: None,
            libraries_unread: None,
            no_libraries,
            left_out,
            consistency_missed: false,
            started_ms: unix_ms(),
            from_ms,
            paused: Duration::ZERO,
        }
    }

    /// The run is a later part of one that began then: (this machine's clock, the server's).
    pub fn began(&mut self, started_ms: u64, from_ms: u64) {
        self.started_ms = started_ms;
        self.from_ms = from_ms;
    }

    pub fn started_ms(&self) -> u64 {
        self.started_ms
    }

    /// When the scan began, the server's clock, Unix ms.
    pub fn scan_from_ms(&self) -> u64 {
        self.from_ms
    }

    /// This was not read.
    pub fn unread(&mut self, line: String) {
        self.unread.push(line);
    }

    /// The same; whether that is news.
    pub fn unread_once(&mut self, line: &str) -> bool {
        let is_news = !self.unread.iter().any(|known| known == line);
        if is_news {
            self.unread.push(line.to_owned());
        }
        is_news
    }

    /// This was lost, and what was read is no longer all there was at any one instant.
    pub fn lost(&mut self, line: String) {
        self.unread.push(line.clone());
        self.incomplete.get_or_insert(line);
    }

    /// Why what was read is not all there was at any one instant; told once.
    pub fn take_incomplete(&mut self) -> Option<String> {
        self.incomplete.take()
    }

    pub fn libraries_unread(&mut self, reason: &str) {
        self.libraries_unread
            .get_or_insert_with(|| libraries_unread(reason));
    }

    pub fn miss_consistency(&mut self) {
        self.consistency_missed = true;
    }

    /// Writes were paused for this long.
    pub fn paused(&mut self, lasted: Duration) {
        self.paused = self.paused.max(lasted);
    }

    /// The report of a scan that came to this moment of the server's clock (Unix ms), without what
    /// others know.
    pub fn report(&self, to_ms: u64) -> SourceReport {
        let unread = self.unread.iter().chain(&self.libraries_unread);
        SourceReport {
            // SCAN may return a key twice when the table is resized under it.
            duplicates_possible: true,
            started_ms: self.started_ms,
            exactness: Exactness {
                reached: Some(ConsistencyReached::Scan {
                    from_ms: self.from_ms,
                    to_ms,
                }),
                missed: self.consistency_missed,
                paused: Some(self.paused).filter(|paused| !paused.is_zero()),
                ..Exactness::default()
            },
            libraries: LibrariesRead {
                unread: self.libraries_unread.clone(),
                none: self.no_libraries.clone(),
                ..LibrariesRead::default()
            },
            lacks: Lacks {
                not_had: unread.cloned().collect(),
                by_choice: self.left_out.clone(),
                ..Lacks::default()
            },
            ..SourceReport::default()
        }
    }
}
