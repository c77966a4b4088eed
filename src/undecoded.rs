//! What of a data set this version cannot look into: which types, and how many values of each.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use redis_migrate_format::record::{Family, KeyRecord, Value};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::payload::{
    Encoding, Examined, FOOTER_LEN, Kind, examine, kind_of, module_name_of, plain, vector_layout,
};
use crate::units::plural;

/// The module's name of vector sets, which can be read.
const VECTOR_SET: &str = "vectorset";

/// Types that are told apart: the names of modules' types may be anything.
const MAX_TYPES: usize = 100;

/// Keys that are told apart, so that one that is read again is not counted again. Beyond that, records
/// are counted.
const MAX_KEYS: usize = 64 * 1024;

/// Types that a sentence names.
const TYPES_TOLD: usize = 12;

/// A type whose values cannot be looked into.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Unknown {
    type_byte: u8,
    /// What TYPE calls it, where that is known.
    name: Option<String>,
    /// The module's name of the type, of a module's value.
    module: Option<String>,
}

/// How many values cannot be looked into, by type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undecoded {
    types: Vec<(Unknown, u64)>,
    /// Of further types.
    others: u64,
    /// The keys that were counted.
    #[serde(skip)]
    seen: HashSet<u64>,
    /// Not all of them were kept: a key with several records may have been counted twice.
    has_records: bool,
    /// They come from a server that only calls itself Redis, whose types nobody else has.
    #[serde(default)]
    is_of_lookalike: bool,
}

impl Undecoded {
    /// Counts a key from a server of `family`, if its value is such. `is_whole`: all its bytes are
    /// there.
    pub fn note(&mut self, family: Family, record: &KeyRecord, is_whole: bool) {
        let body = match &record.value {
            Value::Compact(body) => body.as_slice(),
            Value::Verbatim(dump) if is_whole => &dump[..dump.len().saturating_sub(FOOTER_LEN)],
            Value::Verbatim(dump) => dump,
            Value::Withheld(_) => return,
        };
        let Some(unknown) = unknown(family, body, is_whole) else {
            return;
        };
        self.is_of_lookalike |= family == Family::Other;
        let mut hasher = DefaultHasher::new();
        (record.db, &record.key).hash(&mut hasher);
        let print = hasher.finish();
        if self.seen.contains(&print) {
            return;
        }
        match self.seen.len() < MAX_KEYS {
            true => drop(self.seen.insert(print)),
            false => self.has_records = true,
        }
        match self.types.iter().position(|(known, _)| *known == unknown) {
            Some(at) => self.types[at].1 += 1,
            None if self.types.len() < MAX_TYPES => self.types.push((unknown, 1)),
            None => self.others += 1,
        }
    }

    /// What an earlier run counted, for one that goes on and does not know its keys.
    #[must_use]
    pub fn continued(mut self) -> Self {
        self.has_records |= !self.types.is_empty();
        self
    }

    fn counted(&self, count: u64) -> String {
        plural(count, if self.has_records { "record" } else { "value" })
    }

    /// Of types that are newer than this version.
    fn of_new_types(&self) -> Vec<String> {
        let types = self.types.iter().filter(|(one, _)| one.module.is_none());
        types
            .map(
                |(
                    Unknown {
                        type_byte, name, ..
                    },
                    count,
                )| {
                    let name = name
                        .as_ref()
                        .map_or(String::new(), |name| format!(" ({name})"));
                    format!("{} of type {type_byte}{name}", self.counted(*count))
                },
            )
            .collect()
    }

    /// Of types of modules.
    fn of_modules(&self) -> Vec<String> {
        let types = self.types.iter();
        types
            .filter_map(|(one, count)| {
                let module = one.module.as_ref()?;
                Some(format!("{} of {module:?}", self.counted(*count)))
            })
            .collect()
    }

    /// What cannot be looked into because it is newer than this version, in a line; `None` where
    /// there is none.
    pub fn warning(&self) -> Option<String> {
        let mut told = self.of_new_types();
        if self.others > 0 {
            told.push(format!("{} of other types", self.counted(self.others)));
        }
        let fate = match self.is_of_lookalike {
            true => "no other kind of server has them, and they are written to none",
            false => {
                "they go only to servers of the same family, as they are, and each server decides \
                 whether it accepts them"
            }
        };
        (!told.is_empty()).then(|| {
            let told = listed(told);
            format!("{told}: this version cannot look into them; {fate}")
        })
    }

    /// The same of the values of modules.
    pub fn notice(&self) -> Option<String> {
        let told = self.of_modules();
        (!told.is_empty()).then(|| {
            format!(
                "{}, which are types of modules: only the module can look into them; they go only \
                 to servers of the same family that have it",
                listed(told)
            )
        })
    }

    /// As a list of objects, which count values.
    pub fn json(&self) -> Json {
        let sorted: BTreeMap<&Unknown, u64> = self
            .types
            .iter()
            .map(|(one, count)| (one, *count))
            .collect();
        let mut rows: Vec<Json> = sorted
            .into_iter()
            .map(|(one, count)| {
                json!({
                    "type_byte": one.type_byte,
                    "type": one.name,
                    "module": one.module,
                    "values": count,
                })
            })
            .collect();
        if self.others > 0 {
            rows.push(json!({
                "type_byte": null, "type": null, "module": null, "values": self.others,
            }));
        }
        rows.into()
    }
}

fn listed(mut told: Vec<String>) -> String {
    told.sort();
    if told.len() > TYPES_TOLD {
        let more = told.len() - TYPES_TOLD;
        told.truncate(TYPES_TOLD);
        told.push(format!("{more} more types"));
    }
    told.join(", ")
}

/// Which type a value is of, if it cannot be looked into.
fn unknown(family: Family, body: &[u8], is_whole: bool) -> Option<Unknown> {
    let body = plain(family, body);
    let &type_byte = body.first()?;
    let module = match Encoding::of(family, type_byte) {
        Some(Encoding::Module) => {
            let name = module_name_of(family, body).unwrap_or_else(|| "?".to_owned());
            if name == VECTOR_SET && (!is_whole || vector_layout(body).is_some()) {
                return None;
            }
            Some(name)
        }
        // What real servers wrote was read.
        Some(encoding) if encoding.is_proven() => return None,
        _ if examine(family, body) != Examined::Opaque => return None,
        _ => None,
    };
    let name = match kind_of(family, type_byte) {
        Kind::Unknown => None,
        kind => Some(kind.name().to_owned()),
    };
    Some(Unknown {
        type_byte,
        name,
        module,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::sign;

    fn record(key: usize, value: Value) -> KeyRecord {
        KeyRecord {
            db: 0,
            key: key.to_string().into_bytes(),
            value,
            expire_at_ms: None,
            eviction: None,
        }
    }

    const MODULE: &[u8] = b"\x07\x81\x01\x02\x03\x04\x05\x06\x07\x08\x02\x05\x00";

    #[test]
    fn they_are_counted_by_type() {
        let mut undecoded = Undecoded::default();
        let bodies: [&[u8]; 5] = [b"\x63abc", b"\x63", b"\x64x", b"\x00\x01a", MODULE];
        for (key, body) in bodies.iter().enumerate() {
            let dump = record(key, Value::Verbatim(sign(body, 16)));
            // Read twice, counted once.
            undecoded.note(Family::Redis, &dump, true);
            undecoded.note(Family::Redis, &dump, true);
        }
        let compact = record(7, Value::Compact(b"\x00\x01a".to_vec()));
        undecoded.note(Family::Redis, &compact, true);
        // Of a value of which only the first is there.
        let begun = record(8, Value::Verbatim(b"\x63".to_vec()));
        undecoded.note(Family::Redis, &begun, false);
        let text = undecoded.warning().expect("some");
        assert!(
            text.starts_with("1 value of type 100, 3 values of type 99: this version"),
            "{text}"
        );
        assert!(
            text.contains("only to servers of the same family"),
            "{text}"
        );
        let mut own = Undecoded::default();
        own.note(Family::Other, &begun, false);
        let text = own.warning().expect("one");
        assert!(text.ends_with("written to none"), "{text}");
        let name = module_name_of(Family::Redis, MODULE).expect("a module's value");
        let text = undecoded.notice().expect("one");
        assert!(text.starts_with(&format!("1 value of {name:?}")), "{text}");
        let rows = undecoded.json();
        assert_eq!(rows[0]["module"], json!(name));
        assert_eq!(rows[1]["type_byte"], 99);
        assert_eq!(rows[1]["values"], 3);
        assert_eq!(rows.as_array().map(Vec::len), Some(3));
    }

    /// The journal of an export that is gone on with holds the counts, and not the keys.
    #[test]
    fn an_earlier_run_counted_records() {
        let mut undecoded = Undecoded::default();
        let dump = record(1, Value::Verbatim(sign(b"\x63a", 16)));
        undecoded.note(Family::Redis, &dump, true);
        let kept = serde_json::to_string(&undecoded).expect("JSON");
        let read: Undecoded = serde_json::from_str(&kept).expect("what was written");
        let mut read = read.continued();
        read.note(Family::Redis, &dump, true);
        let text = read.warning().expect("two");
        assert!(text.starts_with("2 records of type 99"), "{text}");
    }

    /// `VADD one VALUES 3 1 2 3 a NOQUANT` at Redis 8.0, without the footer.
    fn vector_set() -> Vec<u8> {
        const HEX: &str = "0781bde72da2bb1eb400020302010250000200050161050c77d6883e77d6083fb2414d3f\
                           020502010200020002200280406f775100";
        HEX.as_bytes()
            .chunks(2)
            .map(|two| u8::from_str_radix(&String::from_utf8_lossy(two), 16).expect("hex"))
            .collect()
    }

    #[test]
    fn there_is_nothing_to_say_where_all_was_read() {
        let mut undecoded = Undecoded::default();
        for (key, body) in [b"\x00\x01a".to_vec(), b"".to_vec(), vector_set()]
            .iter()
            .enumerate()
        {
            let dump = record(key, Value::Verbatim(sign(body, 13)));
            undecoded.note(Family::Redis, &dump, true);
        }
        assert_eq!((undecoded.warning(), undecoded.notice()), (None, None));
        assert_eq!(undecoded.json(), json!([]));
    }

    #[test]
    fn the_number_of_types_is_bounded() {
        let mut undecoded = Undecoded::default();
        for id in 0..500_u64 {
            let body = [&[7, 0x81][..], &(id << 10).to_be_bytes(), &[0]].concat();
            let dump = record(id as usize, Value::Compact(body));
            undecoded.note(Family::Redis, &dump, true);
        }
        assert_eq!(undecoded.others, 400);
        assert!(undecoded.notice().is_some_and(|text| text.len() < 1000));
    }
}
