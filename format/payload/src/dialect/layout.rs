//! What bodies of values are made of, and what they take in a server.

use super::Encoding;

/// What the body of a value is made of. What strings contain is only told where others ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One string, which is or holds all of it.
    Text,
    /// One string, which is a listpack.
    Listpack,
    /// Eight bytes, then a listpack.
    EightListpack,
    /// A count, and so many rows of these parts.
    Rows(&'static [Part]),
    /// Eight bytes, then a count and so many rows of these parts.
    EightRows(&'static [Part]),
    /// A count, and so many nodes: what it contains as a number, and a string.
    Nodes,
    /// Listpacks of entries, and groups.
    Stream(StreamForm),
    /// Indexes with values, each behind a tag.
    Array,
    /// Paths, each with fields and values.
    Paths,
    /// Names of fields and values: where it ends only its decoder finds.
    Template,
    /// Values for the fields of a template of the same file: it stands in files only.
    TemplateRef,
    /// A module's id and items.
    Module,
}

/// What the rows of a layout are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// A string.
    Text,
    /// A length that is a number.
    Length,
    /// Eight bytes: a score, an expiry.
    Eight,
    /// A score as text, one byte of length before it; 253 to 255 stand for themselves.
    ShortText,
}

/// How much a stream's form holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamForm {
    /// Type 15 (5.0).
    V1,
    /// Type 19 (7.0): first id, highest deleted id, entries added, entries read.
    V2,
    /// Type 21 (7.2): active times of consumers.
    V3,
    /// Type 26 of Redis (8.6): idempotency.
    V4,
    /// Type 27 of Redis (8.8): entries that were given back (XNACK).
    V5,
}

impl StreamForm {
    /// How a stream of this form is laid out.
    pub fn encoding(self) -> Encoding {
        match self {
            Self::V1 => Encoding::Stream1,
            Self::V2 => Encoding::Stream2,
            Self::V3 => Encoding::Stream3,
            Self::V4 => Encoding::Stream4,
            Self::V5 => Encoding::Stream5,
        }
    }

    /// All of them, lowest first.
    pub const ALL: [Self; 5] = [Self::V1, Self::V2, Self::V3, Self::V4, Self::V5];

    /// The form that is laid out so; `None` for what is no stream.
    pub fn of(encoding: Encoding) -> Option<Self> {
        match encoding.layout() {
            Layout::Stream(form) => Some(form),
            _ => None,
        }
    }
}

/// What a value is made of in a server's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// A string by itself.
    String,
    /// An allocation of each of so many elements; their number stands behind so many bytes.
    Table(Each, usize),
    /// One node with all elements, whose number stands first.
    List,
    /// Nodes, whose number stands first.
    Quicklist,
    /// One allocation.
    Packed(Counted),
    /// Nodes of entries.
    Stream,
    /// Nothing is known beside its bytes.
    AsStored,
}

/// What a table has of each element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Each {
    /// A field and its value.
    Field,
    /// A member.
    Member,
    /// A member with a score.
    Scored,
    /// An index of an array.
    Index,
}

/// Where a packed value says how many entries it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// As an intset does.
    Intset,
    /// As a ziplist does, so many entries for each element.
    Ziplist(u64),
    /// As a listpack does, so many entries for each element.
    Listpack(u64),
    /// Nowhere near its beginning.
    Unknown,
}
