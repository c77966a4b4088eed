//! What was given so far, where changes are followed: which keys, so that one that goes away gets a
//! tombstone; and which values may change without anybody being told (see [`super::unheard`]).

mod log;
mod sizes;
mod watched;

use anyhow::{Context as _, Result};

pub(in crate::source) use self::log::GivenLog;
use self::log::NameLog;
pub(super) use self::log::NotMetAgain;
use self::sizes::LargeValues;
use self::watched::{WatchList, Watched};
use super::SlotSet;
use super::marks::Marks;
use super::unheard::{Module, Unheard, unheard};
use crate::own_writes::OwnWrites;
use crate::record::Family;

const REMEMBER: &str = "cannot remember a key in a temporary file";

const LOOK_UP: &str = "cannot look up a key in a temporary file";

/// The memory of what was given.
pub(super) struct Given {
    keys: OwnWrites,
    log: Option<NameLog>,
    /// Keys met since the scan began anew, while it does.
    seen: Option<OwnWrites>,
    /// Values that may change unheard.
    watched: WatchList,
    large: LargeValues,
    /// Keys that could not be read when they were last asked for.
    failing: Marks,
    /// Of those, the ones whose values are larger than is taken.
    too_large: Marks,
    /// Changes are followed, perhaps for weeks: no name goes into the log twice.
    following: bool,
    /// Of some names another keeps the log.
    has_inherited: bool,
    /// The server lost all of its keys: see [`Self::all_lost`].
    all_lost: bool,
    /// Names that went into the log since then, while changes were followed.
    logged_since: OwnWrites,
}

impl Given {
    /// With a log of all names if a scan may have to begin anew.
    pub fn new(with_log: bool) -> Result<Self> {
        Ok(Self {
            keys: OwnWrites::default(),
            log: with_log.then(NameLog::new).transpose()?,
            seen: None,
            watched: WatchList::default(),
            large: LargeValues::default(),
            failing: Marks::default(),
            too_large: Marks::default(),
            following: false,
            has_inherited: false,
            all_lost: false,
            logged_since: OwnWrites::default(),
        })
    }

    /// A key was given.
    pub fn note(&mut self, family: Family, db: u32, key: &[u8], dump: &[u8]) -> Result<()> {
        let print = self.keys.fingerprint(db, key);
        let is_logged = self.following && self.log_once(db, key)?;
        self.keys.insert(print).context(REMEMBER)?;
        if let Some(seen) = &mut self.seen {
            let print = seen.fingerprint(db, key);
            seen.insert(print).context(REMEMBER)?;
        }
        if let Some(log) = &mut self.log
            && !is_logged
        {
            log.add(db, key)?;
        }
        self.large.note(db, key, dump.len());
        self.note_unheard(family, db, key, dump);
        Ok(())
    }

    /// Takes the name to be in the log from now on; whether it was, as far as is known.
    fn log_once(&mut self, db: u32, key: &[u8]) -> Result<bool> {
        if !self.knows(db, key)? {
            return Ok(false);
        }
        if !self.has_inherited {
            return Ok(true);
        }
        // It may be known from the log of another: it is written once more, and then no more.
        let print = self.logged_since.fingerprint(db, key);
        let is_logged = self.logged_since.contains(print).context(REMEMBER)?;
        if !is_logged {
            self.logged_since.insert(print).context(REMEMBER)?;
        }
        Ok(is_logged)
    }

    /// A value that may change unheard, given or left out for its size, has to be looked at again.
    pub fn note_unheard(&mut self, family: Family, db: u32, key: &[u8], dump: &[u8]) {
        let bytes = dump.len();
        match unheard(family, dump) {
            Some(how) => self.watched.note(db, key, Watched { how, bytes }),
            None => self.watched.forget(db, key),
        }
    }

    /// How large a value is likely to be; `otherwise` is what values are on the average.
    pub fn bytes_of(&self, db: u32, key: &[u8], otherwise: usize) -> usize {
        self.large.bytes_of(db, key, otherwise)
    }

    /// A key is there no more, or is something else now.
    pub fn forget_unheard(&mut self, db: u32, key: &[u8]) {
        self.watched.forget(db, key);
    }

    /// A key cannot be read now, because its value is too large or for another reason; whether that
    /// is news.
    pub fn fails(&mut self, db: u32, key: &[u8], is_too_large: bool) -> Result<bool> {
        self.forget_unheard(db, key);
        let is_news = self.failing.put(db, key, true)?;
        if is_news && is_too_large {
            self.too_large.put(db, key, true)?;
        }
        Ok(is_news)
    }

    /// Whether the key could not be read when it was last asked for.
    pub fn is_failing(&mut self, db: u32, key: &[u8]) -> Result<bool> {
        self.failing.has(db, key)
    }

    /// A key was read, or is gone. If it could not be read before: whether it was too large.
    pub fn recovers(&mut self, db: u32, key: &[u8]) -> Result<Option<bool>> {
        if !self.failing.put(db, key, false)? {
            return Ok(None);
        }
        Ok(Some(self.too_large.put(db, key, false)?))
    }

    /// Whether the key was given.
    pub fn knows(&mut self, db: u32, key: &[u8]) -> Result<bool> {
        let print = self.keys.fingerprint(db, key);
        self.keys.contains(print).context(LOOK_UP)
    }

    /// Changes are followed from now on.
    pub fn follow(&mut self) {
        self.following = true;
    }

    /// Values that may change unheard, by database and name.
    pub fn unheard(&self) -> impl Iterator<Item = (&(u32, Vec<u8>), &Watched)> {
        self.watched.iter()
    }

    /// How this value is kept current, if it may change unheard.
    pub fn how_unheard(&self, key: &(u32, Vec<u8>)) -> Option<&Unheard> {
        self.watched.get(key).map(|watched| &watched.how)
    }

    /// The names of all values that may have changed unheard, as far as they are kept in mind.
    pub fn to_read_again(&self) -> impl Iterator<Item = Vec<u8>> {
        self.watched.iter().map(|((_, name), _)| name.clone())
    }

    /// Whether there are values of this type, kept in mind or not.
    pub fn has_values_of(&self, module: &'static Module) -> bool {
        let mut watched = self.watched.iter();
        self.watched.unlisted().contains(&module)
            || watched.any(|(_, watched)| watched.how == Unheard::Counts(module))
    }

    /// Types of modules whose values are not kept in mind.
    pub fn unlisted(&self) -> impl Iterator<Item = &'static Module> {
        self.watched.unlisted().iter().copied()
    }

    /// Whether there are more values that may have changed unheard than can be kept in mind.
    pub fn has_too_many_unheard(&self) -> bool {
        self.watched.has_too_many()
    }

    /// Whether some values that may have changed unheard are not kept in mind.
    pub fn forgot_unheard(&self) -> bool {
        self.watched.has_too_many() || !self.watched.unlisted().is_empty()
    }

    /// The scan begins anew.
    pub fn begin_again(&mut self) {
        self.seen = Some(OwnWrites::default());
    }

    /// The new scan is through: what was given before, as these logs tell, and not met again, to be
    /// looked at; in these slots only.
    pub fn not_met_of(&mut self, logs: Vec<GivenLog>, slots: Option<SlotSet>) -> NotMetAgain {
        NotMetAgain::new(logs, slots, self.seen.take().unwrap_or_default())
    }

    /// All names that were given so far.
    pub fn log(&mut self) -> Result<GivenLog> {
        let log = self.log.as_mut().context("no log of names is kept")?;
        log.so_far()
    }

    /// The server lost all of its keys with its process. Nobody deleted them, so no key that was
    /// given before gets a tombstone, whether it was given here or by another.
    pub fn all_lost(&mut self) {
        self.keys = OwnWrites::default();
        self.all_lost = true;
    }

    /// These were given by another: if they are gone, that has to be told.
    pub fn inherit(&mut self, db: u32, names: &[Vec<u8>]) -> Result<()> {
        if self.all_lost {
            return Ok(());
        }
        self.has_inherited = true;
        for name in names {
            let print = self.keys.fingerprint(db, name);
            self.keys.insert(print).context(REMEMBER)?;
        }
        Ok(())
    }

    /// Values of slots that are read elsewhere now are none of ours.
    pub fn keep_unheard_of(&mut self, slots: &SlotSet) {
        self.watched.keep_of(slots);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_before_the_server_lost_it_is_not_taken_for_deleted() {
        let mut given = Given::new(true).unwrap();
        given.note(Family::Redis, 0, b"before", b"").unwrap();
        given.all_lost();
        given.note(Family::Redis, 0, b"after", b"").unwrap();
        given.inherit(0, &[b"of another".to_vec()]).unwrap();
        let known = ["before", "of another", "after"].map(|name| {
            let name = name.as_bytes();
            given.knows(0, name).unwrap()
        });
        assert_eq!(known, [false, false, true]);
    }

    #[test]
    fn following_does_not_log_a_name_again_and_again_also_after_slots_moved() {
        let mut given = Given::new(true).unwrap();
        let names = ["ours", "inherited", "new"].map(str::as_bytes);
        given.note(Family::Redis, 0, names[0], b"").unwrap();
        given.follow();
        given.inherit(0, &[names[1].to_vec()]).unwrap();
        let mut write_all = |rounds: u32| {
            for _ in 0..rounds {
                for name in names {
                    given.note(Family::Redis, 0, name, b"").unwrap();
                }
            }
            given.log().unwrap().len()
        };
        let once = write_all(2);
        assert_eq!(write_all(1000), once);
        let log = given.log().unwrap();
        let mut log = given.not_met_of(vec![log], None);
        assert_eq!(log.next(100).unwrap()[0].1.len(), names.len());
        assert!(log.next(100).unwrap().is_empty());
    }
}
