//! JSON Lines as a sink: readable values, for people and scripts. It is a way out, not an archive:
//! nothing reads it back.
//!
//! One object a line. Text is a JSON string where it is UTF-8, and `{"hex":"00ff"}` where it is not;
//! so a key is `"key"` either way, and no byte is lost.
//!
//! | `type` | `value` |
//! |---|---|
//! | `string` | text |
//! | `list`, `set` | `[text, …]` |
//! | `zset` | `[[text, score], …]`; a score is a number, or `"inf"`, `"-inf"` |
//! | `hash` | `[[field, value], …]`; a field that expires has a third element, Unix ms |
//! | `stream` | `{"entries": [[id, [[field, value], …]], …], "length", "last_id", …, "groups"}`; of Redis 8.6 and later also `"idempotency": {"duration_secs", "max_ids", "producers": [{"name", "ids": [[id, entry id], …]}, …], "ids_added", "duplicates"}` |
//! | `array` | `{"elements": [[index, text], …], "cursor"}` |
//! | `pathhash` | `[[path, [[field, value], …]], …]` |
//! | others | none; `"payload_hex"` is the DUMP payload, `"module"` the name of a module's type |
//!
//! Beside them stand `db`, and where there are any `expire_at_ms` (Unix ms), `idle_secs`, `freq`. A
//! key that went away while an export followed writes is `{"db":0,"key":…,"deleted":true}`; so is a
//! key of a pipe that stopped matching the selection. Where a key comes several times, the last line
//! counts, as everywhere; it is such a line, too, where the key's later value is left out. Function libraries are one line
//! `{"functions":[text, …]}`.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Map, Value as Json, json};

use super::Sink;
use super::archive::Commit;
use super::rdb::latest::Superseded;
use crate::census::Census;
use crate::escape::{self, write_json};
use crate::ledger::{SinkReport, SourceReport};
use crate::observer::{FailureKind, KeyFailure, Observer};
use crate::own_writes::OwnWrites;
use crate::payload::{
    self, ENTRIES_READ_UNKNOWN, Idempotency, Object, Stream, StreamForm, metadata,
};
use crate::rdb::function_codes;
use crate::record::{Batch, Context, Eviction, KeyRecord, Record, Value, larger_than, not_kept};
use crate::size::is_larger;
use crate::units::hex;

/// How many modules are named whose data are left out.
const MOST_MODULES: usize = 16;

/// Writes JSON Lines.
pub struct JsonlSink<W: Write + Send> {
    out: Option<W>,
    commit: Commit<W>,
    observer: Arc<Observer>,
    max_value_bytes: u64,
    superseded: Superseded,
    /// Keys that were written, where the source may give them again with another value.
    stands: Option<OwnWrites>,
    /// Key records and tombstones that came so far.
    ordinal: u64,
    /// Modules whose data outside keys came, as they are shown.
    module_aux: BTreeSet<String>,
    report: SinkReport,
    census: Census,
}

impl<W: Write + Send> JsonlSink<W> {
    /// Writes to `out`, which should be buffered; `commit` completes it.
    pub fn new(out: W, commit: Commit<W>, observer: Arc<Observer>) -> Self {
        Self {
            out: Some(out),
            commit,
            observer,
            max_value_bytes: u64::MAX,
            superseded: Superseded::default(),
            stands: None,
            ordinal: 0,
            module_aux: BTreeSet::new(),
            report: SinkReport::default(),
            census: Census::default(),
        }
    }

    /// Refuses values of more bytes, each by name.
    #[must_use]
    pub fn within(self, max_value_bytes: u64) -> Self {
        Self {
            max_value_bytes,
            ..self
        }
    }

    /// Writes each key once at most: not these records, which are not the last of their key, in the
    /// order in which they will come, and no keys that went away.
    #[must_use]
    pub fn without(self, superseded: Superseded) -> Self {
        Self { superseded, ..self }
    }

    /// The source may give a key again with another value. If that has to be left out, a line says
    /// that the key went away: the earlier value is no longer the key's.
    #[must_use]
    pub fn taking_back(self) -> Self {
        Self {
            stands: Some(OwnWrites::default()),
            ..self
        }
    }

    /// Whether the next record is not written because of its successor, or has nothing to delete.
    fn passes_over(&mut self, record: &Record) -> bool {
        if !matches!(record, Record::Key(_) | Record::Deleted { .. }) {
            return false;
        }
        let is_superseded = self.superseded.contains(self.ordinal);
        self.ordinal += 1;
        let is_gone = self.superseded.records.is_some() && matches!(record, Record::Deleted { .. });
        if is_superseded {
            self.report.records.taken += 1;
            self.report.records.replaced_own += 1;
        } else if is_gone {
            self.report.records.taken += 1;
            self.report.records.deleted += 1;
        }
        is_superseded || is_gone
    }

    fn put(&mut self, record: Record, context: &Context) -> Result<()> {
        if self.passes_over(&record) {
            return Ok(());
        }
        let line = match record {
            Record::Functions(dump) => {
                self.report.functions.taken += 1;
                match function_codes(&dump) {
                    Ok(codes) => {
                        self.report.functions.restored += 1;
                        let codes: Vec<Json> = codes.iter().map(|code| text(code)).collect();
                        json!({ "functions": codes })
                    }
                    Err(reason) => {
                        self.report.functions.refused += 1;
                        self.observer
                            .warn(&format!("function libraries are left out: {reason}"));
                        return Ok(());
                    }
                }
            }
            Record::Key(record) => return self.put_key(record, context),
            Record::Deleted { db, key } => {
                self.report.records.taken += 1;
                self.report.records.archived += 1;
                self.census.add_key(db, &key, true);
                deleted(db, &key)
            }
            _ => {
                self.report.records.taken += 1;
                self.report.records.refused += 1;
                return Ok(());
            }
        };
        self.write_line(&line)
    }

    fn put_key(&mut self, record: KeyRecord, context: &Context) -> Result<()> {
        self.report.records.taken += 1;
        let line = match is_larger(&record.value, context.family, self.max_value_bytes) {
            true => Err(larger_than(self.max_value_bytes)),
            false => {
                key(&record, context).map_err(|reason| format!("its value is damaged: {reason}"))
            }
        };
        match line {
            Ok(line) => {
                self.report.records.archived += 1;
                self.census.add_key(record.db, &record.key, false);
                if let Some(stands) = &mut self.stands {
                    let print = stands.fingerprint(record.db, &record.key);
                    stands
                        .insert(print)
                        .context("cannot remember a key in a temporary file")?;
                }
                self.write_line(&line)
            }
            Err(reason) => {
                self.report.records.refused += 1;
                self.take_back(record.db, &record.key)?;
                self.observer.key_failed(&KeyFailure {
                    db: record.db,
                    key: record.key,
                    kind: FailureKind::Refused,
                    reason,
                    hint: None,
                })
            }
        }
    }

    /// A later value of this key was left out.
    fn take_back(&mut self, db: u32, key: &[u8]) -> Result<()> {
        let Some(stands) = &mut self.stands else {
            return Ok(());
        };
        let print = stands.fingerprint(db, key);
        if !stands
            .contains(print)
            .context("cannot look up a key in a temporary file")?
        {
            return Ok(());
        }
        self.census.add_key(db, key, true);
        self.write_line(&deleted(db, key))
    }

    fn write_line(&mut self, line: &Json) -> Result<()> {
        let out = self
            .out
            .as_mut()
            .ok_or_else(|| anyhow!("the output is closed already"))?;
        write_json(&mut *out, line)
            .and_then(|()| out.write_all(b"\n"))
            .context("cannot write JSON Lines")
    }
}

impl<W: Write + Send> Sink for JsonlSink<W> {
    fn write(&mut self, batch: Batch) -> Result<()> {
        let context = batch.context;
        for aux in batch.module_aux {
            if self.module_aux.len() < MOST_MODULES {
                let short: String = aux.module.chars().take(64).collect();
                self.module_aux.insert(escape::clean(&short).into_owned());
            }
        }
        for record in batch.records {
            self.put(record, &context)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, _: &SourceReport) -> (SinkReport, Result<()>) {
        let done = match self.out.take() {
            Some(out) => (self.commit)(out).context("cannot complete the output"),
            None => Err(anyhow!("the output is closed already")),
        };
        if !self.module_aux.is_empty() {
            let modules: Vec<&str> = self.module_aux.iter().map(String::as_str).collect();
            self.observer.warn(&format!(
                "data of modules outside keys are left out, because JSON Lines hold only keys: {}",
                modules.join(", ")
            ));
        }
        self.report.keys = self.census.keys();
        (self.report, done)
    }

    fn abort(self: Box<Self>, _: &str) -> SinkReport {
        self.report
    }
}

/// The line of a key that went away.
fn deleted(db: u32, key: &[u8]) -> Json {
    json!({ "db": db, "key": text(key), "deleted": true })
}

/// Any bytes: as they read, or in hex.
fn text(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => Json::from(text),
        Err(_) => json!({ "hex": hex(bytes) }),
    }
}

/// The line of a key.
///
/// # Errors
/// What is damaged in its value.
pub fn key(record: &KeyRecord, context: &Context) -> Result<Json, String> {
    let mut line = Map::new();
    line.insert("db".to_owned(), record.db.into());
    line.insert("key".to_owned(), text(&record.key));
    let body = match &record.value {
        Value::Compact(body) => body.as_slice(),
        Value::Verbatim(dump) => payload::split(dump).map_err(|error| error.to_string())?.0,
        Value::Withheld(value) => return Err(not_kept(value)),
    };
    let kind = payload::kind(context.family, body).name();
    line.insert("type".to_owned(), kind.into());
    match payload::decode(context.family, body) {
        Ok(object) => {
            line.insert("value".to_owned(), value(&object)?);
        }
        Err(error) if error.is_opaque() => {
            if let Some(name) = payload::module_name_of(context.family, body) {
                line.insert("module".to_owned(), name.into());
            }
            let payload = match &record.value {
                Value::Verbatim(dump) => hex(dump),
                _ => hex(&payload::sign(body, context.rdb_version)),
            };
            line.insert("payload_hex".to_owned(), payload.into());
        }
        Err(error) => return Err(error.to_string()),
    }
    if payload::has_metadata(context.family, body) {
        line.insert("key_metadata".to_owned(), key_metadata(context, body)?);
    }
    if let Some(at_ms) = record.expire_at_ms {
        line.insert("expire_at_ms".to_owned(), at_ms.into());
    }
    match record.eviction {
        Some(Eviction::IdleSecs(secs)) => drop(line.insert("idle_secs".to_owned(), secs.into())),
        Some(Eviction::Freq(freq)) => drop(line.insert("freq".to_owned(), freq.into())),
        None => {}
    }
    Ok(Json::Object(line))
}

/// What modules keep beside a value: only they can read it.
fn key_metadata(context: &Context, body: &[u8]) -> Result<Json, String> {
    let classes = metadata::classes(context.family, body).map_err(|error| error.to_string())?;
    let row = |class: &metadata::Class<'_>| {
        json!({
            "class": class.name(),
            "version": class.version(),
            "may_be_ignored": class.may_be_ignored(),
            "hex": hex(class.items),
        })
    };
    Ok(classes.iter().map(row).collect())
}

fn value(object: &Object<'_>) -> Result<Json, String> {
    Ok(match object {
        Object::String(string) => text(string),
        Object::List(rows) | Object::Set(rows) => rows.iter().map(|row| text(row)).collect(),
        Object::ZSet(rows) => rows
            .iter()
            .map(|row| json!([text(&row.member), score(row.score)]))
            .collect(),
        Object::Hash(rows) => rows
            .iter()
            .map(|row| match row.expire_at_ms {
                Some(at_ms) => json!([text(&row.name), text(&row.value), at_ms]),
                None => json!([text(&row.name), text(&row.value)]),
            })
            .collect(),
        Object::Stream(value) => stream(value)?,
        Object::Array(array) => {
            let slots = array.slots.iter();
            let slots: Vec<Json> = slots
                .map(|slot| json!([slot.index, text(&slot.value.text())]))
                .collect();
            json!({ "elements": slots, "cursor": array.cursor })
        }
        Object::PathHash(paths) => paths
            .iter()
            .map(|path| {
                let fields = path.fields.iter();
                let fields: Vec<Json> = fields
                    .map(|(name, value)| json!([text(name), text(value)]))
                    .collect();
                json!([text(&path.path), fields])
            })
            .collect(),
    })
}

/// A number; JSON has none that is infinite.
fn score(score: f64) -> Json {
    if score == f64::INFINITY {
        "inf".into()
    } else if score == f64::NEG_INFINITY {
        "-inf".into()
    } else {
        json!(score)
    }
}

fn stream(stream: &Stream<'_>) -> Result<Json, String> {
    let mut entries = Vec::new();
    for entry in stream.entries() {
        let entry = entry.map_err(|error| error.to_string())?;
        let fields: Vec<Json> = entry
            .fields
            .iter()
            .map(|(field, value)| json!([text(field), text(value)]))
            .collect();
        entries.push(json!([entry.id.to_string(), fields]));
    }
    let groups: Vec<Json> = stream
        .groups
        .iter()
        .map(|of_stream| group(of_stream, stream.form))
        .collect();
    let mut line = json!({
        "entries": entries,
        "length": stream.length,
        "last_id": stream.last_id.to_string(),
        "max_deleted_id": stream.max_deleted_id.to_string(),
        "entries_added": stream.entries_added,
        "groups": groups,
    });
    if stream.form >= StreamForm::V4 {
        line["idempotency"] = idempotency(&stream.idempotency);
    }
    Ok(line)
}

fn idempotency(state: &Idempotency<'_>) -> Json {
    let producers: Vec<Json> = state
        .producers
        .iter()
        .map(|producer| {
            let ids = producer.ids.iter();
            let ids: Vec<Json> = ids
                .map(|id| json!([text(&id.name), id.entry.to_string()]))
                .collect();
            json!({ "name": text(&producer.name), "ids": ids })
        })
        .collect();
    json!({
        "duration_secs": state.duration_secs,
        "max_ids": state.max_ids,
        "producers": producers,
        "ids_added": state.ids_added,
        "duplicates": state.duplicates,
    })
}

fn group(group: &payload::Group<'_>, form: StreamForm) -> Json {
    let pending: Vec<Json> = group
        .pending
        .iter()
        .map(|pending| {
            json!({
                "id": pending.id.to_string(),
                "delivered_ms": pending.delivered_ms,
                "deliveries": pending.deliveries,
            })
        })
        .collect();
    let consumers: Vec<Json> = group
        .consumers
        .iter()
        .map(|consumer| {
            let ids: Vec<String> = consumer.pending.iter().map(ToString::to_string).collect();
            json!({
                "name": text(&consumer.name),
                "seen_ms": consumer.seen_ms,
                "active_ms": consumer.active_ms,
                "pending": ids,
            })
        })
        .collect();
    let mut line = json!({
        "name": text(&group.name),
        "last_id": group.last_id.to_string(),
        "entries_read": Some(group.entries_read).filter(|&read| read != ENTRIES_READ_UNKNOWN),
        "pending": pending,
        "consumers": consumers,
    });
    if form >= StreamForm::V5 {
        let ids = group.given_back.iter();
        line["given_back"] = ids.map(|id| Json::from(id.to_string())).collect();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Family;

    fn line(value: &[u8]) -> String {
        let record = KeyRecord {
            db: 3,
            key: b"k\xff".to_vec(),
            value: Value::Compact(value.to_vec()),
            expire_at_ms: Some(7),
            eviction: Some(Eviction::Freq(9)),
        };
        let context = Context {
            family: Family::Redis,
            rdb_version: 12,
            ..Context::default()
        };
        key(&record, &context).unwrap().to_string()
    }

    #[test]
    fn values_are_readable_and_no_byte_is_lost() {
        let rest = |value: &str| {
            format!(r#"{{"db":3,"expire_at_ms":7,"freq":9,"key":{{"hex":"6bff"}},{value}}}"#)
        };
        assert_eq!(
            line(b"\x00\x05he\"l\n"),
            rest(r#""type":"string","value":"he\"l\n""#)
        );
        assert_eq!(
            line(b"\x00\x02\xff\x00"),
            rest(r#""type":"string","value":{"hex":"ff00"}"#)
        );
        assert_eq!(
            line(b"\x01\x02\x01a\xc0\x07"),
            rest(r#""type":"list","value":["a","7"]"#)
        );
        assert_eq!(
            line(b"\x05\x02\x01a\x00\x00\x00\x00\x00\x00\xf0\x7f\x01b\x00\x00\x00\x00\x00\x00\xf8\x3f"),
            rest(r#""type":"zset","value":[["a","inf"],["b",1.5]]"#)
        );
        let mut hash = vec![24];
        hash.extend_from_slice(&1000_u64.to_le_bytes());
        hash.extend_from_slice(b"\x02\x01\x01f\x01v\x00\x01g\x01w");
        assert_eq!(
            line(&hash),
            rest(r#""type":"hash","value":[["f","v",1000],["g","w"]]"#)
        );
        let module = b"\x07\x81\x01\x02\x03\x04\x05\x06\x07\x08\x00";
        assert!(
            line(module).contains(r#""payload_hex":"0781"#),
            "{}",
            line(module)
        );
        assert!(line(module).contains(r#""module":""#));
    }

    /// What a stream of Redis 8.6 remembers of producers, and of 8.8 what was given back.
    #[test]
    fn streams_say_what_they_remember() {
        let state = b"\x40\x3c\x40\x07\x01\x02p\xff\x01\x02i1\x05\x01\x09\x02";
        let value = |type_byte: u8, groups: &[u8]| {
            [&[type_byte, 0, 0, 9, 0, 0, 0, 0, 0, 0][..], groups, state].concat()
        };
        let remembered = r#""idempotency":{"duplicates":2,"duration_secs":60,"ids_added":9,"max_ids":7,"producers":[{"ids":[["i1","5-1"]],"name":{"hex":"70ff"}}]}"#;
        let told = line(&value(26, &[0]));
        assert!(told.contains(remembered), "{told}");
        assert!(!told.contains("given_back"), "{told}");
        let id = payload::StreamId { ms: 3, seq: 4 }.to_bytes();
        let pending = [&id[..], &[0; 8], &[1]].concat();
        let group = [&[1, 1, b'g', 0, 0, 0, 1][..], &pending, &[0, 1], &id].concat();
        let told = line(&value(27, &group));
        assert!(told.contains(r#""given_back":["3-4"]"#), "{told}");
        assert!(told.contains(remembered), "{told}");
        // Earlier forms say nothing of it.
        let earlier = line(&[21, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        assert!(!earlier.contains("idempotency"), "{earlier}");
    }
}
