//! What was given so far, where changes are followed: which keys, so that one that goes away gets a
//! tombstone; and which values may change without anybody being told (see [`super::unheard`]).

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};

use anyhow::{Context as _, Result};

use super::SlotSet;
use super::marks::Marks;
use super::unheard::{Module, Unheard, unheard};
use crate::own_writes::OwnWrites;
use crate::place::store::Positioned;
use crate::record::Family;

/// Bytes of names of values that may change unheard; with more of them exactness cannot be promised.
const MAX_UNHEARD_BYTES: usize = 8 * 1024 * 1024;

/// What such a value, or a large one, costs beside its name.
const OVERHEAD_BYTES: usize = 128;

/// A value that may change without anybody being told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watched {
    /// How it is kept current.
    pub how: Unheard,
    /// Of the payload.
    pub bytes: usize,
}

/// Values below this are not remembered by size.
const LARGE_BYTES: usize = 16 * 1024;

/// Bytes of names of large values that are kept in mind.
const MAX_LARGE_NAME_BYTES: usize = 4 * 1024 * 1024;

/// The memory of what was given.
pub(super) struct Given {
    keys: OwnWrites,
    log: Option<BufWriter<File>>,
    /// Keys met since the scan began anew, while it does.
    seen: Option<OwnWrites>,
    /// Values that may change unheard, by database and name.
    pub unheard: HashMap<(u32, Vec<u8>), Watched>,
    unheard_bytes: usize,
    /// Types of modules of which there are too many to be in [`Self::unheard`]. Their changes are
    /// announced, which the counts of their commands have to confirm.
    pub unlisted: Vec<&'static Module>,
    /// Large values, by database and name; what the last round would read is guessed from it.
    large: HashMap<u32, HashMap<Vec<u8>, usize>>,
    large_name_bytes: usize,
    /// More values that may change unheard than can be kept in mind.
    pub too_many_unheard: bool,
    /// Keys that could not be read when they were last asked for.
    failing: Marks,
    /// Of those, the ones whose values are larger than is taken.
    too_large: Marks,
    /// Changes are followed, perhaps for weeks: no name goes into the log twice.
    pub following: bool,
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
        let log = match with_log {
            true => Some(BufWriter::new(
                tempfile::tempfile().context("create a temporary file")?,
            )),
            false => None,
        };
        Ok(Self {
            keys: OwnWrites::default(),
            log,
            seen: None,
            unheard: HashMap::new(),
            unheard_bytes: 0,
            unlisted: Vec::new(),
            large: HashMap::new(),
            large_name_bytes: 0,
            too_many_unheard: false,
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
        const WHAT: &str = "remember a key in a temporary file";
        let print = self.keys.fingerprint(db, key);
        let is_logged = self.following && self.is_logged(db, key)?;
        self.keys.insert(print).context(WHAT)?;
        if let Some(seen) = &mut self.seen {
            let print = seen.fingerprint(db, key);
            seen.insert(print).context(WHAT)?;
        }
        if let Some(log) = &mut self.log
            && !is_logged
        {
            let len = u32::try_from(key.len()).context("a key of over 4 GiB")?;
            log.write_all(&db.to_le_bytes()).context(WHAT)?;
            log.write_all(&len.to_le_bytes()).context(WHAT)?;
            log.write_all(key).context(WHAT)?;
        }
        self.note_size(db, key, dump.len());
        self.note_unheard(family, db, key, dump);
        Ok(())
    }

    /// Whether the name is in the log, as far as is known; it is taken to be from now on.
    fn is_logged(&mut self, db: u32, key: &[u8]) -> Result<bool> {
        const WHAT: &str = "remember a key in a temporary file";
        if !self.knows(db, key)? {
            return Ok(false);
        }
        if !self.has_inherited {
            return Ok(true);
        }
        // It may be known from the log of another: it is written once more, and then no more.
        let print = self.logged_since.fingerprint(db, key);
        let is_logged = self.logged_since.contains(print).context(WHAT)?;
        if !is_logged {
            self.logged_since.insert(print).context(WHAT)?;
        }
        Ok(is_logged)
    }

    /// A value that may change unheard, given or left out for its size, has to be looked at again.
    pub fn note_unheard(&mut self, family: Family, db: u32, key: &[u8], dump: &[u8]) {
        let how = unheard(family, dump).filter(|how| !self.is_unlisted(how));
        let Some(how) = how else {
            self.forget_unheard(db, key);
            return;
        };
        let watched = Watched {
            how,
            bytes: dump.len(),
        };
        if self.unheard.insert((db, key.to_vec()), watched).is_none() {
            self.unheard_bytes += key.len() + OVERHEAD_BYTES;
            if self.unheard_bytes > MAX_UNHEARD_BYTES {
                self.unlist();
            }
        }
    }

    fn is_unlisted(&self, how: &Unheard) -> bool {
        matches!(how, Unheard::Counts(module) if self.unlisted.contains(module))
    }

    /// There are too many: what can be known by counts of commands goes first.
    fn unlist(&mut self) {
        let unlisted = &mut self.unlisted;
        let bytes = &mut self.unheard_bytes;
        self.unheard.retain(|(_, name), watched| {
            let Unheard::Counts(module) = watched.how else {
                return true;
            };
            if !unlisted.contains(&module) {
                unlisted.push(module);
            }
            *bytes -= name.len() + OVERHEAD_BYTES;
            false
        });
        if self.unheard_bytes > MAX_UNHEARD_BYTES {
            self.too_many_unheard = true;
            self.unheard = HashMap::new();
            self.unheard_bytes = 0;
        }
    }

    fn note_size(&mut self, db: u32, key: &[u8], bytes: usize) {
        let row = self.large.entry(db).or_default();
        if bytes < LARGE_BYTES {
            if row.remove(key).is_some() {
                self.large_name_bytes -= key.len() + OVERHEAD_BYTES;
            }
        } else if let Some(known) = row.get_mut(key) {
            *known = bytes;
        } else if self.large_name_bytes < MAX_LARGE_NAME_BYTES {
            row.insert(key.to_vec(), bytes);
            self.large_name_bytes += key.len() + OVERHEAD_BYTES;
        }
    }

    /// How large a value is likely to be; `otherwise` is what values are on the average.
    pub fn bytes_of(&self, db: u32, key: &[u8], otherwise: usize) -> usize {
        let known = self.large.get(&db).and_then(|row| row.get(key));
        match known {
            Some(bytes) => *bytes,
            None if self.large_name_bytes < MAX_LARGE_NAME_BYTES => otherwise.min(LARGE_BYTES),
            None => otherwise,
        }
    }

    /// A key is there no more, or is something else now.
    pub fn forget_unheard(&mut self, db: u32, key: &[u8]) {
        if !self.unheard.is_empty() && self.unheard.remove(&(db, key.to_vec())).is_some() {
            self.unheard_bytes -= key.len() + OVERHEAD_BYTES;
        }
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
        self.keys
            .contains(print)
            .context("look up a key in a temporary file")
    }

    /// The names of all values that may have changed unheard, as far as they are kept in mind.
    pub fn to_read_again(&self) -> impl Iterator<Item = Vec<u8>> {
        self.unheard.keys().map(|(_, name)| name.clone())
    }

    /// Whether there are values of this type, kept in mind or not.
    pub fn has_values_of(&self, module: &'static Module) -> bool {
        let mut watched = self.unheard.values();
        self.unlisted.contains(&module)
            || watched.any(|watched| watched.how == Unheard::Counts(module))
    }

    /// Whether some values that may have changed unheard are not kept in mind.
    pub fn forgot_unheard(&self) -> bool {
        self.too_many_unheard || !self.unlisted.is_empty()
    }

    /// The scan begins anew.
    pub fn begin_again(&mut self) {
        self.seen = Some(OwnWrites::default());
    }

    /// The new scan is through: what was given before, as these logs tell, and not met again, to be
    /// looked at; in these slots only.
    pub fn not_met_of(
        &mut self,
        logs: Vec<GivenLog>,
        slots: Option<SlotSet>,
    ) -> Result<NotMetAgain> {
        Ok(NotMetAgain {
            logs,
            slots,
            seen: self.seen.take().unwrap_or_default(),
        })
    }

    /// All names that were given so far.
    pub fn log(&mut self) -> Result<GivenLog> {
        let log = self.log.as_mut().context("no log of names is kept")?;
        log.flush().context("write a temporary file")?;
        let mut file = log.get_ref().try_clone().context("read a temporary file")?;
        let end = file.stream_position().context("read a temporary file")?;
        Ok(GivenLog { file, at: 0, end })
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
            self.keys
                .insert(print)
                .context("remember a key in a temporary file")?;
        }
        Ok(())
    }

    /// Values of slots that are read elsewhere now are none of ours.
    pub fn keep_unheard_of(&mut self, slots: &SlotSet) {
        let bytes = &mut self.unheard_bytes;
        self.unheard.retain(|(_, name), _| {
            let keep = slots.has_key(name);
            if !keep {
                *bytes -= name.len() + OVERHEAD_BYTES;
            }
            keep
        });
    }
}

/// Names that were given, in a file.
pub(in crate::source) struct GivenLog {
    file: File,
    at: u64,
    end: u64,
}

impl GivenLog {
    /// To be read once more.
    pub fn again(&self) -> Result<Self> {
        Ok(Self {
            file: self.file.try_clone().context("read a temporary file")?,
            at: 0,
            end: self.end,
        })
    }
}

/// Goes through logs of given names.
pub(super) struct NotMetAgain {
    logs: Vec<GivenLog>,
    slots: Option<SlotSet>,
    seen: OwnWrites,
}

impl NotMetAgain {
    /// The next names by database, at most about `count`; none at the end.
    pub fn next(&mut self, count: usize) -> Result<HashMap<u32, Vec<Vec<u8>>>> {
        let mut found: HashMap<u32, Vec<Vec<u8>>> = HashMap::new();
        let mut taken = 0;
        while taken < count
            && let Some(log) = self.logs.last_mut()
        {
            let mut reader = BufReader::new(Positioned::new(&log.file, log.at));
            while log.at < log.end && taken < count {
                let mut head = [0u8; 8];
                reader
                    .read_exact(&mut head)
                    .context("read a temporary file")?;
                let db = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
                let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
                let mut key = vec![0; len];
                reader
                    .read_exact(&mut key)
                    .context("read a temporary file")?;
                log.at += 8 + len as u64;
                if self
                    .slots
                    .as_ref()
                    .is_some_and(|slots| !slots.has_key(&key))
                {
                    continue;
                }
                let print = self.seen.fingerprint(db, &key);
                if !self
                    .seen
                    .contains(print)
                    .context("look up a key in a temporary file")?
                {
                    // Once is enough, however often it was given.
                    self.seen
                        .insert(print)
                        .context("remember a key in a temporary file")?;
                    found.entry(db).or_default().push(key);
                    taken += 1;
                }
            }
            if log.at >= log.end {
                self.logs.pop();
            }
        }
        Ok(found)
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
        given.following = true;
        given.inherit(0, &[names[1].to_vec()]).unwrap();
        let mut write_all = |rounds: u32| {
            for _ in 0..rounds {
                for name in names {
                    given.note(Family::Redis, 0, name, b"").unwrap();
                }
            }
            given.log().unwrap().end
        };
        let once = write_all(2);
        assert_eq!(write_all(1000), once);
        let log = given.log().unwrap();
        let mut log = given.not_met_of(vec![log], None).unwrap();
        assert_eq!(log.next(100).unwrap()[&0].len(), names.len());
    }
}
