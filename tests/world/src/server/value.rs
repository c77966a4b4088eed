//! What a key holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// An id of a stream's entry: milliseconds and sequence number.
pub type StreamId = (u64, u64);

/// What a key holds. Two values are equal if a client cannot tell them apart by the commands for
/// their type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A string.
    String(Vec<u8>),
    /// A list.
    List(VecDeque<Vec<u8>>),
    /// A set.
    Set(BTreeSet<Vec<u8>>),
    /// A sorted set.
    ZSet(BTreeMap<Vec<u8>, f64>),
    /// A hash.
    Hash(BTreeMap<Vec<u8>, Field>),
    /// A stream.
    Stream(Box<Stream>),
    /// A value of a module.
    Module(Module),
}

/// A field's value, and when it expires (Unix ms).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Field {
    /// The value.
    pub value: Vec<u8>,
    /// When it expires, in Unix ms.
    pub expire_at: Option<u64>,
}

/// A module's value, which only the module understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// The 64-bit id of type and encoding version.
    pub id: u64,
    /// What the module wrote, with the markers of its parts, without the end mark.
    pub data: Vec<u8>,
}

/// An entry of a stream: fields and values by turns.
pub type StreamEntry = Vec<Vec<u8>>;

/// A stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stream {
    /// Its entries.
    pub entries: BTreeMap<StreamId, StreamEntry>,
    /// The id of the last entry that was ever added.
    pub last: StreamId,
    /// The highest id that was deleted.
    pub max_deleted: StreamId,
    /// How many were ever added.
    pub added: u64,
    /// Its consumer groups.
    pub groups: BTreeMap<Vec<u8>, Group>,
    /// What Redis 8.6 remembers for idempotency.
    pub memory: Idempotency,
}

/// Settings and counts of idempotency; the ids themselves go by the clock and are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// For how many seconds an id is remembered.
    pub duration: u64,
    /// How many ids are remembered.
    pub max_ids: u64,
    /// Producers, each with its ids in order of arrival.
    pub producers: BTreeMap<Vec<u8>, Vec<(Vec<u8>, StreamId)>>,
    /// How many ids were ever added.
    pub added: u64,
    /// How many were found to be duplicates.
    pub duplicates: u64,
}

impl Default for Idempotency {
    fn default() -> Self {
        Self {
            duration: 100,
            max_ids: 100,
            producers: BTreeMap::new(),
            added: 0,
            duplicates: 0,
        }
    }
}

/// A consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// The last id that was delivered.
    pub last: StreamId,
    /// How many entries were read; `None` if that is not known.
    pub read: Option<u64>,
    /// Entries that were delivered and not acknowledged.
    pub pending: BTreeMap<StreamId, Pending>,
    /// Its consumers.
    pub consumers: BTreeMap<Vec<u8>, Consumer>,
}

/// An entry that was delivered and not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// To whom.
    pub consumer: Vec<u8>,
    /// When, in Unix ms.
    pub delivered_at: u64,
    /// How often.
    pub count: u64,
}

/// A consumer of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Consumer {
    /// When it was last seen, in Unix ms.
    pub seen: u64,
    /// When it last got or claimed something; `None` if never, or before 7.2.
    pub active: Option<u64>,
}

impl Stream {
    /// The first entry's id; 0-0 if there is none.
    pub fn first(&self) -> StreamId {
        self.entries.keys().next().copied().unwrap_or_default()
    }
}

impl Value {
    /// As TYPE tells it.
    pub fn type_name(&self) -> String {
        match self {
            Self::String(_) => "string".to_owned(),
            Self::List(_) => "list".to_owned(),
            Self::Set(_) => "set".to_owned(),
            Self::ZSet(_) => "zset".to_owned(),
            Self::Hash(_) => "hash".to_owned(),
            Self::Stream(_) => "stream".to_owned(),
            Self::Module(module) => super::payload::module_type_name(module.id),
        }
    }

    /// Whether nothing is in it, so that a server deletes the key; a stream may be empty.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::List(rows) => rows.is_empty(),
            Self::Set(rows) => rows.is_empty(),
            Self::ZSet(rows) => rows.is_empty(),
            Self::Hash(rows) => rows.is_empty(),
            Self::String(_) | Self::Stream(_) | Self::Module(_) => false,
        }
    }

    /// About how many bytes of memory it takes.
    pub fn bytes(&self) -> usize {
        let row = |bytes: &Vec<u8>| bytes.len() + 16;
        16 + match self {
            Self::String(bytes) => bytes.len(),
            Self::List(rows) => rows.iter().map(row).sum(),
            Self::Set(rows) => rows.iter().map(row).sum(),
            Self::ZSet(rows) => rows.keys().map(|member| row(member) + 24).sum(),
            Self::Hash(rows) => rows
                .iter()
                .map(|(name, field)| row(name) + row(&field.value))
                .sum(),
            Self::Stream(stream) => stream.entries.values().flatten().map(row).sum(),
            Self::Module(module) => module.data.len(),
        }
    }

    /// When the first of a hash's fields expires.
    pub fn first_field_expiry(&self) -> Option<u64> {
        match self {
            Self::Hash(fields) => fields.values().filter_map(|field| field.expire_at).min(),
            _ => None,
        }
    }
}

/// A key's value and what belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The value.
    pub value: Value,
    /// When it expires, in Unix ms.
    pub expire_at: Option<u64>,
    /// When it was last used, in Unix ms.
    pub used_at: u64,
    /// How often it is used, as LFU counts.
    pub frequency: u8,
    /// As it stands in the table of fields that expire.
    pub(super) fields_due: Option<u64>,
}

impl Entry {
    /// A new entry, used now.
    pub fn new(value: Value, expire_at: Option<u64>, now_ms: u64) -> Self {
        Self {
            value,
            expire_at,
            used_at: now_ms,
            frequency: 5,
            fields_due: None,
        }
    }

    /// Whether its time is over.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expire_at.is_some_and(|at| now_ms > at)
    }
}
