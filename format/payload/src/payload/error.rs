//! What can be wrong with a payload, and where.

use super::lzf::LzfError;

/// Why a payload cannot be used, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {offset}")]
pub struct PayloadError {
    /// Offset in the value, its type byte being 0. For damage inside a string that is stored
    /// compressed it is where that string starts.
    pub offset: u64,
    /// What was found there.
    pub kind: ErrorKind,
}

impl PayloadError {
    /// An error of `kind` at `offset`.
    pub fn new(offset: u64, kind: ErrorKind) -> Self {
        Self { offset, kind }
    }

    /// Whether nothing is known to be wrong: the type is a module's or unknown, so the payload can
    /// only travel verbatim.
    pub fn is_opaque(&self) -> bool {
        matches!(self.kind, ErrorKind::Opaque(_))
    }
}

/// What is wrong with a payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Not damage: a type byte of a module or of a newer server.
    #[error("type {0} cannot be read, only carried verbatim")]
    Opaque(u8),
    /// The value would grow beyond the caller's limit.
    #[error("the value expands beyond {0} bytes")]
    TooLarge(u64),

    /// The bytes end within a value.
    #[error("the value is cut short")]
    Truncated,
    /// The value ended before its bytes did.
    #[error("{0} bytes follow the value")]
    Trailing(u64),
    /// First byte of a length that rdb.c does not know.
    #[error("length of unknown form {0:#04x}")]
    BadLength(u8),
    /// A specially encoded string where only a length can stand.
    #[error("encoded string where a length is expected")]
    EncodedLength,
    /// An encoded string that rdb.c does not know.
    #[error("string of unknown encoding {0}")]
    BadEncoding(u8),
    /// A compressed string that does not expand.
    #[error("compressed string: {0}")]
    Lzf(#[from] LzfError),
    /// A quicklist node that is neither plain nor packed.
    #[error("list node of unknown container {0}")]
    Container(u64),
    /// A module's value holds an item that is none of the five kinds.
    #[error("module item of unknown kind {0}")]
    ModuleItem(u64),
    /// Key metadata of modules behind key metadata.
    #[error("key metadata appears twice")]
    MetadataTwice,

    /// A listpack that listpack.c would not write.
    #[error("listpack: {0}")]
    Listpack(&'static str),
    /// A ziplist that ziplist.c would not write.
    #[error("ziplist: {0}")]
    Ziplist(&'static str),
    /// A zipmap that zipmap.c would not write.
    #[error("zipmap: {0}")]
    Zipmap(&'static str),
    /// An intset that intset.c would not write.
    #[error("intset: {0}")]
    Intset(&'static str),

    /// No element: only a stream can stand empty.
    #[error("empty {0}")]
    Empty(&'static str),
    /// A member or field twice.
    #[error("{0} stands twice")]
    Duplicate(&'static str),
    /// Elements that do not make whole pairs or triples.
    #[error("odd number of elements in a {0}")]
    Odd(&'static str),
    /// A score that is not a number. It ends servers of the 6.x series.
    #[error("score is not a number")]
    Score,
    /// A hash field's expiry that no server writes.
    #[error("expiry of a hash field out of range")]
    FieldTtl,

    /// A listpack of expiring fields out of order. Redis 8 ends when it counts them.
    #[error("fields of a hash not in the order of their expiry")]
    FieldOrder,

    /// A sparse array that no server writes.
    #[error("array: {0}")]
    Array(&'static str),
    /// A hash with a template that no server writes.
    #[error("hash template: {0}")]
    Template(&'static str),
    /// A stream that t_stream.c would not write.
    #[error("stream: {0}")]
    Stream(&'static str),
}
