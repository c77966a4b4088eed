//! The record and the batch that flow through the pipe.
//!
//! The record itself is the archive's (crate `redis-migrate-format`): one vocabulary for the file
//! and for the pipe.

use serde::{Deserialize, Serialize};

pub use redis_migrate_format::ModuleAux;
pub use redis_migrate_format::record::{
    Context, Eviction, Family, KeyRecord, Record, Value, Withheld,
};
pub use redis_migrate_payload::show_key;

/// Why nothing can be done with a value that was not kept when its archive was read.
pub fn not_kept(value: &Withheld) -> String {
    format!(
        "its value of {} bytes was not kept when it was read: it is larger than --max-value allows",
        value.len
    )
}

/// Why a value is left out that has more than `max` bytes, as an archive stores it.
pub fn larger_than(max: u64) -> String {
    format!("its value has more than the {max} bytes that --max-value allows")
}

/// Bytes of keys and values at which a source hands a batch on.
pub const BATCH_TARGET_BYTES: usize = 512 * 1024;

/// Records at which a source hands a batch on, however small they are.
pub const BATCH_TARGET_RECORDS: usize = 2_000;

/// Records read together, with what they have in common. The unit in the channels: memory is
/// channel depth × batch target + the largest value.
#[derive(Debug)]
pub struct Batch {
    /// What the records share.
    pub context: Context,
    /// The records, in the order of reading.
    pub records: Vec<Record>,
    /// Where each record came from, before it was rewritten; empty unless somebody needs it.
    pub origins: Vec<Origin>,
    /// How far a source that can go on later has come with this batch.
    pub mark: Option<Mark>,
    /// Everything that came so far, this batch included, is all that SCAN gave so far.
    pub checkpoint: Option<Box<Checkpoint>>,
    /// What modules keep outside keys, as an RDB file has it: what stood before the keys goes before
    /// the records, the rest behind them.
    pub module_aux: Vec<ModuleAux>,
    /// More batches of the same mark come.
    pub goes_on: bool,
    payload_bytes: usize,
    most_records: usize,
    most_bytes: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self::limited(usize::MAX, usize::MAX)
    }
}

/// A place in what a source reads: everything before it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mark {
    /// Which of several archives, from 0.
    pub archive: u32,
    /// Its frame that comes next; 0 for the archive's beginning.
    pub frame: u64,
}

/// A place in the scan of a server from which a later run can go on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The process that gave the cursor, which means nothing to any other.
    pub run_id: String,
    /// Whether it was a replica.
    pub replica: bool,
    /// The database that is being scanned.
    pub db: u32,
    /// Where SCAN goes on in it; `None` when it is scanned through.
    pub cursor: Option<String>,
    /// Databases that were not begun.
    pub waiting: Vec<u32>,
    /// By database: scanned, reread, written, superseded, filtered, vanished, failed.
    pub counts: Vec<(u32, [u64; 7])>,
    /// Function payloads given.
    pub functions: u64,
    /// Start of the scan, the server's clock, Unix ms.
    pub from_ms: u64,
    /// The same by this machine's clock.
    pub started_ms: u64,
    /// How often SWAPDB was called at the process by then, and its counts were set back; `None`
    /// where it does not say.
    #[serde(default)]
    pub swaps: Option<[u64; 2]>,
}

/// A key as it stood at the source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// Database.
    pub db: u32,
    /// Key.
    pub key: Vec<u8>,
    /// Absolute expiry, Unix ms.
    pub expire_at_ms: Option<u64>,
    /// The server that wrote its value.
    pub family: Family,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch that is full with so many records, or bytes of keys and values, if that is
    /// less than usual.
    pub fn limited(records: usize, bytes: usize) -> Self {
        Self {
            context: Context::default(),
            records: Vec::new(),
            origins: Vec::new(),
            mark: None,
            checkpoint: None,
            module_aux: Vec::new(),
            goes_on: false,
            payload_bytes: 0,
            most_records: records.min(BATCH_TARGET_RECORDS),
            most_bytes: bytes.min(BATCH_TARGET_BYTES),
        }
    }

    /// The same records in batches that are full at so much.
    pub fn split(self, records: usize, bytes: usize) -> Vec<Batch> {
        let mut parts = Vec::new();
        let (context, mark) = (self.context, self.mark);
        let empty = || Batch {
            context,
            mark,
            goes_on: true,
            ..Batch::limited(records, bytes)
        };
        let mut part = empty();
        let (behind, before): (Vec<_>, Vec<_>) =
            self.module_aux.into_iter().partition(|aux| aux.after_keys);
        before.into_iter().for_each(|aux| part.push_module_aux(aux));
        for record in self.records {
            part.push(record);
            if part.is_full() {
                parts.push(std::mem::replace(&mut part, empty()));
            }
        }
        if !part.is_empty() || (parts.is_empty() && !behind.is_empty()) {
            parts.push(part);
        }
        if let Some(last) = parts.last_mut() {
            behind.into_iter().for_each(|aux| last.push_module_aux(aux));
        }
        if let Some(last) = parts.last_mut() {
            last.goes_on = self.goes_on;
            last.checkpoint = self.checkpoint;
        }
        parts
    }

    /// Adds a record.
    pub fn push(&mut self, record: Record) {
        self.payload_bytes += record.payload_bytes();
        self.records.push(record);
    }

    /// Adds what a module keeps outside keys.
    pub fn push_module_aux(&mut self, aux: ModuleAux) {
        self.payload_bytes += aux.cost();
        self.module_aux.push(aux);
    }

    /// Forgets the records, keeps the allocation.
    pub fn clear(&mut self) {
        self.records.clear();
        self.origins.clear();
        self.mark = None;
        self.checkpoint = None;
        self.module_aux.clear();
        self.goes_on = false;
        self.payload_bytes = 0;
    }

    /// Keeps where each record comes from, for a sink that goes back there.
    pub fn remember_origins(&mut self) {
        let family = self.context.family;
        self.origins = self
            .records
            .iter()
            .map(|record| match record {
                Record::Key(key) => Origin {
                    db: key.db,
                    key: key.key.clone(),
                    expire_at_ms: key.expire_at_ms,
                    family,
                },
                Record::Deleted { db, key } => Origin {
                    db: *db,
                    key: key.clone(),
                    expire_at_ms: None,
                    family,
                },
                _ => Origin::default(),
            })
            .collect();
    }

    /// Bytes of keys and values, and what data of modules cost.
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Bytes that it counts for in a channel: those of keys and values, unless its records are so small
    /// that what each of them takes beside is several times that.
    pub fn channel_bytes(&self) -> usize {
        /// The record itself, and what an allocation of its key and one of its value take at least.
        const AROUND: usize = size_of::<Record>() + 64;
        let held = self.payload_bytes + self.records.len() * AROUND;
        self.payload_bytes.max(held / 4)
    }

    /// Whether it is time to hand it on.
    pub fn is_full(&self) -> bool {
        self.payload_bytes >= self.most_bytes || self.records.len() >= self.most_records
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.module_aux.is_empty()
    }
}

/// A key as people write it: in quotes with escapes, as [`show_key`] shows it, or as it is.
///
/// # Errors
/// One line about what cannot be read between the quotes.
pub fn read_key(text: &[u8]) -> Result<Vec<u8>, String> {
    let quoted = text
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    let Some(quoted) = quoted else {
        return Ok(text.to_vec());
    };
    let wrong = |what: &str| {
        format!(
            "the key {} cannot be read: {what}",
            String::from_utf8_lossy(text).escape_debug()
        )
    };
    let mut key = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'\\' {
            key.push(byte);
            continue;
        }
        key.push(match bytes.next() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'x') => {
                let digit = |byte: Option<&u8>| {
                    byte.and_then(|&byte| char::from(byte).to_digit(16))
                        .ok_or_else(|| wrong("\\x takes two hexadecimal digits"))
                };
                // Both are below 16.
                (digit(bytes.next())? * 16 + digit(bytes.next())?) as u8
            }
            Some(&other @ (b'"' | b'\'' | b'\\')) => other,
            _ => {
                return Err(wrong(
                    "a backslash takes n, r, t, x, a quote or a backslash",
                ));
            }
        });
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_outside_keys_stays_before_or_behind_them() {
        let aux = |after_keys: bool| ModuleAux {
            family: Family::Redis,
            rdb_version: 12,
            after_keys,
            module: "ft_index0".to_owned(),
            data: vec![0; 10],
        };
        let mut batch = Batch::new();
        batch.push_module_aux(aux(true));
        batch.push_module_aux(aux(false));
        assert!(!batch.is_empty());
        for n in 0..5 {
            let key = vec![n];
            batch.push(Record::Deleted { db: 0, key });
        }
        let parts = batch.split(2, usize::MAX);
        let told = |part: &Batch| -> Vec<bool> {
            part.module_aux.iter().map(|aux| aux.after_keys).collect()
        };
        let told: Vec<_> = parts.iter().map(told).collect();
        assert_eq!(told, [vec![false], vec![], vec![true]]);
        let mut only = Batch::new();
        only.push_module_aux(aux(true));
        assert_eq!(only.split(2, usize::MAX).len(), 1);
    }

    #[test]
    fn a_key_is_read_as_it_is_shown() {
        let every: Vec<u8> = (0..=u8::MAX).collect();
        for key in [&every[..120], &every[120..240], &every[200..], b"", b"\""] {
            assert_eq!(read_key(show_key(key).as_bytes()).unwrap(), key);
        }
        assert_eq!(read_key(b"plain\\n").unwrap(), b"plain\\n");
        assert_eq!(read_key(b"\"open").unwrap(), b"\"open");
        assert!(read_key(br#""\x4""#).is_err() && read_key(br#""\q""#).is_err());
    }

    /// A channel of four mebibytes holds sixteen at most, and nothing changes for ordinary records.
    #[test]
    fn records_that_are_mostly_overhead_count_for_more_than_their_bytes() {
        let of = |count: usize, len: usize| {
            let mut batch = Batch::new();
            for n in 0..count {
                batch.push(Record::Deleted {
                    db: 0,
                    key: vec![n as u8; len],
                });
            }
            batch
        };
        assert_eq!(of(1_000, 100).channel_bytes(), 100_000);
        let small = of(1_000, 1).channel_bytes();
        assert!((20_000..100_000).contains(&small), "{small}");
    }
}
