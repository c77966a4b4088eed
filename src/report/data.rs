//! The report as JSON: everything the page shows, exact.

use redis_migrate_format::{End, Header};
use serde_json::{Value, json};

use super::{LargeKey, Report, Weight};
use crate::describe::{end_json, export_failed_json, header_json};
use crate::ledger::export_failed;
use crate::units::put_key;
use crate::version::SCHEMA_VERSION;

/// Prefixes that are told at each level.
pub(super) const GROUPS: usize = 40;

/// What the archive says of itself.
#[derive(Debug)]
pub struct About {
    /// Its file, for people.
    pub name: String,
    /// Length of the file.
    pub bytes: u64,
    /// SHA-256 of the file, hex.
    pub sha256: String,
    pub encrypted: bool,
    pub archive_id: u64,
    pub header: Header,
    pub end: End,
    /// What does not add up.
    pub problems: Vec<String>,
}

pub fn json(report: &Report, about: &About) -> Value {
    let by_db_and_type = report.by_db_and_type.iter();
    let by_db_and_type = by_db_and_type.map(|(db, type_name, weight)| {
        let mut object = row(weight, "db", db.json());
        object["type"] = json!(type_name);
        object
    });
    let by_db = report.by_db();
    let by_db = by_db
        .iter()
        .map(|(db, weight)| row(weight, "db", db.json()));
    let named = |rows: &[(&'static str, Weight)], field: &str| -> Vec<Value> {
        let rows = rows.iter();
        rows.map(|(name, weight)| row(weight, field, json!(name)))
            .collect()
    };
    json!({
        "schema_version": SCHEMA_VERSION,
        "event": "report",
        "complete": true,
        "name": about.name,
        "bytes": about.bytes,
        "sha256": about.sha256,
        "encrypted": about.encrypted,
        "archive_id": format!("{:016x}", about.archive_id),
        "header": header_json(&about.header),
        "export_failed": export_failed_json(&export_failed(&about.end)),
        "end": end_json(&about.end),
        "problems": about.problems,
        "total": report.total(),
        "key_records": report.total().keys + report.superseded,
        "superseded": report.superseded,
        "tombstones": report.tombstones,
        "functions": report.functions,
        "by_db": by_db.collect::<Vec<_>>(),
        "by_type": named(&report.by_type(), "type"),
        "by_db_and_type": by_db_and_type.collect::<Vec<_>>(),
        "without_ttl": report.without_ttl,
        "by_remaining_life": named(&report.lives, "life"),
        "by_value_size": named(&report.sizes, "size"),
        "prefixes": report.prefixes.groups(GROUPS),
        "prefixes_approximate": report.prefixes.dropped,
        "largest": report.largest().into_iter().map(large).collect::<Vec<Value>>(),
    })
}

/// A weight, and what it is of.
fn row(weight: &Weight, field: &str, of: Value) -> Value {
    let mut object = json!(weight);
    object[field] = of;
    object
}

fn large(key: &LargeKey) -> Value {
    let mut object = json!(key);
    // As `list` names keys; `key_bytes` tells whether it is the whole name.
    put_key(&mut object, &key.key);
    object
}
