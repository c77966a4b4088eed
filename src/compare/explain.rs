//! Where two values differ: a second look at a few keys, with their values in memory.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::{Arc, Mutex};

use anyhow::Result;

use super::hashing::{Print, Prints};
use crate::ledger::{RecordCounts, SinkReport, SourceReport};
use crate::own_writes::{Already, FingerprintSet};
use crate::payload::meaning::{Difference, Lenience, same_but};
use crate::payload::split;
use crate::record::{Batch, Family, Record, Value};
use crate::sink::Sink;

/// Keys that are looked at again.
pub(crate) const MAX_KEYS: usize = 1_000;

/// Bytes of values that are kept of each side; of what comes after that nothing is said.
const MAX_BYTES: usize = 16 * 1024 * 1024;

type ByPrint<T> = HashMap<Print, T, BuildHasherDefault<Already>>;

/// Values of one side, and the family of the server that wrote each.
pub(crate) type Values = ByPrint<(Family, Value)>;

/// Where keys differ.
pub(crate) type Places = ByPrint<Difference>;

/// Keeps the values of a few keys.
pub(crate) struct Keep {
    prints: Prints,
    wanted: Arc<FingerprintSet>,
    values: Values,
    bytes: usize,
    taken: u64,
    into: Arc<Mutex<Values>>,
}

impl Keep {
    /// Keeps what is `wanted`, and leaves it where the second value says.
    pub(crate) fn new(prints: Prints, wanted: Arc<FingerprintSet>) -> (Self, Arc<Mutex<Values>>) {
        let into = Arc::default();
        let keep = Self {
            prints,
            wanted,
            values: Values::default(),
            bytes: 0,
            taken: 0,
            into: Arc::clone(&into),
        };
        (keep, into)
    }

    fn leave(self) -> SinkReport {
        *self.into.lock().unwrap_or_else(|error| error.into_inner()) = self.values;
        SinkReport::of(RecordCounts::all_checked(self.taken))
    }
}

impl Sink for Keep {
    fn write(&mut self, batch: Batch) -> Result<()> {
        for record in batch.records {
            self.taken += u64::from(!matches!(record, Record::Functions(_)));
            let Record::Key(record) = record else {
                continue;
            };
            let print = self.prints.key(record.db, self.prints.name(&record.key));
            // Of one that is too large nothing is said.
            if matches!(record.value, Value::Withheld(_)) {
                continue;
            }
            let bytes = record.value.bytes().len();
            if self.wanted.contains(&print) && self.bytes + bytes <= MAX_BYTES {
                self.bytes += bytes;
                let family = batch.context.family;
                self.values.insert(print, (family, record.value));
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>, _: &SourceReport) -> (SinkReport, Result<()>) {
        (self.leave(), Ok(()))
    }

    fn abort(self: Box<Self>, _: &str) -> SinkReport {
        self.leave()
    }
}

/// The first place where each of the values differs.
pub(crate) fn places(left: &Values, right: &Values) -> Places {
    let place = |print: &Print, (left_family, left): &(Family, Value)| {
        let (right_family, right) = right.get(print)?;
        let differ = |ignore_delivery_times| {
            let lenience = Lenience {
                ignore_delivery_times,
                metadata_must_stand: true,
                no_more_metadata: true,
                ..Lenience::default()
            };
            let (left, right) = (body(left), body(right));
            same_but(*left_family, left, *right_family, right, lenience).ok()?
        };
        // When somebody was last seen is only said where nothing else is to be said.
        Some((*print, differ(true).or_else(|| differ(false))?))
    };
    left.iter()
        .filter_map(|(print, value)| place(print, value))
        .collect()
}

fn body(value: &Value) -> &[u8] {
    match value {
        Value::Compact(body) => body,
        Value::Verbatim(payload) => split(payload).map_or(payload, |(body, _)| body),
        Value::Withheld(withheld) => &withheld.head,
    }
}
