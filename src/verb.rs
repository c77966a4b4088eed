//! A verb without its arguments: its name, and what others have to know of it. Each says this of itself
//! beside its command, in `commands`, where the registry is too.

/// What is said of a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verb {
    /// Its name on the command line.
    pub name: &'static str,
    /// What flows from a source into a sink; `None` where the verb prints a result of its own.
    pub flow: Option<Flow>,
    /// When standard output carries data: an archive, another file or a value, and no report.
    pub data: Data,
}

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

/// When a verb writes data to standard output. With `--dry-run` none does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// Never.
    Never,
    /// Unless `--output` names a file.
    UnlessOutput,
    /// The same, but neither with `--json` nor with `--quiet`.
    UnlessOutputJsonOrQuiet,
    /// Unless its second argument names a file.
    UnlessSecond,
}
