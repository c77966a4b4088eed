//! Keys by which a later run can see that the destination still holds what it acknowledged.
//!
//! Whenever an import notes how far it has come, it also notes, with what they hold, the last key
//! that each node acknowledged in each database, and a sample of all the others. A memory that was
//! replaced lacks the last ones; FLUSHDB, SWAPDB and a node that came back empty take those of
//! their database or slots.

use std::collections::BTreeMap;

use super::{Sent, ServerSink};
use crate::memory::{Fingerprint, FingerprintSet};
use crate::payload::{Kind, kind_of};
use crate::record::{Family, Value};

/// Larger values are not kept to be noted.
const MAX_VALUE_BYTES: usize = 64 << 10;

/// Longer names are not noted.
const MAX_KEY_BYTES: usize = 1 << 10;

/// The first type byte of hashes whose fields expire, which change by themselves.
const FIRST_CHANGING_TYPE: u8 = 22;

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

/// What a later run can look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holds {
    /// The value.
    Value(Value),
    /// The key, whatever it holds: its value is large, or changes by itself.
    Something,
    /// Nothing: the key was noted before and is not to be looked at any more.
    Unknown,
}

/// A key as it was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// Of the key.
    pub print: Fingerprint,
    /// Its database.
    pub db: u32,
    /// Its name.
    pub key: Vec<u8>,
    /// When it expires, Unix ms.
    pub expire_at_ms: Option<u64>,
    /// Whose type byte the value has.
    pub family: Family,
    /// What it holds.
    pub holds: Holds,
}

/// The last key of a lane in a database.
#[derive(Default)]
struct Latest {
    print: Fingerprint,
    db: u32,
    key: Vec<u8>,
    value: Vec<u8>,
    is_verbatim: bool,
    /// Whether its value can be compared.
    is_fit: bool,
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

/// Whether a key can be looked at later, and is the same then.
fn is_fit(sent: &Sent) -> bool {
    let record = &sent.record;
    let type_byte = record.value.type_byte().unwrap_or(u8::MAX);
    let kind = kind_of(sent.context.family, type_byte);
    record.key.len() <= MAX_KEY_BYTES
        && record.value.bytes().len() <= MAX_VALUE_BYTES
        && type_byte < FIRST_CHANGING_TYPE
        && !matches!(kind, Kind::Stream | Kind::Module)
}

/// Whether it can be seen later that the key stands, at least. A hash goes with its last field.
fn is_lasting(sent: &Sent) -> bool {
    let record = &sent.record;
    let type_byte = record.value.type_byte().unwrap_or(u8::MAX);
    let is_hash = kind_of(sent.context.family, type_byte) == Kind::Hash;
    record.key.len() <= MAX_KEY_BYTES && !(is_hash && type_byte >= FIRST_CHANGING_TYPE)
}

fn acknowledged(sent: &Sent, holds: Holds) -> Acknowledged {
    Acknowledged {
        print: sent.print,
        db: sent.record.db,
        key: sent.record.key.clone(),
        expire_at_ms: sent.record.expire_at_ms,
        family: sent.context.family,
        holds,
    }
}

impl Witnesses {
    fn acknowledged(&mut self, at: usize, sent: &Sent) {
        let (record, is_fit) = (&sent.record, is_fit(sent));
        if self.known.contains(&sent.print) {
            let holds = match is_fit {
                true => Holds::Value(record.value.clone()),
                false if is_lasting(sent) => Holds::Something,
                false => Holds::Unknown,
            };
            self.unsaved.push(acknowledged(sent, holds));
        } else if is_fit && self.is_sample() {
            // It may be the last one, too, with an older value.
            self.latest.retain(|_, latest| latest.print != sent.print);
            self.note(sent.print, record.db);
            let holds = Holds::Value(record.value.clone());
            self.unsaved.push(acknowledged(sent, holds));
        } else if (is_fit || is_lasting(sent)) && self.has_room_for(record.db) {
            // Nearly every key comes by here: its buffers are used again.
            let latest = self.latest.entry((at, record.db)).or_default();
            if !is_fit && latest.is_fit && latest.print != sent.print {
                return;
            }
            latest.print = sent.print;
            latest.db = record.db;
            latest.key.clear();
            latest.key.extend_from_slice(&record.key);
            latest.value.clear();
            if is_fit {
                latest.value.extend_from_slice(record.value.bytes());
            }
            latest.is_fit = is_fit;
            latest.is_verbatim = matches!(record.value, Value::Verbatim(_));
            latest.expire_at_ms = record.expire_at_ms;
            latest.family = sent.context.family;
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

    fn removed(&mut self, sent: &Sent) {
        self.latest.retain(|_, latest| latest.print != sent.print);
        if self.known.contains(&sent.print) {
            self.unsaved.push(acknowledged(sent, Holds::Unknown));
        }
    }

    fn take_unsaved(&mut self) -> Vec<Acknowledged> {
        for latest in std::mem::take(&mut self.latest).into_values() {
            self.note(latest.print, latest.db);
            self.unsaved.push(Acknowledged {
                print: latest.print,
                db: latest.db,
                key: latest.key,
                expire_at_ms: latest.expire_at_ms,
                family: latest.family,
                holds: match (latest.is_fit, latest.is_verbatim) {
                    (false, _) => Holds::Something,
                    (true, true) => Holds::Value(Value::Verbatim(latest.value)),
                    (true, false) => Holds::Value(Value::Compact(latest.value)),
                },
            });
        }
        self.samples = 0;
        std::mem::take(&mut self.unsaved)
    }
}

impl ServerSink {
    /// From now on, notes keys for [`Self::take_acknowledged`]; `known` were noted by an earlier run.
    pub fn keep_witnesses(&mut self, known: FingerprintSet) {
        self.witnesses = Some(Witnesses {
            known,
            ..Witnesses::default()
        });
    }

    /// Keys that were acknowledged last, a sample of the others, and those noted before that have
    /// changed since.
    pub fn take_acknowledged(&mut self) -> Vec<Acknowledged> {
        let witnesses = self.witnesses.as_mut();
        witnesses.map_or_else(Vec::new, Witnesses::take_unsaved)
    }

    /// The key stands as it was sent.
    pub(super) fn witness(&mut self, at: usize, sent: &Sent) {
        if let Some(witnesses) = &mut self.witnesses {
            witnesses.acknowledged(at, sent);
        }
    }

    /// The key does not stand any more.
    pub(super) fn witness_removed(&mut self, sent: &Sent) {
        if let Some(witnesses) = &mut self.witnesses {
            witnesses.removed(sent);
        }
    }

    /// The processes that are written to (`run_id`); `None` for one that does not say.
    pub fn processes(&self) -> impl Iterator<Item = Option<&str>> {
        let met = self.lanes.iter().filter(|lane| lane.conn.is_some());
        met.map(|lane| lane.facts.run_id.as_deref())
    }

    /// A process was started anew, or replaced, after it had acknowledged something.
    pub fn has_lost_memory(&self) -> bool {
        self.memory_lost
    }
}
