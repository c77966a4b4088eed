//! What an archive carries: keys, keys that went away, function libraries.

/// Whose numbering the type bytes of a value follow. Type bytes of 22 and up mean different things
/// in Redis and in Valkey, so a value can only be read together with its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Family {
    /// Redis, and every server that calls itself so.
    #[default]
    Redis,
    /// Valkey.
    Valkey,
    /// Neither is known; values of type 22 and up are opaque.
    Other,
}

/// What all records of one DATA frame share (SPEC.md, entry CONTEXT).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Context {
    /// Server time of the source when the records were read, Unix milliseconds.
    pub source_time_ms: u64,
    /// Family of the server that wrote the values.
    pub family: Family,
    /// RDB version in the footer of the source's DUMP payloads.
    pub rdb_version: u16,
    /// Which node of the source, an index into the header's nodes; 0 for a standalone server.
    pub node: u32,
}

/// A value in one of the two forms an archive stores.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// Type byte and RDB body, no footer, LZF strings usually expanded. The footer is rebuilt from
    /// the [`Context`].
    Compact(Vec<u8>),
    /// The DUMP payload exactly as the server sent it, footer included.
    Verbatim(Vec<u8>),
    /// A value that the reader was told not to keep
    /// ([`Limits::kept_value_bytes`](crate::Limits::kept_value_bytes)).
    Withheld(Withheld),
}

/// What is left of a value that was checked and not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    /// Bytes of the whole value as stored.
    pub len: u64,
    /// Its first bytes: the type, and the id of a module's type. Where key metadata stand before
    /// these, enough bytes to reach them as a rule.
    pub head: Vec<u8>,
}

impl Withheld {
    /// Of a value of `len` bytes that begins so.
    pub(crate) fn of(len: u64, begin: &[u8]) -> Self {
        /// A type byte, and an RDB length of nine bytes.
        const HEAD_LEN: usize = 10;
        /// What key metadata begin with (rdb.h, RDB_OPCODE_KEY_META).
        const KEY_METADATA: u8 = 0xf3;
        /// With key metadata: as long as modules may be expected to make them.
        const HEAD_LEN_WITH_METADATA: usize = 4096;
        let head_len = match begin.first() {
            Some(&KEY_METADATA) => HEAD_LEN_WITH_METADATA,
            _ => HEAD_LEN,
        };
        Self {
            len,
            head: begin[..begin.len().min(head_len)].to_vec(),
        }
    }
}

impl Value {
    /// The stored bytes; none of a value that was not kept, so that nothing can be written for it.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Value::Compact(bytes) | Value::Verbatim(bytes) => bytes,
            Value::Withheld(_) => &[],
        }
    }

    /// How many bytes are stored, kept or not.
    pub fn stored_len(&self) -> u64 {
        match self {
            Value::Compact(bytes) | Value::Verbatim(bytes) => bytes.len() as u64,
            Value::Withheld(withheld) => withheld.len,
        }
    }

    /// The stored bytes as far as they are there: at least those that tell the type.
    pub fn head(&self) -> &[u8] {
        match self {
            Value::Compact(bytes) | Value::Verbatim(bytes) => bytes,
            Value::Withheld(withheld) => &withheld.head,
        }
    }

    /// The RDB type byte, if there is one.
    pub fn type_byte(&self) -> Option<u8> {
        self.head().first().copied()
    }
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let form = match self {
            Value::Compact(_) => "Compact",
            Value::Verbatim(_) => "Verbatim",
            Value::Withheld(_) => "Withheld",
        };
        write!(
            f,
            "{form}({} bytes, type {:?})",
            self.stored_len(),
            self.type_byte()
        )
    }
}

/// What the source's eviction policy knew of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// OBJECT IDLETIME, seconds.
    IdleSecs(u64),
    /// OBJECT FREQ, the logarithmic LFU counter.
    Freq(u8),
}

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Database number.
    pub db: u32,
    /// Key name: any bytes, also none.
    pub key: Vec<u8>,
    /// The value.
    pub value: Value,
    /// Absolute expiry, Unix milliseconds; `None` for a key without expiry.
    pub expire_at_ms: Option<u64>,
    /// Idle time or frequency, where it was asked for and known.
    pub eviction: Option<Eviction>,
}

/// A record that is only looked at: everything of it but the value's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Glance<'a> {
    /// A key with its value.
    Key {
        /// Database number.
        db: u32,
        /// Key name.
        key: &'a [u8],
        /// Bytes of the value as stored.
        value_len: u64,
        /// Whether it has an expiry.
        expires: bool,
    },
    /// A key that went away.
    Deleted {
        /// Database number.
        db: u32,
        /// Key name.
        key: &'a [u8],
    },
    /// Function libraries.
    Functions,
}

/// One record of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record {
    /// A key with its value.
    Key(KeyRecord),
    /// A key that went away while the export was following writes (TOMBSTONE).
    Deleted {
        /// Database number.
        db: u32,
        /// Key name.
        key: Vec<u8>,
    },
    /// All function libraries: one FUNCTION DUMP payload, footer included.
    Functions(Vec<u8>),
    /// A payload of function libraries of so many bytes that the reader was told not to keep
    /// ([`Limits::kept_value_bytes`](crate::Limits::kept_value_bytes)). Nothing can be written for it.
    WithheldFunctions(u64),
}

impl Record {
    /// Everything of it but the value's bytes, of which there may be only the first: `value_len` says
    /// how many there are then.
    pub(crate) fn glance(&self, value_len: Option<u64>) -> Glance<'_> {
        match self {
            Record::Key(key) => Glance::Key {
                db: key.db,
                key: &key.key,
                value_len: value_len.unwrap_or(key.value.stored_len()),
                expires: key.expire_at_ms.is_some(),
            },
            Record::Deleted { db, key } => Glance::Deleted { db: *db, key },
            Record::Functions(_) | Record::WithheldFunctions(_) => Glance::Functions,
        }
    }

    /// Bytes of key and value, for budgets: what the record roughly holds in memory.
    pub fn payload_bytes(&self) -> usize {
        match self {
            Record::Key(record) => record.key.len() + record.value.bytes().len(),
            Record::Deleted { key, .. } => key.len(),
            Record::Functions(bytes) => bytes.len(),
            Record::WithheldFunctions(_) => 0,
        }
    }
}
