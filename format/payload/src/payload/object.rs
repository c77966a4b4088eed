//! A value as its user sees it, whatever it was stored as.

use std::borrow::Cow;
use std::fmt;

use super::array::Array;
use crate::dialect::Kind;
pub use crate::dialect::StreamForm;

/// A string, a member, an element: any bytes. Borrowed from the payload where they stand in it
/// plainly.
pub type Bytes<'a> = Cow<'a, [u8]>;

/// A decoded value.
#[derive(Debug, Clone, PartialEq)]
pub enum Object<'a> {
    /// A string.
    String(Bytes<'a>),
    /// The elements of a list, first to last.
    List(Vec<Bytes<'a>>),
    /// The members of a set, each once, in no order.
    Set(Vec<Bytes<'a>>),
    /// The members of a sorted set, each once, in no order.
    ZSet(Vec<Member<'a>>),
    /// The fields of a hash, each once, in no order.
    Hash(Vec<Field<'a>>),
    /// A stream.
    Stream(Stream<'a>),
    /// A sparse array.
    Array(Array<'a>),
    /// Paths, each once and each with fields, in no order.
    PathHash(Vec<Path<'a>>),
}

impl Object<'_> {
    /// What it is to a user.
    pub fn kind(&self) -> Kind {
        match self {
            Self::String(_) => Kind::String,
            Self::List(_) => Kind::List,
            Self::Set(_) => Kind::Set,
            Self::ZSet(_) => Kind::ZSet,
            Self::Hash(_) => Kind::Hash,
            Self::Stream(_) => Kind::Stream,
            Self::Array(_) => Kind::Array,
            Self::PathHash(_) => Kind::PathHash,
        }
    }
}

/// A member of a sorted set.
#[derive(Debug, Clone, PartialEq)]
pub struct Member<'a> {
    /// The member.
    pub member: Bytes<'a>,
    /// Its score, never NaN.
    pub score: f64,
}

/// A field of a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<'a> {
    /// The field's name.
    pub name: Bytes<'a>,
    /// Its value.
    pub value: Bytes<'a>,
    /// When the field expires, Unix milliseconds; at most `i64::MAX`.
    pub expire_at_ms: Option<u64>,
}

/// A path of a hash that has paths (Valkey 9.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path<'a> {
    /// The path.
    pub path: Bytes<'a>,
    /// Names and values of its fields, each name once; at least one.
    pub fields: Vec<(Bytes<'a>, Bytes<'a>)>,
}

/// Id of a stream entry, `ms-seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StreamId {
    /// Milliseconds.
    pub ms: u64,
    /// Sequence within the millisecond.
    pub seq: u64,
}

impl StreamId {
    /// From the sixteen bytes that rax keys are made of (t_stream.c, streamDecodeID).
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        let both = u128::from_be_bytes(bytes);
        Self {
            ms: (both >> 64) as u64,
            seq: both as u64,
        }
    }

    /// The sixteen bytes.
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.ms) << 64 | u128::from(self.seq)).to_be_bytes()
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// A stream. What its form does not hold is zero, or what a server sets by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream<'a> {
    /// Which of the fields say something.
    pub form: StreamForm,
    /// The entries, as the server packs them: the same in all forms, so they are never rewritten.
    /// [`Stream::entries`] reads them.
    pub nodes: Vec<StreamNode<'a>>,
    /// Number of entries.
    pub length: u64,
    /// Number of entries by the server's own counter, which XLEN tells. In values that some servers
    /// wrote it is not [`Stream::length`].
    pub counter: u64,
    /// Highest id ever given out, or set.
    pub last_id: StreamId,
    /// Id of the first entry. From `V2` on.
    pub first_id: StreamId,
    /// Highest id that was deleted. From `V2` on.
    pub max_deleted_id: StreamId,
    /// Entries ever added. From `V2` on.
    pub entries_added: u64,
    /// The consumer groups.
    pub groups: Vec<Group<'a>>,
    /// What `XADD … IDMP` goes by. From `V4` on.
    pub idempotency: Idempotency<'a>,
}

/// How a stream tells entries that were added before from new ones (`XADD … IDMP`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency<'a> {
    /// How long an id is remembered, seconds; 1 to 86,400.
    pub duration_secs: u64,
    /// How many ids are remembered for each producer; 1 to 10,000. A server takes more than that
    /// when it loads them.
    pub max_ids: u64,
    /// Who added entries, each of a name of its own, and the ids that are remembered.
    pub producers: Vec<Producer<'a>>,
    /// Entries ever added with an id.
    pub ids_added: u64,
    /// Entries not added because their id was known.
    pub duplicates: u64,
}

impl Idempotency<'_> {
    /// Whether a stream that never heard of idempotency has the same: the default settings
    /// (config.c, stream-idmp-duration and stream-idmp-maxsize) and no id remembered.
    pub fn is_default(&self) -> bool {
        let default = Self::default();
        self.producers.is_empty()
            && (self.duration_secs, self.max_ids) == (default.duration_secs, default.max_ids)
    }
}

impl Default for Idempotency<'_> {
    fn default() -> Self {
        Self {
            duration_secs: 100,
            max_ids: 100,
            producers: Vec::new(),
            ids_added: 0,
            duplicates: 0,
        }
    }
}

/// Someone who adds entries to a stream, each with an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer<'a> {
    /// The producer's name.
    pub name: Bytes<'a>,
    /// The ids that are remembered, in the order in which they came.
    pub ids: Vec<IdempotentId<'a>>,
}

/// An id that a producer gave to an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotentId<'a> {
    /// The producer's id; a server takes an empty one too, and the same one twice.
    pub name: Bytes<'a>,
    /// The entry's id. The entry itself may be gone.
    pub entry: StreamId,
}

/// A node of a stream: some entries in a listpack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamNode<'a> {
    /// Id of the first entry the node was made for; the others are relative to it.
    pub id: StreamId,
    /// The listpack.
    pub listpack: Bytes<'a>,
}

/// An entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its id.
    pub id: StreamId,
    /// Fields and values in order; a field may come twice.
    pub fields: Vec<(Bytes<'a>, Bytes<'a>)>,
}

/// [`Group::entries_read`] where the server does not know.
pub const ENTRIES_READ_UNKNOWN: u64 = u64::MAX;

/// A consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group<'a> {
    /// The group's name.
    pub name: Bytes<'a>,
    /// Id of the last entry delivered.
    pub last_id: StreamId,
    /// Entries delivered, or [`ENTRIES_READ_UNKNOWN`]. From [`StreamForm::V2`] on.
    pub entries_read: u64,
    /// Entries delivered and not acknowledged.
    pub pending: Vec<Pending>,
    /// The consumers. Every pending entry belongs to exactly one of them, or was given back.
    pub consumers: Vec<Consumer<'a>>,
    /// Pending entries that belong to nobody because their consumer gave them back (XNACK), in the
    /// order of the server's list. From [`StreamForm::V5`] on.
    pub given_back: Vec<StreamId>,
}

/// An entry delivered and not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// The entry's id; the entry itself may be gone.
    pub id: StreamId,
    /// When it was delivered last, Unix milliseconds.
    pub delivered_ms: i64,
    /// How often it was delivered.
    pub deliveries: u64,
}

/// A consumer of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer<'a> {
    /// The consumer's name.
    pub name: Bytes<'a>,
    /// When it last tried to read, Unix milliseconds.
    pub seen_ms: i64,
    /// When it last got something, Unix milliseconds; −1 for never. From [`StreamForm::V3`] on.
    pub active_ms: i64,
    /// Ids of its pending entries.
    pub pending: Vec<StreamId>,
}
