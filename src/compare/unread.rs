//! Keys that a side knows and did not give. Each is a row of its own, so that it is neither missing
//! nor different: it could not be read.

use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::Result;

use super::meaning::{Depth, Meaning};
use super::prints::Prints;
use super::row::{Row, What};
use super::store::{PARTITIONS, Store};
use crate::observer::{KeyFailure, Observer};
use crate::payload::Kind;
use crate::rewrite::Rewrite;

/// The longest reason that is kept, in bytes: it is kept once for every key.
const MAX_REASON_BYTES: usize = 300;

/// The keys that one reading of one side could not get.
#[derive(Clone)]
pub struct UnreadKeys(Arc<Mutex<Heard>>);

struct Heard {
    prints: Prints,
    rewrite: Rewrite,
    store: Store,
}

impl UnreadKeys {
    /// None yet. `rewrite` is what happens to the names of this side on their way.
    pub fn new(prints: &Prints, rewrite: &Rewrite) -> Self {
        Self(Arc::new(Mutex::new(Heard {
            prints: prints.clone(),
            rewrite: rewrite.clone(),
            store: Store::new(),
        })))
    }

    /// What the source of this side reports to: `observer`, but for the keys that it cannot read.
    pub fn listening(&self, observer: &Observer) -> Arc<Observer> {
        let keys = self.clone();
        Arc::new(observer.with_failures_to(move |failure| keys.lock().hear(failure)))
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// Gives `each` the row of every such key.
    ///
    /// # Errors
    /// The temporary file, and those of `each`.
    pub fn drain(&self, mut each: impl FnMut(Row) -> Result<()>) -> Result<()> {
        let store = std::mem::replace(&mut self.lock().store, Store::new());
        if store.rows() == 0 {
            return Ok(());
        }
        for partition in 0..PARTITIONS {
            let bytes = store.partition(partition)?;
            let mut rest = &bytes[..];
            while let Some(row) = Row::read(&mut rest) {
                each(row)?;
            }
        }
        Ok(())
    }
}

impl Heard {
    fn hear(&mut self, failure: &KeyFailure) -> Result<()> {
        let key = self.rewrite.renamed(&failure.key).into_owned();
        let origin = self.rewrite.may_collide();
        let origin = origin.then(|| (failure.db, failure.key.clone()));
        // Where a second database has nowhere to go, its first record that was read says so.
        let db = self.rewrite.dbs.map(failure.db).unwrap_or(failure.db);
        let reason = match &failure.hint {
            Some(hint) => format!("{} ({hint})", failure.reason),
            None => failure.reason.clone(),
        };
        self.store.add(&Row {
            print: self.prints.key(db, self.prints.name(&key)),
            what: What::Key(Kind::Unknown),
            // By its name it takes part; what it is by its value nobody knows.
            selected: true,
            db,
            key,
            origin,
            expire_at_ms: None,
            meaning: unread(&reason),
        })
    }
}

/// The meaning of a value that could not be read.
pub fn unread(reason: &str) -> Meaning {
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
    use super::*;

    #[test]
    fn long_reasons_are_cut_between_characters() {
        assert_eq!(unread("NOPERM").reason, "NOPERM");
        let long = "x".repeat(MAX_REASON_BYTES - 1) + "–";
        assert_eq!(unread(&long).reason.len(), MAX_REASON_BYTES - 1);
    }
}
