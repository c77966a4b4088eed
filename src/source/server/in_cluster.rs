//! A node of a cluster as a source: it is asked only for the slots that are read from it, and what
//! it answers of others says where to look next.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use anyhow::Result;

use super::delivered::{Given, GivenLog};
use super::owners::Owners;
use super::slot_set::{SharedSlots, SlotSet};
use super::{Job, Sent, ServerSource, ServerSourceOptions};
use crate::observer::{FailureKind, KeyFailure, Observer};
use crate::server::Conn;
use crate::server::cluster::Redirect;
use crate::server::facts::{Facts, Keyspace, info, keyspace};
use crate::server::reply::cmd;
use crate::server::slots::slot_of;

/// Names that answered ASK, kept by name; of more than so many only the slots are known.
pub(super) const MAX_ASKED: usize = 1_000_000;

/// What a source knows of its place in a cluster.
#[derive(Default)]
pub(super) struct InCluster {
    /// The slots that are read from this node; whoever listens to its changes sees them, too.
    pub owned: SharedSlots,
    /// Of those, the ones that the present scan is about.
    pub reading: SlotSet,
    /// Whether every command for a key is preceded by ASKING: the slots are on their way here.
    pub asking: bool,
    /// Slots of keys that the node did not answer for: they have to be read again, where they are.
    pub(super) disturbed: SlotSet,
    /// Slots of keys that have to be looked for where their slot goes, or here if it stays.
    pub(super) astray: SlotSet,
    /// Names that are to be asked for where their slot is on its way to.
    asked: Vec<(u32, Vec<u8>)>,
    /// Of a node that is asked with ASKING: keys that it did not answer for.
    pub(super) unserved: Vec<Unserved>,
    /// Who has these slots still, where they are on their way here.
    pub(super) owners: Option<Owners>,
    /// What ASKING was answered with, the last time that it was not OK.
    pub asking_refused: Option<String>,
    /// Why a key was not answered for, the last time.
    pub reason: Option<String>,
}

/// A key that the node its slot goes to did not answer for.
#[derive(Debug)]
pub struct Unserved {
    pub(super) db: u32,
    pub(in crate::source) key: Vec<u8>,
    /// For people.
    pub(super) reason: String,
}

/// What could not be read of a node.
#[derive(Debug, Default)]
pub struct Disturbed {
    /// Slots to be read again, from whoever has them.
    pub slots: SlotSet,
    /// Slots to be read again only if they are no longer on their way: their keys are asked for where
    /// they go.
    pub astray: SlotSet,
    /// Keys of slots that are on their way (database, name).
    pub asked: Vec<(u32, Vec<u8>)>,
    /// In the node's words, the last time.
    pub reason: Option<String>,
}

impl InCluster {
    pub fn new(slots: &SlotSet, asking: bool) -> Self {
        Self {
            owned: SharedSlots::of(slots),
            reading: slots.clone(),
            asking,
            ..Self::default()
        }
    }

    /// These slots belong to it and are to be read; besides those that it was to read before, unless
    /// all of them are read.
    fn adopt(&mut self, slots: &SlotSet, is_read: bool) {
        if is_read {
            self.reading = SlotSet::default();
        }
        for slot in slots.iter() {
            self.owned.insert(slot);
            self.reading.insert(slot);
        }
    }
}

/// How a node of a cluster is read.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The slots that are read from it.
    pub slots: SlotSet,
    /// They are on their way to it, and not its own yet.
    pub asking: bool,
    /// It is a replica.
    pub replica: bool,
}

impl ServerSource {
    /// Prepares to read these slots of the cluster's node that `conn` leads to.
    ///
    /// # Errors
    /// What the node refuses that is needed, and the connection's.
    pub fn open_node(
        mut conn: Conn,
        place: &Place,
        options: ServerSourceOptions,
        observer: Arc<Observer>,
    ) -> Result<Self> {
        conn.doing("asking a node of the cluster what it is");
        if place.replica {
            let readonly = cmd("READONLY");
            conn.query::<()>(&readonly)?;
            conn.keep(&readonly);
        }
        let mut facts = Facts::ask(&mut conn)?;
        // Demanded by the user, or told by another node.
        facts.cluster = true;
        let mut source = Self::begin_with(conn, facts, options, observer)?;
        source.cluster = Some(InCluster::new(&place.slots, place.asking));
        source.know_database_0();
        source.waiting = source.jobs();
        Ok(source)
    }

    /// Slots may come with keys to a node that had none.
    fn know_database_0(&mut self) {
        let known = self.databases.iter().any(|row| row.db == 0);
        if !known && self.options.selection.wants_db(0) {
            let row = Keyspace {
                db: 0,
                keys: 0,
                expires: 0,
            };
            self.databases.insert(0, row);
        }
    }

    fn jobs(&self) -> VecDeque<Job> {
        let scan = |row: &Keyspace| Job::Scan(row.db);
        self.databases.iter().map(scan).collect()
    }

    /// Remembers the names of what it gives, so that what goes away can be told.
    pub(in crate::source) fn remember_given(&mut self) -> Result<()> {
        self.given = Some(Given::new(true)?);
        Ok(())
    }

    /// The names of all keys that were given, if they are remembered.
    pub(in crate::source) fn given_log(&mut self) -> Result<Option<GivenLog>> {
        self.given.as_mut().map(Given::log).transpose()
    }

    /// These names are read too: another node gave them, or would have.
    pub(in crate::source) fn read_names(&mut self, names: Vec<(u32, Vec<u8>)>) -> Result<()> {
        let mut by_db: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
        for (db, name) in names {
            by_db.entry(db).or_default().push(name);
        }
        for (db, names) in by_db {
            if let Some(given) = &mut self.given {
                given.inherit(db, &names)?;
            }
            self.waiting.push_back(Job::Names(db, names));
        }
        Ok(())
    }

    /// From now on these slots are read here too, all of them anew.
    pub(in crate::source) fn adopt(&mut self, slots: &SlotSet) -> Result<()> {
        if self.facts.keyspace.is_some() && self.options.selection.dbs.is_empty() {
            let text = info(&mut self.conn, Some("keyspace"))?;
            match text.and_then(|text| keyspace(&text)) {
                Some(rows) => self.learn_databases(&rows),
                // None told is not none there.
                None => self.unread.push(
                    "INFO keyspace did not tell which databases hold keys when slots came from \
                     another node: of these slots only the databases known before were read"
                        .to_owned(),
                ),
            }
        }
        let is_read = self.is_at_end();
        if let Some(cluster) = &mut self.cluster {
            cluster.adopt(slots, is_read);
        }
        self.waiting = self.jobs();
        Ok(())
    }

    /// A scan that begins anew is about all of the slots.
    pub(super) fn read_all_owned(&mut self) {
        if let Some(cluster) = &mut self.cluster {
            cluster.reading = cluster.owned.snapshot();
        }
    }

    /// These slots are read elsewhere from now on.
    pub(in crate::source) fn release(&mut self, slots: &SlotSet) {
        if let Some(cluster) = &mut self.cluster {
            for slot in slots.iter() {
                cluster.owned.remove(slot);
                cluster.reading.remove(slot);
            }
        }
    }

    /// The connection is gone: what was asked and not answered is read elsewhere.
    pub(in crate::source) fn forget_flight(&mut self) {
        let mut keys = self.awaited.drain(..).len() + self.keys.drain(..).len();
        for sent in self.sent.drain(..) {
            if let Sent::Group(group) = sent {
                keys += group.len();
            }
        }
        self.counts.of(self.db).superseded += keys as u64;
        self.waiting.clear();
    }

    /// Whether all that it was to read was read, and nothing has to be read elsewhere.
    pub(in crate::source) fn is_through(&self) -> bool {
        let is_answered = self.sent.is_empty() && self.awaited.is_empty();
        let cluster = self.cluster.as_ref();
        self.is_at_end() && is_answered && cluster.is_none_or(|it| it.disturbed.is_empty())
    }

    /// The connection, on which nothing is in flight when all was read.
    pub(in crate::source) fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// A key that the node does not answer for: it is read again later, wherever it is then.
    pub(super) fn stray(&mut self, key: Vec<u8>, redirect: &Redirect) -> Result<()> {
        let db = self.db;
        self.counts.of(db).superseded += 1;
        let Some(cluster) = &mut self.cluster else {
            return Ok(());
        };
        let slot = slot_of(&key);
        cluster.reason = Some(redirect.to_string());
        if cluster.asking {
            cluster.astray.insert(slot);
            let reason = match &cluster.asking_refused {
                Some(text) => format!("ASKING was answered with {text}"),
                None => format!("it answered {redirect}"),
            };
            let reason =
                format!("the node that its slot is on its way to does not serve it: {reason}");
            let unserved = Unserved { db, key, reason };
            if cluster.unserved.len() < MAX_ASKED {
                cluster.unserved.push(unserved);
                return Ok(());
            }
            return self.fail_unserved(vec![unserved]);
        }
        match redirect {
            Redirect::Ask { .. } => {
                cluster.astray.insert(slot);
                if cluster.asked.len() < MAX_ASKED {
                    cluster.asked.push((db, key));
                }
            }
            _ => cluster.disturbed.insert(slot),
        }
        Ok(())
    }

    /// Keys of these slots that the node did not answer for; others are read elsewhere by now.
    pub(in crate::source) fn take_unserved(&mut self, slots: &SlotSet) -> Vec<Unserved> {
        let Some(cluster) = &mut self.cluster else {
            return Vec::new();
        };
        let mut unserved = std::mem::take(&mut cluster.unserved);
        unserved.retain(|row| slots.has_key(&row.key));
        unserved
    }

    /// Asks for them again.
    pub(in crate::source) fn read_unserved(&mut self, rows: Vec<Unserved>) -> Result<()> {
        self.read_names(rows.into_iter().map(|row| (row.db, row.key)).collect())
    }

    /// They were asked for often enough: they cannot be read. What takes back what was given of them
    /// comes with the next batch.
    pub(in crate::source) fn fail_unserved(&mut self, rows: Vec<Unserved>) -> Result<()> {
        let db = self.db;
        for row in rows {
            self.db = row.db;
            // It was counted as one that is read again.
            self.counts.of(row.db).superseded -= 1;
            if !self.count_failure(&row.key, false)? {
                continue;
            }
            let hint = row.reason.contains("with NOPERM").then(|| {
                "the user needs ASKING (+asking) to read keys of slots that are on their way"
                    .to_owned()
            });
            self.observer.key_failed(&KeyFailure {
                db: row.db,
                key: row.key,
                kind: FailureKind::Unread,
                reason: row.reason,
                hint,
            })?;
        }
        self.db = db;
        Ok(())
    }

    /// What could not be read since this was last asked.
    pub fn take_disturbed(&mut self) -> Disturbed {
        let Some(cluster) = &mut self.cluster else {
            return Disturbed::default();
        };
        Disturbed {
            slots: std::mem::take(&mut cluster.disturbed),
            astray: std::mem::take(&mut cluster.astray),
            asked: std::mem::take(&mut cluster.asked),
            reason: cluster.reason.take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node is handed slots twice where another one is lost between.
    #[test]
    fn slots_that_are_not_read_yet_stay_to_be_read() {
        let mut cluster = InCluster::new(&SlotSet::of([1]), false);
        cluster.adopt(&SlotSet::of([2, 3]), true);
        assert_eq!(cluster.reading.show(), "2-3");
        cluster.adopt(&SlotSet::of([3, 9]), false);
        assert_eq!(cluster.reading.show(), "2-3,9");
        assert_eq!(cluster.owned.snapshot().show(), "1-3,9");
        cluster.adopt(&SlotSet::of([1]), true);
        assert_eq!(cluster.reading.show(), "1");
    }
}
