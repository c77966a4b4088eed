//! The memory of keys by which a later run sees that what was acknowledged stands ([`Acknowledged`]).

use std::collections::BTreeMap;

use super::item::Item;
use crate::dialect::is_common;
use crate::own_writes::{Fingerprint, FingerprintSet};
use crate::payload::{self, Kind, kind_of};
use crate::record::{Batch, Family, Record, Value};
use crate::sink::server::witness::{Acknowledged, Holds};

/// Larger values are not kept to be noted.
const MAX_VALUE_BYTES: usize = 64 << 10;

/// Longer names are not noted.
const MAX_KEY_BYTES: usize = 1 << 10;

/// Keys that are noted at most: they are kept in memory, to be noted again when they change.
const MAX_KNOWN: usize = 1 << 16;

/// Beyond [`MAX_KNOWN`], so many keys of a database are noted all the same.
const ALWAYS_OF_A_DATABASE: u32 = 8;

/// One key of so many is noted as a sample.
const SAMPLE_STEP: u64 = 64;

/// That step doubles whenever so many more keys are noted, so that samples never fill the room.
const STEP_DOUBLES_AT: usize = 1 << 12;

/// Samples between two marks at most: their values are kept in memory until then.
const MAX_SAMPLES: usize = 64;

/// The last key of a lane in a database.
#[derive(Default)]
struct Latest {
    print: Fingerprint,
    db: u32,
    key: Vec<u8>,
    value: Vec<u8>,
    is_verbatim: bool,
    fit: Fit,
    expire_at_ms: Option<u64>,
    family: Family,
}

/// What was acknowledged lately.
#[derive(Default)]
pub(super) struct Witnesses {
    /// By lane and database.
    latest: BTreeMap<(usize, u32), Latest>,
    known: FingerprintSet,
    unsaved: Vec<Acknowledged>,
    /// Keys since the last sample, and samples since the last mark.
    since_sample: u64,
    samples: usize,
    /// Keys of each database that this run has noted.
    noted: BTreeMap<u32, u32>,
}

/// What of a key can be looked at later; the best comes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Fit {
    #[default]
    Nothing,
    /// Whether it stands, until its last field expires.
    Fields,
    /// Whether it stands.
    Standing,
    /// What it holds.
    Value,
}

impl Fit {
    fn of(item: &Item) -> Self {
        let record = &item.record;
        let type_byte = payload::type_byte(item.context.family, record.value.head());
        let type_byte = type_byte.unwrap_or(u8::MAX);
        let kind = kind_of(item.context.family, type_byte);
        let is_small = record.value.bytes().len() <= MAX_VALUE_BYTES;
        // Of the types that a family has alone, some change by themselves: hashes whose fields expire.
        let is_changing = !is_common(type_byte);
        if record.key.len() > MAX_KEY_BYTES {
            return Self::Nothing;
        }
        match kind {
            Kind::Hash if is_changing && is_small => Self::Fields,
            Kind::Hash if is_changing => Self::Nothing,
            Kind::Stream | Kind::Module => Self::Standing,
            Kind::Hash
            | Kind::String
            | Kind::List
            | Kind::Set
            | Kind::ZSet
            | Kind::Array
            | Kind::PathHash
            | Kind::Unknown => match is_small && !is_changing {
                true => Self::Value,
                false => Self::Standing,
            },
        }
    }

    /// What is noted of a value, and until when at most it can be looked for, Unix ms.
    fn holds(self, family: Family, value: Value) -> (Holds, Option<u64>) {
        match self {
            Self::Value => (Holds::Value(value), None),
            Self::Standing => (Holds::Something, None),
            Self::Nothing => (Holds::Unknown, None),
            Self::Fields => match payload::last_field_ms(family, &value) {
                Some(until_ms) => (Holds::Something, until_ms),
                None => (Holds::Unknown, None),
            },
        }
    }
}

fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

fn acknowledged(item: &Item, fit: Fit) -> Acknowledged {
    let value = match fit {
        Fit::Value | Fit::Fields => item.record.value.clone(),
        Fit::Standing | Fit::Nothing => Value::Compact(Vec::new()),
    };
    let (holds, until_ms) = fit.holds(item.context.family, value);
    Acknowledged {
        print: item.print,
        db: item.record.db,
        key: item.record.key.clone(),
        expire_at_ms: earlier(item.record.expire_at_ms, until_ms),
        family: item.context.family,
        holds,
    }
}

impl Witnesses {
    /// `known` were noted by an earlier run.
    pub fn new(known: FingerprintSet) -> Self {
        Self {
            known,
            ..Self::default()
        }
    }

    /// The key stands as it was sent.
    pub fn acknowledged(&mut self, at: usize, item: &Item) {
        let (record, fit) = (&item.record, Fit::of(item));
        if self.known.contains(&item.print) {
            self.unsaved.push(acknowledged(item, fit));
        } else if fit == Fit::Value && self.is_sample() {
            // It may be the last one, too, with an older value.
            self.latest.retain(|_, latest| latest.print != item.print);
            self.note(item.print, record.db);
            self.unsaved.push(acknowledged(item, fit));
        } else if fit > Fit::Nothing && self.has_room_for(record.db) {
            // Nearly every key comes by here: its buffers are used again.
            let latest = self.latest.entry((at, record.db)).or_default();
            if fit < latest.fit && latest.print != item.print {
                return;
            }
            latest.print = item.print;
            latest.db = record.db;
            latest.key.clear();
            latest.key.extend_from_slice(&record.key);
            latest.value.clear();
            if fit != Fit::Standing {
                latest.value.extend_from_slice(record.value.bytes());
            }
            latest.fit = fit;
            latest.is_verbatim = matches!(record.value, Value::Verbatim(_));
            latest.expire_at_ms = record.expire_at_ms;
            latest.family = item.context.family;
        } else if fit == Fit::Nothing && !self.noted.contains_key(&record.db) {
            // That there was something in this database.
            self.note(item.print, record.db);
            self.unsaved.push(acknowledged(item, fit));
        }
    }

    /// Whether the next key is one of the sample.
    fn is_sample(&mut self) -> bool {
        self.since_sample += 1;
        let step = SAMPLE_STEP << (self.known.len() / STEP_DOUBLES_AT);
        let is_one =
            self.since_sample >= step && self.samples < MAX_SAMPLES && self.known.len() < MAX_KNOWN;
        if is_one {
            self.since_sample = 0;
            self.samples += 1;
        }
        is_one
    }

    fn has_room_for(&self, db: u32) -> bool {
        self.known.len() < MAX_KNOWN
            || self.noted.get(&db).copied().unwrap_or(0) < ALWAYS_OF_A_DATABASE
    }

    fn note(&mut self, print: Fingerprint, db: u32) {
        self.known.insert(print);
        *self.noted.entry(db).or_default() += 1;
    }

    /// The key does not stand any more.
    pub fn removed(&mut self, item: &Item) {
        self.latest.retain(|_, latest| latest.print != item.print);
        if self.known.contains(&item.print) {
            self.unsaved.push(acknowledged(item, Fit::Nothing));
        }
    }

    /// Keys that were acknowledged last, a sample of the others, and those noted before that have
    /// changed since. `is_open`: whether a later record of the key is on its way.
    pub fn take_unsaved(&mut self, is_open: impl Fn(Fingerprint) -> bool) -> Vec<Acknowledged> {
        for latest in std::mem::take(&mut self.latest).into_values() {
            let value = match latest.is_verbatim {
                true => Value::Verbatim(latest.value),
                false => Value::Compact(latest.value),
            };
            let (holds, until_ms) = latest.fit.holds(latest.family, value);
            self.note(latest.print, latest.db);
            self.unsaved.push(Acknowledged {
                print: latest.print,
                db: latest.db,
                key: latest.key,
                expire_at_ms: earlier(latest.expire_at_ms, until_ms),
                family: latest.family,
                holds,
            });
        }
        self.samples = 0;
        let mut all = std::mem::take(&mut self.unsaved);
        // Of what a later record has on its way already, nobody can say which one stands.
        for one in &mut all {
            if is_open(one.print) {
                one.holds = Holds::Unknown;
            }
        }
        all
    }

    /// Keys that were noted and that records of this batch are about to change: until they are
    /// acknowledged, nobody can say what they hold.
    pub fn about_to_change(
        &self,
        batch: &Batch,
        fingerprint: impl Fn(u32, &[u8]) -> Fingerprint,
    ) -> Vec<Acknowledged> {
        if self.known.is_empty() {
            return Vec::new();
        }
        let names = batch.records.iter().filter_map(|record| match record {
            Record::Key(record) => Some((record.db, &record.key)),
            Record::Deleted { db, key } => Some((*db, key)),
            _ => None,
        });
        let noted = names.filter_map(|(db, key)| {
            let print = fingerprint(db, key);
            self.known.contains(&print).then(|| Acknowledged {
                print,
                db,
                key: key.clone(),
                expire_at_ms: None,
                family: Family::default(),
                holds: Holds::Unknown,
            })
        });
        noted.collect()
    }
}
