//! The names of all keys that were given, in a temporary file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};

use anyhow::{Context as _, Result};

use crate::own_writes::OwnWrites;
use crate::place::store::Positioned;
use crate::source::server::SlotSet;

const READ: &str = "cannot read a temporary file";

/// Writes it.
pub(super) struct NameLog(BufWriter<File>);

impl NameLog {
    pub fn new() -> Result<Self> {
        let file = tempfile::tempfile().context("cannot create a temporary file")?;
        Ok(Self(BufWriter::new(file)))
    }

    pub fn add(&mut self, db: u32, key: &[u8]) -> Result<()> {
        const WHAT: &str = "cannot remember a key in a temporary file";
        let len = u32::try_from(key.len()).context("a key of over 4 GiB")?;
        self.0.write_all(&db.to_le_bytes()).context(WHAT)?;
        self.0.write_all(&len.to_le_bytes()).context(WHAT)?;
        self.0.write_all(key).context(WHAT)
    }

    /// All names so far.
    pub fn so_far(&mut self) -> Result<GivenLog> {
        self.0.flush().context("cannot write a temporary file")?;
        let mut file = self.0.get_ref().try_clone().context(READ)?;
        let end = file.stream_position().context(READ)?;
        Ok(GivenLog { file, at: 0, end })
    }
}

/// Names that were given, in a file.
#[derive(Debug)]
pub(in crate::source) struct GivenLog {
    file: File,
    at: u64,
    end: u64,
}

impl GivenLog {
    /// To be read once more.
    pub fn again(&self) -> Result<Self> {
        Ok(Self {
            file: self.file.try_clone().context(READ)?,
            at: 0,
            end: self.end,
        })
    }

    /// Of a node that gave nothing.
    #[cfg(test)]
    pub fn empty() -> Result<Self> {
        NameLog::new()?.so_far()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> u64 {
        self.end
    }

    /// The next names, until `take` has enough, which it says of each (database, name).
    fn read_on(&mut self, mut take: impl FnMut(u32, Vec<u8>) -> Result<bool>) -> Result<()> {
        // From a place of its own, so that the log can go on being written.
        let mut reader = BufReader::new(Positioned::new(&self.file, self.at));
        let mut goes_on = true;
        while goes_on && self.at < self.end {
            let mut head = [0u8; 8];
            reader.read_exact(&mut head).context(READ)?;
            let db = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
            let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            let mut key = vec![0; len];
            reader.read_exact(&mut key).context(READ)?;
            self.at += 8 + len as u64;
            goes_on = take(db, key)?;
        }
        Ok(())
    }

    fn is_at_end(&self) -> bool {
        self.at >= self.end
    }
}

/// Goes through logs of given names, for those that were not met again.
pub(in crate::source::server) struct NotMetAgain {
    logs: Vec<GivenLog>,
    /// Names of other slots are none of ours.
    slots: Option<Box<SlotSet>>,
    seen: OwnWrites,
}

impl std::fmt::Debug for NotMetAgain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NotMetAgain({} logs)", self.logs.len())
    }
}

impl NotMetAgain {
    pub(super) fn new(logs: Vec<GivenLog>, slots: Option<SlotSet>, seen: OwnWrites) -> Self {
        Self {
            logs,
            slots: slots.map(Box::new),
            seen,
        }
    }

    /// The next names by database, at most about `count`; none at the end.
    pub fn next(&mut self, count: usize) -> Result<Vec<(u32, Vec<Vec<u8>>)>> {
        let mut found: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
        let mut taken = 0;
        while taken < count
            && let Some(log) = self.logs.last_mut()
        {
            log.read_on(|db, key| {
                let slots = self.slots.as_ref();
                let is_ours = slots.is_none_or(|slots| slots.has_key(&key));
                // Once is enough, however often it was given.
                if is_ours && meet(&mut self.seen, db, &key)? {
                    found.entry(db).or_default().push(key);
                    taken += 1;
                }
                Ok(taken < count)
            })?;
            if log.is_at_end() {
                self.logs.pop();
            }
        }
        Ok(found.into_iter().collect())
    }
}

/// Meets the key; whether it was not met before.
fn meet(seen: &mut OwnWrites, db: u32, key: &[u8]) -> Result<bool> {
    let print = seen.fingerprint(db, key);
    let was_new = !seen
        .contains(print)
        .context("cannot look up a key in a temporary file")?;
    if was_new {
        seen.insert(print)
            .context("cannot remember a key in a temporary file")?;
    }
    Ok(was_new)
}
