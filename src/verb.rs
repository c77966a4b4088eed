//! What a verb moves, for what is said of it. The verbs themselves are in `cli`.

/// Records that flow from a source into a sink, which end in a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// From a server, or an RDB file, into an archive.
    Export,
    /// From archives into a server.
    Import,
    /// From a server, or an RDB file, into a server.
    Copy,
    /// From an archive, or an RDB file, into another file.
    Convert,
}
