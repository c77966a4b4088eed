//! What every key of a side was, and when, on whichever of its servers it lay: the truth that the tool's claims are held against.

use std::collections::{BTreeMap, BTreeSet};

use crate::server::{Entry, Keyspace, Release, Since, Value};

/// A key of a database.
pub type Place = (u32, Vec<u8>);

/// What a key holds, as far as it travels.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// The value.
    pub value: Value,
    /// When it expires, in Unix ms of the server's clock.
    pub expire_at: Option<u64>,
}

impl Held {
    /// The same value without an expiry.
    pub fn lasting(&self) -> Self {
        Self {
            value: self.value.clone(),
            expire_at: None,
        }
    }

    /// Of an entry, what travels.
    pub fn of(entry: &Entry, release: &Release) -> Self {
        let mut value = entry.value.clone();
        if let Value::Stream(stream) = &mut value
            && !release.has(Since::R70)
        {
            // What these versions neither keep nor tell.
            stream.added = 0;
            stream.max_deleted = (0, 0);
            for group in stream.groups.values_mut() {
                group.read = None;
            }
        }
        Self {
            value,
            expire_at: entry.expire_at,
        }
    }

    fn is(&self, entry: &Entry, release: &Release) -> bool {
        self.expire_at == entry.expire_at
            && match entry.value {
                Value::Stream(_) => *self == Self::of(entry, release),
                _ => self.value == entry.value,
            }
    }
}

/// Who changed a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The tool.
    Tool,
    /// Other clients.
    Clients,
    /// Nobody: it expired, was evicted, or a restart lost it.
    Server,
}

/// A key that changed.
#[derive(Debug, Clone)]
pub struct Change {
    /// When, in µs of the world.
    pub at: u64,
    /// Changes of one command have the same number; later ones a higher one.
    pub step: u64,
    /// Who did it.
    pub by: By,
    /// Which.
    pub place: Place,
    /// What it was.
    pub before: Option<Held>,
    /// What it is.
    pub after: Option<Held>,
}

/// A process of a side ended, and what it had not saved, or not given to its successor, is gone.
#[derive(Debug, Clone)]
pub struct Loss {
    /// When, in µs of the world.
    pub at: u64,
    /// Slots that were on their way to it or from it, when not all nodes knew: no answer of the cluster
    /// ever said who had their keys, so that nobody who asks can see that they went with it.
    pub astray: BTreeSet<u16>,
    /// The server.
    pub(super) node: usize,
    /// Who took its place; itself where it was started anew.
    pub(super) successor: usize,
}

/// All changes of the keys of a side, and what they are now.
#[derive(Debug, Default)]
pub struct History {
    /// What is there now; keys that are past their time may be among them.
    pub now: BTreeMap<Place, Held>,
    /// What changed, in order.
    pub changes: Vec<Change>,
    /// When changes were lost, in order.
    pub(super) losses: Vec<Loss>,
    /// How long answers were held back in all, in ms.
    pub stalled_ms: u64,
    /// When the tool last wrote there, or waited for replicas.
    pub(super) wrote: u64,
    steps: u64,
}

impl History {
    /// Looks what has become of these keys; `look` finds a key among all servers of the side.
    pub fn observe<'a>(
        &mut self,
        mut touched: Vec<Place>,
        look: impl Fn(&Place) -> Option<&'a Entry>,
        release: &Release,
        (at, by): (u64, By),
    ) {
        touched.sort_unstable();
        touched.dedup();
        let step = self.steps + 1;
        for place in touched {
            let entry = look(&place);
            let after = match (self.now.get(&place), entry) {
                (None, None) => continue,
                (Some(known), Some(entry)) if known.is(entry, release) => continue,
                (_, entry) => entry.map(|entry| Held::of(entry, release)),
            };
            let before = match &after {
                Some(held) => self.now.insert(place.clone(), held.clone()),
                None => self.now.remove(&place),
            };
            self.steps = step;
            self.changes.push(Change {
                at,
                step,
                by,
                place,
                before,
                after,
            });
        }
    }

    /// The keys as they were at a moment.
    pub fn at(&self, at: u64) -> BTreeMap<Place, Held> {
        let mut keys = self.now.clone();
        for change in self
            .changes
            .iter()
            .rev()
            .take_while(|change| change.at > at)
        {
            match &change.before {
                Some(held) => drop(keys.insert(change.place.clone(), held.clone())),
                None => drop(keys.remove(&change.place)),
            }
        }
        keys
    }

    /// The server forgets the last so many changes: its keys are as they were before them.
    pub fn undo(&self, count: usize, keyspace: &mut Keyspace, now_ms: u64) {
        for change in self.changes.iter().rev().take(count) {
            let (db, key) = &change.place;
            match &change.before {
                Some(held) => {
                    let entry = Entry::new(held.value.clone(), held.expire_at, now_ms);
                    keyspace.put(*db, key, entry);
                }
                None => drop(keyspace.remove(*db, key)),
            }
        }
    }

    /// The changes after a moment, up to another, and what the keys were before them.
    pub fn during(&self, from: u64, to: u64) -> (BTreeMap<Place, Held>, &[Change]) {
        (self.at(from), self.between(from + 1, to))
    }

    /// The changes of a time, both ends included.
    pub fn between(&self, from: u64, to: u64) -> &[Change] {
        let first = self.changes.partition_point(|change| change.at < from);
        let end = self.changes.partition_point(|change| change.at <= to);
        &self.changes[first..end]
    }
}
