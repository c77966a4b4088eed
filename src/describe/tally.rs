//! Counts of what an archive holds, by database and type.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::table::Table;
use crate::census::Census;
use crate::payload::{self, Kind, metadata};
use crate::record::{Context, KeyRecord, Record, Value};
use crate::select::{MODULE_TYPE, VECTOR_SET_TYPE, module_name};
use crate::undecoded::Undecoded;
use crate::units::{bytes_text, count_text, plural};

/// Counts of one type in one database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TypeCounts {
    pub keys: u64,
    pub with_ttl: u64,
    pub key_bytes: u64,
    /// Bytes of their values as stored.
    pub value_bytes: u64,
    pub largest_bytes: u64,
}

impl TypeCounts {
    fn add(&mut self, other: &TypeCounts) {
        self.keys += other.keys;
        self.with_ttl += other.with_ttl;
        self.key_bytes += other.key_bytes;
        self.value_bytes += other.value_bytes;
        self.largest_bytes = self.largest_bytes.max(other.largest_bytes);
    }

    fn cells(&self) -> [String; 5] {
        [
            count_text(self.keys),
            count_text(self.with_ttl),
            bytes_text(self.key_bytes),
            bytes_text(self.value_bytes),
            bytes_text(self.largest_bytes),
        ]
    }
}

/// Types of modules that are told one by one. A damaged or hostile archive may name any number.
const MODULE_TYPES_TOLD: usize = 256;

/// Name of a record's type as `--type` takes it: what TYPE gives, and `module:NAME` for a module's
/// own, or `module` where the value does not tell its name, or there are too many of them.
pub fn type_name(record: &KeyRecord, context: &Context) -> &'static str {
    let value = payload::plain(context.family, record.value.head());
    match payload::kind(context.family, value) {
        kind @ Kind::Module => match module_name(value) {
            Some(name) if name == VECTOR_SET_TYPE => VECTOR_SET_TYPE,
            Some(name) => module_type(&name).unwrap_or(kind.name()),
            None => kind.name(),
        },
        kind => kind.name(),
    }
}

/// `module:NAME`, one and the same text each time: these are kept for ever, up to a limit.
fn module_type(name: &str) -> Option<&'static str> {
    static TOLD: Mutex<BTreeMap<String, &'static str>> = Mutex::new(BTreeMap::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(text) = told.get(name) {
        return Some(text);
    }
    (told.len() < MODULE_TYPES_TOLD).then(|| {
        let text: &'static str = Box::leak(format!("{MODULE_TYPE}:{name}").into_boxed_str());
        told.insert(name.to_owned(), text);
        text
    })
}

/// Databases that get a row of their own. An archive may have 65,536; nobody reads that many rows.
pub const DATABASES_TOLD: usize = 1_000;

/// A database with a row of its own, or all the others together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ToldDb {
    One(u32),
    Others,
}

impl fmt::Display for ToldDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(db) => write!(f, "{db}"),
            Self::Others => f.write_str("others"),
        }
    }
}

impl ToldDb {
    /// Its number; `null` stands for the others.
    pub fn json(self) -> Json {
        match self {
            Self::One(db) => json!(db),
            Self::Others => Json::Null,
        }
    }
}

/// Something for each type of each database.
#[derive(Debug)]
pub struct ByDbAndType<T> {
    rows: BTreeMap<(ToldDb, &'static str), T>,
    dbs: usize,
}

impl<T> Default for ByDbAndType<T> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            dbs: 0,
        }
    }
}

impl<T: Default> ByDbAndType<T> {
    /// The row of a type in a database, or in the others once there are too many.
    pub fn of(&mut self, db: u32, type_name: &'static str) -> &mut T {
        let mut row = (ToldDb::One(db), type_name);
        if !self.rows.contains_key(&row) {
            let first = (ToldDb::One(db), "");
            let of_db = self.rows.range(first..).next();
            if of_db.is_none_or(|((next, _), _)| *next != ToldDb::One(db)) {
                if self.dbs >= DATABASES_TOLD {
                    row.0 = ToldDb::Others;
                } else {
                    self.dbs += 1;
                }
            }
        }
        self.rows.entry(row).or_default()
    }

    /// The rows, by database and type.
    pub fn iter(&self) -> impl Iterator<Item = (ToldDb, &'static str, &T)> {
        self.rows.iter().map(|((db, name), row)| (*db, *name, row))
    }
}

#[derive(Debug, Default)]
pub struct Tally {
    by_db_and_type: ByDbAndType<TypeCounts>,
    census: Census,
    /// Keys: names whose last record is not a tombstone.
    pub keys: u64,
    pub tombstones: u64,
    /// Function payloads.
    pub functions: u64,
    /// Records of keys by class of their key metadata, as far as these are there to be read.
    pub key_metadata: BTreeMap<String, u64>,
    /// Verbatim payloads whose footer does not fit: every server would refuse them.
    pub bad_payloads: u64,
    /// Values that this version cannot look into.
    pub undecoded: Undecoded,
}

impl Tally {
    pub fn add(&mut self, record: &Record, context: &Context) {
        let value_bytes = match record {
            Record::Key(key) => key.value.stored_len(),
            _ => 0,
        };
        self.add_sized(record, context, value_bytes);
    }

    /// Counts a record of whose value, so many bytes long, only the first may be there.
    pub fn add_sized(&mut self, record: &Record, context: &Context, value_bytes: u64) {
        self.census.add(record);
        match record {
            Record::Key(key) => {
                self.by_db_and_type
                    .of(key.db, type_name(key, context))
                    .add(&TypeCounts {
                        keys: 1,
                        with_ttl: key.expire_at_ms.is_some().into(),
                        key_bytes: key.key.len() as u64,
                        value_bytes,
                        largest_bytes: value_bytes,
                    });
                let is_whole = key.value.bytes().len() as u64 == value_bytes;
                self.undecoded.note(context.family, key, is_whole);
                self.add_metadata(context, key.value.head());
                if let Value::Verbatim(dump) = &key.value
                    && dump.len() as u64 == value_bytes
                {
                    self.bad_payloads += u64::from(payload::split(dump).is_err());
                }
            }
            Record::Deleted { .. } => self.tombstones += 1,
            Record::Functions(_) | Record::WithheldFunctions(_) => self.functions += 1,
            _ => {}
        }
    }

    fn add_metadata(&mut self, context: &Context, head: &[u8]) {
        /// A server has seven at most; a file can have any.
        const MOST_NAMES: usize = 64;
        if !payload::has_metadata(context.family, head) {
            return;
        }
        for class in metadata::classes(context.family, head).unwrap_or_default() {
            let name = class.name();
            let is_room = self.key_metadata.len() < MOST_NAMES;
            if is_room || self.key_metadata.contains_key(&name) {
                *self.key_metadata.entry(name).or_default() += 1;
            }
        }
    }

    /// Key metadata in words: `key metadata of modules: 3 of class Tags`.
    pub fn metadata_text(&self) -> Option<String> {
        let row = |(name, keys): (&String, &u64)| format!("{} of class {name}", count_text(*keys));
        let rows: Vec<String> = self.key_metadata.iter().map(row).collect();
        (!rows.is_empty()).then(|| format!("key metadata of modules: {}", rows.join(", ")))
    }

    /// Counts the keys ([`Tally::keys`]) once all records were added.
    ///
    /// # Errors
    /// Those of a temporary file.
    pub fn finish(&mut self) -> io::Result<()> {
        self.keys = std::mem::take(&mut self.census).finish()?.keys;
        Ok(())
    }

    /// Keys and records in words: of most archives they are the same.
    pub fn keys_text(&self) -> String {
        let records = self.total().keys;
        let keys = plural(self.keys, "key");
        if records == self.keys {
            return keys;
        }
        format!("{keys} in {}", plural(records, "record"))
    }

    /// All records of keys.
    pub fn total(&self) -> TypeCounts {
        let mut total = TypeCounts::default();
        for (_, _, counts) in self.by_db_and_type.iter() {
            total.add(counts);
        }
        total
    }

    /// As a table: a row for each type of each database, and one for all.
    pub fn table(&self) -> Table {
        let mut table = Table::new(
            ">db | type | >records | >with expiry | >key bytes | >value bytes | >largest",
        );
        for (db, type_name, counts) in self.by_db_and_type.iter() {
            let mut row = vec![db.to_string(), type_name.to_owned()];
            row.extend(counts.cells());
            table.row(row);
        }
        let mut row = vec!["all".to_owned(), String::new()];
        row.extend(self.total().cells());
        table.row(row);
        table
    }

    /// As JSON: a list of objects, which count records; `db` is null for the databases that are not
    /// told one by one.
    pub fn json(&self) -> Json {
        self.by_db_and_type
            .iter()
            .map(|(db, type_name, counts)| {
                let mut row = json!(counts);
                row["db"] = db.json();
                row["type"] = json!(type_name);
                row
            })
            .collect()
    }
}
