//! An archive in words: its header and its end as text and as JSON, tables of what is in it.
//! Used by `verify`, `list` and `inspect`; text from the archive is cleaned before it is shown.

mod consistency;
mod loss;
pub mod table;
pub mod tally;
pub mod watch;

use std::collections::BTreeMap;

use redis_migrate_format::header::{
    ArchiveOrigin, ConsistencyAsked, End, Header, Mode, SelectionFacts, SourceCounts, SourceFacts,
};
use serde_json::{Value, json};

pub use self::consistency::{consistency_json, consistency_text, except};
pub use self::loss::loss_of;
use crate::escape::clean;
use crate::ledger::{export_failed, reconcile, sum};
use crate::outside::{self, Outside};
use crate::record::{Family, show_key};
use crate::server::facts;
use crate::units::{bytes_text, count_text, hex, plural, time_text};

/// The server's family, as people call it.
pub fn family_name(family: Family) -> &'static str {
    facts::family_name(family).unwrap_or("unknown server")
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Standalone => "standalone",
        Mode::Cluster => "cluster",
        Mode::Sentinel => "sentinel",
        Mode::RdbFile => "RDB file",
    }
}

fn asked_name(asked: ConsistencyAsked) -> &'static str {
    match asked {
        ConsistencyAsked::Auto => "auto",
        ConsistencyAsked::Scan => "scan",
        ConsistencyAsked::Converge => "converge",
        ConsistencyAsked::Pause => "pause",
        ConsistencyAsked::Snapshot => "snapshot",
    }
}

/// Databases that a sentence names before it stops.
const DBS_TOLD: usize = 16;

fn sum_of(failed: &[(u32, u64)]) -> u64 {
    let keys = failed.iter().map(|(_, keys)| *keys);
    keys.fold(0, u64::saturating_add)
}

/// The same as a warning; `None` where there are none.
pub fn export_failed_text(failed: &[(u32, u64)]) -> Option<String> {
    let keys = sum_of(failed);
    let mut dbs: Vec<String> = failed
        .iter()
        .take(DBS_TOLD)
        .map(|(db, keys)| format!("db {db}: {}", count_text(*keys)))
        .collect();
    if dbs.len() < failed.len() {
        dbs.push("…".to_owned());
    }
    let are = match keys {
        0 => return None,
        1 => "it is",
        _ => "they are",
    };
    Some(format!(
        "the export left out {} ({}), which it could not read or whose values were larger than its \
         --max-value; {are} not in this archive",
        plural(keys, "key"),
        dbs.join(", ")
    ))
}

/// Everything that an archive lacks because its export did not have it, a warning each.
pub fn export_warnings(failed: &[(u32, u64)], lacks: &[String]) -> Vec<String> {
    let lack = |line: &String| {
        format!(
            "the export was incomplete, and the archive may lack keys: {}",
            clean(line)
        )
    };
    let keys = export_failed_text(failed).into_iter();
    keys.chain(lacks.iter().map(lack)).collect()
}

/// The same as JSON; null where there are none.
pub fn export_failed_json(failed: &[(u32, u64)]) -> Value {
    let by_db: Vec<Value> = told(failed)
        .iter()
        .map(|(db, keys)| json!({ "db": db, "keys": keys }))
        .collect();
    match sum_of(failed) {
        0 => Value::Null,
        keys => json!({ "keys": keys, "by_db": by_db }),
    }
}

/// `scanned 10 + read again 1 = written 9 + vanished 2`: what was read, in the verb's word, and what
/// became of it. Of the entries (a name, how many, and whether it is named even when none are) those
/// that count are named.
pub fn ledger_text(
    read: &str,
    counts: &SourceCounts,
    entries: impl IntoIterator<Item = (&'static str, u64, bool)>,
) -> String {
    let mut text = format!("{read} {}", count_text(counts.scanned));
    if counts.reread > 0 {
        text += &format!(" + read again {}", count_text(counts.reread));
    }
    let entries = entries.into_iter();
    let named: Vec<String> = entries
        .filter(|(_, count, always)| *always || *count > 0)
        .map(|(name, count, _)| format!("{name} {}", count_text(count)))
        .collect();
    format!("{text} = {}", named.join(" + "))
}

fn selection_text(selection: &SelectionFacts) -> String {
    let globs = |name: &str, globs: &[Vec<u8>]| {
        globs
            .iter()
            .map(|glob| format!("{name} {}", show_key(glob)))
            .collect::<Vec<_>>()
    };
    let mut parts: Vec<String> = Vec::new();
    if !selection.dbs.is_empty() {
        let dbs: Vec<String> = selection.dbs.iter().map(ToString::to_string).collect();
        parts.push(format!("databases {}", dbs.join(", ")));
    }
    parts.extend(globs("match", &selection.matches));
    parts.extend(globs("exclude", &selection.excludes));
    if !selection.types.is_empty() {
        parts.push(format!("types {}", clean(&selection.types.join(", "))));
    }
    parts.extend(selection.other.iter().map(|line| clean(line).into_owned()));
    if parts.is_empty() {
        "everything".to_owned()
    } else {
        parts.join("; ")
    }
}

fn source_text(source: &SourceFacts) -> String {
    let version = source.nodes.first();
    let version = version.map_or("", |node| node.version.as_str());
    let server = match source.family {
        // What only calls itself Redis has its own name in its version.
        Family::Other if version.starts_with(char::is_alphabetic) => version.to_owned(),
        family => format!("{} {version}", family_name(family)),
    };
    let mode = mode_name(source.mode);
    match source.nodes.len() {
        0 | 1 => format!("{server}, {mode}"),
        nodes => format!("{server}, {mode} of {nodes} nodes"),
    }
}

/// How an archive came to be, unless by an export.
fn origin_text(origin: &ArchiveOrigin) -> Option<String> {
    match origin {
        ArchiveOrigin::Export => None,
        ArchiveOrigin::Salvaged { lost } => {
            let bytes = lost.iter().map(|(_, len)| *len);
            let bytes = bytes_text(bytes.fold(0, u64::saturating_add));
            Some(format!("salvaged from a damaged archive, {bytes} lost"))
        }
        ArchiveOrigin::Split { part, of } => Some(format!("part {part} of {of}")),
    }
}

/// Name and value of each line about the header.
pub fn header_lines(header: &Header, archive_id: u64) -> Vec<(&'static str, String)> {
    let tool = &header.tool;
    let git = match tool.git.as_str() {
        "" => String::new(),
        git => format!(" ({git})"),
    };
    let mut lines = vec![
        ("archive", format!("{archive_id:016x}")),
        (
            "written",
            format!(
                "{} by {} {}{git}",
                time_text(header.created_ms),
                tool.name,
                tool.version
            ),
        ),
        ("source", source_text(&header.source)),
        ("source time", time_text(header.source_time_ms)),
    ];
    if let Some(label) = &header.source.label {
        lines.push(("label", label.clone()));
    }
    lines.extend(origin_text(&header.origin).map(|text| ("origin", text)));
    lines.push(("selection", selection_text(&header.selection)));
    let asked = |yes: bool| if yes { "asked for" } else { "not asked for" };
    let functions = match header.functions {
        true => "asked for",
        false => "not read: not asked for, or refused by the source",
    };
    lines.push(("functions", functions.to_owned()));
    lines.push(("eviction data", asked(header.eviction).to_owned()));
    let compression = match header.level {
        0 => "none".to_owned(),
        level => format!("zstd level {level}"),
    };
    lines.push((
        "compression",
        format!(
            "{compression}, frames of {}",
            bytes_text(header.frame_target_bytes.into())
        ),
    ));
    for (name, value) in told(&header.extra) {
        if name == outside::HEADER_FIELD {
            continue;
        }
        lines.push(("extra", format!("{name} = {value}")));
    }
    for line in &mut lines {
        line.1 = clean(&line.1).into_owned();
    }
    lines
}

/// Name and value of each line about the end.
pub fn end_lines(header: &Header, end: &End) -> Vec<(&'static str, String)> {
    let facts = &end.facts;
    let left_out = except(&[(
        sum_of(&export_failed(end)),
        "key",
        "that the export left out",
    )]);
    let total = sum(&facts.counts);
    let mut lines = vec![
        (
            "consistency",
            format!(
                "asked for {}; {}",
                asked_name(header.consistency),
                consistency_text(&facts.reached, false, &left_out)
            ),
        ),
        (
            "export ledger",
            ledger_text(
                "scanned",
                &total,
                [
                    ("written", total.written, true),
                    ("superseded", total.superseded, false),
                    ("filtered", total.filtered, false),
                    ("vanished", total.vanished, false),
                    ("failed", total.failed, false),
                ],
            ),
        ),
    ];
    if let Some(text) = export_failed_text(&export_failed(end)) {
        lines.push(("left out", text));
    }
    let lacks = end.lacks.iter();
    lines.extend(lacks.map(|line| ("lacks", clean(line).into_owned())));
    let outside = end.outside.iter().map(|json| Outside::read(json));
    lines.extend(outside.map(|outside| ("outside keys", outside.inspected())));
    if facts.duplicates_possible {
        lines.push((
            "duplicates",
            "a key may have several records; the last one counts".to_owned(),
        ));
    }
    if end.rdb_versions != (0, 0) {
        let (low, high) = end.rdb_versions;
        let text = if low == high {
            low.to_string()
        } else {
            format!("{low} to {high}")
        };
        lines.push(("RDB version", text));
    }
    lines
}

/// What does not add up in an archive that is intact: the exporter's own mistakes.
pub fn inconsistencies(end: &End) -> Vec<String> {
    let counts = reconcile(&end.facts.counts);
    let mut found: Vec<String> = counts.err().into_iter().collect();
    // Not counted where only the frames were read.
    let stored: BTreeMap<u32, u128> = end
        .per_db
        .iter()
        .map(|totals| {
            let (records, tombstones) = (totals.records.into(), totals.tombstones.into());
            (totals.db, u128::saturating_add(records, tombstones))
        })
        .collect();
    for row in &end.facts.counts {
        let stored = stored.get(&row.db).copied().unwrap_or(0);
        if stored != u128::from(row.written) {
            found.push(format!(
                "the exporter says it wrote {} records of database {}, the archive holds {stored}",
                row.written, row.db
            ));
        }
    }
    found
}

/// Items of a list that are told one by one.
const ITEMS_TOLD: usize = 1_000;

/// The first items of a list that may be longer than anybody reads.
pub fn told<T>(list: &[T]) -> &[T] {
    &list[..list.len().min(ITEMS_TOLD)]
}

/// How many items of which list are not told.
fn not_told(lists: &[(&str, usize)]) -> Value {
    let more = |&(name, len): &(&str, usize)| {
        let more = len.checked_sub(ITEMS_TOLD).filter(|more| *more > 0)?;
        Some((name.to_owned(), json!(more)))
    };
    Value::Object(lists.iter().filter_map(more).collect())
}

pub fn header_json(header: &Header) -> Value {
    let globs = |globs: &[Vec<u8>]| -> Vec<Value> {
        told(globs)
            .iter()
            .map(|glob| json!({ "text": String::from_utf8_lossy(glob), "hex": hex(glob) }))
            .collect()
    };
    let origin = match &header.origin {
        ArchiveOrigin::Export => json!({ "kind": "export" }),
        ArchiveOrigin::Salvaged { lost } => json!({ "kind": "salvaged", "lost": told(lost) }),
        ArchiveOrigin::Split { part, of } => json!({ "kind": "split", "part": part, "of": of }),
    };
    json!({
        "tool": header.tool,
        "created_ms": header.created_ms,
        "source_time_ms": header.source_time_ms,
        "source": {
            "family": family_name(header.source.family),
            "mode": mode_name(header.source.mode),
            "nodes": told(&header.source.nodes),
            "label": header.source.label,
        },
        "consistency": asked_name(header.consistency),
        "expected": told(&header.expected),
        "selection": {
            "dbs": header.selection.dbs,
            "matches": globs(&header.selection.matches),
            "excludes": globs(&header.selection.excludes),
            "types": told(&header.selection.types),
            "other": told(&header.selection.other),
        },
        "functions": header.functions,
        "eviction": header.eviction,
        "level": header.level,
        "frame_target_bytes": header.frame_target_bytes,
        "origin": origin,
        "extra": told(&header.extra),
        "not_told": not_told(&[
            ("nodes", header.source.nodes.len()),
            ("expected", header.expected.len()),
            ("matches", header.selection.matches.len()),
            ("excludes", header.selection.excludes.len()),
            ("types", header.selection.types.len()),
            ("other", header.selection.other.len()),
            ("lost", match &header.origin {
                ArchiveOrigin::Salvaged { lost } => lost.len(),
                _ => 0,
            }),
            ("extra", header.extra.len()),
        ]),
    })
}

pub fn end_json(end: &End) -> Value {
    json!({
        "frames": end.frames,
        "records": end.records,
        "functions": end.functions,
        "per_db": told(&end.per_db),
        "rdb_versions": [end.rdb_versions.0, end.rdb_versions.1],
        "consistency": consistency_json(&end.facts.reached),
        "counts": told(&end.facts.counts),
        "duplicates_possible": end.facts.duplicates_possible,
        "started_ms": end.facts.started_ms,
        "finished_ms": end.facts.finished_ms,
        "sha256_before_end": hex(&end.sha256),
        "lacks": end.lacks,
        "outside": end.outside.iter().map(|json| Outside::read(json).json()).collect::<Vec<_>>(),
        "not_told": not_told(&[
            ("per_db", end.per_db.len()),
            ("counts", end.facts.counts.len()),
        ]),
    })
}

/// An error about an archive as JSON: class and place for machines, sentence and advice for people.
pub fn error_json(error: &redis_migrate_format::Error) -> Value {
    json!({
        "class": error.class().as_str(),
        "text": error.to_string(),
        "advice": error.advice(),
        "offset": error.position().map(|at| at.offset),
        "frame": error.position().and_then(|at| at.frame),
        "field": error.position().map(|at| at.field),
    })
}

/// Aligned `name  value` lines.
pub fn lines_text(lines: &[(&'static str, String)]) -> String {
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in lines {
        text += &format!("{name:width$}  {value}\n");
    }
    text
}
