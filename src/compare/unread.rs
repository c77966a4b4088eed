//! Keys that a side knows and did not give. Each is a row of its own, so that it is neither missing
//! nor different: it could not be read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::Result;

use super::collect::gone;
use super::hashing::Prints;
use super::meaning::{Depth, Meaning};
use super::row::{Row, What};
use super::store::{PARTITIONS, Store};
use crate::observer::{KeyFailure, KeyNews, Observer};
use crate::payload::Kind;
use crate::rewrite::Rewrite;

/// The longest reason that is kept, in bytes: it is kept once for every key.
const MAX_REASON_BYTES: usize = 300;

/// The keys that one reading of one side could not get.
#[derive(Clone)]
pub(crate) struct UnreadKeys(Arc<Mutex<Heard>>);

struct Heard {
    prints: Prints,
    rewrite: Rewrite,
    store: Store,
}

impl UnreadKeys {
    /// None yet. `rewrite` is what happens to the names of this side on their way.
    pub(crate) fn new(prints: &Prints, rewrite: &Rewrite) -> Self {
        Self(Arc::new(Mutex::new(Heard {
            prints: prints.clone(),
            rewrite: rewrite.clone(),
            store: Store::new(),
        })))
    }

    /// What the source of this side reports to: `observer`, but for the keys that it cannot read.
    pub(crate) fn listening(&self, observer: &Observer) -> Arc<Observer> {
        let keys = self.clone();
        Arc::new(observer.with_failures_to(move |news| match news {
            KeyNews::Failed(failure) => keys.lock().hear(failure),
            KeyNews::Recovered { db, key } => keys.lock().forget(db, key),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// Gives `each` the row of every such key that was not read later.
    ///
    /// # Errors
    /// The temporary file, and those of `each`.
    pub(crate) fn drain(&self, mut each: impl FnMut(Row) -> Result<()>) -> Result<()> {
        let store = std::mem::replace(&mut self.lock().store, Store::new());
        if store.rows() == 0 {
            return Ok(());
        }
        for partition in 0..PARTITIONS {
            let bytes = store.partition(partition)?;
            let (mut rest, mut last) = (&bytes[..], HashMap::new());
            while let Some(row) = Row::read(&mut rest) {
                last.insert((row.print, row.origin.clone()), row);
            }
            for row in last.into_values().filter(|row| row.what != What::Gone) {
                each(row)?;
            }
        }
        Ok(())
    }
}

impl Heard {
    /// A tombstone for a key of this side: what was heard of it before does not count.
    fn gone(&self, db: u32, key: &[u8]) -> Row {
        let name = self.rewrite.renamed(key).into_owned();
        // Where a second database has nowhere to go, its first record that was read says so.
        let into = self.rewrite.dbs.map(db).unwrap_or(db);
        let origin = self.rewrite.may_collide().then(|| (db, key.to_vec()));
        Row {
            origin,
            ..gone(&self.prints, into, name)
        }
    }

    fn forget(&mut self, db: u32, key: &[u8]) -> Result<()> {
        let row = self.gone(db, key);
        self.store.add(&row)
    }

    fn hear(&mut self, failure: &KeyFailure) -> Result<()> {
        let reason = match &failure.hint {
            Some(hint) => format!("{} ({hint})", failure.reason),
            None => failure.reason.clone(),
        };
        let row = self.gone(failure.db, &failure.key);
        self.store.add(&Row {
            what: What::Key(Kind::Unknown),
            // By its name it takes part; what it is by its value nobody knows.
            selected: true,
            meaning: unread(&reason),
            ..row
        })
    }
}

/// The meaning of a value that could not be read.
pub(crate) fn unread(reason: &str) -> Meaning {
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    Meaning {
        depth: Depth::Unread,
        reason: reason[..end].to_owned(),
        ..Meaning::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::observer::{FailureKind, Recording};

    /// A key that was read in the end is not told as unread, and nothing is taken off a count that
    /// it never was in.
    #[test]
    fn what_was_read_later_is_not_unread() {
        let recording = Recording::default();
        let observer = Observer::new(Box::new(recording.clone()), None, None);
        let rewrite = Rewrite {
            strip_prefix: b"old:".to_vec(),
            ..Rewrite::default()
        };
        let keys = UnreadKeys::new(&Prints::default(), &rewrite);
        let side = keys.listening(&observer);
        let fail = |key: &[u8]| {
            let failure = KeyFailure {
                db: 0,
                key: key.to_vec(),
                kind: FailureKind::Unread,
                reason: "NOPERM".to_owned(),
                hint: None,
            };
            side.key_failed(&failure).unwrap();
        };
        for key in [&b"old:a"[..], b"a", b"old:b", b"c"] {
            fail(key);
        }
        for key in [&b"old:a"[..], b"old:b", b"c"] {
            side.key_recovered(0, key).unwrap();
        }
        fail(b"c");
        assert_eq!(observer.progress.failed.load(Relaxed), 0);
        assert!(recording.lines().is_empty(), "{:?}", recording.lines());
        let mut told = Vec::new();
        keys.drain(|row| {
            told.push(row.origin.map(|(_, key)| key));
            Ok(())
        })
        .unwrap();
        told.sort();
        assert_eq!(told, [Some(b"a".to_vec()), Some(b"c".to_vec())]);
    }

    #[test]
    fn long_reasons_are_cut_between_characters() {
        assert_eq!(unread("NOPERM").reason, "NOPERM");
        let long = "x".repeat(MAX_REASON_BYTES - 1) + "–";
        assert_eq!(unread(&long).reason.len(), MAX_REASON_BYTES - 1);
    }
}
