//! The report as JSON: everything the page shows, exact.

use redis_migrate_format::{End, Header};
use serde_json::{Value, json};

use super::{LargeKey, PrefixGroup, Report, Weight};
use crate::describe::{end_json, export_failed_json, header_json};
use crate::ledger::export_failed;
use crate::units::hex;
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
    /// Whether the file is encrypted.
    pub encrypted: bool,
    /// Its id.
    pub archive_id: u64,
    /// Its header.
    pub header: Header,
    /// Its end.
    pub end: End,
    /// What does not add up.
    pub problems: Vec<String>,
}

/// The whole report.
pub fn json(report: &Report, about: &About) -> Value {
    let by_db_and_type: Vec<Value> = report
        .by_db_and_type
        .iter()
        .map(|(db, type_name, weight)| with(weight, json!({ "db": db.json(), "type": type_name })))
        .collect();
    let by_db = report.by_db();
    let by_db: Vec<Value> = by_db
        .iter()
        .map(|(db, weight)| with(weight, json!({ "db": db.json() })))
        .collect();
    let named = |rows: &[(&'static str, Weight)], field: &str| -> Vec<Value> {
        let row = |(name, weight): &(&str, Weight)| with(weight, json!({ field: name }));
        rows.iter().map(row).collect()
    };
    let groups = report.prefixes.groups(GROUPS);
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
        "total": with(&report.total(), json!({})),
        "key_records": report.total().keys + report.superseded,
        "superseded": report.superseded,
        "tombstones": report.tombstones,
        "functions": report.functions,
        "by_db": by_db,
        "by_type": named(&report.by_type(), "type"),
        "by_db_and_type": by_db_and_type,
        "without_ttl": with(&report.without_ttl, json!({})),
        "by_remaining_life": named(&report.lives, "life"),
        "by_value_size": named(&report.sizes, "size"),
        "prefixes": groups.iter().map(group).collect::<Vec<Value>>(),
        "prefixes_approximate": report.prefixes.dropped,
        "largest": report.largest().into_iter().map(large).collect::<Vec<Value>>(),
    })
}

fn with(weight: &Weight, mut object: Value) -> Value {
    object["keys"] = json!(weight.keys);
    object["with_ttl"] = json!(weight.with_ttl);
    object["bytes"] = json!(weight.bytes);
    object["memory_bytes_estimated"] = json!(weight.memory_bytes);
    object
}

fn group(group: &PrefixGroup) -> Value {
    let children: Vec<Value> = group.children.iter().map(self::group).collect();
    let object = json!({ "prefix": group.prefix, "children": children });
    with(&group.weight, object)
}

fn large(key: &LargeKey) -> Value {
    let mut object = json!({
        "db": key.db,
        "type": key.type_name,
        "key_bytes": key.key_bytes,
        "value_bytes": key.value_bytes,
        "memory_bytes_estimated": key.memory_bytes,
        "elements": key.elements,
        "expire_at_ms": key.expire_at_ms,
    });
    // As `list` names keys; `key_bytes` tells whether it is the whole name.
    match std::str::from_utf8(&key.key) {
        Ok(text) => object["key"] = json!(text),
        Err(_) => object["key_hex"] = json!(hex(&key.key)),
    }
    object
}
