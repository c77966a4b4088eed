//! The keys of all databases.

use std::collections::{BTreeMap, BTreeSet};

use super::dict::{Dict, Shape};
use super::release::Release;
use super::slots::slot_of;
use super::value::Entry;

/// The keys of all databases.
#[derive(Debug, Clone)]
pub struct Keyspace {
    databases: Vec<Option<Box<Database>>>,
    form: Form,
    touched: Touched,
}

/// Keys that may have changed since somebody asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// Any.
    All,
    /// These; some may be named twice, and some may not have changed.
    Keys(Vec<(u32, Vec<u8>)>),
}

impl Touched {
    /// More names than this are no help.
    const MOST: usize = 2000;

    fn add(&mut self, db: u32, key: &[u8]) {
        if let Self::Keys(keys) = self {
            match keys.len() < Self::MOST {
                true => keys.push((db, key.to_vec())),
                false => *self = Self::All,
            }
        }
    }
}

/// How tables are made.
#[derive(Debug, Clone, Copy)]
struct Form {
    seed: u64,
    shape: Shape,
    per_slot: bool,
}

/// One database.
#[derive(Debug, Clone)]
struct Database {
    /// One table, or one for each slot that holds keys.
    tables: BTreeMap<u16, Dict<Entry>>,
    count: usize,
    /// Keys that expire, by time.
    due: BTreeSet<(u64, Box<[u8]>)>,
    /// Hashes of which a field expires, by the time of the first.
    fields_due: BTreeSet<(u64, Box<[u8]>)>,
}

/// Bits of a cursor that name the slot.
const SLOT_BITS: u32 = 14;

impl Keyspace {
    pub(super) fn new(release: &Release, databases: u32, cluster: bool, seed: u64) -> Self {
        let per_bucket = if release.at_least(NEVER, (8, 1)) {
            7
        } else {
            1
        };
        let shrinks_on_remove = release.has_table_per_slot();
        let shape = Shape {
            per_bucket,
            least: if per_bucket == 1 { 4 } else { 1 },
            shrinks_on_remove,
            min_fill: if shrinks_on_remove { 13 } else { 10 },
        };
        Self {
            databases: (0..databases).map(|_| None).collect(),
            form: Form {
                seed,
                shape,
                per_slot: cluster && release.has_table_per_slot(),
            },
            touched: Touched::All,
        }
    }

    /// Which keys may have changed since this was asked last.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::replace(&mut self.touched, Touched::Keys(Vec::new()))
    }

    /// How many databases there can be.
    pub fn databases(&self) -> u32 {
        self.databases.len() as u32
    }

    /// Keys in a database, expired ones among them.
    pub fn len(&self, db: u32) -> usize {
        self.database(db).map_or(0, |database| database.count)
    }

    /// Whether there is no key at all.
    pub fn is_empty(&self) -> bool {
        (0..self.databases()).all(|db| self.len(db) == 0)
    }

    /// How many keys of a database expire.
    pub fn expiring(&self, db: u32) -> usize {
        self.database(db).map_or(0, |database| database.due.len())
    }

    /// How many hashes of a database have a field that expires.
    pub fn expiring_hashes(&self, db: u32) -> usize {
        self.database(db)
            .map_or(0, |database| database.fields_due.len())
    }

    /// A key's entry, expired or not; nothing in the table moves.
    pub fn get(&self, db: u32, key: &[u8]) -> Option<&Entry> {
        let database = self.database(db)?;
        database.tables.get(&self.form.table_of(key))?.peek(key)
    }

    /// All entries of a database, in no order that means anything.
    pub fn iter(&self, db: u32) -> impl Iterator<Item = (&[u8], &Entry)> {
        let tables = self
            .database(db)
            .into_iter()
            .flat_map(|database| database.tables.values());
        tables.flat_map(Dict::iter)
    }

    /// Puts an entry in place of what stands there, and tells nobody.
    pub fn put(&mut self, db: u32, key: &[u8], mut entry: Entry) -> Option<Entry> {
        self.touched.add(db, key);
        let form = self.form;
        let place = self.databases.get_mut(db as usize)?;
        let database = place.get_or_insert_with(|| Box::new(Database::new()));
        entry.fields_due = entry.value.first_field_expiry();
        if let Some(at) = entry.expire_at {
            database.due.insert((at, key.into()));
        }
        if let Some(at) = entry.fields_due {
            database.fields_due.insert((at, key.into()));
        }
        let (expire_at, fields_due) = (entry.expire_at, entry.fields_due);
        let slot = form.table_of(key);
        let table = database
            .tables
            .entry(slot)
            .or_insert_with(|| Dict::new(form.seed ^ u64::from(db) << 32, form.shape));
        let former = table.insert(key, entry);
        match &former {
            None => database.count += 1,
            Some(former) => {
                if former.expire_at != expire_at {
                    database.forget_due(former.expire_at, key);
                }
                if former.fields_due != fields_due {
                    database.forget_fields(former.fields_due, key);
                }
            }
        }
        former
    }

    /// Removes a key, and tells nobody.
    pub fn remove(&mut self, db: u32, key: &[u8]) -> Option<Entry> {
        self.touched.add(db, key);
        let slot = self.form.table_of(key);
        let per_slot = self.form.per_slot;
        let database = self.databases.get_mut(db as usize)?.as_mut()?;
        let table = database.tables.get_mut(&slot)?;
        let entry = table.remove(key)?;
        database.count -= 1;
        if per_slot && table.len() == 0 {
            database.tables.remove(&slot);
        }
        database.forget_due(entry.expire_at, key);
        database.forget_fields(entry.fields_due, key);
        Some(entry)
    }

    /// Looks as a command does, which moves a bucket of a table that is being resized.
    pub(super) fn look(&mut self, db: u32, key: &[u8]) -> Option<&mut Entry> {
        self.touched.add(db, key);
        let slot = self.form.table_of(key);
        let database = self.databases.get_mut(db as usize)?.as_mut()?;
        database.tables.get_mut(&slot)?.get_mut(key)
    }

    /// The entry, to be changed. Whoever changes times of fields calls `fields_changed`, and
    /// `set_expiry` is the one way to change a key's.
    pub(super) fn entry(&mut self, db: u32, key: &[u8]) -> Option<&mut Entry> {
        self.touched.add(db, key);
        let slot = self.form.table_of(key);
        let database = self.databases.get_mut(db as usize)?.as_mut()?;
        database.tables.get_mut(&slot)?.peek_mut(key)
    }

    /// Sets when a key expires.
    pub(super) fn set_expiry(&mut self, db: u32, key: &[u8], at: Option<u64>) {
        let Some(entry) = self.entry(db, key) else {
            return;
        };
        let former = std::mem::replace(&mut entry.expire_at, at);
        let Some(Some(database)) = self.databases.get_mut(db as usize) else {
            return;
        };
        database.forget_due(former, key);
        if let Some(at) = at {
            database.due.insert((at, key.into()));
        }
    }

    /// Notes anew when the first field of a hash expires.
    pub(super) fn fields_changed(&mut self, db: u32, key: &[u8]) {
        let Some(entry) = self.entry(db, key) else {
            return;
        };
        let now = entry.value.first_field_expiry();
        let former = std::mem::replace(&mut entry.fields_due, now);
        if former == now {
            return;
        }
        let Some(Some(database)) = self.databases.get_mut(db as usize) else {
            return;
        };
        database.forget_fields(former, key);
        if let Some(at) = now {
            database.fields_due.insert((at, key.into()));
        }
    }

    /// Empties a database.
    pub(super) fn clear(&mut self, db: u32) -> usize {
        self.touched = Touched::All;
        let place = self.databases.get_mut(db as usize);
        place
            .and_then(Option::take)
            .map_or(0, |database| database.count)
    }

    /// Swaps two databases.
    pub(super) fn swap(&mut self, one: u32, other: u32) {
        self.touched = Touched::All;
        self.databases.swap(one as usize, other as usize);
    }

    /// Keys that expired before `now_ms`.
    pub(super) fn overdue(&self, now_ms: u64) -> Vec<(u32, Box<[u8]>)> {
        self.collect_due(now_ms, |database| &database.due)
    }

    /// Hashes with a field that expired before `now_ms`.
    pub(super) fn fields_overdue(&self, now_ms: u64) -> Vec<(u32, Box<[u8]>)> {
        self.collect_due(now_ms, |database| &database.fields_due)
    }

    fn collect_due(
        &self,
        now_ms: u64,
        of: impl Fn(&Database) -> &BTreeSet<(u64, Box<[u8]>)>,
    ) -> Vec<(u32, Box<[u8]>)> {
        let mut found = Vec::new();
        for (db, database) in self.databases.iter().enumerate() {
            let Some(database) = database else { continue };
            let due = of(database).iter().take_while(|(at, _)| *at < now_ms);
            found.extend(due.map(|(_, key)| (db as u32, key.clone())));
        }
        found
    }

    /// When the next key or field expires.
    pub fn next_expiry(&self) -> Option<u64> {
        let databases = self.databases.iter().flatten();
        let first = |rows: &BTreeSet<(u64, Box<[u8]>)>| rows.first().map(|(at, _)| *at);
        databases
            .flat_map(|database| [first(&database.due), first(&database.fields_due)])
            .flatten()
            .min()
    }

    /// What a server's cron does to its tables.
    pub(super) fn cron(&mut self) {
        for database in self.databases.iter_mut().flatten() {
            for table in database.tables.values_mut() {
                table.step(100);
                table.shrink_if_empty();
            }
        }
    }

    /// One step of a scan: the next cursor. With `only`, of that slot alone.
    pub(super) fn scan(
        &self,
        db: u32,
        cursor: u64,
        only: Option<u16>,
        mut each: impl FnMut(&[u8], &Entry),
    ) -> u64 {
        let Some(database) = self.database(db) else {
            return 0;
        };
        if !self.form.per_slot {
            let table = database.tables.get(&0);
            return table.map_or(0, |table| table.scan(cursor, each));
        }
        let mut slot = (cursor & ((1 << SLOT_BITS) - 1)) as u16;
        let mut inner = cursor >> SLOT_BITS;
        if let Some(only) = only {
            slot = only.max(slot);
            if slot != only {
                return 0;
            }
        }
        let table = database.tables.get(&slot);
        inner = table.map_or(0, |table| table.scan(inner, &mut each));
        if inner == 0 {
            if only.is_some() {
                return 0;
            }
            let next = slot.checked_add(1).and_then(|from| {
                let mut after = database.tables.range(from..);
                after
                    .find(|(_, table)| table.len() > 0)
                    .map(|(slot, _)| *slot)
            });
            match next {
                Some(next) => slot = next,
                None => return 0,
            }
        }
        inner << SLOT_BITS | u64::from(slot)
    }

    /// Keys of a slot, sorted.
    pub fn keys_of_slot(&self, db: u32, slot: u16) -> Vec<Vec<u8>> {
        let keys = self.iter(db).map(|(key, _)| key);
        let mut keys: Vec<_> = keys
            .filter(|key| slot_of(key) == slot)
            .map(<[u8]>::to_vec)
            .collect();
        keys.sort();
        keys
    }

    /// A key at random.
    pub(super) fn any(&self, db: u32, random: u64) -> Option<&[u8]> {
        let database = self.database(db)?;
        if database.count == 0 {
            return None;
        }
        let table = random as usize % database.tables.len();
        let mut tables = database
            .tables
            .values()
            .cycle()
            .skip(table)
            .take(database.tables.len());
        tables.find_map(|table| table.any(random >> 16))
    }

    /// About how many bytes of memory all keys take.
    pub fn bytes(&self) -> usize {
        (0..self.databases())
            .flat_map(|db| self.iter(db))
            .map(|(key, entry)| key.len() + 64 + entry.value.bytes())
            .sum()
    }

    fn database(&self, db: u32) -> Option<&Database> {
        self.databases.get(db as usize)?.as_deref()
    }
}

const NEVER: (u16, u16) = (u16::MAX, 0);

impl Form {
    fn table_of(&self, key: &[u8]) -> u16 {
        if self.per_slot { slot_of(key) } else { 0 }
    }
}

impl Database {
    fn new() -> Self {
        Self {
            tables: BTreeMap::new(),
            count: 0,
            due: BTreeSet::new(),
            fields_due: BTreeSet::new(),
        }
    }

    fn forget_due(&mut self, at: Option<u64>, key: &[u8]) {
        if let Some(at) = at {
            self.due.remove(&(at, key.into()));
        }
    }

    fn forget_fields(&mut self, at: Option<u64>, key: &[u8]) {
        if let Some(at) = at {
            self.fields_due.remove(&(at, key.into()));
        }
    }
}
