//! What can be wrong with an RDB file or stream, where, and how far it was good.

use std::io;

use super::envelope::EnvelopeError;
use super::magic::{Magic, readable_versions};
use crate::dialect::{Release, oldest_with_rdb_version, opcode};
use crate::payload::{self, PayloadError};
use crate::show_key;

/// Why an RDB file or stream cannot be read on.
#[derive(Debug)]
pub struct RdbError {
    /// Offset from its first byte.
    pub offset: u64,
    /// Database and name of the last key that was read completely.
    pub last_key: Option<(u32, Vec<u8>)>,
    /// What was found there.
    pub kind: RdbErrorKind,
}

impl RdbError {
    /// Whether the bytes themselves are at fault; otherwise they could not be had.
    pub fn is_damage(&self) -> bool {
        !matches!(
            self.kind,
            RdbErrorKind::Io(_)
                | RdbErrorKind::Value(payload::ErrorKind::Lzf(
                    payload::lzf::LzfError::Memory { .. }
                ))
        )
    }
}

impl std::fmt::Display for RdbError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at byte {} of the RDB data", self.kind, self.offset)?;
        match &self.last_key {
            Some((db, key)) => write!(f, "; the last good key is {} (db {db})", show_key(key)),
            None => f.write_str("; no key was read"),
        }
    }
}

impl std::error::Error for RdbError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            RdbErrorKind::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// What is wrong with an RDB file or stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RdbErrorKind {
    /// It cannot be read, for reasons of its own.
    #[error("reading failed: {0}")]
    Io(io::Error),
    /// It is compressed, and cannot be decompressed.
    #[error(transparent)]
    Envelope(EnvelopeError),
    /// It does not begin as an RDB file does.
    #[error("this is not an RDB file: it begins with none of REDIS, VALKEY and VCS")]
    NotRdb,
    /// Of a version that may hold what this tool would misread.
    #[error(
        "{0} is not supported (known are {known}); a newer redis-migrate may read it,",
        known = readable_versions()
    )]
    Version(Magic),
    /// It ends before its end mark.
    #[error("it is cut short")]
    Truncated,
    /// It goes on after its end mark, as an append-only file with an RDB preamble does.
    #[error("it goes on after its end mark; an append-only file is not an RDB file,")]
    Trailing,
    /// Another file stands behind the one that was read, which is compressed as a whole.
    #[error("another RDB file follows the compressed one; every server would lose it,")]
    Glued,
    /// The checksum is of other bytes.
    #[error("its checksum is {stored:016x} and should be {computed:016x},")]
    Checksum {
        /// As it stands at the end.
        stored: u64,
        /// As the bytes have it.
        computed: u64,
    },
    /// Neither a type nor an opcode that this version has.
    #[error("byte {0} is neither a value's type nor a mark that this tool knows,")]
    Unknown(u8),
    /// What only release candidates wrote, and no server reads.
    #[error("{0} as only a release candidate wrote it")]
    ReleaseCandidate(&'static str),
    /// A database number that no server has.
    #[error("database {0}")]
    Database(u64),
    /// Data of a module that is not laid out as rdb.c does.
    #[error("module data that begins with {0}")]
    ModuleAux(u64),
    /// The name of a slot import does not have the one length that servers give it.
    #[error("the name of a slot import (opcode F3) is not 40 bytes long,")]
    SlotImport,
    /// Names of fields that hashes refer to, or such a hash, are not as they should be.
    #[error("hash template: {0}")]
    Template(String),
    /// A command that was carried out while the snapshot was sent. Whoever passes over it has wrong
    /// data.
    #[error(
        "there is a command that ran while the snapshot was taken (opcode F2, which {} and later \
         write without a fork), and this tool runs none; take the snapshot with \
         `forkless-infrastructure-enabled no`, or read the server without --via replica; it is",
        version_with_updates()
    )]
    Update,
    /// A value is not laid out as its type says.
    #[error("{0}")]
    Value(payload::ErrorKind),
}

fn version_with_updates() -> String {
    let release = oldest_with_rdb_version(opcode::UPDATE_SINCE);
    release.map_or_else(String::new, Release::title)
}

/// An error before it is known which key came last.
#[derive(Debug)]
pub(super) struct Fault {
    pub offset: u64,
    pub kind: RdbErrorKind,
}

impl From<io::Error> for RdbErrorKind {
    fn from(error: io::Error) -> Self {
        match EnvelopeError::of(&error) {
            Some(of_envelope) => Self::Envelope(of_envelope.clone()),
            None => Self::Io(error),
        }
    }
}

impl From<PayloadError> for Fault {
    fn from(PayloadError { offset, kind }: PayloadError) -> Self {
        let kind = match kind {
            payload::ErrorKind::Truncated => RdbErrorKind::Truncated,
            payload::ErrorKind::Opaque(type_byte) => RdbErrorKind::Unknown(type_byte),
            other => RdbErrorKind::Value(other),
        };
        Self { offset, kind }
    }
}
