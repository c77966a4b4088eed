//! Values whose layout is known from published sources only: counted on their way, and named once,
//! at the end of a run.

use crate::dialect::{Encoding, Kind};
use crate::observer::Observer;
use crate::payload::metadata::type_byte;
use crate::record::{Batch, Record};
use crate::units::{count_text, plural};

/// How many values there were of each such type.
#[derive(Debug, Default)]
pub(crate) struct Unproven(Vec<(Encoding, u64)>);

impl Unproven {
    /// Counts those of a batch.
    pub(crate) fn note(&mut self, batch: &Batch) {
        for record in &batch.records {
            if let Record::Key(record) = record
                && let Some(type_byte) = type_byte(batch.context.family, record.value.bytes())
                && let Some(encoding) = Encoding::of(batch.context.family, type_byte)
                && !encoding.is_proven()
            {
                self.add(encoding, 1);
            }
        }
    }

    /// Counts more of a type.
    pub(crate) fn add(&mut self, encoding: Encoding, count: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == encoding) {
            Some((_, counted)) => *counted += count,
            None => self.0.push((encoding, count)),
        }
    }

    /// Names them.
    pub(crate) fn tell(&self, observer: &Observer) {
        let named: Vec<String> = self.0.iter().map(|(one, n)| named(*one, *n)).collect();
        if !named.is_empty() {
            observer.warn(&format!(
                "{}: read by published layouts, which were not tested with a server; compare some \
                 of the values with what the source answers",
                named.join(", ")
            ));
        }
    }
}

/// `3 arrays of Redis 8.8`.
fn named(encoding: Encoding, count: u64) -> String {
    let kind = encoding.kind();
    let what = match kind {
        Kind::PathHash => hashes(count, "path "),
        Kind::Hash if encoding.is_templated() => format!("{} with templates", hashes(count, "")),
        Kind::Hash => hashes(count, ""),
        Kind::String
        | Kind::List
        | Kind::Set
        | Kind::ZSet
        | Kind::Stream
        | Kind::Array
        | Kind::Module
        | Kind::Unknown => plural(count, kind.name()),
    };
    format!("{what} of {}", encoding.brought_by())
}

fn hashes(count: u64, kind: &str) -> String {
    let es = if count == 1 { "" } else { "es" };
    format!("{} {kind}hash{es}", count_text(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::Recording;
    use crate::record::{Context, Family, KeyRecord, Value};

    #[test]
    fn they_are_named_once() {
        let recording = Recording::default();
        let observer = Observer::new(Box::new(recording.clone()), None, None);
        let mut unproven = Unproven::default();
        unproven.tell(&observer);
        assert!(recording.lines().is_empty());
        let of_types = |family, types: &[u8]| {
            let mut batch = Batch::limited(usize::MAX, usize::MAX);
            batch.context = Context {
                family,
                ..Context::default()
            };
            for &type_byte in types {
                batch.push(Record::Key(KeyRecord {
                    db: 0,
                    key: b"k".to_vec(),
                    value: Value::Compact(vec![type_byte, 0]),
                    expire_at_ms: None,
                    eviction: None,
                }));
            }
            batch
        };
        unproven.note(&of_types(Family::Redis, &[0, 21, 28, 28, 22, 26]));
        // 28 of Valkey is nothing that is known.
        unproven.note(&of_types(Family::Valkey, &[28, 22, 23]));
        unproven.add(Encoding::RedisTemplateTableRef, 2);
        unproven.tell(&observer);
        let lines = recording.lines();
        assert_eq!(lines.len(), 1);
        let due = "2 arrays of Redis 8.8, 1 path hash of Valkey 9.2, 2 hashes with templates of Redis \
                   8.10: read by published layouts";
        assert!(lines[0].contains(due), "{}", lines[0]);
    }
}
