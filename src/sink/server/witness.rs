//! Keys by which a later run can see that the destination still holds what it acknowledged.
//!
//! Whenever an import notes how far it has come, it also notes the key that was acknowledged last,
//! with what it holds. As the destination carries out what it is sent in order, a memory that holds
//! the last of them holds all before it; and the earlier ones, spread over databases and nodes, show
//! a FLUSHDB or a node that came back empty.

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
const MAX_KNOWN: usize = 1 << 15;

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
    /// What it holds; `None` for a key that was noted before and is not to be looked at any more.
    pub value: Option<Value>,
}

/// The last key of a lane.
#[derive(Default)]
struct Latest {
    print: Fingerprint,
    db: u32,
    key: Vec<u8>,
    value: Vec<u8>,
    is_verbatim: bool,
    expire_at_ms: Option<u64>,
    family: Family,
}

/// What was acknowledged lately.
#[derive(Default)]
pub(super) struct Witnesses {
    latest: BTreeMap<usize, Latest>,
    known: FingerprintSet,
    unsaved: Vec<Acknowledged>,
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

fn acknowledged(sent: &Sent, value: Option<Value>) -> Acknowledged {
    Acknowledged {
        print: sent.print,
        db: sent.record.db,
        key: sent.record.key.clone(),
        expire_at_ms: sent.record.expire_at_ms,
        family: sent.context.family,
        value,
    }
}

impl Witnesses {
    fn acknowledged(&mut self, at: usize, sent: &Sent) {
        let (record, is_fit) = (&sent.record, is_fit(sent));
        if self.known.contains(&sent.print) {
            let value = is_fit.then(|| record.value.clone());
            self.unsaved.push(acknowledged(sent, value));
        } else if is_fit && self.known.len() < MAX_KNOWN {
            // Nearly every key comes by here: its buffers are used again.
            let latest = self.latest.entry(at).or_default();
            latest.print = sent.print;
            latest.db = record.db;
            latest.key.clear();
            latest.key.extend_from_slice(&record.key);
            latest.value.clear();
            latest.value.extend_from_slice(record.value.bytes());
            latest.is_verbatim = matches!(record.value, Value::Verbatim(_));
            latest.expire_at_ms = record.expire_at_ms;
            latest.family = sent.context.family;
        }
    }

    fn removed(&mut self, sent: &Sent) {
        self.latest.retain(|_, latest| latest.print != sent.print);
        if self.known.contains(&sent.print) {
            self.unsaved.push(acknowledged(sent, None));
        }
    }

    fn take_unsaved(&mut self) -> Vec<Acknowledged> {
        for latest in std::mem::take(&mut self.latest).into_values() {
            self.known.insert(latest.print);
            self.unsaved.push(Acknowledged {
                print: latest.print,
                db: latest.db,
                key: latest.key,
                expire_at_ms: latest.expire_at_ms,
                family: latest.family,
                value: Some(match latest.is_verbatim {
                    true => Value::Verbatim(latest.value),
                    false => Value::Compact(latest.value),
                }),
            });
        }
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

    /// Keys that were acknowledged last, and those noted before that have changed since.
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
