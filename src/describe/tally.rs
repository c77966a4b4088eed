//! Counts of what an archive holds, by database and type.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::table::{Align, Table};
use crate::payload;
use crate::record::{Context, KeyRecord, Record, Value};
use crate::units::{bytes_text, count_text};

/// Counts of one type in one database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Keys.
    pub keys: u64,
    /// Of those, with expiry.
    pub with_ttl: u64,
    /// Bytes of their names.
    pub key_bytes: u64,
    /// Bytes of their values as stored.
    pub value_bytes: u64,
    /// Largest of the values.
    pub largest_bytes: u64,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
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

/// Name of a record's type, as TYPE gives it; `module` for every module.
pub fn type_name(record: &KeyRecord, context: &Context) -> &'static str {
    let type_byte = record.value.type_byte().unwrap_or(u8::MAX);
    payload::kind_of(context.family, type_byte).name()
}

/// The counts. As large as databases × types, of which an archive can hold only so many.
#[derive(Debug, Default)]
pub struct Tally {
    by_db_and_type: BTreeMap<(u32, &'static str), Counts>,
    /// Tombstones.
    pub tombstones: u64,
    /// Function payloads.
    pub functions: u64,
    /// Verbatim payloads whose footer does not fit: every server would refuse them.
    pub bad_payloads: u64,
}

impl Tally {
    /// Counts a record.
    pub fn add(&mut self, record: &Record, context: &Context) {
        match record {
            Record::Key(key) => {
                let value_bytes = key.value.bytes().len() as u64;
                self.by_db_and_type
                    .entry((key.db, type_name(key, context)))
                    .or_default()
                    .add(&Counts {
                        keys: 1,
                        with_ttl: key.expire_at_ms.is_some().into(),
                        key_bytes: key.key.len() as u64,
                        value_bytes,
                        largest_bytes: value_bytes,
                    });
                if let Value::Verbatim(dump) = &key.value {
                    self.bad_payloads += u64::from(payload::split(dump).is_err());
                }
            }
            Record::Deleted { .. } => self.tombstones += 1,
            Record::Functions(_) => self.functions += 1,
            _ => {}
        }
    }

    /// All keys.
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        for counts in self.by_db_and_type.values() {
            total.add(counts);
        }
        total
    }

    /// As a table: a row for each type of each database, and one for all.
    pub fn table(&self) -> Table {
        let mut table = Table::new(&[
            ("db", Align::Right),
            ("type", Align::Left),
            ("keys", Align::Right),
            ("with expiry", Align::Right),
            ("key bytes", Align::Right),
            ("value bytes", Align::Right),
            ("largest", Align::Right),
        ]);
        for ((db, type_name), counts) in &self.by_db_and_type {
            let mut row = vec![db.to_string(), (*type_name).to_owned()];
            row.extend(counts.cells());
            table.row(row);
        }
        let mut row = vec!["all".to_owned(), String::new()];
        row.extend(self.total().cells());
        table.row(row);
        table
    }

    /// As JSON: a list of objects.
    pub fn json(&self) -> Json {
        self.by_db_and_type
            .iter()
            .map(|((db, type_name), counts)| {
                json!({
                    "db": db,
                    "type": type_name,
                    "keys": counts.keys,
                    "with_ttl": counts.with_ttl,
                    "key_bytes": counts.key_bytes,
                    "value_bytes": counts.value_bytes,
                    "largest_bytes": counts.largest_bytes,
                })
            })
            .collect()
    }
}
