//! What can be wrong with an archive, in plain words, with the place where it was found.

use std::fmt;
use std::io;

use crate::lookalike::LookAlike;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Where in an archive something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The archive's id, once HEADER's frame header was checked.
    pub archive_id: Option<u64>,
    /// Byte offset: the start of the frame (or preamble, or trailer) in question; for a truncated
    /// archive the number of bytes there are.
    pub offset: u64,
    /// Number of the frame, from 0 for HEADER; `None` in preamble and trailer.
    pub frame: Option<u64>,
    /// Name of the field or part, as SPEC.md names it.
    pub field: &'static str,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.frame {
            Some(frame) => write!(f, "frame {frame} at byte {}, {}", self.offset, self.field),
            None => write!(f, "byte {}, {}", self.offset, self.field),
        }
    }
}

/// Why an archive is incomplete.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Incompleteness {
    /// The bytes end too early.
    Truncated,
    /// Everything up to and with END is there; the trailer is cut or missing.
    NoTrailer,
    /// The exporter gave up and said so.
    Aborted {
        /// The exporter's words.
        reason: String,
        /// Records it had written.
        records: u64,
    },
}

impl fmt::Display for Incompleteness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Incompleteness::Truncated => f.write_str("it is cut off"),
            Incompleteness::NoTrailer => f.write_str(
                "all its records are there, but its last bytes, the trailer, are cut off",
            ),
            Incompleteness::Aborted { reason, records } => write!(
                f,
                "the exporter gave up after {records} {}, saying \"{}\"",
                if *records == 1 { "record" } else { "records" },
                reason.escape_debug()
            ),
        }
    }
}

/// What follows the end of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trailing {
    /// A second archive.
    Archive,
    /// Zero bytes, as far as was looked.
    Zeros,
    /// Anything else.
    Bytes,
}

impl fmt::Display for Trailing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Trailing::Archive => "a second archive follows",
            Trailing::Zeros => "zero bytes follow",
            Trailing::Bytes => "other bytes follow",
        })
    }
}

/// The classes of SPEC.md, for exit codes, tables and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Not an archive at all.
    NotAnArchive,
    /// A check failed.
    Damaged,
    /// An intact prefix without its end.
    Incomplete,
    /// Made by a later version, or needing a feature this reader lacks.
    Unsupported,
    /// Larger than the reader was allowed to take.
    LimitExceeded,
    /// Bytes after the end.
    TrailingData,
    /// The reader or writer underneath failed; says nothing about the archive.
    Io,
    /// The caller asked for something that cannot be written.
    Usage,
}

impl Class {
    /// The name SPEC.md and the vectors use.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::NotAnArchive => "not-an-archive",
            Class::Damaged => "damaged",
            Class::Incomplete => "incomplete",
            Class::Unsupported => "unsupported",
            Class::LimitExceeded => "limit-exceeded",
            Class::TrailingData => "trailing-data",
            Class::Io => "io",
            Class::Usage => "usage",
        }
    }
}

/// Everything that can go wrong. The text of each is one sentence; [`Error::advice`] says what to
/// do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The first bytes are not those of an archive.
    #[error("this is not an .rmz archive: {0}")]
    NotAnArchive(LookAlike),
    /// A check failed.
    #[error("the archive is damaged ({at}): {what}")]
    Damaged {
        /// Where.
        at: Position,
        /// What was found, and what was due.
        what: String,
    },
    /// An intact prefix without its end.
    #[error("the archive is incomplete ({at}): {how}")]
    Incomplete {
        /// Where it ends.
        at: Position,
        /// Why.
        how: Incompleteness,
    },
    /// Something a later version may know.
    #[error("the archive needs a newer redis-migrate ({at}): {what}")]
    Unsupported {
        /// Where.
        at: Position,
        /// What is unknown.
        what: String,
    },
    /// More than the caller's [`Limits`](crate::Limits) allow.
    #[error("the archive exceeds a limit ({at}): {what} {found}, the limit is {limit}")]
    LimitExceeded {
        /// Where.
        at: Position,
        /// What is too large, ending so that the number found can follow.
        what: &'static str,
        /// What the archive has or claims.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The archive is complete, and then there is more.
    #[error("the archive is complete, but {what} after its end ({at})")]
    TrailingData {
        /// Where the archive ends.
        at: Position,
        /// What follows.
        what: Trailing,
    },
    /// The reader underneath failed.
    #[error("reading the archive failed at byte {offset}: {source}")]
    Read {
        /// How far reading came.
        offset: u64,
        /// The failure.
        source: io::Error,
    },
    /// The writer underneath failed.
    #[error("writing the archive failed at byte {offset}: {source}")]
    Write {
        /// Bytes that were written before.
        offset: u64,
        /// The failure.
        source: io::Error,
    },
    /// The caller asked for something no archive can hold.
    #[error("this cannot be written to an archive: {0}")]
    Unwritable(String),
    /// An earlier call failed, so that this one cannot be answered.
    #[error("an earlier error ended the work on this archive")]
    Poisoned,
}

const ADVICE_ON_DAMAGE: &str = "compare its SHA-256 with the one the export printed and fetch it \
                                again; records of the frames before this place are intact";

const ADVICE_ON_CHANGES: &str = "it was changed after it was written, or its writer made a \
                                 mistake: none of its records is proved to be right; compare its \
                                 SHA-256 with the one the export printed and fetch it again";

impl Error {
    pub(crate) fn damaged(at: Position, what: impl Into<String>) -> Self {
        Error::Damaged {
            at,
            what: what.into(),
        }
    }

    pub(crate) fn unsupported(at: Position, what: impl Into<String>) -> Self {
        Error::Unsupported {
            at,
            what: what.into(),
        }
    }

    /// The class, as SPEC.md defines it.
    pub fn class(&self) -> Class {
        match self {
            Error::NotAnArchive(_) => Class::NotAnArchive,
            Error::Damaged { .. } => Class::Damaged,
            Error::Incomplete { .. } => Class::Incomplete,
            Error::Unsupported { .. } => Class::Unsupported,
            Error::LimitExceeded { .. } => Class::LimitExceeded,
            Error::TrailingData { .. } => Class::TrailingData,
            // Of a reader that checks what it reads, such as one that decrypts.
            Error::Read { source, .. } if source.kind() == io::ErrorKind::InvalidData => {
                Class::Damaged
            }
            Error::Read { .. } | Error::Write { .. } => Class::Io,
            Error::Unwritable(_) | Error::Poisoned => Class::Usage,
        }
    }

    /// Whether it speaks of everything before it: END's digest or its counts are not those of the
    /// records, so that none of them is proved to be as it was written, though each frame looks
    /// intact.
    pub fn is_of_everything(&self) -> bool {
        const FIELDS: [&str; 7] = [
            "sha256",
            "records",
            "functions",
            "rdb_version_min",
            "rdb_version_max",
            "per_db",
            "counts",
        ];
        matches!(self, Error::Damaged { at, .. } if FIELDS.contains(&at.field))
    }

    /// Where it was found, if it is about a place in an archive.
    pub fn position(&self) -> Option<&Position> {
        match self {
            Error::Damaged { at, .. }
            | Error::Incomplete { at, .. }
            | Error::Unsupported { at, .. }
            | Error::LimitExceeded { at, .. }
            | Error::TrailingData { at, .. } => Some(at),
            _ => None,
        }
    }

    /// One line of what to do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Error::NotAnArchive(look) => look.advice(),
            Error::Damaged { .. } if self.is_of_everything() => ADVICE_ON_CHANGES,
            Error::Damaged { .. } => ADVICE_ON_DAMAGE,
            Error::Read { .. } if self.class() == Class::Damaged => ADVICE_ON_DAMAGE,
            Error::Incomplete { how, .. } => match how {
                Incompleteness::Truncated => {
                    "the export or a transfer was interrupted; fetch the file again or export again"
                }
                Incompleteness::NoTrailer => "fetch the file again; its last bytes are missing",
                Incompleteness::Aborted { .. } => {
                    "the archive holds a part of the source; remove the cause and export again"
                }
            },
            Error::Unsupported { .. } => "use a newer redis-migrate; nothing unknown was skipped",
            Error::LimitExceeded { .. } => {
                "raise the limit if you trust where the archive comes from"
            }
            Error::TrailingData { what, .. } => match what {
                Trailing::Archive => {
                    "the files were joined; split them and import them one at a time"
                }
                Trailing::Zeros => {
                    "a device or tool padded the file; cut it at the end of the archive"
                }
                Trailing::Bytes => {
                    "cut the file at the end of the archive, and find out who added to it"
                }
            },
            Error::Read { .. } => {
                "the archive may be fine; repair what it is read from and try again"
            }
            Error::Write { .. } => {
                "what was written is not a complete archive; make room and try again"
            }
            Error::Unwritable(_) | Error::Poisoned => {
                "this is a mistake of the program, please report it"
            }
        }
    }
}
