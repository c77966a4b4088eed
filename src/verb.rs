//! The verbs that show progress.

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Server to archive.
    Export,
    /// Archive to server.
    Import,
    /// Server to server.
    Copy,
    /// Archive or RDB file to another file.
    Convert,
    /// Archive to nothing.
    Verify,
    /// Two sides, compared.
    Diff,
    /// Archive to a page.
    Report,
    /// Damaged archive to archive.
    Salvage,
}

impl Verb {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Export => "export",
            Verb::Import => "import",
            Verb::Copy => "copy",
            Verb::Convert => "convert",
            Verb::Verify => "verify",
            Verb::Diff => "diff",
            Verb::Report => "report",
            Verb::Salvage => "salvage",
        }
    }
}
